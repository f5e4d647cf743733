"""The feature networks of the losses: layouts of checkpoints, what they compute, which one stands in for which."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.errors import SemcallError

torch = pytest.importorskip("torch", reason="needs the train extra")
onnx = pytest.importorskip("onnx", reason="needs the train extra")

from torch.nn import functional as F  # noqa: E402

from models.networks import backbones  # noqa: E402
from models.networks.backbones import VGG19_CONV3_4, VGG19_CONV5_4, VGG_FACE_CONV5_3, choose, load_vgg  # noqa: E402
from models.networks.features import SQUEEZENET, VGG, SqueezeNet  # noqa: E402
from models.networks.mobile_face import MobileFaceNet, load_mobile_face  # noqa: E402
from models.training.losses import perceptual  # noqa: E402

WEIGHTS = Path(__file__).resolve().parents[2] / "shared" / "data" / "weights"
MOBILE_FACE = WEIGHTS / backbones.MOBILE_FACE
needs_face = pytest.mark.skipif(not MOBILE_FACE.exists(), reason="needs ../shared/data/weights")

# As published: torchvision's vgg19().features without its classifier, and vgg_face_dag.pth of the Oxford group.
VGG19_SHAPES = {
    0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128), 12: (256, 256), 14: (256, 256),
    16: (256, 256), 19: (512, 256), 21: (512, 512), 23: (512, 512), 25: (512, 512), 28: (512, 512), 30: (512, 512),
    32: (512, 512), 34: (512, 512),
}  # fmt: skip
VGG_FACE_SHAPES = {
    "1_1": (64, 3), "1_2": (64, 64), "2_1": (128, 64), "2_2": (128, 128), "3_1": (256, 128), "3_2": (256, 256),
    "3_3": (256, 256), "4_1": (512, 256), "4_2": (512, 512), "4_3": (512, 512), "5_1": (512, 512), "5_2": (512, 512),
    "5_3": (512, 512),
}  # fmt: skip
VGG16_INDICES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
VGG19_NAMES = {f"features.{index}": shape for index, shape in VGG19_SHAPES.items()}
FACE_NAMES = {f"conv{name}": shape for name, shape in VGG_FACE_SHAPES.items()}
FACE_INDEXED = {f"features.{k}": s for k, s in zip(VGG16_INDICES, VGG_FACE_SHAPES.values(), strict=True)}


def checkpoint(names: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """Random weights of a published layout, and tensors of layers that nobody asks for."""
    torch.manual_seed(1)
    state: dict[str, Any] = {"classifier.0.weight": torch.zeros(3, 5), "fc6.bias": torch.zeros(7)}
    for name, (outputs, inputs) in names.items():
        state[f"{name}.weight"] = torch.randn(outputs, inputs, 3, 3) * (2 / (9 * inputs)) ** 0.5
        state[f"{name}.bias"] = torch.randn(outputs) * 0.1
    return state


@pytest.fixture(scope="module")
def vgg19() -> dict[str, Any]:
    return checkpoint(VGG19_NAMES)


@pytest.fixture(scope="module")
def vgg_face() -> dict[str, Any]:
    return checkpoint(FACE_NAMES)


@pytest.fixture
def slim() -> dict[str, Any]:
    """VGG-19 up to conv3_4 without values: tensors of the right names and shapes that take no room in a file."""
    state = {}
    for index, (outputs, inputs) in list(VGG19_SHAPES.items())[:8]:
        state[f"features.{index}.weight"] = torch.zeros(()).expand(outputs, inputs, 3, 3)
        state[f"features.{index}.bias"] = torch.zeros(()).expand(outputs)
    return state


def plainly(state: dict[str, Any], layers: list[str], x: Any) -> Any:
    """VGG written down: "pool" or the name of a convolution, ReLU after all but the last."""
    for layer in layers:
        if layer == "pool":
            x = F.max_pool2d(x, 2, 2)
            continue
        x = F.conv2d(x, state[f"{layer}.weight"], state[f"{layer}.bias"], padding=1)
        if layer != layers[-1]:
            x = x.relu()
    return x


def indexed(*blocks: tuple[int, ...]) -> list[str]:
    return [name for block in blocks for name in (*(f"features.{k}" for k in block), "pool")][:-1]


IMAGENET = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
CONV5_4 = indexed((0, 2), (5, 7), (10, 12, 14, 16), (19, 21, 23, 25), (28, 30, 32, 34))
CONV3_4 = indexed((0, 2), (5, 7), (10, 12, 14, 16))


@pytest.mark.parametrize(("layout", "layers"), [(VGG19_CONV5_4, CONV5_4), (VGG19_CONV3_4, CONV3_4)])
def test_vgg19_computes_what_torchvisions_does(vgg19: dict[str, Any], layout: Any, layers: list[str]) -> None:
    rgb = torch.rand(2, 3, 35, 50)
    with torch.inference_mode():
        (found,) = backbones.Vgg(layout, vgg19)(rgb)
        expected = plainly(vgg19, layers, (rgb - IMAGENET[0]) / IMAGENET[1])
    assert found.shape[1:] == ((512, 2, 3) if layout is VGG19_CONV5_4 else (256, 8, 12))
    assert found.min() < 0 < found.max(), "before ReLU"
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_vgg_face_takes_rgb_codes_less_their_means(vgg_face: dict[str, Any]) -> None:
    rgb = torch.rand(1, 3, 32, 48)
    blocks = (2, 2, 3, 3, 3)
    layers = [n for b, c in enumerate(blocks, 1) for n in (*(f"conv{b}_{k}" for k in range(1, c + 1)), "pool")][:-1]
    with torch.inference_mode():
        (found,) = backbones.Vgg(VGG_FACE_CONV5_3, vgg_face)(rgb)
        codes = rgb * 255 - torch.tensor([129.1863, 104.7624, 93.5940]).view(1, 3, 1, 1)
        expected = plainly(vgg_face, layers, codes)
    assert found.shape == (1, 512, 2, 3)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.std()))


def test_both_public_layouts_of_vgg_face_are_read(vgg_face: dict[str, Any]) -> None:
    renamed = dict(zip(FACE_NAMES, FACE_INDEXED, strict=True))
    other = {}
    for name, value in vgg_face.items():
        layer, _, part = name.rpartition(".")
        other[f"{renamed[layer]}.{part}" if layer in renamed else name] = value
    assert set(other) != set(vgg_face)
    rgb = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        (first,) = backbones.Vgg(VGG_FACE_CONV5_3, vgg_face)(rgb)
        (second,) = backbones.Vgg(VGG_FACE_CONV5_3, other)(rgb)
    assert torch.equal(first, second)


def test_networks_are_frozen_and_let_gradients_through(vgg19: dict[str, Any]) -> None:
    net = backbones.Vgg(VGG19_CONV3_4, vgg19)
    assert not list(net.parameters())
    assert not net.state_dict(), "nothing that a training's checkpoint would carry along"
    rgb = torch.rand(1, 3, 16, 16, requires_grad=True)
    net(rgb)[0].square().sum().backward()
    assert (rgb.grad != 0).all()


def test_networks_go_to_another_precision(vgg19: dict[str, Any]) -> None:
    """As they go to another device: nothing is left behind."""
    net = backbones.Vgg(VGG19_CONV3_4, vgg19)
    rgb = torch.rand(1, 3, 16, 16)
    (single,) = net(rgb)
    (double,) = net.double()(rgb.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_checkpoints_are_read(vgg19: dict[str, Any], tmp_path: Path, prefix: str, wrapped: bool) -> None:
    state = {prefix + name: value for name, value in vgg19.items() if name in small(vgg19)}
    path = tmp_path / "net.pth"
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, path)
    net = load_vgg(VGG19_CONV3_4, path)
    assert torch.equal(net.get_buffer("weight7"), vgg19["features.16.weight"])


def small(state: dict[str, Any]) -> set[str]:
    """The names up to conv3_4."""
    return {name for name in state if name.startswith("features.") and int(name.split(".")[1]) < 17}


def without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda state: state.pop(name)


def instead(name: str, make: Callable[[], Any]) -> Callable[[dict[str, Any]], None]:
    return lambda state: state.update({name: make()})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("features.7.bias"), r"features\.7\.bias is missing instead of \[128\]"),
        (
            instead("features.12.weight", lambda: torch.zeros(256, 128, 3, 3)),
            r"is no VGG-19 to conv3_4: features\.12\.weight is \[256, 128, 3, 3\] instead of \[256, 256, 3, 3\]",
        ),
        (instead("features.0.bias", lambda: torch.full((64,), float("nan"))), r"features\.0\.bias as something else"),
        (
            instead("features.0.bias", lambda: torch.zeros(64, dtype=torch.int32)),
            "than finite floating-point numbers",
        ),
        (instead("features.0.bias", lambda: torch.zeros(64).to_sparse()), "than finite floating-point numbers"),
        (instead("features.0.bias", lambda: 3), r"features\.0\.bias is missing"),
    ],
)
def test_other_layouts_are_refused(
    slim: dict[str, Any], tmp_path: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    path = tmp_path / "net.pth"
    torch.save(slim, path)
    load_vgg(VGG19_CONV3_4, path)
    change(slim)
    torch.save(slim, path)
    with pytest.raises(SemcallError, match=said):
        load_vgg(VGG19_CONV3_4, path)


def test_vgg16_is_no_vgg19_nor_the_other_way_round(vgg19: dict[str, Any]) -> None:
    with pytest.raises(SemcallError, match=r"is no VGG-Face to conv5_3: features\.17\.weight is missing"):
        backbones.Vgg(VGG_FACE_CONV5_3, vgg19)
    with pytest.raises(SemcallError, match=r"is no VGG-19 to conv5_4: features\.16\.weight is missing"):
        backbones.Vgg(VGG19_CONV5_4, checkpoint(FACE_INDEXED))


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_files_that_are_no_checkpoints(slim: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    with pytest.raises(SemcallError, match=r"net\.pth cannot be read; give the path of VGG-19 to conv3_4"):
        load_vgg(VGG19_CONV3_4, path)
    path.write_bytes(b"no checkpoint at all\n" * 40)
    with pytest.raises(SemcallError, match=r"net\.pth .*is no PyTorch checkpoint"):
        load_vgg(VGG19_CONV3_4, path)
    torch.save([1, 2], path)
    with pytest.raises(SemcallError, match="holds no weights"):
        load_vgg(VGG19_CONV3_4, path)
    torch.save(slim, path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(SemcallError, match="damaged"):
        load_vgg(VGG19_CONV3_4, path)


def test_nothing_in_a_checkpoint_is_run(slim: dict[str, Any], tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    torch.save(slim | {"features.0.bias": Trap(sprung)}, tmp_path / "net.pth")
    torch.load(tmp_path / "net.pth", weights_only=False)
    assert sprung.exists(), "the trap works"
    sprung.unlink()
    with pytest.raises(SemcallError, match="more than tensors"):
        load_vgg(VGG19_CONV3_4, tmp_path / "net.pth")
    assert not sprung.exists()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch's cache for checkpoints, empty, and no way to the network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)

    def no_network(*_: Any, **__: Any) -> Any:
        raise AssertionError("nothing may be downloaded")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_network)
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def squeezenet(path: Path) -> None:
    """A SqueezeNet of random weights in torchvision's names, up to fire6."""
    torch.manual_seed(2)
    shapes = {"features.0": (96, 3, 7)}
    for layer, (inputs, squeezed, wide) in {
        3: (96, 16, 64), 4: (128, 16, 64), 5: (128, 32, 128), 7: (256, 32, 128), 8: (256, 48, 192)
    }.items():  # fmt: skip
        shapes[f"features.{layer}.squeeze"] = (squeezed, inputs, 1)
        shapes[f"features.{layer}.expand1x1"] = (wide, squeezed, 1)
        shapes[f"features.{layer}.expand3x3"] = (wide, squeezed, 3)
    state = {}
    for name, (outputs, inputs, kernel) in shapes.items():
        state[f"{name}.weight"] = torch.randn(outputs, inputs, kernel, kernel) * (2 / (inputs * kernel**2)) ** 0.5
        state[f"{name}.bias"] = torch.randn(outputs) * 0.1
    torch.save(state, path)


def test_torchvisions_vgg19_is_taken_from_the_cache(vgg19: dict[str, Any], cache: Path, tmp_path: Path) -> None:
    torch.save(vgg19, cache / "vgg19-dcbb9e9d.pth")
    net, name = choose("vgg19", tmp_path)
    assert name == "VGG-19 conv5_4 (torchvision)"
    assert net(torch.rand(1, 3, 32, 32))[0].shape == (1, 512, 2, 2)


def test_a_path_comes_first_and_is_never_replaced(vgg19: dict[str, Any], cache: Path, tmp_path: Path) -> None:
    torch.save(vgg19, cache / "vgg19-dcbb9e9d.pth")
    torch.save({**vgg19, "features.34.bias": torch.full((512,), 9.0)}, tmp_path / "mine.pth")
    net, name = choose("vgg19", tmp_path, tmp_path / "mine.pth")
    assert name == "VGG-19 conv5_4 (mine.pth)"
    assert (net.get_buffer("bias15") == 9).all()
    for kind in ("vgg19", "vggface", "squeezenet", "mobileface", "vgg19-cub"):
        with pytest.raises(SemcallError, match=r"gone\.pth"):
            choose(kind, WEIGHTS, tmp_path / "gone.pth")


def test_vgg_face_is_taken_from_a_path(vgg_face: dict[str, Any], tmp_path: Path) -> None:
    torch.save(vgg_face, tmp_path / "vgg_face_dag.pth")
    net, name = choose("vggface", tmp_path, tmp_path / "vgg_face_dag.pth")
    assert name == "VGG-Face conv5_3 (vgg_face_dag.pth)"
    assert net(torch.rand(1, 3, 32, 32))[0].shape == (1, 512, 2, 2)


def test_squeezenet_stands_in_for_vgg19(cache: Path, tmp_path: Path) -> None:
    """And never the judge's VGG-19 to conv3_4, even where it is at hand."""
    squeezenet(tmp_path / SQUEEZENET)
    (tmp_path / VGG).write_bytes(b"must not be opened")
    net, name = choose("vgg19", tmp_path)
    assert name == "SqueezeNet 1.0 (conv1, fire3, fire6): stand-in for VGG-19 conv5_4"
    assert isinstance(net, backbones.UnitMaps)
    assert choose("squeezenet", tmp_path)[1] == "SqueezeNet 1.0 (conv1, fire3, fire6)"


def test_squeezenets_distance_is_the_one_of_the_older_trainings(tmp_path: Path) -> None:
    squeezenet(tmp_path / SQUEEZENET)
    net, _ = choose("squeezenet", tmp_path)
    older = SqueezeNet(tmp_path / SQUEEZENET)
    first, second = torch.rand(2, 3, 48, 40), torch.rand(2, 3, 48, 40)
    expected = older.distance(older(first), older(second))
    assert expected > 0.01
    torch.testing.assert_close(perceptual(net, first, second), expected)
    double = copy.deepcopy(net).double()
    torch.testing.assert_close(perceptual(double, first.double(), second.double()), expected, rtol=1e-4, atol=1e-5)


def test_another_squeezenet_is_refused(vgg19: dict[str, Any], tmp_path: Path) -> None:
    torch.save({name: vgg19[name] for name in small(vgg19)}, tmp_path / SQUEEZENET)
    with pytest.raises(SemcallError, match=r"is no SqueezeNet 1\.0 in torchvision's names"):
        choose("squeezenet", tmp_path)


def test_the_judge_is_taken_by_its_own_name_only(vgg19: dict[str, Any], tmp_path: Path) -> None:
    torch.save({name: vgg19[name] for name in small(vgg19)}, tmp_path / VGG)
    net, name = choose("vgg19-cub", tmp_path)
    assert name == "VGG-19 conv3_4, CUB: stand-in"
    assert net(torch.rand(1, 3, 32, 32))[0].shape == (1, 256, 8, 8)


@pytest.mark.parametrize("kind", ["vgg19", "vggface", "squeezenet", "mobileface", "vgg19-cub"])
def test_nothing_at_hand_is_said(cache: Path, tmp_path: Path, kind: str) -> None:
    with pytest.raises(SemcallError, match="cannot be read"):
        choose(kind, tmp_path)
    with pytest.raises(SemcallError, match="There is no feature network 'vgg'; choose one of vgg19, vggface"):
        choose("vgg", tmp_path)


@pytest.mark.skipif(not (WEIGHTS / VGG).exists(), reason="needs ../shared/data/weights")
def test_the_weights_at_hand_fit() -> None:
    for kind, channels in (("squeezenet", [96, 128, 384]), ("mobileface", [64, 128, 128]), ("vgg19-cub", [256])):
        net, _ = choose(kind, WEIGHTS)
        assert [maps.shape[1] for maps in net(torch.rand(1, 3, 64, 64))] == channels


def exported(net: Any, path: Path) -> Any:
    """The ONNX of a MobileFaceNet laid out as the one at hand: after each convolution normalised in two steps."""
    nodes, constants, counter = [], [], iter(range(10**6))

    def constant(values: Any) -> str:
        name = f"w{next(counter)}"
        constants.append(onnx.numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    def node(op: str, inputs: list[str], **attributes: Any) -> str:
        name = f"t{next(counter)}"
        nodes.append(onnx.helper.make_node(op, inputs, [name], name=f"/{op}_{name}", **attributes))
        return name

    def unit(x: str, module: Any) -> str:
        conv = module.conv
        x = node(
            "Conv",
            [x, constant(conv.weight / 4)],
            kernel_shape=list(conv.kernel_size),
            strides=list(conv.stride),
            pads=[conv.padding[0]] * 4,
            group=conv.groups,
            dilations=[1, 1],
        )
        bias = conv.bias.view(1, -1, 1, 1)
        for op, value in (("Mul", 2 + 0 * bias), ("Add", bias / 4), ("Mul", 2 + 0 * bias), ("Add", bias / 2)):
            x = node(op, [x, constant(value)])
        return x if module.slope is None else node("PRelu", [x, constant(module.slope.view(-1, 1, 1))])

    x = "face"
    for module in net.stem:
        x = unit(x, module)
    for stage in net.stages:
        for block in stage:
            start = x
            for module in block.units:
                x = unit(x, module)
            x = node("Add", [x, start]) if block.skip else x
    for module in net.head:
        x = unit(x, module)
    x = node("Gemm", [node("Flatten", [x]), constant(net.dense.weight), constant(net.dense.bias)], transB=1)
    for op, value in (
        ("Mul", torch.full((1, 128), 3.0)),
        ("Add", torch.ones(1, 128)),
        ("Mul", torch.ones(1, 128) / 3),
    ):
        x = node(op, [x, constant(value)])
    x = node("Add", [x, constant(torch.full((1, 128), -1 / 3))])
    nodes.append(onnx.helper.make_node("Div", [x, node("ReduceL2", [x], axes=[1], keepdims=1)], ["embedding"]))
    kind = onnx.TensorProto.FLOAT
    inputs = [onnx.helper.make_tensor_value_info("face", kind, ["n", 3, 112, 112])]
    outputs = [onnx.helper.make_tensor_value_info("embedding", kind, ["n", 128])]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "net", inputs, outputs, constants),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, path)
    return model


@pytest.fixture(scope="module")
def recogniser() -> Any:
    torch.manual_seed(4)
    net = MobileFaceNet()
    for parameter in net.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)
    return net


@needs_face
def test_mobile_face_agrees_with_onnx_runtime() -> None:
    import onnxruntime

    net = load_mobile_face(MOBILE_FACE)
    rgb = torch.rand(3, 3, 112, 112)
    session = onnxruntime.InferenceSession(str(MOBILE_FACE), providers=["CPUExecutionProvider"])
    expected = session.run(None, {session.get_inputs()[0].name: ((rgb * 255 - 127.5) / 128).numpy()})[0]
    found = net.embedding(rgb).numpy()
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-3)


@needs_face
def test_mobile_face_knows_a_face_from_another_picture() -> None:
    """Its maps too: a blurred picture is nearer to itself than to noise."""
    net = load_mobile_face(MOBILE_FACE)
    torch.manual_seed(0)
    smooth = F.interpolate(torch.rand(1, 3, 8, 8), size=(64, 48), mode="bicubic").clamp(0, 1)
    blurred = F.avg_pool2d(F.pad(smooth, (1, 1, 1, 1), mode="replicate"), 3, 1)
    near, far = (float(perceptual(net, other, smooth)) for other in (blurred, torch.rand_like(smooth)))
    assert 0 < near < 0.5 * far


def test_mobile_face_comes_back_from_onnx(recogniser: Any, tmp_path: Path) -> None:
    import onnxruntime

    path = tmp_path / "face.onnx"
    exported(recogniser, path)
    net = load_mobile_face(path)
    rgb = torch.rand(2, 3, 112, 112)
    torch.testing.assert_close(net.embedding(rgb), recogniser.embedding(rgb), rtol=1e-4, atol=1e-5)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"face": ((rgb * 255 - 127.5) / 128).numpy()})[0]
    np.testing.assert_allclose(net.embedding(rgb).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (47, 65), (112, 112)])
def test_mobile_face_takes_crops_of_any_size(recogniser: Any, height: int, width: int) -> None:
    rgb = torch.rand(2, 3, height, width, requires_grad=True)
    maps = recogniser(rgb)
    assert [tuple(m.shape) for m in maps] == [
        (2, channels, -(-height // step), -(-width // step)) for channels, step in ((64, 4), (128, 8), (128, 16))
    ]
    torch.stack([m.square().mean() for m in maps]).sum().backward()
    assert (rgb.grad != 0).float().mean() > 0.99
    assert not any(parameter.requires_grad for parameter in recogniser.parameters())


def test_embeddings_are_unit_vectors_of_aligned_crops_only(recogniser: Any) -> None:
    vectors = recogniser.embedding(torch.rand(3, 3, 112, 112))
    assert vectors.shape == (3, 128)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    with pytest.raises(ValueError, match="112"):
        recogniser.embedding(torch.rand(1, 3, 96, 96))


def first(model: Any, op: str, index: int = 0) -> Any:
    return [node for node in model.graph.node if node.op_type == op][index]


def stride(model: Any) -> None:
    next(a for a in first(model, "Conv", 3).attribute if a.name == "strides").ints[:] = [1, 1]


def wiring(model: Any) -> None:
    skips = [n for n in model.graph.node if n.op_type == "Add" and all(name.startswith("t") for name in n.input)]
    skips[1].input[1] = skips[0].input[1]


def activation(model: Any) -> None:
    first(model, "PRelu", 2).op_type = "LeakyRelu"


def elsewhere(model: Any) -> None:
    model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL


def cut(model: Any) -> None:
    del model.graph.node[-7:]  # from the dense layer on


def broken(model: Any) -> None:
    values = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    values[0] = np.nan
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(values, model.graph.initializer[0].name))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (stride, "another network than MobileFaceNet at 112x112: .*Conv"),
        (wiring, "it has Add where none belongs"),
        (activation, "it has LeakyRelu where none belongs"),
        (elsewhere, "its weights are in another file"),
        (cut, "it has 49 layers, 49 of them convolutions"),
        (broken, "not finite"),
    ],
)
def test_other_networks_are_no_mobile_face(recogniser: Any, tmp_path: Path, change: Any, said: str) -> None:
    path = tmp_path / "face.onnx"
    model = exported(recogniser, path)
    change(model)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(SemcallError, match=said):
        load_mobile_face(path)


def test_files_that_are_no_onnx(tmp_path: Path) -> None:
    path = tmp_path / "face.onnx"
    with pytest.raises(SemcallError, match=r"face\.onnx cannot be read; check the path"):
        load_mobile_face(path)
    path.write_bytes(b"no network\n" * 9)
    with pytest.raises(SemcallError, match=r"face\.onnx is no ONNX file"):
        load_mobile_face(path)
    path.write_bytes(b"")
    with pytest.raises(SemcallError, match="another network"):
        load_mobile_face(path)
