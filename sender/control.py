"""Rate control of a call at its sending end: what aiortc hears from the receiver, told to the policies.

Everything is replaced on the one RTCRtpSender given, and on its transport (names guarded in shared/peer.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

from aiortc import RTCDtlsTransport, RTCRtpSender, clock
from aiortc.rtp import (
    RTCP_RTPFB_NACK,
    RTP_HISTORY_SIZE,
    AnyRtcpPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSrPacket,
    RtpPacket,
    is_rtcp,
)
from aiortc.utils import uint16_add, uint16_gt

from sender.congestion import RateTarget
from sender.pacer import Pacer
from sender.rate import KeyframeGate
from sender.retransmission import ChanceLoss, RetransmissionGovernor
from sender.sent import PACKET_OVERHEAD
from sender.track import attach_encoder

ROOM = 0.93  # of the rate, where packets get lost: what goes again finds the link free sooner
_RTX_HEADER = 2  # bytes: the original sequence number (RFC 4588 section 4)
_ASKED = 256  # requested sequence numbers that are remembered: twice what can still be sent again
_COPY_AFTER = 0.01  # seconds from an answer to its copy: some losses take what is sent together
_BELOW_RTP = 38  # bytes: IPv4 20, UDP 8, SRTP tag 10
_SOON = 5e-4  # seconds; sleeping for less takes longer
_AGAIN: ContextVar[bool] = ContextVar("again", default=False)  # whether what is sent went before
_LONGEST_TRIP = 10.0  # seconds; what looks longer is a clock that was set


class SendControl:
    """Gives the target rate of a call and answers retransmission and keyframe requests.

    Belongs to the loop's thread; the figures may be read from any. `ceiling`, `floor`: bit/s of coded video.
    `monotonic`: seconds.
    """

    def __init__(
        self,
        sender: RTCRtpSender,
        gate: KeyframeGate,
        ceiling: float,
        floor: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sender, self._gate, self._floor = sender, gate, min(floor, ceiling)
        self._rates = RateTarget(ceiling, floor, monotonic)
        self._governor = RetransmissionGovernor(lambda: self._rates.bitrate, clock=monotonic)
        self._chance = ChanceLoss(monotonic)
        self._copying: set[asyncio.Task[None]] = set()  # or they would be collected on the way
        self._pacer = Pacer(lambda: self._rates.bitrate, monotonic)
        self._paced: RTCDtlsTransport | None = None
        self._asked: dict[int, None] = {}
        self._gone = 0
        self._retransmit_now: Callable[[int], Coroutine[Any, Any, None]] = sender._retransmit
        self._handle: Callable[[AnyRtcpPacket], Coroutine[Any, Any, None]] = sender._handle_rtcp_packet
        self.target = self._rates.bitrate
        """What the encoder is to spend, bit/s."""
        self.usable = self.target
        """What it could spend if nothing were kept free for what goes again, bit/s."""
        self.estimate: float | None = None
        """What the link is believed to carry, bit/s on the wire; None while nothing speaks against the ceiling."""
        self.remb = 0
        """The last REMB, bit/s; 0 before the first."""
        self.loss: float | None = None
        """Fraction lost in the receiver reports of the last seconds, 0..1."""
        self.rtt: float | None = None
        """The last round trip, seconds."""
        self.tight = False
        """Whether the link has no rate to spare, or loses packets: what goes over it should be even."""
        self.wire_bitrate = 0.0
        """Bit/s sent in the last second, headers down to IP and retransmissions included."""
        self.nacks = 0
        """Packets asked for again, every request counted."""
        self.keyframe_requests = 0
        """PLI and FIR."""
        attach_encoder(sender, self._keyframe_wanted, self._estimated, self._packed)
        sender._retransmit = self._retransmit  # type: ignore[method-assign]
        sender._handle_rtcp_packet = self._heard  # type: ignore[method-assign]

    @property
    def retransmitted(self) -> int:
        """Packets sent again, copies not counted."""
        return self._governor.retransmitted

    @property
    def refused(self) -> int:
        """Requests for a packet that were not served: too much, too soon, or too late."""
        return self._governor.refused + self._gone

    def _packed(self, payload: int, packets: int) -> None:
        if self._sender.transport is not self._paced:  # known for good only after negotiation (BUNDLE)
            self._paced = self._sender.transport
            self._paced._send_rtp = self._spaced(self._paced._send_rtp)  # type: ignore[method-assign, assignment]
        self._rates.sent(payload, packets)
        self._rates.update()
        self._publish()

    def _estimated(self, bitrate: int) -> None:
        self._rates.estimated(bitrate)
        self._publish()

    def _keyframe_wanted(self) -> None:
        self.keyframe_requests += 1
        self._gate.request()

    def _publish(self) -> None:
        rates = self._rates
        self.usable = rates.bitrate
        self.target = max(self._floor, self.usable * (ROOM if self._chance.recent else 1.0))
        self.estimate, self.remb, self.rtt = rates.estimate, rates.remb, rates.rtt
        self.loss, self.wire_bitrate = rates.loss, rates.wire
        self.tight = rates.estimate is not None or self._chance.recent

    def _spaced(
        self, send: Callable[[bytes], Coroutine[Any, Any, None]]
    ) -> Callable[[bytes], Coroutine[Any, Any, None]]:
        """`send`, but after a new packet of this sender others wait for their turn, where some get lost.

        After, not before: aiortc stamps the next one when this one is through (abs-send-time), and a wait that came
        after the stamp would look like a queue.
        """

        async def leave(data: bytes) -> None:
            await send(data)
            if is_rtcp(data):
                return
            rest = self._pacer.sent(len(data) + _BELOW_RTP)
            new = not _AGAIN.get() and int.from_bytes(data[8:12], "big") == self._sender._ssrc
            if new and self._chance.recent and rest > _SOON:
                await asyncio.sleep(rest)

        return leave

    async def _heard(self, packet: AnyRtcpPacket) -> None:
        if isinstance(packet, RtcpRrPacket | RtcpSrPacket):
            for report in packet.reports:
                if report.ssrc == self._sender._ssrc:
                    self._rates.reported(report.fraction_lost / 256, self._round_trip(report))
        elif isinstance(packet, RtcpRtpfbPacket) and packet.fmt == RTCP_RTPFB_NACK:
            self._asked_for([number & 0xFFFF for number in packet.lost])  # aiortc does not wrap a mask's numbers
        self._publish()
        await self._handle(packet)

    def _round_trip(self, report: RtcpReceiverInfo) -> float | None:
        """Seconds, by the last sender report (RFC 3550 section 6.4.1); None where the report answers none."""
        sender = self._sender
        sent_at = sender._RTCRtpSender__lsr_time  # type: ignore[attr-defined]
        if not report.dlsr or sent_at is None or report.lsr != sender._RTCRtpSender__lsr:  # type: ignore[attr-defined]
            return None
        return _plausible(time.time() - sent_at - report.dlsr / 65536)

    def _asked_for(self, lost: list[int]) -> None:
        self.nacks += len(lost)
        fresh = [number for number in lost if number not in self._asked and self._kept(number) is not None]
        for number in fresh:
            self._asked[number] = None
        while len(self._asked) > _ASKED:
            del self._asked[next(iter(self._asked))]
        # Those that the packet after them showed to be lost. Others were only late when they were asked for
        # (receiver/tail.py), and may have come since.
        shown = [number for number in fresh if self._rates.may_be_trip(self._age(uint16_add(number, 1)))]
        if shown:
            self._chance.lost(len(shown))
            newest = shown[0]
            for number in shown:
                newest = number if uint16_gt(number, newest) else newest
            self._rates.nacked(len(shown), self._age(uint16_add(newest, 1)))

    def _age(self, sequence_number: int) -> float | None:
        """Seconds since a packet left, by its abs-send-time extension (24 bits, 6.18 fixed point)."""
        packet = self._kept(sequence_number)
        if packet is None or packet.extensions.abs_send_time is None:
            return None
        age = ((clock.current_ntp_time() >> 14) - packet.extensions.abs_send_time) & 0xFFFFFF
        return _plausible(age / (1 << 18))

    def _kept(self, sequence_number: int) -> RtpPacket | None:
        history: dict[int, RtpPacket] = self._sender._RTCRtpSender__rtp_history  # type: ignore[attr-defined]
        packet = history.get(sequence_number % RTP_HISTORY_SIZE)
        return packet if packet is not None and packet.sequence_number == sequence_number else None

    async def _retransmit(self, sequence_number: int) -> None:
        sequence_number &= 0xFFFF
        packet = self._kept(sequence_number)
        if packet is None:
            self._gone += 1
            return
        size = len(packet.payload) + _RTX_HEADER
        # Asked for before anything had come from behind it (receiver/tail.py): it may well be on its way.
        guess = not self._rates.may_be_trip(self._age(uint16_add(sequence_number, 1)))
        if self._governor.allow(sequence_number, size + PACKET_OVERHEAD, self._rates.rtt):
            self._rates.sent(size, 1, again=True)
            await self._at_once(sequence_number)
            if guess or not self._chance.recent or self._rates.queued:
                return
            if self._governor.allow_copy(size + PACKET_OVERHEAD):
                self._rates.sent(size, 1, again=True)
                copying = asyncio.ensure_future(self._copy(sequence_number))
                self._copying.add(copying)
                copying.add_done_callback(self._copying.discard)

    async def _copy(self, sequence_number: int) -> None:
        await asyncio.sleep(_COPY_AFTER)
        with contextlib.suppress(Exception):  # a copy is worth no trouble
            await self._at_once(sequence_number)

    async def _at_once(self, sequence_number: int) -> None:
        token = _AGAIN.set(True)
        try:
            await self._retransmit_now(sequence_number)
        finally:
            _AGAIN.reset(token)


def _plausible(seconds: float) -> float | None:
    return seconds if 0 <= seconds <= _LONGEST_TRIP else None
