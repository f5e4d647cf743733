"""The way from clips to a model file: the coded pairs, a short training, its resumption, the export."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.registry import find_model
from shared.errors import SemcallError
from shared.grid import grid_shape
from shared.picture import I420, planes
from shared.restorer import Restorer

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("onnx", reason="needs the train extra")

from models.networks.quantised import QuantConv, quantise  # noqa: E402
from models.networks.restorer import SmallRestorer  # noqa: E402
from models.training import export, judge, pairs  # noqa: E402
from models.training.coding import rate, transcode  # noqa: E402
from models.training.loop import CHECKPOINT, Training, load_network, train  # noqa: E402
from models.training.recipe import Recipe, read_recipe  # noqa: E402
from models.training.restorer import train_restorer  # noqa: E402

RECIPE = """
name = "tiny"
channels = 16
depth = 1
pixel_steps = 12
feature_steps = 4
batch = 4
crop = 64
checkpoint_every = 6
"""


def moving(width: int, height: int, count: int, seed: int = 0) -> list[I420]:
    """A smooth random texture that drifts, with sensor noise: something to code, something to lose."""
    random = np.random.default_rng(seed)
    texture = random.normal(0, 1, (height + count, width + 2 * count)).astype(np.float32)
    texture = 128 + 60 * cv2.GaussianBlur(texture, (0, 0), 1.5) / 0.3 / 2
    texture = np.clip(texture, 16, 235).astype(np.uint8)
    chroma = np.full((height // 2, width), 128, np.uint8)
    images = []
    for k in range(count):
        luma = texture[k : k + height, 2 * k : 2 * k + width] + random.integers(0, 9, (height, width), np.uint8)
        images.append(np.concatenate([luma, chroma]))
    return images


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with three coded clips: two permissive, one not."""
    import av

    root = tmp_path / "data"
    (root / "clips" / "train").mkdir(parents=True)
    (root / "clips" / "val").mkdir()
    lines = ["path\tidentity\tsplit\tpermissive\tlicence"]
    for seed, (path, allowed) in enumerate(
        [("train/one-1.mp4", "yes"), ("train/two-1.mp4", "no"), ("val/three-1.mp4", "yes")]
    ):
        lines.append(f"{path}\t{path[6:9]}\t{path.split('/')[0]}\t{allowed}\tMIT")
        with av.open(str(root / "clips" / path), "w") as container:
            stream = container.add_stream("libx264", rate=30, options={"crf": "10", "preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = 320, 288, "yuv420p"
            for image in moving(320, 288, 70, seed):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "yuv420p")))
            container.mux(stream.encode())
    (root / "clips" / "manifest.tsv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    return path


def test_the_coder_obeys_the_quantisers() -> None:
    """As FFmpeg reports them; macroblocks that carry no residual inherit and are left out by taking an IDR."""
    qp = np.full(grid_shape(160, 96), 38, np.uint8)
    qp[2:4, 3:7] = 27
    coded = transcode(moving(160, 96, 4), qp)
    assert len(coded) == 4
    assert np.array_equal(coded[0].qp, qp)
    assert coded[0].i420.shape == (144, 160)
    finer = transcode(moving(160, 96, 4), qp - 6)
    assert rate(finer) > 1.3 * rate(coded)


def test_the_rate_is_found() -> None:
    frames = moving(320, 192, 8)
    coded = pairs.at_rate(frames, np.zeros(grid_shape(320, 192), bool), 0, 700)
    assert 0.75 * 700 < rate(coded) <= 700


def test_pairs_are_aligned_permissive_and_kept(data: Path, tmp_path: Path) -> None:
    files = pairs.prepare(data, tmp_path / "pairs")
    assert [file.stem for file in files] == ["one-1"]
    loaded = pairs.load(files)
    assert loaded.coded.shape == loaded.original.shape == (len(loaded.clip), 192, 128)
    assert loaded.qp.shape == (len(loaded.clip), 8, 8)
    assert 14 < loaded.qp.min() <= loaded.qp.max() <= 51
    luma = loaded.coded[:, :128].astype(int), loaded.original[:, :128].astype(int)
    right = np.abs(luma[0] - luma[1]).mean()
    shifted = np.abs(luma[0][:, :, 1:] - luma[1][:, :, :-1]).mean()
    assert 0.3 < right < 0.7 * shifted
    stamp = files[0].stat().st_mtime_ns
    pairs.prepare(data, tmp_path / "pairs")
    assert files[0].stat().st_mtime_ns == stamp


def test_no_data_is_said(tmp_path: Path) -> None:
    with pytest.raises(SemcallError, match="There are no training clips in"):
        pairs.prepare(tmp_path / "nowhere", tmp_path / "pairs")


def test_unknown_recipe_entries_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.toml"
    path.write_text("epochs = 3\n")
    with pytest.raises(SemcallError, match="unknown entries: epochs"):
        read_recipe(path, Recipe)
    with pytest.raises(SemcallError, match="cannot be read"):
        read_recipe(tmp_path / "gone.toml", Recipe)


def test_training_resumes_where_it_stopped(
    data: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted at step 9 and started again from the checkpoint of step 6, the result is the same to the bit."""
    straight = train(recipe, data, tmp_path / "straight")
    one_step = Training._one_step

    def interrupted(self: Training) -> None:
        if self.step == 9:
            raise KeyboardInterrupt
        one_step(self)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_one_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, data, tmp_path / "resumed")
    half, _, facts = load_network(tmp_path / "resumed" / CHECKPOINT)
    assert facts["step"] == 6
    resumed, _, facts = load_network(train(recipe, data, tmp_path / "resumed"))
    assert facts["step"] == 12
    expected = load_network(straight)[0].state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.state_dict().items())
    assert any(not torch.equal(value, expected[name]) for name, value in half.state_dict().items())


def test_a_checkpoint_of_another_recipe_is_refused(data: Path, recipe: Path, tmp_path: Path) -> None:
    train(recipe, data, tmp_path / "out", minutes=1e-6)
    recipe.write_text(RECIPE + "seed = 9\n")
    with pytest.raises(SemcallError, match="belongs to another recipe"):
        train(recipe, data, tmp_path / "out", minutes=1e-6)
    (tmp_path / "out" / CHECKPOINT).write_bytes(b"nothing")
    with pytest.raises(SemcallError, match="cannot be read"):
        train(recipe, data, tmp_path / "out", minutes=1e-6)


def test_quantised_gradients_leak() -> None:
    x = torch.tensor([-9.0, 0.51, 9.0], requires_grad=True)
    y = quantise(x)
    assert y.tolist() == [-2.0, 0.5, (255 - 64) / 32]
    y.sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, torch.tensor([0.1, 1.0, 0.1]))


def trained_like(channels: int = 16, depth: int = 2) -> SmallRestorer:
    """A network with a residual of several code values, as if trained."""
    torch.manual_seed(3)
    net = SmallRestorer(channels, depth)
    with torch.no_grad():
        net.exit.weight.mul_(100)
        for module in net.modules():
            if isinstance(module, QuantConv):
                module.bias_or_zero().uniform_(-0.1, 0.1)
    return net.eval()


@pytest.mark.parametrize(("width", "height"), [(176, 144), (718, 404), (362, 402), (34, 18), (2, 2)])
def test_the_graph_computes_what_was_trained(tmp_path: Path, width: int, height: int) -> None:
    net = trained_like()
    path = export.write(net, "tiny", tmp_path, {})
    frames = moving(width, height, 1)
    qp = np.random.default_rng(1).integers(20, 46, grid_shape(width, height), np.uint8)
    expected = planes(judge.network_restore(net)(frames[0], qp))[0].astype(int)
    restored = Restorer(path).restore(frames[0], qp)
    assert np.abs(planes(restored)[0].astype(int) - expected).max() <= 1
    assert np.array_equal(planes(restored)[1], planes(frames[0])[1])
    assert np.abs(expected - planes(frames[0])[0]).mean() > 0.5
    assert np.array_equal(judge.onnx_restore(path)(frames[0], qp), restored)


def test_train_restorer_exports_judges_and_writes_a_card(
    data: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "JUDGED_AT", ((400.0, 4),))
    path = train_restorer(recipe, data, tmp_path / "out", minutes=1e-3)
    assert path == tmp_path / "out" / "tiny.onnx"
    card = json.loads(path.with_suffix(".json").read_text())
    assert find_model(str(path)).card == card
    assert card["command"].endswith("--minutes 0.001")
    assert list(card["training_data"]["clips"]) == ["one-1"]
    (result,) = card["metrics"]["results"]
    assert result["clip"] == "three-1"
    assert 20 < result["psnr_db"][0] < 60
    assert result["vgg_face"] == [None, None]
    assert (tmp_path / "out" / "contact-sheet.png").stat().st_size > 10_000
    i420 = moving(64, 48, 1)[0]
    assert Restorer(path).restore(i420, np.full((3, 4), 30, np.uint8)).shape == (72, 64)


def test_recipes_in_the_repository_are_valid() -> None:
    recipes = sorted((Path(__file__).parent.parent / "configs").glob("restorer-*.toml"))
    assert recipes
    for path in recipes:
        assert isinstance(read_recipe(path, Recipe), Recipe)
