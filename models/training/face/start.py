"""A parser's weights back out of its ONNX file, to train on from them.

The exporter folds batch normalisation into the convolutions. Here every normalisation gets the statistics of its
convolution's output on real batches and the scale and shift that undo them: the network computes what the file does,
in evaluation and (about) in training, and goes on learning as if it had never been folded.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from shared.errors import SemcallError


def load_parser(net: nn.Module, path: Path, batches: Iterable[Tensor]) -> None:
    """Give `net`, a FaceParser, the weights of `path`, an export of one of the same widths.

    `batches`: pictures uint8 [n, 3, h, w] as those to come. Raises SemcallError where the file cannot be read or
    holds another network.
    """
    try:
        graph = onnx.load(path).graph
        values = {one.name: torch.from_numpy(numpy_helper.to_array(one).copy()) for one in graph.initializer}
        found = {
            node.name.split("/")[-2]: [values[name] for name in node.input[1:]]
            for node in graph.node
            if node.op_type == "Conv"
        }
        norms = _fill(net, found)
    except Exception as error:  # onnx and torch raise many kinds
        raise SemcallError(f"{path} is no export of this face parser's network ({error}); set `start`.") from error
    _calibrate(net, norms, batches)


def _fill(net: nn.Module, found: dict[str, list[Tensor]]) -> list[nn.BatchNorm2d]:
    """Convolutions take the file's weights, normalisations add its biases and do nothing else as yet."""
    norms: list[nn.BatchNorm2d] = []
    modules = list(net.named_modules())
    convolutions = [(name, module) for name, module in modules if isinstance(module, nn.Conv2d)]
    if {name for name, _ in convolutions} != set(found):
        raise ValueError("other layers")
    following = {id(one): after for (_, one), (_, after) in pairwise(modules)}
    for name, module in convolutions:
        weight, bias = found[name]
        if weight.shape != module.weight.shape:
            raise ValueError(f"{name} has weights {list(weight.shape)}, not {list(module.weight.shape)}")
        with torch.no_grad():
            module.weight.copy_(weight)
            if module.bias is not None:
                module.bias.copy_(bias)
                continue
            norm = following[id(module)]
            assert isinstance(norm, nn.BatchNorm2d)
            mean, variance = _statistics(norm)
            norm.weight.fill_(1)
            norm.bias.copy_(bias)
            mean.zero_()
            variance.fill_(1 - norm.eps)
            norms.append(norm)
    return norms


def _calibrate(net: nn.Module, norms: list[nn.BatchNorm2d], batches: Iterable[Tensor]) -> None:
    """Statistics of what goes into each normalisation, and the scale and shift that undo them."""
    sums = {norm: [torch.zeros(norm.num_features, dtype=torch.float64) for _ in range(3)] for norm in norms}

    def watch(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        values = inputs[0].double()
        for total, part in zip(sums[norm], (torch.ones_like(values), values, values.square()), strict=True):
            total += part.sum((0, 2, 3))

    hooks = [norm.register_forward_pre_hook(watch) for norm in norms]
    net.eval()
    with torch.no_grad():
        for pictures in batches:
            net(pictures.float())
        for hook in hooks:
            hook.remove()
        for norm, (count, first, second) in sums.items():
            mean = first / count
            variance = (second / count - mean.square()).clamp(min=1e-8)
            for kept, value in zip(_statistics(norm), (mean, variance), strict=True):
                kept.copy_(value)
            norm.weight.copy_((variance + norm.eps).sqrt())
            norm.bias.add_(mean)


def _statistics(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """The running mean and variance of a normalisation that tracks them."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    return mean, variance
