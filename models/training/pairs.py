"""Training pairs on disk: crops of clips after the link, the originals, and the quantisers that shaped them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from models.evaluation.detector import FILE, ReferenceDetector
from models.training.coding import Coded, rate, transcode
from shared.errors import SemcallError
from shared.grid import MACROBLOCK, Mask, grid_shape
from shared.picture import I420, bgr_from_i420, i420_from_frame, planes

MAX_PIXELS = 1280 * 720
CROP = 128
SEGMENT = 36
"""Frames per encoding: one IDR and a second of P pictures."""
_KEPT = (1, 7, 14, 21, 28, 35)
# These clips turn into a cartoon half-way.
_SKIPPED = ("pyfeat_man",)


@dataclass(frozen=True, slots=True)
class Clip:
    """One row of the manifest. `name`: file name without suffix; `identity`: who is seen; `origin`: whose it is."""

    name: str
    identity: str
    path: Path
    licence: str
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Aligned crops. Of n: `coded` and `original` uint8 I420 [n, 192, 128]; `qp` uint8 [n, 8, 8]; `clip` names."""

    coded: NDArray[np.uint8]
    original: NDArray[np.uint8]
    qp: NDArray[np.uint8]
    clip: list[str]


def permissive_clips(data: Path, split: str) -> list[Clip]:
    """The clips of `split` ("train" or "val") under MIT, Apache-2.0 or CC-BY, by the manifest in `data`/clips.

    Raises SemcallError when the manifest is missing or none of its clips can be used.
    """
    manifest = data / "clips" / "manifest.tsv"
    try:
        with manifest.open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except OSError as error:
        raise SemcallError(
            f"There are no training clips in {data}: {manifest} cannot be read; name the data directory with --data."
        ) from error
    clips = [
        Clip(
            Path(row["path"]).stem,
            row["identity"],
            data / "clips" / row["path"],
            row["licence"],
            row.get("origin", ""),
        )
        for row in rows
        if row["split"] == split and row["permissive"] == "yes" and row["identity"] not in _SKIPPED
    ]
    if not clips:
        raise SemcallError(f"{manifest} lists no permissive clip of split {split}; there is nothing to train on.")
    return clips


def read_segment(path: Path, start: float, count: int, shrink: float = 1.0) -> list[I420]:
    """Up to `count` frames of a file from `start` seconds on, as I420, scaled down to at most 1280x720 samples.

    `shrink`: a further factor, at most 1, kept from going below 272 samples across or down.
    """
    frames: list[I420] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        for frame in container.decode(stream):
            if (frame.time or 0.0) < start:
                continue
            scale = min(1.0, (MAX_PIXELS / (frame.width * frame.height)) ** 0.5)
            scale = max(scale * shrink, min(scale, 272 / min(frame.width, frame.height)))
            frames.append(
                i420_from_frame(frame, round(frame.width * scale / 2) * 2, round(frame.height * scale / 2) * 2)
            )
            if len(frames) == count:
                break
    return frames


class FaceFinder:
    """Finds the face that the sender would favour, with YuNet when the data has it, else a random oval."""

    def __init__(self, data: Path, random: np.random.Generator) -> None:
        model = data / "weights" / FILE
        self._detector = ReferenceDetector(model, 0.7) if model.exists() else None
        self._random = random

    def mask(self, i420: I420) -> Mask:
        """Macroblocks of the largest face's oval: bool [rows, columns]."""
        luma = planes(i420)[0]
        height, width = luma.shape
        rows, columns = grid_shape(width, height)
        box = self._detect(i420)
        if box is None:
            size = self._random.uniform(0.2, 0.6) * min(width, height)
            x, y = self._random.uniform(0, width - size), self._random.uniform(0, height - size)
            box = (x, y, size, size)
        x, y, w, h = (value / MACROBLOCK for value in box)
        row, column = np.mgrid[0:rows, 0:columns] + 0.5
        oval: Mask = ((column - x - w / 2) / (0.6 * w)) ** 2 + ((row - y - h / 2) / (0.65 * h)) ** 2 <= 1
        return oval

    def _detect(self, i420: I420) -> tuple[float, float, float, float] | None:
        if self._detector is None:
            return None
        boxes = self._detector.find(bgr_from_i420(i420))
        if not len(boxes):
            return None
        x, y, w, h = max(boxes[:, :4], key=lambda box: box[2] * box[3])
        return float(x), float(y), float(w), float(h)


def at_rate(frames: list[I420], face: Mask, offset: int, kbps: float) -> list[Coded]:
    """`frames` at about `kbps` (30 fps): the background's quantiser is searched, the face's is `offset` lower."""
    low, high = 18, 51
    best: list[Coded] = []
    while low < high:
        middle = (low + high) // 2
        best = transcode(frames, quantisers(face, middle, offset))
        if rate(best) > kbps:
            low = middle + 1
        else:
            high = middle
    return transcode(frames, quantisers(face, low, offset))


def quantisers(face: Mask, background: int, offset: int) -> NDArray[np.uint8]:
    """A quantiser map, uint8 [rows, columns]: `background`, and `offset` less on the face, within 16..51."""
    return np.clip(background - offset * face.astype(np.int64), 16, 51).astype(np.uint8)


def prepare(data: Path, out: Path, seed: int = 0, limit: int | None = None) -> list[Path]:
    """Write one .npz of crops per permissive training clip to `out`; clips already there are kept.

    Per clip two to four segments, at full size or smaller, each coded twice: background quantiser 27..44, the face
    0..12 finer, which is what 200-1000 kb/s come to at 1280x720. `limit`: use only that many clips. Returns the
    files, sorted.
    """
    out.mkdir(parents=True, exist_ok=True)
    clips = permissive_clips(data, "train")[:limit]
    files = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("pairs", total=len(clips))
        for index, clip in enumerate(clips):
            progress.update(task, description=f"pairs of {clip.name}")
            file = out / f"{clip.name}.npz"
            if not file.exists():
                random = np.random.default_rng([seed, index])
                crops = list(_clip_crops(clip, FaceFinder(data, random), random))
                coded, original, qp = (np.stack(part) for part in zip(*crops, strict=True))
                partial = file.with_suffix(".partial.npz")
                np.savez(partial, coded=coded, original=original, qp=qp)
                partial.rename(file)
            files.append(file)
            progress.advance(task)
    return sorted(files)


def load(files: list[Path]) -> Pairs:
    """All crops of `prepare`'s files in memory (about 50 kB each)."""
    parts = []
    names: list[str] = []
    for file in files:
        with np.load(file) as part:
            parts.append((part["coded"], part["original"], part["qp"]))
            names += [file.stem] * len(parts[-1][2])
    coded, original, qp = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Pairs(coded, original, qp, names)


_Crop = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]


def _clip_crops(clip: Clip, finder: FaceFinder, random: np.random.Generator) -> Iterator[_Crop]:
    with av.open(str(clip.path)) as container:
        seconds = (container.duration or 0) / 1e6
    count = 2 if seconds < 3 else 3 if seconds < 9 else 4
    for part in range(count):
        # Most clips are soft and already compressed once; made smaller they are as sharp as a camera's picture.
        shrink = float(random.choice([1.0, 0.7, 0.5]))
        frames = read_segment(clip.path, seconds * part / count, SEGMENT, shrink)
        if not frames:
            continue
        face = finder.mask(frames[len(frames) // 2])
        for _ in range(2):
            background, offset = int(random.integers(27, 45)), int(random.integers(0, 13))
            coded = transcode(frames, quantisers(face, background, offset))
            for index in _KEPT:
                if index < len(frames):
                    yield from _crops(frames[index], coded[index], face, random)


def _crops(original: I420, coded: Coded, face: Mask, random: np.random.Generator) -> Iterator[_Crop]:
    """Crops on the macroblock grid, one per 60,000 samples, two thirds of them on the face."""
    width, height = original.shape[1], original.shape[0] * 2 // 3
    edge = CROP // MACROBLOCK
    last_row, last_column = height // MACROBLOCK - edge, width // MACROBLOCK - edge
    on_face = np.argwhere(face)
    for _ in range(max(1, width * height // 60_000)):
        if len(on_face) and random.random() < 0.67:
            row, column = on_face[random.integers(len(on_face))] - edge // 2
        else:
            row, column = random.integers(last_row + 1), random.integers(last_column + 1)
        row, column = int(np.clip(row, 0, last_row)), int(np.clip(column, 0, last_column))
        yield (
            _cut(coded.i420, row * MACROBLOCK, column * MACROBLOCK),
            _cut(original, row * MACROBLOCK, column * MACROBLOCK),
            coded.qp[row : row + edge, column : column + edge],
        )


def _cut(i420: I420, top: int, left: int) -> I420:
    """A CROP x CROP piece as I420."""
    luma, chroma = planes(i420)
    half = CROP // 2
    small = chroma[:, top // 2 : top // 2 + half, left // 2 : left // 2 + half]
    return np.concatenate([luma[top : top + CROP, left : left + CROP], small.reshape(-1, CROP)])
