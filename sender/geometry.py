"""Between the sizes of a picture, of what a network sees of it, of what that says, and the macroblock grid."""

from __future__ import annotations

import functools
import math
from typing import cast

import cv2
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


def shrunk(plane: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A plane uint8 [H, W], or planes [H, W, n], at another width and height.

    By the mean of the area or nearly; enlarged where it is smaller.
    """
    # Halving is far the fastest in OpenCV: 4:1 in two steps costs an eighth of one, odd ratios after it a third. What
    # is left below 2:1 leaves no sample out between its neighbours, and costs a fifth of a true mean.
    height, width = plane.shape[:2]
    while width % 2 == height % 2 == 0 and width >= 2 * size[0] and height >= 2 * size[1]:
        height, width = height // 2, width // 2
        plane = _resized(plane, (width, height))
    return plane if (width, height) == size else _resized(plane, size)


def _resized(plane: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    height, width = plane.shape[:2]
    smaller = size[0] <= width and size[1] <= height
    how = cv2.INTER_AREA if smaller and (width >= 2 * size[0] or height >= 2 * size[1]) else cv2.INTER_LINEAR
    # A quoted type: NumPy takes a hundredth of a millisecond to spell one out, several times a picture.
    return cast("NDArray[np.uint8]", cv2.resize(plane, size, interpolation=how))


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
