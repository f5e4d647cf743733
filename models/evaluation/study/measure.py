"""The metrics of one coded file, as it is and restored, on the face's patch and on the whole frame.

Metrics are taken on pictures spread over the file, flicker on each of them and the next. The patch is the box of the
mask's largest part with a macroblock around it. The perceptual distance looks at 160x160 samples: in the middle of
the patch, and for the frame at a place that is drawn for every picture, the same in all files.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.codec.context import Flags
from numpy.typing import NDArray

from models.evaluation.flicker import flat, flicker
from models.evaluation.metrics import Plane, psnr, ssim_map
from models.evaluation.study.coding import read_masks, stats_path
from models.evaluation.study.metrics import Bgr, Metrics, fits
from models.evaluation.study.results import mean_known
from shared.clips import Clip
from shared.grid import MACROBLOCK, Mask, grid_shape
from shared.picture import I420, bgr_from_i420, i420_from_frame, planes, size_of
from shared.quantisers import SIDE_DATA, coarser, quantiser_map
from shared.restorer import Restore, Restorer
from shared.steady import Steadiness

JUDGED = 10
"""Pictures of a file on which metrics are taken."""
WINDOW = 160
BEFORE = 8
"""Pictures before each of those that are restored too: a restored picture depends on the last ones."""
_RUNS_BEFORE = 3  # of a restorer, which are not timed
_LEAST_FACE = 48  # samples across and down of a patch that metrics are taken of

Box = tuple[int, int, int, int]
"""Left, top, right, bottom, in samples; even."""
Boxes = Mapping[int, Box]
"""Boxes that are given, by picture number; each holds until the next."""


def judged(frames: int, first: int = 0) -> list[int]:
    """Numbers of the pictures that are judged, evenly spread from `first` on; each has a next one.

    >>> judged(300)[:3], judged(300, 150)[:3], judged(2), judged(1)
    ([27, 54, 81], [163, 177, 190], [0], [])
    """
    if frames < first + 2:
        return []
    count = min(JUDGED, frames - first - 1)
    return sorted({round(float(at)) for at in np.linspace(first, frames - 2, count + 2)[1:-1]})


def measure(
    source: Path,
    coded: Path,
    metrics: Metrics,
    restorers: Mapping[str, Path | Restore | None],
    boxes: Boxes | None = None,
    lost: int | None = None,
) -> dict[str, dict[str, Any]]:
    """Metrics by restorer's name: `{"face": {...}, "frame": {...}, "restorer_ms": ..., "judged": ...}`.

    `restorers`: by name, ONNX files, what restores a picture, or None for the pictures as they are; `lost`: as
    `decoded` has it, and only pictures from there on are judged. Raises SemcallError for what cannot be read.
    """
    masks = read_masks(stats_path(coded))
    numbers = judged(len(masks), lost or 0)
    wanted = frozenset(number + step for number in numbers for step in (0, 1))
    reference = _reference(source, wanted)
    before = {number - step for number in numbers for step in range(1, BEFORE + 1) if number >= step}
    pictures = as_told(decoded(coded, wanted | before, lost), lost)
    measured = {}
    for name, restorer in restorers.items():
        restore, times = _restoring(restorer, pictures)
        everything = ((number, restore(number, *picture)) for number, picture in sorted(pictures.items()))
        seen: dict[int, I420] = {number: restored for number, restored in everything if number in wanted}
        parts: dict[str, dict[str, list[float]]] = {"face": defaultdict(list), "frame": defaultdict(list)}
        for number in numbers:
            if number + 1 not in seen or number + 1 not in reference:
                continue
            box = _given(boxes, number) if boxes else face_box(masks[number], *size_of(seen[number]))
            pair = _Pair.of(reference, seen, number)
            _frame(parts["frame"], pair, metrics, number)
            if box is not None:
                _face(parts["face"], pair, metrics, number, box)
        measured[name] = {
            **{part: {short: mean_known(values) for short, values in parts[part].items()} for part in parts},
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


def decoded(
    coded: Path, wanted: frozenset[int], lost: int | None = None
) -> dict[int, tuple[I420, NDArray[np.uint8]]]:
    """Pictures of a file, I420, with their quantisers, uint8 [rows, columns], by number.

    Of a file without reordered ones, as semcall's encoder and `writing_mp4` make them.
    `lost`: the number of an access unit that never came: the picture before stands for it, and FFmpeg's decoder
    conceals what is missing in those that follow.
    """
    found: dict[int, tuple[I420, NDArray[np.uint8]]] = {}
    with av.open(str(coded)) as container:
        stream = container.streams.video[0]
        stream.codec_context.options = dict(SIDE_DATA)
        stream.codec_context.flags |= Flags.low_delay | Flags.output_corrupt  # a picture per access unit
        stream.thread_type = "NONE"
        latest: av.VideoFrame | None = None
        for number, packet in enumerate(packet for packet in container.demux(stream) if packet.size):
            if number > max(wanted, default=-1):
                break
            for frame in stream.codec_context.decode(packet) if number != lost else ():
                latest = frame
            if number in wanted and latest is not None:
                i420 = i420_from_frame(latest)
                rows, columns = grid_shape(*size_of(i420))
                found[number] = i420, np.ascontiguousarray(quantiser_map(latest)[:rows, :columns])
    return found


def as_told(
    pictures: Mapping[int, tuple[I420, NDArray[np.uint8]]], lost: int | None
) -> dict[int, tuple[I420, NDArray[np.uint8]]]:
    """What a receiver tells its restorer: from `lost` on no block counts as well coded as its quantiser says."""
    damaged = {number for number in pictures if lost is not None and number >= lost}
    return {number: (i420, coarser(qp) if number in damaged else qp) for number, (i420, qp) in pictures.items()}


def _restoring(
    restorer: Path | Restore | None, pictures: Mapping[int, tuple[I420, NDArray[np.uint8]]]
) -> tuple[Callable[[int, I420, NDArray[np.uint8]], I420], list[float]]:
    """What restores a picture, in the order of their numbers, and where the milliseconds that it takes are noted."""
    times: list[float] = []
    if restorer is None:
        return lambda _, i420, __: i420, times
    restore_one = Restorer(restorer).restore if isinstance(restorer, Path) else restorer
    for picture in islice(pictures.values(), _RUNS_BEFORE):  # memory is not yet in place
        restore_one(*picture)
    steady, last = Steadiness(), -1

    def restore(number: int, i420: I420, qp: NDArray[np.uint8]) -> I420:
        nonlocal steady, last
        if number != last + 1:
            steady = Steadiness()
        last = number
        start = time.perf_counter()
        restored = steady(i420, restore_one(i420, qp))
        times.append((time.perf_counter() - start) * 1e3)
        return restored

    return restore, times


@dataclass(frozen=True, slots=True)
class _Pair:
    """A picture of the reference and of what is judged: luma of both, and of the next ones; colours; SSIM's map."""

    one: Plane
    other: Plane
    one_next: Plane
    other_next: Plane
    original: Bgr
    bgr: Bgr
    similarity: NDArray[np.float32]

    @classmethod
    def of(cls, reference: Mapping[int, I420], seen: Mapping[int, I420], number: int) -> _Pair:
        (one, other), (one_next, other_next) = (
            tuple(planes(side[at])[0] for side in (reference, seen)) for at in (number, number + 1)
        )
        original, bgr = bgr_from_i420(reference[number]), bgr_from_i420(seen[number])
        return cls(one, other, one_next, other_next, original, bgr, ssim_map(one, other))


def _frame(found: dict[str, list[float]], pair: _Pair, metrics: Metrics, number: int) -> None:
    found["ssim"].append(float(pair.similarity.mean()))
    found["psnr"].append(psnr(pair.one, pair.other))
    changes = [pair.one, pair.one_next], [pair.other, pair.other_next]
    found["flicker"].append(flicker(*changes))
    found["flat_flicker"].append(flicker(*changes, flat(pair.one)))
    if metrics.brisque is not None:
        found["brisque"].append(metrics.brisque(pair.bgr))
    if metrics.distance is not None and fits(pair.bgr):
        height, width = pair.bgr.shape[:2]
        place = window(number, None, width, height)
        found["distance"].append(metrics.distance(cut(pair.original, place), cut(pair.bgr, place)))


def _face(found: dict[str, list[float]], pair: _Pair, metrics: Metrics, number: int, box: Box) -> None:
    one, other, one_next, other_next = (
        plane[box[1] : box[3], box[0] : box[2]] for plane in (pair.one, pair.other, pair.one_next, pair.other_next)
    )
    # The map is made of the whole plane, so that the patch's rim is judged as in the frame.
    found["ssim"].append(float(pair.similarity[box[1] : box[3], box[0] : box[2]].mean()))
    found["psnr"].append(psnr(one, other))
    found["flicker"].append(flicker([one, one_next], [other, other_next]))
    if metrics.brisque is not None:
        found["brisque"].append(metrics.brisque(cut(pair.bgr, box)))
    if metrics.distance is not None and fits(pair.bgr):
        height, width = pair.bgr.shape[:2]
        place = window(number, box, width, height)
        found["distance"].append(metrics.distance(cut(pair.original, place), cut(pair.bgr, place)))
    if metrics.identity is not None:
        found["identity"].append(metrics.identity(pair.original, pair.bgr))


def around(centre: tuple[float, float], size: tuple[int, int], width: int, height: int) -> Box:
    """A box of `size` (width, height), or what fits of it, as near around `centre` as lies inside the picture."""
    across, down = min(size[0], width), min(size[1], height)
    left = int(min(max(centre[0] - across / 2, 0), width - across))
    top = int(min(max(centre[1] - down / 2, 0), height - down))
    return left, top, left + across, top + down


def window(number: int, face: Box | None, width: int, height: int) -> Box:
    """What the distance looks at: the middle of the face's box; without one, a place drawn by picture number."""
    if face is None:
        chance = np.random.default_rng(number)
        centre = int(chance.integers(0, width)), int(chance.integers(0, height))
    else:
        centre = (face[0] + face[2]) // 2, (face[1] + face[3]) // 2
    return around(centre, (WINDOW, WINDOW), width, height)


def cut(picture: Bgr, box: Box) -> Bgr:
    """What lies in a box, contiguous: uint8 [h, w, 3] of uint8 [H, W, 3]."""
    return np.ascontiguousarray(picture[box[1] : box[3], box[0] : box[2]])


def _given(boxes: Boxes, number: int) -> Box | None:
    before = [at for at in boxes if at <= number]
    return boxes[max(before)] if before else None
