"""The sending end's `Stats`: what is coded, what the link control knows, what RTCP reports say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from aiortc.stats import RTCOutboundRtpStreamStats, RTCRemoteInboundRtpStreamStats, RTCStats

from sender.control import SendControl
from shared.picture import CLOCK_RATE
from shared.stats import Stats


def call_stats(coded: Stats, reports: Iterable[RTCStats], link: SendControl | None) -> Stats:
    """`coded` with the link's figures filled in.

    `reports`: an RTCRtpSender's; of the newest receiver report (RFC 3550 section 6.4) come packets lost and jitter.
    """
    stats = coded
    for report in reports:
        if isinstance(report, RTCOutboundRtpStreamStats):
            stats = replace(stats, packets=report.packetsSent)
        elif isinstance(report, RTCRemoteInboundRtpStreamStats):
            # A receiver that got a packet twice may report less than none lost.
            stats = replace(stats, lost=max(report.packetsLost, 0), jitter_ms=report.jitter / CLOCK_RATE * 1e3)
    if link is None:
        return stats
    return replace(
        stats,
        target_kbps=link.target / 1e3,
        link_kbps=None if link.estimate is None else link.estimate / 1e3,
        wire_kbps=link.wire_bitrate / 1e3,
        loss=link.loss,
        rtt_ms=None if link.rtt is None else link.rtt * 1e3,
        nacks=link.nacks,
        retransmitted=link.retransmitted,
        plis=link.keyframe_requests,
    )
