"""BiSeNet: the layout of the public checkpoints, what the network computes, reading checkpoints."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest

from shared.errors import SemcallError

torch = pytest.importorskip("torch", reason="needs the train extra")

from torch.nn import functional as F  # noqa: E402

from models.networks.bisenet import CLASSES, REGIONS, BiSeNet, load_bisenet  # noqa: E402

SHAPES = {
    "cp.resnet.conv1.weight": (64, 3, 7, 7),
    "cp.resnet.layer2.0.downsample.0.weight": (128, 64, 1, 1),
    "cp.resnet.layer4.1.conv2.weight": (512, 512, 3, 3),
    "cp.arm16.conv.conv.weight": (128, 256, 3, 3),
    "cp.arm16.conv_atten.weight": (128, 128, 1, 1),
    "cp.arm32.conv.conv.weight": (128, 512, 3, 3),
    "cp.conv_avg.conv.weight": (128, 512, 1, 1),
    "ffm.convblk.conv.weight": (256, 256, 1, 1),
    "ffm.conv1.weight": (64, 256, 1, 1),
    "ffm.conv2.weight": (256, 64, 1, 1),
    "conv_out.conv.conv.weight": (256, 256, 3, 3),
    "conv_out.conv_out.weight": (19, 256, 1, 1),
    "conv_out16.conv_out.weight": (19, 64, 1, 1),
    "conv_out32.conv.conv.weight": (64, 128, 3, 3),
}


def norm(name: str) -> list[str]:
    return [f"{name}.{part}" for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]


def conv_norm(name: str) -> list[str]:
    return [f"{name}.conv.weight", *norm(f"{name}.bn")]


def checkpoint_names() -> set[str]:
    """The tensors of face-parsing.PyTorch's checkpoints."""
    names = ["cp.resnet.conv1.weight", *norm("cp.resnet.bn1")]
    for layer in (1, 2, 3, 4):
        for block in (0, 1):
            base = f"cp.resnet.layer{layer}.{block}"
            for n in (1, 2):
                names += [f"{base}.conv{n}.weight", *norm(f"{base}.bn{n}")]
            if layer > 1 and block == 0:
                names += [f"{base}.downsample.0.weight", *norm(f"{base}.downsample.1")]
    for arm in ("cp.arm16", "cp.arm32"):
        names += [*conv_norm(f"{arm}.conv"), f"{arm}.conv_atten.weight", *norm(f"{arm}.bn_atten")]
    for name in ("cp.conv_head32", "cp.conv_head16", "cp.conv_avg", "ffm.convblk"):
        names += conv_norm(name)
    names += ["ffm.conv1.weight", "ffm.conv2.weight"]
    for head in ("conv_out", "conv_out16", "conv_out32"):
        names += [*conv_norm(f"{head}.conv"), f"{head}.conv_out.weight"]
    return set(names)


@pytest.fixture(scope="module")
def net() -> Any:
    """Random weights, and statistics as if it had been trained."""
    torch.manual_seed(1)
    net = BiSeNet().eval()
    for name, value in net.state_dict().items():
        if name.endswith(("running_mean", "bn1.bias")):
            value.normal_(0, 0.2)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 2)
    return net


@pytest.fixture
def slim() -> dict[str, Any]:
    """Tensors of the right names and shapes that take no room in a file."""
    return {name: torch.zeros(()).expand(value.shape) for name, value in BiSeNet().state_dict().items()}


def test_the_layout_is_the_public_checkpoints(net: Any) -> None:
    state = net.state_dict()
    assert set(state) == checkpoint_names()
    assert len(state) == 191
    assert sum(p.numel() for p in net.parameters()) == 13_300_416
    assert {name: tuple(state[name].shape) for name in SHAPES} == SHAPES


def test_regions() -> None:
    assert len(CLASSES) == 19
    assert [CLASSES[i] for i in (1, 14, 16, 17, 18)] == ["skin", "neck", "cloth", "hair", "hat"]
    assert {"skin", "nose", "u_lip", "eye_g", "neck"} <= set(REGIONS["face"])
    assert not {"background", "neck_l", "cloth", "hair", "hat"} & set(REGIONS["face"])
    assert set(REGIONS["face+hair"]) - set(REGIONS["face"]) == {"hair"}
    assert set(CLASSES) - set(REGIONS["person"]) == {"background"}


@pytest.mark.parametrize(("height", "width"), [(64, 96), (37, 51), (4, 4)])
def test_logits_are_a_quarter_of_the_picture(net: Any, height: int, width: int) -> None:
    with torch.inference_mode():
        logits = net(torch.rand(1, 3, height, width) * 255)
    assert logits.shape == (1, 19, (height + 3) // 4, (width + 3) // 4)


def test_the_network_computes_what_the_public_one_does(net: Any) -> None:
    """Against the same network written down plainly, as in face-parsing.PyTorch, up to the last enlargement."""
    w = net.state_dict()

    def normed(x: Any, name: str) -> Any:
        return F.batch_norm(x, *(w[f"{name}.{s}"] for s in ("running_mean", "running_var", "weight", "bias")))

    def conv(x: Any, name: str, stride: int = 1) -> Any:
        weight = w[f"{name}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def unit(x: Any, name: str) -> Any:
        return F.relu(normed(conv(x, f"{name}.conv"), f"{name}.bn"))

    def block(x: Any, name: str, stride: int) -> Any:
        y = F.relu(normed(conv(x, f"{name}.conv1", stride), f"{name}.bn1"))
        y = normed(conv(y, f"{name}.conv2"), f"{name}.bn2")
        if f"{name}.downsample.0.weight" in w:
            x = normed(conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
        return F.relu(x + y)

    def refined(x: Any, name: str) -> Any:
        x = unit(x, f"{name}.conv")
        return x * torch.sigmoid(normed(conv(x.mean((2, 3), True), f"{name}.conv_atten"), f"{name}.bn_atten"))

    rgb = torch.rand(1, 3, 96, 64) * 255
    with torch.inference_mode():
        x = rgb / 255 - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
        x = x / torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
        x = F.max_pool2d(F.relu(normed(conv(x, "cp.resnet.conv1", 2), "cp.resnet.bn1")), 3, 2, 1)
        features = []
        for layer in (1, 2, 3, 4):
            x = block(x, f"cp.resnet.layer{layer}.0", 1 if layer == 1 else 2)
            x = block(x, f"cp.resnet.layer{layer}.1", 1)
            features.append(x)
        _, at8, at16, at32 = features
        deep = refined(at32, "cp.arm32") + unit(at32.mean((2, 3), True), "cp.conv_avg")
        middle = refined(at16, "cp.arm16") + unit(F.interpolate(deep, scale_factor=2.0), "cp.conv_head32")
        context = unit(F.interpolate(middle, scale_factor=2.0), "cp.conv_head16")
        x = unit(torch.cat([at8, context], 1), "ffm.convblk")
        x = x + x * torch.sigmoid(conv(F.relu(conv(x.mean((2, 3), True), "ffm.conv1")), "ffm.conv2"))
        expected = conv(unit(x, "conv_out.conv"), "conv_out.conv_out")
        assert expected.shape == (1, 19, 12, 8)
        assert expected.std() > 0.01
        found = net(rgb)
    enlarged = F.interpolate(expected, (24, 16), mode="bilinear", align_corners=True)
    torch.testing.assert_close(found, enlarged, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_checkpoint_comes_back(net: Any, tmp_path: Path, prefix: str, wrapped: bool) -> None:
    state = {prefix + name: value for name, value in net.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, tmp_path / "net.pth")
    again = load_bisenet(tmp_path / "net.pth")
    assert not again.training
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in again.state_dict().items())


def test_counters_that_old_checkpoints_lack_are_not_missed(slim: dict[str, Any], tmp_path: Path) -> None:
    state = {name: value for name, value in slim.items() if not name.endswith("num_batches_tracked")}
    assert len(state) < len(slim)
    torch.save(state, tmp_path / "net.pth")
    assert not load_bisenet(tmp_path / "net.pth").ffm.conv1.weight.any()


def test_differences_are_named(slim: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    del slim["ffm.conv1.weight"], slim["ffm.conv2.weight"]
    slim["fc.weight"] = torch.zeros(3)
    slim["conv_out.conv_out.weight"] = torch.zeros(7, 256, 1, 1)
    torch.save(slim, path)
    with pytest.raises(SemcallError) as caught:
        load_bisenet(path)
    said = str(caught.value)
    assert "it lacks ffm.conv1.weight, ffm.conv2.weight;" in said
    assert "has the unknown fc.weight;" in said
    assert "conv_out.conv_out.weight (7x256x1x1 instead of 19x256x1x1)" in said


def test_only_the_first_few_are_named(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "net.pth")
    with pytest.raises(SemcallError, match=r"lacks cp\.resnet\.conv1\.weight, .* and 157 more;"):
        load_bisenet(tmp_path / "net.pth")


def test_values_that_are_not_finite(slim: dict[str, Any], tmp_path: Path) -> None:
    slim["ffm.conv1.weight"] = torch.full((64, 256, 1, 1), float("nan"))
    torch.save(slim, tmp_path / "net.pth")
    with pytest.raises(SemcallError, match=r"ffm\.conv1\.weight holds values that are not finite"):
        load_bisenet(tmp_path / "net.pth")


def quantised(like: Any) -> Any:
    return torch.quantize_per_tensor(torch.zeros(like.shape), 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    "changed",
    [
        lambda value: torch.zeros(value.shape).to_sparse(),
        lambda value: torch.zeros(value.flatten(1).shape).to_sparse_csr(),
        quantised,
        lambda value: torch.zeros(value.shape, dtype=torch.float8_e4m3fn),
        lambda value: torch.empty(value.shape, device="meta"),
        lambda value: torch.zeros(value.shape, dtype=torch.complex64),
        lambda value: torch.zeros(value.shape, dtype=torch.int64),
        lambda value: torch.zeros(value.shape, dtype=torch.bool),
    ],
    ids=["sparse", "csr", "quantised", "float8", "meta", "complex", "int", "bool"],
)
def test_tensors_that_are_no_dense_numbers(slim: dict[str, Any], tmp_path: Path, changed: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        slim["ffm.conv1.weight"] = changed(slim["ffm.conv1.weight"])
        torch.save(slim, tmp_path / "net.pth")
    with pytest.raises(SemcallError, match=r"ffm\.conv1\.weight as something else than dense floating-point numbers"):
        load_bisenet(tmp_path / "net.pth")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_taken(slim: dict[str, Any], tmp_path: Path, dtype: Any) -> None:
    slim["ffm.conv1.weight"] = torch.full((64, 256, 1, 1), 0.5, dtype=dtype)
    torch.save(slim, tmp_path / "net.pth")
    weight = load_bisenet(tmp_path / "net.pth").ffm.conv1.weight
    assert weight.dtype == torch.float32
    assert (weight == 0.5).all()


def test_numbers_beyond_float32(slim: dict[str, Any], tmp_path: Path) -> None:
    slim["ffm.conv1.weight"] = torch.full((64, 256, 1, 1), 1e300, dtype=torch.float64)
    torch.save(slim, tmp_path / "net.pth")
    with pytest.raises(SemcallError, match=r"ffm\.conv1\.weight holds values that are not finite"):
        load_bisenet(tmp_path / "net.pth")


def test_counters_do_not_matter(slim: dict[str, Any], tmp_path: Path) -> None:
    slim["ffm.convblk.bn.num_batches_tracked"] = torch.zeros(3, dtype=torch.complex64)
    torch.save(slim, tmp_path / "net.pth")
    assert load_bisenet(tmp_path / "net.pth").ffm.convblk.bn.num_batches_tracked == 0


@pytest.mark.parametrize(
    "content", [b"", b"no checkpoint at all\n" * 40, bytes(range(256)) * 9, b"PK\x03\x04" + bytes(200)]
)
def test_what_is_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.pth").write_bytes(content)
    with pytest.raises(SemcallError, match=r"no PyTorch checkpoint.* give a file that torch\.save wrote"):
        load_bisenet(tmp_path / "net.pth")


def test_a_checkpoint_cut_short(slim: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(slim, path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(SemcallError, match="no PyTorch checkpoint or damaged"):
        load_bisenet(path)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(SemcallError, match="No such file"):
        load_bisenet(tmp_path / "gone.pth")
    with pytest.raises(SemcallError, match=r"cannot be read"):
        load_bisenet(tmp_path)


@pytest.mark.parametrize("content", [[1, 2], {}, 7])
def test_files_without_weights(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(SemcallError, match="holds no weights"):
        load_bisenet(tmp_path / "net.pth")


def test_training_states_are_no_bare_checkpoint(slim: dict[str, Any], tmp_path: Path) -> None:
    torch.save({**slim, "epoch": 3}, tmp_path / "net.pth")
    with pytest.raises(SemcallError, match="epoch is no tensor"):
        load_bisenet(tmp_path / "net.pth")


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_nothing_in_a_checkpoint_is_run(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    pickle.loads(pickle.dumps(Trap(sprung)))
    assert sprung.exists(), "the trap works"
    sprung.unlink()
    torch.save({"ffm.conv1.weight": Trap(sprung)}, tmp_path / "net.pth")
    with pytest.raises(SemcallError, match="Python objects besides tensors, which could run code"):
        load_bisenet(tmp_path / "net.pth")
    (tmp_path / "net.pkl").write_bytes(pickle.dumps({"ffm.conv1.weight": Trap(sprung)}))
    with pytest.raises(SemcallError, match=r"net\.pkl"):
        load_bisenet(tmp_path / "net.pkl")
    assert not sprung.exists()
