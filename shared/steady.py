"""Restored pictures that stand still where the decoded ones do.

A restoration network sees one picture at a time. Where a decoded picture hardly changes, in a bare wall or a face at
rest, what it adds still trembles with every keyframe, quantiser and bit of noise, and a still picture that trembles
is worse than a coarse one. So there most of what was added to the last picture is added to this one.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.picture import I420, planes, size_of

KEPT = 0.8
"""Part of the last picture's restoration that stays where nothing moves: it is renewed in a few pictures."""
STILL = 0.5
"""Mean difference of luma, in code values, up to which a block counts as still: skipped macroblocks, mostly."""
BLOCK = 8
"""Samples of luma across and down that are still together."""
_FRACTIONS = 16  # of a code value that differences are told by


class Steadiness:
    """Call it with every picture of a stream in turn. A new size starts anew. For one thread."""

    def __init__(self) -> None:
        self._last: tuple[I420, I420] | None = None  # decoded, and what came of it

    def __call__(self, decoded: I420, restored: I420) -> I420:
        """`restored`, steadied in place: uint8 [H * 3 / 2, W] both; returns it.

        Where blocks stand still, KEPT of the last picture's change of the decoded one and the rest of this one's.
        """
        last, self._last = self._last, (decoded, restored)
        if last is None or last[0].shape != decoded.shape:
            return restored
        still = _still(decoded, last[0])
        if still is None:
            return restored
        # What the last restoration would make of this picture, in saturated bytes, a third of the time of 16 bits;
        # then most of that.
        up, down = cv2.subtract(decoded, last[0]), cv2.subtract(last[0], decoded)
        carried = cv2.subtract(cv2.add(last[1], up), down)
        cv2.copyTo(cv2.addWeighted(carried, KEPT, restored, 1 - KEPT, 0), still, restored)
        return restored

    def missed(self, decoded: I420) -> None:
        """A picture of the stream was shown as decoded."""
        self._last = decoded, decoded


def _still(decoded: I420, last: I420) -> NDArray[np.uint8] | None:
    """255 where a block stands still, else 0: uint8 as a picture; None where none does."""
    width, height = size_of(decoded)
    change = cv2.absdiff(planes(decoded)[0], planes(last)[0])
    blocks = -(-width // BLOCK), -(-height // BLOCK)
    fine = cv2.convertScaleAbs(change, alpha=_FRACTIONS)  # beyond 15 code values it is all the same
    while fine.shape[0] % 2 == fine.shape[1] % 2 == 0 and fine.shape[0] >= 2 * blocks[1]:  # fast in OpenCV
        fine = cv2.resize(fine, (fine.shape[1] // 2, fine.shape[0] // 2), interpolation=cv2.INTER_AREA)
    moved = cv2.blur(cv2.resize(fine, blocks, interpolation=cv2.INTER_AREA), (3, 3))
    still = (moved <= STILL * _FRACTIONS).astype(np.uint8) * np.uint8(255)
    if not still.any():
        return None
    mask = np.empty_like(decoded)
    luma, chroma = planes(mask)
    cv2.resize(still, (width, height), dst=luma, interpolation=cv2.INTER_NEAREST)
    cv2.resize(still, (width // 2, height // 2), dst=chroma[0], interpolation=cv2.INTER_NEAREST)
    chroma[1] = chroma[0]
    return mask
