"""From trained weights to an 8-bit ONNX graph and its card.

The graph is written node by node in ONNX's quantise-dequantise form, so that ONNX Runtime fuses every convolution and
sum into its integer kernels and no full-resolution float tensor exists. docs/restorer.md has the figures.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import nn

from models.networks.quantised import LINEAR_ZERO, STEP, QuantConv
from models.networks.restorer import (
    GATE_STEP,
    LUMA_STEP,
    LUMA_ZERO,
    QP_STEP,
    QP_ZERO,
    SCALE,
    FastRestorer,
    gate_codes,
)
from models.registry import save_model
from models.training.graph import OPSET, GraphWriter
from models.training.parity import Planes, check_parity, opened

CONTRACT = 1


def spread(g: GraphWriter, blocks: str, grid: str, name: str) -> str:
    """One value per macroblock as one per feature position; `grid` is as large as the result."""
    scales = g.constant(np.array([1, 1, 16 // SCALE, 16 // SCALE], np.float32), "spread_scales")
    wide = g.node(
        "Resize",
        [blocks, "", scales],
        f"{name}_spread",
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    return g.like(wide, grid, f"{name}_grid")


def build(net: FastRestorer, name: str) -> onnx.ModelProto:
    """The restorer contract's graph for a trained network: what FastRestorer.forward computes, on codes."""
    g = GraphWriter()
    luma = g.dequantise("y", LUMA_STEP, LUMA_ZERO, "luma")
    x = g.feature(luma, net.entry, "entry")
    grid = f"{x}_codes"
    if net.colour is not None:
        colour = g.feature(g.dequantise("uv", LUMA_STEP, LUMA_ZERO, "chroma"), net.colour, "colour")
        x = g.add(x, colour, "planes", LINEAR_ZERO)
    if net.hardness is not None:
        quantisers = g.dequantise(spread(g, "qp", grid, "qp"), QP_STEP, QP_ZERO, "qp_values")
        x = g.add(x, g.feature(quantisers, net.hardness, "hardness"), "start")
    table = g.constant(gate_codes().numpy().astype(np.uint8), "gate_table")
    limits = [g.constant(np.int32(value), f"qp_limit_{value}") for value in (0, 51)]
    position = g.node("Clip", [g.node("Cast", ["qp"], "qp_whole", to=TensorProto.INT32), *limits], "qp_index")
    gate = spread(g, g.node("Gather", [table, position], "gate_codes"), grid, "gate")
    if net.deep is not None:
        inner = _blocks(g, net.deep.body, g.feature(x, net.deep.entry, "deep_entry"), "deep_")
        g.feature(inner, net.deep.exit, "deep_exit")
        x = g.add(
            x, _enlarged(g, "deep_exit_codes", 2, f"{x}_codes", STEP, LINEAR_ZERO, "deep"), "deep_sum", LINEAR_ZERO
        )
    x = _blocks(g, net.body, x, "")
    change = g.feature(x, net.exit, "exit")
    residual = g.node("Mul", [change, g.dequantise(gate, GATE_STEP, 0, "gate_values")], "gated")
    residual = g.quantise(residual, 1.0, 128, "residual_codes")
    if net.colour is None:
        g.node("Identity", ["uv"], "uv_out")
        _apply(g, residual, "y", SCALE)
    else:
        samples = SCALE * SCALE
        _apply(g, g.channels(residual, 0, samples, "luma_residual"), "y", SCALE)
        _apply(g, g.channels(residual, samples, samples * 3 // 2, "chroma_residual"), "uv", SCALE // 2)
    return g.model(name)


def _blocks(g: GraphWriter, layers: Iterable[nn.Module], x: str, prefix: str) -> str:
    """What models/networks/restorer.py's `through_blocks` computes, as values."""
    start, last = x, len(body := list(layers)) - 1
    for index, layer in enumerate(body):
        assert isinstance(layer, QuantConv)
        x = g.feature(x, layer, f"{prefix}body{index}")
        if index % 2 or index == last:
            x = start = g.add(x, start, f"{prefix}block{index}")
    return x


def _enlarged(g: GraphWriter, codes: str, blocks: int, model: str, step: float, zero: int, name: str) -> str:
    """Channels of `codes` spread over squares of `blocks`, cut to the size of `model`, as values."""
    spread_out = g.node("DepthToSpace", [codes], f"{name}_spread", blocksize=blocks, mode="CRD")
    return g.dequantise(g.like(spread_out, model, f"{name}_grid"), step, zero, name)


def _apply(g: GraphWriter, residual: str, plane: str, blocks: int) -> None:
    """Spread residual codes over a plane and add them: the plane's output."""
    values = _enlarged(g, residual, blocks, plane, 1.0, 128, f"{plane}_residual")
    total = g.node("Add", [g.dequantise(plane, 1.0, 0, f"{plane}_whole"), values], f"{plane}_total")
    g.quantise(total, 1.0, 0, f"{plane}_out")


def write(net: FastRestorer, name: str, folder: Path, facts: dict[str, Any]) -> Path:
    """Write `name`.onnx and its card to `folder`, both or neither; `facts` (data, metrics, command) are for the card.

    Returns the .onnx file. Raises SemcallError where the graph differs from the network, and as `save_model` does.
    """
    net = net.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    content = build(net, name).SerializeToString()

    def run(fed: Planes) -> list[NDArray[Any]]:
        with torch.inference_mode():
            restored = net(*(torch.from_numpy(fed[key]).float() for key in ("y", "uv", "qp")))
        return [plane.numpy() for plane in restored]

    card = {
        "name": name,
        "kind": "restorer",
        "contract": CONTRACT,
        "sha256": "",  # its place; save_model fills it in
        "bytes": 0,
        "opset": OPSET,
        "precision": "uint8 features, 7-bit weights, int32 sums",
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "inputs": {
            "y": "uint8 [1, 1, H, W], H and W even",
            "uv": "uint8 [1, 2, H/2, W/2]",
            "qp": "uint8 [1, 1, ceil(H/16), ceil(W/16)], luma quantiser 0..51",
        },
        "outputs": {
            "y_out": "uint8 [1, 1, H, W]",
            "uv_out": "uint8 [1, 2, H/2, W/2]" + (", equal to uv" if net.colour is None else ""),
        },
        "parity": check_parity(run, opened(content, name), name),
        "licence": "MIT",
        "made": datetime.now(UTC).date().isoformat(),
        **facts,
    }
    return save_model(folder, content, card)
