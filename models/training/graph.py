"""Writes ONNX graphs in the quantise-dequantise form that ONNX Runtime turns into integer kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.networks.quantised import STEP, ZERO, QuantConv

OPSET = 17


class GraphWriter:
    """Collects the nodes and constants of a graph. Values are named by the node that makes them."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def constant(self, value: NDArray[Any] | np.generic, name: str) -> str:
        """A named constant; the same name is written once."""
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.array(value, order="C"), name)
        return name

    def node(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """A node of one output, which bears its name."""
        self._nodes.append(helper.make_node(kind, inputs, [name], name=f"node_{name}", **attributes))
        return name

    def dequantise(self, codes: str, step: float, zero: int, name: str) -> str:
        """Codes as values."""
        return self.node("DequantizeLinear", [codes, *self._step(step, zero)], name)

    def quantise(self, values: str, step: float, zero: int, name: str) -> str:
        """Values as uint8 codes, rounded to even and saturated."""
        return self.node("QuantizeLinear", [values, *self._step(step, zero)], name)

    def requantise(self, values: str, step: float, zero: int, name: str) -> str:
        """Values through codes: what the runtime fuses with the node before."""
        return self.dequantise(self.quantise(values, step, zero, f"{name}_codes"), step, zero, name)

    def conv(self, x: str, layer: QuantConv, name: str) -> str:
        """A quantised convolution up to, not including, the quantiser of its output."""
        weight, bias, step = (part.numpy() for part in layer.codes())
        channels = len(step)
        w = self.node(
            "DequantizeLinear",
            [
                self.constant(weight.astype(np.int8), f"{name}_weight_codes"),
                self.constant(step, f"{name}_weight_step"),
                self.constant(np.zeros(channels, np.int8), f"{name}_weight_zero"),
            ],
            f"{name}_weight",
            axis=0,
        )
        b = self.node(
            "DequantizeLinear",
            [
                self.constant(bias.astype(np.int32), f"{name}_bias_codes"),
                self.constant((step * np.float32(layer.step_in)).astype(np.float32), f"{name}_bias_step"),
                self.constant(np.zeros(channels, np.int32), f"{name}_bias_zero"),
            ],
            f"{name}_bias",
            axis=0,
        )
        first, last = layer.pads
        return self.node(
            "Conv",
            [x, w, b],
            f"{name}_sum",
            kernel_shape=list(layer.kernel_size),
            strides=list(layer.stride),
            pads=[first, first, last, last],
        )

    def feature(self, x: str, layer: QuantConv, name: str) -> str:
        """A quantised convolution with its output quantiser, as values."""
        return self.requantise(self.conv(x, layer, name), STEP, layer.zero, name)

    def add(self, first: str, second: str, name: str, zero: int = ZERO) -> str:
        """The sum of two features, clipped to the range of one with that zero point."""
        return self.requantise(self.node("Add", [first, second], f"{name}_sum"), STEP, zero, name)

    def channels(self, codes: str, first: int, end: int, name: str) -> str:
        """Channels `first` to before `end` of `codes`."""
        bounds = [self.constant(np.array([value], np.int64), f"channel_{value}") for value in (first, end)]
        return self.node("Slice", [codes, *bounds, self.constant(np.array([1], np.int64), "channel_axis")], name)

    def like(self, codes: str, model: str, name: str) -> str:
        """The top left of `codes`, as high and wide as `model`."""
        size = self.node("Shape", [model], f"{name}_size", start=2, end=4)
        origin = self.constant(np.zeros(2, np.int64), "origin")
        axes = self.constant(np.array([2, 3], np.int64), "spatial_axes")
        return self.node("Slice", [codes, origin, size, axes], name)

    def model(self, name: str) -> onnx.ModelProto:
        """The finished model with the restorer's inputs and outputs, checked."""
        planes: dict[str, list[str | int]] = {
            "y": [1, 1, "height", "width"],
            "uv": [1, 2, "half_height", "half_width"],
            "qp": [1, 1, "rows", "columns"],
            "y_out": [1, 1, "height", "width"],
            "uv_out": [1, 2, "half_height", "half_width"],
        }
        info = {key: helper.make_tensor_value_info(key, TensorProto.UINT8, dims) for key, dims in planes.items()}
        graph = helper.make_graph(
            self._nodes,
            name,
            [info["y"], info["uv"], info["qp"]],
            [info["y_out"], info["uv_out"]],
            list(self._constants.values()),
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8, producer_name="semcall"
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    def _step(self, step: float, zero: int) -> tuple[str, str]:
        # Full precision in the name: it identifies the constant.
        return self.constant(np.float32(step), f"step_{step!r}"), self.constant(np.uint8(zero), f"zero_{zero}")
