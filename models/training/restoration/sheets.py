"""What a restorer does to a few crops, to look at while it trains."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.training.restoration.batches import Batches, Crops
from models.training.restoration.networks import Residual
from models.training.restoration.pairs import Pairs
from shared.errors import SemcallError
from shared.picture import bgr_from_i420

_ROWS = 6
_GAIN = 8
"""A change of one code value shows as so many."""


class Sheet:
    """Six crops of `pairs`, whole, the same ones for the same `seed`."""

    def __init__(self, pairs: Pairs, seed: int) -> None:
        batch = Crops(*Batches(pairs, seed, _ROWS, pairs.size).at(0))
        self._y, self._uv, self._qp = batch.y[:_ROWS], batch.uv[:_ROWS], batch.qp[:_ROWS]
        self._decoded = _pictures(self._y, self._uv)
        self._original = _pictures(batch.true_y[:_ROWS], batch.true_uv[:_ROWS])

    def draw(self, net: nn.Module, path: Path) -> None:
        """Write a picture with a row per crop: decoded, restored, original, eight times the change on grey.

        `net`: a Residual on the CPU, in evaluation mode. Raises SemcallError where `path` cannot be written.
        """
        with torch.no_grad():
            luma, chroma = cast(Residual, net).residual(self._y, self._uv, self._qp)
        restored = _pictures(self._y + luma.round(), self._uv + chroma.round())
        rows = []
        for decoded, mended, original in zip(self._decoded, restored, self._original, strict=True):
            change = np.clip(128 + _GAIN * (mended.astype(np.int16) - decoded), 0, 255).astype(np.uint8)
            rows.append(np.concatenate([decoded, mended, original, change], 1))
        if not cv2.imwrite(str(path), np.concatenate(rows)):
            raise SemcallError(f"Cannot write {path}; choose another --out.")


def _pictures(y: Tensor, uv: Tensor) -> list[NDArray[np.uint8]]:
    """B, G, R, uint8 [H, W, 3], of each of the planes."""
    width = y.shape[3]
    return [
        bgr_from_i420(torch.cat([luma.reshape(-1, width), chroma.reshape(-1, width)]).clamp(0, 255).byte().numpy())
        for luma, chroma in zip(y, uv, strict=True)
    ]
