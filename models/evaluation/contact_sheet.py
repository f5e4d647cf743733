"""Pictures side by side: rows of time, columns of what is compared, faces enlarged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.grid import MACROBLOCK, Mask, mask_to_pixels
from shared.picture import I420, bgr_from_i420

Bgr = NDArray[np.uint8]

_TILE = 400  # pixels wide
_GAP, _HEADER = 6, 30
_INK, _PAPER = (40, 40, 40), 250


@dataclass(frozen=True, slots=True)
class Row:
    """One moment. `columns`: I420 pictures of equal size; `mask`: bool [rows, columns]; `label`: e.g. "3.2 s"."""

    label: str
    columns: Sequence[I420]
    mask: Mask


def draw_sheet(titles: Sequence[str], rows: Sequence[Row]) -> Bgr:
    """uint8 [H, W, 3], B G R. One column per title, whole picture above, face crop below.

    The column after the given pictures (so `titles` has one more) shows the mask over the first picture.
    """
    strips = [_header(titles)] + [_strip(row) for row in rows]
    return np.vstack([np.vstack([strip, np.full((_GAP, strip.shape[1], 3), _PAPER, np.uint8)]) for strip in strips])


def face_box(mask: Mask, width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom in pixels of a square crop around the mask, or of the middle where it is empty."""
    ys, xs = np.nonzero(mask)
    if len(ys) == 0:
        side = min(width, height) // 2
        left, top = (width - side) // 2, (height - side) // 2
        return left, top, left + side, top + side
    left, right = int(xs.min()) * MACROBLOCK, (int(xs.max()) + 1) * MACROBLOCK
    top, bottom = int(ys.min()) * MACROBLOCK, (int(ys.max()) + 1) * MACROBLOCK
    side = min(max(right - left, bottom - top), width, height)
    left = min(max((left + right - side) // 2, 0), width - side)
    top = min(max((top + bottom - side) // 2, 0), height - side)
    return left, top, left + side, top + side


def _strip(row: Row) -> Bgr:
    pictures = [bgr_from_i420(i420) for i420 in row.columns]
    height, width = pictures[0].shape[:2]
    left, top, right, bottom = face_box(row.mask, width, height)
    masked = pictures[0].copy()
    outside = ~mask_to_pixels(row.mask, width, height)
    masked[outside] = masked[outside] // 4
    tiles = []
    for picture in [*pictures, masked]:
        whole = _fit_width(picture)
        crop = cv2.resize(picture[top:bottom, left:right], (_TILE, _TILE), interpolation=cv2.INTER_CUBIC)
        tiles.append(np.vstack([whole, crop]))
    strip = _join(tiles)
    cv2.putText(strip, row.label, (8, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 2, cv2.LINE_AA)
    return strip


def _fit_width(picture: Bgr) -> Bgr:
    """The whole picture in a 16:9 box of the tile's width."""
    box_height = _TILE * 9 // 16
    height, width = picture.shape[:2]
    scale = min(_TILE / width, box_height / height)
    small = cv2.resize(picture, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    box = np.full((box_height, _TILE, 3), _PAPER, np.uint8)
    y, x = (box_height - small.shape[0]) // 2, (_TILE - small.shape[1]) // 2
    box[y : y + small.shape[0], x : x + small.shape[1]] = small
    return box


def _header(titles: Sequence[str]) -> Bgr:
    tiles = []
    for title in titles:
        tile = np.full((_HEADER, _TILE, 3), _PAPER, np.uint8)
        cv2.putText(tile, title, (4, 21), cv2.FONT_HERSHEY_SIMPLEX, 0.55, _INK, 1, cv2.LINE_AA)
        tiles.append(tile)
    return _join(tiles)


def _join(tiles: Sequence[Bgr]) -> Bgr:
    gap = np.full((tiles[0].shape[0], _GAP, 3), _PAPER, np.uint8)
    parts = [part for tile in tiles for part in (tile, gap)]
    return np.hstack(parts)
