"""Fixed feature networks that stand for the eye: one to train with, another, never trained with, to judge by.

Neither is LPIPS (Zhang et al. 2018): the distances are the unweighted kind of its equation 1, on SqueezeNet 1.0 and
on VGG-19 up to conv3_4, and are always named so.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared.errors import SemcallError

SQUEEZENET = "squeezenet1_0_features.pth"
VGG = "vgg19_protopnet_cub_conv1_1_to_conv3_4.pth"
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


def rgb(y: Tensor, uv: Tensor) -> Tensor:
    """BT.601 limited range to RGB 0..1 (not clipped): y [n, 1, H, W] and uv [n, 2, H/2, W/2] in code values."""
    uv = F.interpolate(uv - 128, scale_factor=2.0, mode="bilinear", align_corners=False)
    y, u, v = (y - 16) * (255 / 219), uv[:, :1] * (255 / 224), uv[:, 1:] * (255 / 224)
    return torch.cat([y + 1.402 * v, y - 0.344136 * u - 0.714136 * v, y + 1.772 * u], 1) / 255


class FeatureNet(nn.Module):
    """A frozen stack of ImageNet features; subclasses say which."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        try:
            state = torch.load(weights, weights_only=True, map_location="cpu")
        except Exception as error:  # torch raises many kinds
            raise SemcallError(f"The feature network {weights} cannot be read: {error}.") from error
        self._weights = {
            name: value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value
            for name, value in state.items()
        }

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Take the weights along to another device or precision."""
        self._weights = {name: fn(value) for name, value in self._weights.items()}
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call, no-any-return]

    def _conv(self, x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        return F.conv2d(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"], stride, padding)

    def maps(self, x: Tensor) -> list[Tensor]:
        """Feature maps of normalised RGB."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> list[Tensor]:
        """Feature maps of RGB 0..1 [n, 3, H, W], every position scaled to unit length over channels."""
        mean, std = (torch.tensor(values, device=image.device).view(1, 3, 1, 1) for values in (_MEAN, _STD))
        x = ((image - mean) / std).contiguous(memory_format=torch.channels_last)
        return [m / (m.pow(2).sum(1, keepdim=True).add(1e-8).sqrt() + 0.2) for m in self.maps(x)]

    def distances(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """float [n], of each picture: sum over maps of the mean squared distance between two results of `forward`."""
        return torch.stack([(a - b).pow(2).sum(1).mean((1, 2)) for a, b in zip(first, second, strict=True)]).sum(0)

    def distance(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """The mean of `distances`."""
        return self.distances(first, second).mean()


class SqueezeNet(FeatureNet):
    """SqueezeNet 1.0 (Iandola et al. 2016): after conv1, fire3 and fire6 (torchvision features 0, 4, 8)."""

    def maps(self, x: Tensor) -> list[Tensor]:
        """Three maps, at 1/2, 1/4 and 1/8 of the resolution."""
        x = F.relu(self._conv(x, "features.0", stride=2))
        maps = [x]
        for layer in (3, 4, 5, 7, 8):
            if layer in (3, 7):
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
            squeezed = F.relu(self._conv(x, f"features.{layer}.squeeze"))
            wide = self._conv(squeezed, f"features.{layer}.expand3x3", padding=1)
            x = torch.cat([F.relu(self._conv(squeezed, f"features.{layer}.expand1x1")), F.relu(wide)], 1)
            if layer in (4, 8):
                maps.append(x)
        return maps


class JudgeVgg(FeatureNet):
    """VGG-19 (Simonyan and Zisserman 2015): after conv1_2, conv2_2 and conv3_4."""

    def maps(self, x: Tensor) -> list[Tensor]:
        """Three maps, at 1, 1/2 and 1/4 of the resolution."""
        maps = []
        for layer in (0, 2, 5, 7, 10, 12, 14, 16):
            if layer in (5, 10):
                x = F.max_pool2d(x, 2)
            x = F.relu(self._conv(x, f"features.{layer}", padding=1))
            if layer in (2, 7, 16):
                maps.append(x)
        return maps
