"""Checkpoints of the trainers to model files: which exporter takes which."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.registry import check_name
from models.training.calibration import gather
from models.training.export_rgb import Exported, write_rgb
from shared.errors import SemcallError
from shared.inference import first_line

_UNNAMED = {"fast": {"channels", "depth", "chroma", "quantisers"}, "small": {"channels", "depth", "pixel_steps"}}
"""By which entries of its recipe a checkpoint without a `kind` is known."""
_CARRIED = ("training_data", "licence", "metrics", "start", "strengths", "eyes")


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """`checkpoint`: file; `out`: folder of the models; `name`: theirs (None: the recipe's, else the kind).

    `int8`: try an 8-bit variant, where the network is not one already; `data`: directory with clips for it (None: the
    demo source); `command`: what makes the models, for the cards.
    """

    checkpoint: Path
    out: Path
    name: str | None = None
    int8: bool = True
    data: Path | None = None
    command: str = "semcall export"


def export_checkpoint(options: ExportOptions) -> Exported:
    """Write the model of any restorer's checkpoint, and its card, to a folder.

    Raises SemcallError, and writes nothing, for a file that is no whole checkpoint of a known kind, for clips that
    cannot be read, and for a network that cannot be exported.
    """
    state = read_checkpoint(options.checkpoint)
    kind = state["kind"]
    exporter = EXPORTERS.get(kind) if isinstance(kind, str) else None
    if exporter is None:
        raise SemcallError(
            f"The checkpoint {options.checkpoint} is of kind {kind!r}, which this release does not export: it "
            f"knows {', '.join(EXPORTERS)}."
        )
    name = check_name(options.name or state["recipe"].get("name", kind))
    return exporter(state, name, options)


def read_checkpoint(path: Path) -> Mapping[str, Any]:
    """What a restorer's trainer saved: `kind`, `recipe` (a dictionary), `ema` (averaged weights), and more.

    Only tensors and plain values are read, nothing is run. Raises SemcallError for anything else.
    """
    try:
        # Only files: a pipe could keep us waiting for ever.
        state = torch.load(path, weights_only=True, map_location="cpu") if path.is_file() else None
    except Exception as error:  # torch raises many kinds
        raise SemcallError(
            f"The checkpoint {path} cannot be read: it is damaged or no checkpoint ({type(error).__name__})."
        ) from error
    if state is None:
        raise SemcallError(f"There is no checkpoint {path}: give the file that a training wrote.")
    found = dict(state) if isinstance(state, dict) else {}
    if isinstance(facts := found.pop("facts", {}), dict):
        found = facts | found
    recipe = found.setdefault("recipe", found.get("about"))  # what Fit calls it
    if isinstance(recipe, dict) and "kind" not in found:
        # Fit keeps it with the recipe; earlier trainers of networks on planes name no kind.
        known = next((kind for kind, parts in _UNNAMED.items() if parts <= set(recipe)), None)
        found["kind"] = recipe.get("kind", known)
    if not isinstance(recipe, dict) or not isinstance(found.get("ema"), dict) or found["kind"] is None:
        raise SemcallError(
            f"{path} is no restorer's checkpoint: it holds no recipe of one with averaged weights. "
            "Other networks are exported by what trains them."
        )
    return found


def _paper(state: Mapping[str, Any], name: str, options: ExportOptions) -> Exported:
    from models.networks.generator import PaperGenerator

    recipe = state["recipe"]
    try:
        net = PaperGenerator(**{key: int(recipe[key]) for key in ("channels", "blocks") if key in recipe})
        # In training it is inside a PlanesContract.
        net.load_state_dict({key.removeprefix("net."): value for key, value in state["ema"].items()})
    except Exception as error:  # torch raises many kinds
        raise _unfit(options.checkpoint, error) from error
    material = gather(options.data) if options.int8 else None
    return write_rgb(net, name, options.out, _facts(state, options), material)


def _fast(state: Mapping[str, Any], name: str, options: ExportOptions) -> Exported:
    from models.networks.restorer import FastRestorer
    from models.training.export import write
    from models.training.restoration.export import strengthen

    recipe = state["recipe"]
    try:
        # The small restorer of the first release is this one without chroma, up to the depth at which skips begin.
        if "chroma" not in recipe and recipe["depth"] > 2:
            raise ValueError("a small restorer deeper than 2 is of an earlier release")
        net = FastRestorer(
            recipe["channels"],
            recipe["depth"],
            recipe.get("chroma", False),
            recipe.get("quantisers", True),
            recipe.get("deep", 0),
        )
        net.load_state_dict(state["ema"])
        strengthen(net, *(float(by) for by in state.get("strengths", (1, 1))))
    except Exception as error:  # torch raises many kinds
        raise _unfit(options.checkpoint, error) from error
    path = write(net, name, options.out, _facts(state, options))
    return Exported(path, None, "It is an 8-bit network by itself: no variant is made." if options.int8 else "")


EXPORTERS: dict[str, Callable[[Mapping[str, Any], str, ExportOptions], Exported]] = {
    "paper": _paper, "fast": _fast, "small": _fast,
}  # fmt: skip
"""By the checkpoint's `kind`. Each may rely on what `read_checkpoint` promises."""


def _facts(state: Mapping[str, Any], options: ExportOptions) -> dict[str, Any]:
    """What a checkpoint says of itself, for the card. Raises SemcallError for what no card can hold."""
    facts = {key: state[key] for key in _CARRIED if key in state}
    if "training_data" not in facts and "clips" in state:
        facts["training_data"] = {"clips": state["clips"]}
    facts.setdefault("training_data", "not stated by the checkpoint")
    facts.setdefault("licence", "not stated by the checkpoint")
    training: dict[str, Any] = {"recipe": state["recipe"]}
    if "step" in state:
        training["steps"] = state["step"]
    try:
        if "seconds" in state:
            training["minutes"] = round(float(state["seconds"]) / 60, 1)
        facts |= {"training": training, "command": options.command}
        json.dumps(facts)
    except (TypeError, ValueError) as error:
        raise SemcallError(
            f"The checkpoint {options.checkpoint} cannot be read: it says of itself what no card can hold "
            f"({first_line(error).rstrip('.')})."
        ) from error
    return facts


def _unfit(checkpoint: Path, error: Exception) -> SemcallError:
    return SemcallError(
        f"The checkpoint {checkpoint} cannot be read: its recipe and weights do not make a network "
        f"({first_line(error).rstrip('.')})."
    )
