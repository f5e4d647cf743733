"""`semcall train face`: teacher, labels, parser, export; each part is done once and kept in the run's folder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from models.networks.face_parser import FaceParser
from models.training.face.export import export_face
from models.training.face.known import Known
from models.training.face.labels import Labelled, label, read_labels, sheet, shown, tiled, write_labels
from models.training.face.loss import parsing_loss, questions
from models.training.face.materials import prepare_people, read_heads
from models.training.face.photographs import read_photographs
from models.training.face.recipe import FaceRecipe
from models.training.face.reduce import reduce_parser
from models.training.face.scenes import KINDS, Material, Scenes
from models.training.face.start import load_parser
from models.training.face.teacher import TeacherSamples
from models.training.fit import Fit
from models.training.recipe import read_recipe
from shared.errors import SemcallError
from shared.outfile import make_folder

TEACHER_CONTEXT = 6
TEACHER_INPUTS = 4
_SHOWN = 32
_CALIBRATED_ON = 12  # batches of 16: two of each shape


def train_face(config: Path, data: Path, out: Path, minutes: float | None = None) -> Path | None:
    """Train what `config` describes on `data` and write the model and its card to `out`; returns the .onnx file.

    `data`: directory with clips/, images/, faceparts/ and weights/ (the detector that places crops). `minutes`: stop
    cleanly after so many of the parser's training (what comes before it is not counted); it then goes on from its
    checkpoint at the next call, and nothing is exported yet (None). Raises SemcallError for missing or unreadable
    data, recipes and checkpoints, and where `out` cannot be written.
    """
    recipe = read_recipe(config, FaceRecipe)
    make_folder(out)
    console = Console()
    end = None if minutes is None else time.monotonic() + 60 * minutes
    for fit in _rounds(recipe, data, out, console):
        if not fit.run(console, end and max(0.0, (end - time.monotonic()) / 60)):
            console.print(f"Stopped at step {fit.step} of the {fit.name}'s; the same command goes on.")
            return None
    return export_face(fit, recipe, data, out, f"semcall train face {config} --data {data} --out {out}")


def _rounds(recipe: FaceRecipe, data: Path, out: Path, console: Console) -> Iterator[Fit]:
    """The parser's training and its polish, one after the other, with all that comes before done."""
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    cv2.setNumThreads(1)
    labelled = _labelled(recipe, data, out, console)
    photographs = [picture for _, picture in read_photographs(data, kept=False)]
    material = Material(labelled, read_heads(data, "train"), photographs)
    torch.manual_seed(recipe.seed + 1)
    net = FaceParser(recipe.width, recipe.context)
    if recipe.start:
        first = Scenes(material, recipe.seed, recipe.batch, recipe.pixels, hard=True)
        net = _started(net, recipe, [first.batch(step)[0] for step in range(_CALIBRATED_ON)])
    # Other draws of the same material:
    watched = Scenes(material, recipe.seed + 1000, 1, recipe.pixels)
    about = _binding(recipe)
    for name, steps, rate in (
        ("parser", recipe.steps, recipe.rate),
        ("polish", recipe.polish_steps, recipe.polish_rate),
    ):
        hard = name == "polish"
        if hard:
            about |= {"polish_steps": steps, "polish_rate": rate}
        scenes = Scenes(material, recipe.seed + hard, recipe.batch, recipe.pixels, hard)

        def show(averaged: nn.Module, step: int, name: str = name) -> None:
            _picture(averaged, watched, out / f"{name}-{step:06}.jpg")

        fit = Fit(
            name, net, out, dict(about), scenes.batch, parsing_loss, steps=steps, rate=rate, ema=recipe.ema,
            bf16=recipe.bf16, workers=recipe.workers, checkpoint_every=recipe.checkpoint_every, show=show,
            show_every=recipe.pictures_every,
        )  # fmt: skip
        yield fit
        net = cast(FaceParser, fit.averaged())


def _started(net: FaceParser, recipe: FaceRecipe, batches: list[Tensor]) -> FaceParser:
    """`net` with the weights of the recipe's `start`, or a lean one of about its function."""
    load_parser(net, Path(recipe.start), batches)
    if not recipe.lean:
        return net
    lean = FaceParser(recipe.width, recipe.context, lean=True)
    reduce_parser(net, lean, batches)
    return lean


def train_teacher(recipe: FaceRecipe, data: Path, out: Path, console: Console) -> nn.Module:
    """The teacher of a run, trained as far as its recipe says (resumed where it stopped)."""
    people = prepare_people(data, out / "people", recipe.frames, recipe.clips or None)
    photographs = [picture for _, picture in read_photographs(data, kept=False)]
    samples = TeacherSamples(read_heads(data, "train"), people, photographs, recipe.seed, recipe.batch)
    torch.manual_seed(recipe.seed)
    net = FaceParser(recipe.teacher_width, TEACHER_CONTEXT, TEACHER_INPUTS)
    fit = Fit(
        "teacher", net, out, _binding_teacher(recipe), samples.batch, parsing_loss, steps=recipe.teacher_steps,
        rate=recipe.teacher_rate, ema=recipe.ema, workers=recipe.workers, checkpoint_every=recipe.checkpoint_every,
    )  # fmt: skip
    fit.run(console)
    return fit.averaged()


def _binding(recipe: FaceRecipe) -> dict[str, object]:
    """What a run may not change and go on: all that the parser depends on before its polish."""
    free = (
        "name",
        "threads",
        "workers",
        "checkpoint_every",
        "pictures_every",
        "polish_steps",
        "polish_rate",
        "input_pixels",
    )
    return {name: value for name, value in asdict(recipe).items() if name not in free}


def _binding_teacher(recipe: FaceRecipe) -> dict[str, object]:
    """The same for the teacher and its labels."""
    parsers = ("steps", "rate", "width", "context", "pixels", "start", "lean", "bf16")
    return {name: value for name, value in _binding(recipe).items() if name not in parsers}


def _labelled(recipe: FaceRecipe, data: Path, out: Path, console: Console) -> list[Labelled]:
    people = prepare_people(data, out / "people", recipe.frames, recipe.clips or None)
    about = _binding_teacher(recipe)
    done = read_labels(people, out / "labels", about)
    if done is None:
        teacher = Known(Path(recipe.labeller)) if recipe.labeller else train_teacher(recipe, data, out, console)
        done = label(teacher, people, console)
        if not done:
            raise SemcallError(
                "The teacher agrees with the detector on no picture: train it for more `teacher_steps`."
            )
        write_labels(done, out / "labels", about)
        sheet(done, out / "labels.jpg")
    return done


def _picture(net: nn.Module, watched: Scenes, path: Path) -> None:
    """A contact sheet of scenes with what the network says."""
    cells = []
    for number in range(_SHOWN):
        pictures, _, _ = watched.batch(KINDS * number if number % 4 else 4 + KINDS * number)
        with torch.no_grad():
            said = torch.sigmoid(questions(net(pictures.float())))[0].numpy()
        bgr = np.ascontiguousarray(pictures[0].numpy().transpose(1, 2, 0)[..., ::-1])
        size = bgr.shape[1], bgr.shape[0]
        face, head = (cv2.resize(plane, size, interpolation=cv2.INTER_NEAREST) > 0.5 for plane in said)
        cells.append(shown(bgr, face, head))
    cv2.imwrite(str(path), tiled(cells, 8))
