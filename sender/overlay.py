"""`semcall mask`: which macroblocks of a file count as face, drawn over its pictures and as JSON lines.

The masks are those of `semcall encode`: the same input gives the same output.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console

from sender.face import SteadySegmenter
from sender.parser import FaceOptions
from shared.clips import MAX_FPS, Clip, FileFacts
from shared.errors import SemcallError
from shared.grid import Mask, mask_to_pixels, row_runs
from shared.mp4 import Sound
from shared.outfile import require_outputs, writing_lines
from shared.picture import CLOCK_RATE, I420, Picture, planes
from shared.progress import Progressed, progress_bar
from shared.signals import interruptible
from shared.stdout import printing
from shared.x264 import writing_mp4

STDOUT = Path("-")
_TINT = np.array([84, 90])  # U and V of a green that no skin has
_MIXED = 0.5  # part of the tint in what lies under the mask; brightness stays, so that the face can be judged
_LINE = np.ones((5, 5), np.uint8)  # the outline is half as many samples thick, inside the mask
_WHITE = 235  # limited range
# Good quality; a keyframe about every 2 s, so that players seek well.
_X264 = {"preset": "veryfast", "crf": "20", "g": "60", "threads": "1"}


@dataclass(frozen=True, slots=True)
class MaskOptions:
    """What `semcall mask` was asked for. `out`: None for no video; `lines`: JSON lines, None for none, `-` to stdout.

    `size`: bound of the pictures that are looked at; `force`: replace what is there.
    """

    source: Path
    out: Path | None = None
    lines: Path | None = None
    face: FaceOptions = field(default_factory=FaceOptions)
    size: tuple[int, int] = (1280, 720)
    force: bool = False


def mask(options: MaskOptions, console: Console) -> None:
    """`draw_masks` with a progress bar on `console`, and a line on what was found."""
    with progress_bar(console) as progressed:
        frames, with_face = draw_masks(options, progressed)
    said = f"{frames} frames, {with_face} with a face"
    said += "" if options.out is None else f": {options.out}"
    console.print(said, highlight=False, markup=False, soft_wrap=True)


def draw_masks(options: MaskOptions, progressed: Progressed | None = None) -> tuple[int, int]:
    """Write what `options` ask for. Returns the number of frames and of those with a face.

    Raises SemcallError for everything the user can mend. Whatever ends the work early, Ctrl-C and SIGTERM included
    (KeyboardInterrupt), or a reader of stdout that has gone (BrokenPipeError): files that were there stay as they
    were and no unfinished one is left.
    """
    if options.out is None and options.lines is None:
        raise SemcallError("Nothing to write: name an OUT.mp4, or give --json FILE or --json -.")
    lines = None if options.lines == STDOUT else options.lines
    require_outputs(options.source, options.out, lines, "--json", options.force)
    with interruptible():
        cv2.setNumThreads(1)
        segmenter = SteadySegmenter(options.face.open())
        clip = Clip(options.source, options.size)
        facts = FileFacts(options.source)
        frames = with_face = 0
        with _writing(options, clip, facts) as write_picture, writing_lines(lines) as write_line:
            say = _print_line if options.lines == STDOUT else write_line
            for index, (i420, seconds) in enumerate(clip):
                picture = Picture(i420, round(seconds * CLOCK_RATE), index)
                found = segmenter.mask(picture)
                say(json.dumps(_record(picture, found, segmenter.milliseconds)))
                write_picture(picture, found)
                frames, with_face = frames + 1, with_face + bool(found.any())
                if progressed is not None:
                    progressed(frames, facts.frames and max(facts.frames, frames))
    return frames, with_face


def _record(picture: Picture, found: Mask, milliseconds: Mapping[str, float]) -> dict[str, object]:
    """One line of `--json`. `runs`: row, first column, column after the last of every run of face macroblocks.

    `seconds`: since the first picture; `ms`: milliseconds of "shrink", "flow" and, where it ran, "network".
    """
    rows, columns = found.shape
    return {
        "frame": picture.index,
        "seconds": round(picture.ticks / CLOCK_RATE, 4),
        "rows": rows,
        "columns": columns,
        "runs": row_runs(found).tolist(),
        "ms": {name: round(value, 3) for name, value in milliseconds.items()},
    }


def _print_line(line: str) -> None:
    with printing():  # each line at once: its reader may be waiting for it
        print(line)


def overlay(i420: I420, found: Mask) -> I420:
    """A copy of a picture, uint8 [H * 3 / 2, W], with the macroblocks of a mask tinted and outlined."""
    drawn = i420.copy()
    luma, chroma = planes(drawn)
    height, width = luma.shape
    inside = mask_to_pixels(found, width, height).astype(np.uint8)
    mixed = np.rint(chroma * (1 - _MIXED) + _TINT[:, None, None] * _MIXED).astype(np.uint8)
    np.copyto(chroma, mixed, where=inside[::2, ::2].astype(np.bool_))
    luma[(inside - cv2.erode(inside, _LINE)).astype(np.bool_)] = _WHITE
    return drawn


@contextlib.contextmanager
def _writing(options: MaskOptions, clip: Clip, facts: FileFacts) -> Iterator[Callable[[Picture, Mask], None]]:
    """A function that adds a picture to the video; to nothing where none is wanted."""
    if options.out is None:
        yield lambda _picture, _found: None
        return
    fps = min(clip.fps, MAX_FPS)
    with (
        contextlib.closing(Sound(options.source, facts.start)) as sound,
        writing_mp4(options.out, clip.size, fps, sound, _X264) as write,
    ):
        yield lambda picture, found: write(overlay(picture.i420, found), picture.ticks)
