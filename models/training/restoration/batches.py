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
    """Random crops of `size` samples from `pairs`, `batch` at a time, corner and mirror drawn for each.

    `turned`: each lies upside down half of the time, and on its side half of the time.
    """

    def __init__(self, pairs: Pairs, seed: int, batch: int, size: int, turned: bool = False) -> None:
        self._pairs, self._seed, self._batch, self._size, self._turned = pairs, seed, batch, size, turned
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
        corners = chance.integers((self._pairs.size - self._size) // 16 + 1, size=(self._batch, 2)) * 16
        turns = np.zeros((self._batch, 3), np.bool_)
        for kind in range(3 if self._turned else 1):
            turns[:, kind] = chance.random(self._batch) < 0.5
        one = [self._crop(*each) for each in zip(picked, corners, turns, strict=True)]
        parts = [torch.stack(part) for part in zip(*one, strict=True)]  # [n, 2, planes, ...] but for the last
        y, uv, true_y, true_uv, qp = (torch.cat([part[:, 0], part[:, 1]]) for part in parts[:-1])
        return y, uv, true_y, true_uv, qp, parts[-1]

    def _crop(self, index: int, corner: NDArray[np.int64], turns: NDArray[np.bool_]) -> tuple[Tensor, ...]:
        """Of both pictures: coded luma and chroma, the original's, quantisers; and the face.

        `turns`: whether mirrored, upside down, on its side.
        """
        pairs, (top, left) = self._pairs, (int(side) for side in corner)
        area = tuple(slice(start // 16, (start + self._size) // 16) for start in (top, left))
        return (
            *_planes(pairs.coded[index], top, left, self._size, turns),
            *_planes(pairs.original[index], top, left, self._size, turns),
            _tensor(pairs.qp[index][:, None, *area], turns),
            _tensor(pairs.face[index][None, *area], turns),
        )


def _tensor(array: NDArray[np.generic], turns: NDArray[np.bool_]) -> Tensor:
    mirrored, upside_down, on_its_side = turns
    array = array[..., :: -1 if upside_down else 1, :: -1 if mirrored else 1]
    return torch.from_numpy(np.ascontiguousarray(array.swapaxes(-1, -2) if on_its_side else array)).float()


def _planes(
    i420: NDArray[np.uint8], top: int, left: int, size: int, turns: NDArray[np.bool_]
) -> tuple[Tensor, Tensor]:
    """Two I420 crops [2, 3 S/2, S] to float luma [2, 1, size, size] and chroma [2, 2, size/2, size/2]."""
    stored = i420.shape[2]
    half = stored // 2
    luma = i420[:, None, top : top + size, left : left + size]
    chroma = i420[:, stored:].reshape(2, 2, half, half)
    chroma = chroma[:, :, top // 2 : (top + size) // 2, left // 2 : (left + size) // 2]
    return _tensor(luma, turns), _tensor(chroma, turns)
