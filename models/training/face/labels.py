"""The teacher's labels for real pictures, kept where teacher and detector agree."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track
from torch import nn

from models.training.face.loss import STRIDE
from models.training.face.materials import Person
from models.training.face.teacher import MARGIN, SIDE, back, look
from models.training.stills import Image
from shared.errors import SemcallError

_SURE, _SMALLEST = 0.75, 20
"""Boxes that are labelled: least score, least height in pixels; the others are left unknown."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A person's picture with labels, uint8 [h, w], 0..255: face, head (face and hair), and 255 where unknown."""

    person: Person
    face: Image
    head: Image
    unknown: Image


def label(net: nn.Module, people: list[Person], console: Console) -> list[Labelled]:
    """The pictures on whose faces the teacher agrees with the detector; the others are dropped."""
    labelled, dropped = [], 0
    for person in track(people, "labels by the teacher", console=console):
        one = _label(net, person)
        if one is None:
            dropped += 1
        else:
            labelled.append(one)
    console.print(f"{len(labelled)} pictures labelled, {dropped} dropped")
    return labelled


def write_labels(labelled: list[Labelled], folder: Path, about: dict[str, object]) -> None:
    """Keep labels in `folder`, a three-channel PNG each (face, head, unknown), with an index that is written last.

    `about`: what they depend on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for one in labelled:
        cv2.imwrite(str(folder / f"{one.person.name}.png"), np.dstack([one.face, one.head, one.unknown]))
    index = folder / "index.json"
    part = index.with_suffix(".part")
    part.write_text(json.dumps({"about": about, "names": [one.person.name for one in labelled]}))
    part.rename(index)


def read_labels(people: list[Person], folder: Path, about: dict[str, object]) -> list[Labelled] | None:
    """What `write_labels` kept for `people`; None where it did not finish.

    Raises SemcallError for labels that depend on something else than `about` says.
    """
    index = folder / "index.json"
    if not index.exists():
        return None
    by_name = {person.name: person for person in people}
    kept = json.loads(index.read_text())
    if kept["about"] != about:
        raise SemcallError(f"The labels in {folder} belong to another recipe; use another output directory.")
    labelled = []
    for name in kept["names"]:
        planes = cv2.imread(str(folder / f"{name}.png"), cv2.IMREAD_COLOR)
        if planes is not None and name in by_name:
            face, head, unknown = (np.ascontiguousarray(planes[..., n], np.uint8) for n in range(3))
            labelled.append(Labelled(by_name[name], face, head, unknown))
    return labelled


def sheet(labelled: list[Labelled], path: Path, columns: int = 8, rows: int = 6) -> None:
    """A contact sheet of labels, spread over what there is: face red, hair green, unknown dark."""
    chosen = [labelled[int(i)] for i in np.linspace(0, len(labelled) - 1, columns * rows)]
    cells = [shown(one.person.picture, one.face > 127, one.head > 127, one.unknown > 0) for one in chosen]
    cv2.imwrite(str(path), tiled(cells, columns))


def shown(picture: Image, face: np.ndarray, head: np.ndarray, unknown: np.ndarray | None = None) -> Image:
    """A BGR picture with its labels laid over it."""
    over = picture.astype(np.float32)
    over[..., 2] += 100 * face
    over[..., 1] += 70 * (head & ~face)
    if unknown is not None:
        over *= 1 - 0.6 * unknown[..., None]
    return np.asarray(np.clip(over, 0, 255), np.uint8)


def tiled(cells: list[Image], columns: int, size: tuple[int, int] = (240, 180)) -> Image:
    """Pictures side by side, each fitted into `size` (width, height)."""
    tiles = []
    for cell in cells:
        scale = min(size[0] / cell.shape[1], size[1] / cell.shape[0])
        small = cv2.resize(cell, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[: size[1], : size[0]]
        tile = np.zeros((size[1], size[0], 3), np.uint8)
        tile[: small.shape[0], : small.shape[1]] = small
        tiles.append(tile)
    while len(tiles) % columns:
        tiles.append(np.zeros_like(tiles[0]))
    return np.asarray(np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]), np.uint8)


def _label(net: nn.Module, person: Person) -> Labelled | None:
    good = (person.boxes[:, 14] > _SURE) & (person.boxes[:, 3] > _SMALLEST)
    if not good.any():
        return None
    rows, columns = person.picture.shape[:2]
    face, head = np.zeros((rows, columns), np.float32), np.zeros((rows, columns), np.float32)
    boxes = [(float(b[0]), float(b[1]), float(b[2]), float(b[3])) for b in person.boxes[good]]
    for box, (is_face, is_head, matrix, told) in zip(boxes, look(net, person.picture, boxes), strict=True):
        if not _agrees(is_face, told, box, matrix):
            return None
        face = np.maximum(face, back(is_face, matrix, (columns, rows)))
        head = np.maximum(head, back(is_head, matrix, (columns, rows)))
    unknown = np.zeros((rows, columns), np.uint8)
    for x, y, w, h in person.boxes[~good, :4]:
        corners = (int(x - 0.3 * w), int(y - 0.4 * h)), (int(x + 1.3 * w), int(y + 1.8 * h))
        cv2.rectangle(unknown, *corners, 255, -1)
    return Labelled(person, (face * 255).astype(np.uint8), (head * 255).astype(np.uint8), unknown)


def _agrees(face: np.ndarray, told: Image, box: tuple[float, ...], matrix: np.ndarray) -> bool:
    """Whether the parse is a face where the box says: full inside, empty far away, of a face's size, decided."""
    cells = told.shape[0] // STRIDE
    core = cv2.erode(told, np.ones((3, 3)), iterations=int(SIDE / MARGIN * 0.12))
    inner = cv2.resize(core, (cells, cells), interpolation=cv2.INTER_AREA) > 0
    area = (cv2.resize(told, (cells, cells), interpolation=cv2.INTER_AREA) > 0).sum()
    rows, columns = np.mgrid[:cells, :cells] * STRIDE + 2
    x, y = matrix @ [box[0] + box[2] / 2, box[1] + box[3] / 2, 1]
    far = (np.abs(columns - x) > 0.85 * SIDE / MARGIN) | (rows < y - 0.75 * SIDE / MARGIN)
    undecided = float(np.minimum(face, 1 - face).mean()) / max(0.02, float(face.mean()))
    return bool(
        face[inner].mean() > 0.85
        and face[far].mean() < 0.06
        and 0.45 < face.sum() / max(1, area) < 2.2
        and undecided < 0.5
    )
