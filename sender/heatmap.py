"""Where the bits of a picture went: heat maps of bits and quantiser over the picture, with their scales."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from sender.cavlc import SKIP, MacroblockInfo
from shared.grid import MACROBLOCK
from shared.picture import I420, planes

BGR = NDArray[np.uint8]

_BITS_TICKS = (1, 4, 16, 64, 256, 1024)  # the scales are fixed, so that pictures of any stream compare
_QP_LOW, _QP_HIGH = 10, 51
_QP_TICKS = (10, 20, 30, 40, 51)
_OPACITY = 0.6  # of the colours over the grey picture
_LEAST_WIDTH = 640  # smaller pictures are enlarged by a whole number, or the text would not fit
_LINE, _BAR, _MARGIN = 26, 14, 10
_FONT, _TEXT, _WHITE = cv2.FONT_HERSHEY_SIMPLEX, 0.5, (235, 235, 235)


def heat_map(i420: I420, info: MacroblockInfo, caption: str) -> BGR:
    """Two panels, uint8 [H, W, 3]: bits per macroblock (logarithmic) and quantiser.

    `i420`: the decoded picture that `info` belongs to. Skipped macroblocks, and in the second panel all without
    a residual, whose quantiser does nothing, show the picture in grey. Wide pictures have the panels one above the
    other, tall ones side by side.
    """
    luma = planes(i420)[0]
    scale = max(1, -(-_LEAST_WIDTH // luma.shape[1]))
    bits = np.log2(np.maximum(info.bits, 1)) / np.log2(_BITS_TICKS[-1])
    fineness = (info.qp.astype(np.float32) - _QP_LOW) / (_QP_HIGH - _QP_LOW)
    bits_ticks = [(np.log2(tick) / np.log2(_BITS_TICKS[-1]), str(tick)) for tick in _BITS_TICKS]
    qp_ticks = [((tick - _QP_LOW) / (_QP_HIGH - _QP_LOW), str(tick)) for tick in _QP_TICKS]
    panels = [
        _panel(luma, bits, info.type != SKIP, scale, cv2.COLORMAP_INFERNO, "bits per macroblock", bits_ticks),
        _panel(luma, fineness, info.coded, scale, cv2.COLORMAP_VIRIDIS, "QP (residual only)", qp_ticks),
    ]
    wide = luma.shape[1] > luma.shape[0]
    body = np.concatenate(panels, axis=0 if wide else 1)
    head = np.zeros((_LINE, body.shape[1], 3), np.uint8)
    _write(head, caption, _MARGIN, _LINE - 8)
    return np.concatenate([head, body], axis=0)


def _panel(
    luma: NDArray[np.uint8],
    values: NDArray[np.floating],
    shown: NDArray[np.bool_],
    scale: int,
    colours: int,
    name: str,
    ticks: list[tuple[float, str]],
) -> BGR:
    """`values`, 0..1 per macroblock, over the picture; their scale below."""
    height, width = luma.shape
    levels = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    coloured = _spread(cv2.applyColorMap(levels, colours), height, width).astype(np.float32)
    grey = np.repeat(luma[..., None], 3, axis=2).astype(np.float32)
    mixed = np.where(_spread(shown, height, width)[..., None], _OPACITY * coloured + (1 - _OPACITY) * grey, grey)
    picture = np.rint(mixed).astype(np.uint8).repeat(scale, axis=0).repeat(scale, axis=1)
    return np.concatenate([picture, _legend(picture.shape[1], colours, name, ticks)], axis=0)


def _legend(width: int, colours: int, name: str, ticks: list[tuple[float, str]]) -> BGR:
    strip = np.zeros((_MARGIN + _BAR + _LINE, width, 3), np.uint8)
    left = 200
    length = width - left - 4 * _MARGIN
    ramp = np.rint(np.linspace(0, 255, length)).astype(np.uint8)[None]
    strip[_MARGIN : _MARGIN + _BAR, left : left + length] = cv2.applyColorMap(ramp, colours)
    _write(strip, name, _MARGIN, _MARGIN + _BAR)
    for place, text in ticks:
        x = left + round(place * (length - 1))
        strip[_MARGIN + _BAR : _MARGIN + _BAR + 4, x] = _WHITE
        wide = cv2.getTextSize(text, _FONT, _TEXT, 1)[0][0]
        _write(strip, text, x - wide // 2, _MARGIN + _BAR + 18)
    return strip


def _spread(blocks: NDArray[np.generic], height: int, width: int) -> NDArray[np.generic]:
    return blocks.repeat(MACROBLOCK, axis=0).repeat(MACROBLOCK, axis=1)[:height, :width]


def _write(image: BGR, text: str, x: int, y: int) -> None:
    cv2.putText(cast(cv2.typing.MatLike, image), text, (x, y), _FONT, _TEXT, _WHITE, 1, cv2.LINE_AA)
