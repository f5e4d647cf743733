"""Discriminators: what tells a restored picture from an original, both seen beside the decoded one.

Neither ends in a sigmoid or a bias: the losses (models/training/losses.py, eq. 1-2 of the paper) take logits and look
at their differences only. Both are called `net(candidate, decoded)`, float RGB [n, 3, H, W] in 0..1 each, and are
needed in training only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

SLOPE = 0.2
"""Of LeakyReLU below zero."""
_LEAST = 4  # samples across and down that go into the dense layer
_WIDEST = 8  # in units of `channels`


class PaperDiscriminator(nn.Module):
    """The paper's: strided convolutions with LeakyReLU and a dense layer on top, one logit for a whole patch.

    `size`: samples of a patch across and down, at least 8 (the paper trains on 256); every convolution halves them
    until at most four are left. `channels`: of the first convolution, doubled by each of the next up to eightfold.
    """

    def __init__(self, size: int = 256, channels: int = 64) -> None:
        super().__init__()
        if size < 2 * _LEAST:
            raise ValueError(f"a discriminator's patch is at least {2 * _LEAST} samples across, not {size}")
        self.size = size
        layers: list[nn.Module] = []
        inputs, outputs = 6, channels
        while size > _LEAST:
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.LeakyReLU(SLOPE)]
            inputs, outputs = outputs, min(2 * outputs, _WIDEST * channels)
            size = (size + 1) // 2
        self.body = nn.Sequential(*layers)
        self.dense = nn.Linear(inputs * size * size, 1, bias=False)

    def forward(self, candidate: Tensor, decoded: Tensor) -> Tensor:
        """Logits [n, 1] of RGB patches, float [n, 3, size, size] in 0..1; the two are joined along the channels.

        Raises ValueError for patches of another size.
        """
        if candidate.shape[2:] != (self.size, self.size):
            raise ValueError(f"this discriminator takes {self.size}x{self.size} samples, not {list(candidate.shape)}")
        features: Tensor = self.body(torch.cat([candidate, decoded], 1) * 2 - 1)
        logits: Tensor = self.dense(features.flatten(1))
        return logits


class PatchDiscriminator(nn.Module):
    """A small one for trainings on a CPU, a logit for every 4x4 samples, each of which sees 36x36.

    It sees the candidate and what was changed (the difference says far more about a restorer than the decoded picture
    does), both at half size with four times the channels. Spectral norm (Miyato et al. 2018) keeps so small a network
    from running away from a slow generator. `channels`: of the first layer; 32 gives 74 k parameters.
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        wide = channels * 3 // 2
        plan = ((24, channels, 3), (channels, wide, 4), (wide, wide, 3), (wide, wide, 3), (wide, 1, 3))
        layers: list[nn.Module] = []
        for inputs, outputs, kernel in plan:
            # The strided one is 4x4: with 3x3 some samples would count more often than others, and print a mesh.
            conv = nn.Conv2d(inputs, outputs, kernel, 2 if kernel == 4 else 1, 1, bias=outputs > 1)
            conv.weight.data = conv.weight.data.contiguous(memory_format=torch.channels_last)  # fast on a CPU
            layers += [spectral_norm(conv), nn.LeakyReLU(SLOPE)]
        self.body = nn.Sequential(*layers[:-1])

    def forward(self, candidate: Tensor, decoded: Tensor) -> Tensor:
        """Logits [n, 1, H/4, W/4] of RGB, float [n, 3, H, W] in 0..1; H and W even, at least 8."""
        seen = F.pixel_unshuffle(torch.cat([candidate * 2 - 1, (candidate - decoded) * 2], 1), 2)
        logits: Tensor = self.body(seen.contiguous(memory_format=torch.channels_last))
        return logits
