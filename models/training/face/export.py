"""From the trained parser to the ONNX file that is shipped, with its card."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from models.networks.face_parser import CLASSES, MULTIPLE
from models.registry import read_card
from models.training.export_parser import write_parser
from models.training.face.materials import sources
from models.training.face.recipe import FaceRecipe
from models.training.fit import Fit

REGIONS = {"face": ["face"], "face+hair": ["face", "hair"]}


def export_face(fit: Fit, recipe: FaceRecipe, data: Path, folder: Path, command: str) -> Path:
    """Write the averaged network of a fit to `folder` under the parser contract; returns the .onnx file.

    `command`: what made it, for the card. Raises SemcallError when the export differs from the network.
    """
    facts = {
        "licence": "MIT for the weights; among the training data, FASSEG's labelled heads are for research use and "
        "BSDS500 states no licence: judge for yourself before commercial use",
        "training_data": sources(data, recipe.clips or None),
        "training": {"recipe": asdict(recipe), "minutes_of_last_round": round(fit.seconds / 60, 1)},
        "command": command,
        **_before(recipe),
    }
    return write_parser(
        fit.averaged(), recipe.name, folder, CLASSES, REGIONS, recipe.input_pixels or recipe.pixels, MULTIPLE, facts
    )


def _before(recipe: FaceRecipe) -> dict[str, Any]:
    """What the card of the parser that the training went on from says of it: how it was trained itself."""
    if not recipe.start:
        return {}
    card = read_card(Path(recipe.start).with_suffix(".json"), required=False)
    return {
        "start": {key: card[key] for key in ("name", "made", "sha256", "training", "command", "start") if key in card}
    }
