"""What a training run is told, the entries of configs/*.toml, and what a card says of where it began."""

from __future__ import annotations

import math
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from models.registry import read_card
from shared.errors import SemcallError

Kind = TypeVar("Kind")
_KINDS = {int: "whole number", float: "number", str: "text", bool: "true or false"}


def read_recipe(config: Path, kind: type[Kind]) -> Kind:
    """A recipe, a dataclass of `kind` whose defaults tell the entries' types, from a TOML file.

    Raises SemcallError on what cannot be read, is unknown, of another type, negative, or 0 where that means nothing
    (it may be for what is 0 by default, a number of steps, and what `kind` lists as its SWITCHES).
    """
    try:
        values: dict[str, Any] = tomllib.loads(config.read_text())
    except (OSError, ValueError) as error:  # ValueError: neither TOML nor UTF-8
        raise SemcallError(f"The training recipe {config} cannot be read: {error}.") from error
    switches = getattr(kind, "SWITCHES", ())
    usual: dict[str, Any] = {field.name: field.default for field in fields(kind)}  # type: ignore[arg-type]
    unknown = set(values) - set(usual)
    if unknown:
        raise SemcallError(f"The training recipe {config} has unknown entries: {', '.join(sorted(unknown))}.")
    for name, value in values.items():
        wanted = type(usual[name])
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise SemcallError(f"The training recipe {config}: {name} = {value!r} is no {_KINDS[wanted]}; change it.")
        if wanted in (int, float):
            may_be_none = usual[name] == 0 or name.endswith("steps") or name in ("workers", "seed", *switches)
            if not math.isfinite(value) or value < 0 or (value == 0 and not may_be_none):
                raise SemcallError(f"The training recipe {config}: {name} = {value} is out of range; raise it.")
    return kind(**values)


def started_from(start: str) -> dict[str, Any]:
    """What a card says of the ONNX file that a training went on from ("": from none): how it was made itself.

    Raises SemcallError for a card beside it that cannot be read.
    """
    if not start:
        return {}
    card = read_card(Path(start).with_suffix(".json"), required=False)
    return {
        "start": {key: card[key] for key in ("name", "made", "sha256", "training", "command", "start") if key in card}
    }
