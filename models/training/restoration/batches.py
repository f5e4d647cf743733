"""Which crops a training step sees: the same ones for the same step, so that a resumed run is the same run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.training.restoration.pairs import Pairs

_CONCEALED = 0.3
"""How often, against others, a crop is drawn that shows a loss: its motion is not to be guessed."""


@dataclass(frozen=True, slots=True)
class Crops:
    """n crops and, behind them, the n that follow in time: float planes in code values.

    `y`, `true_y`: [2 n, 1, size, size]; `uv`, `true_uv`: [2 n, 2, size / 2, size / 2]; `qp`: [2 n, 1, size / 16,
    size / 16]; `face`: [n, 1, size / 16, size / 16], 0 or 1.
    """

    y: Tensor
    uv: Tensor
    true_y: Tensor
    true_uv: Tensor
    qp: Tensor
    face: Tensor


class Batches:
    """Random crops of `size` samples from `pairs`, `batch` at a time, mirrored half of the time."""

    def __init__(self, pairs: Pairs, seed: int, batch: int, size: int) -> None:
        self._pairs, self._seed, self._batch, self._size = pairs, seed, batch, size
        stored = pairs.size
        both = zip(pairs.coded, pairs.original, strict=True)
        error = np.array(
            [np.abs(coded[0, :stored].astype(np.int16) - true[0, :stored]).mean() for coded, true in both]
        )
        hardness = np.clip(error, 0.5, 6) * np.where(pairs.concealed, _CONCEALED, 1.0)
        self._hard = hardness / hardness.sum()
        even = np.where(pairs.concealed, _CONCEALED, 1.0)
        self._even = even / even.sum()

    def at(self, step: int) -> tuple[Tensor, ...]:
        """The fields of Crops for a step; the same for the same step."""
        chance = np.random.default_rng([self._seed, step])
        half = self._batch // 2
        picked = np.concatenate(
            [
                chance.choice(len(self._hard), self._batch - half, p=self._hard),
                chance.choice(len(self._even), half, p=self._even),
            ]
        )
        size = self._size
        top, left = (int(chance.integers((self._pairs.size - size) // 16 + 1)) * 16 for _ in range(2))
        mirrored = chance.random() < 0.5
        pairs = self._pairs
        y, uv = _planes(pairs.coded[picked], top, left, size, mirrored)
        true_y, true_uv = _planes(pairs.original[picked], top, left, size, mirrored)
        area = slice(top // 16, (top + size) // 16), slice(left // 16, (left + size) // 16)
        qp = _tensor(np.concatenate([pairs.qp[picked, n][:, None, *area] for n in (0, 1)]), mirrored)
        face = _tensor(pairs.face[picked][:, None, *area], mirrored)
        return y, uv, true_y, true_uv, qp, face


def _tensor(array: NDArray[np.generic], mirrored: bool) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array[..., ::-1] if mirrored else array)).float()


def _planes(i420: NDArray[np.uint8], top: int, left: int, size: int, mirrored: bool) -> tuple[Tensor, Tensor]:
    """I420 crops [n, 2, 3 S/2, S] to float luma [2 n, 1, size, size] and chroma [2 n, 2, size/2, size/2]."""
    stored = i420.shape[3]
    half = stored // 2
    whole = np.concatenate([i420[:, 0], i420[:, 1]])
    luma = whole[:, None, top : top + size, left : left + size]
    chroma = whole[:, stored:].reshape(-1, 2, half, half)
    chroma = chroma[:, :, top // 2 : (top + size) // 2, left // 2 : (left + size) // 2]
    return _tensor(luma, mirrored), _tensor(chroma, mirrored)
