"""`semcall mask`: the overlay and its JSON lines, whole or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from command import call
from faces import bright_model, overlap, scene, squares

from sender.offline import OfflineOptions, encode_file
from sender.overlay import STDOUT, MaskOptions, draw_masks, overlay
from sender.parser import FaceOptions
from shared.errors import SemcallError
from shared.grid import Mask
from shared.outfile import replacing
from shared.picture import planes

ONE, OTHER = (240, 96, 112), (480, 208, 40)
FRAMES = 24


@pytest.fixture(scope="module")
def parser(tmp_path_factory: pytest.TempPathFactory) -> FaceOptions:
    return bright_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face, with sound, at 25 fps; another comes with picture 10."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"crf": "10", "preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 640, 360, "yuv420p"
        audio = container.add_stream("aac", rate=48_000, layout="mono")
        for n in range(FRAMES):
            faces = [ONE, OTHER] if n >= 10 else [ONE]
            container.mux(video.encode(av.VideoFrame.from_ndarray(scene(*faces), format="yuv420p")))
        container.mux(video.encode(None))
        for n in range(FRAMES * 1920 // 1024):
            frame = av.AudioFrame.from_ndarray(np.full((1, 1024), 300, np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 48_000, n * 1024, Fraction(1, 48_000)
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    return path


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def mask_of(line: dict[str, Any]) -> Mask:
    mask = np.zeros((line["rows"], line["columns"]), np.bool_)
    for row, first, end in line["runs"]:
        assert not mask[row, first:end].any()
        mask[row, first:end] = True
    return mask


def test_lines_and_video(film: Path, parser: FaceOptions, tmp_path: Path) -> None:
    out, told = tmp_path / "out.mp4", tmp_path / "lines.jsonl"
    progress: list[tuple[int, int | None]] = []
    done = draw_masks(MaskOptions(film, out, told, parser), lambda *step: progress.append(step))
    assert done == (FRAMES, FRAMES)
    assert progress == [(n + 1, FRAMES) for n in range(FRAMES)]
    said = lines(told.read_text())
    assert [line["frame"] for line in said] == list(range(FRAMES))
    assert [line["seconds"] for line in said] == pytest.approx([n / 25 for n in range(FRAMES)], abs=1e-3)
    assert {(line["rows"], line["columns"]) for line in said} == {(23, 40)}
    assert overlap(mask_of(said[0]), squares(ONE)) > 0.9
    assert overlap(mask_of(said[-1]), squares(ONE, OTHER)) > 0.9
    assert set(said[0]["ms"]) == {"shrink", "flow", "network"}
    assert set(said[1]["ms"]) == {"shrink", "flow"}
    with av.open(str(out)) as container:
        frames = list(container.decode(video=0))
        assert [frame.time for frame in frames] == pytest.approx([n / 25 for n in range(FRAMES)], abs=1e-3)
        assert (frames[0].width, frames[0].height) == (640, 360)
        assert (frames[0].colorspace, frames[0].color_range) == (6, 1)
    with av.open(str(out)) as container:
        assert container.streams.audio[0].codec_context.codec.canonical_name == "aac"
        seconds = sum(frame.samples for frame in container.decode(audio=0)) / 48_000
        assert seconds == pytest.approx(FRAMES / 25, abs=0.1)
    chroma = planes(frames[-1].to_ndarray())[1].astype(int)
    assert chroma[0, 60:90, 140:160].mean() < 112, "the first face is tinted"
    assert chroma[0, 10:30, 10:60].mean() == pytest.approx(128, abs=3), "the wall is not"


def test_masks_are_those_of_encode(film: Path, parser: FaceOptions, tmp_path: Path) -> None:
    import base64

    from sender.live import EncodeOptions

    told, stats = tmp_path / "lines.jsonl", tmp_path / "stats.jsonl"
    draw_masks(MaskOptions(film, None, told, parser))
    encode_file(OfflineOptions(film, tmp_path / "out.mp4", EncodeOptions(stats=stats), parser))
    for line, coded in zip(lines(told.read_text()), lines(stats.read_text()), strict=True):
        bits = np.unpackbits(np.frombuffer(base64.b64decode(coded["mask"]), np.uint8))[: 23 * 40]
        assert np.array_equal(bits.reshape(23, 40).astype(np.bool_), mask_of(line))


def test_the_overlay_leaves_the_picture_alone() -> None:
    i420 = scene(ONE)
    before = i420.copy()
    mask = squares(ONE)
    drawn = overlay(i420, mask)
    assert np.array_equal(i420, before)
    assert np.array_equal(overlay(i420, np.zeros_like(mask)), i420)
    luma, chroma = planes(drawn)
    changed = luma != planes(i420)[0]
    assert changed[96:208, 240:352].any()
    assert not changed[104:200, 248:344].any(), "the face can be seen"
    changed[96:208, 240:352] = False
    assert not changed.any()
    assert (chroma[0, 48:104, 120:176] == 106).all()
    assert (chroma[0] == 128).sum() == chroma[0].size - 56 * 56
    everywhere = overlay(i420, np.ones_like(mask))
    assert everywhere.shape == i420.shape


def test_to_the_terminal(
    film: Path,
    parser: FaceOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert call(monkeypatch, "mask", film, "--json", "-", "--face", parser.model, "--size", "320x180") == 0
    said = capfd.readouterr()
    told = lines(said.out)
    assert len(told) == FRAMES
    assert (told[0]["rows"], told[0]["columns"]) == (12, 20)
    assert f"{FRAMES} frames, {FRAMES} with a face" in said.err
    assert call(monkeypatch, "mask", film, "--json", "-", "--face", "off") == 0
    assert all(line["runs"] == [] and line["ms"] == {} for line in lines(capfd.readouterr().out))


def test_refusals(
    film: Path,
    parser: FaceOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    there, good, copy = tmp_path / "there.jsonl", tmp_path / "new.mp4", tmp_path / "copy.mp4"
    there.write_text("precious")
    copy.write_bytes(film.read_bytes())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    cases: list[tuple[tuple[object, ...], str]] = [
        ((film,), "Nothing to write"),
        ((tmp_path / "gone.mp4", good), "gone.mp4"),
        ((film, tmp_path / "new.avi"), "has to end in .mp4"),
        ((film, good, "--json", there), "add --force"),
        ((film, good, "--json", good), "choose two names"),
        ((copy, copy, "--force"), "the file to be read"),
        ((film, tmp_path / "no" / "new.mp4"), "does not exist"),
        ((film, good, "--size", "big"), "write for example 1280x720"),
        ((film, good, "--face-region", "person"), "knows no region 'person'"),
    ]
    for arguments, expected in cases:
        assert call(monkeypatch, "mask", *arguments, "--face", parser.model) == 2
        said = capfd.readouterr().err
        assert said.startswith("semcall: ")
        assert said.count("\n") == 1
        assert expected in said
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert call(monkeypatch, "mask", film, good, "--json", there, "--force", "--face", parser.model) == 0
    assert len(lines(there.read_text())) == FRAMES


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX")
@pytest.mark.parametrize("option", ["OUT", "--json"])
def test_what_is_no_file_is_not_replaced(
    option: str, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pipe, link = tmp_path / "pipe.mp4", tmp_path / "link.mp4"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        command = ["mask", film, path] if option == "OUT" else ["mask", film, option, path]
        for force in ((), ("--force",)):
            assert call(monkeypatch, *command, "--face", "off", *force) == 2
            assert "it is a device or a pipe, not a file; name another." in capfd.readouterr().err
        with pytest.raises(SemcallError, match="a device or a pipe"), replacing(path):
            pass
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.skipif(os.name != "posix", reason="needs symbolic links")
def test_links_and_long_names(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    there, link, dangling, loop = (tmp_path / f"{name}.jsonl" for name in ("there", "link", "dangling", "loop"))
    there.write_text("precious")
    link.symlink_to(there)
    dangling.symlink_to(tmp_path / "gone")
    loop.symlink_to(loop)
    out = tmp_path / "out.mp4"
    for path, expected in ((link, "add --force"), (dangling, "add --force"), (tmp_path / ("n" * 300), "too long")):
        assert call(monkeypatch, "mask", film, "--json", path, "--face", "off") == 2
        said = capfd.readouterr().err
        assert expected in said
        assert said.count("\n") == 1
    assert call(monkeypatch, "mask", film, out, "--json", loop, "--face", "off") == 2
    assert "add --force" in capfd.readouterr().err
    assert call(monkeypatch, "mask", film, out, "--json", link, "--face", "off", "--force") == 0
    assert len(lines(link.read_text())) == FRAMES
    assert there.read_text() == "precious"


def run(film: Path, *arguments: object, stdout: int) -> subprocess.CompletedProcess[str]:
    """`semcall mask` in a process of its own."""
    command = [sys.executable, "-m", "semcall", "mask", film, "--json", "-", "--face", "off", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run(
        list(map(str, command)), stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment, timeout=120
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_stdout(film: Path, tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = run(film, tmp_path / "out.mp4", stdout=full.fileno())
    assert done.stderr == "semcall: Cannot write to standard output (No space left on device): send it elsewhere.\n"
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX descriptors")
def test_a_reader_that_goes_away(film: Path, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = run(film, tmp_path / "out.mp4", stdout=writer)
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_a_closed_stdout(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert call(monkeypatch, "mask", film, tmp_path / "out.mp4", "--json", "-", "--face", "off") == 2
    assert "Cannot write to standard output: it is closed" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_leave_nothing(number: int, film: Path, parser: FaceOptions, tmp_path: Path) -> None:
    def progressed(done: int, _total: int | None) -> None:
        if done == 8:
            assert len(list(tmp_path.iterdir())) == 2
            os.kill(os.getpid(), number)

    options = MaskOptions(film, tmp_path / "out.mp4", tmp_path / "lines.jsonl", parser)
    with pytest.raises(KeyboardInterrupt):
        draw_masks(options, progressed)
    assert list(tmp_path.iterdir()) == []


def test_a_parser_that_fails_leaves_nothing(
    film: Path, parser: FaceOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("device lost")

    options = MaskOptions(film, tmp_path / "out.mp4", STDOUT, parser)
    opened = parser.open()
    monkeypatch.setattr(FaceOptions, "open", lambda _options: opened)
    monkeypatch.setattr("sender.parser._run", fail)
    with pytest.raises(SemcallError, match="device lost"):
        draw_masks(options)
    assert list(tmp_path.iterdir()) == []
