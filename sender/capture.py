"""Webcam, file or demo source as I420 pictures at a steady rate."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import av

from shared.astronaut import AstronautClip
from shared.clips import Clip, Size, fitted, turned
from shared.errors import SemcallError
from shared.picture import CLOCK_RATE, I420, Picture, i420_from_frame, now_ticks

CAMERA_FORMATS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
_LATENESS = 0.1  # seconds that a source may run behind its own times before they are moved: a call must not lag
_OPEN_TIMEOUT, _READ_TIMEOUT = 10.0, 5.0  # seconds; a camera that stays silent longer is gone
_RETRY = 0.005  # seconds between looks at a camera that does not wait for its next picture itself


class Source(Protocol):
    """Where pictures come from. `live` sources set the pace themselves; others are paced by their times."""

    size: Size
    fps: float
    live: bool

    def frames(self) -> Iterator[tuple[int, float, I420]]:
        """Yield (index, seconds since the start, I420 array). Endless for cameras, demo and looped files."""
        ...


class DemoSource:
    """The astronaut clip (shared/astronaut.py), without end."""

    live = False

    def __init__(self, bound: Size = (1280, 720), fps: float | None = None) -> None:
        self._clip = AstronautClip(bound, fps or 30.0)
        self.size, self.fps = self._clip.size, self._clip.fps
        self._clip.picture(0)  # makes photograph and noise now, not in the call's first picture

    def frames(self) -> Iterator[tuple[int, float, I420]]:
        """One picture every 1 / fps seconds."""
        index = 0
        while True:
            yield index, index / self.fps, self._clip.picture(index)
            index += 1


class FileSource:
    """A video file at its own rate, again and again. `fps` lowers the rate by leaving pictures out."""

    live = False

    def __init__(self, path: str, bound: Size = (1280, 720), fps: float | None = None) -> None:
        self._clip = Clip(path, bound)
        self.size = self._clip.size
        self.fps = min(fps, self._clip.fps) if fps else self._clip.fps
        self._interval = 1 / fps if fps else 0.0

    def frames(self) -> Iterator[tuple[int, float, I420]]:
        """Index counts the file's own pictures from 0 and starts again with every round.

        Raises SemcallError when the file has changed and yields no picture any more.
        """
        start, due = 0.0, 0.0
        while True:
            index, seconds = -1, 0.0
            for index, (i420, seconds) in enumerate(self._clip):
                now = start + seconds
                if now + 1e-3 < due:
                    continue
                due = max(due + self._interval, now - self._interval)
                yield index, now, i420
            if index < 0:
                raise SemcallError(f"{self._clip.path} yields no more pictures: leave the file as it is in a call.")
            start += seconds + 1 / self._clip.fps


class CameraSource:
    """A camera through FFmpeg's device formats: v4l2, avfoundation or dshow.

    `device`: an index ("0") or the platform's own name (`/dev/video2`, "FaceTime HD Camera").
    Raises SemcallError when there is no such camera, it is busy, or the platform has no camera format.
    """

    live = True

    def __init__(self, device: str = "0", bound: Size = (1280, 720), fps: float | None = None) -> None:
        self._name = device
        self._format = CAMERA_FORMATS.get(sys.platform, "")
        if not self._format:
            raise SemcallError(f"Cameras are not supported on {sys.platform}: give --source FILE or --source demo.")
        self._wanted = bound, fps or 30.0
        # Only a look: pictures may be wanted much later, and until then it need not run (nor its light be on).
        container = self._open()
        try:
            stream = container.streams.video[0]
            self.fps = float(stream.average_rate or fps or 30.0)
            self.size = fitted((stream.width, stream.height), bound)
        finally:
            container.close()

    def frames(self) -> Iterator[tuple[int, float, I420]]:
        """Open the camera; pictures as it delivers them. Ends with SemcallError when it is unplugged."""
        container = self._open()
        start = time.monotonic()
        try:
            for index, frame in enumerate(_decoded(container)):
                size = self.size if not frame.rotation % 180 else self.size[::-1]
                picture = turned(i420_from_frame(frame, *size), frame.rotation)
                yield index, time.monotonic() - start, picture
            raise SemcallError(f"The camera {self._name} sends no more pictures: plug it in again.")
        except av.FFmpegError as error:
            raise SemcallError(f"The camera {self._name} stopped ({error.strerror}): plug it in again.") from None
        finally:
            container.close()

    def _open(self) -> av.container.InputContainer:
        bound, fps = self._wanted
        wanted = {"video_size": f"{bound[0]}x{bound[1]}", "framerate": f"{fps:g}"}
        failure: Exception | None = None
        # Many cameras refuse a size or rate that they do not have: then take what they offer.
        for options in (wanted, {"framerate": f"{fps:g}"}, {}):
            try:
                return av.open(
                    self._address(),
                    format=self._format,
                    options=options,
                    timeout=(_OPEN_TIMEOUT, _READ_TIMEOUT),
                )
            except (av.FFmpegError, OSError, ValueError) as error:
                failure = error
        reason = getattr(failure, "strerror", None) or failure
        raise SemcallError(
            f"Cannot open camera {self._name} ({reason}): plug one in, choose it with --source, or try --source demo."
        )

    def _address(self) -> str:
        if not self._name.isdigit():
            return f"video={self._name}" if self._format == "dshow" else self._name
        if self._format == "v4l2":
            return f"/dev/video{self._name}"
        if self._format == "dshow":  # DirectShow knows names only
            cameras = [d.name for d in av.enumerate_input_devices("dshow") if "video" in d.media_types]
            if int(self._name) >= len(cameras):
                raise ValueError(f"{len(cameras)} cameras found")
            return f"video={cameras[int(self._name)]}"
        return self._name


def _decoded(container: av.container.InputContainer) -> Iterator[av.VideoFrame]:
    """Frames until the camera ends; FFmpegError when it fails or stays silent for `_READ_TIMEOUT` seconds."""
    heard = time.monotonic()
    while True:
        try:
            for frame in container.decode(video=0):
                yield frame
                heard = time.monotonic()
            return
        except av.error.BlockingIOError:  # avfoundation has no picture yet (EAGAIN), which ends the generator
            if time.monotonic() - heard > _READ_TIMEOUT:
                raise
            time.sleep(_RETRY)


def open_source(name: str, bound: Size = (1280, 720), fps: float | None = None) -> Source:
    """`demo`, a camera (index or device) or a video file. Raises SemcallError when it cannot be opened."""
    if name == "demo":
        return DemoSource(bound, fps)
    if name.isdigit() or name.startswith("/dev/video"):
        return CameraSource(name, bound, fps)
    if name.startswith("camera:"):
        return CameraSource(name.removeprefix("camera:"), bound, fps)
    return FileSource(name, bound, fps)


class CaptureThread(threading.Thread):
    """Runs a source at its own pace and hands every picture to `deliver` (called on this thread).

    A source that falls behind is not hurried: late pictures follow at once and later ones keep their times.
    `error` holds what ended the source early.
    """

    def __init__(self, source: Source, deliver: Callable[[Picture], None], on_end: Callable[[], None]) -> None:
        super().__init__(name="capture", daemon=True)
        self._source, self._deliver, self._on_end = source, deliver, on_end
        self._stop_asked = threading.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        """Until `stop` is called or the source ends."""
        start_ticks, start = 0, 0.0
        try:
            for index, seconds, i420 in self._source.frames():
                if not start_ticks:  # the clock starts with the first picture: opening a file takes time
                    start_ticks, start = now_ticks() - round(seconds * CLOCK_RATE), time.monotonic() - seconds
                if self._source.live:
                    ticks = now_ticks()
                else:
                    delay = start + seconds - time.monotonic()
                    if delay > 0 and self._stop_asked.wait(delay):
                        break
                    if delay < -_LATENESS:  # a machine that cannot keep up, or slept: go on from now
                        start -= delay
                        start_ticks = now_ticks() - round(seconds * CLOCK_RATE)
                    ticks = start_ticks + round(seconds * CLOCK_RATE)
                if self._stop_asked.is_set():
                    break
                self._deliver(Picture(i420, ticks, index))
        except Exception as error:
            self.error = error
        finally:
            self._on_end()

    def stop(self) -> None:
        """Ask the thread to end; it does so within one picture."""
        self._stop_asked.set()
