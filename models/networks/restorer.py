"""The small restorer: what a receiver without a GPU can afford on every frame.

Luma goes in as codes, a strided convolution takes it to a quarter of the resolution, most of the work happens at an
eighth, and a residual of whole code values is added to the decoded picture (global skip, as in Galteri et al. 2020,
section 3). Chroma is passed through.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.quantised import LINEAR_ZERO, QuantConv, quantise

LUMA_STEP, LUMA_ZERO = 1 / 128, 128
QP_STEP, QP_ZERO = 1 / 16, 32
RESIDUAL_GAIN = 8.0
"""Code values of luma per unit of the last convolution."""


class SmallRestorer(nn.Module):
    """Luma and quantisers to restored luma.

    `fine`: channels at 1/4 of the resolution; `coarse`: channels at 1/8; `depth`: 3x3 convolutions at 1/8 inside
    the inner skip; `last`: 3x3 convolutions at 1/4 before the output.
    """

    def __init__(self, fine: int = 16, coarse: int = 48, depth: int = 3, last: int = 2) -> None:
        super().__init__()
        self.entry = QuantConv(1, fine, 4, stride=4, pads=(0, 2), step_in=LUMA_STEP)
        self.down = QuantConv(fine, coarse, 3, stride=2, zero=LINEAR_ZERO)
        self.hardness = QuantConv(1, coarse, 1, pads=(0, 0), step_in=QP_STEP, zero=LINEAR_ZERO)
        self.body = nn.ModuleList(QuantConv(coarse, coarse, 3) for _ in range(depth))
        self.up = QuantConv(coarse, 4 * fine, 1, pads=(0, 0), zero=LINEAR_ZERO)
        self.tail = nn.ModuleList(QuantConv(fine, fine, 3) for _ in range(last - 1))
        self.exit = QuantConv(fine, 16, 3, zero=None, gain=RESIDUAL_GAIN)
        self._start()

    def _start(self) -> None:
        for module in self.modules():
            if isinstance(module, QuantConv):
                nn.init.kaiming_normal_(module.weight, a=0.5)
                nn.init.zeros_(module.bias_or_zero())
        with torch.no_grad():
            self.exit.weight.mul_(0.1)

    def residual(self, y: Tensor, qp: Tensor) -> Tensor:
        """What to add to the luma, in code values, not rounded: float [n, 1, H, W].

        `y`: float [n, 1, H, W], whole values 0..255, H and W even; `qp`: float [n, 1, ceil(H/16), ceil(W/16)], 0..51.
        """
        height, width = y.shape[2:]
        fine = self.entry((y - LUMA_ZERO) * LUMA_STEP)
        coarse = self.down(fine)
        hardness = F.interpolate((qp - QP_ZERO) * QP_STEP, scale_factor=2.0, mode="nearest")
        hardness = self.hardness(hardness[..., : coarse.shape[2], : coarse.shape[3]])
        x = start = quantise(coarse + hardness)
        for layer in self.body:
            x = layer(x)
        x = quantise(x + start)
        up = F.pixel_shuffle(self.up(x), 2)[..., : fine.shape[2], : fine.shape[3]]
        x = quantise(fine + up)
        for layer in self.tail:
            x = layer(x)
        out: Tensor = F.pixel_shuffle(self.exit(x), 4)[..., :height, :width]
        return out

    def forward(self, y: Tensor, qp: Tensor) -> Tensor:
        """Restored luma as the exported graph gives it: whole values 0..255, float [n, 1, H, W]."""
        return (y + torch.round(self.residual(y, qp)).clamp(-128, 127)).clamp(0, 255)
