"""What the models of each kind take and give, and whether a file and its card keep to that."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from shared.errors import SemcallError
from shared.inference import Tensor, check_tensors, first_line, open_session

REGIONS = ("face", "face+hair", "person")
"""Regions that a face parser's card may map to classes; `face` (face and neck, as in the paper) is always there."""
_LUMA: Tensor = "uint8", (1, 1, None, None)
_CHROMA: Tensor = "uint8", (1, 2, None, None)
_RGB: Tensor = "uint8", (1, 3, None, None)


def check_file(path: Path, kind: str, card: Mapping[str, Any]) -> None:
    """Raise SemcallError unless the ONNX file at `path` and its card keep the contract of their kind."""
    open_session(path, kind, 1, lambda session: check_session(session, kind, card, f"The {kind} {path}"))


def check_session(session: ort.InferenceSession, kind: str, card: Mapping[str, Any], model: str) -> None:
    """Raise SemcallError unless an opened network and its card keep the contract of their kind.

    `model`: what to call it in the sentence. Names, types and shapes of inputs and outputs are compared, and it must
    run on a small picture, a face parser with finite logits; its card must name its classes and regions.
    """
    broken = f"{model} does not keep the {kind} contract"
    if kind == "restorer":
        check_tensors(session, broken, {"y": _LUMA, "uv": _CHROMA, "qp": _LUMA}, {"y_out": _LUMA, "uv_out": _CHROMA})
        _try_restorer(session, broken)
    elif kind == "face-parser":
        check_parser_card(card, model)
        logits: Tensor = "float", (1, len(card["classes"]), None, None)
        check_tensors(session, broken, {"rgb": _RGB}, {"logits": logits})
        _try_parser(session, card, broken)
    else:  # a card's kind that is none is refused before: models/registry.py
        raise SemcallError(f"{model} is of a kind that this release of semcall does not run; get a newer release.")


def check_parser_card(card: Mapping[str, Any], model: str) -> None:
    """Raise SemcallError unless a face parser's card has `classes`, `regions` and `input` that go together."""
    classes: Any = card.get("classes")
    regions: Any = card.get("regions")
    picture: Any = card.get("input")
    problem = ""
    if not _names(classes) or len(set(classes)) != len(classes) or len(classes) < 2:
        problem = "`classes` is no list of two or more different names"
    elif not isinstance(regions, dict) or "face" not in regions:
        problem = "`regions` has no `face`"
    elif unknown := sorted(set(regions) - set(REGIONS)):
        problem = f"`regions` has {', '.join(unknown)}, which is none of {', '.join(REGIONS)}"
    elif odd := [name for name, some in regions.items() if not _names(some) or not set(some) <= set(classes)]:
        problem = f"the region {odd[0]} is no list of names from `classes`"
    elif not isinstance(picture, dict) or not (
        _whole(picture.get("pixels"), 1024, 1 << 24) and _whole(picture.get("multiple"), 1, 256)
    ):
        problem = "`input` needs whole numbers `pixels` (1024 to 16777216) and `multiple` (1 to 256)"
    if problem:
        raise SemcallError(f"{model} does not keep the face-parser contract: on its card, {problem}.")


def check_region(region: str, known: Collection[str], model: str) -> None:
    """Raise SemcallError unless `region` is one of those `known` to what the sentence calls `model`."""
    if region not in known:
        raise SemcallError(f"{model} knows no region {region!r}: choose from {', '.join(known)} with --face-region.")


def check_choice(path: Path, card: Mapping[str, Any], region: str) -> None:
    """Raise SemcallError unless the face parser at `path` has a card, which keeps the contract and has `region`.

    All that can be said of a parser and what is asked of it before the file is opened.
    """
    if not card:
        raise SemcallError(f"The face parser {path} has no card {path.stem}.json beside it: put it there.")
    check_parser_card(card, f"The face parser {path}")
    check_region(region, card["regions"], f"The face parser {path.stem}")


def _try_restorer(session: ort.InferenceSession, broken: str) -> None:
    width, height = 48, 32
    grey = {
        "y": np.full((1, 1, height, width), 128, np.uint8),
        "uv": np.full((1, 2, height // 2, width // 2), 128, np.uint8),
        "qp": np.full((1, 1, height // 16, width // 16), 30, np.uint8),
    }
    try:
        shapes = [value.shape for value in session.run(["y_out", "uv_out"], grey)]
        if shapes != [grey["y"].shape, grey["uv"].shape]:
            raise ValueError(f"its outputs are {shapes[0]} and {shapes[1]}")
    except Exception as error:  # the runtime's exceptions have no common base
        raise SemcallError(f"{broken}: it fails on a {width}x{height} picture ({first_line(error)})") from error


def _try_parser(session: ort.InferenceSession, card: Mapping[str, Any], broken: str) -> None:
    multiple = card["input"]["multiple"]
    height, width = (multiple * -(-side // multiple) for side in (36, 64))
    try:
        (logits,) = session.run(["logits"], {"rgb": np.full((1, 3, height, width), 128, np.uint8)})
    except Exception as error:  # the runtime's exceptions have no common base
        raise SemcallError(f"{broken}: it fails on a {width}x{height} picture ({first_line(error)})") from error
    # What the graph declares was compared before; what it really gives is another matter.
    enough = logits.ndim == 4 and logits.shape[2] >= -(-height // 4) and logits.shape[3] >= -(-width // 4)
    if not enough or logits.shape[:2] != (1, len(card["classes"])):
        raise SemcallError(
            f"{broken}: it gives logits {list(logits.shape)} of a {width}x{height} picture instead of "
            f"{len(card['classes'])} classes at a quarter of it or more."
        )
    if not np.isfinite(logits).all():
        raise SemcallError(f"{broken}: it gives logits of a grey picture that are not finite.")


def _names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) and name for name in value)


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
