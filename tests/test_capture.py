"""Sources and their pace. Nothing here measures time: ticks are compared with the source's own times."""

from __future__ import annotations

import errno
import hashlib
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from sender.capture import CameraSource, CaptureThread, DemoSource, FileSource, Source, open_source
from shared.astronaut import AstronautClip, photograph
from shared.errors import SemcallError
from shared.picture import CLOCK_RATE, I420, Picture


def write_clip(path: Path, times: list[float], width: int = 64, height: int = 48) -> Path:
    """Lossless pictures of luma 20, 30, 40... at `times` (seconds)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=50)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for index, when in enumerate(times):
            frame = av.VideoFrame.from_ndarray(
                np.full((height * 3 // 2, width), 20 + 10 * index, np.uint8), format="yuv420p"
            )
            frame.pts, frame.time_base = round(when * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def capture(source: Source, count: int) -> tuple[list[Picture], CaptureThread]:
    """The first `count` pictures that a thread delivers, and the ended thread."""
    pictures: list[Picture] = []
    ended = threading.Event()

    def deliver(picture: Picture) -> None:
        if len(pictures) < count:
            pictures.append(picture)
        if len(pictures) == count:
            thread.stop()

    thread = CaptureThread(source, deliver, ended.set)
    thread.start()
    assert ended.wait(30)
    thread.join(10)
    assert not thread.is_alive()
    return pictures, thread


def spacing(pictures: list[Picture]) -> list[float]:
    """Seconds from one picture to the next, by their ticks."""
    return [(b.ticks - a.ticks) / CLOCK_RATE for a, b in pairwise(pictures)]


def test_ticks_follow_the_files_own_times_and_the_file_loops(tmp_path: Path) -> None:
    source = FileSource(str(write_clip(tmp_path / "vfr.mkv", [0.0, 0.01, 0.05, 0.06])))
    pictures, thread = capture(source, 7)
    assert thread.error is None
    assert [p.index for p in pictures] == [0, 1, 2, 3, 0, 1, 2]
    assert [int(p.i420[0, 0]) for p in pictures] == [20, 30, 40, 50, 20, 30, 40]
    gap = 1 / source.fps  # from the last picture of a round to the first of the next
    assert spacing(pictures) == pytest.approx([0.01, 0.04, 0.01, gap, 0.01, 0.04], abs=2e-3)


def test_pictures_are_taken_now() -> None:
    before = time.time()
    pictures, _ = capture(DemoSource((64, 48), 200), 2)
    assert before - 1 <= pictures[0].ticks / CLOCK_RATE <= time.time() + 1


@pytest.mark.parametrize(
    ("limit", "indices"), [(None, [0, 1, 2, 3, 4, 5]), (25.0, [0, 2, 4, 6, 8, 10]), (500.0, [0, 1, 2])]
)
def test_fps_leaves_pictures_out(tmp_path: Path, limit: float | None, indices: list[int]) -> None:
    source = FileSource(str(write_clip(tmp_path / "clip.mkv", [n / 50 for n in range(12)])), fps=limit)
    assert source.fps == (25.0 if limit == 25.0 else 50.0)
    frames = source.frames()
    got = [next(frames) for _ in indices]
    assert [index for index, _, _ in got] == indices
    assert [when for _, when, _ in got] == pytest.approx([index / 50 for index in indices], abs=2e-3)


def test_odd_rate_limit_holds_on_average_over_the_rounds(tmp_path: Path) -> None:
    source = FileSource(str(write_clip(tmp_path / "clip.mkv", [n / 50 for n in range(10)])), fps=30)
    frames = source.frames()
    times = [next(frames)[1] for _ in range(61)]
    assert times[-1] - times[0] == pytest.approx(2.0, abs=0.05)
    assert min(b - a for a, b in pairwise(times)) >= 0.0199


def test_demo_source_is_the_astronaut_at_its_rate() -> None:
    source = DemoSource((64, 48), 25)
    frames = source.frames()
    clip = AstronautClip((64, 48), 25)
    for wanted in range(3):
        index, when, i420 = next(frames)
        assert (index, when) == (wanted, wanted / 25)
        assert np.array_equal(i420, clip.picture(wanted))
    assert (source.size, source.fps, source.live) == ((64, 48), 25, False)


def test_the_photograph_is_the_same_everywhere() -> None:
    """It is stored without loss: figures of the demo source can be compared."""
    assert hashlib.sha256(photograph().tobytes()).hexdigest().startswith("f22309ff463ef566")


class Scripted:
    """A source made of times and, at its end, perhaps an exception."""

    size = (16, 16)
    fps = 30.0

    def __init__(self, times: list[float], end: Exception | None = None, live: bool = False) -> None:
        self.times, self.end, self.live = times, end, live

    def frames(self) -> Iterator[tuple[int, float, I420]]:
        for index, when in enumerate(self.times):
            yield index, when, np.full((24, 16), index, np.uint8)
        if self.end is not None:
            raise self.end


@pytest.mark.parametrize("live", [False, True])
def test_what_ends_a_source_is_kept(live: bool) -> None:
    failure = SemcallError("The camera 0 stopped (no such device): plug it in again.")
    pictures, thread = capture(Scripted([0.0, 0.01], failure, live), 99)
    assert thread.error is failure
    assert [p.index for p in pictures] == [0, 1]


def test_a_source_that_simply_ends() -> None:
    pictures, thread = capture(Scripted([0.0, 0.0]), 99)
    assert thread.error is None
    assert len(pictures) == 2


def test_stop_ends_a_wait_at_once() -> None:
    ended = threading.Event()
    first = threading.Event()
    thread = CaptureThread(Scripted([0.0, 3600.0]), lambda _picture: first.set(), ended.set)
    thread.start()
    assert first.wait(10)
    thread.stop()
    assert ended.wait(10)
    assert thread.error is None


def test_an_exception_of_the_taker_ends_the_thread() -> None:
    def deliver(picture: Picture) -> None:
        raise ValueError("no")

    ended = threading.Event()
    thread = CaptureThread(Scripted([0.0]), deliver, ended.set)
    thread.start()
    assert ended.wait(10)
    assert isinstance(thread.error, ValueError)


def test_a_machine_that_slept_goes_on_from_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ticks jump by what was lost, so that they stay capture times; the rest keep their spacing."""
    clock = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr("sender.capture.time", SimpleNamespace(monotonic=lambda: clock.seconds))
    monkeypatch.setattr("sender.capture.now_ticks", lambda: round(clock.seconds * CLOCK_RATE))
    pictures: list[Picture] = []

    def deliver(picture: Picture) -> None:
        pictures.append(picture)
        if picture.index == 1:
            clock.seconds += 5.0

    CaptureThread(Scripted([0.0, 0.0, 0.0, 0.0]), deliver, lambda: None).run()
    assert [p.ticks / CLOCK_RATE for p in pictures] == pytest.approx([1000, 1000, 1005, 1005])


def test_open_source_dispatches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cameras: list[str] = []

    class Camera:
        def __init__(self, device: str, bound: tuple[int, int], fps: float | None) -> None:
            cameras.append(device)

    monkeypatch.setattr("sender.capture.CameraSource", Camera)
    assert isinstance(open_source("demo", (64, 48)), DemoSource)
    path = write_clip(tmp_path / "clip.mkv", [0.0, 0.1])
    source = open_source(str(path), (32, 32), 5)
    assert isinstance(source, FileSource)
    assert source.size == (32, 24)
    for name in ("0", "12", "/dev/video2", "camera:FaceTime HD Camera"):
        assert isinstance(open_source(name), Camera)
    assert cameras == ["0", "12", "/dev/video2", "FaceTime HD Camera"]
    with pytest.raises(SemcallError, match=r"absent\.mp4"):
        open_source(str(tmp_path / "absent.mp4"))


def test_no_such_camera() -> None:
    with pytest.raises(SemcallError) as error:
        open_source("73")
    text = str(error.value)
    assert "73" in text
    assert "--source demo" in text
    assert text.endswith(".")
    assert "\n" not in text


class Cameras:
    """Stands for av.open on a camera: a real lavfi container, or the failures asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, platform: str, refuse: int = 0) -> None:
        self.opened: list[tuple[str, str, dict[str, str]]] = []
        self.refuse = refuse
        self._open = av.open
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.setattr(av, "open", self.open)

    def open(self, address: str, format: str, options: dict[str, str], timeout: object) -> Any:
        self.opened.append((address, format, options))
        if len(self.opened) <= self.refuse:
            raise av.error.ArgumentError(22, "Invalid argument", address)
        return self._open("testsrc=size=320x240:rate=25", format="lavfi")


@pytest.mark.parametrize(
    ("platform", "device", "address"),
    [
        ("linux", "0", ("/dev/video0", "v4l2")),
        ("linux", "/dev/video2", ("/dev/video2", "v4l2")),
        ("darwin", "1", ("1", "avfoundation")),
        ("darwin", "FaceTime HD Camera", ("FaceTime HD Camera", "avfoundation")),
        ("win32", "1", ("video=Second", "dshow")),
        ("win32", "USB Camera", ("video=USB Camera", "dshow")),
    ],
)
def test_camera_addresses(
    monkeypatch: pytest.MonkeyPatch, platform: str, device: str, address: tuple[str, str]
) -> None:
    def devices(format: str) -> list[SimpleNamespace]:
        assert format == "dshow"
        return [
            SimpleNamespace(name="Microphone", media_types=["audio"]),
            SimpleNamespace(name="First", media_types=["video"]),
            SimpleNamespace(name="Second", media_types=["video", "audio"]),
        ]

    monkeypatch.setattr(av, "enumerate_input_devices", devices)
    cameras = Cameras(monkeypatch, platform)
    source = CameraSource(device, (1280, 720), 30)
    ((opened, format, options),) = cameras.opened
    assert (opened, format) == address
    assert options == {"video_size": "1280x720", "framerate": "30"}
    assert source.live
    assert source.fps == 25  # what it gives, not what was asked
    assert source.size == (320, 240)
    frames = source.frames()
    got = [next(frames) for _ in range(3)]
    frames.close()  # type: ignore[attr-defined]
    assert [index for index, _, _ in got] == [0, 1, 2]
    assert all(i420.shape == (360, 320) for _, _, i420 in got)
    assert got[0][2].std() > 30  # the test card


def test_camera_that_refuses_size_and_rate_gives_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    cameras = Cameras(monkeypatch, "linux", refuse=2)
    source = CameraSource("0", (1280, 720), 60)
    assert [options for _, _, options in cameras.opened] == [
        {"video_size": "1280x720", "framerate": "60"},
        {"framerate": "60"},
        {},
    ]
    assert source.size == (320, 240)


def test_camera_larger_than_the_bound_is_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    Cameras(monkeypatch, "linux")
    source = CameraSource("0", (160, 90))
    assert source.size == (120, 90)
    frames = source.frames()
    assert next(frames)[2].shape == (135, 120)
    frames.close()  # type: ignore[attr-defined]


def test_camera_that_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    Cameras(monkeypatch, "linux", refuse=3)
    with pytest.raises(SemcallError, match=r"^Cannot open camera 0 \(Invalid argument\): .*--source demo\.$"):
        CameraSource("0")


def test_index_beyond_the_cameras_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "enumerate_input_devices", lambda _format: [])
    cameras = Cameras(monkeypatch, "win32")
    with pytest.raises(SemcallError, match="0 cameras found"):
        CameraSource("0")
    assert not cameras.opened


def test_platform_without_cameras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "sunos5")
    with pytest.raises(SemcallError, match="--source demo"):
        CameraSource("0")


class Unplugged:
    """A camera's container that gives two pictures, then fails as FFmpeg does or just ends."""

    def __init__(self, failure: Exception | None) -> None:
        stream = SimpleNamespace(average_rate=None, width=64, height=48)
        self.streams = SimpleNamespace(video=[stream])
        self.failure, self.closed = failure, False

    def decode(self, video: int) -> Iterator[av.VideoFrame]:
        for _ in range(2):
            yield av.VideoFrame.from_ndarray(np.full((72, 64), 90, np.uint8), format="yuv420p")
        if self.failure is not None:
            raise self.failure

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    "failure", [av.error.OSError(19, "No such device"), av.error.ExitError(0, "Timed out"), None]
)
def test_camera_unplugged_midway(monkeypatch: pytest.MonkeyPatch, failure: Exception | None) -> None:
    container = Unplugged(failure)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(av, "open", lambda *_args, **_options: container)
    pictures, thread = capture(CameraSource("0", fps=15), 99)
    assert len(pictures) == 2
    assert isinstance(thread.error, SemcallError)
    assert "camera 0" in str(thread.error)
    assert str(thread.error).endswith("plug it in again.")
    assert container.closed


class Hesitant(Unplugged):
    """avfoundation: between two pictures it says EAGAIN, which kills PyAV's generator."""

    def __init__(self, pictures: int) -> None:
        super().__init__(None)
        self.left, self.pauses = pictures, 0

    def decode(self, video: int) -> Iterator[av.VideoFrame]:
        for _ in range(2):
            self.pauses += 1
            if self.pauses % 3 or not self.left:  # two looks in vain before every picture
                raise av.error.BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
            self.left -= 1
            yield av.VideoFrame.from_ndarray(np.full((72, 64), 90, np.uint8), format="yuv420p")


def test_a_camera_that_has_no_picture_yet_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(seconds=1000.0, naps=[])

    def sleep(seconds: float) -> None:
        clock.naps.append(seconds)
        clock.seconds += seconds

    monkeypatch.setattr("sender.capture.time", SimpleNamespace(monotonic=lambda: clock.seconds, sleep=sleep))
    container = Hesitant(4)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(av, "open", lambda *_args, **_options: container)
    frames = CameraSource("0", fps=15).frames()
    clock.naps.clear()
    assert [next(frames)[0] for _ in range(4)] == [0, 1, 2, 3]
    assert 0 < sum(clock.naps) < 0.1
    with pytest.raises(SemcallError, match="camera 0 stopped"):
        next(frames)
    assert 5 < sum(clock.naps) < 5.2  # it gives up in the end
    assert all(nap < 0.05 for nap in clock.naps)
    assert container.closed


def test_a_camera_is_not_held_before_its_pictures_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Unplugged] = []

    def open_camera(*_args: object, **_options: object) -> Unplugged:
        opened.append(Unplugged(None))
        return opened[-1]

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(av, "open", open_camera)
    source = CameraSource("0")
    assert [camera.closed for camera in opened] == [True]
    frames = source.frames()
    assert next(frames)[0] == 0
    assert [camera.closed for camera in opened] == [True, False]
    frames.close()  # type: ignore[attr-defined]
    assert [camera.closed for camera in opened] == [True, True]


def test_a_file_that_yields_nothing_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = FileSource(str(write_clip(tmp_path / "clip.mkv", [0.0, 0.1])))
    frames = source.frames()
    assert [next(frames)[0] for _ in range(2)] == [0, 1]
    rounds = []

    def nothing(_clip: object) -> Iterator[tuple[I420, float]]:
        rounds.append(1)
        assert len(rounds) < 5, "it spins"
        return iter(())

    monkeypatch.setattr("shared.clips.Clip.__iter__", nothing)
    with pytest.raises(SemcallError, match=r"clip\.mkv yields no more pictures"):
        next(frames)
