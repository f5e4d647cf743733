"""What samples are made of: labelled heads, and pictures of people with their boxes.

Pictures of people are decoded, scaled and searched for faces once, into a folder; the rest is read as it lies.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from models.evaluation.detector import FILE, Boxes, ReferenceDetector
from models.training.manifest import TrainingClip, permissive_clips
from models.training.stills import Image, by_origin, permissive_portraits, read_picture
from shared.errors import SemcallError

Plane = NDArray[np.float32]

SKIN, HAIR = 1, 2
"""Labels of faceparts: 0 background, 1 skin and neck, 2 hair, 3 eyes, 4 nose, 5 mouth."""
HEAD_HEIGHT = 288
LONG_SIDE = 720
_BORDER = 60
"""Grey pixels around a tight head, without which the detector misses it."""


@dataclass(frozen=True, slots=True)
class Head:
    """A cut-out head. `picture`: uint8 BGR [h, w, 3]; `face`, `head` (face and hair): uint8 [h, w], 0 or 1.

    `box`: left, top, width, height of the face as the detector would say.
    """

    name: str
    picture: Image
    face: Image
    head: Image
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Person:
    """A picture of people. `name`: file name; `identity`: who; `still`: no frame of a clip; `boxes`: faces."""

    name: str
    identity: str
    still: bool
    picture: Image
    boxes: Boxes


def read_heads(data: Path, split: str) -> list[Head]:
    """The labelled heads of `split` ("train" or "test"), scaled to a height of 288."""
    detector = ReferenceDetector(data / "weights" / FILE)
    files = sorted((data / "faceparts" / split).glob("*.jpg"))
    if not files:
        raise SemcallError(f"There are no labelled heads in {data / 'faceparts' / split}; name the data with --data.")
    return [_head(file, detector) for file in files]


def prepare_people(data: Path, folder: Path, frames: int, limit: int | None = None) -> list[Person]:
    """Frames of the permissive training clips (`frames` of each person) and portraits under MIT or Apache-2.0.

    Written to `folder` once, as PNG with an index; later calls read them. `limit`: use only so many clips. Raises
    SemcallError without data, and where `folder` was made with other numbers.
    """
    index, about = folder / "index.json", {"frames": frames, "limit": limit}
    if not index.exists():
        folder.mkdir(parents=True, exist_ok=True)
        detector = ReferenceDetector(data / "weights" / FILE)
        entries = []
        for name, identity, still, picture in _pictures(data, frames, limit):
            cv2.imwrite(str(folder / f"{name}.png"), picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])
            boxes = detector.find(picture)
            entries.append({"name": name, "identity": identity, "still": still, "boxes": boxes.tolist()})
        part = index.with_suffix(".part")
        part.write_text(json.dumps({"about": about, "people": entries}))
        part.rename(index)
    kept = json.loads(index.read_text())
    if kept["about"] != about:
        raise SemcallError(f"The pictures in {folder} belong to another recipe; use another output directory.")
    return [
        Person(
            entry["name"],
            entry["identity"],
            entry["still"],
            read_picture(folder / f"{entry['name']}.png"),
            np.array(entry["boxes"], np.float32).reshape(-1, 15),
        )
        for entry in kept["people"]
    ]


def sources(data: Path, limit: int | None = None) -> dict[str, object]:
    """What the card says of the training data: file lists with licences and, as CC-BY asks, where they are from."""
    clips = {clip.name: f"{clip.licence}, {clip.origin}" for clip in permissive_clips(data, "train")[:limit]}
    return {
        "clips": clips,
        "portraits": by_origin(permissive_portraits(data)),
        "photographs": "BSDS500 without people (cite Martin et al. 2001; no licence stated), every fifth held out",
        "labelled_heads": "FASSEG train split, 194 heads (research use; cite Khan, Mauro, Leonardi 2015)",
    }


def _pictures(data: Path, frames: int, limit: int | None) -> Iterator[tuple[str, str, bool, Image]]:
    clips = permissive_clips(data, "train")[:limit]
    of_person = {clip.identity: sum(other.identity == clip.identity for other in clips) for clip in clips}
    for clip in track(clips, "frames of the clips"):
        for number, picture in enumerate(_frames(clip, max(3, frames // of_person[clip.identity]))):
            yield f"{clip.name}-{number:02}", clip.identity, False, picture
    for still in track(permissive_portraits(data)[: limit and 4 * limit], "portraits"):
        yield still.name, still.name, True, _shrunk(read_picture(still.path), 640)


def _frames(clip: TrainingClip, count: int) -> list[Image]:
    """`count` frames spread over the first 260 of a clip."""
    with av.open(str(clip.path)) as container:
        stream = container.streams.video[0]
        total = min(stream.frames or 200, 260)
        wanted = {int(n) for n in np.linspace(0, total - 1, count).round()}
        kept = []
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                kept.append(_shrunk(np.asarray(frame.to_ndarray(format="bgr24"), np.uint8), LONG_SIDE))
            if number >= max(wanted):
                break
    return kept


def _shrunk(picture: Image, longest: int) -> Image:
    scale = min(1.0, longest / max(picture.shape[:2]))
    if scale == 1:
        return picture
    return np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)


def _head(file: Path, detector: ReferenceDetector) -> Head:
    picture, labels = read_picture(file), cv2.imread(str(file.with_suffix(".png")), cv2.IMREAD_GRAYSCALE)
    if labels is None or labels.shape != picture.shape[:2]:
        raise SemcallError(f"The labels of {file} are missing or of another size; get the data again.")
    scale = HEAD_HEIGHT / picture.shape[0]
    size = round(picture.shape[1] * scale), HEAD_HEIGHT
    picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    labels = np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST), np.uint8)
    face = _with_brows((labels == SKIN) | (labels > HAIR), labels == HAIR)
    head = np.maximum(face, (labels > 0).astype(np.uint8))
    padded = cv2.copyMakeBorder(
        picture, _BORDER, _BORDER, _BORDER, _BORDER, cv2.BORDER_CONSTANT, value=(128, 128, 128)
    )
    found = detector.find(np.asarray(padded, np.uint8))
    if len(found):
        left, top, width, height = (float(v) for v in found[np.argmax(found[:, 2] * found[:, 3]), :4])
        return Head(file.stem, picture, face, head, (left - _BORDER, top - _BORDER, width, height))
    return Head(file.stem, picture, face, head, _box_of_parts(np.asarray(labels, np.uint8), face))


def _with_brows(skin: NDArray[np.bool_], hair: NDArray[np.bool_]) -> Image:
    """Skin with its small holes and the small pieces of "hair" filled: brows, lashes, beards' gaps are face."""
    face = skin.astype(np.uint8)
    outlines, _ = cv2.findContours(face, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros_like(face), outlines, -1, 1, -1)
    for pieces in ((filled == 1) & (face == 0), hair):
        count, numbered, facts, _ = cv2.connectedComponentsWithStats(pieces.astype(np.uint8))
        for piece in range(1, count):
            if facts[piece, cv2.CC_STAT_AREA] < 0.02 * skin.sum():
                face[numbered == piece] = 1
    return np.asarray(face, np.uint8)


def _box_of_parts(labels: NDArray[np.uint8], face: Image) -> tuple[float, float, float, float]:
    """The box around eyes, nose and mouth, grown to a face's, for profiles that the detector misses."""
    rows, columns = np.nonzero(labels > HAIR)
    if not len(rows):
        rows, columns = np.nonzero(face)
    top, bottom = float(rows.min()), float(rows.max())
    height = 1.75 * max(bottom - top, 1.0)
    # Parts alone lie off a profile's centre.
    centre = (float(columns.min() + columns.max()) / 2 + float(np.median(np.nonzero(face)[1]))) / 2
    middle = top + 0.45 * (bottom - top)
    return centre - 0.38 * height, middle - height / 2, 0.76 * height, height
