"""The feature networks that a training looks through, as its recipe asks for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from models.networks.backbones import choose
from models.networks.features import SQUEEZENET, FeatureNet, SqueezeNet
from models.training.losses import background_loss, face_loss, perceptual
from models.training.restoration.objective import Part
from models.training.restoration.recipe import RestorerRecipe

_LOSSES: dict[str, tuple[str, Callable[[nn.Module], Part]]] = {
    "perceptual": ("vgg19", lambda eye: lambda seen: perceptual(eye, seen.restored, seen.original)),
    "background": ("vgg19", lambda eye: lambda seen: background_loss(eye, seen.restored, seen.original, seen.face)),
    "face": ("vggface", lambda eye: lambda seen: face_loss(eye, seen.restored, seen.original, seen.face)),
}
"""By entry of the recipe: which network it looks through, and the loss with it."""


@dataclass(frozen=True, slots=True)
class Eyes:
    """Open networks. `sharp`: what the features' distance is measured with, if it is; `parts`: more losses, each with
    its part; `names`: by which a card has to call what each of `parts` looked through.
    """

    sharp: FeatureNet | None = None
    parts: dict[str, tuple[float, Part]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)


def open_eyes(recipe: RestorerRecipe, weights: Path, device: torch.device) -> Eyes:
    """What the rounds after the pixels look through, on `device`.

    `weights`: the folder of stand-ins. Raises SemcallError for networks that are not there or do not fit.
    """
    given = {"vgg19": recipe.vgg19, "vggface": recipe.vggface}
    opened: dict[str, tuple[nn.Module, str]] = {}
    eyes = Eyes(SqueezeNet(weights / SQUEEZENET).to(device) if recipe.features else None)
    for name, (kind, loss) in _LOSSES.items():
        part = float(getattr(recipe, name))
        if part:
            if kind not in opened:
                net, called = choose(kind, weights, Path(given[kind]) if given[kind] else None)
                opened[kind] = net.to(device), called
            net, called = opened[kind]
            eyes.parts[name], eyes.names[name] = (part, loss(net)), called
    return eyes
