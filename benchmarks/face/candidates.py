"""The face finders that are compared, each as something that gives every picture of a sequence its mask."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from models.registry import find_model, list_models
from sender.face import Segmenter, SteadySegmenter
from sender.parser import FaceParser

KIND = "face-parser"


@dataclass(frozen=True, slots=True)
class Candidate:
    """`open`: a fresh one, for one sequence; `judged`: False where only its speed means anything."""

    name: str
    open: Callable[[], Segmenter]
    path: Path = Path()
    judged: bool = True


def shipped(name: str = "face") -> Candidate:
    """A parser by name or file."""
    model = find_model(name, KIND)
    parser = FaceParser(model.path, model.card)
    return Candidate(model.name, lambda: SteadySegmenter(parser), model.path)


@contextmanager
def bisenet() -> Iterator[Candidate]:
    """The user's BiSeNet; with random weights, for its speed alone, where there is none. Needs PyTorch for that."""
    if any(model.name == "bisenet" for model in list_models(KIND)):
        yield shipped("bisenet")
        return
    import torch

    from models.networks.bisenet import CLASSES, INPUT_MULTIPLE, INPUT_PIXELS, REGIONS, BiSeNet
    from models.registry import read_card
    from models.training.export_parser import write_parser

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = write_parser(BiSeNet(), "bisenet", Path(folder), CLASSES, REGIONS, INPUT_PIXELS, INPUT_MULTIPLE, {})
        parser = FaceParser(path, read_card(path.with_suffix(".json"), required=True))
        yield Candidate("bisenet, random weights", lambda: SteadySegmenter(parser), path, judged=False)


def cascade() -> Candidate | None:
    """The LBP cascade, where scikit-image is there to lend its file."""
    try:
        from benchmarks.lbp import LbpSegmenter

        LbpSegmenter()
    except ImportError:
        return None
    return Candidate("LBP cascade", LbpSegmenter)
