"""Our access units through aiortc: queued whole, packed by RFC 6184, nothing lost on the way."""

from __future__ import annotations

import asyncio

import av
import numpy as np
import pytest
from aiortc.codecs.h264 import h264_depayload
from aiortc.mediastreams import MediaStreamError

from sender.encoder import SemanticEncoder
from sender.track import AccessUnitTrack, PackingEncoder
from shared.astronaut import AstronautClip
from shared.grid import grid_shape
from shared.h264 import nal_type, nal_units
from shared.picture import Picture
from shared.stamp import Stamp, write_stamp


@pytest.fixture(scope="module")
def units() -> list[bytes]:
    """An IDR with its parameter sets and stamp, and P pictures, at 640x360: more than one packet each."""
    clip, encoder = AstronautClip((640, 360)), SemanticEncoder(640, 360, 900e3, 0.3)
    mask = np.zeros(grid_shape(640, 360), np.bool_)
    coded = [encoder.encode(Picture(clip.picture(n), n * 3000, n), mask)[0] for n in range(4)]
    return [write_stamp(Stamp(12345, 0.2)) + coded[0], *coded[1:]]


async def test_units_leave_in_order_with_their_times(units: list[bytes]) -> None:
    track = AccessUnitTrack()
    start = 1_700_000_000 * 90_000
    for index, unit in enumerate(units):
        track.push(unit, start + index * 3000)
    track.finish()
    for index, unit in enumerate(units):
        packet = await track.recv()
        assert isinstance(packet, av.Packet)
        assert bytes(packet) == unit
        assert packet.pts == start + index * 3000
        assert packet.time_base is not None
        assert 1 / packet.time_base == 90_000
    with pytest.raises(MediaStreamError):
        await track.recv()
    assert track.readyState == "ended"
    with pytest.raises(MediaStreamError):
        await track.recv()


async def test_waits_for_the_next_unit() -> None:
    track = AccessUnitTrack()
    waiting = asyncio.ensure_future(track.recv())
    await asyncio.sleep(0)
    assert not waiting.done()
    track.push(b"\0\0\0\1\x41x", 5)
    assert bytes(await waiting) == b"\0\0\0\1\x41x"


async def test_congestion_is_told_and_drops_nothing() -> None:
    track = AccessUnitTrack()
    for index in range(12):
        assert track.congested == (index >= 8)
        track.push(bytes([index + 1]), index)
    left = [bytes(await track.recv())[0] for _ in range(5)]
    assert left == [1, 2, 3, 4, 5]
    assert not track.congested
    assert [bytes(await track.recv())[0] for _ in range(7)] == [6, 7, 8, 9, 10, 11, 12]


def test_payloads_hold_the_same_nal_units(units: list[bytes]) -> None:
    encoder = PackingEncoder(lambda _bitrate: None)
    kinds = set()
    for index, unit in enumerate(units):
        packet = av.Packet(unit)
        packet.pts = 2**32 - 3000 + index * 3000
        payloads, timestamp = encoder.pack(packet)
        assert timestamp == (2**32 - 3000 + index * 3000) % 2**32
        assert max(map(len, payloads)) <= 1300
        again = b"".join(h264_depayload(payload) for payload in payloads)
        assert nal_units(again) == nal_units(unit)
        kinds |= {payload[0] & 0x1F for payload in payloads}
    assert 28 in kinds  # FU-A: the pictures are larger than a packet
    assert [nal_type(unit) for unit in nal_units(units[0])][:3] == [6, 7, 8]


def test_an_estimate_is_passed_on_and_never_clamped() -> None:
    told: list[int] = []
    encoder = PackingEncoder(told.append)
    assert encoder.target_bitrate == 0
    encoder.target_bitrate = 120_000  # stock aiortc has a floor of 500 kb/s
    encoder.target_bitrate = 9_000_000
    assert told == [120_000, 9_000_000]
    assert encoder.target_bitrate == 9_000_000
