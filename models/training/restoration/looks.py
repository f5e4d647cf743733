"""Other looks of a clip: a piece of it from anywhere, its people and its light slightly other ones.

There are few people in the clips that may be trained on, and a network learns their very pictures by heart. A face
that is turned, stretched and bent a little, in another light, has other edges and textures in other places of the
encoder's grid, and moves as it did.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.clips import Clip
from shared.picture import I420, planes
from shared.x264 import write_pictures

_TURN, _STRETCH, _NEARER = 8.0, 0.08, 0.12
"""Most of each: degrees; logarithm by which one side grows and the other shrinks; parts by which all comes nearer."""
_BEND, _WAVES = 0.12, (0.4, 1.2)
"""Most that a bend stretches anything, and its wavelengths in parts of the shorter side."""
_GAMMA, _COLOUR, _WHITE = 0.3, (0.5, 1.15), 5.0
"""Most of its logarithm; how colourful, in parts; code values that the white moves in chroma.

Milder than the light of moving.py, since each clip comes in many looks and each portrait in few.
"""

Plane = NDArray[np.float32]


def write_look(clip: Path, out: Path, seconds: float, chance: np.random.Generator) -> None:
    """Write `seconds` of the video file `clip`, from anywhere, to `out`, without loss, in one other look.

    Rounded to whole pictures, which go at the clip's nominal rate; a clip that is shorter is written whole. Raises
    SemcallError for a file that cannot be read or written.
    """
    source = Clip(clip)
    count = round(seconds * source.fps)
    length = _length(clip)
    start = int(chance.integers(max(1, length - count + 1)))
    look = another_look(*source.size, chance)
    piece = source.pictures(set(range(start, min(start + count, length))))
    write_pictures(out, source.size, source.fps, (look(i420) for _, i420 in piece))


@lru_cache(maxsize=1)
def _length(clip: Path) -> int:
    """How many pictures a file has: all are decoded. The looks of one clip follow each other."""
    return sum(1 for _ in Clip(clip).frames())


def another_look(width: int, height: int, chance: np.random.Generator) -> Callable[[I420], I420]:
    """A look for pictures of that size: the same for each that the function is given.

    `width`, `height`: even. Of an I420 array uint8 [height * 3 / 2, width] the function makes another one, luma
    within 16..235 and chroma within 16..240.
    """
    across, down = _places(width, height, chance)
    # Chroma lies between luma's samples, across and down alike, as in all of semcall's conversions.
    half_across, half_down = (
        np.asarray((cv2.resize(axis, (width // 2, height // 2), interpolation=cv2.INTER_AREA) - 0.5) / 2, np.float32)
        for axis in (across, down)
    )
    gamma = math.exp(chance.uniform(-_GAMMA, _GAMMA))
    grey = np.clip((np.arange(256) - 16) / 219, 0, 1)
    brightness = np.round(16 + 219 * grey**gamma).astype(np.uint8)
    colour, white = chance.uniform(*_COLOUR), chance.uniform(-_WHITE, _WHITE, 2)
    colours = [
        np.clip(np.round(128 + colour * (np.arange(256) - 128) + moved), 16, 240).astype(np.uint8) for moved in white
    ]

    def look(i420: I420) -> I420:
        luma, chroma = planes(i420)
        lit = cv2.LUT(_seen(luma, across, down), brightness)
        tinted = [
            cv2.LUT(_seen(part, half_across, half_down), table) for part, table in zip(chroma, colours, strict=True)
        ]
        return np.concatenate([lit, np.stack(tinted).reshape(-1, width)]).astype(np.uint8)

    return look


def _seen(plane: NDArray[np.uint8], across: Plane, down: Plane) -> NDArray[np.uint8]:
    found = cv2.remap(plane, across, down, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(found, np.uint8)


def _places(width: int, height: int, chance: np.random.Generator) -> tuple[Plane, Plane]:
    """Where each sample of luma comes from: columns and rows, float32 [height, width]."""
    rows, columns = (axis.astype(np.float64) for axis in np.mgrid[:height, :width])
    x, y = columns - (width - 1) / 2, rows - (height - 1) / 2
    turn, stretch = math.radians(chance.uniform(-_TURN, _TURN)), math.exp(chance.uniform(-_STRETCH, _STRETCH))
    nearer = 1 - chance.uniform(0, _NEARER)
    x, y = x * nearer * stretch, y * nearer / stretch
    x, y = x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)
    x, y = x + _bent(x, y, min(width, height), chance), y + _bent(x, y, min(width, height), chance)
    if chance.random() < 0.5:
        x = -x
    return (x + (width - 1) / 2).astype(np.float32), (y + (height - 1) / 2).astype(np.float32)


def _bent(x: NDArray[np.float64], y: NDArray[np.float64], side: int, chance: np.random.Generator) -> Plane:
    """Two long waves in any direction, in samples."""
    bend = np.zeros_like(x)
    for _ in range(2):
        wavelength, direction, phase = side * chance.uniform(*_WAVES), *chance.uniform(0, 2 * math.pi, 2)
        frequency = 2 * math.pi / wavelength
        along = x * math.cos(direction) + y * math.sin(direction)
        bend += chance.uniform(0, _BEND) / 2 / frequency * np.sin(frequency * along + phase)
    return bend.astype(np.float32)
