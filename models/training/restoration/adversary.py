"""The discriminator of a training on crops, warmed up and let in gently."""

from __future__ import annotations

from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from models.networks.discriminator import PatchDiscriminator
from models.training.fit import halved
from models.training.losses import discriminator_loss, generator_loss

WARM_UP = 100
"""Calls in which it learns alone: an untrained one at full strength destroyed the network in 200 steps."""
RAMP = 300
"""Calls over which its pull then rises to full."""
_EVERY = 2  # calls for a step of its own after that: it must not run away


class Adversary:
    """A discriminator in training. `loss`: its own, ln 2 where it cannot tell, near 0 where it wins.

    `net`: as in models/networks/discriminator.py (None: a PatchDiscriminator), moved to the device of `fabric` and
    alike in all its processes, which average its gradients; None: this process alone, on the CPU. `momentum`,
    `decay`: Adam's betas. `halve`: as Fit has it, in calls (None: `rate` stays).
    """

    def __init__(
        self,
        rate: float = 2e-4,
        net: nn.Module | None = None,
        momentum: float = 0.5,
        decay: float = 0.99,
        *,
        halve: tuple[int, int] | None = None,
        fabric: Fabric | None = None,
    ) -> None:
        self.net = net or PatchDiscriminator()
        if fabric is not None:
            self.net.to(fabric.device)
        self.loss = float("nan")
        self._rate, self._halve, self._fabric = rate, halve, fabric
        self._optimiser = torch.optim.Adam(self.net.parameters(), rate, betas=(momentum, decay))
        self._calls = 0

    def state_dict(self) -> dict[str, Any]:
        """What an exact resumption needs."""
        return {
            "net": self.net.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "calls": self._calls,
            "loss": self.loss,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on as `state_dict` left off."""
        self.net.load_state_dict(state["net"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._calls, self.loss = int(state["calls"]), float(state["loss"])

    def __call__(self, restored: Tensor, decoded: Tensor, original: Tensor) -> tuple[Tensor, float]:
        """The generator's loss (eq. 2) of RGB 0..1, float [n, 3, H, W], and at what part of full strength, 0..1.

        Learns from the pictures first (eq. 1), at every call while warming up, then at every second.
        """
        if self._calls < WARM_UP or self._calls % _EVERY == 0:
            self._learn(restored.detach(), decoded, original)
        strength = min(1.0, max(0.0, (self._calls - WARM_UP) / RAMP))
        self._calls += 1
        for parameter in self.net.parameters():
            parameter.requires_grad_(False)
        with torch.no_grad():
            real = self.net(original, decoded)
        return generator_loss(real, self.net(restored, decoded)), strength

    def _learn(self, restored: Tensor, decoded: Tensor, original: Tensor) -> None:
        for parameter in self.net.parameters():
            parameter.requires_grad_(True)
        loss = discriminator_loss(self.net(original, decoded), self.net(restored, decoded))
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self._fabric is not None and self._fabric.world_size > 1:
            # By hand: DDP takes one forward pass for every backward one, here are two.
            for parameter in self.net.parameters():
                parameter.grad = cast(Tensor, self._fabric.all_reduce(cast(Tensor, parameter.grad), reduce_op="mean"))
        if self._halve is not None:
            for group in self._optimiser.param_groups:
                group["lr"] = self._rate * halved(self._calls, *self._halve)
        self._optimiser.step()
        self.loss = float(loss.detach())
