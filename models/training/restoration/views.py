"""Random views of a picture, as a feature network sees it: what pleases one view alone is not learnt.

A feature network strides, and is trained on pictures that stand upright: a network that mends pictures for it finds
patterns on its grid which it likes and nobody else does. An average over transformed views has no such weak spots
(Kettunen et al. 2019, "E-LPIPS: Robust Perceptual Image Similarity via Random Transformation Ensembles").
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_STRIDE = 8
"""Samples that the coarsest feature map of a training's eye steps."""
LEAST_VIEW = 48
"""Samples across and down that a crop must have for a network of this stride to see something of any view of it."""
_CHANNELS = tuple(permutations(range(3)))
_HALF = 0.25
"""How often a picture is seen at half its size."""


@dataclass(frozen=True, slots=True)
class View:
    """`top`, `left`: samples cut off; then mirrored, transposed, its colours exchanged, and halved."""

    top: int
    left: int
    mirrored: tuple[int, ...]
    transposed: bool
    channels: tuple[int, ...]
    halved: bool

    def __call__(self, image: Tensor) -> Tensor:
        """float [n, 3, H, W] to [n, 3, h, w]; differentiable."""
        seen = image[:, list(self.channels), self.top :, self.left :]
        if self.mirrored:
            seen = torch.flip(seen, self.mirrored)
        if self.transposed:
            seen = seen.transpose(2, 3)
        return F.avg_pool2d(seen, 2) if self.halved else seen


def view(step: int) -> View:
    """The view of a training step; the same for the same step."""
    chance = np.random.default_rng([step, _STRIDE])
    top, left = (int(chance.integers(_STRIDE)) for _ in range(2))
    mirrored = tuple(axis for axis in (2, 3) if chance.random() < 0.5)
    return View(
        top,
        left,
        mirrored,
        bool(chance.random() < 0.5),
        _CHANNELS[int(chance.integers(len(_CHANNELS)))],
        bool(chance.random() < _HALF),
    )
