"""The fast family of restorers: 8-bit convolutions on planes, at a quarter of the resolution and below.

The planes of YUV 4:2:0 go in as codes, strided convolutions take them to a quarter of luma's resolution, a few
convolutions work there, others, if any, at half of that, and a residual of whole code values is added to the decoded
picture (global skip, as in Galteri et al. 2020, section 3). The residual is scaled by the quantiser step of its
macroblock: what was coded finely has little to mend.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.quantised import LINEAR_ZERO, QuantConv, quantise

SCALE = 4
"""Luma samples per feature position, across and down."""
LEAST_CHANNELS = SCALE * SCALE
"""A filter of the entry for every cosine of such a square."""
LUMA_STEP, LUMA_ZERO = 1 / 128, 128
QP_STEP, QP_ZERO = 1 / 16, 32
GATE_STEP = 1 / 8
"""Code values of luma, per unit of the last convolution, that one code of the gate stands for."""


def gate_codes() -> Tensor:
    """How far the residual is let through, per luma quantiser 0..51: whole numbers 1..128, as float.

    It doubles with the quantiser step, every 6 (ITU-T H.264 clause 8.5.9), up to 16 code values per unit at 44.
    """
    return torch.round(64 * 2 ** ((torch.arange(52) - 38) / 6)).clamp(1, 128)


def through_blocks(layers: nn.ModuleList, x: Tensor) -> Tensor:
    """Convolutions in blocks of two, the last of one where they are odd, with a skip around each."""
    start = x
    for index, layer in enumerate(layers):
        x = layer(x)
        if index % 2 or index == len(layers) - 1:
            x = start = quantise(x + start)
    return x


class DeepBranch(nn.Module):
    """Convolutions at half the resolution: each sees twice as far for as many multiplications; a skip around them.

    `depth`: of the 3x3 convolutions, as `through_blocks` has them, with twice the `channels` of what comes and goes.
    """

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.entry = QuantConv(channels, 2 * channels, 2, stride=2, pads=(0, 1))
        self.body = nn.ModuleList(QuantConv(2 * channels, 2 * channels, 3) for _ in range(depth))
        self.exit = QuantConv(2 * channels, 4 * channels, 1, pads=(0, 0), zero=LINEAR_ZERO)

    def forward(self, x: Tensor) -> Tensor:
        """float [n, channels, h, w] to the same, not rectified: what comes is sums of samples, dark ones below 0."""
        spread = F.pixel_shuffle(self.exit(through_blocks(self.body, self.entry(x))), 2)
        return quantise(x + spread[..., : x.shape[2], : x.shape[3]], zero=LINEAR_ZERO)


class FastRestorer(nn.Module):
    """Planes and quantisers to restored planes.

    `channels` (LEAST_CHANNELS or more) and `depth`: of the 3x3 convolutions inside, in blocks of two with a skip
    around each; `deep`: how many more come before them at half their resolution, with twice the channels
    (DeepBranch); `chroma`: mend chroma too, else it passes through; `quantisers`: tell the convolutions the
    quantisers (the gate goes by them in any case).
    """

    def __init__(
        self, channels: int = 32, depth: int = 4, chroma: bool = True, quantisers: bool = True, deep: int = 0
    ) -> None:
        super().__init__()
        outputs = SCALE * SCALE * 3 // 2 if chroma else SCALE * SCALE
        self.entry = QuantConv(
            1, channels, SCALE, stride=SCALE, pads=(0, SCALE - 2), step_in=LUMA_STEP, zero=LINEAR_ZERO
        )
        half = SCALE // 2
        self.colour = (
            QuantConv(2, channels, half, stride=half, pads=(0, half - 1), step_in=LUMA_STEP, zero=LINEAR_ZERO)
            if chroma
            else None
        )
        self.hardness = (
            QuantConv(1, channels, 1, pads=(0, 0), step_in=QP_STEP, zero=LINEAR_ZERO) if quantisers else None
        )
        self.deep = DeepBranch(channels, deep) if deep else None
        self.body = nn.ModuleList(QuantConv(channels, channels, 3) for _ in range(depth))
        self.exit = QuantConv(channels, outputs, 3, zero=LINEAR_ZERO)
        self.register_buffer("gate", gate_codes() * GATE_STEP, persistent=False)
        self._start()

    def _start(self) -> None:
        """Begin as the identity on a cosine transform.

        Neighbouring samples are nearly equal: random filters would all see the same local mean, and training crawls.
        The first filters are the 4x4 cosine basis with the alternating ones amplified; the rest see no mean.
        """
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, QuantConv):
                    nn.init.kaiming_normal_(module.weight, a=0.5)
                    nn.init.zeros_(module.bias_or_zero())
            index = torch.arange(SCALE)
            basis = torch.cos(math.pi * (2 * index[None] + 1) * index[:, None] / (2 * SCALE)) * math.sqrt(2 / SCALE)
            basis[0] /= math.sqrt(2)
            order = index[:, None] + index[None]
            amplified = torch.where(order == 0, 1.0, torch.where(order < 3, 4.0, 8.0))
            filters = torch.einsum("uv,ux,vy->uvxy", amplified, basis, basis).reshape(SCALE * SCALE, 1, SCALE, SCALE)
            weight = self.entry.weight
            weight.sub_(weight.mean((1, 2, 3), keepdim=True)).mul_(2)
            weight[: len(filters)] = filters
            led_around = list(self.body[1::2])
            if self.deep is not None:
                led_around += [*self.deep.body[1::2], self.deep.exit]
            for layer in led_around:  # by a skip: it starts small
                assert isinstance(layer, QuantConv)
                layer.weight.mul_(0.3)
            self.exit.weight.mul_(0.002)

    def residual(self, y: Tensor, uv: Tensor, qp: Tensor) -> tuple[Tensor, Tensor]:
        """What to add to the planes, in code values, not rounded: float [n, 1, H, W] and [n, 2, H/2, W/2].

        `y`: float [n, 1, H, W], whole values 0..255, H and W even; `uv`: float [n, 2, H/2, W/2]; `qp`: float
        [n, 1, ceil(H/16), ceil(W/16)], 0..51.
        """
        height, width = y.shape[2:]
        x = self.entry((y - LUMA_ZERO) * LUMA_STEP)
        spread = F.interpolate(qp, scale_factor=16.0 / SCALE, mode="nearest")[..., : x.shape[2], : x.shape[3]]
        if self.colour is not None:
            x = quantise(x + self.colour((uv - LUMA_ZERO) * LUMA_STEP), zero=LINEAR_ZERO)
        if self.hardness is not None:
            x = quantise(x + self.hardness((spread - QP_ZERO) * QP_STEP))
        if self.deep is not None:
            x = self.deep(x)
        x = through_blocks(self.body, x)
        gate = cast(Tensor, self.gate)[spread.long().clamp(0, 51)]
        change = self.exit(x) * gate
        luma = F.pixel_shuffle(change[:, : SCALE * SCALE], SCALE)[..., :height, :width]
        if self.colour is None:
            return luma, torch.zeros_like(uv)
        chroma = F.pixel_shuffle(change[:, SCALE * SCALE :], SCALE // 2)[..., : height // 2, : width // 2]
        return luma, chroma

    def forward(self, y: Tensor, uv: Tensor, qp: Tensor) -> tuple[Tensor, Tensor]:
        """Restored planes as the exported graph gives them: whole values 0..255, shapes of `y` and `uv`."""
        luma, chroma = (torch.round(part).clamp(-128, 127) for part in self.residual(y, uv, qp))
        return (y + luma).clamp(0, 255), (uv + chroma).clamp(0, 255)
