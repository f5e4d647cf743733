"""`semcall restore`: a file through the restorer of the call, as fast as it goes, into an MP4 file.

    decode (with the quantisers of every macroblock) -> restore -> blend -> turn upright -> x264, sound beside

Pictures keep the size at which they are stored, for the restorer mends macroblocks where the coder put them.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shared.clips import MAX_FPS, Clip, FileFacts, Size, turned
from shared.errors import SemcallError
from shared.grid import grid_shape
from shared.memory import FrameCollector
from shared.mp4 import Sound
from shared.outfile import require_outputs
from shared.picture import CLOCK_RATE, I420, i420_from_frame, size_of
from shared.progress import Progressed, progress_bar
from shared.quantisers import SIDE_DATA, exported_quantisers
from shared.restorer import Restore, Restorer
from shared.signals import interruptible
from shared.steady import Steadiness
from shared.x264 import writing_mp4

UNTOLD = 32
"""Quantiser of every macroblock of pictures that come without: zeros would say that there is nothing to mend."""
_PRESET = "fast"
_SEEK = 2.0  # seconds between keyframes, so that players seek well


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """What `semcall restore` was asked for.

    `model`: a restorer's ONNX file; `model_name`: what it is called; `strength`: 0 (decoded) .. 1 (restored);
    `crf`: x264's, 1..51, lower is finer; `threads`: of the network, and of x264; `force`: replace what is there.
    """

    source: Path
    out: Path
    model: Path
    model_name: str = ""
    strength: float = 1.0
    crf: float = 16.0
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    force: bool = False


@dataclass(frozen=True, slots=True)
class RestoredPicture:
    """One picture of a file, upright: as decoded and as blended, uint8 [H * 3 / 2, W].

    `ticks`: when it is shown, 90 kHz since the first; `aspect`: width of a sample by its height; `told`: whether its
    quantisers came with it; `ms`: milliseconds that the restorer took.
    """

    decoded: I420
    blended: I420
    ticks: int
    aspect: Fraction
    told: bool
    ms: float


@dataclass(slots=True)
class Summary:
    """What came out. `seconds`: how long it plays; `elapsed`: seconds the work took; `median_ms`: of the restorer."""

    size: Size
    restorer: str
    device: str = ""
    frames: int = 0
    seconds: float = 0.0
    elapsed: float = 0.0
    median_ms: float = 0.0
    sound: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    """Sentences on what the input did not tell or yield."""


def restore(options: RestoreOptions, console: Console) -> Summary:
    """`restore_file` with a progress bar and a table at the end."""
    with progress_bar(console) as progressed:
        summary = restore_file(options, progressed)
    console.print(_table(options, summary))
    for sentence in summary.said:
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    return summary


def restore_file(options: RestoreOptions, progressed: Progressed | None = None) -> Summary:
    """Restore `options.source` into `options.out`, its sound kept.

    Parts that cannot be decoded are left out, and the summary says so. Raises SemcallError for everything the user
    can mend. Whatever ends the work early, Ctrl-C and SIGTERM included (KeyboardInterrupt): a file that was there
    stays as it was and no unfinished one is left.
    """
    require_outputs(options.source, options.out, None, "", options.force)
    with interruptible():
        return _restore_file(options, progressed)


def _restore_file(options: RestoreOptions, progressed: Progressed | None) -> Summary:
    clip = Clip(options.source)
    facts = FileFacts(options.source)
    restorer = Restorer(options.model, options.model_name, options.threads)
    fps = min(clip.fps, MAX_FPS)
    start = time.monotonic()
    damaged: list[None] = []
    pictures = restored_pictures(clip, restorer.restore, options.strength, lambda: damaged.append(None))
    first = next(pictures, None)
    if first is None:  # a Clip has one at least, but files can change
        raise SemcallError(f"{options.source} holds no picture that can be decoded: give another file.")
    summary = Summary(size_of(first.blended), restorer.name)
    x264 = {"preset": _PRESET, "crf": f"{options.crf:g}", "threads": str(options.threads)}
    x264["g"] = str(max(1, round(_SEEK * fps)))
    times: list[float] = []
    untold = last = 0
    with (
        contextlib.closing(Sound(options.source, facts.start)) as sound,
        writing_mp4(options.out, summary.size, fps, sound, x264, first.aspect) as write,
    ):
        for picture in chain([first], pictures):
            write(picture.blended, picture.ticks)
            times.append(picture.ms)
            untold, last = untold + (not picture.told), picture.ticks
            if progressed is not None:
                progressed(len(times), facts.frames and max(facts.frames, len(times)))
    summary.frames, summary.median_ms, summary.sound = len(times), statistics.median(times), sound.described
    summary.device = restorer.device
    summary.seconds, summary.elapsed = last / CLOCK_RATE + 1 / fps, time.monotonic() - start
    summary.said = _sentences(options.source, summary.frames, untold, len(damaged))
    summary.said += facts.missing(summary.seconds) + sound.missing
    return summary


def _sentences(source: Path, frames: int, untold: int, damaged: int) -> list[str]:
    """What there is to say of `frames` pictures, `untold` of them without quantisers, and of `damaged` packets."""
    said = []
    if untold:
        which = "its pictures" if untold == frames else f"{untold} of its {frames} pictures"
        said.append(
            f"{source} does not tell how finely {which} were coded: the restorer was told a quantiser of {UNTOLD}."
        )
    if damaged:
        which = "1 picture is" if damaged == 1 else f"{damaged} pictures are"  # and what the decoder drops after them
        said.append(f"{source} is damaged: at least {which} left out where decoding failed.")
    return said


def restored_pictures(
    clip: Clip, restore_one: Restore, strength: float, damaged: Callable[[], None]
) -> Iterator[RestoredPicture]:
    """The pictures of a file, restored at `strength` (0..1), all of the first one's size.

    An odd size is scaled to the even one below it, other sizes in the middle of a stream to the first. `damaged` is
    called for each packet that cannot be decoded. Raises SemcallError as `restore_one` does.
    """
    upright: Size | None = None
    aspect = Fraction(1)
    steady, frames = Steadiness(), FrameCollector()
    for frame, seconds in clip.frames(SIDE_DATA, damaged):
        frames.read()
        decoded = _i420(frame)
        rows, columns = grid_shape(*size_of(decoded))  # an odd size lost a row or column
        found = exported_quantisers(frame)
        qp = np.full((rows, columns), UNTOLD, np.uint8) if found is None else found[:rows, :columns]
        start = time.perf_counter()
        restored = steady(decoded, restore_one(decoded, qp))
        spent = (time.perf_counter() - start) * 1e3
        if upright is None:
            sideways = frame.rotation % 180 != 0
            upright = size_of(decoded)[::-1] if sideways else size_of(decoded)
            aspect = 1 / clip.aspect if sideways else clip.aspect
        yield RestoredPicture(
            decoded=_upright(decoded, frame.rotation, upright),
            blended=_upright(blended(decoded, restored, strength), frame.rotation, upright),
            ticks=round(seconds * CLOCK_RATE),
            aspect=aspect,
            told=found is not None,
            ms=spent,
        )


def blended(decoded: I420, restored: I420, strength: float) -> I420:
    """`decoded` moved by `strength` (0..1) of its way to `restored` and rounded: a new uint8 [H * 3 / 2, W].

    >>> blended(np.array([[10, 200]], np.uint8), np.array([[20, 190]], np.uint8), 0.3).tolist()
    [[13, 197]]
    """
    way = restored.astype(np.float32)
    way -= decoded
    way *= strength
    way += decoded
    return np.rint(way, out=way).astype(np.uint8)


def _i420(frame: av.VideoFrame) -> I420:
    return i420_from_frame(frame, max(2, frame.width & ~1), max(2, frame.height & ~1))


def _upright(i420: I420, rotation: int, size: Size) -> I420:
    """A stored picture turned by `rotation` degrees, as one of `size`."""
    width, height = size[::-1] if rotation % 180 else size
    if size_of(i420) != (width, height):
        i420 = i420_from_frame(av.VideoFrame.from_ndarray(i420, format="yuv420p"), width, height)
    return turned(i420, rotation)


def _table(options: RestoreOptions, summary: Summary) -> Table:
    table = Table("", "measured", "", title=escape(str(options.out)), title_style="bold", title_justify="left")
    table.add_row("frames", str(summary.frames), f"{summary.seconds:.2f} s")
    table.add_row("picture", f"{summary.size[0]}x{summary.size[1]}", f"crf {options.crf:g}")
    table.add_row("restorer", summary.restorer, f"strength {options.strength:g}")
    table.add_row("per frame", f"{summary.median_ms:.1f} ms", f"median, on {summary.device}")
    table.add_row("restoring", f"{summary.frames / max(summary.elapsed, 1e-3):.1f} fps", f"{summary.elapsed:.1f} s")
    table.add_row("sound", ", ".join(summary.sound) or "none", "")
    return table
