"""I420 pictures into an MP4 file by plain x264, at one quality: what `semcall mask` and `semcall restore` write."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import av

from shared.clips import Size
from shared.errors import SemcallError
from shared.mp4 import Mp4Writer, Sound
from shared.outfile import replacing
from shared.picture import CLOCK_RATE, I420

WriteI420 = Callable[[I420, int], None]
"""Adds a picture, uint8 [H * 3 / 2, W], shown at so many 90 kHz ticks since the first (increasing)."""

_LOSSLESS = {"preset": "ultrafast", "qp": "0"}
_SQUARE = Fraction(1)
_IN_ORDER = {"bf": "0"}  # Mp4Writer knows no pictures that are shown in another order


@contextlib.contextmanager
def writing_mp4(
    out: Path,
    size: Size,
    fps: float,
    sound: Sound | None,
    options: Mapping[str, str],
    aspect: Fraction = _SQUARE,
) -> Iterator[WriteI420]:
    """A function that adds a picture to `out`, which is there in the end whole or not at all.

    `size`: of the pictures; `fps`: nominal; `sound`: what goes beside them, if any; `options`: x264's (crf, ...);
    `aspect`: width of a sample by its height. Colours are tagged BT.601, limited range. Raises SemcallError where the
    file cannot be written.
    """
    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height = size
    codec.pix_fmt, codec.time_base, codec.options = "yuv420p", Fraction(1, CLOCK_RATE), {**options, **_IN_ORDER}
    codec.color_range, codec.colorspace = 1, 6  # H.273: limited range, SMPTE 170M (BT.601)
    if aspect != _SQUARE:
        codec.sample_aspect_ratio = aspect
    codec.framerate = Fraction(fps).limit_denominator(1001)  # the stream's level follows; else it is the highest
    with replacing(out) as part, Mp4Writer(part, fps, sound, out) as writer:

        def write(i420: I420, ticks: int) -> None:
            frame = av.VideoFrame.from_ndarray(i420, format="yuv420p")
            frame.pts, frame.time_base = ticks, codec.time_base
            add(frame)

        def add(frame: av.VideoFrame | None) -> None:
            try:
                packets = codec.encode(frame)
            except av.FFmpegError as error:
                reason = error.strerror or error
                raise SemcallError(f"x264 cannot code pictures of {size[0]}x{size[1]} ({reason}).") from None
            for packet in packets:
                writer.write(bytes(packet), packet.pts or 0)

        yield write
        add(None)


def write_pictures(
    out: Path, size: Size, fps: float, pictures: Iterable[I420], options: Mapping[str, str] = _LOSSLESS
) -> None:
    """Write `pictures` of `size` to `out`, `fps` a second, without sound.

    `options`: x264's; without them every sample is kept. Raises SemcallError where the file cannot be written.
    """
    with writing_mp4(out, size, fps, None, options) as write:
        for number, i420 in enumerate(pictures):
            write(i420, round(number * CLOCK_RATE / fps))
