"""Saves what is seen: I420 pictures -> H.264 in a file that can be played however the process ends."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import av
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream

from receiver.watchdog import OVER
from shared.errors import SemcallError
from shared.picture import CLOCK_RATE, I420, letterboxed, size_of

_QUEUED = 15  # pictures: half a second, 20 MB at 1280x720
_LONGEST_STILL = OVER  # seconds; a call without media ends by then
_TIME_BASE = Fraction(1, CLOCK_RATE)
# Fragments make the file playable after a kill; "hybrid" writes an ordinary index when it is closed.
_MOV = {"movflags": "hybrid_fragmented+frag_keyframe+default_base_moof", "video_track_timescale": str(CLOCK_RATE)}
_CONTAINERS: dict[str, dict[str, str]] = {".mp4": _MOV, ".mov": _MOV, ".mkv": {"cluster_time_limit": "1000"}}
# Ultrafast needs half the time of superfast. zerolatency: no picture waits inside x264 for the next one.
_X264 = {"preset": "ultrafast", "tune": "zerolatency", "crf": "23", "g": "300", "forced-idr": "1", "threads": "1"}


class _Shown(NamedTuple):
    i420: I420
    when: float
    aspect: Fraction


class Recorder:
    """Writes pictures to a video file in a thread of its own. Use it as a context manager or call `close`.

    MP4 and MOV are fragmented about once a second, so a killed process loses no more than the last second;
    `close` turns the file into an ordinary one. The first picture fixes size and sample aspect ratio; others are
    scaled to fit.
    Colours are tagged BT.601, limited range.

    `dropped`: pictures not written because the encoder lagged; `written`: pictures encoded so far;
    `error`: None, or one sentence about what ended the recording early.
    """

    def __init__(self, path: str | Path, fps_hint: float = 30, overwrite: bool = False) -> None:
        """`path` ends in .mp4, .mov or .mkv; `fps_hint`: usual pictures per second, at most a hint to players.

        Raises SemcallError when the name ends otherwise, the folder is missing, the file cannot be written,
        or it exists and `overwrite` is false.
        """
        self.path = Path(path)
        self.dropped = 0
        self.written = 0
        self.error: str | None = None
        self._period = 1 / fps_hint
        self._created = _claim(self.path, overwrite)
        self._queue: deque[_Shown] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def write(self, i420: I420, when: float, aspect: Fraction = Fraction(1)) -> None:
        """Record a picture (uint8 [H * 3 / 2, W], unchanged from now on) shown at `when`, Unix seconds.

        `aspect`: width of a sample by its height.
        From any thread; never blocks or raises. Dropped and counted when the encoder lags; ignored after
        `close` or an error.
        """
        with self._changed:
            if self._closing or self.error is not None:
                return
            if len(self._queue) >= _QUEUED:
                self.dropped += 1
                return
            self._queue.append(_Shown(i420, when, aspect))
            self._changed.notify()

    def close(self, timeout: float = 10.0) -> None:
        """Write what is queued, finish the file and wait for that at most `timeout` seconds. May be repeated.

        A file that this recorder created and never wrote a picture to is removed.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)
        if self._created and not self._thread.is_alive():
            self._created = False
            with contextlib.suppress(OSError):
                if self.path.stat().st_size == 0:
                    self.path.unlink()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next(self) -> _Shown | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            return self._queue.popleft() if self._queue else None

    def _run(self) -> None:
        try:
            first = self._next()
            if first is None:
                return
            width, height = size_of(first.i420)
            options = _CONTAINERS[self.path.suffix.lower()] | {"flush_packets": "1"}
            with av.open(str(self.path), "w", options=options) as container:
                stream = container.add_stream("libx264", rate=round(1 / self._period), options=_X264)
                _describe(stream, width, height, first.aspect)
                clock = _Clock(self._period)
                item: _Shown | None = first
                while item is not None:
                    frame = av.VideoFrame.from_ndarray(letterboxed(item.i420, width, height), format="yuv420p")
                    frame.pts, frame.time_base = clock.ticks(item.when), _TIME_BASE
                    frame.pict_type = PictureType.I if clock.keyframe_due() else PictureType.NONE
                    container.mux(stream.encode(frame))
                    self.written += 1
                    item = self._next()
                container.mux(stream.encode())
        except Exception as error:  # a full disk above all; a recording must never end a call
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            with self._changed:
                self.error = (
                    f"Recording to {self.path} stopped ({reason}); {self.written} pictures were written before."
                )
                self._queue.clear()


class _Clock:
    """Unix seconds -> ticks of the file: from 0, strictly increasing, true to the differences within a call."""

    def __init__(self, period: float) -> None:
        self._period = period
        self._origin = self._last_when = 0.0
        self._last = -1
        self._keyframe = -CLOCK_RATE

    def ticks(self, when: float) -> int:
        if self._last < 0:
            self._origin = when
        elif when < self._last_when - 1:
            # The machine's clock was set back: go on from here instead of freezing until it has caught up.
            self._origin += when - self._last_when - self._period
        elif when > self._last_when + _LONGEST_STILL:
            # Another call, or a clock set forward: who watches the recording shall not wait as long again.
            self._origin += when - self._last_when - 1
        self._last_when = when
        self._last = max(self._last + 1, round((when - self._origin) * CLOCK_RATE))
        return self._last

    def keyframe_due(self) -> bool:
        """Whether a second has passed since the last keyframe; then this one is it."""
        due = self._last - self._keyframe >= CLOCK_RATE
        if due:
            self._keyframe = self._last
        return due


def _describe(stream: VideoStream, width: int, height: int, aspect: Fraction) -> None:
    context = stream.codec_context
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.time_base = stream.time_base = _TIME_BASE
    context.sample_aspect_ratio = aspect
    context.thread_count = 1
    context.colorspace = Colorspace.ITU601
    context.color_range = ColorRange.MPEG


def _claim(path: Path, overwrite: bool) -> bool:
    """Make sure that `path` can be written, without harming what is there; True if it was created here."""
    if path.suffix.lower() not in _CONTAINERS:
        raise SemcallError(f"Cannot record to {path}: the name has to end in {', '.join(_CONTAINERS)}.")
    if not path.parent.is_dir():
        raise SemcallError(f"Cannot record to {path}: the folder {path.parent} does not exist; create it first.")
    existed = path.exists()
    try:
        with path.open("ab" if overwrite else "xb"):
            pass
    except FileExistsError:
        raise SemcallError(f"Cannot record to {path}: it exists; name another file or move it away.") from None
    except OSError as error:
        raise SemcallError(
            f"Cannot record to {path}: {error.strerror or error}; choose a place that you may write to."
        ) from None
    return not existed
