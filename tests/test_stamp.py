"""The capture stamp inside the stream, and the clock that spreads it over the pictures."""

from __future__ import annotations

import av
import numpy as np
import pytest
from aiortc.jitterbuffer import JitterFrame
from hypothesis import given
from hypothesis import strategies as st

from receiver.decoder import Decoder
from receiver.jitter import AccessUnit, MarkerJitterBuffer
from sender.encoder import SemanticEncoder
from shared.astronaut import AstronautClip
from shared.grid import grid_shape
from shared.h264 import nal_type, nal_units
from shared.picture import CLOCK_RATE, Picture
from shared.stamp import CaptureClock, Stamp, read_stamp, write_stamp

ticks = st.integers(0, 2**63)
shares = st.none() | st.floats(0, 1)


@given(ticks, shares)
def test_round_trip(when: int, share: float | None) -> None:
    stamp = read_stamp(write_stamp(Stamp(when, share)) + b"\0\0\1\x65rest")
    assert stamp is not None
    assert stamp.ticks == when
    assert stamp.face_share == (None if share is None else pytest.approx(share, abs=5e-5))


@given(ticks, shares)
def test_needs_no_emulation_prevention(when: int, share: float | None) -> None:
    data = write_stamp(Stamp(when, share))
    assert data.startswith(b"\0\0\0\1")
    assert b"\0" not in data[4:]
    (unit,) = nal_units(data)
    assert nal_type(unit) == 6
    assert unit[2] == len(unit) - 4  # payload size: without header, type, itself and the stop bit


@given(st.integers(0, 39))
def test_cut_short_is_no_stamp(length: int) -> None:
    whole = write_stamp(Stamp(2**50 + 3, 0.25))
    cut = whole[:length]
    expected = Stamp(2**50 + 3, 0.25) if length >= len(whole) - 1 else None  # the stop bit says nothing
    assert read_stamp(cut) == expected
    assert read_stamp(b"") is None


def test_share_outside_its_range_is_clipped() -> None:
    assert read_stamp(write_stamp(Stamp(1, 1.7))) == Stamp(1, 1.0)
    assert read_stamp(write_stamp(Stamp(1, -0.2))) == Stamp(1, 0.0)


def test_decoders_skip_it_and_ours_reads_it() -> None:
    clip = AstronautClip((160, 96))
    encoder = SemanticEncoder(160, 96, 100e3, 0.3)
    mask = np.zeros(grid_shape(160, 96), np.bool_)
    stock = av.CodecContext.create("h264", "r")
    stock.thread_count = 1
    decoder = Decoder()
    plain: list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]] = []
    start = 1_700_000_000 * CLOCK_RATE
    for index in range(3):
        unit, _ = encoder.encode(Picture(clip.picture(index), start + index * 3000, index), mask)
        if index == 0:
            unit = write_stamp(Stamp(start, 0.123)) + unit
        plain += [frame.to_ndarray() for frame in stock.decode(av.Packet(unit))]
        (picture,) = decoder.decode(AccessUnit(unit, 77 + index * 3000, 0.0, index == 0, False))
        assert picture.captured == pytest.approx((start + index * 3000) / CLOCK_RATE, abs=1e-6)
        assert picture.stamped == (index == 0)
    plain += [frame.to_ndarray() for frame in stock.decode(None)]
    assert len(plain) == 3
    assert decoder.face_share == pytest.approx(0.123)


def test_clock_without_a_stamp() -> None:
    clock = CaptureClock()
    assert clock.captured_ticks(5) is None
    assert clock.captured(5) == 0.0


def test_clock_runs_on_where_rtp_timestamps_wrap() -> None:
    class Fragment:
        marker, ssrc = 1, 9

        def __init__(self, number: int, timestamp: int) -> None:
            self.sequence_number, self.timestamp, self._data = number, timestamp, b"\0\0\0\1\x65x"

    units: list[AccessUnit] = []
    jitter = MarkerJitterBuffer(units.append)
    jitter._parameters = True  # as if they had come
    first = 2**32 - 4500
    for index in range(4):
        returned = jitter.add(Fragment(index, (first + 3000 * index) % 2**32))  # type: ignore[arg-type]
        frame = next((part for part in returned if isinstance(part, JitterFrame)), None)
        assert frame is None  # delivered by the callback, never to aiortc's own decoder
    clock = CaptureClock()
    start = 1_700_000_000 * CLOCK_RATE
    clock.observe(Stamp(start, None), units[0].rtp_ticks)
    assert [clock.captured_ticks(unit.rtp_ticks) for unit in units] == [start + 3000 * n for n in range(4)]
    assert clock.captured(units[3].rtp_ticks) == pytest.approx(1_700_000_000.1)
