"""Whether a restorer's inner layers are alive: units that no longer vary mend nothing and learn nothing."""

from __future__ import annotations

from typing import Any, cast

import torch
from rich.console import Console
from torch import Tensor, nn

from models.networks.quantised import QuantConv
from models.training.restoration.networks import Residual
from shared.errors import SemcallError

_VARIES = {True: 1e-3, False: 1e-5}
"""Least standard deviation of a live unit, in layers with 8-bit features and in others, whose scale is their own."""
_ACTIVATED = ("entry", "down", "first", "up")
"""Layers of PaperGenerator that a LeakyReLU follows."""


def check_units(net: nn.Module, batch: tuple[Tensor, ...], console: Console) -> None:
    """Say how many channels still vary; raises SemcallError where a layer has none left or is not finite.

    Layers that see luma, that is: chroma and quantisers may well be the same all over a batch. `net`: a Residual;
    `batch`: the fields of Crops, on its device.
    """
    live: dict[str, float] = {}
    hooks = []
    for name, module in net.named_modules():
        if _inside(name, module):

            def hook(module: nn.Module, _inputs: Any, output: Tensor, name: str = name) -> None:
                varies = output.float().std((0, 2, 3)) > _VARIES[isinstance(module, QuantConv)]
                live[name] = float(varies.float().mean()) if torch.isfinite(output).all() else float("nan")

            hooks.append(module.register_forward_hook(hook))
    y, uv, _, _, qp, _ = batch
    try:
        with torch.no_grad():
            cast(Residual, net).residual(y, uv, qp)
    finally:
        for handle in hooks:
            handle.remove()
    for name, part in live.items():
        if part != part:
            raise SemcallError(f"Layer {name} gives values that are not finite; lower the rates and start anew.")
    worst = min(live, key=lambda name: live[name])
    console.print(f"live units: {live[worst]:.0%} in {worst}, the worst layer")
    if live[worst] == 0:
        raise SemcallError(f"Every unit of layer {worst} died; lower the rates in the recipe and start anew.")


def _inside(name: str, module: nn.Module) -> bool:
    if isinstance(module, QuantConv):
        return name.removeprefix("deep.").startswith(("entry", "body"))
    return isinstance(module, nn.Conv2d) and name.endswith(_ACTIVATED)
