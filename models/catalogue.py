"""Adding, removing and checking the models a user has (`semcall models`)."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from models.registry import (
    BISENET,
    CONTRACTS,
    Model,
    check_kind,
    check_name,
    kind_of,
    list_models,
    read_card,
    save_model,
    user_models,
    verify,
)
from shared.contracts import check_file
from shared.errors import SemcallError


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

    It is called what its card says, else as the file. Raises SemcallError, and changes nothing, for a file without a
    card, one that is not what its card says or does not keep its contract, and a name that no model can have, is
    shipped or, without `force`, there already.
    """
    if path.suffix != ".onnx":
        raise SemcallError(
            f"{path} is no .onnx file; add one with its card, or `{BISENET} CHECKPOINT` to convert a checkpoint."
        )
    card = read_card(path.with_suffix(".json"), required=False)
    if path.exists() and not card:
        raise SemcallError(f"{path} has no card; put {path.with_suffix('.json').name} next to it.")
    model = Model(check_name(card.get("name", path.stem)), path, card)
    content = _check(model)
    # Any face parser may take the place of the converted one; another kind would only bar the way.
    if model.name == BISENET:
        check_kind(model, "face-parser")
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


def _check(model: Model) -> bytes:
    """The content of a model file that is what its card says and keeps its contract."""
    content = verify(model)
    kind = kind_of(model)
    if kind in CONTRACTS:
        check_kind(model, kind)
    check_file(model.path, kind, model.card)
    return content


def _require_free(name: str, force: bool) -> None:
    if any(model.name == name and model.shipped for model in list_models()):
        raise SemcallError(f"{name} is the name of a model that comes with semcall; give yours another on its card.")
    path = user_models() / f"{name}.onnx"
    # Looked for by file: one that lost its card is no model, but its user's all the same.
    if not force and any(map(os.path.lexists, (path, path.with_suffix(".json")))):
        raise SemcallError(f"There is a model called {name} already, {path}; replace it with --force.")
