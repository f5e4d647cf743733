"""Milliseconds per 1280x720 frame of every candidate, on one core.

All in turn, each for two seconds' frames at a time: so a change of the machine's speed meets all of them, and none
finds its weights thrown out of the caches by another network before every frame, which no call does.
"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict

import numpy as np
from rich.table import Table

from benchmarks.face.candidates import Candidate
from shared.astronaut import AstronautClip
from shared.picture import CLOCK_RATE, Picture

FRAMES, SKIPPED, TURN = 252, 12, 63


def measure(candidates: list[Candidate]) -> dict[str, dict[str, float]]:
    """Of each candidate: "network" and "flow" (medians where they ran, shrinking included) and "all" (mean)."""
    clip = AstronautClip()
    segmenters = {candidate.name: candidate.open() for candidate in candidates}
    spent: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in segmenters}
    pictures = [Picture(clip.picture(index), index * CLOCK_RATE // 30, index) for index in range(FRAMES)]
    turns = [pictures[start : start + TURN] for start in range(0, FRAMES, TURN)]
    for turn, (name, segmenter) in itertools.product(turns, segmenters.items()):
        for picture in turn:
            start = time.perf_counter()
            segmenter.mask(picture)
            elapsed = (time.perf_counter() - start) * 1e3
            if picture.index < SKIPPED:
                continue
            stages = segmenter.milliseconds
            spent[name]["all"].append(elapsed)
            if "network" in stages:
                spent[name]["network"].append(stages["network"])
            spent[name]["flow"].append(stages.get("shrink", 0.0) + stages.get("flow", 0.0))
    return {
        name: {
            "network": float(np.median(kinds["network"])),
            "flow": float(np.median(kinds["flow"])),
            "all": float(np.mean(kinds["all"])),
        }
        for name, kinds in spent.items()
    }


def table(figures: dict[str, dict[str, float]]) -> Table:
    """One row per candidate."""
    drawn = Table(title=f"Milliseconds per 1280x720 frame, one core, {FRAMES - SKIPPED} frames of the demo source")
    for title in ("", "network, when it runs", "shrink and flow, every frame", "all, per frame"):
        drawn.add_column(title, justify="right" if title else "left")
    for name, row in figures.items():
        drawn.add_row(name, *(f"{row[kind]:.2f}" for kind in ("network", "flow", "all")))
    return drawn
