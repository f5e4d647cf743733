"""Heads cut out of pictures by the teacher's labels: the labelled ones are of few people, these of many."""

from __future__ import annotations

import cv2
import numpy as np

from models.training.face.labels import Labelled
from models.training.face.materials import HEAD_HEIGHT, Head

_LEAST = 60  # pixels of a face's height


def cut_out(one: Labelled) -> Head | None:
    """The largest head of a labelled picture, down to where its neck ends; None where it is small or not alone."""
    boxes = one.person.boxes
    left, top, wide, tall = (float(v) for v in boxes[int(np.argmax(boxes[:, 3])), :4])
    rows, columns = one.face.shape
    first, last = max(0, int(left - 0.9 * wide)), min(columns, int(left + 1.9 * wide))
    upper, lower = max(0, int(top - 0.8 * tall)), min(rows, int(top + 2 * tall))
    others = (np.abs(boxes[:, 0] + boxes[:, 2] / 2 - left - wide / 2) < 1.9 * wide).sum() > 1
    if tall < _LEAST or others or one.unknown[upper:lower, first:last].any():
        return None
    filled = np.nonzero((one.face[upper:lower, first:last] > 127).any(1))[0]
    if not len(filled):
        return None
    lower = upper + int(filled.max()) + 1
    part = slice(upper, lower), slice(first, last)
    scale = min(1.0, HEAD_HEIGHT / (lower - upper))
    size = max(1, round((last - first) * scale)), max(1, round((lower - upper) * scale))
    picture, face, head = (
        np.asarray(cv2.resize(np.ascontiguousarray(plane[part]), size, interpolation=cv2.INTER_AREA), np.uint8)
        for plane in (one.person.picture, one.face, one.head)
    )
    box = ((left - first) * scale, (top - upper) * scale, wide * scale, tall * scale)
    is_face = (face > 127).astype(np.uint8)
    return Head(one.person.name, picture, is_face, np.maximum(is_face, (head > 127).astype(np.uint8)), box)
