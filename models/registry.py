"""Finds ONNX models by name or path, reads their cards, checks that the files are what the cards say; writes both.

A model is two files side by side: `NAME.onnx` and its card `NAME.json`. The project's own lie in models/weights, the
user's in a folder of theirs. Nothing here loads a network: shared/contracts.py does, and whoever runs it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from shared.errors import SemcallError

WEIGHTS = Path(__file__).parent / "weights"
CONTRACTS = {"restorer": 1, "face-parser": 1}
"""Contract version of each kind of model that this release runs."""
BISENET = "bisenet"
"""The face parser that is not shipped: users convert a checkpoint of theirs."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model file, its name and its card (empty for a file that has none)."""

    name: str
    path: Path
    card: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shipped(self) -> bool:
        """Whether it comes with the project."""
        return self.path.parent == WEIGHTS


def user_models() -> Path:
    """The folder of the user's own models: SEMCALL_MODELS, else `models` in the user's data folder. May not exist."""
    chosen = os.environ.get("SEMCALL_MODELS")
    return Path(chosen).expanduser() if chosen else platformdirs.user_data_path("semcall", False) / "models"


def find_model(name_or_path: str, kind: str = "restorer") -> Model:
    """The model called `name_or_path`, or the .onnx file there, verified against its card.

    Anything that ends in .onnx or has a folder in it is a path. A file without a card is taken as it is. Raises
    SemcallError, with the known names, for a name that is none of them, and for a file that is missing, unreadable,
    damaged or of another kind or contract.
    """
    is_path = name_or_path.endswith(".onnx") or Path(name_or_path).name != name_or_path
    if is_path:
        path = Path(name_or_path).expanduser()
        model = Model(path.stem, path, read_card(path.with_suffix(".json"), required=False))
    else:
        model = _named(name_or_path, kind)
    if model.card:
        check_kind(model, kind)
    verify(model)
    return model


def list_models(kind: str | None = None) -> list[Model]:
    """The shipped and the user's models, of one kind or all, by name; not verified.

    Names of shipped models, of whatever kind, stand for these alone. Raises SemcallError for a card that cannot be
    read.
    """
    models: dict[str, Model] = {}
    for folder in (WEIGHTS, user_models()):
        for model in _models_in(folder):
            models.setdefault(model.name, model)
    return [model for _, model in sorted(models.items()) if kind is None or model.card.get("kind") == kind]


def verify(model: Model) -> bytes:
    """The file's content. Raises SemcallError when it cannot be read or its SHA-256 is not the one on its card."""
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
    return content


def check_kind(model: Model, kind: str) -> None:
    """Raise SemcallError unless the card says that the model is of `kind` and of the contract this release runs."""
    if model.card.get("kind") != kind:
        raise SemcallError(f"{model.path} is a model of kind {model.card.get('kind')!r}; a {kind} is needed.")
    if model.card.get("contract") != CONTRACTS.get(kind):
        raise SemcallError(
            f"{model.path} follows version {model.card.get('contract')} of the {kind} contract; "
            f"this release of semcall needs version {CONTRACTS.get(kind)}."
        )


def read_card(path: Path, required: bool) -> Mapping[str, Any]:
    """The card there; empty where there is none and none is `required`. Raises SemcallError for what is no card."""
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


def save_model(folder: Path, content: bytes, card: Mapping[str, Any]) -> Path:
    """Write `content` as NAME.onnx and its card as NAME.json to `folder`; returns the former's path.

    NAME is the card's `name`; the card's `sha256` and `bytes` become those of `content`. Each file is there whole or
    not at all, and the card last: what has no card, or a card of other content, is never taken for a model. Raises
    SemcallError for a name that is no file name and for a folder that cannot be written.
    """
    name = card.get("name")
    if (
        not isinstance(name, str)
        or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_+-]*(\.[A-Za-z0-9_+-]+)*", name)
        or name.endswith(".onnx")
    ):
        raise SemcallError(f"A model cannot be called {name!r}: use letters, digits and - or _ in between.")
    path = folder / f"{name}.onnx"
    facts = {**card, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(path, content)
        _replace(path.with_suffix(".json"), text.encode())
    except OSError as error:
        raise SemcallError(f"Cannot write {path} ({error.strerror or error}); choose another folder.") from error
    return path


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(f".semcall-{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _models_in(folder: Path) -> Iterator[Model]:
    for file in sorted(folder.glob("*.json")):
        card = read_card(file, required=True)
        yield Model(str(card.get("name", file.stem)), file.with_suffix(".onnx"), card)


def _named(name: str, kind: str) -> Model:
    # The shipped first and alone: whatever lies in the user's folder must not keep them from being found.
    for among in (lambda: _models_in(WEIGHTS), list_models):
        for model in among():
            if model.name == name and model.card.get("kind") == kind:
                return model
    if name == BISENET and kind == "face-parser":
        raise SemcallError(
            f"There is no face-parser called {BISENET!r} yet; make it from a checkpoint with "
            "`semcall models add bisenet CHECKPOINT`."
        )
    names = ", ".join(model.name for model in list_models(kind)) or "none"
    raise SemcallError(f"There is no {kind} called {name!r}; known are: {names}, or give the path of an .onnx file.")
