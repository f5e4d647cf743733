"""Flicker: what changes from picture to picture although nothing in the source does, or the other way round."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from models.evaluation.metrics import Plane

FLAT_SPAN = 6
"""Code values that 5x5 samples of a flat place span at most: a bare wall."""


def flicker(reference: Sequence[Plane], other: Sequence[Plane], where: NDArray[np.bool_] | None = None) -> float:
    """Mean absolute error of the change to the next picture, code values, 0 .. 510, lower is better.

    `reference`, `other`: two or more consecutive planes, uint8 [H, W], the same number of both; `where`: bool [H, W],
    the samples that count in all of them (default: all; NaN where there are none). A constant error costs nothing.
    Raises ValueError for fewer than two planes or unequal numbers.

    semcall's own: the first-order difference in time of both, compared sample by sample, without motion compensation,
    for both move alike. There is no reference implementation.

    >>> grey = np.full((16, 16), 100, np.uint8)
    >>> flicker([grey, grey], [grey, grey + np.uint8(3)])
    3.0
    >>> flicker([grey, grey], [grey + np.uint8(3), grey + np.uint8(3)])
    0.0
    """
    if len(reference) != len(other) or len(reference) < 2:
        raise ValueError(f"flicker needs two equally long runs of pictures, not {len(reference)} and {len(other)}")
    if where is not None and not where.any():
        return float("nan")
    # One step at a time: a clip's planes as floats would not fit beside it in memory.
    errors = []
    for index in range(1, len(reference)):
        wrong = np.abs(_change(other, index) - _change(reference, index))
        errors.append(float((wrong if where is None else wrong[where]).mean()))
    return float(np.mean(errors))


def _change(side: Sequence[Plane], index: int) -> NDArray[np.float32]:
    return side[index].astype(np.float32) - side[index - 1].astype(np.float32)


def flat(luma: Plane) -> NDArray[np.bool_]:
    """Where 5x5 samples of a plane, uint8 [H, W], span at most FLAT_SPAN code values: bare walls."""
    square = np.ones((5, 5), np.uint8)
    return np.asarray(cv2.subtract(cv2.dilate(luma, square), cv2.erode(luma, square)) <= FLAT_SPAN)
