"""The metrics of one coded file, as it is and restored, on the face's patch and on the whole frame.

Metrics are taken on pictures spread over the file, flicker on each of them and the next. The patch is the box of the
mask's largest part with a macroblock around it. The perceptual distance looks at 160x160 samples: in the middle of
the patch, and for the frame at a place that is drawn for every picture, the same in all files.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from models.evaluation.flicker import flicker
from models.evaluation.metrics import psnr, ssim, ssim_map
from models.evaluation.study.coding import read_masks, stats_path
from models.evaluation.study.metrics import Metrics, fits
from shared.clips import Clip
from shared.grid import MACROBLOCK, Mask, grid_shape
from shared.picture import I420, bgr_from_i420, i420_from_frame, planes, size_of
from shared.quantisers import SIDE_DATA, quantiser_map
from shared.restorer import Restorer

JUDGED = 10
"""Pictures of a file on which metrics are taken."""
WINDOW = 160
_LEAST_FACE = 48  # samples across and down of a patch that metrics are taken of

Box = tuple[int, int, int, int]
"""Left, top, right, bottom, in samples; even."""
Boxes = Mapping[int, Box]
"""Boxes that are given, by picture number; each holds until the next."""


def judged(frames: int) -> list[int]:
    """Numbers of the pictures that are judged, evenly spread; each has a next one.

    >>> judged(300)[:3], judged(2), judged(1)
    ([27, 54, 81], [0], [])
    """
    if frames < 2:
        return []
    count = min(JUDGED, frames - 1)
    return sorted({round(float(at)) for at in np.linspace(0, frames - 2, count + 2)[1:-1]})


def measure(
    source: Path,
    coded: Path,
    metrics: Metrics,
    restorers: Mapping[str, Path | None],
    boxes: Boxes | None = None,
) -> dict[str, dict[str, Any]]:
    """Metrics by restorer's name: `{"face": {...}, "frame": {...}, "restorer_ms": ..., "judged": ...}`.

    `restorers`: ONNX files by name, None for the pictures as they are. Raises SemcallError for what cannot be read.
    """
    masks = read_masks(stats_path(coded))
    numbers = judged(len(masks))
    wanted = frozenset(number + step for number in numbers for step in (0, 1))
    reference = _reference(source, wanted)
    pictures = decoded(coded, wanted)
    measured = {}
    for name, model in restorers.items():
        restore, times = _restoring(model, pictures)
        seen: dict[int, I420] = {number: restore(i420, qp) for number, (i420, qp) in pictures.items()}
        parts: dict[str, dict[str, list[float]]] = {"face": defaultdict(list), "frame": defaultdict(list)}
        for number in numbers:
            if number + 1 not in seen or number + 1 not in reference:
                continue
            box = _given(boxes, number) if boxes else face_box(masks[number], *size_of(seen[number]))
            sides = [(side[number], side[number + 1]) for side in (reference, seen)]
            _frame(parts["frame"], sides, metrics, number)
            if box is not None:
                _face(parts["face"], sides, metrics, box)
        measured[name] = {
            **{part: {short: _mean(values) for short, values in parts[part].items()} for part in parts},
            "restorer_ms": round(float(np.median(times)), 3) if times else None,
            "judged": len(parts["frame"]["psnr"]),
        }
    return measured


def face_box(mask: Mask, width: int, height: int) -> Box | None:
    """The box of the largest connected part of a mask, bool [rows, columns], and a macroblock around it.

    None where it is empty or smaller than 48 samples.
    """
    count, _, facts, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count < 2:
        return None
    left, top, across, down, _ = (int(v) for v in facts[1 + int(np.argmax(facts[1:, cv2.CC_STAT_AREA]))])
    box = (
        max(0, left - 1) * MACROBLOCK,
        max(0, top - 1) * MACROBLOCK,
        min(width, (left + across + 1) * MACROBLOCK) & ~1,
        min(height, (top + down + 1) * MACROBLOCK) & ~1,
    )
    return box if min(box[2] - box[0], box[3] - box[1]) >= _LEAST_FACE else None


@lru_cache(maxsize=1)
def _reference(source: Path, wanted: frozenset[int]) -> dict[int, I420]:
    """Codings of one clip follow each other: its pictures are decoded once."""
    return dict(Clip(source).pictures(set(wanted)))


def decoded(coded: Path, wanted: frozenset[int]) -> dict[int, tuple[I420, NDArray[np.uint8]]]:
    """Pictures of a coded file, I420, with their quantisers, uint8 [rows, columns], by number."""
    found = {}
    with av.open(str(coded)) as container:
        stream = container.streams.video[0]
        stream.codec_context.options = dict(SIDE_DATA)
        stream.thread_type = "NONE"
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                i420 = i420_from_frame(frame)
                rows, columns = grid_shape(*size_of(i420))
                found[number] = i420, np.ascontiguousarray(quantiser_map(frame)[:rows, :columns])
            if number >= max(wanted):
                break
    return found


def _restoring(
    model: Path | None, pictures: Mapping[int, tuple[I420, NDArray[np.uint8]]]
) -> tuple[Callable[[I420, NDArray[np.uint8]], I420], list[float]]:
    """What restores a picture, and where the milliseconds that it takes are noted."""
    times: list[float] = []
    if model is None:
        return lambda i420, _: i420, times
    restorer = Restorer(model)
    if pictures:
        restorer.warm_up(*size_of(next(iter(pictures.values()))[0]))

    def restore(i420: I420, qp: NDArray[np.uint8]) -> I420:
        restored = restorer.restore(i420, qp)
        times.append(restorer.last_ms)
        return restored

    return restore, times


def _frame(found: dict[str, list[float]], sides: list[tuple[I420, I420]], metrics: Metrics, number: int) -> None:
    (first, first_next), (second, second_next) = sides
    one, other = planes(first)[0], planes(second)[0]
    found["ssim"].append(ssim(one, other))
    found["psnr"].append(psnr(one, other))
    found["flicker"].append(flicker([one, planes(first_next)[0]], [other, planes(second_next)[0]]))
    bgr = bgr_from_i420(second)
    if metrics.brisque is not None:
        found["brisque"].append(metrics.brisque(bgr))
    if metrics.distance is not None and fits(bgr):
        height, width = bgr.shape[:2]
        chance = np.random.default_rng(number)
        centre = chance.integers(0, width), chance.integers(0, height)
        place = _window(int(centre[0]), int(centre[1]), width, height)
        found["distance"].append(metrics.distance(_cut(bgr_from_i420(first), place), _cut(bgr, place)))


def _face(found: dict[str, list[float]], sides: list[tuple[I420, I420]], metrics: Metrics, box: Box) -> None:
    (first, first_next), (second, second_next) = sides
    one, other = planes(first)[0], planes(second)[0]
    inside = (slice(box[1], box[3]), slice(box[0], box[2]))
    # The map is made of the whole plane, so that the patch's rim is judged as in the frame.
    found["ssim"].append(float(ssim_map(one, other)[inside].mean()))
    found["psnr"].append(psnr(one[inside], other[inside]))
    following = planes(first_next)[0][inside], planes(second_next)[0][inside]
    found["flicker"].append(flicker([one[inside], following[0]], [other[inside], following[1]]))
    original, bgr = bgr_from_i420(first), bgr_from_i420(second)
    if metrics.brisque is not None:
        found["brisque"].append(metrics.brisque(_cut(bgr, box)))
    if metrics.distance is not None and fits(bgr):
        place = _window((box[0] + box[2]) // 2, (box[1] + box[3]) // 2, bgr.shape[1], bgr.shape[0])
        found["distance"].append(metrics.distance(_cut(original, place), _cut(bgr, place)))
    if metrics.identity is not None:
        found["identity"].append(metrics.identity(original, bgr))


def _window(x: int, y: int, width: int, height: int) -> Box:
    """At most 160x160 around a place, inside the picture."""
    across, down = min(WINDOW, width), min(WINDOW, height)
    left, top = min(max(x - across // 2, 0), width - across), min(max(y - down // 2, 0), height - down)
    return left, top, left + across, top + down


def _cut(picture: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    return np.ascontiguousarray(picture[box[1] : box[3], box[0] : box[2]])


def _given(boxes: Boxes, number: int) -> Box | None:
    before = [at for at in boxes if at <= number]
    return boxes[max(before)] if before else None


def _mean(values: list[float]) -> float | None:
    """Of what could be measured; None where nothing could."""
    known = [value for value in values if math.isfinite(value)]
    return float(np.mean(known)) if known else None
