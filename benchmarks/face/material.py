"""What masks are tried on: frames of clips and worse versions of them, and labelled heads pasted on photographs."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from models.evaluation.detector import FILE, Boxes, ReferenceDetector
from models.training.face.augment import cloth
from models.training.face.materials import Head, read_heads
from models.training.face.photographs import read_photographs
from models.training.face.sample import Sample, dress, placed, warped
from shared.clips import Clip
from shared.grid import MACROBLOCK, Mask
from shared.picture import I420, bgr_from_i420, i420_from_bgr

Image = NDArray[np.uint8]
WIDTH, HEIGHT = 1280, 720
SMALL_FACE = 70
COMPOSITES = Path(__file__).with_name("composites.tsv")
_BANDS = ((0.03, 0.1), (0.1, 0.2), (0.2, 0.4), (0.4, 0.6))


@dataclass(frozen=True, slots=True)
class Footage:
    """Frames of a clip with the reference detector's boxes in each."""

    name: str
    frames: list[I420]
    boxes: list[Boxes]


def footage(path: Path, data: Path, most: int) -> Footage:
    """Up to `most` frames of a clip, at most 1280x720."""
    detector = ReferenceDetector(data / "weights" / FILE, 0.5)
    frames = [i420 for i420, _ in islice(Clip(path), most)]
    return Footage(path.stem, frames, [detector.find(bgr_from_i420(i420)) for i420 in frames])


def variants(data: Path) -> dict[str, Callable[[Footage], Footage]]:
    """Ways in which footage gets worse, by name."""
    photograph = _filled(read_photographs(data, kept=True)[0][1])
    black = np.zeros_like(photograph)
    return {
        "as it is": lambda clip: clip,
        "grayscale": lambda clip: _changed(clip, _grey),
        "dark, noisy": lambda clip: _changed(clip, _dark),
        "JPEG quality 12": lambda clip: _changed(clip, _jpeg),
        f"faces {SMALL_FACE} px high, on black": lambda clip: _distant(clip, black),
        f"faces {SMALL_FACE} px high, in a photograph": lambda clip: _distant(clip, photograph),
    }


@dataclass(frozen=True, slots=True)
class Composite:
    """One row of composites.tsv. `size`: height of the face's box over that of the picture; `x`, `y`: its centre."""

    head: str
    photograph: str
    size: float
    x: float
    y: float
    mirrored: bool

    @property
    def band(self) -> str:
        """Of sizes, in percent."""
        low, high = next(band for band in _BANDS if self.size < band[1])
        return f"{low * 100:.0f}-{high * 100:.0f}%"


def composites() -> list[Composite]:
    """The list in the repository, made by `draw_composites` once."""
    with COMPOSITES.open(newline="") as file:
        return [
            Composite(
                row["head"], row["photograph"], float(row["size"]), float(row["x"]), float(row["y"]),
                row["mirrored"] == "1",
            )
            for row in csv.DictReader(file, delimiter="\t")
        ]  # fmt: skip


def draw_composites(data: Path, seed: int = 2020, rounds: int = 2) -> None:
    """Write composites.tsv: every head of faceparts/test in `rounds` sizes on photographs held out from training."""
    chance = np.random.default_rng(seed)
    heads, photographs = read_heads(data, "test"), read_photographs(data, kept=True)
    with COMPOSITES.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["head", "photograph", "size", "x", "y", "mirrored"])
        for number in range(rounds * len(heads)):
            low, high = _BANDS[number % len(_BANDS)]
            size = float(np.exp(chance.uniform(np.log(low), np.log(high))))
            x = chance.uniform(0.2, 0.8)
            y = chance.uniform(min(0.5, 0.62 * size), max(0.5, 1 - 0.9 * size))
            row = [heads[number % len(heads)].name, photographs[chance.integers(len(photographs))][0]]
            writer.writerow([*row, f"{size:.3f}", f"{x:.3f}", f"{y:.3f}", int(chance.random() < 0.5)])


def compose(
    row: Composite, heads: dict[str, Head], photographs: dict[str, Image], shoulders: bool = False
) -> tuple[I420, Mask]:
    """The picture, 1280x720, and the macroblocks that the labels cover by half or more.

    `shoulders`: some are drawn below the head, which ends at the chin; without them it floats in the photograph.
    """
    head = heads[row.head]
    scene: NDArray[Any] = _filled(photographs[row.photograph])
    left, top, wide, tall = head.box
    centre, at = (left + wide / 2, top + tall / 2), (row.x * WIDTH, row.y * HEIGHT)
    matrix = placed(row.size * HEIGHT / tall, 0, row.mirrored, centre, at)
    size = WIDTH, HEIGHT
    if shoulders:
        sample, chance = Sample.empty(scene), np.random.default_rng(round(1000 * (row.size + row.x + row.y)))
        dress(sample, head, matrix, cloth(size, scene[::-1], chance), chance)
        scene = sample.picture
    soft = cv2.GaussianBlur(warped(head.head, matrix, size), (0, 0), 0.8)[..., None]
    picture = warped(head.picture, matrix, size) * soft + scene * (1 - soft)
    face = warped(head.face, matrix, size)
    covered = cv2.resize(face, (WIDTH // MACROBLOCK, HEIGHT // MACROBLOCK), interpolation=cv2.INTER_AREA)
    return i420_from_bgr(np.clip(picture, 0, 255).astype(np.uint8)), covered >= 0.5


def _filled(picture: Image) -> Image:
    """A photograph that fills 1280x720, cut where it must be."""
    scale = max(WIDTH / picture.shape[1], HEIGHT / picture.shape[0])
    large = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    top, left = (large.shape[0] - HEIGHT) // 2, (large.shape[1] - WIDTH) // 2
    return np.ascontiguousarray(large[top : top + HEIGHT, left : left + WIDTH], np.uint8)


def _changed(clip: Footage, change: Callable[[Image, int], Image]) -> Footage:
    frames = [i420_from_bgr(change(bgr_from_i420(i420), number)) for number, i420 in enumerate(clip.frames)]
    return Footage(clip.name, frames, clip.boxes)


def _grey(bgr: Image, _: int) -> Image:
    return np.asarray(cv2.cvtColor(cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), np.uint8)


def _dark(bgr: Image, number: int) -> Image:
    """A fifth of the light, and the noise of a sensor at its limit."""
    noise = np.random.default_rng(number).standard_normal(bgr.shape, np.float32) * 6
    return np.asarray(np.clip(bgr * 0.2 + noise, 0, 255), np.uint8)


def _jpeg(bgr: Image, _: int) -> Image:
    coded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 12])[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)


def _distant(clip: Footage, scene: Image) -> Footage:
    """The clip shrunk until its faces are 70 px high, in the middle of a picture of 1280x720."""
    heights = [float(boxes[:, 3].max()) for boxes in clip.boxes if len(boxes)]
    scale = SMALL_FACE / float(np.median(heights)) if heights else 0.2
    frames, moved = [], []
    for i420, boxes in zip(clip.frames, clip.boxes, strict=True):
        bgr = bgr_from_i420(i420)
        small = cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[:HEIGHT, :WIDTH]
        top, left = (HEIGHT - small.shape[0]) // 2, (WIDTH - small.shape[1]) // 2
        picture = scene.copy()
        picture[top : top + small.shape[0], left : left + small.shape[1]] = small
        frames.append(i420_from_bgr(picture))
        shifted = boxes.copy()
        shifted[:, :4] *= scale
        shifted[:, 0] += left
        shifted[:, 1] += top
        moved.append(shifted)
    return Footage(clip.name, frames, moved)
