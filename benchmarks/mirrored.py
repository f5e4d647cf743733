"""A restorer's mean over a picture's mirrored and turned views: what it says by chance of one view averages out.

Several times the work of one view, so no way to restore a call: it tells how much a larger network could gain without
knowing more. (Self-ensemble of super-resolution, Lim et al. 2017, section 3.3.)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from shared.grid import MACROBLOCK
from shared.picture import I420, cropped, joined, planes, size_of
from shared.restorer import Restore

Plane = NDArray[np.uint8]
Turn = Callable[[Plane], Plane]
TURNS: tuple[Turn, ...] = (
    lambda plane: plane,
    lambda plane: plane[:, ::-1],
    lambda plane: plane[::-1],
    lambda plane: plane[::-1, ::-1],
    lambda plane: plane.T,
    lambda plane: plane[::-1, ::-1].T,
)
"""Each undoes itself."""


def over_views(restore: Restore) -> Restore:
    """What restores a picture by the mean of `restore` over TURNS, rounded; macroblocks stay macroblocks."""

    def mean(i420: I420, qp: NDArray[np.uint8]) -> I420:
        whole = _padded(i420)
        total = np.zeros(whole.shape, np.float32)
        for turn in TURNS:
            total += _turned(restore(_turned(whole, turn), np.ascontiguousarray(turn(qp))), turn)
        width, height = size_of(i420)
        return cropped(np.round(total / len(TURNS)).astype(np.uint8), 0, 0, height, width)

    return mean


def _padded(i420: I420) -> I420:
    """To whole macroblocks, by repeating the rim: they are counted from the other side when mirrored."""
    width, height = size_of(i420)
    right, below = -width % MACROBLOCK, -height % MACROBLOCK
    luma, chroma = planes(i420)
    return joined(
        np.pad(luma, ((0, below), (0, right)), "edge"),
        *(np.pad(part, ((0, below // 2), (0, right // 2)), "edge") for part in chroma),
    )


def _turned(i420: I420, turn: Turn) -> I420:
    luma, chroma = planes(i420)
    return joined(turn(luma), *(turn(part) for part in chroma))
