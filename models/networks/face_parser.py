"""The shipped face parser: BiSeNet's two ideas at a size for every frame of a call.

Yu et al., "BiSeNet" (ECCV 2018), joins a shallow path that keeps detail with a deep one that sees context. Here both
are branches of one small encoder: detail at a quarter and an eighth, context at a sixteenth with dilated depthwise
convolutions and a global gate (its attention refinement), added up on the way back to a quarter.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = ("background", "face", "hair")
"""Channel order of the logits. Face includes the neck, as in the paper (section 3.1)."""
DILATIONS = (1, 2, 3, 1)
MULTIPLE = 16
"""What the sides of a picture are multiples of if they halve evenly all the way down."""


class FaceParser(nn.Module):
    """Class logits float [n, classes, ceil(h/4), ceil(w/4)] of pictures float [n, inputs, h, w], 0..255.

    `width`: channels of the first layer, doubled at each of the next two; `context`: width of the deep stage in units
    of `width`; `inputs`: 3 (RGB), or more for what a teacher is told besides; `lean`: 3x3 convolutions,
    but the first and the depthwise ones, go down and then across, with a quarter to a half of the rank.
    """

    def __init__(
        self,
        width: int = 12,
        context: int = 12,
        inputs: int = 3,
        classes: int = len(CLASSES),
        *,
        lean: bool = False,
    ) -> None:
        super().__init__()
        deep = width * context
        four, eight = 2 * width, 4 * width

        def conv(inputs: int, outputs: int, rank: int, stride: int = 1) -> nn.Sequential:
            return _crossed(inputs, outputs, rank, stride) if lean else _conv(inputs, outputs, stride=stride)

        self.entry = _conv(inputs, width, stride=2)
        self.quarter = nn.Sequential(conv(width, four, width, stride=2), conv(four, four, four))
        self.eighth = nn.Sequential(conv(four, eight, four, stride=2), conv(eight, eight, 3 * width))
        self.sixteenth = conv(eight, deep, 6 * width, stride=2)
        self.context = nn.ModuleList([_separable(deep, dilation) for dilation in DILATIONS])
        self.gate = nn.Sequential(nn.Conv2d(deep, deep // 4, 1), nn.ReLU(), nn.Conv2d(deep // 4, deep, 1))
        self.to_eighth = _conv(deep, eight, size=1)
        self.to_quarter = conv(eight, four, four)
        self.fuse = conv(four, four, four)
        self.classify = nn.Conv2d(four, classes, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        """See the class."""
        quarter = self.quarter(self.entry(pictures * (1 / 255) - 0.5))
        eighth = self.eighth(quarter)
        deep = self.sixteenth(eighth)
        for block in self.context:
            deep = F.relu(deep + block(deep))
        deep = deep * torch.sigmoid(self.gate(deep.mean((2, 3), keepdim=True)))
        eighth = self.to_quarter(eighth + _twice(self.to_eighth(deep), eighth))
        return cast(Tensor, self.classify(self.fuse(quarter + _twice(eighth, quarter))))


def _twice(x: Tensor, model: Tensor) -> Tensor:
    """`x` at double size, cut to the size of `model` (sides that halved unevenly)."""
    doubled = F.interpolate(x, scale_factor=2.0, mode="nearest")
    # A graph traced at a multiple of MULTIPLE has no cuts: each would be a copy between two layouts at run time.
    if doubled.shape == model.shape:
        return doubled
    return doubled[:, :, : model.shape[2], : model.shape[3]]


def _conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def _crossed(inputs: int, outputs: int, rank: int, stride: int) -> nn.Sequential:
    """As `_conv`, of a lower rank: nothing lies between its two halves, so that a full one can be taken apart."""
    return nn.Sequential(
        nn.Conv2d(inputs, rank, (3, 1), (stride, 1), (1, 0), bias=False),
        nn.Conv2d(rank, outputs, (1, 3), (1, stride), (0, 1), bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def _separable(channels: int, dilation: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, 1, dilation, dilation, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
    )
