"""Coding a clip at a measured rate: files that are compared have the same size.

The paper compares files that differ in size by up to 11%; here the asked rate is corrected until the measured one is
within 0.4% of the target.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.evaluation.study.protocol import TOLERANCE
from models.evaluation.study.results import mean_known
from shared.encode import Encode
from shared.grid import Mask, unpack_mask
from shared.lines import read_lines
from shared.picture import CLOCK_RATE

LOWEST, HIGHEST = 20e3, 20e6
"""Rates that the encoder is asked for, bit/s."""
_PASSES = 5


@dataclass(frozen=True, slots=True)
class Coded:
    """A coded file. `kbps`: measured, of the video alone; `reached`: within the tolerance of the target.

    `share`: measured, 0..1, None where nobody is in view; `qp_face`, `qp_background`: mean quantisers, None where no
    macroblock of that kind was coded; `size`: width, height; `fps`: pictures a second, measured; `passes`: encodings
    that it took.
    """

    frames: int
    size: tuple[int, int]
    fps: float
    bytes: int
    target_kbps: float
    kbps: float
    reached: bool
    share: float | None
    qp_face: float | None
    qp_background: float | None
    passes: int


def stats_path(out: Path) -> Path:
    """Where the statistics of a coded file lie."""
    return out.with_suffix(".jsonl")


def code(source: Path, out: Path, target: float, share: float, seconds: float, encode: Encode) -> Coded:
    """Code `source` at `target` kbit/s with `share` (0..1) of the bits for the face, to `out` and its statistics.

    `out` is written whole or not at all. Raises SemcallError as `encode` does.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    trial = out.with_name(out.stem + ".trial.mp4")
    ask, best = target * 1e3, None
    for number in range(1, _PASSES + 1):
        encode(source, trial, stats_path(trial), min(max(ask, LOWEST), HIGHEST), share, seconds)
        coded = _read(stats_path(trial), target, number)
        if best is None or abs(coded.kbps - target) < abs(best.kbps - target):
            best = coded
            stats_path(trial).replace(stats_path(out))
            trial.replace(out)
        if coded.reached:
            break
        ask = min(max(ask * target / coded.kbps, ask / 2), ask * 2)
    for rest in (trial, stats_path(trial)):
        rest.unlink(missing_ok=True)
    assert best is not None
    return best


def read_masks(stats: Path) -> list[Mask]:
    """The face mask of every coded picture, bool [rows, columns]."""
    return [_mask(line) for line in read_lines(stats)]


def from_json(kept: dict[str, Any]) -> Coded:
    """What `dataclasses.asdict` made of one, through JSON."""
    return Coded(**{**kept, "size": tuple(kept["size"])})


def _read(stats: Path, target: float, passes: int) -> Coded:
    lines = read_lines(stats)
    ticks = [line["ticks"] for line in lines]
    step = float(np.median(np.diff(ticks))) if len(ticks) > 1 else CLOCK_RATE / 30
    seconds = (ticks[-1] - ticks[0] + step) / CLOCK_RATE
    bits = sum(line["bits"] for line in lines)
    seen = [line for line in lines if _mask(line).any()]
    kbps = bits / seconds / 1e3
    return Coded(
        frames=len(lines),
        size=(lines[0]["width"], lines[0]["height"]),
        fps=len(lines) / seconds,
        bytes=bits // 8,
        target_kbps=target,
        kbps=kbps,
        reached=abs(kbps / target - 1) <= TOLERANCE,
        share=sum(line["face_bits"] for line in seen) / sum(line["bits"] for line in seen) if seen else None,
        qp_face=mean_known(line["qp_face"] for line in seen),
        qp_background=mean_known(line["qp_background"] for line in lines),
        passes=passes,
    )


def _mask(line: dict[str, Any]) -> Mask:
    return unpack_mask(line["mask"], line["width"], line["height"])
