"""Real pictures after the link, to calibrate and to judge an 8-bit network on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.networks.features import VGG, JudgeVgg
from models.training.coding import transcode
from models.training.manifest import permissive_clips
from shared.astronaut import AstronautClip
from shared.clips import Clip
from shared.errors import SemcallError
from shared.grid import MACROBLOCK, grid_shape
from shared.picture import I420, cropped, planes, size_of

CROP = 256
"""Samples across and down of a sample picture, or the whole side where that is shorter."""
_BACKGROUNDS = (30, 34, 38, 42)
_FINER = 8  # quantiser steps, on the face
_FRAMES, _FIRST = 8, 24


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture after the link: `coded` and `original` I420 of the same size, `qp` uint8 [rows, columns]."""

    coded: I420
    qp: NDArray[np.uint8]
    original: I420


@dataclass(frozen=True, slots=True)
class Material:
    """Pictures to calibrate and to judge an 8-bit variant on. `source`: what they are of, for the card.

    `eye`: a feature network to compare pictures with; None: by the root of the mean squared error of luma.
    """

    calibration: list[Sample]
    judged: list[Sample]
    source: str
    eye: JudgeVgg | None = None


def gather(data: Path | None, clips: int = 12) -> Material:
    """Decoded pictures of up to so many permissive training clips in `data`, and validation clips to judge by.

    None: both of the demo source, early and late pictures of it. Raises SemcallError for a directory without clips,
    and where no clip gives a picture.
    """
    if data is None:
        demo = AstronautClip()
        early, late = ([demo.picture(first + n) for n in range(_FRAMES)] for first in (0, 240))
        return Material(
            [sample for background in _BACKGROUNDS for sample in _pictures(early, background)],
            [sample for background in _BACKGROUNDS for sample in _pictures(late, background)],
            "the demo source (shared/astronaut.py)",
        )
    found: dict[str, list[Sample]] = {}
    for split in ("train", "val"):
        listed = permissive_clips(data, split)
        found[split] = []
        for index, clip in enumerate(listed[:: max(1, len(listed) // clips)][:clips]):
            frames = _frames(clip.path)
            found[split] += _pictures(frames, _BACKGROUNDS[index % len(_BACKGROUNDS)])
        if not found[split]:
            raise SemcallError(f"No clip of split {split} in {data} gives a picture; name another directory.")
    weights = data / "weights" / VGG
    return Material(
        found["train"],
        found["val"],
        "permissive training clips, judged on validation clips",
        JudgeVgg(weights) if weights.exists() else None,
    )


def inputs(i420: I420, qp: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
    """A picture, uint8 [H * 3 / 2, W], and its quantisers as the restorer contract names and shapes them."""
    y, uv = planes(i420)
    return {"y": y[None, None], "uv": uv[None], "qp": qp[None, None]}


def _frames(path: Path) -> list[I420]:
    """Successive pictures of a clip, not its first, which often is a title; those it has where it is short."""
    found = dict(Clip(path).pictures(set(range(_FIRST + _FRAMES))))
    return [found[number] for number in sorted(found)][-_FRAMES:]


def _pictures(frames: Sequence[I420], background: int) -> list[Sample]:
    """Of two pictures of a coding, the middle, where faces are, and a corner."""
    pictures = coded_like_a_call(frames, background)
    found = []
    for sample in pictures[1 :: max(1, len(pictures) - 2)]:
        width, height = size_of(sample.coded)
        room = max(0, height - CROP), max(0, width - CROP)
        found += [
            _cut(sample, top // MACROBLOCK, left // MACROBLOCK) for top, left in ((room[0] // 3, room[1] // 2), room)
        ]
    return found


def coded_like_a_call(frames: Sequence[I420], background: int) -> list[Sample]:
    """Pictures after the link, an oval in the middle coded more finely, as the sender does with a face."""
    if not frames:
        return []
    rows, columns = grid_shape(*size_of(frames[0]))
    row, column = np.mgrid[:rows, :columns]
    oval = ((row / rows - 0.45) / 0.35) ** 2 + ((column / columns - 0.5) / 0.2) ** 2 < 1
    qp = np.where(oval, background - _FINER, background).astype(np.uint8)
    return [Sample(one.i420, one.qp, frame) for one, frame in zip(transcode(frames, qp), frames, strict=True)]


def _cut(sample: Sample, row: int, column: int) -> Sample:
    """The part of a picture that begins at a macroblock."""
    top, left = row * MACROBLOCK, column * MACROBLOCK
    edge = CROP // MACROBLOCK
    return Sample(
        cropped(sample.coded, top, left, CROP, CROP),
        np.ascontiguousarray(sample.qp[row : row + edge, column : column + edge]),
        cropped(sample.original, top, left, CROP, CROP),
    )
