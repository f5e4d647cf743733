"""Trains the small restorer: features first, tied to L1; seeded, resumable, with a contact sheet at the end."""

from __future__ import annotations

import random
import time
import tomllib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from models.networks.features import SQUEEZENET, FeatureNet, SqueezeNet, rgb
from models.networks.quantised import QuantConv
from models.networks.restorer import SmallRestorer
from models.training.pairs import CROP, Pairs, load, prepare
from shared.errors import SemcallError

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What `configs/*.toml` says. Sizes of the network as in SmallRestorer; `rate`: Adam's learning rate.

    `pixel`: L1's gradient norm relative to the feature loss's; `ema`: decay of the averaged weights that are kept;
    `threads`: of PyTorch; `clips`: use only so many clips (0: all).
    """

    name: str = "small"
    seed: int = 1
    fine: int = 16
    coarse: int = 48
    depth: int = 3
    last: int = 2
    steps: int = 6000
    batch: int = 8
    crop: int = 112
    rate: float = 1.5e-3
    pixel: float = 0.5
    ema: float = 0.998
    threads: int = 1
    clips: int = 0
    checkpoint_every: int = 500


def read_recipe(config: Path) -> Recipe:
    """A recipe from a TOML file. Raises SemcallError on what cannot be read or is unknown."""
    try:
        values: dict[str, Any] = tomllib.loads(config.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SemcallError(f"The training recipe {config} cannot be read: {error}.") from error
    unknown = set(values) - {field.name for field in fields(Recipe)}
    if unknown:
        raise SemcallError(f"The training recipe {config} has unknown entries: {', '.join(sorted(unknown))}.")
    return Recipe(**values)


def network(recipe: Recipe) -> SmallRestorer:
    """The network of a recipe, freshly initialised from the current random state."""
    return SmallRestorer(recipe.fine, recipe.coarse, recipe.depth, recipe.last)


def train_restorer(
    config: Path, data: Path, out: Path, minutes: float | None = None, steps: int | None = None
) -> Path:
    """Train what `config` describes on the permissive clips of `data`; returns the checkpoint in `out`.

    Pairs are made first, in `out`/pairs. An interrupted run goes on from its last checkpoint. `minutes` ends the run,
    learning-rate decay included, after that much training time, `steps` after that many steps, whichever is first
    (default: the recipe's steps). Raises SemcallError without data, and when the training diverges.
    """
    recipe = read_recipe(config)
    torch.set_num_threads(recipe.threads)
    pairs = load(prepare(data, out / "pairs", recipe.seed, recipe.clips or None))
    weights = data / "weights" / SQUEEZENET
    eye = SqueezeNet(weights) if weights.exists() else None
    console = Console()
    if eye is None:
        console.print(f"No {SQUEEZENET} in {weights.parent}: training on L1 alone, expect less sharpness.")
    training = Training(recipe, pairs, eye, out)
    training.run(minutes, steps or recipe.steps, console)
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
        self.recipe, self.pairs, self.eye = recipe, pairs, eye
        self.checkpoint = out / CHECKPOINT
        self.net = network(recipe).to(memory_format=torch.channels_last)
        self.ema = {name: value.clone() for name, value in self.net.state_dict().items()}
        self.optimiser = torch.optim.Adam(self.net.parameters(), recipe.rate, betas=(0.9, 0.99))
        self.step, self.seconds = 0, 0.0
        self.smooth: dict[str, float] = {}
        if self.checkpoint.exists():
            self._resume()

    def run(self, minutes: float | None, steps: int, console: Console) -> None:
        """Train until `steps` or `minutes` of training time are reached."""
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("training", total=1.0)
            while (done := self._progress(minutes, steps)) < 1:
                started = time.perf_counter()
                for group in self.optimiser.param_groups:
                    group["lr"] = self.recipe.rate * min(1.0, (self.step + 1) / 100) * (1 - 0.95 * done**1.5)
                self._one_step()
                self.step += 1
                self.seconds += time.perf_counter() - started
                if self.step % 20 == 0:
                    progress.update(task, completed=done, description=self._describe())
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
            "smooth": self.smooth,
            "clips": sorted(set(self.pairs.clip)),
        }
        torch.save(state, partial)
        partial.rename(self.checkpoint)

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The crops of a step: y, uv, original y, original uv, qp as float32; the same for the same step."""
        chance = np.random.default_rng([self.recipe.seed, step])
        picked = self._picked(chance)
        size = self.recipe.crop
        top, left = (int(chance.integers((CROP - size) // 16 + 1)) * 16 for _ in range(2))
        mirrored = chance.random() < 0.5
        y, uv = _crop(self.pairs.coded[picked], top, left, size, mirrored)
        true_y, true_uv = _crop(self.pairs.original[picked], top, left, size, mirrored)
        block = self.pairs.qp[picked][:, None, top // 16 : (top + size) // 16, left // 16 : (left + size) // 16]
        qp = torch.from_numpy(np.ascontiguousarray(block[..., ::-1] if mirrored else block)).float()
        return y, uv, true_y, true_uv, qp

    def _picked(self, chance: np.random.Generator) -> NDArray[np.intp]:
        """Half of a batch evenly over clips, half evenly over crops: long clips must not drown the others."""
        half = self.recipe.batch // 2
        names = np.array(self.pairs.clip)
        clips = chance.choice(np.unique(names), self.recipe.batch - half)
        even = [int(chance.choice(np.flatnonzero(names == clip))) for clip in clips]
        return np.concatenate([np.array(even, np.intp), chance.integers(len(names), size=half)])

    def _one_step(self) -> None:
        y, uv, true_y, true_uv, qp = self.batch(self.step)
        restored = y + self.net.residual(y, qp)
        leaf = restored.detach().requires_grad_(True)
        pixel_loss = (leaf - true_y).abs().mean()
        (pull,) = torch.autograd.grad(pixel_loss, leaf)
        if self.eye is not None:
            image, truth = rgb(leaf, uv), rgb(true_y, true_uv)
            # The feature net strides: an offset that changes keeps its grid from printing through.
            top, left = self.step % 2, self.step // 2 % 2
            with torch.no_grad():
                target = self.eye(truth[..., top:, left:])
            feature_loss = self.eye.distance(self.eye(image[..., top:, left:]), target)
            (sharp,) = torch.autograd.grad(feature_loss, leaf)
            # L1 is given a fixed part of the feature gradient's strength, whatever units either has.
            tie = self._track("tie", float(sharp.norm() / pull.norm().clamp_min(1e-12)))
            pull = sharp + self.recipe.pixel * tie * pull
            self._track("features", float(feature_loss.detach()))
        self.optimiser.zero_grad()
        restored.backward(pull)  # type: ignore[no-untyped-call]
        limit = 3 * self.smooth.get("gradient", 1e9)
        norm = float(torch.nn.utils.clip_grad_norm_(self.net.parameters(), limit))
        if not np.isfinite(norm):
            raise SemcallError(
                f"The training diverged at step {self.step}; lower `rate` in the recipe and start again from an empty directory."
            )
        self._track("gradient", min(norm, limit))
        self.optimiser.step()
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.net.state_dict().items():
                self.ema[name].lerp_(value, 1 - decay)
        self._track("l1", float(pixel_loss.detach()))
        self._track("l1 before", float((y - true_y).abs().mean()))

    def _track(self, name: str, value: float) -> float:
        """A running mean of what the progress line shows."""
        self.smooth[name] = 0.98 * self.smooth.get(name, value) + 0.02 * value
        return self.smooth[name]

    def _progress(self, minutes: float | None, steps: int) -> float:
        return max(self.step / steps, self.seconds / (60 * minutes) if minutes else 0.0)

    def _describe(self) -> str:
        shown = ", ".join(
            f"{name} {self.smooth[name]:.4g}" for name in ("features", "l1", "l1 before") if name in self.smooth
        )
        return f"step {self.step}: {shown}"

    def _check_units(self, console: Console) -> None:
        """Say how many channels still vary; a layer without any is a failed training."""
        live: dict[str, float] = {}
        hooks = []

        def watch(name: str) -> Any:
            def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
                live[name] = float((output.std((0, 2, 3)) > 1e-3).float().mean())

            return hook

        for name, module in self.net.named_modules():
            if isinstance(module, QuantConv):
                hooks.append(module.register_forward_hook(watch(name)))
        y, _, _, _, qp = self.batch(self.step)
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
        self.seconds, self.smooth = state["seconds"], state["smooth"]


def _crop(i420: NDArray[np.uint8], top: int, left: int, size: int, mirrored: bool) -> tuple[Tensor, Tensor]:
    """I420 crops [n, 192, 128] to float luma [n, 1, size, size] and chroma [n, 2, size/2, size/2]."""
    half = CROP // 2
    luma = i420[:, None, top : top + size, left : left + size]
    chroma = i420[:, CROP:].reshape(-1, 2, half, half)
    chroma = chroma[:, :, top // 2 : (top + size) // 2, left // 2 : (left + size) // 2]
    parts = (part[..., ::-1] if mirrored else part for part in (luma, chroma))
    y, uv = (torch.from_numpy(np.ascontiguousarray(part)).float() for part in parts)
    return y, uv
