"""The decoder on real streams: pictures, quantisers, damage, times, foreign colours and sizes."""

from __future__ import annotations

import contextlib
import io
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.frame import PictureType
from numpy.typing import NDArray

from receiver.decoder import Decoder
from receiver.jitter import AccessUnit
from receiver.picture import DecodedPicture
from shared.astronaut import photograph
from shared.h264 import is_keyframe
from shared.picture import CLOCK_RATE, I420, bgr_from_i420, i420_from_bgr
from shared.quantisers import quantiser_map
from shared.stamp import Stamp, write_stamp

WIDTH, HEIGHT = 320, 176
PERIOD = CLOCK_RATE // 30


def moving(index: int, width: int = WIDTH, height: int = HEIGHT) -> I420:
    """A photograph that pans."""
    return i420_from_bgr(photograph()[index * 2 :, index * 3 :][:height, :width])


def coded(count: int, keyframes: tuple[int, ...] = (0,), **options: str) -> list[bytes]:
    """`count` pictures as x264's access units; its quantisers vary from macroblock to macroblock."""
    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    codec.time_base, codec.framerate = Fraction(1, 30), Fraction(30)
    codec.thread_count = 1
    codec.options = {
        "tune": "zerolatency", "preset": "veryfast", "aq-mode": "1", "g": "1000", "forced-idr": "1"
    } | (options or {"crf": "30"})  # fmt: skip
    codec.profile = "Baseline"
    units = []
    for index in range(count):
        frame = av.VideoFrame.from_ndarray(moving(index), "yuv420p")
        frame.pict_type = PictureType.I if index in keyframes else PictureType.NONE
        units += [bytes(packet) for packet in codec.encode(frame)]
    return units


def as_unit(data: bytes, index: int, tainted: bool = False) -> AccessUnit:
    return AccessUnit(data, index * PERIOD, 1e9 + index, is_keyframe(data), tainted)


def reference(units: list[bytes], **options: str) -> list[av.VideoFrame]:
    """FFmpeg's own reading of the stream, demuxer and parser included."""
    with av.open(io.BytesIO(b"".join(units)), format="h264") as container:
        context = container.streams.video[0].codec_context
        context.options = options
        return list(container.decode(video=0))


def decode_all(decoder: Decoder, units: list[bytes], start: int = 0) -> list[DecodedPicture]:
    pictures = []
    for index, data in enumerate(units, start):
        pictures += decoder.decode(as_unit(data, index))
    return pictures


def test_pictures_are_ffmpegs_one_for_each_unit_and_at_once() -> None:
    units = coded(8, keyframes=(0, 5))
    decoder = Decoder()
    expected = reference(units)
    assert len(expected) == 8
    for index, (data, frame) in enumerate(zip(units, expected, strict=True)):
        (picture,) = decoder.decode(as_unit(data, index))  # no picture of delay
        assert np.array_equal(picture.i420, frame.to_ndarray(format="yuv420p"))
        assert (picture.width, picture.height) == (WIDTH, HEIGHT)
        assert picture.keyframe == (index in (0, 5))
        assert picture.rtp_ticks == index * PERIOD
        assert picture.arrived == 1e9 + index
        assert picture.decoded > 1e9
        assert not picture.damaged
        assert picture.restored is None
        assert picture.visible is picture.i420


def test_the_quantiser_map_is_what_ffmpeg_exports() -> None:
    units = coded(6)
    pictures = decode_all(Decoder(), units)
    frames = reference(units, export_side_data="venc_params")
    for picture, frame in zip(pictures, frames, strict=True):
        (params,) = (data for data in frame.side_data if data.type.name == "VIDEO_ENC_PARAMS")
        expected: NDArray[np.int32] = params.qp_map()  # PyAV's own loop over the blocks
        assert picture.qp.dtype == np.uint8
        assert picture.qp.shape == (11, 20)
        assert np.array_equal(picture.qp, expected)
    assert len(np.unique(pictures[0].qp)) > 5, "a map that varies"


def test_the_quantiser_map_of_a_constant_quantiser_is_constant() -> None:
    units = coded(3, qp="33", i_qfactor="1", **{"aq-mode": "0"})
    for picture in decode_all(Decoder(), units):
        assert np.all(picture.qp == 33)


def test_zeros_where_no_map_was_exported() -> None:
    (frame,) = reference(coded(1))
    assert np.array_equal(quantiser_map(frame), np.zeros((11, 20), np.uint8))


def test_nothing_before_the_first_idr() -> None:
    units = coded(6, keyframes=(0, 3))
    decoder = Decoder()
    for index in (1, 2):
        assert decoder.decode(as_unit(units[index], index, tainted=True)) == []
    got = decode_all(decoder, units[3:], 3)
    assert len(got) == 3
    for picture, frame in zip(got, reference(units)[3:], strict=True):
        assert np.array_equal(picture.i420, frame.to_ndarray(format="yuv420p"))


def test_tainted_pictures_say_so() -> None:
    units = coded(5, keyframes=(0, 4))
    decoder = Decoder()
    decoder.decode(as_unit(units[0], 0))
    (after_a_gap,) = decoder.decode(as_unit(units[2], 2, tainted=True))
    assert after_a_gap.damaged
    (mended,) = decoder.decode(as_unit(units[4], 4))
    assert not mended.damaged


@pytest.mark.parametrize("seed", range(12))
def test_damage_is_raised_or_flagged_and_the_next_idr_mends_it(seed: int) -> None:
    units = coded(6, keyframes=(0, 4))
    expected = reference(units)
    random = np.random.default_rng(seed)
    broken = bytearray(units[2])
    if seed % 2:
        del broken[len(broken) // 3 :]  # the end is missing
    else:
        for place in random.integers(8, len(broken), 12):
            broken[place] ^= 1 << int(random.integers(8))
    decoder = Decoder()
    decode_all(decoder, units[:2])
    raised = False
    damaged = []
    for index, data in ((2, bytes(broken)), (3, units[3])):
        try:
            damaged += decoder.decode(as_unit(data, index))
        except av.FFmpegError:
            raised = True
    assert len(damaged) + raised >= 1
    mended = decode_all(decoder, units[4:], 4)
    assert len(mended) == 2
    for picture, frame in zip(mended, expected[4:], strict=True):
        assert np.array_equal(picture.i420, frame.to_ndarray(format="yuv420p"))
        assert not picture.damaged


def test_what_follows_a_raised_error_counts_as_damaged_up_to_the_next_idr() -> None:
    units = coded(5, keyframes=(0, 4))
    decoder = Decoder()
    decoder.decode(as_unit(units[0], 0))
    with pytest.raises(av.FFmpegError):
        decoder.decode(as_unit(b"\0\0\0\1\x41", 1))
    flags = [picture.damaged for picture in decode_all(decoder, units[2:], 2)]
    assert flags == [True, True, False]


@pytest.mark.parametrize("data", [b"", b"\0", b"no start code at all", b"\0\0\0\1", b"\0\0\0\1\x09\x10", bytes(500)])
def test_a_unit_of_rubbish_ends_nothing(data: bytes) -> None:
    units = coded(3)
    decoder = Decoder()
    decode_all(decoder, units[:1])
    with contextlib.suppress(av.FFmpegError):
        assert decoder.decode(as_unit(data, 1)) == []
    assert len(decode_all(decoder, units[1:], 2)) == 2


def test_stamps_give_capture_times_and_the_face_share() -> None:
    units = coded(5)
    began = 1_700_000_000 * CLOCK_RATE
    decoder = Decoder()
    (unknown,) = decoder.decode(as_unit(units[0], 0))
    assert unknown.captured == 0.0
    assert not unknown.stamped
    assert decoder.face_share is None
    for index in (1, 2, 3, 4):
        data = units[index]
        if index in (1, 4):
            data = write_stamp(Stamp(began + index * PERIOD, 0.25 if index == 1 else None)) + data
        (picture,) = decoder.decode(as_unit(data, index))
        assert picture.captured == pytest.approx(1_700_000_000 + index / 30, abs=1e-6)
        assert picture.stamped == (index in (1, 4))
        assert decoder.face_share == (0.25 if index < 4 else None)
        assert not picture.damaged


@pytest.mark.parametrize("rate", [15, 30, 60])
def test_pictures_say_how_fast_they_follow_each_other(rate: int) -> None:
    """By the sender's clock; pauses, times that repeat and clocks set back change little."""
    decoder, units = Decoder(), coded(1) * 150
    ticks = CLOCK_RATE // rate
    for index, data in enumerate(units):
        (picture,) = decoder.decode(AccessUnit(data, 10**9 + index * ticks, 1e9, True, False))
        assert index or picture.period == pytest.approx(1 / 30)
    assert picture.period == pytest.approx(1 / rate, rel=0.03)
    before = picture.period
    for later in (90 * CLOCK_RATE, 0, 0, -90 * CLOCK_RATE):
        (picture,) = decoder.decode(AccessUnit(units[0], 2 * 10**9 + later, 1e9, True, False))
    assert before <= picture.period <= before + 0.003


def test_foreign_colours_become_ours() -> None:
    """BT.709 in full range, as screens and some encoders send: the colours seen are those that were meant."""
    colours = {"red": (200, 40, 30), "green": (40, 180, 60), "blue": (30, 60, 210), "grey": (120, 120, 120)}
    patches = [np.full((96, 48, 3), colour, np.uint8) for colour in colours.values()]
    rgb = np.ascontiguousarray(np.concatenate(patches, axis=1))
    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt = 192, 96, "yuv420p"
    codec.time_base = Fraction(1, 30)
    codec.colorspace, codec.color_range = 1, 2
    codec.options = {"tune": "zerolatency", "crf": "10"}
    frame = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(
        format="yuv420p", dst_colorspace=1, src_color_range=2, dst_color_range=2
    )
    data = b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode()])
    decoder = Decoder()
    pictures = decoder.decode(as_unit(data, 0))
    if not pictures:
        pictures = decoder.decode(as_unit(data, 1))
    bgr = bgr_from_i420(pictures[0].i420)
    for place, colour in enumerate(colours.values()):
        seen = bgr[20:76, place * 48 + 12 : place * 48 + 36, ::-1].reshape(-1, 3).mean(0)
        assert np.abs(seen - colour).max() < 6, (colour, seen)


def test_odd_sizes_become_even_and_the_map_fits_the_picture() -> None:
    """4:4:4 streams may be odd; 321 samples take 21 macroblocks, the 320 that are kept take 20."""
    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt = 321, 177, "yuv444p"
    codec.time_base = Fraction(1, 30)
    codec.options = {"tune": "zerolatency"}
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(photograph()[:177, :321, ::-1]), "rgb24")
    (packet,) = codec.encode(frame.reformat(format="yuv444p"))
    (picture,) = Decoder().decode(as_unit(bytes(packet), 0))
    assert (picture.width, picture.height) == (320, 176)
    assert picture.i420.shape == (264, 320)
    assert picture.qp.shape == (11, 20)
    assert picture.qp.min() > 0


@pytest.mark.parametrize(
    ("written", "read", "display"), [("4/3", Fraction(4, 3), 427), ("1/1", 1, 320), ("0/1", 1, 320), ("99/1", 1, 320)]
)
def test_samples_that_are_not_square(written: str, read: Fraction, display: int) -> None:
    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    codec.time_base, codec.sample_aspect_ratio = Fraction(1, 30), Fraction(written)
    codec.options = {"tune": "zerolatency"}
    (packet,) = codec.encode(av.VideoFrame.from_ndarray(moving(0), "yuv420p"))
    (picture,) = Decoder().decode(as_unit(bytes(packet), 0))
    assert picture.aspect == read
    assert (picture.width, picture.height) == (WIDTH, HEIGHT)
    assert picture.display_size == (display, HEIGHT)


def test_a_new_size_in_mid_stream_is_followed() -> None:
    small = coded(2)
    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt = 480, 272, "yuv420p"
    codec.time_base = Fraction(1, 30)
    codec.options = {"tune": "zerolatency"}
    large = [
        bytes(packet)
        for index in range(2)
        for packet in codec.encode(av.VideoFrame.from_ndarray(moving(index, 480, 272), "yuv420p"))
    ]
    sizes = [(picture.width, picture.height) for picture in decode_all(Decoder(), small + large)]
    assert sizes == [(320, 176)] * 2 + [(480, 272)] * 2
