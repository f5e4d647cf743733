"""`semcall train restorer`: pairs, rounds, export; each part is done once and kept in the run's folder."""

from __future__ import annotations

import copy
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import nn

from models.evaluation.detector import FILE, ReferenceDetector
from models.networks.restorer import LEAST_CHANNELS, SCALE, FastRestorer
from models.registry import check_name
from models.training.fit import Fit, launched
from models.training.manifest import TrainingClip, permissive_clips
from models.training.recipe import read_recipe, started_from
from models.training.restoration.adversary import Adversary
from models.training.restoration.batches import Batches
from models.training.restoration.export import export_restorer
from models.training.restoration.eyes import Eyes, open_eyes
from models.training.restoration.networks import Residual, discriminator, network
from models.training.restoration.objective import PIXEL_KNEE, Objective
from models.training.restoration.pairs import load, prepare
from models.training.restoration.recipe import RestorerRecipe
from models.training.restoration.sheets import Sheet
from models.training.restoration.start import load_restorer
from models.training.restoration.units import check_units
from models.training.restoration.views import LEAST_VIEW
from models.training.stills import Still, by_origin, permissive_portraits
from shared.encode import Encode
from shared.errors import SemcallError
from shared.grid import MACROBLOCK
from shared.outfile import make_folder


def rounds(
    recipe: RestorerRecipe, data: Path, out: Path, encode: Encode, console: Console, fabric: Fabric | None = None
) -> Iterator[Fit]:
    """The rounds of a training that have steps, one after the other, with all that comes before done.

    `fabric`: where it runs, None: wherever `launched` finds. Raises SemcallError for crops of an impossible size and
    for what is missing.
    """
    if recipe.stored % MACROBLOCK or recipe.crop % MACROBLOCK or recipe.crop > recipe.stored:
        raise SemcallError(
            f"crop = {recipe.crop}, stored = {recipe.stored}: both must be multiples of 16, crop the smaller one."
        )
    if recipe.network != "fast" and (recipe.luma_strength, recipe.chroma_strength) != (1, 1):
        raise SemcallError("luma_strength and chroma_strength are of the fast family: leave them out of the recipe.")
    if recipe.deep < 0 or (recipe.deep and recipe.network != "fast"):
        raise SemcallError(f"deep = {recipe.deep}: a number of convolutions, 0 or more, of the fast family alone.")
    if recipe.network == "fast" and recipe.channels < LEAST_CHANNELS:
        raise SemcallError(f"channels = {recipe.channels}: the fast family has {LEAST_CHANNELS} or more.")
    if not recipe.features and not any((recipe.perceptual, recipe.background, recipe.face)):
        raise SemcallError("features = false leaves nothing to look through; set perceptual, background or face.")
    if recipe.relative and not recipe.features:
        raise SemcallError(
            "relative = true is of SqueezeNet's features: leave it out of the recipe, or features = false."
        )
    fabric = fabric or launched(recipe.bf16)
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    net = network(recipe)
    about = _binding(recipe)
    # All that may be missing, here or for the export, is looked for before the pairs, which take minutes.
    check_name(recipe.name)
    permissive_clips(data, "val")
    if recipe.start:
        if not isinstance(net, FastRestorer):
            raise SemcallError(f"start = {recipe.start!r} is of the fast family: leave it out of the recipe.")
        load_restorer(net, Path(recipe.start))
        about["start_sha256"] = hashlib.sha256(Path(recipe.start).read_bytes()).hexdigest()
    eyes = Eyes()
    if recipe.feature_steps or recipe.adversarial_steps or recipe.epochs:
        if recipe.crop < LEAST_VIEW:
            raise SemcallError(f"crop = {recipe.crop}: feature networks look at {LEAST_VIEW} samples or more.")
        eyes = open_eyes(recipe, data / "weights", fabric.device)
    for name, called in eyes.names.items():
        console.print(f"{name.capitalize()} features: {called}.")
    clips = permissive_clips(data, "train")[: recipe.clips or None]
    portraits = permissive_portraits(data) if recipe.portraits else []
    facts = _facts(recipe, clips, portraits) | ({"eyes": eyes.names} if eyes.names else {})
    detector = data / "weights" / FILE
    if portraits:
        ReferenceDetector(detector)
    with fabric.rank_zero_first():  # the others find them there
        files = _prepared(recipe, clips, portraits, detector, out / "pairs", encode, console)
    pairs = load(files, recipe.stored)
    sheet = Sheet(pairs, recipe.seed + _SHEET)
    epoch = max(1, len(pairs.clip) // (recipe.batch * fabric.world_size))
    halve = (recipe.halve_epochs * epoch,) * 2 if recipe.halve_epochs else None
    for number, (name, steps, rate) in enumerate(
        (
            ("pixels", recipe.pixel_steps, recipe.rate),
            ("features", recipe.feature_steps, recipe.feature_rate),
            ("adversarial", recipe.epochs * epoch or recipe.adversarial_steps, recipe.adversarial_rate),
        )
    ):
        if not steps:
            continue
        torch.manual_seed(recipe.seed + number)  # a discriminator is the same wherever the run was interrupted
        objective = _objective(name, recipe, eyes, fabric, halve, net)
        about |= {f"{name}_steps": steps, f"{name}_rate": rate}
        if name != "pixels":
            about |= {"views": True} | ({"eyes": eyes.names} if eyes.names else {})  # earlier checkpoints had none
        batches = Batches(pairs, recipe.seed + number, recipe.batch, recipe.crop, recipe.turned)

        def check(seen: nn.Module, step: int, batches: Batches = batches, objective: Objective = objective) -> None:
            check_units(seen, fabric.to_device(batches.at(step)), console)
            if objective.seen.get("discriminator", 1.0) < _WON:
                console.print("The discriminator wins: lower `adversarial` or its rounds' rate.")

        def show(averaged: nn.Module, step: int, name: str = name) -> None:
            sheet.draw(averaged, out / f"{name}-{step:06}.png")

        fit = Fit(
            name, net, out, dict(about), batches.at, objective, steps=steps, rate=rate, ema=recipe.ema,
            workers=recipe.workers, checkpoint_every=recipe.checkpoint_every, watched=objective, clip=None,
            check=check, show=show, show_every=recipe.pictures_every or epoch, halve=halve,
            momentum=recipe.momentum or None, fabric=fabric, facts=facts,
        )  # fmt: skip
        yield fit
        net = fit.averaged()


def _prepared(
    recipe: RestorerRecipe,
    clips: list[TrainingClip],
    portraits: list[Still],
    detector: Path,
    folder: Path,
    encode: Encode,
    console: Console,
) -> list[Path]:
    """The files of pairs, of clips and then of portraits."""
    workers = os.cpu_count() or 1
    files = prepare(
        clips, folder, encode, recipe.codings, recipe.seconds, workers, recipe.stored, console, recipe.pictures,
        recipe.cuts, looks=recipe.looks,
    )  # fmt: skip
    if portraits:
        files += prepare(
            portraits, folder / "portraits", encode, recipe.portraits, _PORTRAIT_SECONDS, workers, recipe.stored,
            console, _PORTRAIT_PICTURES, detector=detector,
        )  # fmt: skip
    return files


def _objective(
    name: str, recipe: RestorerRecipe, eyes: Eyes, fabric: Fabric, halve: tuple[int, int] | None, net: nn.Module
) -> Objective:
    """What a round asks of the network, which begins as `net`."""
    if name == "pixels":
        return Objective(None, 1.0, _PIXEL_STEADY, knee=PIXEL_KNEE)
    adversary = None
    if name == "adversarial" and recipe.adversarial:
        judge = discriminator(recipe)
        if recipe.momentum:  # the paper's: the generator's own optimiser
            rival = Adversary(recipe.adversarial_rate, judge, recipe.momentum, 0.999, halve=halve, fabric=fabric)
        else:
            rival = Adversary(net=judge, halve=halve, fabric=fabric)
        adversary = recipe.adversarial, rival
    period = 2 * SCALE if recipe.deep else SCALE
    return Objective(
        eyes.sharp, recipe.pixel, recipe.steady, eyes.parts, adversary, recipe.mesh, period, relative=recipe.relative,
        teacher=(recipe.teacher, _frozen(net, fabric)) if recipe.teacher else None,
    )  # fmt: skip


def _frozen(net: nn.Module, fabric: Fabric) -> Residual:
    return cast(Residual, fabric.to_device(copy.deepcopy(net).requires_grad_(False)))


def _facts(recipe: RestorerRecipe, clips: list[TrainingClip], portraits: list[Still]) -> dict[str, Any]:
    """What a card says of the data, and what exporting a checkpoint needs to know."""
    source = "talking-head clips under MIT, Apache-2.0 or CC-BY"
    data: dict[str, Any] = {"clips": {clip.name: f"{clip.licence}, {clip.origin}" for clip in clips}}
    if portraits:
        source += f", and portraits under MIT or Apache-2.0, moved, {_PORTRAIT_SECONDS} s of each"
        data["portraits"] = by_origin(portraits)
    return {
        "training_data": {"source": f"{source}; never a validation identity", **data},
        **started_from(recipe.start),
        "licence": "MIT",
        "strengths": [recipe.luma_strength, recipe.chroma_strength],
    }


_BINDING = ("name", "seed", "channels", "pixel", "steady", "background", "face", "batch", "crop", "ema", "clips",
            "codings", "seconds")  # fmt: skip
"""What a run may not change and go on."""
_OF_NETWORK = {"fast": ("depth", "chroma", "quantisers"), "paper": ("blocks",)}
_LATER = ("stored", "halve_epochs", "momentum", "adversarial", "mesh", "deep", "start", "pictures", "portraits",
          "cuts", "looks", "relative", "teacher", "turned", "features", "perceptual", "vgg19", "vggface")  # fmt: skip
"""The same, of entries that earlier checkpoints lack: they bind where they are not what they were then."""
_PORTRAIT_SECONDS, _PORTRAIT_PICTURES = 2.5, 7
_SHEET = 1000  # other crops than those of any round's first steps
_PIXEL_STEADY = 0.2  # `steady` of the round of pixels: what flickers comes with the features
_WON = 0.3  # of a discriminator's loss, ln 2 where it cannot tell


def _binding(recipe: RestorerRecipe) -> dict[str, Any]:
    """What a checkpoint says of its recipe; `kind` tells the exporters apart."""
    usual = RestorerRecipe()
    names = (
        *_BINDING,
        *_OF_NETWORK[recipe.network],
        *(name for name in _LATER if getattr(recipe, name) != getattr(usual, name)),
    )
    return {"kind": recipe.network} | {name: getattr(recipe, name) for name in names}


def train_restorer(config: Path, data: Path, out: Path, encode: Encode, minutes: float | None = None) -> Path | None:
    """Train what `config` describes on the permissive clips of `data`; returns the .onnx file in `out`.

    `encode`: the sender's encoder. `minutes`: stop cleanly after so many of training (what comes before is not
    counted); the same command then goes on from the checkpoint, and nothing is exported yet (None). Under torchrun
    every process calls this alike, with an `out` that all of them see; the first one exports; a run goes
    on in as many processes as it began with. Raises SemcallError for missing or unreadable data, recipes and
    checkpoints.
    """
    recipe = read_recipe(config, RestorerRecipe)
    make_folder(out)
    fabric = launched(recipe.bf16)
    console = Console(quiet=not fabric.is_global_zero)
    end: float | None = None
    last = None
    for last in rounds(recipe, data, out, encode, console, fabric):
        if end is None and minutes is not None:  # the pairs are ready
            end = time.monotonic() + 60 * minutes
        if not last.run(console, end and max(0.0, (end - time.monotonic()) / 60)):
            console.print(f"Stopped at step {last.step} of the {last.name}; the same command goes on.")
            return None
    if last is None:
        raise SemcallError(f"The training recipe {config} has no steps: set pixel_steps.")
    command = f"semcall train restorer {config} --data {data} --out {out}"
    path = out / f"{recipe.name}.onnx"
    if fabric.is_global_zero:
        path = export_restorer(last, recipe, data, out, encode, command)
    fabric.barrier()
    return path
