"""What pulls at a restored picture: each loss's gradient there, brought to a fixed strength beside the features'.

Losses in different units cannot be weighed by numbers that mean anything; the norms of their gradients on the
restored picture can. What comes back is a loss whose gradient is the sum of the pulls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.networks.features import FeatureNet, rgb
from models.training.losses import calm_weight, charbonnier, low_pass, printed, temporal
from models.training.restoration.adversary import Adversary
from models.training.restoration.batches import Crops
from models.training.restoration.networks import Residual
from models.training.restoration.views import view

PIXEL_KNEE, FEATURE_KNEE = 3.0, 0.5
"""Code values below which the pixel loss is quadratic, in the round of pixels and in those after.

Plain L1 has its optimum at no change at all for most samples of a well coded picture, so a fresh network learns to do
nothing; later it is right, because it keeps flat areas still.
"""
FLAT = 5.0
"""Weight of flat samples beside others: nothing is to be restored in a bare wall, and what is done there flickers."""
_LEAST_BEFORE = 0.25
"""Of the mean distance of decoded pictures: added to each one's own where distances count in parts of that."""
_WATCHED_EVERY = 20


@dataclass(frozen=True, slots=True)
class Seen:
    """RGB of first pictures, float [n, 3, H, W] in 0..1, and `face`, float [n, 1, H/16, W/16]."""

    restored: Tensor
    decoded: Tensor
    original: Tensor
    face: Tensor


Part = Callable[[Seen], Tensor]


class Objective:
    """The loss of a round: `objective(net, batch)` for Fit.

    `eye`: the feature network, None for none; `pixel`, `steady`, `mesh`: parts of its gradient's norm, the last of
    errors that repeat every `period` samples; `parts`: more losses by name, each with its part; `adversary` likewise;
    `relative`: a crop's features count in parts of their distance before (and _LEAST_BEFORE of its running mean);
    `teacher`: a part, and the network whose word on the crops, mirrored and turned, is listened to as well.
    Without an eye all are parts of the first of `parts`, and without those the pixels pull in full. `knee` of the
    pixel loss, code values. Running means of norms and of what is watched are its state.
    """

    def __init__(
        self,
        eye: FeatureNet | None,
        pixel: float,
        steady: float,
        parts: dict[str, tuple[float, Part]] | None = None,
        adversary: tuple[float, Adversary] | None = None,
        mesh: float = 0.0,
        period: int = 4,
        knee: float = FEATURE_KNEE,
        relative: bool = False,
        teacher: tuple[float, Residual] | None = None,
    ) -> None:
        self._eye, self._pixel, self._steady, self._mesh = eye, pixel, steady, mesh
        self._parts, self._adversary, self._period = parts or {}, adversary, period
        self._knee, self._relative, self._teacher = knee, relative, teacher
        self.seen: dict[str, float] = {}
        """Running means of what is watched."""
        self._calls = 0

    def state_dict(self) -> dict[str, Any]:
        """What an exact resumption needs."""
        adversary = None if self._adversary is None else self._adversary[1].state_dict()
        return {"seen": dict(self.seen), "calls": self._calls, "adversary": adversary}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on as `state_dict` left off."""
        self.seen, self._calls = dict(state["seen"]), int(state["calls"])
        if self._adversary is not None:
            self._adversary[1].load_state_dict(state["adversary"])

    def __call__(self, net: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        """A scalar whose gradient is the sum of the pulls; its value is the pixel loss.

        `net`: a Residual, bare or as Fabric wraps it; `batch`: the fields of Crops, on its device.
        """
        crops = Crops(*batch)
        luma, chroma = cast(Residual, net).residual(crops.y, crops.uv, crops.qp)
        y, uv = crops.y + luma, crops.uv + chroma
        leaves = [y.detach().requires_grad_(True), uv.detach().requires_grad_(True)]
        pixel = self._pixels(leaves, crops)
        pulls = [_gradients(pixel, leaves)]
        base = self._track("pixel norm", _norm(pulls[0]))
        if self._eye is not None or self._parts:
            seen = _first(leaves, crops)
            pixels = pulls.pop()
            if self._eye is not None:
                pulls.append(self._features(self._eye, seen, leaves))
                base = self._track("feature norm", _norm(pulls[0]))
            for name, (part, loss) in self._parts.items():
                pull, norm = self._measured(name, loss(seen), leaves)
                base = base if pulls else norm or base  # no picture may have had a face so far
                pulls.append(_scaled(pull, part * base / max(norm, 1e-12)))
            pulls.append(_scaled(pixels, self._pixel * base / self.seen["pixel norm"]))
            if self._adversary is not None:
                pulls.append(self._adversarial(*self._adversary, base, seen, leaves))
        if self._steady:
            pulls.append(self._weighed("unsteady", self._steady * base, _unsteady(leaves[0], crops), leaves))
        if self._mesh:
            pulls.append(
                self._weighed("mesh", self._mesh * base, printed(leaves[0], crops.true_y, self._period), leaves)
            )
        if self._teacher is not None:
            part, teacher = self._teacher
            pulls.append(self._weighed("teacher", part * base, _unlike(leaves, teacher, crops, self._calls), leaves))
        self._calls += 1
        self._track("l1", float((leaves[0].detach() - crops.true_y).abs().mean()))
        self._track("l1 before", float((crops.y - crops.true_y).abs().mean()))
        total = [torch.stack(parts).sum(0) for parts in zip(*pulls, strict=True)]
        surrogate = (y * total[0]).sum() + (uv * total[1]).sum()
        return surrogate - surrogate.detach() + pixel.detach()

    def _pixels(self, leaves: list[Tensor], crops: Crops) -> Tensor:
        """On the planes: samples, heavier where the original is flat, and means, which hold the colour."""
        y, uv = leaves
        luma = charbonnier(y, crops.true_y, self._knee, 1 + (FLAT - 1) * calm_weight(crops.true_y))
        means = low_pass(y, crops.true_y) + low_pass(uv, crops.true_uv, 4)
        return luma + 0.5 * charbonnier(uv, crops.true_uv, self._knee) + 0.5 * means

    def _features(self, eye: FeatureNet, seen: Seen, leaves: list[Tensor]) -> list[Tensor]:
        looked = view(self._calls)
        with torch.no_grad():
            target = eye(looked(seen.original))
        left = eye.distances(eye(looked(seen.restored)), target)
        watched = self._calls % _WATCHED_EVERY == 0
        if not (watched or self._relative):
            return _gradients(left.mean(), leaves)
        with torch.no_grad():
            before = eye.distances(eye(looked(seen.decoded)), target)
        if watched:
            self._track("features kept", float(left.detach().mean() / before.mean()))
        if self._relative:
            left = left / (before + _LEAST_BEFORE * self._track("features before", float(before.mean())))
        return _gradients(left.mean(), leaves)

    def _adversarial(
        self, part: float, adversary: Adversary, base: float, seen: Seen, leaves: list[Tensor]
    ) -> list[Tensor]:
        loss, strength = adversary(seen.restored, seen.decoded, seen.original)
        self._track("discriminator", adversary.loss)
        return self._weighed("generator", part * strength * base, loss, leaves)

    def _weighed(self, name: str, strength: float, loss: Tensor, leaves: list[Tensor]) -> list[Tensor]:
        """The loss's pull, scaled so that its running mean norm is `strength`."""
        pull, norm = self._measured(name, loss, leaves)
        return _scaled(pull, strength / max(norm, 1e-12))

    def _measured(self, name: str, loss: Tensor, leaves: list[Tensor]) -> tuple[list[Tensor], float]:
        """The loss's pull and its running mean norm."""
        pull = _gradients(loss, leaves)
        self._track(name, float(loss.detach()))
        return pull, self._track(f"{name} norm", _norm(pull))

    def _track(self, name: str, value: float) -> float:
        self.seen[name] = 0.98 * self.seen.get(name, value) + 0.02 * value
        return self.seen[name]


def _first(leaves: list[Tensor], crops: Crops) -> Seen:
    half = len(crops.face)
    restored = rgb(leaves[0][:half], leaves[1][:half])
    with torch.no_grad():
        decoded = rgb(crops.y[:half], crops.uv[:half])
        return Seen(restored, decoded, rgb(crops.true_y[:half], crops.true_uv[:half]), crops.face)


def _unsteady(y: Tensor, crops: Crops) -> Tensor:
    """Wrong change of luma to the next picture, heavier where the original is flat."""
    half = len(crops.face)
    weight = 1 + (FLAT - 1) * calm_weight(crops.true_y[:half])
    return temporal(y[half:], y[:half], crops.true_y[half:], crops.true_y[:half], weight)


def _unlike(leaves: list[Tensor], teacher: Residual, crops: Crops, step: int) -> Tensor:
    """Mean square of what is between the planes and the teacher's, of one of the eight ways a crop can lie.

    What the teacher says of all ways has the least sum of such squares at its mean, which is nearer to the original
    than what it says of one (benchmarks/mirrored.py).
    """
    flipped, on_its_side = [axis for axis in (2, 3) if step >> axis - 2 & 1], bool(step & 4)

    def turned(plane: Tensor) -> Tensor:
        plane = torch.flip(plane, flipped) if flipped else plane
        return plane.transpose(2, 3) if on_its_side else plane

    def back(plane: Tensor) -> Tensor:
        plane = plane.transpose(2, 3) if on_its_side else plane
        return torch.flip(plane, flipped) if flipped else plane

    with torch.no_grad():
        luma, chroma = teacher.residual(*(turned(part) for part in (crops.y, crops.uv, crops.qp)))
        y, uv = crops.y + back(luma), crops.uv + back(chroma)
    return (leaves[0] - y).square().mean() + (leaves[1] - uv).square().mean()


def _gradients(loss: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    if not loss.requires_grad:  # no picture of the batch has any of what it looks at
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(leaf) if one is None else one for one, leaf in zip(found, leaves, strict=True)]


def _norm(pull: list[Tensor]) -> float:
    return float(torch.stack([part.norm() for part in pull]).norm())


def _scaled(pull: list[Tensor], by: float) -> list[Tensor]:
    return [by * part for part in pull]
