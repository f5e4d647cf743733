"""The perceptual distance clip by clip, out of an evaluation's records: the table of docs/restorer.md, in Markdown.

    python -m benchmarks.clipwise [docs/results/records.json] [--restorer fast --restorer fine --restorer finer]

Nothing is measured: `semcall evaluate` has written the records. Below it, means over the clips at 400 kb/s and 15%.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.evaluation.study.results import changed, finite, mean_known

KBPS, SHARE, LARGE, FINEST = 400, 15, 45, 1000
METRICS = {"distance": 3, "brisque": 1, "ssim": 3, "flicker": 2, "identity": 3}

Key = tuple[str, int, int, str]
"""Clip, kb/s, percent of the bits for the face, restorer."""


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clipwise", description=__doc__.splitlines()[0])
    parser.add_argument("records", nargs="?", type=Path, default=Path("docs/results/records.json"))
    parser.add_argument("--restorer", action="append")
    told = parser.parse_args(arguments)
    restorers = told.restorer or ["fast", "fine", "finer"]
    records = json.loads(told.records.read_text())["records"]
    cells = {(one["clip"], one["kbps"], one["share"], one["restorer"]): one for one in records}
    for line in table(cells, restorers):
        print(line)


def table(cells: Mapping[Key, Mapping[str, Any]], restorers: Sequence[str]) -> list[str]:
    """Lines of Markdown."""
    clips = sorted({clip for clip, *_ in cells})
    best = restorers[-1]

    def of(clip: str, part: str, kbps: int, share: int, restorer: str = "none") -> float | None:
        return finite(cells[clip, kbps, share, restorer][part].get("distance"))

    def restored(clip: str, part: str, restorer: str) -> str:
        change = changed(*(of(clip, part, KBPS, SHARE, name) for name in ("none", restorer)))
        return _said(of(clip, part, KBPS, SHARE, restorer)) + ("" if change is None else f" ({change:+.1f}%)")

    sides = [f"... `{name}`" for name in restorers]
    titles = ["clip", f"plain {FINEST}k", f"plain {KBPS}k", f"{KBPS}k, {SHARE}%", *sides,
              f"{KBPS}k, {LARGE}%, `{best}`", f"frame, {KBPS}k, {SHARE}%", *sides]  # fmt: skip
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for clip in clips:
        plain = [_said(of(clip, "face", kbps, share)) for kbps, share in ((FINEST, 0), (KBPS, 0), (KBPS, SHARE))]
        face = [restored(clip, "face", name) for name in restorers]
        frame = [_said(of(clip, "frame", KBPS, SHARE)), *(restored(clip, "frame", name) for name in restorers)]
        large = _said(of(clip, "face", KBPS, LARGE, best))
        lines.append(f"| {' | '.join([clip, *plain, *face, large, *frame])} |")
    lines.append("")
    for part in ("face", "frame"):
        for name in ("none", *restorers):
            lines.append(f"{part}, {name}: {_means([cells[clip, KBPS, SHARE, name][part] for clip in clips])}")
        for name in restorers:
            both = [[of(clip, part, KBPS, SHARE, one) for one in ("none", name)] for clip in clips]
            mean = mean_known(changed(*pair) for pair in both)
            lines.append(f"{part}, {name}: distance changed by {_said(mean, 1)}% in the mean of the clips")
    return lines


def _said(value: float | None, digits: int = METRICS["distance"]) -> str:
    return "–" if value is None else f"{value:.{digits}f}"  # a clip without a face, a metric without its weights


def _means(figures: Sequence[Mapping[str, Any]]) -> str:
    """Of the metrics that any of the clips has."""
    means = {name: mean_known(one.get(name) for one in figures) for name in METRICS}
    known = [f"{name} {value:.{METRICS[name]}f}" for name, value in means.items() if value is not None]
    return ", ".join(known) or "nothing is known"


if __name__ == "__main__":
    main(sys.argv[1:])
