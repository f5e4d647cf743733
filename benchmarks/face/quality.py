"""The quality of one candidate's masks on everything there is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.face.candidates import Candidate
from benchmarks.face.masks import Tally, overlap
from benchmarks.face.material import Footage, compose, composites, variants
from models.training.face.materials import read_heads
from models.training.face.photographs import read_photographs
from shared.grid import Mask
from shared.picture import CLOCK_RATE, I420, Picture, i420_from_bgr

COMPOSED = ("heads alone", "heads with shoulders")
SMALLEST = "3-10%"


@dataclass(slots=True)
class Quality:
    """`clips`: tallies by variant and clip; `overlaps`: of composites by kind and size; `flagged`: of photographs."""

    clips: dict[str, dict[str, Tally]] = field(default_factory=lambda: defaultdict(dict))
    overlaps: dict[str, dict[str, list[float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    flagged: dict[str, float] = field(default_factory=dict)

    def total(self, variant: str) -> Tally:
        """Over all clips."""
        total = Tally()
        for tally in self.clips[variant].values():
            total += tally
        return total


def masks_of(candidate: Candidate, clip: Footage) -> Iterator[tuple[I420, Mask]]:
    """Every frame with its mask, as a call of 30 frames a second would have it with a parser that is never late."""
    segmenter = candidate.open()
    for number, i420 in enumerate(clip.frames):
        yield i420, segmenter.mask(Picture(i420, number * CLOCK_RATE // 30, number))


def mask_alone(candidate: Candidate, i420: I420) -> Mask:
    """The mask of a picture that comes out of nowhere."""
    return candidate.open().mask(Picture(i420, 0, 0))


def judge_clip(candidate: Candidate, clip: Footage) -> Tally:
    """One sequence."""
    tally = Tally()
    for (i420, mask), boxes in zip(masks_of(candidate, clip), clip.boxes, strict=True):
        tally.add(mask, boxes, i420.shape[1], i420.shape[0] * 2 // 3)
    return tally


def judge(candidate: Candidate, clips: list[Footage], data: Path, progressed: Callable[[], None]) -> Quality:
    """Everything; `progressed()` is called after each step of `steps`."""
    quality = Quality()
    for variant, change in variants(data).items():
        for clip in clips:
            quality.clips[variant][clip.name] = judge_clip(candidate, change(clip))
            progressed()
    heads = {head.name: head for head in read_heads(data, "test")}
    photographs = dict(read_photographs(data, kept=True))
    for kind in COMPOSED:
        for row in composites():
            i420, label = compose(row, heads, photographs, shoulders=kind != COMPOSED[0])
            quality.overlaps[kind][row.band].append(overlap(mask_alone(candidate, i420), label))
        progressed()
    for name, picture in photographs.items():
        quality.flagged[name] = float(mask_alone(candidate, i420_from_bgr(picture)).mean())
    progressed()
    return quality


def steps(clips: list[Footage], data: Path) -> int:
    """How often `judge` reports progress."""
    return len(variants(data)) * len(clips) + len(COMPOSED) + 1


def figures(quality: Quality) -> dict[str, float]:
    """The figures that a card quotes, by name; percentages where it says so."""
    clean = quality.total("as it is")
    found = {}
    for kind, bands in quality.overlaps.items():
        large = [value for band, values in bands.items() if band != SMALLEST for value in values]
        found[f"IoU, {kind}, faces from 10%"] = float(np.mean(large))
        found[f"IoU, {kind}, faces of {SMALLEST}"] = float(np.mean(bands[SMALLEST]))
    found |= {
        "clips_false_percent": 100 * clean.false,
        "clips_missed_frames_percent": 100 * clean.missed,
        "clips_unsteady_percent": 100 * clean.unsteady,
        "photographs_flagged_percent": 100 * float(np.mean(list(quality.flagged.values()))),
    }
    for variant in quality.clips:
        found[f"recall, {variant}"] = quality.total(variant).recall
    return {name: round(value, 4) for name, value in found.items()}
