"""From the trained parser to the ONNX file that is shipped, with its card."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from models.networks.face_parser import CLASSES, MULTIPLE
from models.training.export_parser import write_parser
from models.training.face.materials import sources
from models.training.face.recipe import FaceRecipe
from models.training.fit import Fit
from models.training.recipe import started_from

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
        **started_from(recipe.start),
    }
    return write_parser(
        fit.averaged(), recipe.name, folder, CLASSES, REGIONS, recipe.input_pixels or recipe.pixels, MULTIPLE, facts
    )
