"""The teacher: parses a crop around a detected face, whose oval it is told as a fourth channel.

Trained on labelled heads pasted on photographs, and on real crops of which only the certain is told: the inner oval
is face, what is far away is not. It labels pictures that the parser then learns from.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from models.training.face.augment import Chance, background, blurred, degraded
from models.training.face.loss import STRIDE, tensors
from models.training.face.materials import Head, Person, Plane
from models.training.face.sample import Affine, Sample, paste, placed, scale_of, warped, with_longer_neck
from models.training.stills import Image

SIDE = 160
"""Of the crop, pixels; a face's box is 1/2.3 of it high."""
MARGIN = 2.3
_SURE, _LARGE = 0.75, 36
"""Detections to learn from: least score, least height in pixels."""
Box = tuple[float, float, float, float]


class TeacherSamples:
    """Batches for the teacher: 9 in 16 pasted heads, the rest real crops."""

    def __init__(
        self, heads: list[Head], people: list[Person], photographs: list[Image], seed: int, batch: int
    ) -> None:
        self._frontal = [head for head in heads if head.name.startswith("frontal")] or heads
        self._turned = [head for head in heads if not head.name.startswith("frontal")] or heads
        self._real = [person for person in people if _worthy(person)]
        self._photographs, self._seed, self._batch = photographs, seed, batch

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """Pictures uint8 [n, 4, 160, 160], answers, knowledge: see `loss.tensors`."""
        chance = np.random.default_rng([self._seed, 1, step])
        pairs = []
        for number in range(self._batch):
            if 16 * number < 9 * self._batch or not self._real:
                some = self._frontal if chance.random() < 0.5 else self._turned
                pairs.append(self._pasted(some[chance.integers(len(some))], chance))
            else:
                pairs.append(_real(self._real[chance.integers(len(self._real))], chance))
        for sample, _ in pairs:
            picture = np.clip(sample.picture, 0, 255).astype(np.uint8)
            sample.picture = degraded(picture, chance).astype(np.float32)
        return tensors([sample for sample, _ in pairs], [oval for _, oval in pairs])

    def _pasted(self, head: Head, chance: Chance) -> tuple[Sample, Image]:
        head = with_longer_neck(head, chance)
        size = SIDE, SIDE
        sample = Sample.empty(background(self._photographs, size, chance))
        if chance.random() < 0.15:
            sample.picture = np.full((SIDE, SIDE, 3), chance.uniform(0, 255, 3), np.float32)
        matrix = crop(head.box, chance)
        paste(sample, head, matrix, background(self._photographs, size, chance), chance, dressed=0.85)
        return sample, oval(head.box, matrix, chance)


def crop(box: Box, chance: Chance | None = None) -> Affine:
    """From a picture to the teacher's crop of it around `box`; shaken a little by `chance`."""
    left, top, width, height = box
    scale = SIDE / (MARGIN * max(height, 1.15 * width))
    at = np.array([SIDE / 2, 0.45 * SIDE])
    if chance is None:
        return placed(scale, 0, False, (left + width / 2, top + height / 2), (at[0], at[1]))
    scale *= np.exp(chance.uniform(-0.25, 0.25))
    degrees = chance.uniform(-25, 25) if chance.random() < 0.6 else 0.0
    at += chance.uniform(-0.08, 0.08, 2) * SIDE
    mirrored = chance.random() < 0.5
    return placed(scale, degrees, mirrored, (left + width / 2, top + height / 2), (at[0], at[1]))


def oval(box: Box, matrix: Affine, chance: Chance | None = None) -> Image:
    """The box's inner oval in the crop, as the fourth channel: uint8 [160, 160], 0 or 255."""
    left, top, width, height = box
    centre = matrix @ [left + width / 2, top + height / 2, 1]
    axes = np.array([width, height]) / 2 * scale_of(matrix)
    if chance is not None:
        axes = axes * np.exp(chance.uniform(-0.12, 0.12, 2))
        centre = centre + 2 * chance.uniform(-0.06, 0.06, 2) * axes
    angle = float(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])))
    drawn = np.zeros((SIDE, SIDE), np.uint8)
    half = max(1, int(axes[0])), max(1, int(axes[1]))
    return np.asarray(cv2.ellipse(drawn, (int(centre[0]), int(centre[1])), half, angle, 0, 360, 255, -1), np.uint8)


def look(net: nn.Module, picture: Image, boxes: Sequence[Box]) -> list[tuple[Plane, Plane, Affine, Image]]:
    """What the teacher sees at each box of a BGR picture, averaged with its mirror image.

    Probability of face and of head float32 [40, 40], the crop's matrix, and its oval.
    """
    seen = []
    for box in boxes:
        matrix = crop(box)
        scale = scale_of(matrix)
        source = blurred(picture, 0.4 / scale) if scale < 0.7 else picture
        part = cv2.warpAffine(source, matrix, (SIDE, SIDE))
        told = oval(box, matrix)
        stack = np.concatenate([part[..., ::-1], told[..., None]], 2)
        both = np.stack([stack, stack[:, ::-1]]).transpose(0, 3, 1, 2).astype(np.float32)
        with torch.no_grad():
            classes = torch.softmax(net(torch.from_numpy(np.ascontiguousarray(both))), 1).numpy()
        mean = (classes[0] + classes[1][..., ::-1]) / 2
        seen.append((mean[1], mean[1] + mean[2], matrix, told))
    return seen


def back(plane: Plane, matrix: Affine, size: tuple[int, int]) -> Plane:
    """A plane of the teacher's output in the pixels of the picture, (width, height); zero outside the crop."""
    to_crop = np.vstack([matrix, [0, 0, 1]])
    half = (STRIDE - 1) / 2
    from_cells = np.array([[STRIDE, 0, half], [0, STRIDE, half], [0, 0, 1.0]])
    matrix = (np.linalg.inv(to_crop) @ from_cells)[:2]
    return np.asarray(cv2.warpAffine(plane, matrix, size, flags=cv2.INTER_LINEAR), np.float32)


def _worthy(person: Person) -> bool:
    good = (person.boxes[:, 14] > _SURE) & (person.boxes[:, 3] > _LARGE)
    return bool(good.any()) and (len(person.boxes) <= 3 if person.still else len(person.boxes) == 1)


def _real(person: Person, chance: Chance) -> tuple[Sample, Image]:
    """A real crop and what is certain about it."""
    boxes = person.boxes[person.boxes[:, 14] > _SURE]
    left, top, width, height = (float(v) for v in boxes[chance.integers(len(boxes)), :4])
    box = left, top, width, height
    rows, columns = person.picture.shape[:2]
    face, head = np.zeros((rows, columns), np.uint8), np.zeros((rows, columns), np.uint8)
    no_face, no_head = np.ones_like(face), np.ones_like(face)
    for found in person.boxes:
        x, y, w, h = found[:4]
        middle, down = int(x + w / 2), int(y + h / 2)
        leaning = int((x + w / 2 + float(found[4:14:2].mean())) / 2)  # a turned face lies where its features are
        for plane in (face, head):
            cv2.ellipse(plane, (leaning, int(y + 0.56 * h)), (int(0.36 * w), int(0.36 * h)), 0, 0, 360, 1, -1)
        cv2.ellipse(no_face, (middle, down), (int(0.78 * w), int(0.68 * h)), 0, 0, 360, 0, -1)
        cv2.rectangle(
            no_face, (int(middle - 0.95 * w), int(down + 0.2 * h)), (int(middle + 0.95 * w), int(y + 1.95 * h)), 0, -1
        )
        cv2.ellipse(no_head, (middle, down), (int(1.2 * w), int(1.05 * h)), 0, 0, 360, 0, -1)
        cv2.rectangle(no_head, (int(middle - 1.2 * w), down), (int(middle + 1.2 * w), rows), 0, -1)
    matrix = crop(box, chance)
    size = SIDE, SIDE
    inside = warped(np.ones_like(face), matrix, size) > 0.5
    is_face, is_head = (warped(plane, matrix, size) > 0.5 for plane in (face, head))
    sure_face = (is_face | (warped(no_face, matrix, size) > 0.5)) & inside
    sure_head = (is_head | (warped(no_head, matrix, size) > 0.5)) & inside
    picture = cv2.warpAffine(person.picture, matrix, size)
    masks = [np.asarray(mask, np.float32) for mask in (is_face, is_head, sure_face, sure_head)]
    return Sample(picture.astype(np.float32), *masks), oval(box, matrix, chance)
