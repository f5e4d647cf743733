"""One training sample, and what all kinds of samples share: the geometry of pasting a head into a picture."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from models.training.face.augment import Chance, cloth, complexion
from models.training.face.materials import Head, Plane
from models.training.stills import Image

Affine = NDArray[np.float64]
"""[2, 3], from source pixels to the sample's."""


@dataclass(slots=True)
class Sample:
    """A picture float32 BGR [h, w, 3], 0..255, and per pixel, float32 [h, w], 0..1: what is face, what is head
    (face and hair), and how far each of the two is known.
    """

    picture: Plane
    face: Plane
    head: Plane
    face_known: Plane
    head_known: Plane

    @classmethod
    def empty(cls, picture: Image | Plane) -> Sample:
        """A picture that shows nobody."""
        nothing = np.zeros(picture.shape[:2], np.float32)
        known = np.ones_like(nothing)
        return cls(picture.astype(np.float32), nothing, nothing.copy(), known, known.copy())

    def cover(self, mask: Plane, colours: Plane) -> None:
        """Lay something that is no head over it: `mask` float32 [h, w], 0..1, `colours` BGR."""
        soft = mask[..., None]
        self.picture = self.picture * (1 - soft) + colours * soft
        self.face = self.face * (1 - mask)
        self.head = self.head * (1 - mask)


def scale_of(matrix: Affine) -> float:
    """How much larger things get."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))


def placed(
    scale: float, degrees: float, mirrored: bool, centre: tuple[float, float], at: tuple[float, float]
) -> Affine:
    """Scale, turn and mirror so that `centre` of the source comes to lie `at` in the sample."""
    angle = np.deg2rad(degrees)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if mirrored:
        turn[:, 0] *= -1
    return np.hstack([turn, (np.array(at) - turn @ np.array(centre))[:, None]])


def warped(plane: NDArray[np.generic], matrix: Affine, size: tuple[int, int]) -> Plane:
    """A plane or picture under `matrix`, float32, without aliasing; zero outside."""
    scale = scale_of(matrix)
    source = plane.astype(np.float32)
    if scale < 0.75:
        source = np.asarray(cv2.GaussianBlur(source, (0, 0), 0.45 / scale), np.float32)
    return np.asarray(cv2.warpAffine(source, matrix, size), np.float32)


def squeezed(head: Head, chance: Chance) -> Head:
    """A head a little narrower or wider: the profiles at hand are of few people."""
    rows, columns = head.face.shape
    across = float(np.exp(chance.uniform(-0.18, 0.18)))
    size = max(1, round(columns * across)), rows
    left, top, wide, tall = head.box
    return replace(
        head,
        picture=np.asarray(cv2.resize(head.picture, size), np.uint8),
        face=np.asarray(cv2.resize(head.face, size, interpolation=cv2.INTER_NEAREST), np.uint8),
        head=np.asarray(cv2.resize(head.head, size, interpolation=cv2.INTER_NEAREST), np.uint8),
        box=(left * across, top, wide * across, tall),
    )


def with_longer_neck(head: Head, chance: Chance, neckless: float = 0.25) -> Head:
    """The cut-outs end under the chin; real necks do not: rows below the chin stretched one to three times.

    `neckless`: of all, left as they are.
    """
    rows, columns = head.face.shape
    chin = min(int(head.box[1] + head.box[3]), rows - 6)
    if chin < rows / 2 or chance.random() < neckless:
        return head
    longer = int((rows - chin) * chance.uniform(1, 3.2)) + int(chance.integers(0, max(1, int(0.25 * head.box[3]))))
    longer = max(min(longer, int(0.7 * head.box[3])), rows - chin)

    def stretched(plane: Image, how: int) -> Image:
        below = cv2.resize(plane[chin:], (columns, longer), interpolation=how)
        return np.asarray(np.concatenate([plane[:chin], below]), np.uint8)

    nearest = cv2.INTER_NEAREST
    return replace(
        head,
        picture=stretched(head.picture, cv2.INTER_LINEAR),
        face=stretched(head.face, nearest),
        head=stretched(head.head, nearest),
    )


def paste(sample: Sample, head: Head, matrix: Affine, textile: Image, chance: Chance, dressed: float = 0.9) -> None:
    """Put a head under `matrix` into the sample, over shoulders (with probability `dressed`) and behind a collar.

    `textile`: a picture of the sample's size that clothes are cut from.
    """
    height, width = sample.face.shape
    size = width, height
    toned = complexion(head.picture, chance) if chance.random() < 0.75 else head.picture
    picture = warped(toned, matrix, size)
    face, whole = warped(head.face, matrix, size), warped(head.head, matrix, size)
    if chance.random() < dressed:
        dress(sample, head, matrix, cloth(size, textile, chance), chance)
        if chance.random() < 0.8:
            above = 1 - _collar(head, matrix, size, chance)
            face, whole = face * above, whole * above
    soft = cv2.GaussianBlur(whole, (0, 0), chance.uniform(0.3, 0.9))[..., None]
    sample.picture = picture * soft + sample.picture * (1 - soft)
    sample.face = sample.face * (1 - whole) + face
    sample.head = np.maximum(sample.head, whole)
    if chance.random() < 0.12:
        _headphones(sample, head, matrix, chance)
    if chance.random() < 0.15:
        _something_in_front(sample, head, matrix, chance)


def _foot(head: Head, matrix: Affine) -> tuple[float, float, float, float]:
    """Where the cut-out ends below, in the sample: x, y, width, height."""
    rows, columns = head.face.shape
    x, y = matrix @ [columns / 2, rows, 1]
    scale = scale_of(matrix)
    return float(x), float(y), scale * columns, scale * rows


def dress(sample: Sample, head: Head, matrix: Affine, colours: Plane, chance: Chance) -> None:
    """Draw shoulders below where the head under `matrix` will lie; `colours`: BGR of the sample's size."""
    x, y, wide, tall = _foot(head, matrix)
    top, neck, shoulder = y - tall * chance.uniform(0.02, 0.12), wide * chance.uniform(0.2, 0.4), tall
    reach, fall = wide * chance.uniform(0.7, 1.5), shoulder * chance.uniform(0.1, 0.35)
    bottom = sample.face.shape[0] + 50
    outline = [
        (x - neck, top),
        (x + neck, top),
        (x + reach, top + fall),
        (x + 1.1 * reach, bottom),
        (x - 1.1 * reach, bottom),
        (x - reach, top + fall),
    ]
    body = cv2.fillPoly(np.zeros(sample.face.shape, np.uint8), [np.array(outline, np.int32)], 1)
    sample.cover(np.asarray(cv2.GaussianBlur(body.astype(np.float32), (0, 0), 0.8), np.float32), colours)


def _collar(head: Head, matrix: Affine, size: tuple[int, int], chance: Chance) -> Plane:
    """What clothes hide of the cut-out: all below a curve."""
    x, y, wide, tall = _foot(head, matrix)
    edge = y - tall * chance.uniform(0, 0.06)
    hidden = np.zeros(size[::-1], np.float32)
    hidden[int(np.clip(edge, 0, size[1])) :] = 1
    axes = int(wide * chance.uniform(0.25, 0.6)) + 1, int(tall * chance.uniform(0.02, 0.12)) + 1
    return np.asarray(cv2.ellipse(hidden, (int(x), int(edge)), axes, 0, 0, 360, 0, -1), np.float32)


def _headphones(sample: Sample, head: Head, matrix: Affine, chance: Chance) -> None:
    left, top, wide, tall = head.box
    x, y = matrix @ [left + wide / 2, top + tall / 2, 1]
    scale = scale_of(matrix)
    across, up = scale * wide * chance.uniform(0.6, 0.72), scale * tall * chance.uniform(0.75, 0.95)
    shape = np.zeros(sample.face.shape, np.uint8)
    thick = max(1, round(scale * wide * chance.uniform(0.06, 0.14)))
    cv2.ellipse(shape, (int(x), int(y)), (int(across), int(up)), 0, 180, 360, 1, thick)
    for side in (-1, 1):
        cup = int(scale * wide * 0.11) + 1, int(scale * tall * 0.2) + 1
        cv2.ellipse(shape, (int(x + side * across), int(y)), cup, 0, 0, 360, 1, -1)
    colour = np.float32(chance.uniform(0, 255)) + chance.uniform(-20, 20, 3).astype(np.float32)
    sample.cover(shape.astype(np.float32), np.clip(colour, 0, 255) * np.ones_like(sample.picture))


def _something_in_front(sample: Sample, head: Head, matrix: Affine, chance: Chance) -> None:
    """A hand, a cup or a microphone over part of the face."""
    left, top, wide, tall = head.box
    x, y = matrix @ [left + wide * chance.uniform(-0.1, 1.1), top + tall * chance.uniform(0.4, 1.3), 1]
    scale = scale_of(matrix)
    shape = np.zeros(sample.face.shape, np.uint8)
    axes = int(scale * wide * chance.uniform(0.1, 0.35)) + 1, int(scale * tall * chance.uniform(0.1, 0.4)) + 1
    cv2.ellipse(shape, (int(x), int(y)), axes, chance.uniform(0, 180), 0, 360, 1, -1)
    skin = head.picture[head.face > 0].mean(0).astype(np.float32)
    colour = skin * chance.uniform(0.6, 1.1) if chance.random() < 0.5 else chance.uniform(0, 255, 3)
    colours = np.clip(np.asarray(colour, np.float32), 0, 255) * np.ones_like(sample.picture)
    sample.cover(shape.astype(np.float32), np.asarray(colours, np.float32))
