"""`semcall train restorer`: pairs, rounds, export; each part is done once and kept in the run's folder."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from models.networks.backbones import choose
from models.networks.features import SQUEEZENET, SqueezeNet
from models.networks.quantised import QuantConv
from models.networks.restorer import FastRestorer
from models.training.fit import Fit
from models.training.losses import background_loss, face_loss
from models.training.manifest import permissive_clips
from models.training.recipe import read_recipe
from models.training.restoration.adversary import Adversary
from models.training.restoration.batches import Batches
from models.training.restoration.export import export_restorer
from models.training.restoration.objective import Objective, Part
from models.training.restoration.pairs import EncodeClip, load, prepare
from models.training.restoration.recipe import RestorerRecipe
from shared.errors import SemcallError


def network(recipe: RestorerRecipe) -> FastRestorer:
    """The network of a recipe, freshly initialised from the current random state."""
    return FastRestorer(recipe.channels, recipe.depth, recipe.chroma, recipe.quantisers)


def rounds(recipe: RestorerRecipe, data: Path, out: Path, encode: EncodeClip, console: Console) -> Iterator[Fit]:
    """The rounds of a training that have steps, one after the other, with all that comes before done."""
    torch.set_num_threads(recipe.threads)
    clips = permissive_clips(data, "train")[: recipe.clips or None]
    files = prepare(clips, out / "pairs", encode, recipe.codings, recipe.seconds, os.cpu_count() or 1)
    pairs = load(files)
    torch.manual_seed(recipe.seed)
    net: nn.Module = network(recipe)
    about: dict[str, Any] = {"kind": "fast"} | {name: getattr(recipe, name) for name in _BINDING}
    for number, (name, steps, rate) in enumerate(
        (
            ("pixels", recipe.pixel_steps, recipe.rate),
            ("features", recipe.feature_steps, recipe.feature_rate),
            ("adversarial", recipe.adversarial_steps, recipe.adversarial_rate),
        )
    ):
        if not steps:
            continue
        objective = _objective(name, recipe, data, console)
        about |= {f"{name}_steps": steps, f"{name}_rate": rate}
        batches = Batches(pairs, recipe.seed + number, recipe.batch, recipe.crop)

        def check(seen: nn.Module, step: int, batches: Batches = batches, objective: Objective = objective) -> None:
            check_units(seen, batches.at(step), console)
            if objective.seen.get("discriminator", 1.0) < _WON:
                console.print("The discriminator wins: lower `adversarial` or its rounds' rate.")

        fit = Fit(
            name, net, out, dict(about), batches.at, objective, steps=steps, rate=rate, ema=recipe.ema,
            workers=recipe.workers, checkpoint_every=recipe.checkpoint_every, watched=objective, clip=None,
            check=check,
        )  # fmt: skip
        yield fit
        net = fit.averaged()


def _objective(name: str, recipe: RestorerRecipe, data: Path, console: Console) -> Objective:
    """What a round asks of the network. Raises SemcallError for feature networks that are not there."""
    if name == "pixels":
        return Objective(None, 1.0, recipe.steady)
    weights = data / "weights"
    parts: dict[str, tuple[float, Part]] = {}
    if recipe.background:
        scenery, called = choose("vgg19", weights)
        console.print(f"Background features: {called}.")
        parts["background"] = recipe.background, lambda s: background_loss(scenery, s.restored, s.original, s.face)
    if recipe.face:
        recogniser, called = choose("vggface", weights)
        console.print(f"Face features: {called}.")
        parts["face"] = recipe.face, lambda s: face_loss(recogniser, s.restored, s.original, s.face)
    adversary = (recipe.adversarial, Adversary()) if name == "adversarial" else None
    return Objective(SqueezeNet(weights / SQUEEZENET), recipe.pixel, recipe.steady, parts, adversary)


_BINDING = ("name", "seed", "channels", "depth", "chroma", "quantisers", "pixel", "steady", "background", "face",
            "batch", "crop", "ema", "clips", "codings", "seconds")  # fmt: skip
"""What a run may not change and go on."""
_WON = 0.1  # of a discriminator's loss, ln 2 where it cannot tell


def check_units(net: nn.Module, batch: tuple[Tensor, ...], console: Console) -> None:
    """Say how many channels still vary; raises SemcallError where a layer has none left.

    Layers that see luma, that is: chroma and quantisers may well be the same all over a batch.
    """
    live: dict[str, float] = {}
    hooks = []
    for name, module in net.named_modules():
        if isinstance(module, QuantConv) and name.startswith(("entry", "body")):

            def hook(_module: nn.Module, _inputs: Any, output: Tensor, name: str = name) -> None:
                live[name] = float((output.std((0, 2, 3)) > 1e-3).float().mean())

            hooks.append(module.register_forward_hook(hook))
    y, uv, _, _, qp, _ = batch
    assert isinstance(net, FastRestorer)
    with torch.no_grad():
        net.residual(y, uv, qp)
    for handle in hooks:
        handle.remove()
    worst = min(live, key=lambda name: live[name])
    console.print(f"live units: {live[worst]:.0%} in {worst}, the worst layer")
    if live[worst] == 0:
        raise SemcallError(f"Every unit of layer {worst} died; lower the rates in the recipe and start anew.")


def train_restorer(
    config: Path, data: Path, out: Path, encode: EncodeClip, minutes: float | None = None
) -> Path | None:
    """Train what `config` describes on the permissive clips of `data`; returns the .onnx file in `out`.

    `encode`: the sender's encoder. `minutes`: stop cleanly after so many of training (what comes before is not
    counted); the same command then goes on from the checkpoint, and nothing is exported yet (None). Raises
    SemcallError for missing or unreadable data, recipes and checkpoints.
    """
    recipe = read_recipe(config, RestorerRecipe)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SemcallError(f"Cannot write to {out} ({error.strerror or error}); choose another --out.") from error
    console = Console()
    end = None if minutes is None else time.monotonic() + 60 * minutes
    last = None
    for last in rounds(recipe, data, out, encode, console):
        if not last.run(console, end and max(0.0, (end - time.monotonic()) / 60)):
            console.print(f"Stopped at step {last.step} of the {last.name}; the same command goes on.")
            return None
    if last is None:
        raise SemcallError(f"The training recipe {config} has no steps: set pixel_steps.")
    return export_restorer(
        last, recipe, data, out, encode, f"semcall train restorer {config} --data {data} --out {out}"
    )
