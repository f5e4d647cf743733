"""Bits, quantiser and type of every macroblock, against FFmpeg's decoder and the size of the stream."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from itertools import pairwise

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sender import cavlc_tables
from sender.cavlc import INTER, INTRA4, INTRA16, PCM, SKIP, MacroblockInfo, MacroblockParser, warm_up
from sender.cavlc_slice import read_slice_data
from shared.astronaut import photograph
from shared.h264 import H264Error, nal_units
from shared.h264_headers import SliceType


def panned(width: int, height: int, pictures: int, noise: float) -> list[NDArray[np.uint8]]:
    """The astronaut moving through a window; `noise`: deviation of noise on its left half, from half time on."""
    scene = cv2.resize(
        np.ascontiguousarray(photograph()[..., ::-1]), (width + 64, height + 64), interpolation=cv2.INTER_AREA
    )
    random = np.random.default_rng(11)
    views = []
    for index in range(pictures):
        view = scene[2 * index : 2 * index + height, 3 * index : 3 * index + width].astype(np.float64)
        if index >= pictures // 2:
            view[:, : width // 2] += random.normal(0, noise, (height, width // 2, 3))
        views.append(np.ascontiguousarray(np.clip(view, 0, 255).astype(np.uint8)))
    return views


def encode(
    width: int, height: int, params: str, *, preset: str = "medium", profile: str | None, pictures: int, noise: float
) -> list[bytes]:
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base = Fraction(1, 30)
    encoder.thread_count = 1
    if profile:
        encoder.profile = profile
    encoder.options = {"preset": preset, "tune": "zerolatency", "x264-params": params}
    packets = []
    for index, view in enumerate(panned(width, height, pictures, noise)):
        frame = av.VideoFrame.from_ndarray(view, format="rgb24").reformat(format="yuv420p")
        frame.pts = index
        packets += encoder.encode(frame)
    return [bytes(packet) for packet in [*packets, *encoder.encode(None)]]


def quantisers(stream: list[bytes]) -> list[NDArray[np.int32]]:
    """FFmpeg's quantiser of every macroblock of every picture."""
    decoder = av.CodecContext.create("h264", "r")
    decoder.options = {"export_side_data": "venc_params", "err_detect": "explode"}
    decoder.thread_count = 1
    frames = [frame for data in stream for frame in decoder.decode(av.Packet(data))]
    return [frame.side_data["VIDEO_ENC_PARAMS"].qp_map() for frame in [*frames, *decoder.decode(None)]]


STREAMS = {
    **{
        f"baseline {preset}": {"params": "crf=26", "preset": preset}
        for preset in ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower")
    },
    **{f"{count} references": {"params": f"crf=23:ref={count}", "preset": "slow"} for count in (1, 2, 3, 5)},
    "bit rate": {"params": "bitrate=150:vbv-maxrate=150:vbv-bufsize=30:keyint=5"},
    "mostly skipped": {"params": "crf=44", "noise": 0.0},
    "odd size": {"params": "crf=22", "width": 98, "height": 54},
    "one column": {"params": "crf=22", "width": 16, "height": 130},
    "one macroblock": {"params": "crf=22", "width": 16, "height": 16},
    "slices": {"params": "crf=24:slices=4"},
    "many slices": {"params": "crf=24:slice-max-mbs=5"},
    "small slices": {"params": "crf=20:slice-max-size=250"},
    "high": {"params": "crf=22:cabac=0:8x8dct=1:bframes=0", "profile": "High", "preset": "slower"},
    "high slices": {"params": "crf=18:cabac=0:8x8dct=1:bframes=0:slices=3", "profile": "High"},
    "weights": {"params": "crf=22:cabac=0:weightp=2:bframes=0:ref=4", "profile": "Main", "preset": "slower"},
    "constrained intra": {"params": "crf=22:constrained-intra=1:ref=2"},
    "intra": {"params": "crf=20:keyint=1"},
    "intra refresh": {"params": "crf=24:intra-refresh=1:keyint=4"},
    "low quantiser": {"params": "qp=2", "noise": 40.0},
    "high low quantiser": {"params": "qp=1:cabac=0:bframes=0", "noise": 60.0, "profile": "High"},
    "samples": {"params": "qp=1:psy=0:subme=7", "noise": 120.0},
    "high samples": {"params": "qp=1:psy=0:subme=7:cabac=0:bframes=0:slices=2", "noise": 120.0, "profile": "High"},
    "lossless": {"params": "qp=0:cabac=0:bframes=0", "profile": None},
}


@cache
def stream(name: str) -> tuple[bytes, ...]:
    defaults = {"width": 176, "height": 144, "profile": "Baseline", "pictures": 8, "noise": 8.0}
    return tuple(encode(**{**defaults, **STREAMS[name]}))  # type: ignore[arg-type]


def parse_all(name: str) -> list[MacroblockInfo]:
    parser = MacroblockParser()
    return [parser.parse(data) for data in stream(name)]


@pytest.mark.parametrize("name", STREAMS)
def test_quantisers_are_those_ffmpeg_decodes_and_bits_add_up(name: str) -> None:
    expected = quantisers(list(stream(name)))
    infos = parse_all(name)
    assert len(expected) == len(infos) == 8
    for data, info, qp in zip(stream(name), infos, expected, strict=True):
        np.testing.assert_array_equal(info.qp, qp)
        assert info.bits.shape == info.type.shape == info.coded.shape == qp.shape
        assert (info.bits.dtype, info.qp.dtype, info.type.dtype) == (np.float32, np.uint8, np.uint8)
        size = 8 * sum(len(unit) for unit in nal_units(data))
        assert info.bits.sum(dtype=np.float64) + info.header_bits == pytest.approx(size, abs=0.01)
        assert info.bits.min() > 0
        assert not info.coded[info.type == SKIP].any()
        assert info.coded[np.isin(info.type, (INTRA16, PCM))].all()
        assert (info.bits[info.type == PCM] >= 3072).all()


def test_streams_cover_every_type_and_syntax() -> None:
    kinds = {name: set(np.unique([info.type for info in parse_all(name)]).tolist()) for name in STREAMS}
    assert set().union(*kinds.values()) == {SKIP, INTER, INTRA4, INTRA16, PCM}
    for name in ("samples", "high samples"):  # I_PCM beside others, so that their contexts meet
        assert len(kinds[name]) > 1
        assert PCM in kinds[name]
    assert [len(info.slice_types) for info in parse_all("slices")] == [4] * 8
    assert max(len(info.slice_types) for info in parse_all("small slices")) > 4
    first, *others = parse_all("baseline medium")
    assert first.slice_types == (SliceType.I,)
    assert {info.slice_types for info in others} == {(SliceType.P,)}
    assert not np.isin(first.type, (SKIP, INTER)).any()
    assert len(np.unique(first.qp)) > 3  # adaptive quantisation: the comparison of quantisers means something


def test_noise_costs_bits_where_it_is() -> None:
    """The left half is noisy in the last pictures: the map must show it there, with constant quantiser."""
    first, *_, last = parse_all("low quantiser")
    left, right = np.split(last.bits[:, :10], 2, axis=1)
    assert left.sum() > 1.5 * right.sum()
    assert first.header_bits > last.header_bits  # parameter sets and SEI


def test_results_are_not_reused() -> None:
    parser = MacroblockParser()
    first = parser.parse(stream("slices")[0])
    copy = first.bits.copy()
    parser.parse(stream("slices")[1])
    np.testing.assert_array_equal(first.bits, copy)


def test_code_tables_are_whole() -> None:
    """Every table is free of prefixes (its construction sees to it); these leave no code unused."""
    text = cavlc_tables._TOTAL_ZEROS, cavlc_tables._TOTAL_ZEROS_CHROMA_DC
    for index, row in enumerate(cavlc_tables._rows(text[0]), start=1):
        assert len(row) == 17 - index
    for index, row in enumerate(cavlc_tables._rows(text[1]), start=1):
        assert len(row) == 5 - index
        assert sum(2.0 ** -len(code) for code in row) == 1
    for index, row in enumerate(cavlc_tables._rows(cavlc_tables._RUN_BEFORE)[:6], start=1):
        assert len(row) == index + 1
        assert sum(2.0 ** -len(code) for code in row) == 1
    assert [sum(map(len, cavlc_tables._rows(text))) for text in cavlc_tables._COEFF_TOKEN] == [62, 62, 62, 14]
    assert [sorted(row) for row in cavlc_tables.CODED_BLOCK_PATTERN.tolist()] == [list(range(48))] * 2


@pytest.mark.parametrize(
    ("params", "profile", "message"),
    [
        ("crf=24:bframes=0", "Main", "CABAC"),
        ("crf=24:cabac=0:bframes=2:b-adapt=0", "Main", "B slices"),
        ("crf=24:cabac=0:interlaced=1", "Main", "interlaced"),
    ],
)
def test_unsupported_streams(params: str, profile: str, message: str) -> None:
    units = encode(64, 64, params, profile=profile, pictures=6, noise=0.0)
    parser = MacroblockParser()
    with pytest.raises(H264Error, match=message):
        _ = [parser.parse(data) for data in units]


def slices(data: bytes) -> tuple[list[bytes], list[bytes]]:
    """The NAL units of an access unit with start codes: slices, and the rest."""
    units = [b"\0\0\1" + unit for unit in nal_units(data)]
    return [unit for unit in units if unit[3] & 31 in (1, 5)], [unit for unit in units if unit[3] & 31 not in (1, 5)]


def test_macroblocks_that_do_not_add_up() -> None:
    pictures, others = slices(stream("slices")[0])
    head = b"".join(others)
    parser = MacroblockParser()
    for data, message in [
        (b"", "no slice"),
        (head, "no slice"),
        (head + b"".join(pictures[:3]), "instead of 99"),
        (head + b"".join(pictures[1:]), "instead of 0"),
        (head + b"".join([*pictures, pictures[-1]]), "instead of 99"),
        (head + b"".join(pictures[:2] + pictures[3:]), "begins at macroblock"),
        (b"".join(pictures), "parameter set"),
        (head + b"".join(pictures)[:-20], "slice data"),
        (head + b"\0\0\1\x42\x80" + b"".join(pictures), "partitioning"),
        (head + b"\0\0\1\x85\x80" + b"".join(pictures), "forbidden_zero_bit"),
    ]:
        with pytest.raises(H264Error, match=message):
            parser.parse(data)
    assert parser.parse(head + b"".join(pictures)).type.size == 99


def test_parser_recovers_after_errors() -> None:
    """Damaged access units between good ones, with foreign parameter sets too, change no later result."""
    expected = parse_all("2 references")
    parser = MacroblockParser()
    foreign = b"".join(slices(stream("high")[0])[1])
    for before, (data, info) in zip(
        [b"", *stream("2 references")], zip(stream("2 references"), expected, strict=True), strict=False
    ):
        for damaged in (data[: len(data) * 2 // 3], foreign + data[:-30], before[:40] + b"\xff" * 200):
            with pytest.raises(H264Error):
                parser.parse(damaged)
        again = parser.parse(data)
        np.testing.assert_array_equal(again.bits, info.bits)
        np.testing.assert_array_equal(again.qp, info.qp)


def check_damaged(name: str, damaged: bytes) -> None:
    """A result or H264Error, nothing else; and the parser goes on."""
    parser = MacroblockParser()
    whole = parser.parse(stream(name)[0])
    try:
        info = parser.parse(damaged)
    except H264Error:
        pass
    else:
        assert info.qp.max() <= 51
        assert info.type.max() <= PCM
        assert info.bits.min() > 0
    again = parser.parse(stream(name)[0])
    np.testing.assert_array_equal(again.bits, whole.bits)


DAMAGED = st.sampled_from(["baseline slower", "high slices", "samples", "small slices"])


@settings(max_examples=250, deadline=None, derandomize=True)
@given(
    DAMAGED, st.integers(0, 7), st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=12), st.booleans()
)
def test_bit_flips(name: str, index: int, places: list[float], near_start: bool) -> None:
    data = bytearray(stream(name)[index])
    for place in places:
        bit = int(place * (min(len(data), 120) if near_start else len(data)) * 8)
        data[bit >> 3] ^= 128 >> (bit & 7)
    check_damaged(name, bytes(data))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(DAMAGED, st.integers(0, 7), st.floats(0, 1), st.binary(max_size=300))
def test_truncation_and_foreign_tails(name: str, index: int, place: float, tail: bytes) -> None:
    data = stream(name)[index]
    check_damaged(name, data[: int(place * len(data))] + tail)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(DAMAGED, st.sampled_from([0x41, 0x65, 0x67, 0x68, 0x01]), st.binary(max_size=400), st.sampled_from([0, 2000]))
def test_random_bytes(name: str, header: int, data: bytes, ones: int) -> None:
    check_damaged(name, b"\0\0\1" + bytes([header]) + data + b"\xff" * ones)


def test_warm_up_leaves_nothing_to_compile() -> None:
    warm_up()
    compiled = len(read_slice_data.signatures)  # type: ignore[attr-defined]
    for first, second in pairwise(("baseline fast", "high", "samples", "slices")):
        parse_all(first)
        parse_all(second)
    assert len(read_slice_data.signatures) == compiled == 1  # type: ignore[attr-defined]
