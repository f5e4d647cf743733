"""Clips made of portraits: a still moved as a person in a call and a hand with a camera move.

There are few people to be had in clips and many in portraits, and portraits are sharper than clips that were coded
once. A head sways, nods and comes nearer before its background, the mouth opens and closes, some cameras
shake, some have noise; what the coder makes of that is what it makes of a call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from models.evaluation.detector import Boxes, ReferenceDetector
from models.training.stills import Image, read_picture
from shared.picture import I420, i420_from_bgr, planes, size_of
from shared.x264 import write_pictures

FPS = 30
_LEAST_SIDE = 320
_NOISE = 0.3, 2.0
"""Standard deviation of the noise of some cameras, code values."""
_SWAY, _TURN, _NEARER, _SPEECH = 0.02, 1.2, 0.01, 0.03
"""Standard deviations: of a face's height; degrees; parts; of a face's height."""

Plane = NDArray[np.float32]
_Move = Callable[[int], tuple[Plane, Plane]]


def write_moving(portrait: Path, detector: Path, out: Path, seconds: float, chance: np.random.Generator) -> None:
    """Write `seconds` of the picture file `portrait` to `out`, without loss, at 30 pictures a second.

    `detector`: the weights of ReferenceDetector; where it finds nobody, only the camera moves. Raises SemcallError
    when a file cannot be read.
    """
    picture = read_picture(portrait)
    picture, boxes = _framed(picture, ReferenceDetector(detector).find(picture), chance)
    pictures = moved(_in_other_light(picture, chance), boxes, round(seconds * FPS), chance)
    first = next(pictures)
    write_pictures(out, size_of(first), FPS, chain([first], pictures))


def moved(picture: Image, boxes: Boxes, count: int, chance: np.random.Generator) -> Iterator[I420]:
    """`count` pictures of the size of `picture`, less an odd row or column, in which the people in `boxes` move."""
    height, width = picture.shape[:2]
    rows, columns = (axis.astype(np.float32) for axis in np.mgrid[:height, :width])
    people = [_person(box, rows, columns, count, chance) for box in boxes]
    camera = _camera(max(height, width), count, chance)
    noise = 0.0 if chance.random() < 0.7 else chance.uniform(*_NOISE)
    for number in range(count):
        x, y = camera(number, columns - width / 2, rows - height / 2)
        x, y = x + columns, y + rows
        for move in people:
            right, down = move(number)
            x, y = x + right, y + down
        still = cv2.remap(picture, x, y, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT_101)
        i420 = i420_from_bgr(np.asarray(still, np.uint8))
        if noise:
            luma = planes(i420)[0]
            luma[:] = np.clip(luma + chance.normal(0, noise, luma.shape), 16, 235).round()
        yield i420


def _framed(picture: Image, boxes: Boxes, chance: np.random.Generator) -> tuple[Image, Boxes]:
    """What a camera on a desk would see of it: the largest face, and what there is around it up to a measure."""
    if not len(boxes):
        return picture, boxes
    left, top, width, height = (float(v) for v in boxes[np.argmax(boxes[:, 2] * boxes[:, 3]), :4])
    high = min(picture.shape[0], round(max(_LEAST_SIDE, chance.uniform(2.2, 4.5) * height)))
    wide = min(picture.shape[1], round(high * chance.uniform(1, 1.6)))
    above, beside = high * chance.uniform(0.35, 0.5), wide * chance.uniform(0.35, 0.65)
    row = round(min(max(0.0, top + height / 2 - above), picture.shape[0] - high))
    column = round(min(max(0.0, left + width / 2 - beside), picture.shape[1] - wide))
    moved_boxes = boxes.copy()
    moved_boxes[:, [0, *range(4, 14, 2)]] -= column
    moved_boxes[:, [1, *range(5, 14, 2)]] -= row
    return picture[row : row + high, column : column + wide], moved_boxes


def _person(box: NDArray[np.float32], x: Plane, y: Plane, count: int, chance: np.random.Generator) -> _Move:
    """Where from in the still: offsets right and down of every sample, for one face and what is around it."""
    left, top, width, height = (float(v) for v in box[:4])
    across, down = x - (left + width / 2), y - (top + height / 2)
    head = np.exp(-0.5 * ((across / (0.9 * width)) ** 2 + (down / height) ** 2))
    lips = box[10:14].reshape(2, 2).mean(0) + np.array([0, 0.08 * height], np.float32)
    mouth = np.exp(-0.5 * (((x - lips[0]) / (0.16 * height)) ** 2 + ((y - lips[1]) / (0.12 * height)) ** 2))
    sway = [_SWAY * height * _wander(count, 0.1, 1.2, chance) for _ in range(2)]
    turn = math.radians(_TURN) * _wander(count, 0.1, 0.8, chance)
    nearer = _NEARER * _wander(count, 0.1, 0.5, chance)
    speech = _SPEECH * height * np.maximum(0, _wander(count, 1.5, 5, chance))
    neck = 0.7 * height

    def move(number: int) -> tuple[Plane, Plane]:
        right, under = _turned(across, down, sway[0][number], sway[1][number], turn[number], nearer[number], neck)
        return head * right, head * under - mouth * speech[number]

    return move


def _camera(size: int, count: int, chance: np.random.Generator) -> Callable[[int, Plane, Plane], tuple[Plane, Plane]]:
    """Half of the cameras stand still, others shake in a hand or glide; offsets from distances to the middle."""
    kind = chance.choice(["still", "shaking", "gliding"], p=[0.5, 0.3, 0.2])
    if kind == "shaking":
        right, under = (0.001 * size * _wander(count, 0.3, 4, chance) for _ in range(2))
        turn, nearer = math.radians(0.15) * _wander(count, 0.3, 3, chance), np.zeros(count, np.float32)
    else:
        along = np.linspace(-0.5, 0.5, count, dtype=np.float32) * (kind == "gliding")
        right, under = (size * chance.uniform(-0.04, 0.04) * along for _ in range(2))
        turn, nearer = math.radians(chance.uniform(-1, 1)) * along, chance.uniform(-0.04, 0.04) * along

    def move(number: int, across: Plane, down: Plane) -> tuple[Plane, Plane]:
        return _turned(across, down, right[number], under[number], turn[number], nearer[number])

    return move


def _turned(
    across: Plane, down: Plane, right: float, under: float, turn: float, nearer: float, pivot: float = 0.0
) -> tuple[Plane, Plane]:
    """Offsets, from distances to a middle: moved, turned by small radians about `pivot` below it, and come nearer."""
    return right - turn * (down - pivot) - nearer * across, under + turn * across - nearer * down


def _wander(count: int, slow: float, fast: float, chance: np.random.Generator) -> NDArray[np.float32]:
    """A random sum of three sines over `count` pictures, of standard deviation 1 in the long run; rates in Hz."""
    seconds = np.arange(count)[:, None] / FPS
    rates, phases = chance.uniform(slow, fast, 3), chance.uniform(0, 2 * np.pi, 3)
    return np.asarray(np.sin(2 * np.pi * rates * seconds + phases).sum(1) * np.sqrt(2 / 3), np.float32)


def _in_other_light(picture: Image, chance: np.random.Generator) -> Image:
    """Darker or brighter, more or less colourful, of another white."""
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)[..., None].astype(np.float32)
    coloured = grey + chance.uniform(0.5, 1.15) * (picture - grey)
    white = chance.uniform(0.94, 1.06, 3).astype(np.float32)
    lit = 255 * (np.clip(coloured * white, 0, 255) / 255) ** np.exp(chance.uniform(-0.3, 0.4))
    return np.asarray(lit.round(), np.uint8)
