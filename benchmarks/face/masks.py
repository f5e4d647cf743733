"""What a mask is measured by, against a reference detector's boxes or labels. All on macroblocks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.evaluation.detector import Boxes
from shared.grid import MACROBLOCK, Mask, grid_shape

SURE, SEEN = 0.75, 0.5
"""Scores of boxes whose faces must be in the mask, and of those around which a mask is no mistake."""
NEAR = 1.8
_WINDOW = 5
Plane = NDArray[np.float64]


def inner(boxes: Boxes, width: int, height: int) -> Mask:
    """Macroblocks whose centre lies in a sure box's inscribed ellipse: bool [rows, columns]."""
    return _around(boxes[boxes[:, 14] >= SURE], width, height, lambda x, y: x**2 + y**2 <= 1)


def outside(boxes: Boxes, width: int, height: int) -> Mask:
    """Macroblocks whose centre lies outside 1.8 times every box seen."""
    return ~_around(boxes[boxes[:, 14] >= SEEN], width, height, lambda x, y: np.maximum(np.abs(x), np.abs(y)) <= NEAR)


def overlap(mask: Mask, label: Mask) -> float:
    """Intersection over union, 0..1 (1 where both are empty)."""
    union = int((mask | label).sum())
    return int((mask & label).sum()) / union if union else 1.0


@dataclass(slots=True)
class Tally:
    """Sums over the frames of a clip. Rates are over macroblocks, or frames where it says so; NaN of nothing."""

    frames: int = 0
    frames_with_face: int = 0
    frames_missed: int = 0
    inner: int = 0
    hit: int = 0
    outside: int = 0
    wrong: int = 0
    worst: float = 1.0
    masked: int = 0
    flipped_twice: int = 0
    _recent: deque[Mask] = field(default_factory=lambda: deque(maxlen=_WINDOW + 1))

    def add(self, mask: Mask, boxes: Boxes, width: int, height: int) -> None:
        """One frame's mask and the detector's boxes in it."""
        self.frames += 1
        wanted = inner(boxes, width, height)
        if wanted.any():
            recall = float(mask[wanted].mean())
            self.frames_with_face += 1
            self.frames_missed += not mask.any()
            self.inner += int(wanted.sum())
            self.hit += int(mask[wanted].sum())
            self.worst = min(self.worst, recall)
        if len(boxes):  # where the detector sees nobody, a mask may well be right
            beyond = outside(boxes, width, height)
            self.outside += int(beyond.sum())
            self.wrong += int(mask[beyond].sum())
        self._recent.append(mask)
        if len(self._recent) > 2:
            flips = np.diff(np.stack(self._recent), axis=0).sum(0)
            newest = self._recent[-1] != self._recent[-2]
            self.masked += int(mask.sum())
            # Counted once, when the second flip happens.
            self.flipped_twice += int((newest & (flips >= 2)).sum())

    def __iadd__(self, other: Tally) -> Tally:
        for name in ("frames", "frames_with_face", "frames_missed", "inner", "hit", "outside", "wrong", "masked"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.flipped_twice += other.flipped_twice
        self.worst = min(self.worst, other.worst)
        return self

    @property
    def recall(self) -> float:
        """Part of the macroblocks in the boxes' inner ellipses that is in the mask."""
        return _ratio(self.hit, self.inner)

    @property
    def false(self) -> float:
        """Part of the macroblocks outside 1.8 times every box that is in the mask."""
        return _ratio(self.wrong, self.outside)

    @property
    def missed(self) -> float:
        """Part of the frames with a sure face whose mask is empty."""
        return _ratio(self.frames_missed, self.frames_with_face)

    @property
    def unsteady(self) -> float:
        """Macroblocks that change twice within five frames, per macroblock of mask."""
        return _ratio(self.flipped_twice, self.masked)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _around(boxes: Boxes, width: int, height: int, test: Callable[[Plane, Plane], Mask]) -> Mask:
    """Macroblocks whose centre passes `test` of its place in some box: x and y, -1..1 from edge to edge."""
    rows, columns = grid_shape(width, height)
    y = (np.arange(rows)[:, None] + 0.5) * MACROBLOCK
    x = (np.arange(columns)[None] + 0.5) * MACROBLOCK
    found: NDArray[np.bool_] = np.zeros((rows, columns), np.bool_)
    for left, top, wide, tall in boxes[:, :4]:
        found |= test((x - left - wide / 2) / (wide / 2), (y - top - tall / 2) / (tall / 2))
    return found
