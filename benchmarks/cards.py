"""What restorers' cards say, as the tables of docs/restorer.md.

    python -m benchmarks.cards [--model fine --model runs/NEW/fine.onnx]

A table per model: each validation clip and coding, decoded -> restored; the means of the changes in percent; and, for
every coding, the least and the most over the clips of what else matters: identity, SSIM, flicker, colour, mesh.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from models.evaluation.study.results import changed
from models.registry import find_model
from shared.errors import SemcallError

_SHOWN = (("distance", 3), ("brisque", 1), ("ssim", 3), ("flicker", 2))
Row = dict[str, Any]


def main() -> None:
    """Print them."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", action="append", help="name or file of a restorer (fine, fast)")
    for name in arguments.parse_args().model or ["fine", "fast"]:
        print(f"\n`{name}`:\n\n{_tables(name)}")


def _tables(name: str) -> str:
    try:
        results = find_model(name, "restorer").card["metrics"]["results"]
        return f"{table(results)}\n\n{means(results)}\n\n{beyond(results)}"
    except SemcallError as error:
        raise SystemExit(str(error)) from None
    except (KeyError, TypeError):  # no card, or one of an earlier release's form
        raise SystemExit(
            f"The restorer {name} has no card with figures of today's kind: take one whose card has them."
        ) from None


def table(results: Sequence[Row]) -> str:
    """Markdown: a line per clip and coding."""
    titles = [f"{part}distance | BRISQUE | SSIM | flicker" for part in ("face: ", "frame: ")]
    lines = [f"| clip | kb/s, share | {' | '.join(titles)} |", "|" + "---|" * 10]
    for row in results:
        cells = [
            " → ".join(f"{value:.{digits}f}" for value in row[part][metric])
            for part in ("face", "frame")
            for metric, digits in _SHOWN
        ]
        lines.append(f"| {row['clip']} | {_coding(row)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def means(results: Sequence[Row]) -> str:
    """Of the changes in percent, coding by coding."""
    said = []
    for rows in _by_coding(results):
        parts = [
            f"{part} {called} {np.mean([changed(*row[part][metric]) for row in rows]):+.1f}%"
            for part in ("face", "frame")
            for metric, called in (("distance", "distance"), ("brisque", "BRISQUE"), ("flicker", "flicker"))
        ]
        said.append(f"{_coding(rows[0])}: {', '.join(parts)}")
    return f"Means of the changes: {'; '.join(said)}."


def beyond(results: Sequence[Row]) -> str:
    """Of each coding, the lowest and highest over the clips."""
    lines = []
    for rows in _by_coding(results):
        figures = {
            "identity": [row["face"]["identity"][1] - row["face"]["identity"][0] for row in rows],
            "SSIM of faces": [row["face"]["ssim"][1] - row["face"]["ssim"][0] for row in rows],
            "flicker of faces, times": [row["face"]["flicker"][1] / row["face"]["flicker"][0] for row in rows],
            "flicker of flat walls, times": [
                row["frame"]["flat_flicker"][1] / row["frame"]["flat_flicker"][0] for row in rows
            ],
            "colour, means": [row["effects"]["colour_shift"] for row in rows],
            "colour, samples": [row["effects"]["colour_change"] for row in rows],
        }
        for period in (2, 4):
            peaks = [row["effects"][f"mesh_{period}"] for row in rows]
            figures[f"mesh of {period} over the source's"] = [restored / source for source, _, restored in peaks]
            figures[f"that of {period} decoded"] = [decoded / source for source, decoded, _ in peaks]
        said = ", ".join(f"{name} {min(values):.3f} to {max(values):.3f}" for name, values in figures.items())
        lines.append(f"- {_coding(rows[0])}: {said}")
    return "\n".join(lines)


def _by_coding(results: Sequence[Row]) -> list[list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in results:
        groups.setdefault(_coding(row), []).append(row)
    return list(groups.values())


def _coding(row: Row) -> str:
    return f"{row['kbps']}, {row['share']}%" + (", a loss" if row["lost"] else "")


if __name__ == "__main__":
    main()
