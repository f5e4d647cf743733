"""Restoring the face alone: where it is, by the quantisers, and how its part of a picture is restored.

Not every picture tells: other senders code all macroblocks alike, and ours does where the face would get its share
anyway. Then the middle is restored, where faces in calls mostly are.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.grid import MACROBLOCK
from shared.picture import I420, joined, planes
from shared.restorer import Restore

Region = tuple[slice, slice]
"""Rows and columns of macroblocks."""
_FINER = 4  # steps of the quantiser below the picture's median that tell a face from the rest


def face_region(qp: NDArray[np.uint8]) -> Region | None:
    """The macroblocks around what was coded finely; None where nothing stands out.

    `qp`: uint8 [rows, columns], luma quantisers. The largest connected part at least 4 below the median, and one
    macroblock around it.
    """
    fine = (qp <= np.median(qp) - _FINER).astype(np.uint8)
    if not fine.any():
        return None
    _, _, parts, _ = cv2.connectedComponentsWithStats(fine, connectivity=8)
    left, top, width, height, _ = (int(number) for number in parts[1 + parts[1:, cv2.CC_STAT_AREA].argmax()])
    return slice(max(top - 1, 0), top + height + 1), slice(max(left - 1, 0), left + width + 1)


def middle(rows: int, columns: int) -> Region:
    """The middle half of that many macroblocks, both ways, and one macroblock around it: all of a few."""
    down, right = max(1, rows // 4), max(1, columns // 4)
    return slice(down - 1, rows - down + 1), slice(right - 1, columns - right + 1)


def restore_face(restore: Restore, i420: I420, qp: NDArray[np.uint8]) -> I420:
    """A copy of the picture with its face region, or else its middle, restored by `restore`.

    `i420`: uint8 [H * 3 / 2, W]; `qp`: uint8 [ceil(H/16), ceil(W/16)]. Raises SemcallError as `restore` does.
    """
    region = face_region(qp) or middle(*qp.shape)
    luma = tuple(slice(part.start * MACROBLOCK, part.stop * MACROBLOCK) for part in region)
    chroma = (slice(None), *(slice(part.start // 2, part.stop // 2) for part in luma))
    whole = np.array(i420, order="C")
    y, uv = planes(whole)
    y[luma], uv[chroma] = planes(restore(joined(y[luma], uv[chroma]), qp[region]))
    return whole
