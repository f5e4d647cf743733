"""The macroblock grid: 16x16 luma samples, counted in raster order (ITU-T H.264 clause 6.3)."""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray

MACROBLOCK = 16

Mask = NDArray[np.bool_]


def grid_shape(width: int, height: int) -> tuple[int, int]:
    """Rows and columns of macroblocks that cover `width` x `height` luma samples."""
    return -(-height // MACROBLOCK), -(-width // MACROBLOCK)


def row_runs(mask: Mask) -> NDArray[np.int32]:
    """Horizontal runs of True in a macroblock mask.

    `mask`: bool [rows, columns]. Returns int32 [n, 3]: row, first column, column after the last.
    """
    rows, columns = mask.shape
    padded = np.zeros((rows, columns + 2), np.bool_)
    padded[:, 1:-1] = mask
    flat = padded.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1])  # of a run: before its first column and at its last one
    row, first = np.divmod(edges[::2], columns + 2)
    return np.stack([row, first, edges[1::2] - row * (columns + 2)], axis=1).astype(np.int32)


def pack_mask(mask: Mask) -> str:
    """A macroblock mask, bool [rows, columns], as base64 of its bits in raster order (numpy.packbits)."""
    return base64.b64encode(np.packbits(mask).tobytes()).decode()


def unpack_mask(text: str, width: int, height: int) -> Mask:
    """What `pack_mask` made of the mask of a picture of `width` x `height`: bool [rows, columns].

    >>> mask = np.eye(3, 4, dtype=np.bool_)
    >>> bool((unpack_mask(pack_mask(mask), 64, 48) == mask).all())
    True
    """
    rows, columns = grid_shape(width, height)
    packed = np.frombuffer(base64.b64decode(text), np.uint8)
    return np.unpackbits(packed, count=rows * columns).reshape(rows, columns).astype(np.bool_)


def mask_to_pixels(mask: Mask, width: int, height: int) -> Mask:
    """Spread a macroblock mask over luma samples: bool [height, width]."""
    spread = np.repeat(np.repeat(mask, MACROBLOCK, axis=0), MACROBLOCK, axis=1)
    return spread[:height, :width]
