"""What restorers' cards say, as the tables of docs/restorer.md.

    python -m benchmarks.cards [--model fine --model runs/NEW/fine.onnx] [--clips]

Of each coding and model: the means of the changes in percent; then what may not go wrong, of the worst clip:
identity, SSIM, flicker, colour, mesh. With --clips each validation clip besides, decoded -> restored.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.evaluation.study.results import changed
from models.registry import find_model, shipped_restorers
from shared.errors import SemcallError

_SHOWN = (("distance", 3), ("brisque", 1), ("ssim", 3), ("flicker", 2))
_MEANT = (("distance", "distance"), ("brisque", "BRISQUE"), ("flicker", "flicker"))
Row = dict[str, Any]
Cards = Mapping[str, Sequence[Row]]
"""Rows by the model's name."""


def main() -> None:
    """Print them."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", action="append", help="name or file of a restorer (all that ship)")
    arguments.add_argument("--clips", action="store_true", help="every clip, too")
    told = arguments.parse_args()
    found: dict[str, Sequence[Row]] = {}
    tables: list[str] = []
    for name in told.model or [model.name for model in shipped_restorers()]:
        try:
            found[name] = find_model(name, "restorer").card["metrics"]["results"]
            tables = [means(found), worst(found)]
            if told.clips:
                tables += [f"`{name}`:\n\n{table(results)}" for name, results in found.items()]
        except SemcallError as error:
            raise SystemExit(str(error)) from None
        except (KeyError, TypeError):  # no card, or one of an earlier release's form
            raise SystemExit(
                f"The restorer {name} has no card with figures of today's kind: take one whose card has them."
            ) from None
    print("\n\n".join(tables))


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


def means(cards: Cards) -> str:
    """Markdown: of the changes over the clips, percent."""
    titles = [f"{part}{called}" for part in ("face: ", "frame: ") for _, called in _MEANT]
    lines = [f"| kb/s, share | | {' | '.join(titles)} |", "|" + "---|" * (2 + len(titles))]
    for coding, name, rows in _by_coding(cards):
        cells = [
            f"{np.mean([changed(*row[part][metric]) for row in rows]):+.1f}"
            for part in ("face", "frame")
            for metric, _ in _MEANT
        ]
        lines.append(f"| {coding} | `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def worst(cards: Cards) -> str:
    """Markdown: of the clip that suffers most. Changes of identity and SSIM; times the decoded flicker; code values
    of chroma; the mesh times the source's, in parentheses that of the decoded picture that has most.
    """
    titles = ["identity", "SSIM of faces", "flicker of faces", "of flat walls", "chroma: means", "samples"]
    lines = [
        f"| kb/s, share | | {' | '.join(titles)} | mesh of 2 | of 4 |",
        "|" + "---|" * (4 + len(titles)),
    ]
    for coding, name, rows in _by_coding(cards):
        cells = [
            f"{min(row['face']['identity'][1] - row['face']['identity'][0] for row in rows):+.3f}",
            f"{min(row['face']['ssim'][1] - row['face']['ssim'][0] for row in rows):+.3f}",
            f"{max(row['face']['flicker'][1] / row['face']['flicker'][0] for row in rows):.2f}",
            f"{max(row['frame']['flat_flicker'][1] / row['frame']['flat_flicker'][0] for row in rows):.2f}",
            f"{max(row['effects']['colour_shift'] for row in rows):.2f}",
            f"{max(row['effects']['colour_change'] for row in rows):.2f}",
        ]
        for period in (2, 4):
            peaks = [row["effects"][f"mesh_{period}"] for row in rows]
            cells.append(
                f"{max(restored / source for source, _, restored in peaks):.2f} "
                f"({max(decoded / source for source, decoded, _ in peaks):.2f})"
            )
        lines.append(f"| {coding} | `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _by_coding(cards: Cards) -> list[tuple[str, str, list[Row]]]:
    """Coding, model and rows; codings in the first card's order."""
    codings = list(dict.fromkeys(_coding(row) for results in cards.values() for row in results))
    groups = [
        (coding, name, [row for row in results if _coding(row) == coding])
        for coding in codings
        for name, results in cards.items()
    ]
    return [group for group in groups if group[2]]


def _coding(row: Row) -> str:
    return f"{row['kbps']}, {row['share']}%" + (", a loss" if row["lost"] else "")


if __name__ == "__main__":
    main()
