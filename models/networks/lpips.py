"""LPIPS v0.1 on AlexNet (Zhang, Isola, Efros, Shechtman, Wang 2018) from torchvision's and the authors' weights."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.features import FeatureNet
from shared.errors import SemcallError

ALEXNET = "alexnet-owt-7be5be79.pth"
ALEXNET_SHA256 = "7be5be79"
"""The first digits of torchvision's file, which names it by them."""
HEAD_SHA256 = "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"
"""Of lpips/weights/v0.1/alex.pth in the authors' package 0.1.4."""

# Layer in torchvision's `features`: channels in, channels, kernel, stride, padding.
_LAYERS = {0: (3, 64, 11, 4, 2), 3: (64, 192, 5, 1, 2), 6: (192, 384, 3, 1, 1), 8: (384, 256, 3, 1, 1),
           10: (256, 256, 3, 1, 1)}  # fmt: skip
_POOLED = (3, 6)  # layers with a maximum of 3x3, stride 2, before them
_SHIFT = (-0.030, -0.088, -0.188)  # the authors' ScalingLayer, of RGB -1 .. 1
_SCALE = (0.458, 0.448, 0.450)


class Lpips(nn.Module):
    """The distance, 0 .. about 1, lower is better: equation 1, channels weighed by the trained head.

    `alexnet`: tensors `features.N.weight` and `.bias` as torchvision names them, those of the classifier are ignored;
    `head`: `linK.model.1.weight` as the authors do. Raises SemcallError when names or shapes are others.
    """

    def __init__(self, alexnet: Mapping[str, Tensor], head: Mapping[str, Tensor]) -> None:
        super().__init__()
        body: dict[str, tuple[int, ...]] = {}
        for layer, (into, out, kernel, _, _) in _LAYERS.items():
            body |= {f"features.{layer}.weight": (out, into, kernel, kernel), f"features.{layer}.bias": (out,)}
        top: dict[str, tuple[int, ...]] = {
            f"lin{k}.model.1.weight": (1, out, 1, 1) for k, (_, out, *_) in enumerate(_LAYERS.values())
        }
        _require(alexnet, body, "AlexNet")
        _require(head, top, "LPIPS head")
        self._weights = {name: alexnet[name].float() for name in body}
        self._head = [head[name].float() for name in top]

    def maps(self, rgb: Tensor) -> list[Tensor]:
        """After each of the five ReLUs, scaled to unit length over channels; RGB 0 .. 1 [n, 3, H, W]."""
        shift, scale = (torch.tensor(values).view(1, 3, 1, 1) for values in (_SHIFT, _SCALE))
        x = (2 * rgb - 1 - shift) / scale
        maps = []
        for layer, (_, _, _, stride, padding) in _LAYERS.items():
            if layer in _POOLED:
                x = F.max_pool2d(x, 3, 2)
            name = f"features.{layer}"
            x = F.relu(F.conv2d(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"], stride, padding))
            maps.append(x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10))
        return maps

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Distances [n] of RGB 0 .. 1, float32 [n, 3, H, W], at least 32x32."""
        return self.distance(self.maps(first), self.maps(second))

    def distance(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """Distances [n] of two results of `maps`."""
        pairs = zip(first, second, self._head, strict=True)
        return torch.stack([F.conv2d((a - b).pow(2), w).mean((1, 2, 3)) for a, b, w in pairs]).sum(0)


def load_lpips(alexnet: Path, head: Path) -> Lpips:
    """LPIPS from torchvision's alexnet-owt-7be5be79.pth and the authors' v0.1/alex.pth; nothing in them is run.

    Raises SemcallError when one cannot be read or is another file: with other weights it is another metric.
    """
    body = _load(alexnet, ALEXNET_SHA256, f"torchvision's {ALEXNET}")
    return Lpips(body, _load(head, HEAD_SHA256, "lpips/weights/v0.1/alex.pth of the package lpips"))


class PictureDistance:
    """The distance between two pictures, uint8 [H, W, 3] of B, G, R.

    What the network says of the latest references up to 256x256 is remembered: a study compares them with many.
    """

    _REMEMBERED, _LARGEST = 24, 256 * 256

    def __init__(self, net: Lpips | FeatureNet) -> None:
        self._net = net
        self._known: dict[bytes, list[Tensor]] = {}

    def __call__(self, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
        """Of the reference and another picture of its size."""
        with torch.no_grad():
            return float(self._net.distance(self._reference(first), self._maps(second)))

    def _reference(self, picture: NDArray[np.uint8]) -> list[Tensor]:
        if picture.shape[0] * picture.shape[1] > self._LARGEST:
            return self._maps(picture)
        key = hashlib.sha256(repr(picture.shape).encode() + np.ascontiguousarray(picture).tobytes()).digest()
        maps = self._known.pop(key, None) or self._maps(picture)
        self._known[key] = maps  # the newest last
        if len(self._known) > self._REMEMBERED:
            del self._known[next(iter(self._known))]
        return maps

    def _maps(self, picture: NDArray[np.uint8]) -> list[Tensor]:
        rgb = _rgb(picture)
        return self._net.maps(rgb) if isinstance(self._net, Lpips) else list(self._net(rgb))


def _rgb(bgr: NDArray[np.uint8]) -> Tensor:
    rgb = np.ascontiguousarray(bgr[..., ::-1].transpose(2, 0, 1))
    return torch.from_numpy(rgb)[None].float() / 255


def _load(path: Path, digest: str, what: str) -> Mapping[str, Tensor]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SemcallError(f"The weights {path} cannot be read; give the path of {what}.") from error
    if not hashlib.sha256(content).hexdigest().startswith(digest):
        raise SemcallError(f"{path} is another file than {what} (SHA-256 {digest[:8]}...); get that one.")
    try:
        state: Any = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises many kinds
        raise SemcallError(f"The weights {path} hold more than tensors or are damaged; get {what}.") from error
    if not isinstance(state, Mapping):
        raise SemcallError(f"The weights {path} are no mapping of names to tensors; get {what}.")
    return state


def _require(state: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], what: str) -> None:
    for name, shape in wanted.items():
        found = state.get(name)
        if not isinstance(found, Tensor) or tuple(found.shape) != shape:
            have = f"is {list(found.shape)}" if isinstance(found, Tensor) else "is missing"
            raise SemcallError(f"These are no weights of the {what}: {name} {have} instead of {list(shape)}.")
