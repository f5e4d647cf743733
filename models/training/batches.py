"""Which crops a training step sees: the same ones for the same step, so that a resumed run is the same run."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.training.pairs import CROP, Pairs
from models.training.recipe import Recipe

Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


class Batches:
    """Random crops of `pairs`, mirrored half of the time."""

    def __init__(self, pairs: Pairs, recipe: Recipe) -> None:
        self._pairs = pairs
        self._seed, self._size, self._crop = recipe.seed, recipe.batch, recipe.crop
        error = pairs.coded[:, :CROP].astype(np.int16) - pairs.original[:, :CROP]
        hardness = np.clip(np.abs(error).mean((1, 2)), 0.5, 6)
        self._chance = hardness / hardness.sum()

    def at(self, step: int) -> Batch:
        """The crops of a step: y, uv, original y, original uv, qp as float32; the same for the same step."""
        chance = np.random.default_rng([self._seed, step])
        picked = self._picked(chance)
        size = self._crop
        top, left = (int(chance.integers((CROP - size) // 16 + 1)) * 16 for _ in range(2))
        mirrored = chance.random() < 0.5
        y, uv = _planes(self._pairs.coded[picked], top, left, size, mirrored)
        true_y, true_uv = _planes(self._pairs.original[picked], top, left, size, mirrored)
        block = self._pairs.qp[picked][:, None, top // 16 : (top + size) // 16, left // 16 : (left + size) // 16]
        qp = torch.from_numpy(np.ascontiguousarray(block[..., ::-1] if mirrored else block)).float()
        return y, uv, true_y, true_uv, qp

    def _picked(self, chance: np.random.Generator) -> NDArray[np.intp]:
        """Half of a batch evenly over all crops, half by how much the link has changed them."""
        half = self._size // 2
        hard = chance.choice(len(self._chance), self._size - half, p=self._chance)
        return np.concatenate([hard, chance.integers(len(self._chance), size=half)])


def _planes(i420: NDArray[np.uint8], top: int, left: int, size: int, mirrored: bool) -> tuple[Tensor, Tensor]:
    """I420 crops [n, 192, 128] to float luma [n, 1, size, size] and chroma [n, 2, size/2, size/2]."""
    half = CROP // 2
    luma = i420[:, None, top : top + size, left : left + size]
    chroma = i420[:, CROP:].reshape(-1, 2, half, half)
    chroma = chroma[:, :, top // 2 : (top + size) // 2, left // 2 : (left + size) // 2]
    parts = (part[..., ::-1] if mirrored else part for part in (luma, chroma))
    y, uv = (torch.from_numpy(np.ascontiguousarray(part)).float() for part in parts)
    return y, uv
