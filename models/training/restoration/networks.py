"""The networks that the trainer knows, all called alike: what to add to the planes of a decoded picture."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from models.networks.discriminator import PaperDiscriminator, PatchDiscriminator
from models.networks.generator import PaperGenerator
from models.networks.planes_contract import PlanesContract
from models.networks.restorer import FastRestorer
from models.training.restoration.recipe import RestorerRecipe
from shared.errors import SemcallError


class Residual(Protocol):
    """A network on planes, whatever it computes with inside."""

    def residual(self, y: Tensor, uv: Tensor, qp: Tensor) -> tuple[Tensor, Tensor]:
        """What to add to the planes, in code values, not rounded: float [n, 1, H, W] and [n, 2, H/2, W/2].

        `y`: float [n, 1, H, W], whole values 0..255, H and W even; `uv`: float [n, 2, H/2, W/2]; `qp`: float
        [n, 1, ceil(H/16), ceil(W/16)], 0..51.
        """
        ...


def network(recipe: RestorerRecipe) -> nn.Module:
    """The network of a recipe, a Residual, freshly initialised from the current random state.

    Raises SemcallError for one that is not known.
    """
    if recipe.network == "fast":
        return FastRestorer(recipe.channels, recipe.depth, recipe.chroma, recipe.quantisers, recipe.deep)
    if recipe.network == "paper":
        return PlanesContract(PaperGenerator(recipe.channels, recipe.blocks))
    raise SemcallError(f"There is no network {recipe.network!r}; choose fast or paper.")


def discriminator(recipe: RestorerRecipe) -> nn.Module:
    """What tells its pictures from originals, freshly initialised: the paper's, for whole crops, or a small one."""
    return PaperDiscriminator(recipe.crop) if recipe.network == "paper" else PatchDiscriminator()
