"""From a finished training to the ONNX file that is shipped, judged, with its card."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from models.networks.planes_contract import PlanesContract
from models.networks.restorer import SCALE, FastRestorer
from models.training.export import write
from models.training.export_rgb import write_rgb
from models.training.fit import Fit
from models.training.manifest import permissive_clips
from models.training.restoration.judge import as_json, definition, judge
from models.training.restoration.recipe import RestorerRecipe
from shared.encode import Encode


def export_restorer(fit: Fit, recipe: RestorerRecipe, data: Path, folder: Path, encode: Encode, command: str) -> Path:
    """Write the averaged network of a fit and its card to `folder`, judged on the permissive validation clips.

    `command`: what made it, for the card. Returns the .onnx file. Raises SemcallError when a clip cannot be read.
    """
    net = fit.averaged()
    if isinstance(net, FastRestorer):  # no other is let in with strengths
        strengthen(net, recipe.luma_strength, recipe.chroma_strength)
    with TemporaryDirectory() as trial:  # nothing that has no figures yet is to be taken for the result
        path = _write(net, recipe.name, Path(trial), {})
        results = judge(path, permissive_clips(data, "val"), data, folder / "judged", encode)
    card = {
        **fit.facts,
        "training": {
            "recipe": asdict(recipe),
            "last_round": {"name": fit.name, "steps": fit.step, "minutes": round(fit.seconds / 60, 1)},
        },
        "command": command,
        "metrics": {"definition": definition(data), "results": as_json(results)},
    }
    return _write(net, recipe.name, folder, card)


def strengthen(net: FastRestorer, luma: float, chroma: float) -> None:
    """Scale what it adds to its planes, in place."""
    by = torch.full((net.exit.out_channels,), chroma)
    by[: SCALE * SCALE] = luma
    with torch.no_grad():
        net.exit.weight.mul_(by[:, None, None, None])
        net.exit.bias_or_zero().mul_(by)


def _write(net: nn.Module, name: str, folder: Path, facts: dict[str, Any]) -> Path:
    """By the network's own exporter: one writes an 8-bit graph itself, the other traces any RGB network."""
    if isinstance(net, PlanesContract):
        return write_rgb(net.net, name, folder, facts).path
    assert isinstance(net, FastRestorer)
    return write(net, name, folder, facts)
