"""The recording: true to size, time and colour, and playable however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from receiver.recorder import Recorder
from shared.astronaut import photograph
from shared.errors import SemcallError
from shared.picture import I420, bgr_from_i420, i420_from_bgr, letterboxed

ROOT = Path(__file__).resolve().parents[1]
START = 1_700_000_000.25

# Records until it is stopped; says so once 3 seconds of pictures are encoded.
ENDLESS = """
import sys, time
from receiver.recorder import Recorder
from shared.astronaut import photograph
from shared.picture import i420_from_bgr
picture = i420_from_bgr(photograph()[:360, :480])
with Recorder(sys.argv[1]) as recorder:
    index, told = 0, False
    try:
        while recorder.error is None:
            if len(recorder._queue) < 8:  # nothing is dropped here
                recorder.write(picture, 1_700_000_000 + index / 30)
                index += 1
            if recorder.written >= 90 and not told:
                told = True
                print("ready", flush=True)
            time.sleep(0.003)
    except KeyboardInterrupt:
        pass
print(recorder.error, recorder.written, flush=True)
"""


def photo(width: int = 320, height: int = 240, shift: int = 0) -> I420:
    bgr = np.roll(photograph()[:384], shift, axis=1)
    return i420_from_bgr(cv2.resize(bgr, (width, height), interpolation=cv2.INTER_AREA))


def record(path: Path, pictures: list[I420], times: list[float]) -> Recorder:
    recorder = Recorder(path)
    for picture, when in zip(pictures, times, strict=True):
        recorder.write(picture, when)
        while recorder._queue:
            threading.Event().wait(0.001)
    recorder.close()
    return recorder


def decode(path: Path, cut: bool = False) -> list[av.VideoFrame]:
    """All frames; of a file that was `cut` off, what comes before the picture that is incomplete."""
    frames: list[av.VideoFrame] = []
    with av.open(str(path)) as container:
        try:
            for frame in container.decode(video=0):
                frames.append(frame)
        except av.error.InvalidDataError:
            if not cut:
                raise
    return frames


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2)))


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_plays_back_with_size_times_and_colours(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"call{suffix}"
    offsets = [0.0, 0.033, 0.066, 0.2, 0.21, 0.9, 1.3, 1.333, 2.0, 2.5]
    pictures = [photo(shift=8 * i) for i in range(len(offsets))]
    recorder = record(path, pictures, [START + offset for offset in offsets])
    assert (recorder.error, recorder.written, recorder.dropped) == (None, 10, 0)

    frames = decode(path)
    assert [(f.width, f.height) for f in frames] == [(320, 240)] * 10
    assert [float(f.pts * f.time_base) for f in frames] == pytest.approx(offsets, abs=0.00101)
    assert all(psnr(f.to_ndarray(), p) > 30 for f, p in zip(frames, pictures, strict=True))
    assert [i for i, f in enumerate(frames) if f.key_frame] == [0, 6, 9]
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_range) == (5, 1)  # H.273: BT.470BG; limited
        assert container.duration is not None
        assert container.duration / av.time_base == pytest.approx(2.5, abs=0.1)


def test_closed_mp4_has_an_ordinary_index(tmp_path: Path) -> None:
    path = tmp_path / "call.mp4"
    record(path, [photo()] * 45, [START + i / 30 for i in range(45)])
    data, boxes, position = path.read_bytes(), [], 0
    while position < len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        boxes.append(data[position + 4 : position + 8])
        position += size
    assert b"moof" not in boxes
    assert boxes[-1] == b"moov"


def test_times_stay_increasing_when_the_clock_does_not(tmp_path: Path) -> None:
    path = tmp_path / "call.mp4"
    times = [START, START + 0.04, START + 0.04, START + 0.03, START + 0.08, START - 3600, START - 3599.9]
    record(path, [photo()] * len(times), times)
    pts = [f.pts for f in decode(path)]
    assert pts == [0, 3600, 3601, 3602, 7200, 10200, 19200]


def test_the_wait_between_two_calls_is_a_second_of_still(tmp_path: Path) -> None:
    path = tmp_path / "evening.mp4"
    times = [START, START + 0.1, START + 3600, START + 3600.1, START + 3629]
    record(path, [photo()] * len(times), times)
    pts = [f.pts for f in decode(path)]
    assert pts == [0, 9000, 99_000, 108_000, 2_709_000], "and a long still within a call is as long as it was"


def test_another_size_is_fitted_between_black_bars(tmp_path: Path) -> None:
    path = tmp_path / "call.mp4"
    record(path, [photo(320, 240), photo(320, 176), photo(128, 240)], [START, START + 0.1, START + 0.2])
    frames = [f.to_ndarray() for f in decode(path)]
    assert [f.shape for f in frames] == [(360, 320)] * 3
    low, narrow = bgr_from_i420(frames[1]), bgr_from_i420(frames[2])
    assert psnr(low[32:208], bgr_from_i420(photo(320, 176))) > 26
    assert max(low[:28].mean(), low[212:].mean()) < 3
    assert psnr(narrow[:, 96:224], bgr_from_i420(photo(128, 240))) > 26
    assert max(narrow[:, :92].mean(), narrow[:, 228:].mean()) < 3


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_samples_that_are_not_square_stay_so(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"call{suffix}"
    with Recorder(path) as recorder:
        recorder.write(photo(), START, Fraction(4, 3))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.display_aspect_ratio == Fraction(16, 9)
        assert (stream.width, stream.height) == (320, 240)


@pytest.mark.parametrize("size", [(2, 2), (1280, 720), (64, 2), (2, 64), (130, 98)])
def test_letterboxing_takes_any_even_size(size: tuple[int, int]) -> None:
    picture = letterboxed(np.full((size[1] * 3 // 2, size[0]), 128, np.uint8), 96, 64)
    assert picture.shape == (96, 96)
    assert picture[31, 47] == 128  # the picture sits in the middle
    assert set(np.unique(picture)) <= {16, 128}


def test_same_size_is_not_copied() -> None:
    picture = photo()
    assert letterboxed(picture, 320, 240) is picture


def start(path: Path, prelude: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(prelude) + ENDLESS, str(path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_survives_a_kill(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"call{suffix}"
    with start(path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
    frames = decode(path, cut=True)
    assert len(frames) >= 58  # 90 were encoded; at most the unfinished second is lost
    times = [float(f.pts * f.time_base) for f in frames]
    assert times == pytest.approx([i / 30 for i in range(len(frames))], abs=1e-3)
    assert psnr(frames[-1].to_ndarray(), i420_from_bgr(photograph()[:360, :480])) > 30


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_ctrl_c_keeps_every_picture(tmp_path: Path) -> None:
    path = tmp_path / "call.mp4"
    with start(path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        error, written = process.stdout.readline().rsplit(maxsplit=1)
        assert process.wait() == 0
    assert error == "None"
    assert len(decode(path)) == int(written) >= 90


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
def test_full_disk_ends_the_recording_and_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "call.mp4"
    limit = """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    """
    with start(path, limit) as process:
        lines = process.stdout.read().splitlines() if process.stdout else []
        assert process.wait() == 0
    error, written = lines[-1].rsplit(maxsplit=1)
    assert "stopped (File too large)" in error
    assert str(path) in error
    assert path.stat().st_size <= 100_000
    frames = decode(path, cut=True)
    assert 0 < len(frames) <= int(written)
    assert psnr(frames[-1].to_ndarray(), i420_from_bgr(photograph()[:360, :480])) > 30


def test_writing_never_waits_for_the_encoder(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "call.mp4")
    picture = photo(1280, 720)
    for index in range(300):
        recorder.write(picture, START + index / 30)
    recorder.close()
    assert recorder.dropped > 0
    assert recorder.dropped + recorder.written == 300
    frames = decode(tmp_path / "call.mp4")
    assert len(frames) == recorder.written
    assert frames[0].pts == 0


def test_close_may_be_repeated_and_ends_writing(tmp_path: Path) -> None:
    path = tmp_path / "call.mp4"
    recorder = record(path, [photo()] * 3, [START, START + 0.1, START + 0.2])
    size = path.stat().st_size
    recorder.write(photo(), START + 0.3)
    recorder.close()
    assert (recorder.written, path.stat().st_size) == (3, size)


def test_leaves_no_empty_file_behind(tmp_path: Path) -> None:
    path = tmp_path / "call.mp4"
    Recorder(path).close()
    assert not path.exists()


def test_refuses_an_existing_file_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "call.mp4"
    path.write_bytes(b"precious")
    with pytest.raises(SemcallError, match="it exists"):
        Recorder(path)
    Recorder(path, overwrite=True).close()
    assert path.read_bytes() == b"precious"  # nothing was recorded, so nothing is lost
    recorder = Recorder(path, overwrite=True)
    recorder.write(photo(), START)
    recorder.close()
    assert len(decode(path)) == 1


def test_refuses_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(SemcallError, match=r"has to end in \.mp4, \.mov, \.mkv"):
        Recorder(tmp_path / "call.avi")
    with pytest.raises(SemcallError, match="does not exist; create it first"):
        Recorder(tmp_path / "missing" / "call.mp4")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(SemcallError, match="Cannot record"):
        Recorder(tmp_path / "folder.mp4", overwrite=True)


def test_refuses_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        if os.access(tmp_path, os.W_OK):
            pytest.skip("this user may write everywhere")
        with pytest.raises(SemcallError, match="Permission denied; choose a place"):
            Recorder(tmp_path / "call.mp4")
    finally:
        tmp_path.chmod(0o700)


def test_an_encoder_that_fails_does_not_reach_the_caller(tmp_path: Path) -> None:
    path = tmp_path / "call.mp4"
    recorder = Recorder(path)
    path.unlink()
    path.mkdir()  # the place is taken when the first picture comes
    recorder.write(photo(), START)
    recorder.close()
    recorder.write(photo(), START + 1)
    assert recorder.error is not None
    assert "Is a directory" in recorder.error
    assert recorder.written == 0
