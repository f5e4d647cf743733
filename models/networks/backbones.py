"""The feature networks that losses are measured on: the paper's two, and what stands in, under its own name.

All are called alike: `net(rgb)`, float [n, 3, H, W] in 0..1, gives a list of feature maps [n, c, h, w], such that the
mean over channels of squared differences is the distance at a position (models/training/losses.py). They are frozen.
None is ever downloaded.

What the evaluation judges with (models/evaluation/perceptual.py) falls back to VGG-19 conv3_4: a restorer that ships
must not be trained on that, so no stand-in here falls back to it; who wants it asks for "vgg19-cub". The paper's own
conv5_4 is a close relative of it: a restorer trained on conv5_4 is to be judged by LPIPS.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.features import SQUEEZENET, VGG, SqueezeNet
from models.networks.mobile_face import load_mobile_face
from shared.errors import SemcallError

VGG19 = "vgg19-dcbb9e9d.pth"
"""torchvision's file name in torch's cache."""
MOBILE_FACE = "mobilefacenet_112.onnx"
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_FACES = (tuple(value / 255 for value in (129.1863, 104.7624, 93.5940)), (1 / 255,) * 3)
_WIDTHS = (64, 128, 256, 512, 512)


@dataclass(frozen=True, slots=True)
class Layout:
    """A VGG (Simonyan and Zisserman 2015) up to one of its layers.

    `title`: for messages; `counts`: 3x3 convolutions of each block up to the wanted layer, with maxima of 2x2 between
    blocks; `whole`: convolutions of the published blocks, by which `features.N` are numbered; `mean` and `std`: of
    the input, RGB in 0..1.
    """

    title: str
    counts: tuple[int, ...]
    whole: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def layers(self) -> list[tuple[str, str, int, int]]:
        """Of each convolution: "conv1_1", "features.0", channels in, channels out."""
        found, inputs, index = [], 3, 0
        for block, (count, whole, width) in enumerate(zip(self.counts, self.whole, _WIDTHS, strict=False), 1):
            for k in range(count):
                found.append((f"conv{block}_{k + 1}", f"features.{index + 2 * k}", inputs, width))
                inputs = width
            index += 2 * whole + 1
        return found


VGG19_CONV5_4 = Layout("VGG-19 to conv5_4", (2, 2, 4, 4, 4), (2, 2, 4, 4, 4), *_IMAGENET)
VGG19_CONV3_4 = Layout("VGG-19 to conv3_4", (2, 2, 4), (2, 2, 4, 4, 4), *_IMAGENET)
VGG_FACE_CONV5_3 = Layout("VGG-Face to conv5_3", (2, 2, 3, 3, 3), (2, 2, 3, 3, 3), *_FACES)
"""VGG-Face (Parkhi et al. 2015) is a VGG-16. Its input is RGB in 0..255 less 129.1863, 104.7624, 93.5940, not scaled:
checkpoints made for B, G, R cannot be told by their layout and do not belong here."""


class Vgg(nn.Module):
    """The last layer of a layout before its ReLU, of `state`: tensors named "conv1_1.weight" or "features.0.weight".

    Tensors of other layers are left alone. Raises SemcallError, naming `source`, when one is missing, has another
    shape, or holds anything but finite floating-point numbers.
    """

    def __init__(self, layout: Layout, state: Mapping[str, Any], source: str = "the checkpoint") -> None:
        super().__init__()
        plan = layout.layers()
        column = 0 if f"{plan[0][0]}.weight" in state else 1
        self._starts = [sum(layout.counts[:k]) for k in range(1, len(layout.counts))]
        self._count = len(plan)
        for k, layer in enumerate(plan):
            name, inputs, outputs = str(layer[column]), layer[2], layer[3]
            weight = _tensor(state, f"{name}.weight", (outputs, inputs, 3, 3), layout, source)
            self.register_buffer(f"weight{k}", weight.contiguous(memory_format=torch.channels_last), persistent=False)
            bias = _tensor(state, f"{name}.bias", (outputs,), layout, source)
            self.register_buffer(f"bias{k}", bias, persistent=False)
        for key, values in (("mean", layout.mean), ("std", layout.std)):
            self.register_buffer(key, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def forward(self, rgb: Tensor) -> list[Tensor]:
        """One map of RGB 0..1, float [n, 3, H, W]: [n, c, H/16, W/16] (conv3_4: /4), rounded down, not rectified."""
        x = ((rgb - self.get_buffer("mean")) / self.get_buffer("std")).contiguous(memory_format=torch.channels_last)
        for k in range(self._count):
            if k in self._starts:
                x = F.max_pool2d(x, 2)
            x = F.conv2d(x, self.get_buffer(f"weight{k}"), self.get_buffer(f"bias{k}"), padding=1)
            if k < self._count - 1:
                x = F.relu(x)
        return [x]


class UnitMaps(nn.Module):
    """SqueezeNet's maps at unit length over channels, times the root of their number.

    So the mean over channels of squared differences is what `SqueezeNet.distance` sums.
    """

    def __init__(self, net: SqueezeNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, rgb: Tensor) -> list[Tensor]:
        """Three maps of RGB 0..1, float [n, 3, H, W], at 1/2, 1/4 and 1/8 of the resolution; at least 32x32."""
        return [maps * maps.shape[1] ** 0.5 for maps in self.net(rgb)]


def load_vgg(layout: Layout, path: Path) -> Vgg:
    """A VGG from what torch.save wrote: tensors by name, bare or under `state_dict`; nothing in the file is run.

    Raises SemcallError when it cannot be read, holds more than tensors, or does not fit the layout.
    """
    state = _read(path, layout)
    inner = state.get("state_dict") if isinstance(state, Mapping) else None
    state = inner if isinstance(inner, Mapping) else state
    if not isinstance(state, Mapping):
        raise SemcallError(f"{path} holds no weights; give a checkpoint of {layout.title}.")
    return Vgg(layout, {str(name).removeprefix("module."): value for name, value in state.items()}, str(path))


def choose(kind: str, weights: Path, path: Path | None = None) -> tuple[nn.Module, str]:
    """The feature network of a kind, and by which name what was trained on it must be said to be.

    - "vgg19": the paper's for backgrounds and whole frames, VGG-19 conv5_4, from `path`, else torchvision's file in
      torch's cache (TORCH_HOME is respected), else SqueezeNet stands in;
    - "vggface": the paper's for faces, VGG-Face conv5_3, from `path`, else MobileFaceNet stands in;
    - "squeezenet", "mobileface", "vgg19-cub": these, from `path` or the folder `weights`. The last is what the
      evaluation judges with: for experiments only.

    A `path` that is given is used or refused, never replaced. Raises SemcallError for an unknown kind, a file that is
    not there, and one that does not fit.
    """
    if kind not in _KINDS:
        raise SemcallError(f"There is no feature network {kind!r}; choose one of {', '.join(_KINDS)}.")
    return _KINDS[kind](weights, path)


def _vgg19(weights: Path, path: Path | None) -> tuple[nn.Module, str]:
    cached = Path(torch.hub.get_dir(), "checkpoints", VGG19)
    if path is not None:
        return load_vgg(VGG19_CONV5_4, path), f"VGG-19 conv5_4 ({path.name})"
    if cached.is_file():
        return load_vgg(VGG19_CONV5_4, cached), "VGG-19 conv5_4 (torchvision)"
    net, name = _squeezenet(weights, None)
    return net, f"{name}: stand-in for VGG-19 conv5_4"


def _vgg_face(weights: Path, path: Path | None) -> tuple[nn.Module, str]:
    if path is not None:
        return load_vgg(VGG_FACE_CONV5_3, path), f"VGG-Face conv5_3 ({path.name})"
    net, name = _mobile_face(weights, None)
    return net, f"{name}: stand-in for VGG-Face conv5_3"


def _vgg19_cub(weights: Path, path: Path | None) -> tuple[nn.Module, str]:
    return load_vgg(VGG19_CONV3_4, path or weights / VGG), "VGG-19 conv3_4, CUB: stand-in"


def _squeezenet(weights: Path, path: Path | None) -> tuple[nn.Module, str]:
    file = path or weights / SQUEEZENET
    try:
        net = UnitMaps(SqueezeNet(file))
        net(torch.zeros(1, 3, 32, 32))
    except (AttributeError, KeyError, RuntimeError) as error:  # of the layout: it is looked up as it runs
        raise SemcallError(f"{file} is no SqueezeNet 1.0 in torchvision's names; give {SQUEEZENET}.") from error
    return net, "SqueezeNet 1.0 (conv1, fire3, fire6)"


def _mobile_face(weights: Path, path: Path | None) -> tuple[nn.Module, str]:
    return load_mobile_face(path or weights / MOBILE_FACE), "MobileFaceNet (three stages)"


_KINDS: dict[str, Callable[[Path, Path | None], tuple[nn.Module, str]]] = {
    "vgg19": _vgg19,
    "vggface": _vgg_face,
    "squeezenet": _squeezenet,
    "mobileface": _mobile_face,
    "vgg19-cub": _vgg19_cub,
}


def _read(path: Path, layout: Layout) -> Any:
    try:
        with path.open("rb") as file:
            return torch.load(file, weights_only=True, map_location="cpu")
    except OSError as error:
        raise SemcallError(f"The feature network {path} cannot be read; give the path of {layout.title}.") from error
    except pickle.UnpicklingError as error:
        raise SemcallError(
            f"{path} holds more than tensors or is no PyTorch checkpoint; give the state_dict() of {layout.title}."
        ) from error
    except Exception as error:  # torch raises many kinds
        raise SemcallError(f"{path} is no PyTorch checkpoint or damaged; give one of {layout.title}.") from error


def _tensor(state: Mapping[str, Any], name: str, shape: tuple[int, ...], layout: Layout, source: str) -> Tensor:
    """A tensor of `state` as float32, checked."""
    value = state.get(name)
    if not isinstance(value, Tensor) or tuple(value.shape) != shape:
        have = f"is {list(value.shape)}" if isinstance(value, Tensor) else "is missing"
        raise SemcallError(f"{source} is no {layout.title}: {name} {have} instead of {list(shape)}.")
    dense = value.layout == torch.strided and not (value.is_meta or value.is_quantized or value.is_nested)
    if not dense or not value.is_floating_point() or not torch.isfinite(value.float()).all():
        raise SemcallError(f"{source} holds {name} as something else than finite floating-point numbers.")
    return value.detach().float()
