"""The receive path on a real RTCRtpReceiver: what is asked of the sender, and when it counts as silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from test_jitter import flat, pictures

from receiver import rtp
from receiver.jitter import AccessUnit
from receiver.rtp import ReceivePath
from shared.peer import create_peer, video_transceiver

PATIENCE = 10.0  # seconds after which a test gives up


class Path:
    """A receive path and what it did. `asked`: SSRCs of the keyframe requests; `silences`: seconds told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.units: list[AccessUnit] = []
        self.asked: list[int] = []
        self.silences: list[float] = []
        self.peer = create_peer()
        self.peer.addTransceiver("video", direction="recvonly")
        self.receiver = video_transceiver(self.peer).receiver
        monkeypatch.setattr(self.receiver, "_send_rtcp_pli", self.ask)
        self.path = ReceivePath(self.receiver, self.units.append, self.silent)

    async def ask(self, ssrc: int) -> None:
        self.asked.append(ssrc)

    async def silent(self, seconds: float) -> None:
        self.silences.append(seconds)


@pytest.fixture
async def path(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Path]:
    monkeypatch.setattr(rtp, "_PLI_GAP", 0.03)
    result = Path(monkeypatch)
    yield result
    result.path.close()
    await result.peer.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


async def test_aiortc_feeds_our_buffer(path: Path) -> None:
    assert path.receiver._RTCRtpReceiver__jitter_buffer is path.path.jitter


async def test_an_idr_is_asked_for_until_it_comes(path: Path) -> None:
    several = pictures(4, keyframes=(2,), ssrc=77)
    await asyncio.sleep(0.1)
    assert path.asked == []  # nobody there to ask
    for packet in flat(several[:2]):
        path.path.jitter.add(packet)
    await until(lambda: len(path.asked) >= 3)
    assert set(path.asked) == {77}
    for packet in flat(several[2:]):
        path.path.jitter.add(packet)
    count = len(path.asked)
    await asyncio.sleep(0.15)
    assert len(path.asked) == count
    assert path.path.plis == count
    assert len(path.units) == 4


async def test_a_request_is_passed_on_once(path: Path) -> None:
    path.path.request_keyframe()
    await asyncio.sleep(0.05)
    assert path.asked == []
    for packet in flat(pictures(1)):
        path.path.jitter.add(packet)
    await until(lambda: path.asked)  # kept until there is somebody to ask
    await asyncio.sleep(0.15)
    assert path.asked == [7]


async def test_a_hole_is_given_up_without_further_packets(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path.path.jitter, "_patience", 0.05)
    several = pictures(3)
    for packet in flat(several):
        if packet is not several[1][1]:
            path.path.jitter.add(packet)
    assert len(path.units) == 1
    await until(lambda: len(path.units) == 2)
    assert path.units[1].tainted
    await until(lambda: path.asked)


async def test_silence_is_told_only_after_media_has_begun(path: Path) -> None:
    await asyncio.sleep(1.2)
    assert path.silences == []
    path.path.jitter.add(pictures(1)[0][0])
    await until(lambda: path.silences)
    assert path.silences[0] > 1


async def test_losses_are_counted_by_aiortc(path: Path) -> None:
    assert path.path.packets_lost == 0

    class Statistics:
        packets_lost = 3

    path.path.jitter.add(pictures(1, ssrc=5)[0][0])
    path.receiver._RTCRtpReceiver__remote_streams[5] = Statistics()
    assert path.path.packets_lost == 3
    Statistics.packets_lost = -2  # more duplicates than losses (RFC 3550 appendix A.3)
    assert path.path.packets_lost == 0


async def test_closing_ends_the_timer(path: Path) -> None:
    path.path.close()
    for packet in flat(pictures(2, keyframes=())):
        path.path.jitter.add(packet)
    await asyncio.sleep(0.1)
    assert path.asked == []
