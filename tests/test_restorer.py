"""The restorer's contract, its errors and what the shipped network does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import platformdirs
import pytest
from numpy.typing import NDArray

from models.registry import find_model, list_models
from models.training.coding import transcode
from shared.astronaut import AstronautClip, photograph
from shared.errors import SemcallError
from shared.grid import grid_shape
from shared.picture import I420, i420_from_bgr, planes
from shared.providers import tensorrt_options
from shared.restorer import Restorer

SIZES = [(1280, 720), (718, 404), (640, 360), (362, 402), (18, 16), (2, 2)]


def noise(width: int, height: int, seed: int = 0) -> tuple[I420, NDArray[np.uint8]]:
    """A reproducible picture with edges and its quantisers, made of integers only."""
    random = np.random.default_rng(seed)
    rows, columns = grid_shape(width, height)
    blocks = random.integers(16, 236, (rows, columns), np.uint8)
    luma = np.kron(blocks, np.ones((16, 16), np.uint8))[:height, :width]
    luma = luma + random.integers(0, 8, (height, width), np.uint8)
    chroma = random.integers(100, 156, (height // 2, width), np.uint8)
    return np.concatenate([luma, chroma]), random.integers(22, 46, (rows, columns), np.uint8)


@pytest.fixture(scope="module")
def small() -> Restorer:
    model = find_model("small")
    return Restorer(model.path, model.name)


@pytest.fixture(scope="module")
def astronaut() -> I420:
    return i420_from_bgr(photograph())


@pytest.mark.parametrize("model", list_models("restorer"), ids=lambda model: model.name)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_contract_at_any_even_size(model: Any, width: int, height: int) -> None:
    restorer = Restorer(model.path, model.name)
    i420, qp = noise(width, height)
    before = i420.copy()
    restored = restorer.restore(i420, qp)
    assert restored.shape == i420.shape
    assert restored.dtype == np.uint8
    assert np.array_equal(i420, before), "the input was written to"
    assert not np.shares_memory(restored, i420)
    assert restorer.last_ms > 0
    again = restorer.restore(i420, qp)
    assert np.array_equal(restored, again)


def test_results_do_not_share_memory(small: Restorer) -> None:
    first = small.restore(*noise(64, 48, 1))
    kept = first.copy()
    small.restore(*noise(64, 48, 2))
    assert np.array_equal(first, kept)


def test_views_and_strides_are_taken(small: Restorer) -> None:
    i420, qp = noise(64, 48)
    wide = np.zeros((72, 128), np.uint8)
    wide[:, ::2] = i420
    assert np.array_equal(small.restore(wide[:, ::2], qp), small.restore(i420, qp))


def test_chroma_passes_and_luma_changes(small: Restorer) -> None:
    i420, qp = noise(160, 96)
    restored = small.restore(i420, qp)
    assert np.array_equal(planes(restored)[1], planes(i420)[1])
    change = np.abs(planes(restored)[0].astype(int) - planes(i420)[0])
    assert 0.2 < change.mean() < 10


def test_the_quantiser_matters(small: Restorer, astronaut: I420) -> None:
    shape = grid_shape(512, 512)
    fine = small.restore(astronaut, np.full(shape, 20, np.uint8))
    coarse = small.restore(astronaut, np.full(shape, 42, np.uint8))
    luma = planes(astronaut)[0].astype(int)
    gentle = np.abs(planes(fine)[0] - luma).mean()
    strong = np.abs(planes(coarse)[0] - luma).mean()
    assert strong > 1.3 * gentle


def test_extremes_saturate(small: Restorer) -> None:
    for value in (0, 255):
        i420 = np.full((72, 64), value, np.uint8)
        luma = planes(small.restore(i420, np.full((3, 4), 40, np.uint8)))[0]
        assert np.abs(luma.astype(int) - value).max() < 64, "a wrapped-around code value"


def test_output_is_the_pinned_one(small: Restorer) -> None:
    """Means of 8x8 blocks of the residual, in code values; other kernels round a few codes differently."""
    i420, qp = noise(64, 48, 7)
    luma = planes(small.restore(i420, qp))[0].astype(np.float64) - planes(i420)[0]
    blocks = luma.reshape(6, 8, 8, 8).mean((1, 3))
    assert np.abs(blocks - np.array(PINNED)).mean() < 0.1


@pytest.mark.parametrize("name", ["fast", "fine", "finer"])
def test_output_of_the_larger_ones_is_pinned_in_all_planes(name: str) -> None:
    i420, qp = noise(64, 48, 7)
    restored = Restorer(find_model(name).path).restore(i420, qp)
    luma, chroma = (
        after.astype(np.float64) - before for after, before in zip(planes(restored), planes(i420), strict=True)
    )
    assert np.abs(luma.reshape(6, 8, 8, 8).mean((1, 3)) - np.array(PINNED_LUMA[name])).mean() < 0.1
    assert np.abs(chroma.reshape(2, 3, 8, 4, 8).mean((2, 4)) - np.array(PINNED_CHROMA[name])).mean() < 0.1


@pytest.mark.parametrize("quantiser", [34, 40])
def test_the_coded_demo_gets_nearer_to_its_original(small: Restorer, quantiser: int) -> None:
    """Ten pictures of the demo source through x264; the last, restored, has less error than as decoded."""
    clip = AstronautClip((640, 360))
    frames = [clip.picture(index) for index in range(10)]
    last = transcode(frames, np.full(grid_shape(640, 360), quantiser, np.uint8))[-1]
    restored = small.restore(last.i420, last.qp)

    def error(i420: I420) -> float:
        return float(np.mean((planes(i420)[0].astype(np.float32) - planes(frames[-1])[0]) ** 2))

    assert error(restored) < 0.99 * error(last.i420)


@pytest.mark.parametrize("model", list_models("restorer"), ids=lambda model: model.name)
@pytest.mark.parametrize("quantiser", [16, 20, 24])
def test_what_was_coded_finely_is_left_alone(model: Any, quantiser: int) -> None:
    """PSNR of restored to decoded luma is above 40 dB, of the sharp photograph in motion."""
    clip = AstronautClip((640, 360))
    frames = [clip.picture(index) for index in range(4)]
    last = transcode(frames, np.full(grid_shape(640, 360), quantiser, np.uint8))[-1]
    restored = Restorer(model.path, model.name).restore(last.i420, last.qp)
    change = planes(restored)[0].astype(np.float64) - planes(last.i420)[0]
    assert 10 * np.log10(255**2 / np.mean(change**2)) > 40


def test_warm_up_reports_its_time(small: Restorer) -> None:
    assert small.warm_up(64, 48, times=2) > 0
    assert small.name == "small"
    assert small.device in ("CPU", "CUDA", "CoreML", "DirectML", "OpenVINO")


def test_cpu_when_cuda_cannot_run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    real = ort.InferenceSession

    def no_cuda(content: bytes, options: Any, providers: list[Any], **others: Any) -> Any:
        if providers != ["CPUExecutionProvider"]:
            raise RuntimeError("libcudart.so: cannot open shared object file")
        return real(content, options, providers=providers, **others)

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(ort, "InferenceSession", no_cuda)
    restorer = Restorer(find_model("small").path)
    assert restorer.device == "CPU"
    assert restorer.restore(*noise(32, 32)).shape == (48, 32)
    assert capfd.readouterr().err == ""


# Providers. No GPU works where these tests are written: sessions that only claim to run on one stand in.


class Claim:
    """A CPU session that claims to run on `provider`, with `share` of ten nodes on it; `runs`: whether it runs."""

    def __init__(self, session: Any, provider: str, share: int = 10, runs: bool = True) -> None:
        self.session, self.provider, self.share, self.runs = session, provider, share, runs
        self.tried = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def get_providers(self) -> list[str]:
        return [self.provider, "CPUExecutionProvider"]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        def part(name: str, nodes: int) -> Any:
            return SimpleNamespace(ep_name=name, get_nodes=lambda: [None] * nodes)

        return [part(self.provider, self.share), part("CPUExecutionProvider", 10 - self.share)]

    def run(self, *arguments: Any) -> Any:
        if not self.runs:
            raise RuntimeError("no kernel image is available for execution on the device")
        return self.session.run(*arguments)

    def run_with_iobinding(self, binding: Any) -> None:
        self.tried += 1
        if not self.runs:
            raise RuntimeError("the device was lost")
        self.session.run_with_iobinding(binding)


Open = Callable[[Any], Any]
"""What becomes of the session that a provider is to open."""


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[dict[str, Open]], list[Any]]:
    """Make providers available, each with what it opens. Returns the list of those asked for, options included."""
    real, asked = ort.InferenceSession, []
    real_memory = ort.OrtValue.ortvalue_from_shape_and_type

    def set_up(providers: dict[str, Open]) -> list[Any]:
        def opened(content: bytes, options: Any, providers: list[Any], **others: Any) -> Any:
            first = providers[0]
            name = first if isinstance(first, str) else first[0]
            asked.append(first)
            session = real(content, options, providers=["CPUExecutionProvider"])
            if name in openers:
                assert others == {"enable_fallback": 0}, "ONNX Runtime's own fallback prints"
                return openers[name](session)
            return session

        openers = {f"{name}ExecutionProvider": opener for name, opener in providers.items()}
        available = [*reversed(openers), "CPUExecutionProvider"]
        monkeypatch.setattr(ort, "get_available_providers", lambda: available)
        monkeypatch.setattr(ort, "InferenceSession", opened)
        return asked

    def on_the_cpu(shape: Any, element: Any, _device: str, _number: int) -> Any:
        return real_memory(shape, element, "cpu", 0)

    monkeypatch.setattr(ort.OrtValue, "ortvalue_from_shape_and_type", on_the_cpu)
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "cache" / name)
    return set_up


def missing(_session: Any) -> Any:
    raise RuntimeError("libcudart.so: cannot open shared object file")


def claims(provider: str, **facts: Any) -> Open:
    return lambda session: Claim(session, f"{provider}ExecutionProvider", **facts)


def test_providers_are_tried_in_order_until_one_works(pretend: Any, capfd: pytest.CaptureFixture[str]) -> None:
    asked = pretend(dict.fromkeys(("OpenVINO", "Dml", "CUDA", "CoreML", "Tensorrt"), missing))
    restorer = Restorer(find_model("small").path)
    names = [first if isinstance(first, str) else first[0] for first in asked]
    assert names == [f"{name}ExecutionProvider" for name in ("CUDA", "CoreML", "Dml", "OpenVINO", "CPU")]
    assert restorer.device == "CPU"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["CUDA", "CoreML", "Dml", "OpenVINO"])
def test_a_provider_that_works_is_used(pretend: Any, small: Restorer, name: str) -> None:
    asked = pretend({name: claims(name)})
    restorer = Restorer(find_model("small").path, threads=2)
    assert restorer.device == name.replace("Dml", "DirectML")
    i420, qp = noise(64, 48)
    assert np.array_equal(restorer.restore(i420, qp), small.restore(i420, qp))
    assert asked == [(f"{name}ExecutionProvider", OPENVINO if name == "OpenVINO" else {})]


OPENVINO = {"device_type": "CPU", "num_of_threads": "2"}


def test_a_provider_that_does_not_really_work_gives_way(pretend: Any) -> None:
    pretend(
        {
            "OpenVINO": claims("OpenVINO"),
            "Dml": claims("Dml", share=4),  # leaves most to the CPU
            "CoreML": claims("CPU"),  # gave up on its own
            "CUDA": claims("CUDA", runs=False),  # fails on the trial run
        }
    )
    assert Restorer(find_model("small").path).device == "OpenVINO"


def test_a_broken_contract_is_refused_on_any_provider(pretend: Any, tmp_path: Path) -> None:
    pretend({"CUDA": claims("CUDA")})
    with pytest.raises(SemcallError, match="its inputs are uv, y instead of"):
        Restorer(foreign_model(tmp_path, without="qp"))


def test_tensorrt_takes_over_when_it_is_ready(pretend: Any, small: Restorer, tmp_path: Path) -> None:
    asked = pretend({"Tensorrt": claims("Tensorrt"), "CUDA": claims("CUDA")})
    restorer = Restorer(find_model("small").path)
    assert restorer.device == "CUDA"
    assert restorer.accelerate()
    assert restorer.device == "TensorRT"
    assert not restorer.accelerate(), "once is enough"
    for size in [*SIZES[1:], *SIZES[1:]]:  # more than are kept, then again
        i420, qp = noise(*size)
        assert np.array_equal(restorer.restore(i420, qp), small.restore(i420, qp))
    name, options = asked[-1]
    assert name == "TensorrtExecutionProvider"
    assert all(options[f"trt_{name}_enable"] == "1" for name in ("fp16", "engine_cache", "timing_cache"))
    assert Path(options["trt_engine_cache_path"]).is_dir()
    assert Path(options["trt_timing_cache_path"]) == tmp_path / "cache" / "semcall" / "tensorrt"
    assert options["trt_profile_opt_shapes"] == "y:1x1x720x1280,uv:1x2x360x640,qp:1x1x45x80"
    for least, asked_for, most in zip(*(sizes(options, which) for which in ("min", "opt", "max")), strict=True):
        assert least <= asked_for <= most
    heights, widths = sizes(options, "max")[:2]
    assert min(heights, widths) >= 1920, "upright pictures too"
    assert max(sizes(options, "min")[:2]) <= 18, "a face at the border, where macroblocks are cut off"


def sizes(options: dict[str, str], which: str) -> list[int]:
    """Height and width of luma, chroma and quantisers, one after the other, in a profile of TensorRT's."""
    shapes = [part.partition(":")[2].split("x") for part in options[f"trt_profile_{which}_shapes"].split(",")]
    return [int(side) for shape in shapes for side in shape[2:]]


def test_what_tensorrt_cannot_do_is_done_as_before(pretend: Any, small: Restorer) -> None:
    claim: list[Claim] = []

    def engine(session: Any) -> Claim:
        claim.append(Claim(session, "TensorrtExecutionProvider"))
        return claim[0]

    pretend({"Tensorrt": engine, "CUDA": claims("CUDA")})
    restorer = Restorer(find_model("small").path)
    assert restorer.accelerate()
    claim[0].runs = False  # a picture beyond its engine's sizes
    i420, qp = noise(64, 48)
    assert np.array_equal(restorer.restore(i420, qp), small.restore(i420, qp))
    claim[0].runs = True
    tried = claim[0].tried
    assert np.array_equal(restorer.restore(i420, qp), small.restore(i420, qp))
    assert claim[0].tried == tried, "a size that failed is not tried again"
    restorer.restore(*noise(96, 64))
    assert claim[0].tried == tried + 1, "another one is"
    assert restorer.device == "TensorRT"


@pytest.mark.parametrize("opener", [missing, claims("Tensorrt", share=1), claims("Tensorrt", runs=False)])
def test_without_tensorrt_nothing_changes(pretend: Any, opener: Open) -> None:
    pretend({"Tensorrt": opener})
    restorer = Restorer(find_model("small").path)
    assert not restorer.accelerate()
    assert restorer.device == "CPU"


def test_tensorrt_without_a_place_for_its_engines_is_not_tried(pretend: Any, tmp_path: Path) -> None:
    asked = pretend({"Tensorrt": claims("Tensorrt")})
    (tmp_path / "cache").write_text("in the way")
    assert not Restorer(find_model("small").path).accelerate()
    assert asked == ["CPUExecutionProvider"]


def test_engines_of_two_models_are_kept_apart(pretend: Any) -> None:
    """The runtime would take one for the other where only the weights differ."""
    folders = {tensorrt_options(content, {})["trt_engine_cache_path"] for content in (b"one", b"other")}
    assert len(folders) == 2


def test_loading_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    """This machine may have CUDA's provider without CUDA: nobody needs to read of it."""
    Restorer(find_model("small").path)
    assert capfd.readouterr().err == ""


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SemcallError, match=r"cannot be read \(No such file or directory\)"):
        Restorer(tmp_path / "gone.onnx")


@pytest.mark.parametrize("kept", [0, 0.01, 0.5, 0.99])
def test_cut_off_file(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "cut.onnx"
    content = find_model("small").path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(SemcallError, match=r"cut\.onnx (is damaged or no ONNX model|does not keep)"):
        Restorer(path)


def test_text_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("not a network\n" * 100)
    with pytest.raises(SemcallError, match="damaged or no ONNX model"):
        Restorer(path)


def foreign_model(folder: Path, **change: Any) -> Path:
    """A network that passes the picture through, with one thing about it changed."""
    onnx = pytest.importorskip("onnx")
    helper, uint8 = onnx.helper, onnx.TensorProto.UINT8
    kind = change.get("kind", uint8)
    names = {"y": 1, "uv": 2, "qp": 1, "y_out": 1, "uv_out": 2}
    rename = change.get("rename", {})
    info = {
        name: helper.make_tensor_value_info(
            rename.get(name, name), kind, [1, change.get("channels", {}).get(name, count), *change.get("size", "hw")]
        )
        for name, count in names.items()
    }
    inputs = [info[name] for name in ("y", "uv", "qp") if name != change.get("without")]
    nodes = [
        helper.make_node("Identity", [rename.get(name, name)], [rename.get(f"{name}_out", f"{name}_out")])
        for name in ("y", "uv")
    ]
    if change.get("odd_crop"):
        axes = helper.make_tensor("axes", onnx.TensorProto.INT64, [1], [2])
        one = helper.make_tensor("one", onnx.TensorProto.INT64, [1], [1])
        big = helper.make_tensor("big", onnx.TensorProto.INT64, [1], [9999])
        nodes[0] = helper.make_node("Slice", ["y", "one", "big", "axes"], ["y_out"])
        constants = [axes, one, big]
    else:
        constants = []
    graph = helper.make_graph(nodes, "foreign", inputs, [info["y_out"], info["uv_out"]], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "foreign.onnx"
    onnx.save(model, path)
    return path


def test_a_foreign_network_that_keeps_the_contract_runs(tmp_path: Path) -> None:
    i420, qp = noise(62, 46)
    assert np.array_equal(Restorer(foreign_model(tmp_path)).restore(i420, qp), i420)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"without": "qp"}, "its inputs are uv, y instead of qp, uv, y"),
        ({"rename": {"y": "luma"}}, "its inputs are luma, qp, uv instead of"),
        ({"rename": {"y_out": "image"}}, "its outputs are image, uv_out instead of"),
        ({"kind": 1}, r"tensor\(float\)"),
        ({"channels": {"uv": 3, "uv_out": 3}}, r"its input uv is tensor\(uint8\) \[1, 3"),
        ({"size": (720, 1280)}, r"\[1, 1, 720, 1280\] instead of uint8 \[1, 1, any, any\]"),
        ({"odd_crop": True}, "fails on a 48x32 picture"),
    ],
)
def test_another_contract_is_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(SemcallError, match=f"does not keep the restorer contract: .*{reason}"):
        Restorer(foreign_model(tmp_path, **change))


def test_weights_in_other_files_are_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "split.onnx"
    model = onnx.load(find_model("small").path)
    onnx.save(model, path, save_as_external_data=True, size_threshold=64, location="weights.bin")
    assert (tmp_path / "weights.bin").exists()
    with pytest.raises(SemcallError, match="keeps its weights in other files"):
        Restorer(path)


def test_a_failure_while_running_is_said(tmp_path: Path) -> None:
    """Quantisers of the wrong size are the caller's mistake, yet end in the project's one exception."""
    restorer = Restorer(find_model("small").path)
    i420, _ = noise(64, 48)
    with pytest.raises(SemcallError, match="The restorer small failed"):
        restorer.restore(i420, np.zeros((1, 1), np.uint8))


PINNED = [
    [0.0, -0.08, -0.03, 0.09, -0.05, 0.11, 0.0, -0.02],
    [-0.05, -0.11, 0.0, -0.08, -0.59, 0.17, -0.02, 0.0],
    [-0.2, -0.23, 0.14, 0.06, 0.08, -0.77, 0.44, -0.08],
    [0.11, 0.08, 0.03, 0.2, -0.08, 0.62, 0.36, 0.2],
    [0.31, 0.61, 0.17, 0.19, -0.03, -0.02, 0.03, 0.0],
    [-0.05, 0.91, 0.36, 0.3, 0.05, 0.11, 0.03, 0.06],
]
PINNED_LUMA = {
    "fast": [
        [-0.06, -0.31, -0.09, 0.36, 0.58, 0.53, 0.3, 0.0],
        [-0.28, -0.59, -0.25, 0.47, -3.5, -1.98, -0.39, -0.2],
        [-0.11, 0.72, 0.38, 0.34, -1.11, 1.62, 0.56, 0.58],
        [2.0, 0.16, 0.81, 2.16, 1.25, 1.5, 1.62, 0.69],
        [-1.83, 2.66, 0.61, -0.12, -0.02, 0.0, 0.19, -0.09],
        [-1.56, 2.94, -0.14, 0.27, -0.12, -0.39, 0.02, 0.19],
    ],
    "fine": [
        [0.0, -0.33, 0.16, -0.06, 0.84, -0.09, 0.0, -0.05],
        [-0.09, -0.28, -0.59, -0.55, -3.59, -0.83, -0.16, -0.17],
        [-0.12, -0.48, 0.14, 0.66, -0.55, 0.2, 0.94, 0.08],
        [0.31, -0.09, 0.55, 0.69, 0.16, -0.19, 1.2, 0.14],
        [0.44, 0.88, -0.02, -0.17, 0.02, 0.03, -0.09, -0.02],
        [0.86, 1.56, 0.17, 0.48, 0.06, -0.23, 0.19, 0.03],
    ],
    "finer": [
        [0.05, -0.27, 0.06, -0.05, 0.98, -0.39, -0.09, -0.06],
        [-0.12, -0.14, -0.55, -0.31, -2.94, -0.38, -0.17, -0.19],
        [0.08, -0.47, 0.33, 0.72, 0.0, 0.02, 1.52, 0.72],
        [0.48, -0.11, 0.55, 0.78, 0.77, -0.5, 1.53, 0.47],
        [-0.09, 1.34, 0.23, -0.23, 0.16, 0.05, -0.08, -0.05],
        [1.69, 1.28, 0.17, 0.36, 0.03, -0.17, 0.27, 0.06],
    ],
}

PINNED_CHROMA = {
    "fast": [
        [[-0.28, 0.02, -0.45, -0.11], [0.52, 0.2, -0.2, 0.83], [-0.97, 0.0, -0.08, -0.12]],
        [[-0.2, -0.08, -0.95, 0.02], [-0.34, -0.52, -0.44, -0.12], [-0.67, -0.14, -0.12, -0.3]],
    ],
    "fine": [
        [[-0.16, 0.2, 0.3, -0.08], [0.5, 0.45, 1.42, 1.3], [-1.72, -0.11, -0.08, -0.02]],
        [[-0.03, 0.31, -0.66, 0.03], [-0.03, 0.06, -0.34, 0.19], [-0.91, -1.0, -0.34, -0.03]],
    ],
    "finer": [
        [[0.05, 0.33, 0.28, 0.02], [0.66, 0.44, 1.7, 1.58], [-1.95, -0.14, -0.08, -0.03]],
        [[-0.12, 0.25, -0.73, 0.02], [0.02, 0.06, 0.09, 0.23], [-0.98, -1.02, -0.2, -0.02]],
    ],
}
