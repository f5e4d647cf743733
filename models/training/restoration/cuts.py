"""Scene cuts: one clip that turns into another, as when a sender's camera is changed."""

from __future__ import annotations

from itertools import chain, takewhile
from pathlib import Path

from shared.clips import Clip
from shared.picture import letterboxed
from shared.x264 import write_pictures


def write_cut(first: Path, second: Path, out: Path, seconds: float) -> None:
    """Write `seconds` of video to `out`, without loss: half of it is the beginning of `first`, half that of `second`.

    The latter is scaled to fit, with black bars, and goes at the rate of the former. Raises SemcallError for a file
    that cannot be read.
    """
    clip = Clip(first)
    half = seconds / 2
    halves = (takewhile(lambda one: one[1] < half, source) for source in (clip, Clip(second)))
    pictures = (letterboxed(i420, *clip.size) for i420, _ in chain.from_iterable(halves))
    write_pictures(out, clip.size, clip.fps, pictures)
