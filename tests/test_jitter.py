"""The jitter buffer: pictures leave in order, at once, at most once, and no hole stops them for long."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np
import pytest
from aiortc.codecs.h264 import H264Encoder, H264PayloadDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver import jitter
from receiver.jitter import AccessUnit, MarkerJitterBuffer

PERIOD = 3000  # ticks of a picture at 30 fps


@dataclass(frozen=True)
class Packet:
    sequence_number: int
    timestamp: int
    marker: int
    _data: bytes = b"x"
    ssrc: int = 7


@dataclass
class Line:
    """A buffer with a clock of its own; what it delivers is kept."""

    patience: float = 0.25
    now: float = 100.0
    out: list[AccessUnit] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.buffer = MarkerJitterBuffer(self.out.append, self.patience, lambda: self.now)
        self.buffer._parameters = True  # as if they had come: most pictures here have none

    def feed(self, *packets: Packet) -> None:
        for packet in packets:
            assert self.buffer.add(packet) == (False, None)  # to aiortc: no PLI, nothing to decode

    def wait(self, seconds: float) -> None:
        """Let time pass as receiver/rtp.py does."""
        for _ in range(round(seconds / 0.01)):
            self.now += 0.01
            self.buffer.expire()

    @property
    def ticks(self) -> list[int]:
        return [unit.rtp_ticks for unit in self.out]


IDR, OTHER = b"\0\0\0\1\x65", b"\0\0\0\1\x41"


def pictures(
    count: int, each: int = 3, first: int = 0, timestamp: int = 0, ssrc: int = 7, keyframes: tuple[int, ...] = (0,)
) -> list[list[Packet]]:
    """`count` pictures of `each` packets; every packet's bytes are unlike all others'."""
    result, number = [], first
    for index in range(count):
        packets = []
        for part in range(each):
            start = (IDR if index in keyframes else OTHER) if part == 0 else b""
            data = start + b"\x88%d.%d;" % (index, part)
            when = (timestamp + index * PERIOD) & 0xFFFFFFFF
            packets.append(Packet(number & 0xFFFF, when, int(part == each - 1), data, ssrc))
            number += 1
        result.append(packets)
    return result


def whole(picture: list[Packet]) -> bytes:
    return b"".join(packet._data for packet in picture)


def flat(several: list[list[Packet]]) -> list[Packet]:
    return [packet for picture in several for packet in picture]


def test_a_picture_leaves_with_its_marker() -> None:
    line = Line()
    (first, second) = pictures(2)
    line.feed(*first[:2])
    assert line.out == []
    line.feed(first[2])
    assert [unit.data for unit in line.out] == [whole(first)]
    assert line.out[0].keyframe
    assert not line.out[0].tainted
    line.feed(*second)
    assert line.ticks == [0, PERIOD]
    assert not line.out[1].keyframe
    assert line.buffer.bytes_received == len(whole(first)) + len(whole(second))
    assert line.buffer.ssrc == 7


def test_reordered_packets_and_pictures_leave_in_order() -> None:
    line = Line()
    several = pictures(3)
    a, b, c = several
    line.feed(a[0], a[2], b[1], a[1])
    assert line.ticks == [0]
    line.feed(c[2], b[0], c[0])
    assert line.ticks == [0]
    line.feed(b[2])
    assert line.ticks == [0, PERIOD]
    line.feed(c[1])
    assert [unit.data for unit in line.out] == [whole(picture) for picture in several]


def test_a_late_repair_fills_the_hole() -> None:
    line = Line()
    several = pictures(4)
    missing = several[1][1]
    line.feed(*(packet for packet in flat(several) if packet is not missing))
    line.wait(0.2)
    assert line.ticks == [0]
    line.feed(missing)  # the retransmission
    assert [unit.data for unit in line.out] == [whole(picture) for picture in several]
    assert not any(unit.tainted for unit in line.out)
    assert line.buffer.skipped == 0
    assert not line.buffer.needs_keyframe


def test_a_hole_that_stays_costs_its_picture_and_taints_up_to_the_next_idr() -> None:
    line = Line()
    several = pictures(6, keyframes=(0, 4))
    line.feed(*(packet for packet in flat(several[:4]) if packet is not several[1][0]))
    assert line.ticks == [0]
    line.wait(0.24)
    assert line.ticks == [0]
    assert not line.buffer.needs_keyframe
    line.wait(0.04)
    assert line.ticks == [0, 2 * PERIOD, 3 * PERIOD]
    assert [unit.tainted for unit in line.out] == [False, True, True]
    assert line.buffer.skipped == 1
    assert line.buffer.needs_keyframe
    line.feed(*flat(several[4:]))
    assert [unit.tainted for unit in line.out[3:]] == [False, False]
    assert not line.buffer.needs_keyframe
    line.feed(several[1][0])  # comes after all, too late
    assert len(line.out) == 5


def test_a_lost_marker_costs_the_two_pictures_that_it_divides() -> None:
    line = Line()
    several = pictures(4)
    line.feed(*(packet for packet in flat(several) if packet is not several[1][2]))
    line.wait(0.3)
    assert line.ticks == [0, 3 * PERIOD]  # whether the lost packet began the third picture, nobody knows


def test_every_hole_has_its_own_time() -> None:
    line = Line()
    several = pictures(3)
    a, b, _ = several
    line.feed(a[1])  # joins in the middle of a picture
    line.feed(a[2])
    line.out.clear()
    line.feed(b[1])
    line.wait(0.2)
    line.feed(b[0])  # repaired: nothing is missing now, the sender is slow
    line.wait(0.2)
    line.feed(several[2][0])  # now b[2] is
    line.wait(0.2)
    assert line.buffer.skipped == 0
    line.feed(b[2])
    assert line.ticks == [PERIOD]
    assert line.out[0].data == whole(b)


def test_a_hole_at_the_front_of_an_unfinished_picture_waits_for_a_marker() -> None:
    line = Line()
    several = pictures(2, each=4)
    line.feed(*several[0], several[1][1], several[1][2])
    line.wait(1.0)
    assert line.buffer.skipped == 0  # there is nothing behind the hole to go on with
    line.feed(several[1][3])
    line.wait(0.02)
    assert line.buffer.skipped == 1
    assert line.ticks == [0]


def test_holes_that_are_overdue_are_given_up_together() -> None:
    line = Line()
    several = pictures(8, keyframes=(0, 7))
    lost = {several[1][1], several[3][0], several[5][1]}
    line.feed(*(packet for packet in flat(several) if packet not in lost))
    line.now += 0.24
    line.buffer.expire()
    assert line.ticks == [0]
    line.now += 0.02
    line.buffer.expire()  # once
    assert line.ticks == [index * PERIOD for index in (0, 2, 4, 6, 7)]
    assert line.buffer.skipped == 3
    assert [unit.tainted for unit in line.out] == [False, True, True, True, False]


def test_a_second_hole_that_is_young_has_its_own_time() -> None:
    line = Line()
    several = pictures(5)
    lost = {several[1][0], several[3][0]}
    arriving = [[packet for packet in picture if packet not in lost] for picture in several]
    line.feed(*flat(arriving[:3]))
    line.wait(0.15)
    line.feed(*flat(arriving[3:]))
    line.wait(0.15)
    assert line.ticks == [0, 2 * PERIOD]
    line.feed(several[3][0])  # repaired 0.15 s after the packet behind it
    assert line.ticks == [index * PERIOD for index in (0, 2, 3, 4)]


def test_a_repair_inside_a_hole_does_not_make_it_young_again() -> None:
    line = Line()
    several = pictures(4)
    missing = several[1][0], several[1][1]
    line.feed(*(packet for packet in flat(several) if packet not in missing))
    line.wait(0.2)
    line.feed(missing[1])  # the first of them stays lost
    line.feed(several[2][0], several[2][1])  # duplicates are no news either
    line.wait(0.08)
    assert line.ticks == [0, 2 * PERIOD, 3 * PERIOD]


@pytest.mark.parametrize(("each", "every"), [(9, 50), (2, 20), (9, 100), (30, 77), (1, 3)])
def test_the_delay_stays_bounded_however_many_packets_are_lost(each: int, every: int) -> None:
    """Twenty seconds at 30 pictures a second, nothing repaired: several holes a second, no picture much delayed."""
    line = Line()
    delays: list[float] = []

    def deliver(unit: AccessUnit) -> None:
        delays.append(line.now - start - unit.rtp_ticks / 90_000)

    line.buffer = MarkerJitterBuffer(deliver, line.patience, lambda: line.now)
    start, count = line.now, 0
    for index, picture in enumerate(pictures(600, each)):
        line.now = start + index / 30
        for packet in picture:
            count += 1
            if count % every:
                line.feed(packet)
        line.wait(0.03)
    assert line.buffer.skipped > 30
    assert len(delays) > 150
    assert max(delays) < line.patience + 2 / 30


@pytest.mark.parametrize("order", [(1, 0, 2, 3), (2, 0, 1, 3), (2, 1, 0, 3)])
def test_a_stream_may_begin_with_packets_that_changed_places(order: tuple[int, ...]) -> None:
    line = Line()
    a, b = pictures(2, 4, first=65_535)
    line.feed(*(a[place] for place in order), *b)
    assert [unit.data for unit in line.out] == [whole(a), whole(b)]
    assert not any(unit.tainted for unit in line.out)


KEY = b"\0\0\0\1\x67\x01", b"\0\0\0\1\x65\x02"  # a sequence parameter set, an IDR slice


def keyframe(first: int, timestamp: int) -> list[Packet]:
    return [
        Packet(first, timestamp, 0, KEY[0]),
        Packet(first + 1, timestamp, 0, KEY[1]),
        Packet(first + 2, timestamp, 1, b"x"),
    ]


def test_a_whole_idr_waits_for_no_hole_once_pictures_are_damaged() -> None:
    line = Line()
    several = pictures(4)
    line.feed(*(packet for packet in flat(several) if packet is not several[1][0]))
    line.wait(0.3)
    assert line.buffer.needs_keyframe
    line.feed(Packet(13, 4 * PERIOD, 0), Packet(14, 4 * PERIOD, 1))  # 12 is missing
    idr = keyframe(15, 5 * PERIOD)
    line.feed(*idr[:2])
    assert line.buffer.keyframe_coming
    assert line.ticks[-1] == 3 * PERIOD
    line.feed(idr[2])
    assert line.ticks[-1] == 5 * PERIOD
    assert line.out[-1].data == whole(idr)
    assert line.out[-1].keyframe
    assert not line.out[-1].tainted
    assert line.buffer.skipped == 2
    assert not line.buffer.keyframe_coming
    assert line.buffer.wanted == 18


def test_while_pictures_are_clean_an_idr_waits_for_those_before_it() -> None:
    line = Line()
    a, b = pictures(2)
    line.feed(*a, *b[1:], *keyframe(6, 2 * PERIOD))
    assert line.ticks == [0]
    line.feed(b[0])
    assert line.ticks == [0, PERIOD, 2 * PERIOD]
    assert not any(unit.tainted for unit in line.out)


@pytest.mark.parametrize("whole_idr", [False, True])
def test_the_idr_behind_a_lost_picture_is_not_given_up_with_it(whole_idr: bool) -> None:
    line = Line()
    (first,) = pictures(1)
    idr = keyframe(4, 2 * PERIOD)  # packet 3, a picture of its own, is lost
    line.feed(*first, *(idr if whole_idr else idr[:2]))
    line.wait(0.3)
    assert line.buffer.skipped == 1
    line.feed(*idr[2:])
    assert line.ticks == [0, 2 * PERIOD]
    assert line.out[-1].data == whole(idr)
    assert not line.out[-1].tainted
    assert not line.buffer.needs_keyframe


def test_an_idr_with_a_hole_is_given_up_whole() -> None:
    line = Line()
    line.feed(*pictures(1)[0])
    first, _, last = keyframe(3, PERIOD)
    line.feed(first, last)
    line.wait(0.3)
    assert line.ticks == [0]
    assert (line.buffer.wanted, line.buffer.skipped) == (6, 1)
    assert not line.buffer.keyframe_coming


@pytest.mark.parametrize("idr", [False, True])
def test_an_outage_is_given_up_at_once(idr: bool) -> None:
    """A second later and 60 packets on; what begins in the middle of a picture is none."""
    line = Line()
    line.feed(*flat(pictures(2)))
    after = keyframe(66, 90_000) if idr else pictures(1, 3, 66, 90_000, keyframes=())[0]
    line.feed(*after, *flat(pictures(2, 3, 69, 90_000 + PERIOD, keyframes=())))
    assert line.ticks[2:] == [90_000 + step * PERIOD for step in range(not idr, 3)]
    assert [unit.tainted for unit in line.out[2:]] == [not idr] * len(line.out[2:])
    assert line.buffer.skipped == 1
    assert line.buffer.needs_keyframe is not idr


def test_nothing_is_clean_before_the_first_idr() -> None:
    line = Line()
    several = pictures(3, keyframes=(2,))
    assert not line.buffer.needs_keyframe  # there is no sender yet whom to ask
    line.feed(*several[0])
    assert line.buffer.needs_keyframe
    line.feed(*several[1], *several[2])
    assert [unit.tainted for unit in line.out] == [True, True, False]
    assert not line.buffer.needs_keyframe


def test_an_idr_without_parameter_sets_is_none_until_some_have_come() -> None:
    """The stream's first packet is lost: a decoder could make nothing of the rest."""
    line = Line()
    line.buffer._parameters = False
    line.feed(Packet(0, 0, 1, IDR))
    assert line.out == []
    assert line.buffer.needs_keyframe
    line.feed(*keyframe(1, PERIOD), Packet(4, 2 * PERIOD, 1, IDR))
    assert [(unit.keyframe, unit.tainted) for unit in line.out] == [(True, False)] * 2


def test_sequence_numbers_wrap() -> None:
    line = Line()
    several = pictures(6, first=65530)
    shuffled = flat(several)
    shuffled[4], shuffled[7] = shuffled[7], shuffled[4]
    lost = several[3][1]
    line.feed(*(packet for packet in shuffled if packet is not lost))
    line.wait(0.3)
    assert line.ticks == [index * PERIOD for index in (0, 1, 2, 4, 5)]
    assert line.buffer.skipped == 1


def test_timestamps_wrap_and_go_back_a_little() -> None:
    line = Line()
    start = 2**32 - 2 * PERIOD
    several = pictures(5, timestamp=start)
    line.feed(*flat(several))
    assert line.ticks == [start + index * PERIOD for index in range(5)]
    line.feed(Packet(15, 0, 1))  # two pictures back, as with a B picture
    assert line.ticks[-1] == 2**32


def test_duplicates_are_harmless() -> None:
    line = Line()
    several = pictures(3)
    for packet in flat(several):
        line.feed(packet, packet)
    line.feed(*flat(several))
    assert [unit.data for unit in line.out] == [whole(picture) for picture in several]


def test_padding_is_no_picture_and_has_no_time() -> None:
    line = Line()
    line.feed(Packet(0, 0, 1, IDR + b"\x88"))
    line.feed(Packet(1, 0, 0, b""), Packet(2, 0, 0, b""))  # probes with the timestamp of the picture before
    line.feed(Packet(3, PERIOD, 1, OTHER + b"\x88"))
    line.feed(Packet(4, PERIOD, 1, b""))
    line.feed(Packet(5, 2 * PERIOD, 1, OTHER + b"\x88"))
    assert line.ticks == [0, PERIOD, 2 * PERIOD]
    assert all(unit.data for unit in line.out)


@pytest.mark.parametrize(("first", "ssrc"), [(20_000, 7), (60_000, 7), (0, 8), (65_000, 8), (29, 8)])
def test_a_sender_that_starts_again_is_followed(first: int, ssrc: int) -> None:
    """Far behind by number, or as another source; before the new IDR nothing counts as clean."""
    line = Line()
    line.feed(*flat(pictures(10, first=50_000)))
    line.out.clear()
    again = pictures(4, first=first, timestamp=123_456, ssrc=ssrc, keyframes=(0,))
    line.feed(*flat(again))
    line.wait(0.3)
    got = [unit.data for unit in line.out]
    if first == 60_000:  # ahead by number: what lies between might still come
        assert got == [whole(picture) for picture in again[1:]]
        assert line.buffer.needs_keyframe
    else:
        assert got == [whole(picture) for picture in again]
        assert not line.out[0].tainted
        assert not line.buffer.needs_keyframe


def test_a_new_source_before_its_idr_needs_one() -> None:
    line = Line()
    line.feed(*flat(pictures(2)))
    assert not line.buffer.needs_keyframe
    line.feed(*flat(pictures(2, first=6, ssrc=9, keyframes=())))
    assert line.buffer.needs_keyframe
    assert [unit.tainted for unit in line.out] == [False, False, True, True]


def test_a_new_source_ends_the_wait_for_the_old_ones_idr() -> None:
    line = Line()
    line.feed(*keyframe(0, 0)[:2])
    assert line.buffer.keyframe_coming
    line.feed(*pictures(1, ssrc=9, keyframes=())[0])
    assert not line.buffer.keyframe_coming


def test_what_is_held_is_bounded() -> None:
    line = Line(patience=1e9)  # holes are never given up
    numbers = [number for number in range(3 * jitter._CAPACITY) if number % 100]
    for number in numbers:
        line.feed(Packet(number & 0xFFFF, number // 10 * PERIOD, int(number % 10 == 9), b"x"))
        assert len(line.buffer._packets) <= jitter._CAPACITY
    assert line.buffer.needs_keyframe


def test_parameter_sets_in_every_packet_cost_no_more_than_other_packets(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(patience=1e9)
    line.feed(Packet(0, 0, 1, OTHER))
    looked = 0
    real = line.buffer._up_to_marker

    def counted(number: int) -> object:
        nonlocal looked
        looked += 1
        return real(number)

    monkeypatch.setattr(line.buffer, "_up_to_marker", counted)
    line.feed(*(Packet(number, PERIOD, 0, KEY[0]) for number in range(2, 202)))
    assert looked <= 2 * 200  # one for the picture wanted, one for the keyframe behind the hole


def test_a_late_packet_does_not_restart_a_full_buffer() -> None:
    line = Line(patience=1e9)
    line.feed(Packet(1000, 0, 1, IDR))
    for number in range(1002, 1002 + jitter._CAPACITY):
        line.feed(Packet(number, PERIOD, 0))
    held = len(line.buffer._packets)
    line.feed(Packet(990, 0, 1, OTHER))
    assert len(line.buffer._packets) == held
    assert len(line.out) == 1


def received(line: Line, order: list[Packet]) -> None:
    for index, packet in enumerate(order):
        line.feed(packet)
        if index % 7 == 0:
            line.wait(0.05)
        assert len(line.buffer._packets) <= jitter._CAPACITY
    line.wait(3.0)


@st.composite
def journeys(draw: st.DrawFn) -> tuple[list[list[Packet]], list[Packet]]:
    """Pictures, and their packets as they might arrive: up to 12 places off, some lost, some twice."""
    count = draw(st.integers(1, 9))  # all of them lost are no outage yet
    sizes = draw(st.lists(st.integers(1, 5), min_size=count, max_size=count))
    first = draw(st.sampled_from([0, 100, 65_500, 65_530, 32_760]))
    keyframes = draw(st.sets(st.integers(0, count - 1)))
    several, number = [], first
    for index, each in enumerate(sizes):
        keys = (0,) if index in keyframes else ()
        when = (2**32 - 3 * PERIOD + index * PERIOD) & 0xFFFFFFFF
        several += pictures(1, each, number & 0xFFFF, when, keyframes=keys)
        number += each
    packets = flat(several)
    fates = draw(st.lists(st.sampled_from([0, 1, 1, 1, 1, 2]), min_size=len(packets), max_size=len(packets)))
    delays = draw(st.lists(st.integers(0, 12), min_size=2 * len(packets), max_size=2 * len(packets)))
    arrivals = []
    for index, (packet, copies) in enumerate(zip(packets, fates, strict=True)):
        # The first of all arrives first: a stream begins with whatever comes first.
        if index == 0:
            arrivals.append((-1, packet))
        arrivals += [(index + delays[2 * index + copy], packet) for copy in range(copies)]
    return several, [packet for _, packet in sorted(arrivals, key=lambda item: item[0])]


@given(journeys())
@settings(max_examples=300, deadline=None)
def test_whatever_happens_on_the_way(journey: tuple[list[list[Packet]], list[Packet]]) -> None:
    several, order = journey
    line = Line()
    received(line, order)
    assert line.ticks == sorted(set(line.ticks)), "in order, each at most once"
    sent = [picture[0].timestamp for picture in several]
    clean, expected = False, -1
    for unit in line.out:
        index = sent.index(unit.rtp_ticks & 0xFFFFFFFF)
        assert unit.data == whole(several[index]), "whole or not at all"
        clean = unit.keyframe or (clean and index == expected)
        assert unit.tainted is not clean
        expected = index + 1
    # What is still held belongs to an end without a marker.
    held = sorted(line.buffer._packets.values(), key=lambda packet: flat(several).index(packet))
    assert not any(packet.marker for packet in held)


@given(journeys())
@settings(max_examples=150, deadline=None)
def test_without_loss_and_with_patience_everything_arrives(
    journey: tuple[list[list[Packet]], list[Packet]],
) -> None:
    several, order = journey
    missing = [packet for packet in flat(several) if packet not in set(order)]
    line = Line(patience=1e9)
    received(line, order + missing)
    assert [unit.data for unit in line.out] == [whole(picture) for picture in several]
    assert line.buffer._packets == {}
    assert line.buffer.skipped == 0


@given(
    st.lists(
        st.tuples(
            st.integers(0, 65_535), st.integers(0, 2**32 - 1), st.booleans(), st.binary(max_size=8), st.integers(0, 2)
        ),
        max_size=60,
    )
)
@settings(max_examples=200, deadline=None)
def test_nonsense_never_raises(packets: list[tuple[int, int, bool, bytes, int]]) -> None:
    line = Line()
    for number, timestamp, marker, data, ssrc in packets:
        line.feed(Packet(number, timestamp, int(marker), data, ssrc))
        line.wait(0.03)
    line.wait(1.0)
    assert len(line.buffer._packets) <= len(packets)


def test_access_units_of_x264_pass_through_aiortcs_packets_unharmed() -> None:
    """What is coded, packetised by RFC 6184 and depayloaded comes out byte by byte, keyframes recognised."""
    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt = 640, 360, "yuv420p"
    codec.time_base, codec.framerate = Fraction(1, 30), Fraction(30)
    codec.options = {"tune": "zerolatency", "preset": "veryfast", "g": "5", "keyint_min": "5", "crf": "18"}
    random = np.random.default_rng(3)
    texture = random.integers(16, 235, (540, 700), np.uint8)
    units, packets, number = [], [], 65_500
    packer = H264Encoder()
    for index in range(12):
        i420 = np.ascontiguousarray(texture[:, index * 3 :][:, :640])
        for packet in codec.encode(av.VideoFrame.from_ndarray(i420, "yuv420p")):
            unit = bytes(packet)
            units.append(unit)
            payloads = packer._packetize(packer._split_bitstream(unit))
            for part, payload in enumerate(payloads):
                _, data = H264PayloadDescriptor.parse(payload)
                marker = int(part == len(payloads) - 1)
                packets.append(Packet(number & 0xFFFF, index * PERIOD, marker, data))
                number += 1
    assert len(packets) > 3 * len(units)
    order = np.argsort(np.arange(len(packets)) + random.uniform(0, 6, len(packets)) * (np.arange(len(packets)) > 0))
    assert (np.diff(order) < 0).sum() > 10
    line = Line()
    line.feed(*(packets[place] for place in order))
    assert len(line.out) == len(units) == 12
    for unit, sent in zip(line.out, units, strict=True):
        assert list(H264Encoder._split_bitstream(unit.data)) == list(H264Encoder._split_bitstream(sent))
    assert [index for index, unit in enumerate(line.out) if unit.keyframe] == [0, 5, 10]
    assert not any(unit.tainted for unit in line.out)
