"""Rate control between two real aiortc peers: what RTCP says is heard, lost packets go again, figures are told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from itertools import pairwise

import pytest
from aiortc import RTCPeerConnection, RTCRtpReceiver, RTCRtpSender, clock
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_FIR,
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    is_rtcp,
    pack_remb_fci,
)

from sender.control import ROOM, SendControl
from sender.pacer import FACTOR
from sender.rate import KeyframeGate
from sender.track import AccessUnitTrack
from shared.peer import close_peer, create_peer, prefer_h264, video_transceiver, wait_connected

UNIT = b"\0\0\0\1\x65" + bytes(range(1, 251)) * 12  # three packets
WAIT = 10.0


class Ends:
    """A sending peer with its control, a receiving one, and a wire on which chosen packets are lost."""

    def __init__(self) -> None:
        self.here, self.there = create_peer(), create_peer()
        self.track = AccessUnitTrack()
        self.gate = KeyframeGate()
        self.lose: Callable[[int], bool] = lambda _count: False
        self.sent: list[int] = []  # sequence numbers of new packets
        self.again = 0

    async def __aenter__(self) -> Ends:
        prefer_h264(self.here.addTransceiver("video", direction="sendonly"))
        self.sender: RTCRtpSender = video_transceiver(self.here).sender
        self.sender.replaceTrack(self.track)
        self.control = SendControl(self.sender, self.gate, 400e3, 100e3)
        await self.here.setLocalDescription(await self.here.createOffer())
        await self.there.setRemoteDescription(self.here.localDescription)
        self.receiver: RTCRtpReceiver = video_transceiver(self.there).receiver
        prefer_h264(video_transceiver(self.there))
        await self.there.setLocalDescription(await self.there.createAnswer())
        await self.here.setRemoteDescription(self.there.localDescription)
        send = self.sender.transport._send_rtp

        async def through(data: bytes) -> None:
            if not is_rtcp(data):
                number = int.from_bytes(data[2:4], "big")
                if int.from_bytes(data[8:12], "big") != self.sender._ssrc:
                    self.again += 1
                else:
                    self.sent.append(number)
                    if self.lose(len(self.sent)):
                        return
            await send(data)

        self.sender.transport._send_rtp = through  # type: ignore[method-assign]
        await wait_connected(self.here)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.track.finish()
        await close_peer(self.here)
        await close_peer(self.there)

    async def push(self, pictures: int) -> None:
        """Send so many, and let them leave."""
        goal = len(self.sent) + 3 * pictures
        for _ in range(pictures):
            self.track.push(UNIT, len(self.sent) * 3000)
            await asyncio.sleep(0.005)
        await until(lambda: len(self.sent) >= goal)

    async def hear(self, packet: RtcpRrPacket | RtcpRtpfbPacket | RtcpPsfbPacket) -> None:
        """As if the receiver had sent it."""
        await self.sender.transport._handle_rtcp_data(bytes(packet))

    def nack(self, *lost: int) -> RtcpRtpfbPacket:
        return RtcpRtpfbPacket(fmt=RTCP_RTPFB_NACK, ssrc=1, media_ssrc=self.sender._ssrc, lost=sorted(lost))


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT):
        while not done():
            await asyncio.sleep(0.01)


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    async with Ends() as both:
        yield both


async def test_a_lost_packet_is_asked_for_and_goes_again(ends: Ends) -> None:
    ends.lose = lambda count: count == 5
    await ends.push(4)
    await until(lambda: ends.control.retransmitted == 1)
    assert ends.again == 1
    assert ends.control.nacks >= 1
    assert ends.control.rtt is not None
    assert ends.control.rtt < 5
    assert 0.97 * 400e3 < ends.control.target < 400e3  # less what went twice
    assert ends.control.wire_bitrate > 0


async def test_where_packets_get_lost_an_answer_has_a_copy_and_new_ones_are_spaced(ends: Ends) -> None:
    await ends.push(1)
    assert not ends.control.tight
    left: list[float] = []
    ends.lose = lambda _count: bool(left.append(time.monotonic()))  # nothing; it only notes when
    await ends.push(1)
    together = left[-1] - left[0]
    await ends.hear(ends.nack(ends.sent[0], ends.sent[1]))
    assert ends.control.tight
    await until(lambda: ends.again == 4)  # two answers, two copies
    assert 0.85 * 400e3 < ends.control.target < 0.94 * 400e3
    assert ends.control.target == pytest.approx(ROOM * ends.control.usable)
    assert ends.control.retransmitted == 2
    left.clear()
    await ends.push(2)
    gaps = [later - earlier for earlier, later in pairwise(left)]
    assert max(gaps) > together / 2
    assert sum(gaps) > 5 * 1000 * 8 / (FACTOR * 400e3) * 0.8


async def test_packets_say_when_they_left(ends: Ends) -> None:
    """aiortc's abs-send-time, by which a request tells a loss from a guess."""
    await ends.push(1)
    age = ends.control._age(ends.sent[-1])
    assert age is not None
    assert 0 <= age < 5


async def test_a_guess_gets_no_copy(ends: Ends) -> None:
    await ends.push(2)
    await ends.hear(ends.nack(ends.sent[0], ends.sent[1]))  # a link that loses packets
    await until(lambda: ends.again == 4)
    await ends.push(1)
    await ends.hear(ends.nack(ends.sent[-1]))  # nothing behind it
    await until(lambda: ends.again == 5)
    await asyncio.sleep(0.05)
    assert ends.again == 5


async def test_copies_take_a_small_part_of_the_rate(ends: Ends) -> None:
    await ends.push(20)
    for start in range(0, 40, 4):
        await ends.hear(ends.nack(*ends.sent[start : start + 4]))
    await asyncio.sleep(0.1)
    copies = ends.again - ends.control.retransmitted
    assert 1 <= copies <= 4


async def test_reports_give_loss_and_round_trip(ends: Ends) -> None:
    await ends.push(2)
    sent_at, lsr = time.time() - 0.3, 12345
    ends.sender._RTCRtpSender__lsr, ends.sender._RTCRtpSender__lsr_time = lsr, sent_at  # type: ignore[attr-defined]

    def report(ssrc: int, lsr: int, lost: int) -> RtcpRrPacket:
        info = RtcpReceiverInfo(
            ssrc=ssrc, fraction_lost=lost, packets_lost=0, highest_sequence=0, jitter=0, lsr=lsr, dlsr=6554
        )
        return RtcpRrPacket(ssrc=1, reports=[info])

    await ends.hear(report(ends.sender._rtx_ssrc, lsr, 255))  # of retransmissions: says nothing of the link
    assert (ends.control.loss, ends.control.rtt) == (None, None)
    await ends.hear(report(ends.sender._ssrc, 99, 64))
    assert ends.control.loss == 0.25
    assert ends.control.rtt is None  # it answers another report
    await ends.hear(report(ends.sender._ssrc, lsr, 0))
    assert ends.control.loss == 0.125
    assert ends.control.rtt is not None
    assert 0.2 <= ends.control.rtt < 5
    figures = (await ends.sender.getStats()).values()
    assert any(figure.type == "remote-inbound-rtp" for figure in figures)  # aiortc hears it as well


async def test_remb_lowers_the_target(ends: Ends) -> None:
    await ends.push(40)
    for bitrate in (160_000, 150_000):
        fci = pack_remb_fci(bitrate, [ends.sender._ssrc])
        await ends.hear(RtcpPsfbPacket(fmt=RTCP_PSFB_APP, ssrc=1, media_ssrc=0, fci=fci))
    assert ends.control.remb == pytest.approx(150_000, rel=0.01)
    assert 100e3 <= ends.control.target <= 150e3
    assert ends.control.estimate is not None
    assert ends.control.estimate > ends.control.target


async def test_both_keyframe_requests_reach_the_gate(ends: Ends) -> None:
    await ends.hear(RtcpPsfbPacket(fmt=RTCP_PSFB_PLI, ssrc=1, media_ssrc=ends.sender._ssrc))
    assert ends.gate.due()
    await ends.hear(RtcpPsfbPacket(fmt=RTCP_PSFB_FIR, ssrc=1, media_ssrc=ends.sender._ssrc))
    assert ends.control.keyframe_requests == 2
    assert not ends.gate.due()  # one a second


async def test_what_is_gone_or_was_just_sent_is_refused(ends: Ends) -> None:
    await ends.push(2)
    lost = ends.sent[1]
    for _ in range(3):
        await ends.hear(ends.nack(lost))
    assert ends.again == ends.control.retransmitted == 1
    assert ends.control.refused == 2
    await ends.hear(ends.nack((lost - 1000) % 65536))
    assert ends.again == 1
    assert ends.control.refused == 3
    assert ends.control.nacks == 4


async def test_a_flood_of_nacks_is_answered_by_a_share(ends: Ends) -> None:
    await ends.push(40)
    for _ in range(20):
        await ends.hear(ends.nack(*ends.sent[-100:]))
    assert 0 < ends.again <= 12
    assert ends.control.nacks == 2000
    assert ends.control.retransmitted + ends.control.refused == 2000


async def test_the_round_trip_of_a_nack_is_the_age_of_the_packet_after_the_lost(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ends.push(2)
    now = clock.current_ntp_time
    monkeypatch.setattr(clock, "current_ntp_time", lambda: now() + (1 << 31))  # half a second later
    await ends.hear(ends.nack(*ends.sent[1:3]))
    assert ends.control.rtt is not None
    assert 0.5 <= ends.control.rtt < 5
    monkeypatch.setattr(clock, "current_ntp_time", lambda: now() - (1 << 34))  # a clock that was set back
    before = ends.control.rtt
    await ends.hear(ends.nack(ends.sent[3]))
    assert ends.control.rtt == before


def test_peers_are_closed_in_time() -> None:
    """The parts replaced must not keep a peer connection from closing."""

    async def run() -> RTCPeerConnection:
        async with Ends() as ends:
            await ends.push(1)
            return ends.here

    assert asyncio.run(run()).connectionState == "closed"


async def test_what_was_never_sent_or_only_late_is_no_loss(ends: Ends) -> None:
    await ends.push(1)
    beyond = (ends.sent[-1] + 1) & 0xFFFF
    await ends.hear(ends.nack(beyond, (beyond + 5000) & 0xFFFF))
    await ends.hear(ends.nack(ends.sent[-1]))  # nothing has come from behind it: a guess
    await ends.push(1)
    assert not ends.control.tight
    await ends.hear(ends.nack(beyond))  # lost after all: it was not taken for known
    await until(lambda: ends.again == 2)


async def test_without_rtx_an_answer_is_not_held_back(ends: Ends) -> None:
    await ends.push(1)
    ends.sender._RTCRtpSender__rtx_payload_type = None  # type: ignore[attr-defined]
    await ends.hear(ends.nack(ends.sent[0], ends.sent[1]))
    assert ends.control.tight
    start = time.monotonic()
    await ends.push(1)
    paced = time.monotonic() - start
    start = time.monotonic()
    await ends.hear(ends.nack(*ends.sent[-3:-1]))
    assert time.monotonic() - start < paced
