"""The receive path on a real RTCRtpReceiver: what is asked of the sender, and when it counts as silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtp import RtpPacket, wrap_rtx
from test_jitter import Packet, flat, pictures

from receiver import keyframes, nack, watchdog
from receiver.jitter import AccessUnit
from receiver.rtp import ReceivePath
from shared.peer import create_peer, video_transceiver

PATIENCE = 10.0  # seconds after which a test gives up
MEDIA, RTX = 1000, 2000  # SSRCs


class Path:
    """A receive path and what it did. `asked`: SSRCs of the keyframe requests; `lost`: SSRC and numbers of NACKs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.units: list[AccessUnit] = []
        self.asked: list[int] = []
        self.lost: list[tuple[int, list[int]]] = []
        self.silences = 0
        self.peer = create_peer()
        self.peer.addTransceiver("video", direction="recvonly")
        self.receiver = video_transceiver(self.peer).receiver
        monkeypatch.setattr(self.receiver, "_send_rtcp_pli", self.ask)
        monkeypatch.setattr(self.receiver, "_send_rtcp_nack", self.ask_again)
        self.path = ReceivePath(self.receiver, self.units.append, self.silent)
        self.path.buffer._parameters = True  # as if parameter sets had come: pictures here have none

    async def ask(self, ssrc: int) -> None:
        self.asked.append(ssrc)

    async def ask_again(self, ssrc: int, lost: list[int]) -> None:
        self.lost.append((ssrc, lost))

    async def silent(self) -> None:
        self.silences += 1

    def begin(self) -> None:
        """As RTCRtpReceiver.receive does, but without transport, RTCP and decoder."""
        video = RTCRtpCodecParameters("video/H264", 90_000, payloadType=96)
        again = RTCRtpCodecParameters("video/rtx", 90_000, payloadType=97, parameters={"apt": 96})
        self.receiver._RTCRtpReceiver__codecs = {codec.payloadType: codec for codec in (video, again)}
        self.receiver._RTCRtpReceiver__rtx_ssrc = {RTX: MEDIA}

    async def arrive(self, number: int, nal: int | None = None, marker: int = 1, again: bool = False) -> None:
        """A picture of one packet, the first an IDR; `nal`: its header; `again`: retransmitted (RFC 4588)."""
        header = nal if nal is not None else 0x65 if number == 0 else 0x41
        payload = bytes([header]) + b"\x88" * 8
        packet = RtpPacket(
            payload_type=96,
            marker=marker,
            sequence_number=number,
            timestamp=number * 3000,
            ssrc=MEDIA,
            payload=payload,
        )
        if again:
            packet = wrap_rtx(packet, payload_type=97, sequence_number=number, ssrc=RTX)
        await self.receiver._handle_rtp_packet(packet, arrival_time_ms=number * 33)

    @property
    def numbers(self) -> list[int]:
        return [number for _, numbers in self.lost for number in numbers]


@pytest.fixture
async def path(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Path]:
    monkeypatch.setattr(keyframes, "_LEAST", 0.03)
    monkeypatch.setattr(keyframes, "_SENDING", 0.0)
    monkeypatch.setattr(keyframes, "_QUIET", PATIENCE)
    result = Path(monkeypatch)
    yield result
    result.path.close()
    await result.peer.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


def feed(path: Path, *several: list[Packet]) -> None:
    for packet in flat(list(several)):
        path.path.buffer.add(packet)


async def test_aiortc_feeds_our_parts(path: Path) -> None:
    path.begin()
    assert path.receiver._RTCRtpReceiver__jitter_buffer is path.path.buffer
    for number in range(3):
        await path.arrive(number)
    assert [unit.rtp_ticks for unit in path.units] == [0, 3000, 6000]
    assert path.units[0].keyframe
    assert path.receiver._RTCRtpReceiver__decoder_queue.empty()  # nobody would take anything out
    assert path.path.jitter is not None
    assert path.path.jitter >= 0


async def test_a_lost_packet_is_asked_for_again_and_its_retransmission_taken(path: Path) -> None:
    path.begin()
    for number in (0, 1, 3, 4):
        await path.arrive(number)
    assert path.lost == [(MEDIA, [2])]  # at once, by aiortc
    await until(lambda: path.numbers.count(2) >= 2)  # then by the timer
    assert path.path.nacks == len(path.numbers)
    assert len(path.units) == 2
    await path.arrive(2, again=True)
    assert [unit.rtp_ticks // 3000 for unit in path.units] == [0, 1, 2, 3, 4]
    assert not any(unit.tainted for unit in path.units)
    assert path.path.recovered == 1
    assert path.path.packets_lost == 1
    assert path.path.rtt is None  # of two tries
    await path.arrive(6)
    await until(lambda: 5 in path.numbers)
    await path.arrive(5, again=True)
    assert path.path.rtt is not None
    assert path.path.skipped == 0


async def test_what_is_given_up_is_not_asked_for_any_more(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nack, "_PATIENCE", (0.05, 0.05))
    path.begin()
    for number in (0, 2, 3):
        await path.arrive(number)
    await until(lambda: path.path.skipped)
    assert [unit.tainted for unit in path.units] == [False, True]
    assert path.path.patience == 0.05
    await until(lambda: path.asked)
    count = len(path.lost)
    await asyncio.sleep(0.3)
    assert len(path.lost) == count
    assert path.numbers.count(1) == count


async def test_what_an_idr_makes_useless_is_not_asked_for_any_more(path: Path) -> None:
    path.begin()
    await path.arrive(0, nal=0x41)  # nothing is clean before the first IDR
    await path.arrive(2, nal=0x67, marker=0)
    await path.arrive(3, nal=0x65)
    assert [unit.rtp_ticks // 3000 for unit in path.units] == [0, 3]
    assert path.numbers == [1]  # before the rest of the IDR was there
    await asyncio.sleep(0.25)
    assert path.numbers == [1]


async def test_an_idr_is_asked_for_until_it_comes(path: Path) -> None:
    several = pictures(4, keyframes=(2,), ssrc=77)
    await asyncio.sleep(0.1)
    assert path.asked == []  # nobody there to ask
    feed(path, *several[:2])
    await until(lambda: len(path.asked) >= 3)
    assert set(path.asked) == {77}
    feed(path, *several[2:])
    count = len(path.asked)
    await asyncio.sleep(0.15)
    assert len(path.asked) == count
    assert path.path.plis == count
    assert len(path.units) == 4


async def test_what_the_decoder_asks_for_is_passed_on_until_an_idr(path: Path) -> None:
    feed(path, *pictures(1))
    await asyncio.sleep(0.05)
    assert path.asked == []
    path.path.request_keyframe()
    await until(lambda: len(path.asked) >= 2)
    assert set(path.asked) == {7}
    feed(path, *pictures(1, first=3, timestamp=3000))
    count = len(path.asked)
    await asyncio.sleep(0.15)
    assert len(path.asked) == count


async def test_a_hole_is_given_up_without_further_packets(path: Path) -> None:
    several = pictures(3)
    for packet in flat(several):
        if packet is not several[1][1]:
            path.path.buffer.add(packet)
    assert len(path.units) == 1
    await until(lambda: len(path.units) == 2)
    assert path.units[1].tainted
    await until(lambda: path.asked)


async def test_silence_ends_the_call_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "OVER", 0.3)
    feed(path, pictures(1)[0])
    await until(lambda: path.silences)
    assert path.path.silence >= 0.3
    await asyncio.sleep(0.1)
    assert path.silences == 1


async def test_figures_before_media(path: Path) -> None:
    assert (
        path.path.packets_lost == path.path.nacks == path.path.recovered == path.path.plis == path.path.skipped == 0
    )
    assert path.path.rtt is None
    assert path.path.jitter is None
    assert path.path.patience > 0


async def test_more_duplicates_than_losses_are_no_losses(path: Path) -> None:
    """RFC 3550 appendix A.3."""
    path.begin()
    for number in (0, 1, 1, 1):
        await path.arrive(number)
    assert path.path.packets_lost == 0


async def test_closing_ends_the_timer(path: Path) -> None:
    path.path.close()
    feed(path, *pictures(2, keyframes=()))
    await asyncio.sleep(0.1)
    assert path.asked == []
