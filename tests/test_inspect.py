"""`semcall inspect`: figures as FFmpeg and the parser have them, damage told, heat maps that show the picture."""

from __future__ import annotations

import json
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from command import call
from numpy.typing import NDArray

from sender.cavlc import INTER, PCM, SKIP, MacroblockParser
from sender.inspect import Report, draw_maps, inspect_file
from sender.live import EncodeOptions
from sender.offline import OfflineOptions, encode_file
from shared.astronaut import AstronautClip
from shared.errors import SemcallError
from shared.h264 import nal_units
from shared.quantisers import quantiser_map

SIZE = 320, 180  # the last row of macroblocks is a quarter inside
CAVLC = {"preset": "veryfast", "tune": "zerolatency", "crf": "28", "x264-params": "cabac=0:bframes=0", "g": "1000"}


def code(options: dict[str, str], count: int = 12, codec: str = "libx264") -> Iterable[av.Packet[Any]]:
    """The astronaut, coded."""
    clip = AstronautClip(SIZE)
    encoder = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt = *SIZE, "yuv420p"
    encoder.time_base, encoder.framerate, encoder.options = Fraction(1, 30), Fraction(30), options
    encoder.thread_count = 1
    for index in range(count):
        frame = av.VideoFrame.from_ndarray(clip.picture(index), format="yuv420p")
        frame.pts, frame.time_base = index, Fraction(1, 30)
        yield from encoder.encode(frame)
    yield from encoder.encode(None)


def film(path: Path, options: dict[str, str], count: int = 12, codec: str = "libx264") -> Path:
    """The astronaut in a container; a raw stream where the name ends in .h264."""
    if path.suffix == ".h264":
        path.write_bytes(b"".join(bytes(packet) for packet in code(options, count)))
        return path
    clip = AstronautClip(SIZE)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.thread_count = 1  # x264 would cut a slice for every thread
        for index in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(clip.picture(index), format="yuv420p")))
        container.mux(stream.encode(None))
    return path


def reference(path: Path) -> tuple[list[av.VideoFrame], list[NDArray[np.uint8]], list[int]]:
    """Pictures, quantiser maps and packet sizes by FFmpeg alone."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.options = {"export_side_data": "venc_params"}
        stream.thread_type = "NONE"
        frames, sizes = [], []
        for packet in container.demux(stream):
            sizes += [packet.size] if packet.size else []
            frames += packet.decode()
    return frames, [quantiser_map(frame) for frame in frames], sizes


def spoil(path: Path, out: Path, index: int, *, length: bool = False) -> Path:
    """A copy whose access unit `index` is damaged: its slice data, or the length field of its NAL unit."""
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][index]
        position, size = packet.pos, packet.size
    data = bytearray(path.read_bytes())
    assert position is not None
    if length:
        data[position : position + 4] = b"\x7f\xff\xff\xff"
    else:
        damage = np.random.default_rng(5).integers(1, 255, size // 2, np.uint8).tobytes()
        data[position + size - len(damage) : position + size] = damage
    out.write_bytes(data)
    return out


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of `semcall encode`."""
    folder = tmp_path_factory.mktemp("ours")
    source = film(folder / "source.mp4", {"crf": "12", "preset": "ultrafast"}, 24)
    options = EncodeOptions(bitrate=120e3, share=0.35, mode="exact", stats=folder / "s.jsonl")
    encode_file(OfflineOptions(source, folder / "out.mp4", options))
    return folder / "out.mp4"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film(tmp_path_factory.mktemp("plain") / "plain.mp4", CAVLC)


# Figures


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "h264", "ts"])
@pytest.mark.parametrize(
    "params",
    [
        "cabac=0:bframes=0",
        "cabac=0:bframes=0:8x8dct=1:ref=3:weightp=2:slices=3:keyint=5:qp=20",
        "cabac=0:bframes=0:qp=1",
    ],
)
def test_figures_are_ffmpegs(suffix: str, params: str, tmp_path: Path) -> None:
    """Quantisers of every macroblock with a residual, sizes, types, times."""
    path = film(tmp_path / f"film.{suffix}", CAVLC | {"x264-params": params}, 8)
    report = inspect_file(path)
    frames, maps, _ = reference(path)
    assert len(report.frames) == len(frames) == 8
    assert (report.width, report.height, report.damaged) == (*SIZE, 0)
    parser = MacroblockParser()
    histogram = np.zeros(52, np.int64)
    units = [bytes(packet) for packet in code(CAVLC | {"x264-params": params}, 8)]  # the same stream, without file
    for figures, unit, frame, quantisers in zip(report.frames, units, frames, maps, strict=True):
        info = parser.parse(unit)
        counts = figures.macroblocks
        assert counts is not None
        assert counts["skip"] == int((info.type == SKIP).sum())
        assert counts["inter"] == int((info.type == INTER).sum())
        assert counts["pcm"] == int((info.type == PCM).sum())
        assert sum(counts.values()) == quantisers.size == 240
        coded = quantisers[info.coded]
        histogram += np.bincount(coded, minlength=52)
        if coded.size:
            assert figures.qp_mean == pytest.approx(float(coded.mean()), abs=1e-3)
            assert (figures.qp_min, figures.qp_max) == (coded.min(), coded.max())
        assert figures.type == ("IDR" if frame.key_frame else "P")
        assert figures.header_bits is not None
        # A container may repeat the parameter sets or add a delimiter; macroblocks are the stream's own.
        assert figures.bits - figures.header_bits == pytest.approx(float(info.bits.sum()), abs=1)
        assert figures.bits >= 8 * sum(map(len, nal_units(unit))) - 8 * 64
        if suffix != "h264":
            assert figures.seconds == pytest.approx(frame.time, abs=1e-3)
    assert np.array_equal(report.qp_histogram, histogram)


def test_totals(plain: Path) -> None:
    report = inspect_file(plain)
    _, _, sizes = reference(plain)
    assert report.seconds == pytest.approx(12 / 30, abs=1e-3)
    assert report.kbps == pytest.approx(8 * sum(sizes) / report.seconds / 1e3, rel=0.02)
    assert report.bits == sum(frame.bits for frame in report.frames)
    assert sum(report.macroblocks.values()) == 12 * 240
    assert report.qp_mean == pytest.approx(np.average(np.arange(52), weights=report.qp_histogram))


def test_what_encode_says_inspect_finds(ours: Path) -> None:
    said = [json.loads(line) for line in (ours.parent / "s.jsonl").read_text().splitlines()]
    report = inspect_file(ours)
    assert report.profile == "Constrained Baseline"
    for line, frame in zip(said, report.frames, strict=True):
        assert frame.bits == pytest.approx(line["bits"], abs=8 * 20)  # start codes
        assert frame.qp_min is None or frame.qp_min >= min(line["qp_face"], line["qp_background"])
        assert frame.type == ("IDR" if line["keyframe"] else "P")


def test_chosen_frames(plain: Path) -> None:
    everything = inspect_file(plain)
    some = inspect_file(plain, (3, 6))
    assert [frame.frame for frame in some.frames] == [3, 4, 5, 6]
    assert some.frames == everything.frames[3:7]
    assert some.seconds == pytest.approx(4 / 30, abs=1e-3)
    assert int(some.qp_histogram.sum()) < int(everything.qp_histogram.sum())
    assert [frame.frame for frame in inspect_file(plain, (10, None)).frames] == [10, 11]
    with pytest.raises(SemcallError, match="has 12 frames"):
        inspect_file(plain, (50, 60))


# Damage


def checked(report: Report, damaged: set[int]) -> None:
    assert {frame.frame for frame in report.frames if frame.error is not None} == damaged
    assert report.damaged == len(damaged)
    for frame in report.frames:
        assert (frame.macroblocks is None) == (frame.frame in damaged)
        assert (frame.type == "?") == (frame.frame in damaged)


@pytest.mark.parametrize("index", [0, 5, 11])
def test_a_damaged_unit_is_told_and_passed(plain: Path, tmp_path: Path, index: int) -> None:
    """Also the first, which would take the parameter sets with it."""
    report = inspect_file(spoil(plain, tmp_path / "spoilt.mp4", index))
    checked(report, {index})
    whole = inspect_file(plain)
    for frame, before in zip(report.frames, whole.frames, strict=True):
        if frame.frame > 0 and frame.frame != index:
            assert (frame.bits, frame.qp_mean) == (before.bits, before.qp_mean)
            assert frame.header_bits == before.header_bits
    assert report.frames[index].bits > 0


def test_a_broken_length_field(plain: Path, tmp_path: Path) -> None:
    report = inspect_file(spoil(plain, tmp_path / "spoilt.mp4", 4, length=True))
    checked(report, {4})
    assert report.frames[4].bits == pytest.approx(inspect_file(plain).frames[4].bits, abs=8 * 8)


def test_a_raw_stream_without_its_beginning(tmp_path: Path) -> None:
    """It cannot be decoded from there, but measured: the next parameter sets are those of the stream."""
    options = CAVLC | {"x264-params": "cabac=0:bframes=0:keyint=6:repeat-headers=1"}
    units = [bytes(packet) for packet in code(options)]
    (tmp_path / "late.h264").write_bytes(b"".join(units[2:]))
    report = inspect_file(tmp_path / "late.h264")
    assert [frame.type for frame in report.frames] == ["P"] * 4 + ["IDR"] + ["P"] * 5
    parser = MacroblockParser()
    for unit, frame in zip(units, [None, None, *report.frames], strict=True):
        info = parser.parse(unit)
        if frame is not None:
            assert frame.macroblocks is not None
            assert frame.macroblocks["skip"] == int((info.type == SKIP).sum())


def test_b_slices_are_named(tmp_path: Path) -> None:
    options = CAVLC | {"tune": "psnr", "x264-params": "cabac=0:bframes=2:b-adapt=0"}
    report = inspect_file(film(tmp_path / "film.mp4", options))
    errors = {frame.error for frame in report.frames if frame.error}
    assert errors == {"B slices are not supported"}
    assert 4 <= len(report.frames) - report.damaged < 12
    assert report.seconds == pytest.approx(12 / 30, abs=1e-3)


# Heat maps


def test_heat_maps_show_the_picture(ours: Path, tmp_path: Path) -> None:
    report = inspect_file(ours)
    files = draw_maps(ours, tmp_path / "deep" / "maps", report)
    assert len(files) == 8
    assert [file.name for file in (files[0], files[-1])] == ["frame-000000.png", "frame-000023.png"]
    frames, maps, _ = reference(ours)
    image = cv2.imread(str(files[-1]))
    assert image is not None
    assert image.shape[1] == 640  # twice 320
    picture = image[26 : 26 + 360]
    luma = frames[-1].to_ndarray()[:180].repeat(2, 0).repeat(2, 1)
    saturation = picture.max(axis=2).astype(int) - picture.min(axis=2)
    grey = saturation == 0
    assert 0.2 < grey.mean() < 0.99
    assert np.array_equal(picture[grey][:, 0], luma[grey]), "where nothing is drawn, the decoded picture"
    # Below: quantisers, one colour each, at the macroblocks that FFmpeg's map has them for.
    legend = 10 + 14 + 26
    lower = image[26 + 360 + legend :][:360]
    drawn = (lower.max(axis=2).astype(int) - lower.min(axis=2)) > 0
    blocks = drawn[::32, ::32]
    figures = report.frames[-1]
    assert figures.qp_mean is not None
    values = maps[-1][blocks]
    assert blocks.sum() > 5
    assert values.mean() == pytest.approx(figures.qp_mean, abs=1e-3)
    bar = image[26 + 360 + 10 : 26 + 360 + 24, 200:600]
    assert len(np.unique(bar.reshape(-1, 3), axis=0)) > 100, "the scale"


def test_heat_maps_of_chosen_frames_and_shapes(tmp_path: Path) -> None:
    clip = AstronautClip((120, 176))
    path = tmp_path / "tall.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options=CAVLC)
        stream.width, stream.height, stream.pix_fmt = 120, 176, "yuv420p"
        for index in range(12):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(clip.picture(index), format="yuv420p")))
        container.mux(stream.encode(None))
    files = draw_maps(path, tmp_path / "maps", inspect_file(path, (1, 10)), every=True)
    assert [file.name for file in files] == [f"frame-{n:06d}.png" for n in range(1, 11)]
    image = cv2.imread(str(files[0]))
    assert image is not None
    assert image.shape == (26 + 176 * 6 + 50, 2 * 120 * 6, 3)


def test_damaged_frames_have_no_map(plain: Path, tmp_path: Path) -> None:
    path = spoil(plain, tmp_path / "spoilt.mp4", 5)
    files = draw_maps(path, tmp_path / "maps", inspect_file(path), every=True)
    assert len(files) == 11
    assert "frame-000005.png" not in [file.name for file in files]


# Command line


def test_table(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = spoil(plain, tmp_path / "spoilt.mp4", 3)
    assert call(monkeypatch, "inspect", path, "--png", tmp_path / "maps") == 0
    said = capfd.readouterr().out
    report = inspect_file(plain)
    assert "error" in said
    assert "1 could not be measured" in said
    assert "8 heat maps" in said
    for frame in report.frames[:3]:
        assert str(frame.bits) in said
    row = next(line.split() for line in said.splitlines() if line.split()[:2] == ["1", "P"])
    counts = report.frames[1].macroblocks
    assert counts is not None
    assert row[2:8] == [
        str(report.frames[1].bits),
        str(report.frames[1].header_bits),
        str(counts["skip"]),
        str(counts["inter"]),
        str(counts["intra4"] + counts["intra16"]),
        "0",
    ]


def test_json(plain: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "inspect", plain, "--json", "--frames", "2-4") == 0
    said = json.loads(capfd.readouterr().out)
    report = inspect_file(plain, (2, 4))
    assert [frame["frame"] for frame in said["frames"]] == [2, 3, 4]
    assert said["totals"]["kbps"] == pytest.approx(report.kbps, abs=1e-3)
    assert said["totals"]["macroblocks"] == report.macroblocks
    histogram = {int(qp): count for qp, count in said["totals"]["qp_histogram"].items()}
    assert histogram == {qp: count for qp, count in enumerate(report.qp_histogram) if count}
    assert (said["width"], said["height"], said["fps"]) == (*SIZE, 30)
    assert said["frames"][0]["error"] is None


def test_refusals(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    cabac = film(tmp_path / "cabac.mp4", {"preset": "veryfast"})
    raw = film(tmp_path / "cabac.h264", {"preset": "veryfast"})
    mpeg4 = film(tmp_path / "mpeg4.mp4", {}, codec="mpeg4")
    interlaced = film(tmp_path / "tff.mp4", CAVLC | {"x264-params": "cabac=0:bframes=0:tff=1"})
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=48_000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
        silence.sample_rate = 48_000
        container.mux([*stream.encode(silence), *stream.encode(None)])
    (tmp_path / "notes.h264").write_text("no film at all\n" * 50)
    (tmp_path / "cut.mp4").write_bytes(plain.read_bytes()[:2000])
    (tmp_path / "file").write_text("precious")
    cases: list[tuple[tuple[object, ...], str]] = [
        ((cabac,), "is coded with CABAC"),
        ((raw,), "is coded with CABAC"),
        ((cabac, "--json"), "is coded with CABAC"),
        ((mpeg4,), "is coded with MPEG-4 part 2"),
        ((interlaced,), "interlaced video is not supported"),
        ((tmp_path / "sound.mp4",), "has no video stream"),
        ((tmp_path / "gone.mp4",), "Cannot read"),
        ((tmp_path / "notes.h264",), "notes.h264"),
        ((tmp_path / "cut.mp4",), "Cannot read"),
        ((tmp_path,), "Cannot read"),
        ((plain, "--frames", "9-3"), "no range of frame numbers"),
        ((plain, "--frames", "x"), "no range of frame numbers"),
        ((plain, "--frames", "100"), "has 12 frames"),
        ((plain, "--png", tmp_path / "file" / "maps"), "Cannot write heat maps"),
    ]
    for arguments, expected in cases:
        capfd.readouterr()
        assert call(monkeypatch, "inspect", *arguments) == 2, arguments
        said, error = capfd.readouterr()
        assert error.startswith("semcall: "), error
        assert error.count("\n") == 1
        assert expected in error
        assert said == ""


@pytest.mark.parametrize("command", ["encode", "inspect"])
def test_help_fits_one_screen(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert call(monkeypatch, command, "--help") == 0
    said = capfd.readouterr().out.splitlines()
    assert 8 < len(said) <= 40
    assert max(map(len, said)) <= 80
    assert any(line.strip().startswith("Example: semcall " + command) for line in said)
