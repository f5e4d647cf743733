"""BiSeNet (Yu et al., ECCV 2018) with a ResNet-18 context path: the face parser of the paper, 19 classes.

Names and shapes of the tensors are those of the public face-parsing.PyTorch checkpoints trained on CelebAMask-HQ,
which replace the spatial path of the paper's section 3.1 by the context path's features at 1/8.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared.errors import SemcallError

CLASSES = (
    "background", "skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "l_ear", "r_ear", "ear_r", "nose", "mouth",
    "u_lip", "l_lip", "neck", "neck_l", "cloth", "hair", "hat",
)  # fmt: skip
"""CelebAMask-HQ's classes in channel order: eye_g are glasses, ear_r earrings, neck_l is a necklace."""
_FACE = CLASSES[1:15]
REGIONS: Mapping[str, tuple[str, ...]] = {"face": _FACE, "face+hair": (*_FACE, "hair"), "person": CLASSES[1:]}
"""Regions of a face parser's card, by class. The face includes ears, earrings, glasses and the neck."""
INPUT_PIXELS = 512 * 288
"""Area to which pictures are scaled: as wide as the pictures the checkpoints were trained on, for 16:9."""
INPUT_MULTIPLE = 32
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_SHOWN = 3  # tensors named in an error


class ConvBnRelu(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, channels_in: int, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels_in, h, w] to [n, channels, h, w]."""
        return F.relu(self.bn(self.conv(x)))


class BasicBlock(nn.Module):
    """ResNet's residual block of two 3x3 convolutions (He et al., CVPR 2016)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels_in, h, w] to [n, channels, ceil(h/stride), ceil(w/stride)]."""
        change = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(self.downsample(x) + change)


class ResNet18(nn.Module):
    """ResNet-18 without its classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(BasicBlock(64, 64, 1), BasicBlock(64, 64, 1))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, 2), BasicBlock(128, 128, 1))
        self.layer3 = nn.Sequential(BasicBlock(128, 256, 2), BasicBlock(256, 256, 1))
        self.layer4 = nn.Sequential(BasicBlock(256, 512, 2), BasicBlock(512, 512, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features at 1/8 (128 channels), 1/16 (256) and 1/32 (512) of a normalised picture [n, 3, h, w]."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        at8 = self.layer2(self.layer1(x))
        at16 = self.layer3(at8)
        return at8, at16, self.layer4(at16)


class AttentionRefinement(nn.Module):
    """Weighs channels by what the whole picture holds (BiSeNet, section 3.2, figure 2b)."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.conv = ConvBnRelu(channels_in, channels, 3)
        self.conv_atten = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels_in, h, w] to [n, channels, h, w]."""
        x = self.conv(x)
        weight: Tensor = self.bn_atten(self.conv_atten(F.adaptive_avg_pool2d(x, 1)))
        return x * weight.sigmoid()


class ContextPath(nn.Module):
    """The wide field of view: ResNet-18, refined by attention, brought back to 1/8 (BiSeNet, section 3.2)."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = ResNet18()
        self.arm16 = AttentionRefinement(256, 128)
        self.arm32 = AttentionRefinement(512, 128)
        self.conv_head32 = ConvBnRelu(128, 128, 3)
        self.conv_head16 = ConvBnRelu(128, 128, 3)
        self.conv_avg = ConvBnRelu(512, 128, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """ResNet's features at 1/8, the context at 1/8 and at 1/16, 128 channels each."""
        at8, at16, at32 = self.resnet(x)
        whole = self.conv_avg(F.adaptive_avg_pool2d(at32, 1))
        context16 = self.conv_head32(_enlarged(self.arm32(at32) + whole, at16))
        context8 = self.conv_head16(_enlarged(self.arm16(at16) + context16, at8))
        return at8, context8, context16


class FeatureFusion(nn.Module):
    """Joins detail and context, channels weighed by the whole picture (BiSeNet, section 3.3, figure 2c)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convblk = ConvBnRelu(channels, channels, 1)
        self.conv1 = nn.Conv2d(channels, channels // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(channels // 4, channels, 1, bias=False)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        """Two times [n, channels/2, h, w] to [n, channels, h, w]."""
        x: Tensor = self.convblk(torch.cat([detail, context], 1))
        weight: Tensor = self.conv2(F.relu(self.conv1(F.adaptive_avg_pool2d(x, 1))))
        return x * weight.sigmoid() + x


class Head(nn.Module):
    """From features to logits."""

    def __init__(self, channels_in: int, channels: int, classes: int) -> None:
        super().__init__()
        self.conv = ConvBnRelu(channels_in, channels, 3)
        self.conv_out = nn.Conv2d(channels, classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels_in, h, w] to [n, classes, h, w]."""
        logits: Tensor = self.conv_out(self.conv(x))
        return logits


class BiSeNet(nn.Module):
    """The whole parser. Only the main head is used; the two auxiliary ones exist for the checkpoints' sake."""

    def __init__(self, classes: int = len(CLASSES)) -> None:
        super().__init__()
        self.cp = ContextPath()
        self.ffm = FeatureFusion(256)
        self.conv_out = Head(256, 256, classes)
        self.conv_out16 = Head(128, 64, classes)
        self.conv_out32 = Head(128, 64, classes)

    def forward(self, rgb: Tensor) -> Tensor:
        """Logits [n, classes, ceil(h/4), ceil(w/4)] of RGB code values, float [n, 3, h, w], 0..255."""
        mean, std = (255 * torch.tensor(values, device=rgb.device).view(1, 3, 1, 1) for values in (_MEAN, _STD))
        detail, context, _ = self.cp((rgb - mean) / std)
        logits = self.conv_out(self.ffm(detail, context))
        # Corners on corners, as in training: otherwise edges move by up to half a cell of 8 pixels.
        quarter = [(side + 3) // 4 for side in rgb.shape[2:]]
        return F.interpolate(logits, quarter, mode="bilinear", align_corners=True)


def load_bisenet(path: Path) -> BiSeNet:
    """A BiSeNet with the weights of a checkpoint, in evaluation mode.

    `path`: what torch.save wrote, a mapping of tensor names to tensors as of face-parsing.PyTorch, bare or under
    `state_dict`, with or without `module.` before every name; nothing in it is run. Raises SemcallError when the file
    cannot be read, holds more than tensors, or when these are no dense float16, bfloat16, float32 or float64, have
    other names or shapes than the network's, or values that are not finite in float32.
    """
    state = _tensors(_read(path), path)
    net = BiSeNet()
    wanted = net.state_dict()
    # Only training reads these counters, whatever they are; files from before PyTorch 0.4.1 lack them.
    state |= {name: value for name, value in wanted.items() if name.endswith(".num_batches_tracked")}
    # First of all: such tensors have neither shapes nor values that could be compared.
    if odd := [name for name, value in state.items() if name in wanted and not _plain(value, wanted[name])]:
        raise SemcallError(
            f"{path} holds {_some(odd)} as something else than dense floating-point numbers; save the weights as "
            "float32."
        )
    differences = {
        "lacks": [name for name in wanted if name not in state],
        "has the unknown": [name for name in state if name not in wanted],
        "has the wrong shape in": [
            f"{name} ({_shape(state[name])} instead of {_shape(wanted[name])})"
            for name in wanted
            if name in state and state[name].shape != wanted[name].shape
        ],
    }
    parts = [f"it {what} {_some(names)}" for what, names in differences.items() if names]
    if parts:
        raise SemcallError(f"{path} is no 19-class BiSeNet (ResNet-18) checkpoint: {'; '.join(parts)}.")
    if broken := [name for name, value in state.items() if not torch.isfinite(value.to(wanted[name].dtype)).all()]:
        raise SemcallError(f"{path} is damaged: {_some(broken)} holds values that are not finite; get it again.")
    net.load_state_dict(state)
    return net.eval()


def _read(path: Path) -> Any:
    try:
        file = path.open("rb")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SemcallError(f"The checkpoint {path} cannot be read ({reason}); check the path.") from error
    try:
        with file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unusual pickles: those that matter are refused
            return torch.load(file, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):  # the instruction that names a Python object
            raise SemcallError(
                f"{path} holds Python objects besides tensors, which could run code, so it was not opened; save its "
                "state_dict() alone with torch.save."
            ) from error
        raise SemcallError(f"{path} is no PyTorch checkpoint; give a file that torch.save wrote.") from error
    except Exception as error:  # torch raises many kinds
        raise SemcallError(
            f"{path} is no PyTorch checkpoint or damaged; give a file that torch.save wrote."
        ) from error


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors by their names in the network."""
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise SemcallError(f"{path} holds no weights; give a file with a model's state_dict().")
    strange = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if strange:
        raise SemcallError(
            f"{path} is no bare checkpoint: {_some(strange)} is no tensor; save the state_dict() alone."
        )
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def _plain(value: Tensor, wanted: Tensor) -> bool:
    """Whether a tensor's values are all there, as numbers that the network can take."""
    dense = value.layout == torch.strided and not (value.is_meta or value.is_quantized or value.is_nested)
    return dense and (value.dtype in _DTYPES or value is wanted)


def _enlarged(x: Tensor, model: Tensor) -> Tensor:
    return F.interpolate(x, model.shape[2:], mode="nearest")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
