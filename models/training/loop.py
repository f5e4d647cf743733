"""The training loop: pixels first, then features; seeded, resumable, watched for dead units."""

from __future__ import annotations

import math
import random
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.features import SQUEEZENET, FeatureNet, SqueezeNet, rgb
from models.networks.quantised import QuantConv
from models.networks.restorer import SmallRestorer
from models.training.batches import Batches
from models.training.pairs import Pairs, load, prepare
from models.training.recipe import Recipe, read_recipe
from shared.errors import SemcallError

CHECKPOINT = "checkpoint.pt"
KNEE = {"pixels": 3.0, "features": 0.5}
"""Code values below which the pixel loss is quadratic, per phase.

Plain L1 has its optimum at no change at all for most samples of a well coded picture, so a fresh network learns to do
nothing; later it is right, because it keeps flat areas still.
"""
PIXEL_SHARE = 0.5
"""Of the time, where time is given."""


def network(recipe: Recipe) -> SmallRestorer:
    """The network of a recipe, freshly initialised from the current random state."""
    return SmallRestorer(recipe.channels, recipe.depth)


def train(config: Path, data: Path, out: Path, minutes: float | None = None) -> Path:
    """Train what `config` describes on the permissive clips of `data`; returns the checkpoint in `out`.

    Pairs are made first, in `out`/pairs. An interrupted run goes on from its last checkpoint and ends with the same
    network. `minutes` shortens both phases, learning-rate decay included, to fit that much training time. Raises
    SemcallError without data, and when the training diverges.
    """
    recipe = read_recipe(config, Recipe)
    torch.set_num_threads(recipe.threads)
    pairs = load(prepare(data, out / "pairs", limit=recipe.clips or None))
    weights = data / "weights" / SQUEEZENET
    eye = SqueezeNet(weights) if weights.exists() else None
    console = Console()
    if eye is None:
        console.print(f"No {SQUEEZENET} in {weights.parent}: training on L1 alone, expect less sharpness.")
    training = Training(recipe, pairs, eye, out)
    training.run(minutes, console)
    return training.checkpoint


def load_network(checkpoint: Path) -> tuple[SmallRestorer, Recipe, dict[str, Any]]:
    """The averaged network of a checkpoint, its recipe and what else it says (step, seconds, clips)."""
    try:
        state = torch.load(checkpoint, weights_only=True)
        recipe = Recipe(**state["recipe"])
        net = network(recipe)
        net.load_state_dict(state["ema"])
    except Exception as error:  # torch raises many kinds
        raise SemcallError(f"The checkpoint {checkpoint} cannot be read: {error}.") from error
    return net.eval(), recipe, {key: state[key] for key in ("step", "seconds", "clips")}


class Training:
    """The state of one run: network, its average, optimiser, step and seconds spent."""

    def __init__(self, recipe: Recipe, pairs: Pairs, eye: FeatureNet | None, out: Path) -> None:
        random.seed(recipe.seed)
        torch.manual_seed(recipe.seed)
        self.recipe, self.eye = recipe, eye
        self.batches = Batches(pairs, recipe)
        self.clips = sorted(set(pairs.clip))
        self.checkpoint = out / CHECKPOINT
        self.net = network(recipe)
        for parameter in self.net.parameters():
            if parameter.dim() == 4:  # three times as fast on a CPU
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self.ema = {name: value.clone() for name, value in self.net.state_dict().items()}
        self.optimiser = torch.optim.Adam(self.net.parameters(), recipe.rate, betas=(0.9, 0.99))
        self.step, self.seconds = 0, 0.0
        self.turn: tuple[int, float] | None = None
        """Step and seconds at which the feature phase began."""
        self.smooth: dict[str, float] = {}
        if self.checkpoint.exists():
            self._resume()

    def run(self, minutes: float | None, console: Console) -> None:
        """Train through both phases, or as much of them as fits `minutes` of training time."""
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("training", total=1.0)
            while (done := self._progress(minutes)) < 1:
                started = time.perf_counter()
                for group in self.optimiser.param_groups:
                    group["lr"] = self._rate(done)
                self._one_step()
                self.step += 1
                self.seconds += time.perf_counter() - started
                if self.step % 20 == 0:
                    progress.update(task, completed=self._shown(done), description=self._describe())
                if self.step % self.recipe.checkpoint_every == 0:
                    self._check_units(console)
                    console.print(self._describe())
                    self.save()
            progress.update(task, completed=1.0)
        self.save()

    def save(self) -> None:
        """Write the checkpoint, never half of one."""
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        partial = self.checkpoint.with_suffix(".partial")
        state = {
            "recipe": asdict(self.recipe),
            "net": self.net.state_dict(),
            "ema": self.ema,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "turn": self.turn,
            "smooth": self.smooth,
            "clips": self.clips,
        }
        torch.save(state, partial)
        partial.rename(self.checkpoint)

    def _one_step(self) -> None:
        y, uv, true_y, true_uv, qp = self.batches.at(self.step)
        restored = y + self.net.residual(y, qp)
        leaf = restored.detach().requires_grad_(True)
        knee = KNEE["features" if self.turn else "pixels"]
        pixel_loss = (_calm(true_y) * ((leaf - true_y).pow(2) + knee**2).sqrt()).mean()
        (pull,) = torch.autograd.grad(pixel_loss, leaf)
        if self.eye is not None and self.turn:
            image, truth = rgb(leaf, uv), rgb(true_y, true_uv)
            # The feature net strides: an offset that changes keeps its grid from printing through.
            top, left = self.step % 2, self.step // 2 % 2
            with torch.no_grad():
                target = self.eye(truth[..., top:, left:])
            feature_loss = self.eye.distance(self.eye(image[..., top:, left:]), target)
            (sharp,) = torch.autograd.grad(feature_loss, leaf)
            # The pixel loss is given a fixed part of the feature gradient's strength, whatever units either has.
            tie = self._track("tie", float(sharp.norm() / pull.norm().clamp_min(1e-12)))
            pull = sharp + self.recipe.pixel * tie * pull
            self._track("features", float(feature_loss.detach()))
            if self.step % 25 == 0:
                with torch.no_grad():
                    before = self.eye.distance(self.eye(rgb(y, uv)[..., top:, left:]), target)
                self._track("features kept", float(feature_loss.detach() / before))
        self.optimiser.zero_grad()
        restored.backward(pull)  # type: ignore[no-untyped-call]
        limit = 3 * self.smooth.get("gradient", 1e9)
        norm = float(torch.nn.utils.clip_grad_norm_(self.net.parameters(), limit))
        if not np.isfinite(norm):
            raise SemcallError(
                f"The training diverged at step {self.step}; lower `rate` in the recipe and start anew."
            )
        self._track("gradient", min(norm, limit))
        self.optimiser.step()
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.net.state_dict().items():
                self.ema[name].lerp_(value, 1 - decay)
        self._track("l1", float((leaf.detach() - true_y).abs().mean()))
        self._track("l1 before", float((y - true_y).abs().mean()))

    def _track(self, name: str, value: float) -> float:
        """A running mean of what the progress line shows."""
        self.smooth[name] = 0.98 * self.smooth.get(name, value) + 0.02 * value
        return self.smooth[name]

    def _progress(self, minutes: float | None) -> float:
        """How much of the present phase is done, 0..1; turns to the feature phase, if there is one."""
        limit = 60 * minutes if minutes else math.inf
        if self.turn is None:
            done = max(self.step / self.recipe.pixel_steps, self.seconds / (limit * PIXEL_SHARE))
            if done < 1 or self.eye is None or not self.recipe.feature_steps:
                return done
            self.turn = self.step, self.seconds
        step, seconds = self.turn
        return max((self.step - step) / self.recipe.feature_steps, (self.seconds - seconds) / (limit - seconds))

    def _rate(self, done: float) -> float:
        """The learning rate: a cosine from full to a twentieth, in the feature phase from half."""
        start = self.recipe.rate * (0.5 if self.turn else min(1.0, (self.step + 1) / 100))
        return start * (0.05 + 0.95 * (1 + math.cos(math.pi * done)) / 2)

    def _shown(self, done: float) -> float:
        """Progress over both phases, for the bar."""
        if self.eye is None or not self.recipe.feature_steps:
            return done
        return PIXEL_SHARE * done if self.turn is None else PIXEL_SHARE + (1 - PIXEL_SHARE) * done

    def _describe(self) -> str:
        names = [name for name in ("features", "features kept", "l1", "l1 before") if name in self.smooth]
        shown = ", ".join(f"{name} {self.smooth[name]:.4g}" for name in names)
        return f"step {self.step}: {shown}"

    def _check_units(self, console: Console) -> None:
        """Say how many channels still vary; a layer without any is a failed training."""
        live: dict[str, float] = {}
        hooks = []

        def watch(name: str) -> Any:
            def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
                live[name] = float((output.std((0, 2, 3)) > 1e-3).float().mean())

            return hook

        for name, module in self.net.named_modules():
            if isinstance(module, QuantConv):
                hooks.append(module.register_forward_hook(watch(name)))
        y, _, _, _, qp = self.batches.at(self.step)
        with torch.no_grad():
            self.net.residual(y, qp)
        for hook in hooks:
            hook.remove()
        worst = min(live, key=lambda name: live[name])
        console.print(f"live units: {live[worst]:.0%} in {worst}, the worst layer")
        if live[worst] == 0:
            raise SemcallError(f"Every unit of layer {worst} died by step {self.step}; lower `rate` in the recipe.")

    def _resume(self) -> None:
        try:
            state = torch.load(self.checkpoint, weights_only=True)
            same = state["recipe"] == asdict(self.recipe)
            if same:
                self.net.load_state_dict(state["net"])
                self.optimiser.load_state_dict(state["optimiser"])
        except Exception as error:  # torch raises many kinds
            raise SemcallError(f"The checkpoint {self.checkpoint} cannot be read: {error}.") from error
        if not same:
            raise SemcallError(f"{self.checkpoint} belongs to another recipe; use another output directory.")
        self.ema, self.step = state["ema"], state["step"]
        self.seconds, self.turn, self.smooth = state["seconds"], state["turn"], state["smooth"]


def _calm(y: Tensor) -> Tensor:
    """Weights of the pixel loss: five where luma spans at most six code values over 5x5 samples, else one.

    There is nothing to restore in a bare wall, and what a network does there flickers.
    """
    span = F.max_pool2d(y, 5, 1, 2) + F.max_pool2d(-y, 5, 1, 2)
    return torch.where(span <= 6, 5.0, 1.0)
