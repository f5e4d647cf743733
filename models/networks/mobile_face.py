"""MobileFaceNet (Chen et al. 2018), a face recogniser, as a differentiable module: the stand-in for VGG-Face.

Its weights are read from the ONNX file that the evaluation measures identity with, batch normalisation folded into
the convolutions. A restorer trained on it has learnt the judge's own features: its card must say so, and its identity
similarity is then no independent figure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from shared.errors import SemcallError

SIDE = 112
"""Samples of an aligned crop, across and down, for the embedding."""
# After each halving: channels in, channels inside, channels out, residual blocks that follow, channels inside those.
_STAGES = ((64, 128, 64, 4, 128), (64, 256, 128, 6, 256), (128, 512, 128, 2, 256))
_NORMALISING = {"Flatten", "ReduceL2", "Constant", "Clip", "Shape", "Expand", "Div"}


class Unit(nn.Module):
    """A convolution, its folded normalisation as bias, and PReLU unless `linear`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        padding: int | None = None,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2 if padding is None else padding, 1, groups)
        self.slope = None if linear else nn.Parameter(torch.full((outputs,), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        """float [n, inputs, h, w] to [n, outputs, h', w']."""
        x = self.conv(x)
        return x if self.slope is None else F.prelu(x, self.slope)


class Bottleneck(nn.Module):
    """Widened, filtered by channel, narrowed without activation; with a skip around unless it halves."""

    def __init__(self, inputs: int, inside: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.skip = stride == 1
        self.units = nn.Sequential(
            Unit(inputs, inside), Unit(inside, inside, 3, stride, inside), Unit(inside, outputs, linear=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """float [n, inputs, h, w] to [n, outputs, ceil(h/stride), ceil(w/stride)]."""
        change: Tensor = self.units(x)
        return x + change if self.skip else change


class MobileFaceNet(nn.Module):
    """`net(rgb)` for a loss on crops of any size, `net.embedding(rgb)` for who it is. Frozen, in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(Unit(3, 64, 3, 2), Unit(64, 64, 3, 1, 64))
        self.stages = nn.ModuleList(
            nn.Sequential(
                Bottleneck(inputs, widened, outputs, 2),
                *(Bottleneck(outputs, inside, outputs, 1) for _ in range(count)),
            )
            for inputs, widened, outputs, count, inside in _STAGES
        )
        self.head = nn.Sequential(Unit(128, 512), Unit(512, 512, 7, 1, 512, 0, linear=True))
        self.dense = nn.Linear(512, 128)
        self.requires_grad_(False)
        self.eval()

    def forward(self, rgb: Tensor) -> list[Tensor]:
        """Maps of RGB 0..1, float [n, 3, H, W], at least 32x32: 64, 128 and 128 channels at 1/4, 1/8 and 1/16.

        What the last block of each resolution gives, which no activation follows (as the paper takes features before
        ReLU). Values of either sign that spread by 0.2 to 0.5.
        """
        x = self.stem(rgb * (255 / 128) - 127.5 / 128)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def embedding(self, rgb: Tensor) -> Tensor:
        """Unit vectors float [n, 128] of five-point aligned crops, RGB 0..1, float [n, 3, 112, 112].

        Their scalar product is the similarity of two faces. Raises ValueError for other sizes.
        """
        if rgb.shape[1:] != (3, SIDE, SIDE):
            raise ValueError(f"embeddings are of [n, 3, {SIDE}, {SIDE}], not {list(rgb.shape)}")
        vector: Tensor = self.dense(self.head(self(rgb)[-1]).flatten(1))
        return F.normalize(vector)


def load_mobile_face(path: Path) -> MobileFaceNet:
    """A MobileFaceNet with the weights of mobilefacenet_112.onnx; nothing in the file is run.

    Raises SemcallError when the file cannot be read, keeps its weights elsewhere, or holds another network: layers,
    their shapes and strides, and where the skips lead are compared.
    """
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except OSError as error:
        raise SemcallError(f"The face recogniser {path} cannot be read; check the path.") from error
    except Exception as error:  # protobuf's
        raise SemcallError(f"{path} is no ONNX file; give mobilefacenet_112.onnx.") from error
    try:
        layers = list(_layers(graph))
        net = MobileFaceNet()
        units = [module for module in net.modules() if isinstance(module, Unit)]
        convolutions = [layer for layer in layers if layer.geometry is not None]
        if len(convolutions) != len(units) or len(layers) != len(units) + 1:
            raise _OtherError(f"it has {len(layers)} layers, {len(convolutions)} of them convolutions")
        blocks = [module for module in net.modules() if isinstance(module, Bottleneck)]
        skipping = {id(block.units[-1]) for block in blocks if block.skip}
        for layer, unit in zip(convolutions, units, strict=True):
            layer.fill(unit, id(unit) in skipping)
        layers[-1].fill_dense(net.dense)
    except _OtherError as error:
        raise SemcallError(f"{path} is another network than MobileFaceNet at {SIDE}x{SIDE}: {error}.") from error
    return net


class _OtherError(Exception):
    """What differs."""


@dataclass(slots=True)
class _Layer:
    """A convolution, or the dense layer, with what follows it in the graph."""

    name: str
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    geometry: tuple[list[int], list[int], int] | None
    """Strides, pads and groups; None of the dense layer."""
    slope: NDArray[np.float64] | None = None
    skip: bool = False

    def affine(self, op: str, values: NDArray[np.float64]) -> None:
        """Fold a multiplication by channel, or an addition, that follows."""
        if values.size != len(self.bias) or self.slope is not None or self.skip:
            raise _OtherError(f"{self.name} is followed by {op} of {list(values.shape)}")
        flat = values.reshape(-1)
        if op == "Add":
            self.bias = self.bias + flat
        else:
            self.weight = self.weight * flat.reshape(-1, *[1] * (self.weight.ndim - 1))
            self.bias = self.bias * flat

    def fill(self, unit: Unit, skip: bool) -> None:
        conv = unit.conv
        wanted = ([*conv.stride], [int(conv.padding[0])] * 4, conv.groups)
        shape = tuple(conv.weight.shape)
        if self.weight.shape != shape or self.geometry != wanted:
            raise _OtherError(f"{self.name} is {self.weight.shape} {self.geometry}, not {shape} {wanted}")
        if (self.slope is None) != (unit.slope is None) or self.skip != skip:
            raise _OtherError(f"what follows {self.name} differs")
        assert conv.bias is not None
        _copy(conv.weight, self.weight, self.name)
        _copy(conv.bias, self.bias, self.name)
        if unit.slope is not None and self.slope is not None:
            _copy(unit.slope, self.slope, self.name)

    def fill_dense(self, dense: nn.Linear) -> None:
        if self.geometry is not None or self.weight.shape != tuple(dense.weight.shape):
            raise _OtherError(f"its last layer is {self.weight.shape}, not {tuple(dense.weight.shape)}")
        _copy(dense.weight, self.weight, self.name)
        _copy(dense.bias, self.bias, self.name)


def _layers(graph: Any) -> Iterator[_Layer]:
    """The layers in order, each with what follows it folded in; every node must feed on the one before."""
    constants = {item.name: item for item in graph.initializer}
    layer: _Layer | None = None
    fed: list[str] = []  # what each convolution feeds on
    current = graph.input[0].name if graph.input else ""
    for node in graph.node:
        if node.op_type in _NORMALISING and (node.op_type == "Flatten" or (layer and layer.geometry is None)):
            current = node.output[0]
            continue
        names = [name for name in node.input if name in constants]
        data = [name for name in node.input if name not in constants]
        values = [_array(constants[name]) for name in names]
        if current not in data:
            raise _OtherError(f"{node.name or node.op_type} does not follow what stands before it")
        if node.op_type in ("Conv", "Gemm"):
            if layer is not None:
                yield layer
            layer = _opened(node, values)
            fed.append(current)
        elif layer is None:
            raise _OtherError(f"it begins with {node.op_type}")
        elif node.op_type in ("Mul", "Add") and len(values) == 1:
            layer.affine(node.op_type, values[0])
        elif node.op_type == "PRelu" and len(values) == 1 and layer.slope is None:
            layer.slope = values[0].reshape(-1)
        elif node.op_type == "Add" and len(fed) > 2 and sorted(data) == sorted([current, fed[-3]]):
            layer.skip = True
        else:
            raise _OtherError(f"it has {node.op_type} where none belongs")
        current = node.output[0]
    if layer is not None:
        yield layer


def _opened(node: Any, values: list[NDArray[np.float64]]) -> _Layer:
    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    name = node.name or node.op_type
    if node.op_type == "Gemm":
        if len(values) != 2 or attributes.get("transB") != 1:
            raise _OtherError(f"{name} is no plain dense layer")
        return _Layer(name, values[0], values[1], None)
    if len(values) != 1 or attributes.get("dilations", [1, 1]) != [1, 1]:
        raise _OtherError(f"{name} is no plain convolution")
    geometry = (attributes.get("strides", [1, 1]), attributes.get("pads", [0] * 4), attributes.get("group", 1))
    return _Layer(name, values[0], np.zeros(len(values[0])), geometry)


def _array(tensor: Any) -> NDArray[np.float64]:
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise _OtherError("its weights are in another file")
    return np.asarray(numpy_helper.to_array(tensor), np.float64)


def _copy(parameter: Tensor, values: NDArray[np.float64], name: str) -> None:
    if parameter.numel() != values.size or not np.isfinite(values).all():
        raise _OtherError(f"{name} holds too many values, too few, or some that are not finite")
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(values).view_as(parameter))
