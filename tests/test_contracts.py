"""What a file and its card must be, beyond what tests of parser and restorer cover; the region that is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command import call
from faces import CARD, bright_model
from numpy.typing import NDArray

from shared.contracts import REGIONS, _try_parser, check_choice, check_file, check_region
from shared.errors import SemcallError


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_must_be_finite(tmp_path: Path, value: float) -> None:
    onnx = pytest.importorskip("onnx")
    path = bright_model(tmp_path).model
    assert path is not None
    check_file(path, "face-parser", CARD)
    model = onnx.load(path)
    (bias,) = [tensor for tensor in model.graph.initializer if tensor.name == "bias"]
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(3, value, np.float32), "bias"))
    onnx.save(model, path)
    with pytest.raises(SemcallError, match=r"does not keep the face-parser contract: .* that are not finite"):
        check_file(path, "face-parser", CARD)


class Session:
    """Gives logits of one shape, whatever its graph declares."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def run(self, _names: list[str], _inputs: object) -> list[NDArray[np.float32]]:
        return [np.zeros(self.shape, np.float32)]


@pytest.mark.parametrize("shape", [(), (1, 3, 9), (1, 3, 9, 16, 1), (2, 3, 9, 16), (1, 2, 9, 16), (1, 3, 8, 16)])
def test_logits_of_another_shape_than_declared(shape: tuple[int, ...]) -> None:
    _try_parser(Session(1, 3, 9, 16), CARD, "It")
    with pytest.raises(SemcallError, match="instead of 3 classes at a quarter of it or more"):
        _try_parser(Session(*shape), CARD, "It")


def test_the_choice_of_a_parser(tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"  # not looked at
    check_choice(path, CARD, "face+hair")
    for card, region, expected in (
        ({}, "face", r"mine.onnx has no card mine.json beside it"),
        ({**CARD, "regions": {}}, "face", "on its card, `regions` has no `face`"),
        (CARD, "person", "mine knows no region 'person': choose from face, face.hair with --face-region"),
    ):
        with pytest.raises(SemcallError, match=expected):
            check_choice(path, card, region)
    for region in REGIONS:
        check_region(region, REGIONS, "This release")


@pytest.mark.parametrize("command", ["send", "encode", "mask", "demo"])
@pytest.mark.parametrize("face", ["off", "face"])
def test_a_region_that_is_none(
    command: str, face: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Said before anything is opened or started, a demo's receiver and its folder included."""
    monkeypatch.chdir(tmp_path)
    files = ["in.mp4", "out.mp4"] if command in ("encode", "mask") else []
    assert call(monkeypatch, command, *files, "--face", face, "--face-region", "nonsense") == 2
    said = capfd.readouterr()
    assert "knows no region 'nonsense': choose from face, face+hair" in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []
