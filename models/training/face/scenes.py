"""What the parser learns from: whole pictures of a call, people near and far, several, half out of view, or none."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import cv2
import numpy as np
from torch import Tensor

from models.training.face.augment import Chance, background, blurred, degraded, with_skin_coloured_things
from models.training.face.cutouts import cut_out
from models.training.face.labels import Labelled
from models.training.face.loss import tensors
from models.training.face.materials import Head, Plane
from models.training.face.sample import Affine, Sample, paste, placed, scale_of, squeezed, with_longer_neck
from models.training.stills import Image

_ASPECTS = (16 / 9, 16 / 9, 16 / 9, 16 / 9, 9 / 16, 1.0)
SMALLEST, LARGEST = 0.03, 0.61
"""Heights of faces, parts of a landscape picture's height."""
_ACROSS_A_ROOM = 0.045, 0.22
_USUAL, _HARD = (0.36, 0.54, 0.86), (0.2, 0.32, 0.86)  # clips, stills, pasted heads, cumulative; the rest: nobody
_HEADS_USUAL, _HEADS_HARD = (0.4, 0.65), (0.25, 0.4)  # cut out, labelled and frontal, cumulative; the rest: turned
_DRESSED_USUAL, _DRESSED_HARD = 0.65, 0.35  # of pasted heads: with shoulders, so that a neck is seen, not presumed
_FAR_USUAL, _FAR_HARD = 0.5, 0.6  # of faces at a chosen size: across a room
_NECKLESS_USUAL, _NECKLESS_HARD = 0.25, 0.5  # of labelled heads: end where they were cut


KINDS = len(_ASPECTS)
"""Shapes of batches in turn."""


def shapes(pixels: int) -> tuple[tuple[int, int], ...]:
    """Widths and heights of batches in turn: landscape, portrait, square, about `pixels` each, multiples of 4."""
    widths = [4 * round((pixels * aspect) ** 0.5 / 4) for aspect in _ASPECTS]
    return tuple((width, 4 * round(width / aspect / 4)) for width, aspect in zip(widths, _ASPECTS, strict=True))


@dataclass(frozen=True, slots=True)
class _Levels:
    """Picture, face, head, unknown stacked [h, w, 6] at full, half and quarter size; boxes in full pixels."""

    planes: tuple[Image, ...]
    boxes: Plane


class Material:
    """What scenes are made of, prepared once: people at three sizes, heads of all kinds, photographs."""

    def __init__(self, labelled: list[Labelled], heads: list[Head], photographs: list[Image]) -> None:
        self.clips: dict[str, list[_Levels]] = defaultdict(list)
        self.stills: dict[str, list[_Levels]] = defaultdict(list)
        for one in labelled:
            some = self.stills if one.person.still else self.clips
            some[one.person.identity].append(_levels(one))
        self.frontal = [head for head in heads if head.name.startswith("frontal")] or heads
        self.turned = [head for head in heads if not head.name.startswith("frontal")] or heads
        self.cut_outs = [head for head in map(cut_out, labelled) if head is not None]
        self.photographs = photographs


class Scenes:
    """Batches for the parser, pictures of about `pixels`; `hard`: with more of what it finds late: small, turned and
    cut-off heads, and nobody.
    """

    def __init__(self, material: Material, seed: int, batch: int, pixels: int = 57600, hard: bool = False) -> None:
        self._kinds, self._heads = (_HARD, _HEADS_HARD) if hard else (_USUAL, _HEADS_USUAL)
        self._dressed, self._far = (_DRESSED_HARD, _FAR_HARD) if hard else (_DRESSED_USUAL, _FAR_USUAL)
        self._neckless = _NECKLESS_HARD if hard else _NECKLESS_USUAL
        self._shapes = shapes(pixels)
        self._material, self._seed, self._batch = material, seed, batch

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """Pictures uint8 [n, 3, h, w], answers, knowledge (see `loss.tensors`); the same for the same step."""
        chance = np.random.default_rng([self._seed, 2, step])
        size = self._shapes[step % len(self._shapes)]
        return tensors([self.scene(size, chance) for _ in range(self._batch)])

    def scene(self, size: tuple[int, int], chance: Chance) -> Sample:
        """One picture of (width, height)."""
        kind = chance.random()
        clips, stills, pasted = self._kinds
        if kind < stills and (self._material.clips or self._material.stills):
            people = (
                self._material.clips
                if kind < clips and self._material.clips
                else self._material.stills or self._material.clips
            )
            sample = self._real(people, size, chance)
        elif kind < pasted:
            sample = self._pasted(size, chance)
        else:
            sample = self._nobody(size, chance)
        sample.picture = degraded(np.clip(sample.picture, 0, 255).astype(np.uint8), chance).astype(np.float32)
        return sample

    def _real(self, people: dict[str, list[_Levels]], size: tuple[int, int], chance: Chance) -> Sample:
        sample = self._one_real(people, size, chance)
        if chance.random() < 0.1:  # two rooms side by side: several people, each with a surrounding of their own
            other = self._one_real(people, size, chance)
            seam = int(size[0] * chance.uniform(0.3, 0.7))
            for mine, its in zip(_planes(sample), _planes(other), strict=True):
                mine[:, seam:] = its[:, seam:]
        if chance.random() < 0.1:  # a second, pasted person
            self._paste_somebody(sample, size, chance)
        return sample

    def _one_real(self, people: dict[str, list[_Levels]], size: tuple[int, int], chance: Chance) -> Sample:
        names = list(people)
        some = people[names[chance.integers(len(names))]]
        levels = some[chance.integers(len(some))]
        matrix = _view(levels, size, chance, self._far)
        scale = scale_of(matrix)
        level = 0 if scale >= 0.7 else 1 if scale >= 0.35 else 2
        source = levels.planes[level]
        full = levels.planes[0]
        fit = matrix.copy()
        fit[:, 0] *= full.shape[1] / source.shape[1]
        fit[:, 1] *= full.shape[0] / source.shape[0]
        inside = cv2.warpAffine(np.ones(source.shape[:2], np.uint8), fit, size, flags=cv2.INTER_NEAREST) > 0
        mirrored = not inside.all() and inside.mean() > 0.3 and chance.random() < 0.5
        border = cv2.BORDER_REFLECT_101 if mirrored else cv2.BORDER_CONSTANT
        picture = cv2.warpAffine(source[..., :3], fit, size, borderMode=border)
        face, head, unknown = (
            cv2.warpAffine(np.ascontiguousarray(source[..., n]), fit, size, borderMode=border) for n in (3, 4, 5)
        )
        known = (unknown < 26).astype(np.float32)
        if mirrored:  # the picture goes on; people in the mirror are nobody's business
            reflected = ~inside & (np.maximum(face, head) > 12)
            known[reflected] = 0
        elif not inside.all():
            picture = np.where(inside[..., None], picture, self._around(levels, size, chance))
        scaled = [np.asarray(plane.astype(np.float32) / 255, np.float32) for plane in (face, head)]
        return Sample(np.asarray(picture, np.float32), scaled[0], scaled[1], known, known.copy())

    def _around(self, levels: _Levels, size: tuple[int, int], chance: Chance) -> Image:
        """What lies beyond the borders of a picture that does not fill the view."""
        kind = chance.random()
        if kind < 0.45:
            return background(self._material.photographs, size, chance)
        if kind < 0.75:
            colour = chance.integers(0, 256, 3) if chance.random() < 0.4 else np.zeros(3)
            return np.full((size[1], size[0], 3), colour, np.uint8)
        full = levels.planes[0][..., :3]
        x, y = int(levels.boxes[0, 0]), int(levels.boxes[0, 1])
        strip = full[: max(8, y)] if y > 12 and chance.random() < 0.5 else full[:, : max(8, x)]
        return blurred(np.asarray(cv2.resize(strip, size), np.uint8), chance.uniform(2, 10))

    def _pasted(self, size: tuple[int, int], chance: Chance) -> Sample:
        sample = Sample.empty(background(self._material.photographs, size, chance))
        for _ in range(int(chance.choice([1, 2, 3], p=[0.75, 0.18, 0.07]))):
            self._paste_somebody(sample, size, chance)
        return sample

    def _paste_somebody(self, sample: Sample, size: tuple[int, int], chance: Chance) -> None:
        kind = chance.random()
        cut, frontal = self._heads
        some = (
            self._material.cut_outs
            if kind < cut and self._material.cut_outs
            else self._material.frontal
            if kind < frontal
            else self._material.turned
        )
        head = some[chance.integers(len(some))]
        if some is not self._material.cut_outs:
            head = with_longer_neck(head, chance, self._neckless)
        head = squeezed(head, chance)
        if chance.random() < 0.3:
            tone = head.picture[head.face > 0].mean(0).astype(np.float32)
            sample.picture = with_skin_coloured_things(sample.picture, tone, chance)
        matrix = paste_matrix(head, _face_height(size, chance, self._far), size, chance)
        paste(sample, head, matrix, background(self._material.photographs, size, chance), chance, self._dressed)

    def _nobody(self, size: tuple[int, int], chance: Chance) -> Sample:
        if chance.random() < 0.4:
            for _ in range(6):
                part = self._empty_part(size, chance)
                if part is not None:
                    return Sample.empty(part)
        sample = Sample.empty(background(self._material.photographs, size, chance))
        if chance.random() < 0.35:
            tone = np.array([150, 175, 220], np.float32) * np.float32(chance.uniform(0.4, 1.1))
            sample.picture = with_skin_coloured_things(sample.picture, tone, chance)
        return sample

    def _empty_part(self, size: tuple[int, int], chance: Chance) -> Image | None:
        """Part of a picture of people that shows none of their heads."""
        people = (
            self._material.clips
            if self._material.clips and chance.random() < 0.6
            else self._material.stills or self._material.clips
        )
        if not people:
            return None
        names = list(people)
        some = people[names[chance.integers(len(names))]]
        full = some[chance.integers(len(some))].planes[0]
        rows, columns = full.shape[:2]
        zoom = chance.uniform(0.25, 0.8) * min(columns / size[0], rows / size[1])
        wide, tall = max(8, int(size[0] * zoom)), max(8, int(size[1] * zoom))
        top, left = chance.integers(rows - tall + 1), chance.integers(columns - wide + 1)
        part = full[top : top + tall, left : left + wide]
        if part[..., 3:].max() > 50:
            return None
        return np.ascontiguousarray(cv2.resize(np.ascontiguousarray(part[..., :3]), size), np.uint8)


def paste_matrix(head: Head, height: float, size: tuple[int, int], chance: Chance) -> Affine:
    """Somewhere in a picture of `size`, the face's box `height` pixels high."""
    left, top, wide, tall = head.box
    degrees = chance.uniform(-20, 20) if chance.random() < 0.6 else 0.0
    at = chance.uniform(0.08, 0.92) * size[0], chance.uniform(0.2, 0.78) * size[1]
    return placed(height / tall, degrees, chance.random() < 0.5, (left + wide / 2, top + tall / 2), at)


def _face_height(size: tuple[int, int], chance: Chance, far: float) -> float:
    """Pixels, as in a landscape picture of as many: every scale alike, and in `far` of all somebody across a room."""
    smallest, largest = _ACROSS_A_ROOM if chance.random() < far else (SMALLEST, LARGEST)
    landscape = math.sqrt(size[0] * size[1] * 9 / 16)
    return landscape * float(np.exp(chance.uniform(np.log(smallest), np.log(largest))))


def _view(levels: _Levels, size: tuple[int, int], chance: Chance, far: float) -> Affine:
    """How a picture of people is looked at: whole, filling the view, or with its largest face at a chosen size."""
    full = levels.planes[0]
    rows, columns = full.shape[:2]
    x, y, w, h = (float(v) for v in levels.boxes[int(np.argmax(levels.boxes[:, 3])), :4])
    width, height = size
    kind = chance.random()
    if kind < 0.25:
        scale = min(width / columns, height / rows)
        centre, at = (columns / 2, rows / 2), (width / 2, height / 2)
    elif kind < 0.5:
        scale = max(width / columns, height / rows)
        middle = float(np.clip(y + 0.6 * h, height / 2 / scale, rows - height / 2 / scale))
        centre, at = (columns / 2, middle), (width / 2, height / 2)
    else:
        scale = min(max(8.0, _face_height(size, chance, far)) / h, 3.0)
        half = scale * h / 2
        centre = x + w / 2, y + h / 2
        at = (
            chance.uniform(min(half, width / 2), max(width - half, width / 2)),
            chance.uniform(min(half, height / 2 - 1), max(height / 2, height - 1.6 * half)),
        )
    degrees = chance.uniform(-15, 15) if chance.random() < 0.4 else 0.0
    return placed(scale * np.exp(chance.uniform(-0.12, 0.12)), degrees, chance.random() < 0.5, centre, at)


def _levels(one: Labelled) -> _Levels:
    stacked = np.dstack([one.person.picture, one.face, one.head, one.unknown])
    planes = [stacked]
    for _ in range(2):
        height, width = planes[-1].shape[:2]
        half = max(1, width // 2), max(1, height // 2)
        parts = [
            cv2.resize(np.ascontiguousarray(planes[-1][..., part]), half, interpolation=cv2.INTER_AREA)
            for part in (slice(0, 3), slice(3, 6))
        ]
        planes.append(np.dstack(parts))
    good = one.person.boxes[one.person.boxes[:, 14] > 0.7]
    return _Levels(tuple(np.asarray(plane, np.uint8) for plane in planes), good if len(good) else one.person.boxes)


def _planes(sample: Sample) -> tuple[Plane, ...]:
    return sample.picture, sample.face, sample.head, sample.face_known, sample.head_known
