"""Video files of every kind come in as upright I420 pictures in BT.601, limited range."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import shared.clips
from shared.clips import Clip, fitted, turned
from shared.errors import SemcallError
from shared.picture import I420, bgr_from_i420, i420_from_bgr, planes

BARS = np.array([[200, 60, 50], [40, 160, 70], [60, 70, 210], [180, 180, 180]], np.uint8)  # RGB, none clipped


def scene(width: int, height: int) -> NDArray[np.uint8]:
    """RGB: four upright bars, a white square in the top left corner: no symmetry whatever."""
    rgb = np.repeat(BARS[np.arange(width) * 4 // width][None], height, axis=0)
    rgb[: height // 4, : width // 6] = 235
    return rgb


def expected(width: int, height: int) -> I420:
    return i420_from_bgr(np.ascontiguousarray(scene(width, height)[..., ::-1]))


def write(
    path: Path,
    frames: Iterable[av.VideoFrame],
    codec: str = "ffv1",
    pixels: str = "yuv420p",
    *,
    rotation: int = 0,
    times: list[float] | None = None,
    options: dict[str, str] | None = None,
    ratio: Fraction | None = None,
) -> Path:
    """One short file; the frames are converted to `pixels` unless they have it."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options or {})
        if rotation:
            stream.set_display_rotation(rotation)
        for index, frame in enumerate(frames):
            if index == 0:
                stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, pixels
                stream.codec_context.color_range = frame.color_range
                stream.codec_context.sample_aspect_ratio = ratio or Fraction(1)
                stream.codec_context.colorspace = frame.colorspace
                if times is not None:
                    stream.codec_context.time_base = Fraction(1, 1000)
            if times is not None:
                frame.pts, frame.time_base = round(times[index] * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def rgb_frame(rgb: NDArray[np.uint8], pixels: str) -> av.VideoFrame:
    """Converted by swscale's defaults: BT.601, the range that the format stands for."""
    return av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pixels)


def grey_frames(count: int, width: int = 64, height: int = 48) -> list[av.VideoFrame]:
    """Pictures whose luma tells their number: 20, 30, 40..."""
    return [
        av.VideoFrame.from_ndarray(np.full((height * 3 // 2, width), 20 + 10 * n, np.uint8), format="yuv420p")
        for n in range(count)
    ]


def difference(one: I420, other: I420) -> float:
    """Mean absolute difference of the colours, away from edges that chroma subsampling blurs."""
    assert one.shape == other.shape
    a, b = (bgr_from_i420(picture).astype(int) for picture in (one, other))
    inner = slice(2, -2)
    return float(np.median(np.abs(a - b)[inner, inner]))


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "bgr0", "yuv410p"])
@pytest.mark.parametrize("size", [(321, 241), (320, 240)])
def test_pixel_formats_and_odd_sizes(tmp_path: Path, pixels: str, size: tuple[int, int]) -> None:
    path = write(tmp_path / "clip.mkv", [rgb_frame(scene(*size), pixels)] * 2, pixels=pixels)
    clip = Clip(path)
    assert clip.size == (320, 240)
    pictures = list(clip)
    assert len(pictures) == 2
    picture = pictures[0][0]
    assert picture.dtype == np.uint8
    assert picture.flags.c_contiguous
    assert difference(picture, expected(320, 240)) <= 2


@pytest.mark.parametrize(
    ("codec", "pixels", "suffix"),
    [("mjpeg", "yuvj420p", "avi"), ("mjpeg", "yuvj422p", "avi"), ("png", "rgb24", "mov")],
)
def test_full_range_and_rgb_codecs(tmp_path: Path, codec: str, pixels: str, suffix: str) -> None:
    path = write(tmp_path / f"clip.{suffix}", [rgb_frame(scene(320, 240), pixels)], codec, pixels)
    ((picture, _),) = Clip(path)
    assert difference(picture, expected(320, 240)) <= 4


@pytest.mark.parametrize(("codec", "suffix"), [("ffv1", "mkv"), ("libx264", "mp4")])
@pytest.mark.parametrize("scaled", [False, True])
def test_full_range_tag_is_obeyed(tmp_path: Path, codec: str, suffix: str, scaled: bool) -> None:
    array = np.full((72, 64), 128, np.uint8)
    array[:48] = 255
    frame = av.VideoFrame.from_ndarray(array, format="yuv420p")
    frame.color_range = 2  # full: 255 is white
    path = write(tmp_path / f"clip.{suffix}", [frame], codec, options={"crf": "1"} if codec == "libx264" else None)
    ((picture, _),) = Clip(path, (32, 32) if scaled else (64, 64))
    assert planes(picture)[0][4:-4, 4:-4] == pytest.approx(235, abs=1)


def test_grey_video(tmp_path: Path) -> None:
    frame = av.VideoFrame.from_ndarray(np.full((48, 64), 200, np.uint8), format="gray")
    ((picture, _),) = Clip(write(tmp_path / "clip.mkv", [frame], pixels="gray"))
    luma, chroma = planes(picture)
    assert (chroma == 128).all()
    assert luma == pytest.approx(16 + 200 * 219 / 255, abs=1)  # grey is full range


@pytest.mark.parametrize(
    ("matrix", "yuv"), [(1, (63, 102, 240)), (6, (81, 90, 240)), (5, (81, 90, 240)), (2, (81, 90, 240))]
)
def test_red_is_the_same_red_whatever_the_matrix(tmp_path: Path, matrix: int, yuv: tuple[int, ...]) -> None:
    """H.273: 1 is BT.709, 5 and 6 are BT.601, 2 is untagged. `yuv` is pure red in that matrix."""
    array = np.empty((72, 64), np.uint8)
    array[:48], array[48:60], array[60:] = yuv
    frame = av.VideoFrame.from_ndarray(array, format="yuv420p")
    frame.color_range, frame.colorspace = 1, matrix
    path = write(tmp_path / "clip.mkv", [frame])
    for bound in ((64, 64), (32, 32)):
        ((picture, _),) = Clip(path, bound)
        luma, chroma = planes(picture)
        assert luma == pytest.approx(81, abs=2)
        assert chroma[0] == pytest.approx(90, abs=2)
        assert chroma[1] == pytest.approx(240, abs=2)


@pytest.mark.parametrize(("rotation", "quarters"), [(90, 1), (270, 3), (-90, 3), (180, 2)])
@pytest.mark.parametrize("bound", [(640, 640), (160, 120)])
def test_rotated_phone_video_is_upright(tmp_path: Path, rotation: int, quarters: int, bound: tuple[int, int]) -> None:
    """`rotation` is what the display matrix asks for, counter-clockwise: the sensor lay turned the other way."""
    upright = scene(240, 320) if quarters % 2 else scene(320, 240)
    stored = np.ascontiguousarray(np.rot90(upright, -quarters))
    assert stored.shape == (240, 320, 3)
    path = write(
        tmp_path / "phone.mp4", [rgb_frame(stored, "yuv420p")] * 2, "libx264", rotation=rotation, options={"crf": "4"}
    )
    if rotation == 90:
        # The tkhd matrix of a quarter turn counter-clockwise (ISO/IEC 14496-12 clause 8.3.2): a, b, u, c, d...
        data = path.read_bytes()
        matrix = data.index(b"tkhd") + 4 + 40
        assert np.frombuffer(data, ">i4", 5, matrix).tolist() == [0, -65536, 0, 65536, 0]
    clip = Clip(path, bound)
    portrait = quarters % 2 == 1
    scale = min(1.0, bound[0] / 320)
    assert clip.size == (
        (round(240 * scale), round(320 * scale)) if portrait else (round(320 * scale), round(240 * scale))
    )
    picture = next(iter(clip))[0]
    whole = bgr_from_i420(picture)
    want = cv2.resize(upright[..., ::-1], clip.size, interpolation=cv2.INTER_AREA)
    assert float(np.median(np.abs(whole.astype(int) - want))) <= 4
    for wrong in (1, 2, 3):  # and no other turn would do
        turned_wrong = np.rot90(want, wrong)
        if turned_wrong.shape == whole.shape:
            assert float(np.mean(np.abs(whole.astype(int) - turned_wrong))) > 20


@pytest.mark.parametrize("degrees", [0, 90, 180, 270, -90, -270, 360])
def test_turning_is_exact(degrees: int) -> None:
    picture = np.random.default_rng(5).integers(0, 256, (72, 64), np.uint8)
    luma, chroma = planes(picture)
    new_luma, new_chroma = planes(turned(picture, degrees))
    quarters = degrees // 90
    assert np.array_equal(new_luma, np.rot90(luma, quarters))
    assert np.array_equal(new_chroma[0], np.rot90(chroma[0], quarters))
    assert np.array_equal(new_chroma[1], np.rot90(chroma[1], quarters))
    assert turned(picture, 13) is picture


@pytest.mark.parametrize(
    ("source", "bound", "size"),
    [
        ((1920, 1080), (1280, 720), (1280, 720)),
        ((1080, 1920), (1280, 720), (720, 1280)),  # portrait turns the bound
        ((640, 360), (1280, 720), (640, 360)),  # never enlarged
        ((321, 241), (1280, 720), (320, 240)),
        ((1440, 1080), (1280, 720), (960, 720)),
        ((2560, 1080), (1280, 720), (1280, 540)),
        ((1000, 1000), (1280, 720), (720, 720)),
        ((1920, 1080), (360, 640), (640, 360)),
    ],
)
def test_fitted(source: tuple[int, int], bound: tuple[int, int], size: tuple[int, int]) -> None:
    assert fitted(source, bound) == size


@given(st.tuples(*[st.integers(16, 5000)] * 2), st.tuples(*[st.integers(16, 2000)] * 2))
def test_fitted_is_even_and_inside(source: tuple[int, int], bound: tuple[int, int]) -> None:
    width, height = fitted(source, bound)
    assert width % 2 == height % 2 == 0
    assert min(width, height) >= 16
    assert width <= source[0]
    assert height <= source[1]
    assert max(width, height) <= max(bound)
    assert min(width, height) <= min(bound)


def test_times_count_from_the_first_picture(tmp_path: Path) -> None:
    path = write(tmp_path / "vfr.mkv", grey_frames(5), times=[1.0, 1.04, 1.2, 1.25, 2.0])
    clip = Clip(path)
    pictures = list(clip)
    assert [when for _, when in pictures] == pytest.approx([0, 0.04, 0.2, 0.25, 1.0], abs=2e-3)
    assert [int(picture[0, 0]) for picture, _ in pictures] == [20, 30, 40, 50, 60]
    again = list(clip)  # every round starts anew
    assert [when for _, when in again] == [when for _, when in pictures]
    assert [np.array_equal(a[0], b[0]) for a, b in zip(again, pictures, strict=True)] == [True] * 5


def test_constant_rate(tmp_path: Path) -> None:
    clip = Clip(write(tmp_path / "clip.mp4", grey_frames(6), "libx264"))
    assert clip.fps == pytest.approx(30)
    assert [when for _, when in clip] == pytest.approx([n / 30 for n in range(6)], abs=1e-3)


def test_chosen_pictures(tmp_path: Path) -> None:
    clip = Clip(write(tmp_path / "clip.mkv", grey_frames(6)))
    assert [(n, int(picture[0, 0])) for n, picture in clip.pictures({1, 4, 99})] == [(1, 30), (4, 60)]


def test_nothing_is_decoded_after_the_last_chosen_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = Clip(write(tmp_path / "clip.mkv", grey_frames(12)))
    decode, decoded = shared.clips._frames, []

    def counting(container: av.container.InputContainer) -> Iterator[av.VideoFrame]:
        for frame in decode(container):
            decoded.append(frame)
            yield frame

    monkeypatch.setattr(shared.clips, "_frames", counting)
    assert [n for n, _ in clip.pictures({0, 3})] == [0, 3]
    assert len(decoded) == 4
    assert list(clip.pictures(set())) == []
    assert len(decoded) == 4


@pytest.mark.parametrize(
    ("ratio", "rotation", "size"),
    [
        (Fraction(4, 3), 0, (426, 240)),
        (Fraction(3, 4), 0, (240, 240)),
        (Fraction(4, 3), 90, (240, 426)),
        (Fraction(4, 3), 180, (426, 240)),
        (Fraction(1), 0, (320, 240)),
        (Fraction(40), 0, (320, 240)),  # nonsense
    ],
)
def test_pixels_that_are_not_square(tmp_path: Path, ratio: Fraction, rotation: int, size: tuple[int, int]) -> None:
    stored = rgb_frame(scene(320, 240), "yuv420p")
    path = write(tmp_path / "clip.mp4", [stored] * 2, "libx264", rotation=rotation, options={"crf": "4"}, ratio=ratio)
    clip = Clip(path)
    assert clip.size == size
    picture = bgr_from_i420(next(iter(clip))[0])
    upright = np.ascontiguousarray(np.rot90(scene(320, 240)[..., ::-1], rotation // 90))
    want = cv2.resize(upright, size, interpolation=cv2.INTER_AREA)
    assert picture.shape == want.shape
    assert float(np.median(np.abs(picture.astype(int) - want))) <= 4
    width, height = Clip(path, (160, 120)).size
    assert width / height == pytest.approx(size[0] / size[1], rel=0.02)


def test_size_that_changes_midway_is_fitted(tmp_path: Path) -> None:
    """Raw H.264 may change its size; every picture still comes at the clip's own."""
    streams = []
    for width, height in ((64, 48), (96, 64)):
        codec = av.CodecContext.create("libx264", "w")
        codec.width, codec.height, codec.pix_fmt, codec.time_base = width, height, "yuv420p", Fraction(1, 30)
        frames = grey_frames(2, width, height)
        for index, frame in enumerate(frames):
            frame.pts = index
        streams += [bytes(packet) for frame in [*frames, None] for packet in codec.encode(frame)]
    path = tmp_path / "clip.h264"
    path.write_bytes(b"".join(streams))
    assert {picture.shape for picture, _ in Clip(path)} == {(72, 64)}


def test_a_damaged_tail_ends_the_clip_early(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mkv", grey_frames(12))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * 0.7)])
    pictures = list(Clip(path))
    assert 2 <= len(pictures) < 12
    assert [int(picture[0, 0]) for picture, _ in pictures] == [20 + 10 * n for n in range(len(pictures))]


def one_sentence(error: pytest.ExceptionInfo[SemcallError]) -> str:
    text = str(error.value)
    assert text.endswith(".")
    assert "\n" not in text
    assert "Traceback" not in text
    assert "Errno" not in text
    return text


@pytest.mark.parametrize("content", [b"", b"this is no video\n" * 50, b"\0" * 4000])
def test_not_a_video(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.mp4"
    path.write_bytes(content)
    with pytest.raises(SemcallError) as error:
        Clip(path)
    assert str(path) in one_sentence(error)


def test_missing_file_and_directory(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.mp4", tmp_path):
        with pytest.raises(SemcallError) as error:
            Clip(path)
        assert str(path) in one_sentence(error)


def test_truncated_mp4(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mp4", grey_frames(10), "libx264")
    path.write_bytes(path.read_bytes()[:400])  # the index at the end is gone
    with pytest.raises(SemcallError) as error:
        Clip(path)
    assert str(path) in one_sentence(error)


def test_sound_only(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(SemcallError, match="no video stream") as error:
        Clip(path)
    one_sentence(error)


def test_no_picture_can_be_decoded(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.avi", [rgb_frame(scene(64, 48), "yuvj420p")], "mjpeg", "yuvj420p")
    data = bytearray(path.read_bytes())
    start = data.index(b"\xff\xd8", data.index(b"movi"))
    end = data.index(b"\xff\xd9", start)
    data[start:end] = bytes(end - start)
    path.write_bytes(data)
    with pytest.raises(SemcallError) as error:
        Clip(path)
    assert "no picture that can be decoded" in one_sentence(error)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs a user whom file modes bind")
def test_not_permitted(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mkv", grey_frames(1))
    path.chmod(0)
    with pytest.raises(SemcallError, match=r"(?i)permission denied") as error:
        Clip(path)
    one_sentence(error)


def test_refusal_of_the_system_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for whoever runs the tests as root."""

    def refuse(path: str, **_: object) -> None:
        raise av.error.PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(av, "open", refuse)
    with pytest.raises(SemcallError, match=r"Cannot read .*clip\.mkv as video: permission denied\.$"):
        Clip(tmp_path / "clip.mkv")
