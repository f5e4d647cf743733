"""A resumable fit: seeded samples, averaged weights, curves, pictures, checkpoints that are never half-written.

It runs on the CPU, on a GPU, or under torchrun in as many processes as there are; Lightning Fabric sees to that.
"""

from __future__ import annotations

import copy
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.utilities import move_data_to_device
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.tensorboard.writer import SummaryWriter

from shared.errors import SemcallError

Batch = tuple[Tensor, ...]


class Watched(Protocol):
    """A loss with a memory: `seen` are running means that are worth a curve, its state is part of a checkpoint."""

    seen: dict[str, float]

    def state_dict(self) -> dict[str, Any]:
        """All that an exact resumption needs."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on as `state_dict` left off."""
        ...


_RISE = 0.06
"""Part of the run over which the learning rate rises."""
_FLOOR = 1e-5
_PATIENCE = timedelta(hours=12)
"""How long processes wait for the first one, which prepares the data and exports."""


def launched(bf16: bool = False) -> Fabric:
    """Where a training runs: a GPU if CUDA has one, else the CPU; with all other processes under torchrun.

    Without torchrun it is one process on one device: Fabric would start the others by running the command again.
    `bf16`: in bfloat16 where that is safe. A Mac's GPU is left alone: it lacks operations that the losses need.
    """
    here, nodes = (int(os.environ.get(name, 1)) for name in ("LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE"))
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # every process would greet
    # Buffers are constants or running means, of which the first process's are kept; DDP trips over strided ones.
    parallel = DDPStrategy(timeout=_PATIENCE, forward_sync_buffers=False)
    fabric = Fabric(
        accelerator="cuda" if torch.cuda.is_available() else "cpu",
        devices=here,
        num_nodes=nodes,
        strategy=parallel if here * nodes > 1 else "auto",
        precision="bf16-mixed" if bf16 else "32-true",
    )
    fabric.launch()
    return fabric


def halved(step: int, first: int, every: int) -> float:
    """What is left of a rate, 0..1, that is halved at step `first` and after every `every` steps more."""
    return 1.0 if step < first else 0.5 ** (1 + (step - first) // every)


class Steps(Dataset[Batch]):
    """The batch of every step from `first` on: `make(step)` gives the same one for the same step."""

    def __init__(self, make: Callable[[int], Batch], first: int, last: int) -> None:
        self._make, self._first, self._last = make, first, last

    def __len__(self) -> int:
        return max(0, self._last - self._first)

    def __getitem__(self, index: int) -> Batch:
        return self._make(self._first + index)


class Fit:
    """One network on its way: step, seconds, optimiser, average. `about`: what a checkpoint must agree with.

    `batch(step)` makes a step's tensors (in `workers` processes beside this one, 0: here); `loss(net, batch)` is
    what falls, in bfloat16 with `bf16` where that is safe, of batches on the network's device; its calls of
    `net.residual` count as calls of the network. `show(net, step)` draws a picture every `show_every` steps with the
    averaged network, on the CPU. `watched`: the loss, where it has a memory. Gradients longer than `clip` are cut to
    it, or to three times their running mean where it is None. `check(net, step)` is called with every checkpoint, the
    network on its device. Curves go to `folder` as TensorBoard events. A run that stops (`minutes`, a kill) goes on
    from its last checkpoint, to the bit on one CPU.

    The rate rises a little, then falls as a cosine; with `halve`, (steps before the first halving, steps between), it
    starts in full. `momentum`: Adam's first beta, without a decay of weights; None: AdamW with a slight one.

    `facts`: what else a checkpoint tells of itself.

    `fabric`: where it runs (None: `launched(bf16)`). Of several processes each takes batches of its own and only the
    first writes or says anything; gradients are averaged, so all have the same weights. Running means of what is
    watched are the process's own.
    """

    def __init__(
        self,
        name: str,
        net: nn.Module,
        folder: Path,
        about: dict[str, Any],
        batch: Callable[[int], Batch],
        loss: Callable[[nn.Module, Batch], Tensor],
        *,
        steps: int,
        rate: float,
        ema: float,
        bf16: bool = False,
        workers: int = 0,
        checkpoint_every: int = 250,
        show: Callable[[nn.Module, int], None] | None = None,
        show_every: int = 1000,
        watched: Watched | None = None,
        clip: float | None = 20.0,
        check: Callable[[nn.Module, int], None] | None = None,
        halve: tuple[int, int] | None = None,
        momentum: float | None = None,
        fabric: Fabric | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        self.name, self.net, self.folder, self.about, self.facts = name, net, folder, about, facts or {}
        self.checkpoint = folder / f"{name}.pt"
        self.step, self.seconds, self.smooth = 0, 0.0, math.nan
        self._batch, self._loss, self._show = batch, loss, show
        self._steps, self._rate, self._decay, self._workers = steps, rate, ema, workers
        self._watched, self._clip, self._check, self._halve = watched, clip, check, halve
        self.fabric = fabric or launched(bf16)
        self._length = math.nan
        """Running mean of the gradient's norm."""
        self._checkpoint_every, self._show_every = checkpoint_every, show_every
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # three times as fast on a CPU
        self._optimiser: torch.optim.Optimizer = (
            torch.optim.AdamW(net.parameters(), rate, weight_decay=1e-3)
            if momentum is None
            else torch.optim.Adam(net.parameters(), rate, betas=(momentum, 0.999))
        )
        self._parallel, self._stepper = self.fabric.setup(net, self._optimiser)
        if hasattr(net, "residual"):
            self._parallel.mark_forward_method("residual")
        self.ema = {key: value.clone() for key, value in net.state_dict().items()}
        if self.checkpoint.exists():
            self._resume()

    @property
    def done(self) -> bool:
        """Whether every step is taken."""
        return self.step >= self._steps

    def run(self, console: Console, minutes: float | None = None) -> bool:
        """Take the steps that are left, or as many as fit `minutes`; returns whether all are done.

        Raises SemcallError when the training diverges.
        """
        if self.done:
            return True
        first = self.fabric.is_global_zero
        console = console if first else Console(quiet=True)
        limit = math.inf if minutes is None else time.perf_counter() + 60 * minutes
        curves = SummaryWriter(str(self.folder), purge_step=self.step) if first else None
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as progress:
            task = progress.add_task(self.name, total=self._steps, completed=self.step)
            last = time.perf_counter()
            for batch in self._batches():
                loss = self._one_step(self.fabric.to_device(batch))
                now = time.perf_counter()
                self.seconds, last = self.seconds + now - last, now
                if curves is not None:
                    if self.step % 20 == 0:
                        progress.update(task, completed=self.step, description=f"{self.name}: loss {self.smooth:.4f}")
                        self._plot(curves, loss)
                    self._report(console)
                # One clock decides, or some would wait for others that have stopped.
                if minutes is not None and self.fabric.broadcast(now > limit):
                    break
        if curves is not None:
            curves.close()
        self.save()
        return self.done

    def averaged(self) -> nn.Module:
        """The network with its averaged weights, on the CPU, ready to use; the one in training stays as it is."""
        net = copy.deepcopy(self.net)
        net.load_state_dict(self.ema)
        return net.cpu().eval()

    def save(self) -> None:
        """Write the checkpoint, never half of one; any PyTorch can read it, with or without a GPU."""
        if not self.fabric.is_global_zero:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.checkpoint.with_suffix(".partial")
        state = {
            "about": self.about,
            "facts": self.facts,
            "net": self.net.state_dict(),
            "ema": self.ema,
            "optimiser": self._optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "smooth": self.smooth,
            "length": self._length,
            "watched": None if self._watched is None else self._watched.state_dict(),
        }
        torch.save(move_data_to_device(state, torch.device("cpu")), partial)
        partial.rename(self.checkpoint)

    def _batches(self) -> Iterator[Batch]:
        world, rank = self.fabric.world_size, self.fabric.global_rank
        steps = Steps(lambda step: self._batch(step * world + rank), self.step, self._steps)
        # Forked workers share what samples are made of; each step is its own seed, so their order is all that counts.
        context = "fork" if self._workers else None
        return iter(DataLoader(steps, batch_size=None, num_workers=self._workers, multiprocessing_context=context))

    def _one_step(self, batch: Batch) -> float:
        for group in self._optimiser.param_groups:
            group["lr"] = self._now()
        self._parallel.train()
        with self.fabric.autocast():
            loss = self._loss(self._parallel, batch)
        self._optimiser.zero_grad()
        self.fabric.backward(loss)
        usual = 1e30 if math.isnan(self._length) else 3 * self._length
        limit = usual if self._clip is None else self._clip
        norm = float(torch.nn.utils.clip_grad_norm_(self.net.parameters(), limit))
        if not np.isfinite(norm):
            raise SemcallError(f"Training {self.name} diverged at step {self.step}; lower its rate and start anew.")
        if norm:  # a limit of 0 would let nothing pass for ever
            self._length = _running(self._length, min(norm, limit))
        self._stepper.step()
        self.step += 1
        decay = min(self._decay, self.step / (self.step + 30))
        with torch.no_grad():
            for key, value in self.net.state_dict().items():
                if value.dtype.is_floating_point:
                    self.ema[key].lerp_(value, 1 - decay)
                else:
                    self.ema[key].copy_(value)
        value = float(loss.detach())
        self.smooth = _running(self.smooth, value)
        return value

    def _plot(self, curves: SummaryWriter, loss: float) -> None:
        for what, value in {"loss": loss, "rate": self._now(), **self._seen()}.items():
            curves.add_scalar(f"{self.name}/{what}", value, self.step)

    def _report(self, console: Console) -> None:
        """What is due after this step beside curves: a line, a check, a checkpoint, a picture."""
        if self.step % self._checkpoint_every == 0:
            console.print(self._line())
            if self._check is not None:
                self._check(self.net, self.step)
            self.save()
        if self._show is not None and (self.step % self._show_every == 0 or self.done):
            self._show(self.averaged(), self.step)

    def _seen(self) -> dict[str, float]:
        return {} if self._watched is None else self._watched.seen

    def _line(self) -> str:
        watched = "".join(f", {what} {value:.4g}" for what, value in self._seen().items())
        return f"{self.name} step {self.step}: loss {self.smooth:.4f}{watched}, {self.seconds:.0f} s"

    def _now(self) -> float:
        """The learning rate of this step: halved now and then, or a short rise, then a cosine."""
        if self._halve is not None:
            return self._rate * halved(self.step, *self._halve)
        part = self.step / max(1, self._steps)
        return self._rate * min(1.0, part / _RISE + 0.02) * (1 + math.cos(math.pi * part)) / 2 + _FLOOR

    def _resume(self) -> None:
        try:
            state = torch.load(self.checkpoint, weights_only=True, map_location="cpu")
            same = state["about"] == self.about
            if same:
                changed = state.get("facts", {}) != self.facts
                self.net.load_state_dict(state["net"])
                self._optimiser.load_state_dict(state["optimiser"])
                self.ema, self.step = self.fabric.to_device(state["ema"]), int(state["step"])
                self.seconds, self.smooth = float(state["seconds"]), float(state["smooth"])
                self._length = float(state.get("length", math.nan))
                if self._watched is not None:
                    self._watched.load_state_dict(state["watched"])
        except Exception as error:  # torch raises many kinds
            raise SemcallError(f"The checkpoint {self.checkpoint} cannot be read: {error}.") from error
        if not same:
            raise SemcallError(f"{self.checkpoint} belongs to another recipe; use another output directory.")
        if changed and self.done:  # nothing else would write them
            self.save()


def _running(mean: float, value: float) -> float:
    """A running mean; NaN has none as yet."""
    return value if math.isnan(mean) else 0.98 * mean + 0.02 * value
