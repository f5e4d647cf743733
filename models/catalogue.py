"""The models a user has: what is shipped, what was added; adding, removing and checking them (`semcall models`)."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table

from models.registry import (
    BISENET,
    CONTRACTS,
    Model,
    check_kind,
    list_models,
    read_card,
    save_model,
    user_models,
    verify,
)
from shared.contracts import check_file
from shared.errors import SemcallError

_MANY = 8  # names of which only the count is shown


@dataclass(frozen=True, slots=True)
class Check:
    """What checking a model found; `problem` is empty where all is well, else a sentence."""

    name: str
    problem: str


def named(name: str) -> Model:
    """The model of that name, shipped or the user's, not verified. Raises SemcallError where there is none."""
    models = {model.name: model for model in list_models()}
    if name not in models:
        hint = f"; `semcall models add {BISENET} CHECKPOINT` makes that one" if name == BISENET else ""
        raise SemcallError(f"There is no model called {name!r}; known are: {', '.join(models) or 'none'}{hint}.")
    return models[name]


def check(names: list[str]) -> list[Check]:
    """Whether the models of these names, or all, are what their cards say and keep their contracts.

    Raises SemcallError for a name that is none.
    """
    models = [named(name) for name in names] or list_models()
    checks = []
    for model in models:
        try:
            _check(model)
        except SemcallError as error:
            checks.append(Check(model.name, str(error)))
        else:
            checks.append(Check(model.name, ""))
    return checks


def add_file(path: Path, force: bool) -> Model:
    """Copy an .onnx file, with the card next to it, among the user's models; returns the copy.

    Raises SemcallError, and changes nothing, for a file without a card, one that is not what its card says or does
    not keep its contract, and a name that is shipped or, without `force`, there already.
    """
    if path.suffix != ".onnx":
        raise SemcallError(
            f"{path} is no .onnx file; add one with its card, or `{BISENET} CHECKPOINT` to convert a checkpoint."
        )
    card = read_card(path.with_suffix(".json"), required=False)
    if path.exists() and not card:
        raise SemcallError(f"{path} has no card; put {path.with_suffix('.json').name} next to it.")
    model = Model(str(card.get("name", path.stem)), path, card)
    content = _check(model)
    _require_free(model.name, force)
    card = {**card, "name": model.name}
    return Model(model.name, save_model(user_models(), content, card), card)


def add_bisenet(checkpoint: Path, force: bool, command: str) -> Model:
    """Convert a 19-class BiSeNet checkpoint into a face parser of the user's; returns it.

    `command`: for the card. Raises SemcallError without torch and onnx, for what is no such checkpoint, and, without
    `force`, when there is one already.
    """
    _require_free(BISENET, force)
    try:
        from models.networks import bisenet
        from models.training.export_parser import write_parser
    except ModuleNotFoundError as error:
        raise SemcallError(f"Converting a checkpoint needs {error.name}: pip install 'semcall[train]'.") from None
    net = bisenet.load_bisenet(checkpoint)
    facts = {
        "licence": "as the checkpoint's: CelebAMask-HQ allows non-commercial research and education only",
        "training_data": {
            "source": "unknown to semcall; of the public checkpoints: CelebAMask-HQ, 19 classes",
            "checkpoint_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        },
        "command": command,
        "metrics": {"definition": "none measured at conversion", "results": []},
    }
    write_parser(
        net,
        BISENET,
        user_models(),
        bisenet.CLASSES,
        bisenet.REGIONS,
        bisenet.INPUT_PIXELS,
        bisenet.INPUT_MULTIPLE,
        facts,
    )
    return named(BISENET)


def remove(name: str) -> Path:
    """Delete one of the user's models and its card; returns the deleted file's path.

    Raises SemcallError for a name that is shipped or none.
    """
    model = named(name)
    if model.shipped:
        raise SemcallError(f"{name} comes with semcall and stays; only models you added can be removed.")
    try:
        # The card first: a file without one is never taken for a model.
        model.path.with_suffix(".json").unlink(missing_ok=True)
        model.path.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SemcallError(f"Cannot remove {model.path} ({reason}); check who may write there.") from error
    return model.path


def summary(model: Model) -> dict[str, Any]:
    """What the list shows of a model; `bytes` and `parameters` are None where the card has none."""
    return {
        "name": model.name,
        "kind": model.card.get("kind"),
        "bytes": model.card.get("bytes"),
        "parameters": model.card.get("parameters"),
        "licence": model.card.get("licence"),
        "from": "shipped" if model.shipped else "yours",
        "path": str(model.path),
    }


def print_list(console: Console, as_json: bool) -> None:
    """All models as a table, or as a JSON list of what `summary` says."""
    rows = [summary(model) for model in list_models()]
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    table = Table(box=None, header_style="bold")
    for column in ("name", "kind", "size", "parameters", "licence", "from"):
        table.add_column(column, justify="right" if column in ("size", "parameters") else "left")
    for row in rows:
        numbers = _size(row["bytes"]), _count(row["parameters"])
        table.add_row(*map(str, (row["name"], row["kind"], *numbers, row["licence"], row["from"])))
    console.print(table, highlight=False, markup=False)


def print_info(console: Console, model: Model, as_json: bool) -> None:
    """A model's card, to be read, or as it is."""
    if as_json:
        print(json.dumps(dict(model.card), indent=2, ensure_ascii=False))
        return
    table = Table(box=None, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("path", str(model.path))
    for key, value in model.card.items():
        table.add_row(key, _readable(key, value))
    console.print(table, highlight=False, markup=False)


def _check(model: Model) -> bytes:
    """The content of a model file that is what its card says and keeps its contract."""
    kind = str(model.card.get("kind"))
    if kind in CONTRACTS:
        check_kind(model, kind)
    content = verify(model)
    check_file(model.path, kind, model.card)
    return content


def _require_free(name: str, force: bool) -> None:
    there = {model.name: model for model in list_models()}.get(name)
    if there and there.shipped:
        raise SemcallError(f"{name} is the name of a model that comes with semcall; give yours another on its card.")
    if there and not force:
        raise SemcallError(f"There is a model called {name} already, {there.path}; replace it with --force.")


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
        return ", ".join(map(str, value))
    return str(value)


def _means(rows: Sequence[Mapping[str, Any]]) -> str:
    """The means of a list of figures; of pairs, both, before and after."""
    parts = []
    for key in rows[0]:
        found = [row.get(key) for row in rows]
        columns = list(zip(*(value if isinstance(value, list) else [value] for value in found), strict=False))
        numbers = [[v for v in column if isinstance(v, int | float)] for column in columns]
        if numbers and all(numbers):
            parts.append(f"{key} {' -> '.join(f'{fmean(column):.4g}' for column in numbers)}")
    return f"mean of {len(rows)}: " + ", ".join(parts)


def _size(count: Any) -> str:
    if not isinstance(count, int):
        return "?"
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def _count(number: Any) -> str:
    if not isinstance(number, int):
        return "?"
    return f"{number / 1e6:.1f} M" if number >= 1e6 else f"{number / 1e3:.0f} k"
