"""Between the sizes of a picture, of what a network sees of it, of what that says, and the macroblock grid."""

from __future__ import annotations

import functools
import math
from typing import cast

import numpy as np
from numpy.typing import NDArray

from shared.grid import MACROBLOCK, grid_shape


def small_size(width: int, height: int, pixels: int, multiple: int, shortest: int = 32) -> tuple[int, int]:
    """Width and height of about `pixels` samples, aspect about kept, multiples of `multiple` and `shortest` at least.

    57600 in multiples of 4 make 320x180 of 1280x720. Small pictures are enlarged; very long ones are widened.
    """
    scale = math.sqrt(pixels / (width * height)) / multiple
    least = -(-shortest // multiple)
    return max(least, round(width * scale)) * multiple, max(least, round(height * scale)) * multiple


def on_macroblocks(cells: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """Values of a grid of equal cells over a whole picture as means over its macroblocks, by exact area.

    `cells`: float32 [h', w'] over a picture of `width` x `height`. Returns float32 [rows, columns]; macroblocks that
    reach beyond the picture count with what lies inside. The identity where cells are macroblocks.
    """
    rows, columns = grid_shape(width, height)
    if cells.shape == (rows, columns) and (height, width) == (rows * MACROBLOCK, columns * MACROBLOCK):
        return cells
    down, across = _overlaps(cells.shape[0], height), _overlaps(cells.shape[1], width)
    return cast("NDArray[np.float32]", down @ (cells @ across.T))


@functools.lru_cache(maxsize=8)
def _overlaps(cells: int, length: int) -> NDArray[np.float32]:
    """[n, cells]: which part of each of the n macroblocks along `length` samples lies in which of `cells` cells."""
    edges = np.arange(cells + 1) * (length / cells)
    starts = np.arange(0, length, MACROBLOCK)[:, None]
    ends = np.minimum(starts + MACROBLOCK, length)
    inside = np.minimum(ends, edges[None, 1:]) - np.maximum(starts, edges[None, :-1])
    parts: NDArray[np.float32] = (np.maximum(inside, 0) / (ends - starts)).astype(np.float32)
    return parts
