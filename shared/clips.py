"""Video files as upright I420 pictures, at any size and pixel format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from shared.errors import SemcallError
from shared.picture import I420, i420_from_frame, joined, planes

Size = tuple[int, int]
"""Width, height in luma samples."""

MAX_FPS = 240.0
"""Nominal rates of screen recordings can be absurd; an encoder needs one for its level only."""
_STRANGE_RATIO = 4  # pixels stretched more than this are a slip of the file's: video has 8:11 to 4:3, and 2


def fitted(source: Size, bound: Size) -> Size:
    """The even size at which a source is sent: inside `bound`, aspect kept, never enlarged.

    An upright (portrait) source turns the bound, so that 720x1280 passes a bound of 1280x720 whole.
    """
    width, height = source
    if (height > width) != (bound[1] > bound[0]):
        bound = bound[1], bound[0]
    scale = min(1.0, bound[0] / width, bound[1] / height)
    return max(16, round(width * scale) & ~1), max(16, round(height * scale) & ~1)


def turned(i420: I420, degrees: int) -> I420:
    """An I420 array turned counter-clockwise by a multiple of 90 degrees (any other angle: unchanged)."""
    quarters = degrees % 360 // 90
    if degrees % 90 or not quarters:
        return i420
    luma, chroma = planes(i420)
    return joined(*(np.rot90(plane, quarters) for plane in (luma, *chroma)))


class Clip:
    """A video file. Iterating yields (I420 array, seconds since the first picture), once through.

    `size`: upright width and height after fitting into `bound`, with square pixels (sample aspect ratio, ITU-T H.264
    clause E.2.1); `fps`: nominal pictures per second; `aspect`: width of a stored sample by its height.
    Raises SemcallError when the file cannot be read as video.
    """

    def __init__(self, path: str | Path, bound: Size = (1280, 720)) -> None:
        self.path = Path(path)
        self._bound = bound
        with self._open() as container:
            stream = container.streams.video[0]
            self.fps = float(stream.average_rate or stream.guessed_rate or 30)
            self.aspect = _pixel_aspect(stream)
            frame = next(_frames(container), None)
            if frame is None:
                raise SemcallError(f"{self.path} holds no picture that can be decoded: give another file.")
            self.size = self._upright_size(frame)

    def __iter__(self) -> Iterator[tuple[I420, float]]:
        """Pictures of equal size with their times; a stream that breaks off ends early."""
        for frame, seconds in self.frames():
            yield self._convert(frame), seconds

    def frames(
        self, options: Mapping[str, str] | None = None, damaged: Callable[[], None] | None = None
    ) -> Iterator[tuple[av.VideoFrame, float]]:
        """Frames as they are stored, with seconds since the first; their sizes may differ.

        `options`: FFmpeg's, for the decoder; `damaged` is called for each packet that cannot be decoded, and what
        comes after it follows; without, the first such packet after a picture ends the clip.
        """
        with self._open() as container:
            if options is not None:
                container.streams.video[0].codec_context.options = dict(options)
            first: float | None = None
            last = -1.0
            for frame in _frames(container, damaged):
                when = frame.time if frame.time is not None else last + 1 / self.fps
                first = when if first is None else first
                last = max(when - first, last + 1e-3)  # timestamps that stand still or run back
                yield frame, last

    def pictures(self, indices: set[int]) -> Iterator[tuple[int, I420]]:
        """The pictures with these frame numbers, in order; those before the last are decoded but not converted."""
        last = max(indices, default=-1)
        with self._open() as container:
            for index, frame in zip(range(last + 1), _frames(container), strict=False):
                if index in indices:
                    yield index, self._convert(frame)

    def _open(self) -> av.container.InputContainer:
        try:
            container = av.open(str(self.path), metadata_errors="replace")
        except (av.FFmpegError, OSError) as error:
            raise SemcallError(f"Cannot read {self.path} as video: {_reason(error)}.") from None
        if not container.streams.video:
            container.close()
            raise SemcallError(f"{self.path} has no video stream: give a file with pictures.")
        return container

    def _upright_size(self, frame: av.VideoFrame) -> Size:
        width, height = round(frame.width * float(self.aspect)), frame.height
        return fitted((height, width) if frame.rotation % 180 else (width, height), self._bound)

    def _convert(self, frame: av.VideoFrame) -> I420:
        width, height = self._upright_size(frame) if not hasattr(self, "size") else self.size
        if frame.rotation % 180:
            width, height = height, width
        return turned(i420_from_frame(frame, width, height), frame.rotation)


class FileFacts:
    """What a file tells of its pictures. `start`: time of the first, seconds; `seconds`, `frames`: None if untold."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with av.open(str(path), metadata_errors="replace") as container:  # Clip has opened it before: it can be read
            stream = container.streams.video[0]
            duration = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None
            self.seconds = duration
            if duration is None and container.duration is not None:
                duration = container.duration / av.time_base
            rate = stream.average_rate or stream.guessed_rate
            self.frames: int | None = stream.frames or (round(duration * rate) if duration and rate else None)
            first = next(_frames(container), None)
            self.start = first.time if first is not None and first.time is not None else 0.0

    def missing(self, seconds: float) -> list[str]:
        """A sentence where the file promises clearly more than the `seconds` that it yielded; else nothing."""
        if self.seconds is None or self.seconds - seconds <= max(0.5, 0.02 * self.seconds):
            return []
        return [f"{self._path} breaks off after {seconds:.1f} of {self.seconds:.1f} s; so does the result."]


def _frames(
    container: av.container.InputContainer, damaged: Callable[[], None] | None = None
) -> Iterator[av.VideoFrame]:
    """What can be decoded: past all damage if that is to be told, else up to the first damage after a picture."""
    stream = container.streams.video[0]
    # FRAME threads report damage late, and good pictures are lost with the report.
    stream.thread_type = "AUTO" if damaged is None else "SLICE"
    begun = False
    try:
        for packet in container.demux(stream):
            try:
                frames = stream.decode(packet)
            except av.FFmpegError:
                if damaged is not None:
                    damaged()
                elif begun:
                    return
                continue
            begun = begun or bool(frames)
            yield from frames
    except av.FFmpegError:
        return  # the container itself: nothing can be found after that


def _pixel_aspect(stream: av.VideoStream) -> Fraction:
    """Width of a stored pixel in heights of one; 1 where nothing, or nothing sensible, is said."""
    ratio = Fraction(stream.sample_aspect_ratio or 1)
    return ratio if Fraction(1, _STRANGE_RATIO) <= ratio <= _STRANGE_RATIO else Fraction(1)


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text[:1].lower() + text[1:]
