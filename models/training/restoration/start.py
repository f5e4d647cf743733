"""A fast restorer's weights back out of its ONNX file, to train on from them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper

from models.networks.quantised import QuantConv
from models.networks.restorer import FastRestorer
from shared.errors import SemcallError


def load_restorer(net: FastRestorer, path: Path) -> None:
    """Give `net` the weights of `path`, an export of one alike. What it lacks, a deep branch or later blocks of two
    convolutions, begins by adding nothing.

    The file holds the weights on their 7-bit grid, times the strengths that it was exported with. Raises SemcallError
    where the file cannot be read or holds another network; `net` is then as it was.
    """
    try:
        graph = onnx.load(path).graph
        held = {one.name: torch.from_numpy(numpy_helper.to_array(one).copy()).float() for one in graph.initializer}
        found = {name.removesuffix("_weight_codes") for name in held if name.endswith("_weight_codes")}
        layers = {_exported(name): part for name, part in net.named_modules() if isinstance(part, QuantConv)}
        branch = {name for name in layers if name.startswith("deep_")}
        blocks = _later_blocks(layers, found)
        if found not in (whole := set(layers) - set(blocks), whole - branch):
            raise ValueError("other layers")
        values = {name: _values(held, name) for name in sorted(found)}
        for name, (weight, _) in values.items():
            if weight.shape != layers[name].weight.shape:
                raise ValueError(f"{name} has weights {list(weight.shape)}, not {list(layers[name].weight.shape)}")
    except Exception as error:  # onnx and torch raise many kinds
        raise SemcallError(f"{path} is no export of this restorer's network ({error}); set `start`.") from error
    with torch.no_grad():
        for name, (weight, bias) in values.items():
            layers[name].weight.copy_(weight)
            layers[name].bias_or_zero().copy_(bias)
        if net.deep is not None and not branch <= found:
            net.deep.exit.weight.zero_()
        for name in blocks[1::2]:
            layers[name].weight.zero_()


def _later_blocks(layers: Mapping[str, QuantConv], found: Collection[str]) -> list[str]:
    """The body's convolutions that `found` lacks, in their order, where these are blocks after whole ones."""
    body = [name for name in layers if name.startswith("body")]
    held = sum(name in found for name in body)
    return body[held:] if held and held % 2 == 0 and len(body) % 2 == 0 else []


def _exported(module: str) -> str:
    """What models/training/export.py calls the module.

    >>> _exported("deep.body.0"), _exported("exit")
    ('deep_body0', 'exit')
    """
    return module.replace("body.", "body").replace(".", "_")


def _values(held: dict[str, torch.Tensor], layer: str) -> tuple[torch.Tensor, torch.Tensor]:
    weight = held[f"{layer}_weight_codes"] * held[f"{layer}_weight_step"][:, None, None, None]
    return weight, held[f"{layer}_bias_codes"] * held[f"{layer}_bias_step"]
