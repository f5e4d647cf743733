"""NAL units, bit syntax and headers, against hand-written bits and what libx264 writes."""

from __future__ import annotations

from fractions import Fraction
from random import Random

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.h264 import (
    NAL_PICTURE_PARAMETERS,
    NAL_SEQUENCE_PARAMETERS,
    NAL_SLICE,
    BitReader,
    H264Error,
    is_keyframe,
    nal_type,
    nal_units,
    payload_end,
    unescape,
)
from shared.h264_headers import (
    SliceType,
    parse_picture_parameters,
    parse_sequence_parameters,
    parse_slice_header,
)


def ue(number: int) -> str:
    code = f"{number + 1:b}"
    return "0" * (len(code) - 1) + code


def se(number: int) -> str:
    return ue(2 * number - 1 if number > 0 else -2 * number)


def unit(header: int, *fields: str) -> bytes:
    """An unescaped NAL unit of these bits, with stop bit and alignment."""
    bits = "".join(fields) + "1"
    bits += "0" * (-len(bits) % 8)
    return bytes([header]) + int(bits, 2).to_bytes(len(bits) // 8, "big")


def escape(plain: bytes) -> bytes:
    """Clause 7.3.1 the other way round, byte by byte."""
    out, zeros = bytearray(), 0
    for byte in plain:
        if zeros >= 2 and byte <= 3:
            out.append(3)
            zeros = 0
        out.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(out)


def encode(width: int, height: int, *, pictures: int = 3, pixels: str = "yuv420p", **options: str) -> list[bytes]:
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, pixels
    encoder.time_base = Fraction(1, 30)
    encoder.thread_count = 1
    if "profile" in options:
        encoder.profile = options.pop("profile")
    encoder.options = {"preset": "veryfast", "tune": "zerolatency", **options}
    picture = np.random.default_rng(3).integers(0, 256, (height + 32, width + 32, 3), np.uint8)
    packets = []
    for index in range(pictures):
        moved = np.ascontiguousarray(picture[index : index + height, index : index + width])
        frame = av.VideoFrame.from_ndarray(moved, format="rgb24").reformat(format=pixels)
        frame.pts = index
        packets += encoder.encode(frame)
    return [bytes(packet) for packet in [*packets, *encoder.encode(None)]]


def parameter_sets(stream: list[bytes]) -> tuple[bytes, bytes]:
    units = {nal_type(data): unescape(data) for data in nal_units(stream[0])}
    return units[NAL_SEQUENCE_PARAMETERS], units[NAL_PICTURE_PARAMETERS]


def test_nal_units_split_at_both_start_codes() -> None:
    data = b"\0\0\0\1\x67ab\0\0\1\x68cd\0\0\0\0\0\1\x65e\0f\0\0"
    assert nal_units(data) == [b"\x67ab", b"\x68cd", b"\x65e\0f"]


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\1", b"\0\0\1\0\0\1\0\0\0\1", b"\x67\x65 no start code"])
def test_no_nal_units(data: bytes) -> None:
    assert nal_units(data) == []
    assert not is_keyframe(data)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.binary(min_size=1, max_size=40).filter(lambda data: data[-1]), max_size=5), st.randoms())
def test_nal_units_invert_the_writing(plain: list[bytes], random: Random) -> None:
    escaped = [escape(data) for data in plain]
    stream = b"".join(random.choice((b"\0\0\1", b"\0\0\0\1", b"\0\0\0\0\1")) + data for data in escaped)
    assert [unescape(data) for data in nal_units(stream)] == plain


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=60).map(bytes))
def test_unescape_inverts_escape(plain: bytes) -> None:
    assert unescape(escape(plain)) == plain


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("ue"), st.integers(0, 2**32 - 2)),
            st.tuples(st.just("se"), st.integers(-(2**31) + 1, 2**31 - 1)),
            st.tuples(st.integers(1, 40), st.integers(0, 2**40 - 1)),
        ),
        max_size=12,
    )
)
def test_reader_inverts_writer_and_stops(fields: list[tuple[str | int, int]]) -> None:
    written = []
    for kind, number in fields:
        if isinstance(kind, int):
            written.append(f"{number % 2**kind:0{kind}b}")
        else:
            written.append(ue(number) if kind == "ue" else se(number))
    reader = BitReader(unit(0x67, *written))
    for kind, number in fields:
        assert reader.more
        if isinstance(kind, int):
            assert reader.u(kind) == number % 2**kind
        else:
            assert (reader.ue() if kind == "ue" else reader.se()) == number
    assert not reader.more
    assert reader.position == reader.end == 8 + len("".join(written))
    for read in (reader.flag, reader.ue, reader.se):
        with pytest.raises(H264Error):
            read()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.binary(max_size=30), st.lists(st.integers(0, 33), max_size=20))
def test_reader_of_any_bytes_raises_only_h264_errors(data: bytes, reads: list[int]) -> None:
    try:
        reader = BitReader(data)
        for count in reads:
            if count:
                assert 0 <= reader.u(count) < 1 << count
            else:
                assert reader.ue() >= 0
            assert reader.position <= reader.end
    except H264Error:
        pass


def test_numbers_out_of_range() -> None:
    with pytest.raises(H264Error, match="32 bits"):
        BitReader(unit(0x67, "0" * 32 + "1" + "0" * 32)).ue()
    with pytest.raises(H264Error, match="at most 4"):
        BitReader(unit(0x67, ue(5))).ue(4)
    with pytest.raises(H264Error, match=r"outside -2\.\.2"):
        BitReader(unit(0x67, se(-3))).se(-2, 2)
    for data in (b"", b"\x67", b"\x67\0"):
        with pytest.raises(H264Error, match="stop bit"):
            payload_end(data)


@pytest.mark.parametrize(("width", "height"), [(64, 48), (98, 54), (350, 286), (18, 1282)])
@pytest.mark.parametrize(("profile", "idc"), [("Baseline", 66), ("Main", 77), ("High", 100)])
def test_sequence_parameters_of_x264(width: int, height: int, profile: str, idc: int) -> None:
    data, _ = parameter_sets(encode(width, height, pictures=1, profile=profile, level="3.1", refs="2", bf="0"))
    sequence = parse_sequence_parameters(data)
    assert (sequence.width, sequence.height) == (width, height)
    assert (sequence.columns, sequence.rows) == (-(-width // 16), -(-height // 16))
    assert (sequence.profile_idc, sequence.level_idc, sequence.reference_frames) == (idc, 31, 2)
    # x264 marks Baseline without its extras as Constrained Baseline: constraint_set0 and 1, clause A.2.1.1.
    assert sequence.constraint_flags == {66: 0xC0, 77: 0x40, 100: 0}[idc]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"coder": "0"}, {"cabac": False, "transform_8x8": True}),
        ({"profile": "Main"}, {"cabac": True, "transform_8x8": False}),
        ({"profile": "Baseline", "x264-params": "weightp=0"}, {"cabac": False, "weighted": False}),
        ({"x264-params": "weightp=2:constrained-intra=1:ref=3"}, {"weighted": True, "constrained_intra": True}),
        ({"qp": "31", "x264-params": "ref=3"}, {"qp": 31, "references": 3}),
        ({"x264-params": "no-deblock=1"}, {"deblocking_present": True}),
    ],
)
def test_picture_parameters_of_x264(options: dict[str, str], expected: dict[str, object]) -> None:
    _, data = parameter_sets(encode(64, 48, pictures=1, bf="0", **options))
    picture = parse_picture_parameters(data)
    assert {name: getattr(picture, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pixels": "yuv422p"}, "4:2:0"),
        ({"pixels": "yuv420p10le"}, "8 bits"),
        ({"x264-params": "interlaced=1"}, "interlaced"),
    ],
)
def test_sequence_parameters_refused(options: dict[str, str], message: str) -> None:
    data, _ = parameter_sets(encode(64, 64, pictures=1, **options))
    with pytest.raises(H264Error, match=message):
        parse_sequence_parameters(data)


def test_scaling_matrices_refused() -> None:
    _, data = parameter_sets(encode(64, 64, pictures=1, **{"x264-params": "cqm=jvt"}))
    with pytest.raises(H264Error, match="scaling"):
        parse_picture_parameters(data)
    lists = unit(0x67, f"{100:08b}{0:08b}{30:08b}", ue(0), ue(1), ue(0), ue(0), "0", "1")
    with pytest.raises(H264Error, match="scaling"):
        parse_sequence_parameters(lists)


def sequence_bits(columns: int = 4, rows: int = 3, crop: str = "0", order: str = ue(2)) -> bytes:
    start = f"{66:08b}{0xC0:08b}{30:08b}"
    return unit(0x67, start, ue(0), ue(0), order, ue(1), "0", ue(columns - 1), ue(rows - 1), "1", "1", crop, "0")


def picture_bits(groups: int = 0) -> bytes:
    rest = (ue(0), ue(0), "0", "00", se(0), se(0), se(0), "100")
    return unit(0x68, ue(0), ue(0), "00", ue(groups), *rest)


def test_hand_written_sets() -> None:
    sequence = parse_sequence_parameters(sequence_bits(crop="1" + ue(1) + ue(2) + ue(0) + ue(3)))
    assert (sequence.width, sequence.height, sequence.order_type) == (64 - 6, 48 - 6, 2)
    order = ue(1) + "0" + se(-5) + se(7) + ue(2) + se(1) + se(-1)
    assert parse_sequence_parameters(sequence_bits(order=order)).order_type == 1
    assert parse_picture_parameters(picture_bits()).references == 1
    with pytest.raises(H264Error, match="slice groups"):
        parse_picture_parameters(picture_bits(groups=1))
    with pytest.raises(H264Error, match="cropping"):
        parse_sequence_parameters(sequence_bits(crop="1" + ue(16) + ue(16) + ue(0) + ue(0)))
    with pytest.raises(H264Error, match="larger than any level"):
        parse_sequence_parameters(sequence_bits(1000, 1000))


def test_slice_header_with_every_optional_part() -> None:
    """A P slice with list modification, weights and memory management: clauses 7.3.3.1 to 7.3.3.3."""
    sequence = parse_sequence_parameters(sequence_bits(order=ue(0) + ue(1)))
    rest = (ue(2), ue(0), "1", "00", se(-3), se(0), se(0), "100")
    picture = parse_picture_parameters(unit(0x68, ue(0), ue(0), "01", ue(0), *rest))
    fields = [ue(5), ue(5), ue(0), "0011", "00101", se(-1)]  # frame_num, order and its delta
    fields += ["1", ue(1)]  # two references
    fields += ["1", ue(0), ue(4), ue(2), ue(1), ue(3)]
    fields += [ue(5), ue(2), "1", se(-128), se(127), "0", "0", "1", se(1), se(-2), se(3), se(-4)]
    fields += ["1", ue(1), ue(2), ue(3), ue(1), ue(0), ue(5), ue(6), ue(1), ue(0)]
    fields += [se(4), ue(0), se(-6), se(6)]
    data = unit(0x40 | NAL_SLICE, *fields, "10101")
    header = parse_slice_header(data, {0: picture}, {0: sequence})
    assert (header.first_macroblock, header.slice_type, header.frame_num) == (5, SliceType.P, 3)
    assert (header.references, header.qp) == (2, 26 - 3 + 4)
    assert header.data_position == 8 + len("".join(fields))
    assert header.data_end == header.data_position + 5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((ue(0), ue(6), ue(0)), "B slices"),
        ((ue(0), ue(3), ue(0)), "SP slices"),
        ((ue(0), ue(10), ue(0)), "at most 9"),
        ((ue(0), ue(7), ue(1)), "parameter set"),
        ((ue(0), ue(7), ue(0), "0000", "0", se(26)), "quantiser 52"),
        ((ue(0), ue(7), ue(0), "00"), "ends in the middle"),
        ((ue(0), ue(5), ue(0), "0000", "1", ue(16)), "at most 15"),
        ((ue(0), ue(5), ue(0), "0000", "0", "1", ue(4)), "at most 3"),
    ],
)
def test_slice_headers_refused(fields: tuple[str, ...], message: str) -> None:
    sequence, picture = parse_sequence_parameters(sequence_bits()), parse_picture_parameters(picture_bits())
    with pytest.raises(H264Error, match=message):
        parse_slice_header(unit(0x41, *fields), {0: picture}, {0: sequence})


def test_keyframes() -> None:
    stream = encode(64, 48, pictures=6, g="3")
    assert [is_keyframe(data) for data in stream] == [True, False, False] * 2


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.binary(min_size=1, max_size=60))
def test_headers_of_any_bytes_raise_only_h264_errors(data: bytes) -> None:
    sequence, picture = parse_sequence_parameters(sequence_bits()), parse_picture_parameters(picture_bits())
    for parse in (
        parse_sequence_parameters,
        parse_picture_parameters,
        lambda data: parse_slice_header(data, {0: picture}, {0: sequence}),
    ):
        try:
            parse(data)
        except H264Error as error:
            assert str(error)  # noqa: PT017
