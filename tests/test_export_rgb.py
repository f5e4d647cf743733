"""RGB networks as restorers: what the file computes, its cards, its 8-bit variant, `semcall export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from models.registry import find_model
from shared.contracts import check_file
from shared.errors import SemcallError
from shared.grid import grid_shape
from shared.picture import I420, bgr_from_i420, i420_from_bgr
from tests.command import call

torch = pytest.importorskip("torch", reason="needs the train extra")
onnx = pytest.importorskip("onnx", reason="needs the train extra")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from models.networks.generator import PaperGenerator  # noqa: E402
from models.networks.planes_contract import PlanesContract  # noqa: E402
from models.networks.restorer import FastRestorer  # noqa: E402
from models.training import export, export_rgb  # noqa: E402
from models.training.calibration import CROP, Material, Sample, gather, inputs  # noqa: E402
from models.training.export_int8 import Comparison, compare, quantised  # noqa: E402
from models.training.export_rgb import Exported, write_rgb  # noqa: E402

FACTS = {"licence": "MIT", "command": "semcall export"}
GOOD = Comparison(45.0, "RMSE of luma", 4.0, 4.04, 20.0, 12.0, 9)


class Tiny(nn.Module):
    """A generator in small, with a change that can be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = nn.Conv2d(3, 8, 3, 2, 1, padding_mode="replicate")
        self.body = nn.Conv2d(8, 8, 3, padding=1, padding_mode="replicate")
        self.exit = nn.Conv2d(8, 3, 3, padding=1, padding_mode="replicate")

    def forward(self, rgb: Any) -> Any:
        x = F.leaky_relu(self.entry(rgb - 0.5), 0.2)
        x = x + F.leaky_relu(self.body(x), 0.2)
        return rgb + 0.5 * self.exit(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Quarter(Tiny):
    """Halves twice, and so takes multiples of four alone."""

    def forward(self, rgb: Any) -> Any:
        assert rgb.shape[2] % 4 == rgb.shape[3] % 4 == 0
        return F.interpolate(F.avg_pool2d(super().forward(rgb), 4), scale_factor=4.0)


class Frozen(Tiny):
    """Remembers the size it was traced at."""

    def forward(self, rgb: Any) -> Any:
        return F.interpolate(super().forward(rgb), tuple(int(side) for side in rgb.shape[2:]))


class Noisy(Tiny):
    """Never the same twice."""

    def forward(self, rgb: Any) -> Any:
        return rgb + 0.1 * torch.rand_like(rgb)


class Nan(Tiny):
    """Divides nothing by nothing."""

    def forward(self, rgb: Any) -> Any:
        nothing = rgb.mean() * 0
        return rgb + nothing / nothing


class Untraceable(Tiny):
    """Uses what ONNX has no name for."""

    def forward(self, rgb: Any) -> Any:
        return torch.linalg.svd(rgb)[0]


class Raising(Tiny):
    """Takes the size of the tracing, no other."""

    def forward(self, rgb: Any) -> Any:
        if rgb.shape[2] != 64:
            raise ValueError("too\nsmall")
        return super().forward(rgb)


def planes(width: int, height: int, seed: int = 5) -> dict[str, np.ndarray[Any, Any]]:
    """Noise over the whole range, colours beyond RGB included."""
    random = np.random.default_rng(seed)
    qp = np.full(grid_shape(width, height), 30, np.uint8)
    half = (2, (height + 1) // 2, (width + 1) // 2)
    return {
        "y": random.integers(0, 256, (1, 1, height, width), np.uint8),
        "uv": random.integers(0, 256, (1, *half), np.uint8),
        "qp": qp[None, None],
    }


def run(path: Path, fed: dict[str, np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [np.asarray(plane) for plane in session.run(["y_out", "uv_out"], fed)]


def material(size: int = 64) -> Material:
    random = np.random.default_rng(2)
    samples = []
    for _ in range(2):
        i420: I420 = random.integers(0, 256, (size * 3 // 2, size), np.uint8)
        samples.append(Sample(i420, np.full(grid_shape(size, size), 30, np.uint8), i420))
    return Material(samples, samples, "noise")


@pytest.fixture(scope="module")
def net() -> Tiny:
    torch.manual_seed(3)
    return Tiny().eval()


@pytest.fixture(scope="module")
def exported(net: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return write_rgb(net, "tiny", tmp_path_factory.mktemp("models") / "new", FACTS)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(4)
    path = tmp_path_factory.mktemp("run") / "paper.pt"
    state = {
        "kind": "paper", "recipe": {"name": "mine", "channels": 8, "blocks": 1, "rate": 1e-4}, "step": 30,
        "seconds": 90.0, "ema": PaperGenerator(8, 1).state_dict(), "clips": ["one"], "licence": "CC-BY-4.0",
    }  # fmt: skip
    torch.save(state, path)
    return path


@pytest.fixture
def no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of 1280x720 is run: what is said of its time is not what these tests are about."""
    monkeypatch.setattr(export_rgb, "_TIMED_AT", (64, 48))


# What the file computes


@pytest.mark.parametrize(("width", "height"), [(96, 64), (2, 2), (34, 130), (90, 54), (320, 180), (51, 37)])
def test_the_file_computes_what_the_network_does_at_any_size(
    net: Tiny, exported: Exported, width: int, height: int
) -> None:
    fed = planes(width, height)
    with torch.inference_mode():
        expected = PlanesContract(net)(torch.from_numpy(fed["y"]), torch.from_numpy(fed["uv"]))
    for found, wanted, given in zip(run(exported.path, fed), expected, (fed["y"], fed["uv"]), strict=True):
        assert found.shape == given.shape
        apart = np.abs(found.astype(int) - wanted.numpy())
        assert (apart > 1).mean() < 1e-3
        assert np.abs(found.astype(int) - given).mean() > 1  # it does change them


def test_an_unchanged_picture_comes_back_exactly(tmp_path: Path, no_clock: None) -> None:
    path = write_rgb(nn.Identity(), "nothing", tmp_path, FACTS).path
    for width, height in ((96, 64), (34, 18)):
        fed = planes(width, height)
        y, uv = run(path, fed)
        np.testing.assert_array_equal(y, fed["y"])
        np.testing.assert_array_equal(uv, fed["uv"])


@pytest.mark.parametrize("gain", [(0.1, 0.1, 0.1), (0.12, 0.0, 0.0), (0.0, -0.08, 0.05)])
def test_the_change_is_converted_as_opencv_converts_colours(gain: tuple[float, float, float]) -> None:
    class Shift(nn.Module):
        def forward(self, rgb: Any) -> Any:
            return rgb + torch.tensor(gain).view(1, 3, 1, 1)

    i420 = i420_from_bgr(np.full((32, 48, 3), (90, 110, 130), np.uint8))
    fed = inputs(i420, np.full((2, 3), 30, np.uint8))
    y, uv = PlanesContract(Shift())(torch.from_numpy(fed["y"]), torch.from_numpy(fed["uv"]))
    restored = np.concatenate([y.numpy()[0, 0], uv.numpy().reshape(-1, 48)])
    wanted = bgr_from_i420(i420).astype(float) + 255 * np.array(gain[::-1])
    assert np.abs(bgr_from_i420(restored) - wanted).max() < 3


def test_what_leaves_the_range_is_clipped() -> None:
    class Glare(nn.Module):
        def forward(self, rgb: Any) -> Any:
            return rgb + 5

    fed = planes(32, 32)
    grey = torch.full((1, 2, 16, 16), 128, dtype=torch.uint8)
    y, uv = PlanesContract(Glare())(torch.full((1, 1, 32, 32), 120, dtype=torch.uint8), grey)
    assert (y == 235).all()  # white, not above it
    assert (uv == 128).all()
    y, _ = PlanesContract(Glare())(torch.from_numpy(fed["y"]), torch.from_numpy(fed["uv"]))
    assert y.dtype == torch.uint8


def test_a_network_of_larger_steps_gets_padded_pictures(tmp_path: Path, no_clock: None) -> None:
    torch.manual_seed(3)
    path = write_rgb(Quarter(), "quarter", tmp_path, FACTS, multiple=4).path
    fed = planes(54, 38)
    assert [plane.shape for plane in run(path, fed)] == [fed["y"].shape, fed["uv"].shape]
    with pytest.raises(SemcallError, match=r"cannot be exported|fails on a"):
        write_rgb(Quarter(), "unpadded", tmp_path, FACTS, multiple=2)


# The file and its card


def test_it_keeps_the_contract(exported: Exported) -> None:
    model = find_model(str(exported.path))
    check_file(model.path, "restorer", model.card)
    graph = onnx.load(exported.path, load_external_data=False)
    onnx.checker.check_model(graph, full_check=True)
    assert [entry.version for entry in graph.opset_import] == [17]
    assert [value.name for value in graph.graph.input] == ["y", "uv", "qp"]
    assert not any(tensor.external_data for tensor in graph.graph.initializer)


def test_the_card(net: Tiny, exported: Exported) -> None:
    card = json.loads(exported.path.with_suffix(".json").read_text())
    assert (card["name"], card["kind"], card["contract"], card["opset"]) == ("tiny", "restorer", 1, 17)
    assert (card["precision"], card["licence"]) == ("float32", "MIT")
    assert card["parameters"] == sum(p.numel() for p in net.parameters())
    assert card["bytes"] == exported.path.stat().st_size
    assert set(card["inputs"]) == {"y", "uv", "qp"}
    assert set(card["outputs"]) == {"y_out", "uv_out"}
    assert card["parity"]["largest_difference_code_values"] <= 1
    assert card["needs_gpu"] is (card["milliseconds"]["best"] > 100)
    assert card["milliseconds"]["picture"] == "1280x720"
    assert "int8" not in card
    assert (exported.int8, exported.sentence) == (None, "")


@pytest.mark.parametrize(("limit", "needed"), [(0.0, True), (1e9, False)])
def test_a_slow_network_needs_a_gpu(
    net: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_clock: None, limit: float, needed: bool
) -> None:
    monkeypatch.setattr(export_rgb, "GPU_ABOVE_MS", limit)
    assert find_model(str(write_rgb(net, "tiny", tmp_path, FACTS).path)).card["needs_gpu"] is needed


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (Frozen, r"gives planes .* a size is frozen|fails on a"),
        (Noisy, r"differs from the network by up to \d+ code values, by more than one on"),
        (Nan, "gives values that are not finite"),
        (Untraceable, "cannot be exported to ONNX"),
        (Raising, "fails on a .* picture in PyTorch: too"),
    ],
)
def test_networks_that_are_refused(tmp_path: Path, kind: type[Tiny], sentence: str) -> None:
    torch.manual_seed(3)
    with pytest.raises(SemcallError, match=sentence) as caught:
        write_rgb(kind(), "wrong", tmp_path / "folder", FACTS)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../tiny", "", "off"])
def test_names_that_are_refused(net: Tiny, tmp_path: Path, name: str) -> None:
    with pytest.raises(SemcallError, match="cannot be called"):
        write_rgb(net, name, tmp_path, FACTS)


# The 8-bit variant


def test_the_int8_graph_is_one_and_runs(net: Tiny, exported: Exported, tmp_path: Path) -> None:
    small = quantised(exported.path.read_bytes(), material().calibration)
    path = tmp_path / "small.onnx"
    path.write_bytes(small)
    check_file(path, "restorer", {})
    graph = onnx.load_from_string(small).graph
    makers = {output: node for node in graph.node for output in node.output}
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    inside = [node for node in graph.node if node.op_type == "Conv" and node.name.startswith("/net/")]
    assert len(inside) == 3
    for node in inside:
        codes, steps, _ = (weights[name] for name in makers[node.input[1]].input)
        assert [makers[name].op_type for name in node.input] == ["DequantizeLinear"] * 3
        assert codes.dtype == np.int8
        assert np.abs(codes).max() <= 64  # 7 bits
        assert steps.shape == codes.shape[:1]  # per channel
    (outside,) = (node for node in graph.node if node.op_type == "Conv" and not node.name.startswith("/net/"))
    assert not any(makers[name].op_type == "DequantizeLinear" for name in outside.input if name in makers)
    fed = planes(50, 34)
    for coarse, exact in zip(run(path, fed), run(exported.path, fed), strict=True):
        assert coarse.shape == exact.shape
        assert 0 < np.abs(coarse.astype(int) - exact).mean() < 4


def test_a_comparison_with_oneself_is_even(exported: Exported) -> None:
    content = exported.path.read_bytes()
    found = compare(content, content, material(), seconds=0)
    assert found.psnr_db == 96
    assert found.distance_float == found.distance_int8 > 0
    assert (found.distance, found.runs) == ("RMSE of luma", 5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({}, ""),
        (
            {"ms_int8": 19.6},
            r"^it takes 0.98 times the float network's time at 640x360 \(medians of 9 .*0.95 or less$",
        ),
        ({"psnr_db": 39.94}, "^its pictures are 39.9 dB from the float network's, 40 are asked$"),
        (
            {"distance_int8": 4.1},
            r"^its distance to the originals \(RMSE of luma\) is 1.025 times .*, 1.02 is allowed$",
        ),
        ({"ms_int8": 40.0, "psnr_db": 20.0}, "^it takes 2.00 times .*; its pictures are 20.0 dB"),
        ({"psnr_db": float("nan")}, "nan dB"),
        ({"distance_int8": float("nan")}, "nan times"),
    ],
)
def test_what_is_kept_and_why_not(change: dict[str, Any], sentence: str) -> None:
    import dataclasses
    import re

    reason = dataclasses.replace(GOOD, **change).reason()
    assert re.search(sentence, reason) if sentence else reason == ""


def test_an_int8_variant_that_is_not_worth_it(
    net: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_clock: None
) -> None:
    monkeypatch.setattr(export_rgb, "compare", lambda *_: Comparison(45.0, "x", 4, 4, 10, 20, 9))
    done = write_rgb(net, "tiny", tmp_path, FACTS, material())
    assert done.int8 is None
    assert done.sentence.startswith("The int8 variant is not kept: it takes 2.00 times the float network's time")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["tiny.json", "tiny.onnx"]
    card = find_model(str(done.path)).card
    assert card["int8"]["kept"] is False
    assert card["int8"]["reason"] == done.sentence
    assert card["int8"]["measured"]["ms_int8"] == 20


def test_an_int8_variant_that_is(net: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_clock: None) -> None:
    monkeypatch.setattr(export_rgb, "compare", lambda *_: GOOD)
    done = write_rgb(net, "tiny", tmp_path, FACTS, material())
    assert done.int8 == tmp_path / "tiny-int8.onnx"
    assert done.sentence.startswith("The int8 variant is kept: it takes 0.60 times")
    card = find_model(str(done.int8)).card
    assert (card["name"], card["variant_of"]) == ("tiny-int8", "tiny")
    assert card["precision"].startswith("int8")
    assert card["calibration"] == {"pictures": 2, "of": "noise"}
    assert card["int8"]["measured"]["psnr_db"] == 45
    assert b"DequantizeLinear" in done.int8.read_bytes()
    # One that is left of an earlier export is pointed at, not removed.
    monkeypatch.setattr(export_rgb, "compare", lambda *_: Comparison(45.0, "x", 4, 4, 10, 20, 9))
    again = write_rgb(net, "tiny", tmp_path, FACTS, material())
    assert "tiny-int8.onnx is of an earlier export" in again.sentence
    assert done.int8.exists()


def test_what_cannot_be_quantised_is_said(tmp_path: Path, no_clock: None) -> None:
    done = write_rgb(nn.Identity(), "nothing", tmp_path, FACTS, material())
    assert done.sentence == "The int8 variant is not kept: it has no convolutions to quantise."
    assert done.int8 is None


def test_the_demo_source_as_material() -> None:
    found = gather(None)
    assert len(found.calibration) == len(found.judged) == 16
    assert "demo source" in found.source
    for sample in found.calibration + found.judged:
        assert sample.coded.shape == sample.original.shape == (CROP * 3 // 2, CROP)
        assert sample.qp.shape == (16, 16)
        assert 0 < np.abs(sample.coded.astype(int) - sample.original).mean() < 12
    quantisers = {int(sample.qp.max()) for sample in found.calibration}
    assert max(quantisers) >= 40
    assert min(int(sample.qp.min()) for sample in found.calibration) <= 30


def test_clips_as_material(tmp_path: Path) -> None:
    import av

    lines = ["path\tidentity\tsplit\tpermissive\tlicence"]
    random = np.random.default_rng(0)
    for split, size, count in (("train", (320, 288), 40), ("train", (96, 64), 2), ("val", (256, 320), 8)):
        path = tmp_path / "clips" / split / f"{size[0]}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines.append(f"{split}/{path.name}\t{size[0]}\t{split}\tyes\tMIT")
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            for _ in range(count):
                noise: I420 = random.integers(60, 200, (size[1] * 3 // 2, size[0]), np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, "yuv420p")))
            container.mux(stream.encode())
    (tmp_path / "clips" / "manifest.tsv").write_text("\n".join(lines) + "\n")
    found = gather(tmp_path)
    assert found.eye is None  # no weights there
    shapes = {sample.coded.shape for sample in found.calibration}
    assert shapes == {(CROP * 3 // 2, CROP), (96, 96)}  # and the small clip whole
    assert {sample.coded.shape for sample in found.judged} == {(CROP * 3 // 2, CROP)}
    for sample in found.calibration + found.judged:
        width, height = sample.coded.shape[1], sample.coded.shape[0] * 2 // 3
        assert sample.qp.shape == grid_shape(width, height)
    small = [sample for sample in found.calibration if sample.coded.shape == (96, 96)]
    assert min(int(sample.qp.min()) for sample in small) < max(int(sample.qp.max()) for sample in small)


# semcall export


def test_a_paper_generators_checkpoint(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    no_clock: None,
) -> None:
    out = tmp_path / "out"
    assert call(monkeypatch, "export", checkpoint, "--out", out, "--no-int8") == 0
    assert f"The restorer is {out / 'mine.onnx'}" in capfd.readouterr().out
    card = find_model(str(out / "mine.onnx")).card
    assert card["training"] == {
        "recipe": {"name": "mine", "channels": 8, "blocks": 1, "rate": 1e-4}, "steps": 30, "minutes": 1.5,
    }  # fmt: skip
    assert (card["training_data"], card["licence"]) == ({"clips": ["one"]}, "CC-BY-4.0")
    assert card["command"] == f"semcall export {checkpoint} --out {out} --no-int8"
    net = PaperGenerator(8, 1)
    net.load_state_dict(torch.load(checkpoint, weights_only=True)["ema"])
    fed = planes(48, 32)
    with torch.inference_mode():
        expected = PlanesContract(net.eval())(torch.from_numpy(fed["y"]), torch.from_numpy(fed["uv"]))
    apart = np.abs(run(out / "mine.onnx", fed)[0].astype(int) - expected[0].numpy())
    assert (apart > 1).mean() < 1e-3


@pytest.mark.parametrize(("part", "deep"), [("recipe", 0), ("about", 0), ("about", 2)])
def test_a_fast_restorers_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], part: str, deep: int
) -> None:
    torch.manual_seed(1)
    net = FastRestorer(24, 2, deep=deep)
    recipe = {"channels": 24, "depth": 2, "chroma": True, "quantisers": True} | ({"deep": deep} if deep else {})
    torch.save({part: recipe, "ema": net.state_dict(), "step": 3}, tmp_path / "features.pt")
    out = tmp_path / "out"
    assert call(monkeypatch, "export", tmp_path / "features.pt", "--out", out, "--name", "quick") == 0
    assert "no variant is made" in capfd.readouterr().out
    model = find_model(str(out / "quick.onnx"))
    check_file(model.path, "restorer", model.card)
    assert model.card["training"] == {"recipe": recipe, "steps": 3}
    assert model.card["parity"]["largest_difference_code_values"] <= 1
    assert sorted(file.name for file in out.iterdir()) == ["quick.json", "quick.onnx"]


def test_a_fast_restorer_whose_graph_computes_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(1)
    net, other = FastRestorer(24, 2), FastRestorer(24, 2)
    with torch.no_grad():
        other.exit.weight.mul_(500)
    recipe = {"channels": 24, "depth": 2, "chroma": True, "quantisers": True}
    torch.save({"recipe": recipe, "ema": net.state_dict()}, tmp_path / "features.pt")
    build = export.build
    monkeypatch.setattr(export, "build", lambda _net, name: build(other.eval(), name))
    out = tmp_path / "out"
    assert call(monkeypatch, "export", tmp_path / "features.pt", "--out", out) == 2
    assert "differs from the network by up to" in capfd.readouterr().err
    assert not out.exists()


def damaged(checkpoint: Path, folder: Path, how: str) -> Path:
    path = folder / "wrong.pt"
    content = checkpoint.read_bytes()
    state = torch.load(checkpoint, weights_only=True)
    if how == "text":
        path.write_text("no checkpoint")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "folder":
        path.mkdir()
    elif how == "tensor":
        torch.save(torch.zeros(3), path)
    elif how == "parser":
        torch.save({"about": {"widths": [8, 16]}, "ema": state["ema"]}, path)
    elif how != "missing":
        changes: dict[str, Any] = {
            "kind": {"kind": "diffusion"}, "list": {"kind": ["paper"]}, "no weights": {"ema": {}},
            "other width": {"recipe": {"channels": 16, "blocks": 1}}, "odd width": {"recipe": {"channels": "many"}},
            "odd name": {"recipe": {**state["recipe"], "name": "../x"}}, "no recipe": {"recipe": None},
            "odd time": {"seconds": "long"}, "odd facts": {"metrics": torch.zeros(3)},
        }  # fmt: skip
        torch.save({**state, **changes[how]}, path)
    return path


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("text", "cannot be read: it is damaged or no checkpoint"),
        ("empty", "cannot be read: it is damaged or no checkpoint"),
        ("truncated", "cannot be read: it is damaged or no checkpoint"),
        ("missing", "There is no checkpoint"),
        ("folder", "There is no checkpoint"),
        ("tensor", "is no restorer's checkpoint"),
        ("parser", "is no restorer's checkpoint"),
        ("no recipe", "is no restorer's checkpoint"),
        ("kind", "is of kind 'diffusion', which this release does not export: it knows paper, fast, small."),
        ("list", "is of kind ['paper'], which"),
        ("no weights", "its recipe and weights do not make a network"),
        ("other width", "its recipe and weights do not make a network"),
        ("odd width", "its recipe and weights do not make a network"),
        ("odd name", "cannot be called '../x'"),
        ("odd time", "what no card can hold"),
        ("odd facts", "what no card can hold"),
    ],
)
def test_checkpoints_that_are_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], how: str,
    sentence: str,
) -> None:  # fmt: skip
    path = damaged(checkpoint, tmp_path, how)
    out = tmp_path / "out"
    assert call(monkeypatch, "export", path, "--out", out) == 2
    said = capfd.readouterr().err
    assert sentence in said
    assert len(said.splitlines()) == 1
    assert not out.exists()


def test_a_directory_without_clips(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert call(monkeypatch, "export", checkpoint, "--out", out, "--data", tmp_path) == 2
    assert "manifest.tsv cannot be read; name the data directory with --data" in capfd.readouterr().err
    assert not out.exists()


def test_a_folder_that_is_a_file(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    no_clock: None,
) -> None:
    (tmp_path / "out").write_text("precious")
    assert call(monkeypatch, "export", checkpoint, "--out", tmp_path / "out", "--no-int8") == 2
    assert "choose another folder" in capfd.readouterr().err
    assert (tmp_path / "out").read_text() == "precious"
