"""What `semcall models` shows: the list of models, and the card of one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table

from models.registry import Model, list_models
from shared.errors import SemcallError
from shared.stdout import printing

_MANY = 8  # names of which only the count is shown, or the first ones


def summary(model: Model) -> dict[str, Any]:
    """What the list shows of a model; None is what the card does not say. `problem` is there where there is one."""
    shown = {
        "name": model.name,
        "kind": model.card.get("kind"),
        "bytes": model.card.get("bytes"),
        "parameters": model.card.get("parameters"),
        "licence": model.card.get("licence"),
        "from": "shipped" if model.shipped else "yours",
        "path": str(model.path),
    }
    return shown | ({"problem": model.problem} if model.problem else {})


def print_list(console: Console, as_json: bool) -> None:
    """All models as a table, or as a JSON list of what `summary` says. Raises SemcallError where stdout is closed."""
    models = list_models()
    rows = [summary(model) for model in models]
    if as_json:
        with printing():
            print(json.dumps(rows, ensure_ascii=False))
        return
    table = Table(box=None, header_style="bold")
    for column in ("name", "kind", "size", "parameters", "licence", "from"):
        table.add_column(column, justify="right" if column in ("size", "parameters") else "left")
    for row in rows:
        numbers = _size(row["bytes"]), _count(row["parameters"])
        table.add_row(*map(_known, (row["name"], row["kind"], *numbers, row["licence"], row["from"])))
    with printing():
        console.print(table, highlight=False, markup=False)
        for model in models:
            if model.problem:
                console.print(model.problem, highlight=False, markup=False, soft_wrap=True)


def print_info(console: Console, model: Model, as_json: bool) -> None:
    """A model's card, to be read, or as it is. Raises SemcallError where there is none or stdout is closed."""
    if model.problem:
        raise SemcallError(model.problem)
    if as_json:
        with printing():
            print(json.dumps(dict(model.card), indent=2, ensure_ascii=False))
        return
    table = Table(box=None, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("path", str(model.path))
    for key, value in model.card.items():
        table.add_row(key, _readable(key, value))
    with printing():
        console.print(table, highlight=False, markup=False)


def _known(value: Any) -> str:
    return "?" if value is None else str(value)


def _readable(key: str, value: Any, nested: bool = False) -> str:
    """A card's entry in a few lines; within another, in one."""
    if key == "bytes":
        return _size(value)
    if key == "parameters":
        return _count(value)
    if isinstance(value, dict):
        if len(value) > _MANY and all(isinstance(item, str) for item in value.values()):
            kinds = Counter(value.values()).most_common()
            return f"{len(value)}: " + ", ".join(f"{count} {kind}" for kind, count in kinds)
        return ("; " if nested else "\n").join(
            f"{name}: {_readable(name, item, nested=True)}" for name, item in value.items()
        )
    if isinstance(value, list):
        if value and all(isinstance(item, dict) for item in value):
            return _means(value)
        more = f" and {len(value) - _MANY} more" if len(value) > _MANY else ""
        return ", ".join(map(str, value[:_MANY])) + more
    return str(value)


def _means(rows: Sequence[Mapping[str, Any]]) -> str:
    """The means of a list of figures, in groups or not; of pairs, both, before and after."""
    return f"mean of {len(rows)}: " + ", ".join(_figures(rows))


def _figures(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    parts = []
    for key in rows[0]:
        found = [row.get(key) for row in rows]
        groups = [value for value in found if isinstance(value, Mapping)]
        if len(groups) == len(found):
            parts += [f"{key} {part}" for part in _figures(groups)]
            continue
        columns = list(zip(*(value if isinstance(value, list) else [value] for value in found), strict=False))
        numbers = [[v for v in column if _usable(v)] for column in columns]
        if numbers and all(numbers):
            parts.append(f"{key} {' -> '.join(f'{fmean(column):.4g}' for column in numbers)}")
    return parts


def _usable(value: Any) -> bool:
    """Whether it is a number to reckon with: cards can hold NaN, and whole numbers beyond what a float takes."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e18


def _size(count: Any) -> str:
    if not _usable(count):
        return "?"
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def _count(number: Any) -> str:
    if not _usable(number):
        return "?"
    return f"{number / 1e6:.1f} M" if number >= 1e6 else f"{number / 1e3:.0f} k"
