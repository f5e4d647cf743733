"""Face parsers as ONNX files: what the file computes, its card, what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from models.registry import find_model
from shared.errors import SemcallError

torch = pytest.importorskip("torch", reason="needs the train extra")
onnx = pytest.importorskip("onnx", reason="needs the train extra")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from models.networks import bisenet  # noqa: E402
from models.training.export_parser import write_parser  # noqa: E402

CLASSES = ["background", "face", "hair"]
REGIONS = {"face": ["face"], "face+hair": ["face", "hair"]}


class Tiny(nn.Module):
    """A parser with the traps of an export: statistics, sides that halve unevenly, a mean over the picture."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.entry = nn.Conv2d(3, 8, 3, 2, 1)
        self.norm = nn.BatchNorm2d(8)
        self.quarter = nn.Conv2d(8, 8, 3, 2, 1)
        self.eighth = nn.Conv2d(8, 8, 3, 2, 1)
        self.head = nn.Conv2d(8, classes, 1)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, rgb: Any) -> Any:
        quarter = F.relu(self.quarter(F.relu(self.norm(self.entry((rgb - 128) / 64)))))
        eighth = F.relu(self.eighth(quarter))
        eighth = eighth + eighth.mean((2, 3), keepdim=True)
        wide = F.interpolate(eighth, scale_factor=2.0)[:, :, : quarter.shape[2], : quarter.shape[3]]
        return self.head(quarter + wide)


class Frozen(Tiny):
    """Remembers the size it was traced at."""

    def forward(self, rgb: Any) -> Any:
        height, width = (int(side) // 4 for side in rgb.shape[2:])
        return F.interpolate(super().forward(rgb), (height, width))


class Coarse(Tiny):
    """An eighth, not a quarter."""

    def forward(self, rgb: Any) -> Any:
        return F.max_pool2d(super().forward(rgb), 2)


class Noisy(Tiny):
    """Never the same twice."""

    def forward(self, rgb: Any) -> Any:
        logits = super().forward(rgb)
        return logits + torch.rand_like(logits)


class Nan(Tiny):
    """Divides nothing by nothing."""

    def forward(self, rgb: Any) -> Any:
        nothing = rgb.mean() * 0
        return super().forward(rgb) + nothing / nothing


class Untraceable(Tiny):
    """Uses what ONNX has no name for."""

    def forward(self, rgb: Any) -> Any:
        return torch.linalg.svd(super().forward(rgb))[0]


def write(net: nn.Module, folder: Path, **changes: Any) -> Path:
    arguments = {
        "name": "tiny", "classes": CLASSES, "regions": REGIONS, "input_pixels": 57600, "input_multiple": 4,
        "facts": {"command": "semcall train face"},
    } | changes  # fmt: skip
    return write_parser(net, folder=folder, **arguments)


def logits(path: Path, picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {"rgb": picture})[0])


def pixels(height: int, width: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(5).integers(0, 256, (1, 3, height, width), np.uint8)


@pytest.fixture(scope="module")
def net() -> Tiny:
    torch.manual_seed(3)
    return Tiny()


@pytest.fixture(scope="module")
def exported(net: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(net, tmp_path_factory.mktemp("models") / "new")


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> tuple[bisenet.BiSeNet, Path]:
    torch.manual_seed(4)
    net = bisenet.BiSeNet()
    folder = tmp_path_factory.mktemp("bisenet")
    path = write(
        net,
        folder,
        name="bisenet",
        classes=bisenet.CLASSES,
        regions=bisenet.REGIONS,
        input_pixels=bisenet.INPUT_PIXELS,
        input_multiple=bisenet.INPUT_MULTIPLE,
    )
    return net, path


@pytest.mark.parametrize(("height", "width"), [(4, 4), (180, 320), (100, 36), (212, 132), (37, 51)])
def test_the_file_computes_what_the_network_does_at_any_size(
    net: Tiny, exported: Path, height: int, width: int
) -> None:
    picture = pixels(height, width)
    with torch.inference_mode():
        expected = net(torch.from_numpy(picture).float()).numpy()
    assert expected.shape == (1, 3, -(-height // 4), -(-width // 4))
    np.testing.assert_allclose(logits(exported, picture), expected, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(64, 32), (96, 160), (45, 70)])
def test_bisenets_file_does_too(big: tuple[bisenet.BiSeNet, Path], height: int, width: int) -> None:
    net, path = big
    picture = pixels(height, width)
    with torch.inference_mode():
        expected = net(torch.from_numpy(picture).float()).numpy()
    assert expected.shape == (1, 19, -(-height // 4), -(-width // 4))
    np.testing.assert_allclose(logits(path, picture), expected, atol=1e-3 * np.abs(expected).max())


def test_the_graph(exported: Path, big: tuple[bisenet.BiSeNet, Path]) -> None:
    for path in (exported, big[1]):
        model = onnx.load(path, load_external_data=False)
        onnx.checker.check_model(model, full_check=True)
        assert [entry.version for entry in model.opset_import] == [17]
        assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
        assert not any(tensor.external_data for tensor in model.graph.initializer)
        assert sorted(file.name for file in path.parent.iterdir()) == [f"{path.stem}.json", path.name]
    # The auxiliary heads, 0.15 M parameters, stay behind.
    assert big[1].stat().st_size < 4 * 13.2e6


def test_the_card(net: Tiny, exported: Path) -> None:
    content = exported.read_bytes()
    card = json.loads(exported.with_suffix(".json").read_text())
    assert card["name"] == "tiny"
    assert (card["kind"], card["contract"], card["opset"]) == ("face-parser", 1, 17)
    assert card["sha256"] == hashlib.sha256(content).hexdigest()
    assert card["bytes"] == len(content)
    assert card["parameters"] == sum(p.numel() for p in net.parameters())
    assert card["classes"] == CLASSES
    assert card["regions"] == REGIONS
    assert card["input"] == {"pixels": 57600, "multiple": 4}
    assert set(card["inputs"]) == {"rgb"}
    assert set(card["outputs"]) == {"logits"}
    assert card["command"] == "semcall train face"
    assert find_model(str(exported), "face-parser").card == card


def test_facts_have_the_last_word_on_the_licence(net: Tiny, tmp_path: Path) -> None:
    path = write(net, tmp_path, facts={"licence": "CC-BY-4.0", "sha256": "wrong"})
    card = find_model(str(path), "face-parser").card
    assert card["licence"] == "CC-BY-4.0"


def test_one_changed_byte_is_noticed(exported: Path, tmp_path: Path) -> None:
    content = bytearray(exported.read_bytes())
    content[len(content) // 2] ^= 1
    path = tmp_path / exported.name
    path.write_bytes(content)
    path.with_suffix(".json").write_bytes(exported.with_suffix(".json").read_bytes())
    with pytest.raises(SemcallError, match="damaged: its SHA-256"):
        find_model(str(path), "face-parser")


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (Frozen, r"gives logits \[1, 3, 16, 24\] of a 196x120 picture .* a size is frozen"),
        (Coarse, "does not keep the face-parser contract: it gives logits"),
        (Noisy, "differs from the network by"),
        (Nan, "logits of a grey picture that are not finite"),
        (Untraceable, "cannot be exported to ONNX"),
    ],
)
def test_networks_that_are_refused(tmp_path: Path, kind: type[Tiny], sentence: str) -> None:
    torch.manual_seed(3)
    with pytest.raises(SemcallError, match=sentence) as caught:
        write(kind(), tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"classes": ["background", "face"], "regions": {"face": ["face"]}}, r"logits is .* instead of float"),
        ({"classes": ["a", "face", "a"]}, "`classes` is no list of two or more different names"),
        ({"classes": []}, "`classes` is no list"),
        ({"regions": {"person": ["face"]}}, "`regions` has no `face`"),
        ({"regions": {**REGIONS, "hands": ["face"]}}, "`regions` has hands, which is none of face, face"),
        ({"regions": {"face": ["nose"]}}, "region face is no list of names from `classes`"),
        ({"regions": {"face": []}}, "region face is no list of names from `classes`"),
        ({"input_pixels": 10}, "`input` needs whole numbers"),
        ({"input_multiple": 0}, "`input` needs whole numbers"),
        ({"name": "../tiny"}, "cannot be called '../tiny'"),
        ({"name": ""}, "cannot be called ''"),
    ],
)
def test_cards_that_are_refused(net: Tiny, tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SemcallError, match=sentence):
        write(net, tmp_path / "folder", **change)
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_file_outlives_a_failed_export(net: Tiny, tmp_path: Path) -> None:
    path = write(net, tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(SemcallError):
        write(Noisy(), tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    write(Tiny(), tmp_path)
    assert path.read_bytes() != before[path.name]
    find_model(str(path), "face-parser")


def test_a_folder_that_is_a_file(net: Tiny, tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("precious")
    with pytest.raises(SemcallError, match=r"Cannot write .*; choose another folder"):
        write(net, tmp_path / "folder")
    assert (tmp_path / "folder").read_text() == "precious"
