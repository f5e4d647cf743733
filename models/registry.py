"""Finds ONNX models by name or path, reads their cards, checks that the files are what the cards say; writes both.

A model is two files side by side: `NAME.onnx` and its card `NAME.json`; the files' name is the model's, whatever the
card says. The project's own lie in models/weights, the user's in a folder of theirs. Nothing here loads a network:
shared/contracts.py does, and whoever runs it.
"""

from __future__ import annotations

import contextlib
import errno
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
_RESERVED = ("off", "auto")  # --face and --restore have them for none, and for the best there is time for
_DEEPEST = 20  # lists and objects in one another on a card


@dataclass(frozen=True, slots=True)
class Model:
    """A model file, its name and its card (empty for a file that has none).

    `problem`: why the card cannot be read, as a sentence; empty where all is well.
    """

    name: str
    path: Path
    card: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""

    @property
    def shipped(self) -> bool:
        """Whether it comes with the project."""
        return self.path.parent == WEIGHTS


def user_models() -> Path:
    """The folder of the user's own models: SEMCALL_MODELS, else `models` in the user's data folder. May not exist.

    Raises SemcallError where SEMCALL_MODELS names the home of a user who is none.
    """
    chosen = os.environ.get("SEMCALL_MODELS")
    return _expanded(chosen, "SEMCALL_MODELS") if chosen else platformdirs.user_data_path("semcall", False) / "models"


def find_model(name_or_path: str, kind: str = "restorer") -> Model:
    """The model called `name_or_path`, or the .onnx file there, verified against its card.

    Anything that ends in .onnx or has a folder in it is a path. A file without a card is taken as it is. Raises
    SemcallError, with the known names, for a name that is none of them, for a path that does not end in .onnx, and
    for a file that is missing, unreadable, damaged or of another kind or contract.
    """
    is_path = name_or_path.endswith(".onnx") or Path(name_or_path).name != name_or_path
    if is_path:
        path = _expanded(name_or_path, f"The {kind}")
        if path.suffix != ".onnx":
            raise SemcallError(f"The {kind} {name_or_path} is no .onnx file; give the path of one, or a name.")
        model = Model(path.stem, path, read_card(path.with_suffix(".json"), required=False))
    else:
        model = _named(name_or_path, kind)
    if model.card:
        check_kind(model, kind)
    verify(model)
    return model


def list_models(kind: str | None = None) -> list[Model]:
    """The shipped and the user's models, of one kind or all, by name; not verified.

    Names of shipped models, of whatever kind, stand for these alone. One whose card cannot be read is of no kind and
    has its `problem`. Raises SemcallError as `user_models` does.
    """
    models: dict[str, Model] = {}
    for folder in (WEIGHTS, user_models()):
        for model in _models_in(folder):
            models.setdefault(model.name, model)
    return [model for _, model in sorted(models.items()) if kind is None or model.card.get("kind") == kind]


def shipped_restorers() -> list[Model]:
    """Those that came with the release, the largest first; not verified."""
    shipped = [model for model in list_models("restorer") if model.shipped]
    return sorted(shipped, key=lambda model: int(model.card.get("parameters") or 0), reverse=True)


def verify(model: Model) -> bytes:
    """The file's content.

    Raises SemcallError when file or card cannot be read, or the file's SHA-256 is not the one on its card.
    """
    if model.problem:
        raise SemcallError(model.problem)
    try:
        content = _read(model.path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SemcallError(f"The model file {model.path} cannot be read ({reason}); check the path.") from error
    expected = model.card.get("sha256")
    if model.card and hashlib.sha256(content).hexdigest() != expected:
        raise SemcallError(
            f"The model file {model.path} is damaged: its SHA-256 is not the one on its card; get the file again."
        )
    return content


def kind_of(model: Model) -> str:
    """The kind on the model's card. Raises SemcallError where it has none."""
    kind = model.card.get("kind")
    if not isinstance(kind, str) or not kind:
        raise SemcallError(f"The card of {model.path} names no `kind`; it has to be one of {', '.join(CONTRACTS)}.")
    return kind


def check_kind(model: Model, kind: str) -> None:
    """Raise SemcallError unless the card says that the model is of `kind` and of the contract this release runs."""
    if kind_of(model) != kind:
        raise SemcallError(f"{model.path} is a model of kind {kind_of(model)!r}; a {kind} is needed.")
    if model.card.get("contract") != CONTRACTS.get(kind):
        raise SemcallError(
            f"{model.path} follows version {model.card.get('contract')} of the {kind} contract; "
            f"this release of semcall needs version {CONTRACTS.get(kind)}."
        )


def read_card(path: Path, required: bool) -> Mapping[str, Any]:
    """The card there; empty where there is none and none is `required`. Raises SemcallError for what is no card."""
    try:
        card = json.loads(_read(path).decode())
        json.dumps(card, ensure_ascii=False).encode()  # halves of characters could not be printed
    except FileNotFoundError:
        if not required:
            return {}
        raise SemcallError(f"The model card {path} is missing; install semcall again.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise SemcallError(f"The model card {path} cannot be read; get it again or remove it.") from error
    if not isinstance(card, dict) or _deep(card):
        raise SemcallError(f"The model card {path} is not a plain JSON object; get it again or remove it.")
    return card


def save_model(folder: Path, content: bytes, card: Mapping[str, Any]) -> Path:
    """Write `content` as NAME.onnx and its card as NAME.json to `folder`; returns the former's path.

    NAME is the card's `name`; the card's `sha256` and `bytes` become those of `content`. Raises SemcallError as
    `check_name` does and for a folder that cannot be written: what was there is there then as it was.
    """
    path = folder / f"{check_name(card.get('name'))}.onnx"
    facts = {**card, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The card last: what has no card, or a card of other content, is never taken for a model.
        _replace({path: content, path.with_suffix(".json"): text.encode()})
    except OSError as error:
        raise SemcallError(f"Cannot write {path} ({error.strerror or error}); choose another folder.") from error
    return path


def check_name(name: object) -> str:
    """`name`. Raises SemcallError unless a model can be called so: a file name that is no path, `off` or `auto`."""
    if (
        not isinstance(name, str)
        or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_+-]*(\.[A-Za-z0-9_+-]+)*", name)
        or name.endswith(".onnx")
    ):
        raise SemcallError(f"A model cannot be called {name!r}: use letters, digits and - or _ in between.")
    if name.lower() in _RESERVED:
        raise SemcallError(f"A model cannot be called {name!r}, which options use: choose another name.")
    return name


def _replace(files: Mapping[Path, bytes]) -> None:
    """Write all these files or, where one cannot be written, leave all as they were."""
    token = f".semcall-{secrets.token_hex(4)}"
    parts = {path: path.with_name(f"{token}{path.suffix}.part") for path in files}
    olds = {path: path.with_name(f"{token}{path.suffix}.old") for path in files}
    done: list[Path] = []
    try:
        for path, content in files.items():
            parts[path].write_bytes(content)
        for path in files:
            done.append(path)
            if path.is_file():
                path.replace(olds[path])
            parts[path].replace(path)
    except BaseException:
        for path in reversed(done):
            with contextlib.suppress(OSError):
                if olds[path].exists():
                    olds[path].replace(path)
                elif not parts[path].exists():  # it took a place where nothing was
                    path.unlink()
        olds.clear()  # one that could not be put back is better there than nowhere
        raise
    finally:
        for leftover in (*parts.values(), *olds.values()):
            with contextlib.suppress(OSError):
                leftover.unlink(missing_ok=True)


def _expanded(path: str, what: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise SemcallError(f"{what} {path} lies in the home of an unknown user; write the whole path.") from None


def _read(path: Path) -> bytes:
    if path.exists() and not path.is_file() and not path.is_dir():  # a pipe could keep us waiting for ever
        raise OSError(errno.EINVAL, "it is a device or a pipe")
    return path.read_bytes()


def _deep(card: object) -> bool:
    """Whether lists and objects lie too deep in one another to be printed."""
    level = [card]
    for _ in range(_DEEPEST):
        inner = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        level = [value for values in inner for value in values]
    return any(isinstance(item, dict | list) for item in level)


def _models_in(folder: Path) -> Iterator[Model]:
    with contextlib.suppress(OSError):  # no folder, or one that may not be read: no models
        for file in sorted(folder.glob("[!.]*.json")):  # some systems put hidden files beside others
            path = file.with_suffix(".onnx")
            try:
                yield Model(file.stem, path, read_card(file, required=True))
            except SemcallError as error:
                yield Model(file.stem, path, problem=str(error))


def _named(name: str, kind: str) -> Model:
    # The shipped first and alone: whatever lies in the user's folder must not keep them from being found.
    for among in (lambda: _models_in(WEIGHTS), list_models):
        for model in among():
            if model.name == name and (model.problem or model.card.get("kind") == kind):
                return model
    if name == BISENET and kind == "face-parser":
        raise SemcallError(
            f"There is no face-parser called {BISENET!r} yet; make it from a checkpoint with "
            "`semcall models add bisenet CHECKPOINT`."
        )
    names = ", ".join(model.name for model in list_models(kind)) or "none"
    raise SemcallError(f"There is no {kind} called {name!r}; known are: {names}, or give the path of an .onnx file.")
