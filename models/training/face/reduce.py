"""A lean parser from a full one, without training: every convolution by the two halves that come nearest to it.

Nearest on real pictures, not in its weights: the half that goes down keeps of its inputs what the outputs depend on,
as far as it varies, and the half across is fitted by least squares to the outputs of the full convolution. Each is
fitted to what the layers before it, already reduced, make of the pictures (Jaderberg et al., "Speeding up
Convolutional Neural Networks with Low Rank Expansions", BMVC 2014; Zhang et al., "Accelerating Very Deep
Convolutional Networks", TPAMI 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.face_parser import FaceParser

_SLIGHT = 1e-4
"""Part of the inputs' mean power that is added to each, lest a direction that hardly occurs is amplified."""


@torch.no_grad()
def reduce_parser(full: FaceParser, lean: FaceParser, batches: Sequence[Tensor]) -> None:
    """Give `lean`, of the widths of `full`, weights with which it says about the same.

    `batches`: pictures uint8 [n, 3, h, w] as those to come, some dozens in all. Both are left in evaluation mode.
    """
    full.eval()
    lean.eval()
    crossed = [name for name, module in lean.named_modules() if _is_crossed(module)]  # as they follow each other
    others = tuple(f"{name}." for name in crossed)
    kept = {name: value for name, value in full.state_dict().items() if not name.startswith(others)}
    lean.load_state_dict(kept, strict=False)
    for name in crossed:
        mine, its = (cast(nn.Sequential, net.get_submodule(name)) for net in (lean, full))
        pairs = [(_into(lean, mine, pictures), _out_of(full, its[1], pictures)) for pictures in batches]
        _fit(mine, cast(nn.Conv2d, its[0]), pairs)


def _is_crossed(module: nn.Module) -> bool:
    if not isinstance(module, nn.Sequential) or not isinstance(module[0], nn.Conv2d):
        return False
    return module[0].kernel_size == (3, 1)


def _into(net: nn.Module, part: nn.Module, pictures: Tensor) -> Tensor:
    """What a part of a network is given."""
    seen: list[Tensor] = []
    hook = part.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net(pictures.float())
    hook.remove()
    return seen[0]


def _out_of(net: nn.Module, part: nn.Module, pictures: Tensor) -> Tensor:
    """What a part of a network makes of what it is given, a copy."""
    seen: list[Tensor] = []
    hook = part.register_forward_hook(lambda _module, _inputs, output: seen.append(output.clone()))
    net(pictures.float())
    hook.remove()
    return seen[0]


def _fit(crossed: nn.Sequential, whole: nn.Conv2d, pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Weights of both halves, and a normalisation that knows what comes out of them.

    `whole`: the convolution that they stand for; `pairs`: inputs of these, normalised outputs of that.
    """
    down, across, norm = crossed[0], crossed[1], crossed[2]
    assert isinstance(down, nn.Conv2d)
    assert isinstance(across, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    power = torch.zeros(()).double()
    for inputs, _ in pairs:
        columns = _unfolded(inputs, down)
        power = power + columns @ columns.T
    down.weight.copy_(_down(whole.weight, power, down.out_channels))
    moments, product = torch.zeros(()).double(), torch.zeros(()).double()
    for inputs, outputs in pairs:
        halfway = _unfolded(down(inputs), across)
        halfway = torch.cat([halfway, torch.ones_like(halfway[:1])])  # the one is for the bias
        moments = moments + halfway @ halfway.T
        product = product + halfway @ outputs.movedim(1, 0).flatten(1).double().T
    solved = torch.linalg.solve(moments, product)
    weight, bias = solved[:-1], solved[-1]
    across.weight.copy_(weight.T.reshape(across.weight.shape))
    moments = moments / moments[-1, -1]
    mean = weight.T @ moments[:-1, -1]
    variance = ((weight.T @ moments[:-1, :-1]) * weight.T).sum(1) - mean.square()
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance.clamp(min=1e-8))
    norm.weight.copy_((norm.running_var + norm.eps).sqrt())
    norm.bias.copy_(bias + mean)


def _down(weight: Tensor, power: Tensor, rank: int) -> Tensor:
    """Of a convolution [out, in, 3, 3] the half that goes down, [rank, in, 3, 1].

    `power`: the second moments of the inputs' columns of three, [in * 3, in * 3].
    """
    outputs, inputs, rows, columns = weight.shape
    power = power + _SLIGHT * power.diagonal().mean() * torch.eye(len(power))
    strengths, directions = torch.linalg.eigh(power)
    root, back = ((directions * strengths**sign) @ directions.T for sign in (0.5, -0.5))
    table = weight.double().permute(1, 2, 0, 3).reshape(inputs * rows, outputs * columns)
    left, scale, _ = torch.linalg.svd(root @ table, full_matrices=False)
    down: Tensor = (back @ left[:, :rank] * scale[:rank].sqrt()).T
    return down.reshape(rank, inputs, rows, 1)


def _unfolded(inputs: Tensor, layer: nn.Conv2d) -> Tensor:
    """What a convolution multiplies its weights with: float64 [in * kernel, places]."""
    size, pads, stride = (cast(tuple[int, int], value) for value in (layer.kernel_size, layer.padding, layer.stride))
    return F.unfold(inputs, size, padding=pads, stride=stride).movedim(1, 0).flatten(1).double()
