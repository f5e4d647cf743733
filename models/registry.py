"""Finds ONNX models by name or path, reads their cards and checks that the files are what the cards say.

A model is two files side by side: `NAME.onnx` and its card `NAME.json`. The project's own lie in models/weights.
Nothing here loads a network: whether a model keeps its contract is checked by whoever runs it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.errors import SemcallError

WEIGHTS = Path(__file__).parent / "weights"
CONTRACTS = {"restorer": 1}
"""Contract version of each kind of model that this release runs."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model file, its name and its card (empty for a file that has none)."""

    name: str
    path: Path
    card: Mapping[str, Any] = field(default_factory=dict)


def find_model(name_or_path: str, kind: str = "restorer") -> Model:
    """The model called `name_or_path`, or the .onnx file there, verified against its card.

    Anything that ends in .onnx or has a folder in it is a path. A file without a card is taken as it is. Raises
    SemcallError, with the known names, for a name that is none of them, and for a file that is missing, unreadable,
    damaged or of another kind or contract.
    """
    is_path = name_or_path.endswith(".onnx") or Path(name_or_path).name != name_or_path
    if is_path:
        path = Path(name_or_path).expanduser()
        model = Model(path.stem, path, _read_card(path.with_suffix(".json"), required=False))
    else:
        known = {model.name: model for model in list_models(kind)}
        if name_or_path not in known:
            names = ", ".join(sorted(known)) or "none"
            raise SemcallError(
                f"There is no {kind} called {name_or_path!r}; known are: {names}, or give the path of an .onnx file."
            )
        model = known[name_or_path]
    if model.card:
        _check_kind(model, kind)
    verify(model)
    return model


def list_models(kind: str | None = None) -> list[Model]:
    """The models that come with the project, of one kind or all, by name; not verified."""
    models = []
    for file in sorted(WEIGHTS.glob("*.json")):
        card = _read_card(file, required=True)
        if kind is None or card.get("kind") == kind:
            models.append(Model(str(card.get("name", file.stem)), file.with_suffix(".onnx"), card))
    return models


def verify(model: Model) -> None:
    """Raise SemcallError when the file cannot be read or is not the one whose SHA-256 its card gives."""
    try:
        content = model.path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SemcallError(f"The model file {model.path} cannot be read ({reason}); check the path.") from error
    expected = model.card.get("sha256")
    if model.card and hashlib.sha256(content).hexdigest() != expected:
        raise SemcallError(
            f"The model file {model.path} is damaged: its SHA-256 is not the one on its card; get the file again."
        )


def _check_kind(model: Model, kind: str) -> None:
    if model.card.get("kind") != kind:
        raise SemcallError(f"{model.path} is a model of kind {model.card.get('kind')!r}; a {kind} is needed.")
    if model.card.get("contract") != CONTRACTS.get(kind):
        raise SemcallError(
            f"{model.path} follows version {model.card.get('contract')} of the {kind} contract; "
            f"this release of semcall needs version {CONTRACTS.get(kind)}."
        )


def _read_card(path: Path, required: bool) -> Mapping[str, Any]:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not required:
            return {}
        raise SemcallError(f"The model card {path} is missing; install semcall again.") from None
    except (OSError, ValueError) as error:
        raise SemcallError(f"The model card {path} cannot be read; get it again or remove it.") from error
    if not isinstance(card, dict):
        raise SemcallError(f"The model card {path} is not a JSON object; get it again or remove it.")
    return card
