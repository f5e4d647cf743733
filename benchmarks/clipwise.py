"""The perceptual distance clip by clip, out of an evaluation's records: the table of docs/restorer.md, in Markdown.

    python -m benchmarks.clipwise [docs/results/records.json] [--restorer fast --restorer fine]

Nothing is measured: `semcall evaluate` has written the records. Below it, means over the clips at 400 kb/s and 15%.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

KBPS, SHARE, LARGE, FINEST = 400, 15, 45, 1000
METRICS = {"distance": 3, "brisque": 1, "ssim": 3, "flicker": 2, "identity": 3}

Key = tuple[str, int, int, str]
"""Clip, kb/s, percent of the bits for the face, restorer."""


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clipwise", description=__doc__.splitlines()[0])
    parser.add_argument("records", nargs="?", type=Path, default=Path("docs/results/records.json"))
    parser.add_argument("--restorer", action="append")
    told = parser.parse_args(arguments)
    restorers = told.restorer or ["fast", "fine"]
    records = json.loads(told.records.read_text())["records"]
    cells = {(one["clip"], one["kbps"], one["share"], one["restorer"]): one for one in records}
    for line in table(cells, restorers):
        print(line)


def table(cells: Mapping[Key, Mapping[str, Any]], restorers: Sequence[str]) -> list[str]:
    """Lines of Markdown."""
    clips = sorted({clip for clip, *_ in cells})
    best = restorers[-1]

    def of(clip: str, part: str, kbps: int, share: int, restorer: str = "none") -> float:
        return float(cells[clip, kbps, share, restorer][part]["distance"])

    def restored(clip: str, part: str, restorer: str) -> str:
        before, after = (of(clip, part, KBPS, SHARE, name) for name in ("none", restorer))
        return f"{after:.3f} ({100 * (after / before - 1):+.1f}%)"

    sides = [f"... `{name}`" for name in restorers]
    titles = ["clip", f"plain {FINEST}k", f"plain {KBPS}k", f"{KBPS}k, {SHARE}%", *sides,
              f"{KBPS}k, {LARGE}%, `{best}`", f"frame, {KBPS}k, {SHARE}%", *sides]  # fmt: skip
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for clip in clips:
        plain = [f"{of(clip, 'face', kbps, share):.3f}" for kbps, share in ((FINEST, 0), (KBPS, 0), (KBPS, SHARE))]
        face = [restored(clip, "face", name) for name in restorers]
        frame = [f"{of(clip, 'frame', KBPS, SHARE):.3f}", *(restored(clip, "frame", name) for name in restorers)]
        large = f"{of(clip, 'face', KBPS, LARGE, best):.3f}"
        lines.append(f"| {' | '.join([clip, *plain, *face, large, *frame])} |")
    lines.append("")
    for part in ("face", "frame"):
        for name in ("none", *restorers):
            means = {
                metric: statistics.fmean(cells[clip, KBPS, SHARE, name][part][metric] for clip in clips)
                for metric in METRICS
                if metric in cells[clips[0], KBPS, SHARE, name][part]
            }
            said = ", ".join(f"{metric} {value:.{METRICS[metric]}f}" for metric, value in means.items())
            lines.append(f"{part}, {name}: {said}")
    return lines


if __name__ == "__main__":
    main(sys.argv[1:])
