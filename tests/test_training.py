"""The way from clips to a model file: the coded pairs, a short training, its resumption, the export."""

from __future__ import annotations

import copy
import functools
import io
import itertools
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rich.console import Console

from models.evaluation.study.coding import read_masks, stats_path
from models.evaluation.study.measure import decoded
from models.evaluation.study.metrics import Metrics
from models.registry import find_model
from sender.offline import encode_at
from sender.parser import FaceOptions
from shared.clips import Clip
from shared.errors import SemcallError
from shared.grid import grid_shape
from shared.picture import I420, planes
from shared.restorer import Restorer

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("onnx", reason="needs the train extra")

from models.networks.features import SQUEEZENET, FeatureNet  # noqa: E402
from models.networks.quantised import QuantConv, quantise  # noqa: E402
from models.networks.restorer import FastRestorer  # noqa: E402
from models.training import export, export_rgb  # noqa: E402
from models.training.checkpoints import ExportOptions, export_checkpoint  # noqa: E402
from models.training.coding import rate, transcode  # noqa: E402
from models.training.fit import Fit  # noqa: E402
from models.training.losses import background_loss, face_loss, perceptual  # noqa: E402
from models.training.manifest import permissive_clips  # noqa: E402
from models.training.recipe import read_recipe  # noqa: E402
from models.training.restoration import eyes, judge, pairs  # noqa: E402
from models.training.restoration.adversary import WARM_UP, Adversary  # noqa: E402
from models.training.restoration.batches import Batches  # noqa: E402
from models.training.restoration.effects import FINE_QP, side_effects  # noqa: E402
from models.training.restoration.export import strengthen  # noqa: E402
from models.training.restoration.networks import discriminator, network  # noqa: E402
from models.training.restoration.objective import Objective  # noqa: E402
from models.training.restoration.recipe import RestorerRecipe  # noqa: E402
from models.training.restoration.sheets import Sheet  # noqa: E402
from models.training.restoration.start import load_restorer  # noqa: E402
from models.training.restoration.train import rounds, train_restorer  # noqa: E402
from models.training.restoration.units import check_units  # noqa: E402
from models.training.restoration.views import View, view  # noqa: E402

ENCODE = functools.partial(encode_at, face=FaceOptions())
RECIPE = """
name = "tiny"
channels = 24
depth = 1
pixel_steps = 12
feature_steps = 0
batch = 4
crop = 64
codings = 1
seconds = 1.0
checkpoint_every = 6
"""


PAPER = RestorerRecipe(
    "tiny", network="paper", channels=8, blocks=1, pixel_steps=0, feature_steps=0, epochs=3, halve_epochs=1,
    momentum=0.9, adversarial_rate=1e-3, batch=2, crop=64, stored=64, codings=1, seconds=1.0, checkpoint_every=10,
    bf16=True,
)  # fmt: skip


class Eye(FeatureNet):
    """Stands for a feature network: it only blurs."""

    def maps(self, x: Any) -> list[Any]:
        return [torch.nn.functional.avg_pool2d(x, 2)]


def moving(width: int, height: int, count: int, seed: int = 0, blur: float = 1.5) -> list[I420]:
    """A smooth random texture that drifts, with sensor noise: something to code, something to lose."""
    random = np.random.default_rng(seed)
    texture = cv2.GaussianBlur(
        random.normal(0, 1, (height + count, width + 2 * count)).astype(np.float32), (0, 0), blur
    )
    texture = np.clip(128 + 30 * texture / texture.std(), 16, 235).astype(np.uint8)
    chroma = cv2.resize(texture, (width, height // 2)) // 2 + 64
    images = []
    for k in range(count):
        luma = texture[k : k + height, 2 * k : 2 * k + width] + random.integers(0, 3, (height, width), np.uint8)
        images.append(np.concatenate([luma, chroma]))
    return images


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return clips_data(tmp_path)


def clips_data(tmp_path: Path) -> Path:
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
            for image in moving(320, 288, 70, seed, blur=5):
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


def generous(source: Path, out: Path, stats: Path, bitrate: float, *others: Any, **options: Any) -> None:
    """The encoder at ten times the rate: the texture moves far more than a talking head."""
    ENCODE(source, out, stats, 10 * bitrate, *others, **options)


def prepared(data: Path, folder: Path, pictures: int = 7) -> pairs.Pairs:
    return pairs.load(pairs.prepare(permissive_clips(data, "train"), folder, generous, 2, 1.5, pictures=pictures))


def test_pairs_are_aligned_permissive_and_kept(data: Path, tmp_path: Path) -> None:
    found = prepared(data, tmp_path / "pairs")
    files = sorted((tmp_path / "pairs").glob("*.npz"))
    assert [file.name for file in files] == ["one-1.npz"]
    assert found.coded.shape == found.original.shape == (len(found.clip), 2, 192, 128)
    assert found.qp.shape == (len(found.clip), 2, 8, 8)
    assert found.face.shape == (len(found.clip), 8, 8)
    assert 0 < found.qp.min() <= found.qp.max() <= 51
    whole = ~found.concealed
    coded, true = (side[whole, :, :128].astype(int) for side in (found.coded, found.original))
    right = np.abs(coded - true).mean()
    assert 0.3 < right < 0.7 * np.abs(coded[..., 1:] - true[..., :-1]).mean()
    assert right < 0.8 * np.abs(coded[:, 0] - true[:, 1]).mean(), "the texture drifts: pictures are not mixed up"
    stamp = files[0].stat().st_mtime_ns
    prepared(data, tmp_path / "pairs")
    assert files[0].stat().st_mtime_ns == stamp
    assert len(prepared(data, tmp_path / "more", 14).clip) > 1.3 * len(found.clip)


def test_a_lost_access_unit_shows(data: Path, tmp_path: Path) -> None:
    """The picture before stands for it, and what follows is wrong until a keyframe."""
    (clip,) = permissive_clips(data, "train")
    out = tmp_path / "coded.mp4"
    ENCODE(clip.path, out, out.with_suffix(".jsonl"), 600e3, 0.0, 1.0, keyframe_interval=30.0)
    wanted = {9, 10, 11, 12}
    whole, lossy = (decoded(out, frozenset(wanted), lost) for lost in (None, 10))
    assert set(whole) == set(lossy) == wanted
    assert np.array_equal(whole[9][0], lossy[9][0])
    assert np.array_equal(lossy[10][0], lossy[9][0])
    assert not np.array_equal(lossy[11][0], whole[11][0])


def test_damaged_pairs_are_named(data: Path, tmp_path: Path) -> None:
    prepared(data, tmp_path / "pairs")
    file = tmp_path / "pairs" / "one-1.npz"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(SemcallError, match=r"one-1\.npz cannot be read"):
        pairs.load([file])


def test_no_data_is_said(tmp_path: Path) -> None:
    with pytest.raises(SemcallError, match=r"manifest\.tsv cannot be read; name the data directory"):
        permissive_clips(tmp_path / "nowhere", "train")


def test_unknown_recipe_entries_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.toml"
    path.write_text("epoch = 3\n")
    with pytest.raises(SemcallError, match="unknown entries: epoch\\."):
        read_recipe(path, RestorerRecipe)
    with pytest.raises(SemcallError, match="cannot be read"):
        read_recipe(tmp_path / "gone.toml", RestorerRecipe)


def test_batches_are_the_same_for_the_same_step(data: Path, tmp_path: Path) -> None:
    found = prepared(data, tmp_path / "pairs")
    batches, others = Batches(found, 1, 4, 64), Batches(found, 2, 4, 64)
    y, uv, true_y, true_uv, qp, face = batches.at(5)
    assert y.shape == true_y.shape == (8, 1, 64, 64)
    assert uv.shape == true_uv.shape == (8, 2, 32, 32)
    assert qp.shape == (8, 1, 4, 4)
    assert face.shape == (4, 1, 4, 4)
    assert torch.equal(y, batches.at(5)[0])
    assert not torch.equal(y, batches.at(6)[0])
    assert not torch.equal(y, others.at(5)[0])


def test_turned_crops_lie_on_any_side_and_all_of_a_crop_alike(data: Path, tmp_path: Path) -> None:
    found = prepared(data, tmp_path / "pairs")
    upright, turned = Batches(found, 1, 4, 64), Batches(found, 1, 4, 64, turned=True)
    ways = set()
    for step in range(12):
        for_each = zip(*(batches.at(step) for batches in (upright, turned)), strict=True)
        parts = [(one[:4], other[:4]) for one, other in for_each]
        for crop in range(4):
            alike = {
                (flips, order)
                for flips in ((), (1,), (2,), (1, 2))
                for order in ((0, 1, 2), (0, 2, 1))
                if all(torch.equal(torch.flip(one[crop], flips).permute(order), other[crop]) for one, other in parts)
            }
            assert alike, "the same crop, coded, original, quantisers and face"
            ways |= alike
    assert len(ways) == 4, "and mirrored as before"


def state(folder: Path, name: str = "pixels") -> dict[str, Any]:
    return dict(torch.load(folder / f"{name}.pt", weights_only=True))


def test_training_resumes_where_it_stopped(
    data: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted at step 9 and started again from the checkpoint of step 6, the result is the same to the bit."""
    monkeypatch.setattr(judge, "CODINGS", ((400, 15, False),))
    monkeypatch.setattr("models.training.restoration.train.export_restorer", lambda *_: None)
    train_restorer(recipe, data, tmp_path / "straight", ENCODE)
    one_step = Fit._one_step

    def interrupted(self: Fit, batch: Any) -> float:
        if self.step == 9:
            raise KeyboardInterrupt
        return one_step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Fit, "_one_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_restorer(recipe, data, tmp_path / "resumed", ENCODE)
    half = state(tmp_path / "resumed")
    assert half["step"] == 6
    train_restorer(recipe, data, tmp_path / "resumed", ENCODE)
    straight, resumed = state(tmp_path / "straight"), state(tmp_path / "resumed")
    assert straight["step"] == resumed["step"] == 12
    for name, value in straight["ema"].items():
        assert torch.equal(value, resumed["ema"][name])
    assert any(not torch.equal(value, half["ema"][name]) for name, value in straight["ema"].items())
    assert straight["watched"]["seen"] == resumed["watched"]["seen"]


def test_a_checkpoint_of_another_recipe_is_refused(data: Path, recipe: Path, tmp_path: Path) -> None:
    assert train_restorer(recipe, data, tmp_path / "out", ENCODE, minutes=1e-6) is None
    recipe.write_text(RECIPE + "seed = 9\n")
    with pytest.raises(SemcallError, match="belongs to another recipe"):
        train_restorer(recipe, data, tmp_path / "out", ENCODE, minutes=1e-6)
    (tmp_path / "out" / "pixels.pt").write_bytes(b"nothing")
    with pytest.raises(SemcallError, match="cannot be read"):
        train_restorer(recipe, data, tmp_path / "out", ENCODE, minutes=1e-6)


def test_it_learns_one_crop(data: Path, tmp_path: Path) -> None:
    """Overfitting: a third of the error of a crop that comes again and again is gone in a few seconds."""
    batch = Batches(prepared(data, tmp_path / "pairs"), 1, 2, 64).at(0)
    torch.manual_seed(0)
    objective = Objective(None, 1.0, 0.0)
    fit = Fit(
        "pixels", FastRestorer(24, 2), tmp_path, {}, lambda _: batch, objective, steps=300, rate=1e-2, ema=0.9,
        watched=objective, clip=None, checkpoint_every=1000,
    )  # fmt: skip
    fit.run(Console(quiet=True))
    net = fit.averaged()
    with torch.no_grad():
        restored, _ = net(batch[0], batch[1], batch[4])
    before, after = (float((y - batch[2]).pow(2).mean()) for y in (batch[0], restored))
    assert after < 0.67 * before


def test_a_discriminator_is_warmed_up_and_let_in_gently() -> None:
    torch.manual_seed(0)
    adversary = Adversary()
    original = torch.rand(2, 3, 32, 32)
    decoded = torch.nn.functional.avg_pool2d(original, 3, 1, 1)
    restored = decoded.clone().requires_grad_(True)
    strengths = []
    for _ in range(WARM_UP + 40):
        loss, strength = adversary(restored, decoded, original)
        strengths.append(strength)
    assert strengths[: WARM_UP + 1] == [0.0] * (WARM_UP + 1)
    assert 0 < strengths[-1] < 0.2
    assert adversary.loss < 0.6, "it tells a blurred picture from a sharp one"
    (pull,) = torch.autograd.grad(loss, restored)
    assert pull.abs().max() > 0
    assert all(parameter.grad is None or not parameter.requires_grad for parameter in adversary.net.parameters())
    again = Adversary()
    again.load_state_dict(copy.deepcopy(adversary.state_dict()))
    assert again(restored, decoded, original)[0].item() == adversary(restored, decoded, original)[0].item()


@pytest.mark.parametrize("deep", [0, 3])
def test_every_part_pulls(data: Path, tmp_path: Path, deep: int) -> None:
    """Gradients reach every parameter, and a part's pull has the strength that it was given."""
    batch = Batches(prepared(data, tmp_path / "pairs"), 1, 2, 64).at(0)
    torch.manual_seed(0)
    net = FastRestorer(24, 2, deep=deep)

    def gradient(part: str, strength: float) -> Any:
        net.zero_grad()
        strengths = {"steady": 0.0, "mesh": 0.0} | {part: strength}
        Objective(None, 1.0, **strengths)(net, batch).backward()
        assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in net.parameters())
        return torch.cat([parameter.grad.flatten() for parameter in net.parameters()])

    alone = gradient("steady", 0.0)
    for part in ("steady", "mesh"):
        quarter, half = (gradient(part, strength) - alone for strength in (0.25, 0.5))
        assert quarter.norm() > 0.01 * alone.norm()
        assert (half - 2 * quarter).norm() < 0.01 * half.norm()


def test_a_step_has_its_view_and_views_differ() -> None:
    """A view is of one place and way for all pictures, and no place of the eye's grid is left out."""
    picture = torch.arange(3 * 32 * 32).reshape(1, 3, 32, 32).float().requires_grad_(True)
    views = [view(step) for step in range(400)]
    assert views == [view(step) for step in range(400)]
    assert {(one.top, one.left) for one in views} == {(top, left) for top in range(8) for left in range(8)}
    assert {one.channels for one in views} == set(itertools.permutations(range(3)))
    for one in views[:40]:
        seen = one(picture)
        high, wide = (32 - one.left, 32 - one.top) if one.transposed else (32 - one.top, 32 - one.left)
        assert seen.shape == ((1, 3, high // 2, wide // 2) if one.halved else (1, 3, high, wide))
        (gradient,) = torch.autograd.grad(seen.sum(), picture)
        assert gradient.sum() == pytest.approx(3 * seen[0, 0].numel(), rel=1e-5)
    plain = View(0, 0, (), False, (0, 1, 2), False)
    assert torch.equal(plain(picture), picture)
    turned = View(2, 0, (3,), True, (2, 1, 0), False)(picture)
    assert torch.equal(turned, picture[:, [2, 1, 0], 2:].flip(3).transpose(2, 3))


def test_a_dead_layer_is_reported(data: Path, tmp_path: Path) -> None:
    batch = Batches(prepared(data, tmp_path / "pairs"), 1, 2, 64).at(0)
    net = FastRestorer(24, 2)
    with torch.no_grad():
        net.body[1].weight.zero_()  # type: ignore[union-attr,operator]
    with pytest.raises(SemcallError, match=r"Every unit of layer body\.1 died"):
        check_units(net, batch, Console(quiet=True))


def test_a_dead_or_broken_layer_of_the_papers_network_is_reported(data: Path, tmp_path: Path) -> None:
    batch = Batches(prepared(data, tmp_path / "pairs"), 1, 2, 64).at(0)
    net = network(PAPER)
    console = Console(record=True, width=80, file=io.StringIO())
    check_units(net, batch, console)
    assert "live units: 100%" in console.export_text()
    layer = net.net.body[0].first
    with torch.no_grad():
        layer.weight.zero_()
        with pytest.raises(SemcallError, match=r"Every unit of layer net\.body\.0\.first died"):
            check_units(net, batch, console)
        layer.bias.fill_(float("nan"))
    with pytest.raises(SemcallError, match=r"Layer net\.body\.0\.first gives values that are not finite"):
        check_units(net, batch, console)


def test_quantised_gradients_leak() -> None:
    x = torch.tensor([-9.0, 0.51, 9.0], requires_grad=True)
    y = quantise(x)
    assert y.tolist() == [-2.0, 0.5, (255 - 64) / 32]
    y.sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, torch.tensor([0.1, 1.0, 0.1]))


def trained_like(**sizes: Any) -> FastRestorer:
    """A network with a residual of several code values, as if trained."""
    torch.manual_seed(3)
    net = FastRestorer(**sizes)
    with torch.no_grad():
        net.exit.weight.mul_(100)
        for module in net.modules():
            if isinstance(module, QuantConv):
                module.bias_or_zero().uniform_(-0.1, 0.1)
    return net.eval()


@pytest.mark.parametrize(("width", "height"), [(176, 144), (718, 404), (362, 402), (34, 18), (2, 2)])
@pytest.mark.parametrize(
    "sizes",
    [
        {"depth": 2, "chroma": False},
        {"depth": 4},
        {"channels": 24, "depth": 3, "quantisers": False},
        {"channels": 24, "depth": 1, "deep": 3, "quantisers": False},
    ],
    ids=["luma", "planes", "without quantisers", "deep"],
)
def test_the_graph_computes_what_was_trained(tmp_path: Path, width: int, height: int, sizes: dict[str, Any]) -> None:
    net = trained_like(**sizes)
    path = export.write(net, "tiny", tmp_path, {})
    (i420,) = moving(width, height, 1)
    i420[height:] = np.random.default_rng(2).integers(90, 160, i420[height:].shape, np.uint8)
    qp = np.random.default_rng(1).integers(20, 46, grid_shape(width, height), np.uint8)
    y, uv = planes(i420)
    with torch.no_grad():
        expected = net(*(torch.from_numpy(np.array(part, np.float32))[None] for part in (y[None], uv, qp[None])))
    restored = Restorer(path).restore(i420, qp)
    for plane, found, wanted in zip((y, uv), planes(restored), expected, strict=True):
        code = wanted[0].numpy().reshape(plane.shape).astype(int)
        assert np.abs(found.astype(int) - code).max() <= 1
    if width > 2:
        assert np.abs(planes(restored)[0].astype(int) - y).mean() > 0.2
    if width > 2 or not sizes.get("chroma", True):
        assert np.array_equal(planes(restored)[1], uv) == (not sizes.get("chroma", True))


def test_train_restorer_exports_judges_and_writes_a_card(
    data: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.training.restoration.judge.SECONDS", 1.0)
    path = train_restorer(recipe, data, tmp_path / "out", ENCODE)
    assert path == tmp_path / "out" / "tiny.onnx"
    card = json.loads(path.with_suffix(".json").read_text())
    assert find_model(str(path)).card == card
    assert list(card["training_data"]["clips"]) == ["one-1"]
    results = card["metrics"]["results"]
    assert [(one["clip"], one["kbps"], one["share"], one["lost"]) for one in results] == [
        ("three-1", *coding) for coding in judge.CODINGS
    ]
    whole, lossy = results[0], results[-1]
    assert whole["frame"]["psnr"][0] > lossy["frame"]["psnr"][0] + 0.5, "the loss does not show"
    assert 20 < results[0]["frame"]["psnr"][0] < 60
    i420 = moving(64, 48, 1)[0]
    assert Restorer(path).restore(i420, np.full((3, 4), 30, np.uint8)).shape == (72, 64)

    monkeypatch.setattr("models.training.restoration.export.judge", lambda *_: [])
    recipe.write_text(
        recipe.read_text().replace("pixel_steps = 12", f'pixel_steps = 1\nstart = "{path}"\nrate = 1e-9')
    )
    further = train_restorer(recipe, data, tmp_path / "further", ENCODE)
    assert further is not None
    begun = json.loads(further.with_suffix(".json").read_text())["start"]
    assert (begun["sha256"], begun["training"]) == (card["sha256"], card["training"])
    for before, after in zip(
        *(planes(Restorer(one).restore(i420, np.full((3, 4), 40, np.uint8))) for one in (path, further)), strict=True
    ):
        assert np.abs(before.astype(int) - after).max() <= 1


def test_a_card_says_what_brisque_the_original_has(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of faces where there are any, of frames in any case, and of neither where it cannot be told."""
    monkeypatch.setattr(judge, "SECONDS", 1.0)
    (clip,) = permissive_clips(data, "val")
    coded = judge._coded(clip, 400, 15, tmp_path, ENCODE)
    masks = read_masks(stats_path(coded))
    originals = dict(Clip(clip.path).pictures({4, 9}))

    def said(brisque: Any, box: Any) -> dict[str, Any]:
        monkeypatch.setattr(judge, "face_box", lambda *_: box)
        return judge._brisque_of_originals(originals, masks, Metrics({}, {}, brisque, None, None))

    height = Clip(clip.path).size[1]
    assert said(None, None) == {}
    assert said(lambda bgr: float(len(bgr)), (0, 8, 16, 20)) == {"brisque_original": [12, height]}
    assert said(lambda bgr: float(len(bgr)), None) == {"brisque_original": [None, height]}
    assert said(lambda _: float("nan"), None) == {"brisque_original": [None, None]}


def test_side_effects_are_seen() -> None:
    """Of what changes nothing; of what shifts a colour, prints a mesh and changes what was coded finely."""
    (i420,) = moving(192, 128, 1, blur=3)
    qp = np.full(grid_shape(192, 128), 36, np.uint8)
    qp[:2] = FINE_QP

    def wrong(decoded: I420, _: Any) -> I420:
        changed = decoded.copy()
        luma, chroma = planes(changed)
        luma[:, ::8] += 16
        chroma[1] -= 2
        return changed

    nothing = side_effects([(i420, qp, i420)], lambda decoded, _: decoded.copy())
    assert (nothing["colour_shift"], nothing["fine_psnr"]) == (0, None)
    found = side_effects([(i420, qp, i420)], wrong)
    assert found["colour_shift"] == 2
    assert (nothing["colour_error"], found["colour_error"]) == ([0, 0], [0, 2])
    assert found["fine_psnr"] == pytest.approx(10 * np.log10(255**2 / (16**2 / 8)), abs=0.01)
    for name in ("mesh_2", "mesh_4", "mesh_8"):
        assert isinstance(found[name], list)
        source, decoded, restored = found[name]
        assert source == decoded
        assert restored > 5 * source
        assert nothing[name] == [source] * 3


@pytest.mark.parametrize(
    ("sizes", "more"),
    [
        ({"depth": 3}, {"deep": 3}),
        ({"depth": 2}, {"depth": 6}),
        ({"channels": 24, "depth": 1, "deep": 3}, {}),
        ({"channels": 24, "depth": 2, "deep": 1}, {"depth": 4}),
    ],
)
def test_training_goes_on_from_an_export(tmp_path: Path, sizes: dict[str, Any], more: dict[str, Any]) -> None:
    """Of one alike, and of one without the branch or the later blocks, which add nothing at first and learn then."""
    sizes["quantisers"] = False
    net = trained_like(**sizes)
    path = export.write(net, "tiny", tmp_path, {})
    again = [FastRestorer(**sizes), *([FastRestorer(**{**sizes, **more})] if more else [])]
    (i420,) = moving(192, 128, 1)
    y, uv = (torch.from_numpy(np.array(part, np.float32))[None] for part in planes(i420))
    qp = torch.full((1, 1, 8, 12), 38.0)
    before = net.residual(y[None], uv, qp)
    assert before[0].abs().max() > 2
    for other in again:
        load_restorer(other, path)
        after = other.residual(y[None], uv, qp)
        assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))
    if more:
        after[0].square().sum().backward()
        last = again[1].body[-1] if "depth" in more else again[1].deep.exit  # type: ignore[union-attr]
        assert last.weight.grad.abs().max() > 0  # type: ignore[union-attr]


def test_a_start_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    path = export.write(trained_like(depth=4), "tiny", tmp_path, {})
    net = FastRestorer(depth=2)
    kept = copy.deepcopy(net.state_dict())
    for wrong, why in (
        (tmp_path / "none.onnx", "No such file"),
        (tmp_path / "text.onnx", ""),
        (path, "other layers"),
    ):
        with pytest.raises(
            SemcallError, match=rf"{wrong} is no export of this restorer's network \(.*{why}.*set `st"
        ):
            load_restorer(net, wrong)
    with pytest.raises(SemcallError, match=r"body0 has weights \[32, 32, 3, 3\], not \[24, 24, 3, 3\]"):
        load_restorer(FastRestorer(24, 4), path)
    for depth in (5, 3):  # a block of one convolution is not where it was in a longer body
        with pytest.raises(SemcallError, match="other layers"):
            load_restorer(FastRestorer(depth=depth), path)
    assert all(torch.equal(value, kept[name]) for name, value in net.state_dict().items())


def test_a_deep_branch_sees_further() -> None:
    """How far a sample looks: 3x3 features at each convolution, 3x3 pairs of them at half the resolution."""
    reaches = []
    for sizes in ({"depth": 2}, {"depth": 1, "deep": 1}):
        net = trained_like(channels=24, quantisers=False, **sizes)
        y, uv, qp = (
            torch.full((1, 1, 128, 128), 120.0),
            torch.full((1, 2, 64, 64), 128.0),
            torch.full((1, 1, 8, 8), 38.0),
        )
        y.requires_grad_(True)
        net.residual(y, uv, qp)[0][0, 0, 64, 64].backward()
        assert y.grad is not None
        rows = torch.nonzero(y.grad[0, 0].abs().sum(1))
        reaches.append(int(rows.max() - rows.min()) + 1)
    assert reaches == [4 * (1 + 2 * 3), 4 * 2 * (1 + 2 * 2)]


def test_a_strength_scales_what_is_added() -> None:
    torch.manual_seed(0)
    net = FastRestorer(24, 2)
    with torch.no_grad():
        net.exit.weight.mul_(100)  # fresh, it adds next to nothing
    y, uv, qp = torch.rand(1, 1, 32, 32) * 255, torch.rand(1, 2, 16, 16) * 255, torch.full((1, 1, 2, 2), 38.0)
    before = net.residual(y.round(), uv.round(), qp)
    strengthen(net, 0.5, 0.25)
    after = net.residual(y.round(), uv.round(), qp)
    for one, other, by in zip(before, after, (0.5, 0.25), strict=True):
        assert one.abs().max() > 4
        assert (other - by * one).abs().max() <= one.abs().max() / 20


def test_recipes_in_the_repository_are_valid() -> None:
    configs = Path(__file__).parent.parent / "configs"
    recipes = [*sorted(configs.rglob("restorer-*.toml")), configs / "paper.toml"]
    assert len(recipes) > 15
    for path in recipes:
        recipe = read_recipe(path, RestorerRecipe)
        assert recipe.crop <= recipe.stored
        assert (recipe.network == "paper") == (path.name == "paper.toml")


def test_the_paper_recipe_is_the_papers() -> None:
    recipe = read_recipe(Path(__file__).parent.parent / "configs" / "paper.toml", RestorerRecipe)
    assert (recipe.batch, recipe.crop, recipe.epochs, recipe.halve_epochs) == (8, 256, 40, 10)
    assert (recipe.adversarial_rate, recipe.momentum) == (1e-4, 0.9)
    assert sum(parameter.numel() for parameter in network(recipe).parameters()) == 1_185_219  # 1.19 M
    assert discriminator(recipe).size == 256
    assert (recipe.features, recipe.background, recipe.face) == (False, 1, 1)


def write_recipe(path: Path, recipe: RestorerRecipe) -> Path:
    path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in asdict(recipe).items()
                            if value != getattr(RestorerRecipe(), name)))  # fmt: skip
    return path


def test_the_papers_network_trains_and_exports(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its whole recipe, tiny: epochs, halvings, the discriminator, both ways to a model file, the contact sheet."""
    monkeypatch.setattr(eyes, "SqueezeNet", Eye)
    monkeypatch.setattr(judge, "SECONDS", 1.0)
    monkeypatch.setattr(export_rgb, "_TIMED_AT", (64, 48))
    (data / "weights").mkdir()
    torch.save({}, data / "weights" / SQUEEZENET)
    out = tmp_path / "out"
    path = train_restorer(write_recipe(tmp_path / "paper.toml", PAPER), data, out, ENCODE)
    assert path == out / "tiny.onnx"
    saved = state(out, "adversarial")
    epoch = len(pairs.load([out / "pairs" / "one-1.npz"], 64).clip) // 2
    assert saved["step"] == saved["about"]["adversarial_steps"] == 3 * epoch > 3
    assert saved["optimiser"]["param_groups"][0]["lr"] == pytest.approx(1e-3 / 4)
    rival = saved["watched"]["adversary"]
    assert rival["calls"] == 3 * epoch
    assert rival["optimiser"]["param_groups"][0]["lr"] == pytest.approx(1e-3 / 4)
    torch.manual_seed(PAPER.seed)
    fresh = network(PAPER).state_dict()
    assert all(not torch.equal(value, fresh[name]) for name, value in saved["net"].items())
    card = json.loads(path.with_suffix(".json").read_text())
    assert find_model(str(path)).card == card
    assert card["training"]["recipe"]["network"] == "paper"
    assert list(card["training_data"]["clips"]) == ["one-1"]
    assert {one["clip"] for one in card["metrics"]["results"]} == {"three-1"}
    again = export_checkpoint(ExportOptions(out / "adversarial.pt", tmp_path / "models", int8=False))
    i420, qp = moving(64, 48, 1)[0], np.full((3, 4), 30, np.uint8)
    assert np.array_equal(Restorer(again.path).restore(i420, qp), Restorer(path).restore(i420, qp))
    sheet = cv2.imread(str(out / f"adversarial-{3 * epoch:06}.png"))
    assert sheet.shape == (6 * 64, 4 * 64, 3)


@pytest.mark.parametrize(
    "which", ["features", "pixel", "steady", "mesh", "perceptual", "background", "face", "adversarial"]
)
def test_gradients_of_every_loss_reach_the_papers_network(data: Path, tmp_path: Path, which: str) -> None:
    """Alone, or, of those that are parts of something else, by what they change."""
    batch = list(Batches(prepared(data, tmp_path / "pairs"), 1, 2, 64).at(0))
    batch[-1][:, :, :2] = 1  # a face, and something that is none
    batch[-1][:, :, 2:] = 0
    torch.save({}, tmp_path / "eye.pth")
    eye = Eye(tmp_path / "eye.pth")
    losses = {
        "perceptual": lambda seen: perceptual(eye, seen.restored, seen.original),
        "background": lambda seen: background_loss(eye, seen.restored, seen.original, seen.face),
        "face": lambda seen: face_loss(eye, seen.restored, seen.original, seen.face),
    }
    torch.manual_seed(0)
    net, adversary = network(PAPER), Adversary(net=discriminator(PAPER))
    adversary._calls = WARM_UP + 300

    def gradients(*wanted: str) -> list[Any]:
        net.zero_grad()
        objective = Objective(
            eye if "features" in wanted else None,
            float("pixel" in wanted),
            float("steady" in wanted),
            {name: (1.0, loss) for name, loss in losses.items() if name in wanted},
            (1.0, adversary) if "adversarial" in wanted else None,
            float("mesh" in wanted),
        )
        objective(net, tuple(batch)).backward()
        return [parameter.grad.clone() for parameter in net.parameters()]

    alone = which in ("features", *losses)
    found = gradients(which) if alone else gradients("features", which)
    before = [torch.zeros_like(one) for one in found] if alone else gradients("features")
    assert all((one - other).abs().max() > 0 for one, other in zip(found, before, strict=True))
    if which == "adversarial":
        assert adversary.loss == pytest.approx(np.log(2), abs=0.3), "it has just begun"


def test_an_adversarial_round_resumes_to_the_bit(data: Path, tmp_path: Path) -> None:
    batches = Batches(prepared(data, tmp_path / "pairs"), 1, 2, 64)
    torch.save({}, tmp_path / "eye.pth")

    def fit(folder: Path) -> Fit:
        torch.manual_seed(0)
        net, rival = network(PAPER), Adversary(net=discriminator(PAPER), momentum=0.9, halve=(3, 2))
        objective = Objective(Eye(tmp_path / "eye.pth"), 0.5, 0.2, adversary=(1.0, rival))
        return Fit("a", net, folder, {}, batches.at, objective, steps=6, rate=1e-3, ema=0.9, watched=objective,
                   momentum=0.9, halve=(3, 2))  # fmt: skip

    assert fit(tmp_path / "straight").run(Console(quiet=True))
    assert not fit(tmp_path / "stopped").run(Console(quiet=True), minutes=0)
    again = fit(tmp_path / "stopped")
    assert again.step == 1
    assert again.run(Console(quiet=True))
    straight, resumed = state(tmp_path / "straight", "a"), state(tmp_path / "stopped", "a")
    for part in ("net", "ema"):
        assert all(torch.equal(value, resumed[part][name]) for name, value in straight[part].items())
    rivals = [found["watched"]["adversary"]["net"] for found in (straight, resumed)]
    assert all(torch.equal(value, rivals[1][name]) for name, value in rivals[0].items())


def test_unfit_sizes_and_networks_are_refused(data: Path, tmp_path: Path) -> None:
    def begin(**change: Any) -> None:
        next(rounds(replace(PAPER, epochs=0, pixel_steps=2, **change), data, tmp_path, ENCODE, Console(quiet=True)))

    for change in ({"crop": 72}, {"crop": 80}, {"stored": 72}):
        with pytest.raises(SemcallError, match=r"crop = \d+, stored = \d+: both must be multiples of 16"):
            begin(**change)
    with pytest.raises(SemcallError, match="There is no network 'unet'; choose fast or paper"):
        begin(network="unet")
    with pytest.raises(SemcallError, match="leave them out of the recipe"):
        begin(luma_strength=1.2)
    with pytest.raises(SemcallError, match=r"start = 'a.onnx' is of the fast family: leave it out"):
        begin(start="a.onnx")
    with pytest.raises(SemcallError, match=r"channels = 8: the fast family has 16 or more"):
        begin(network="fast")
    with pytest.raises(SemcallError, match=r"crop = 32: feature networks look at 48 samples or more"):
        begin(crop=32, feature_steps=1)
    with pytest.raises(SemcallError, match=r"A model cannot be called 'off'"):
        begin(name="off")
    for change in ({"deep": 2}, {"network": "fast", "channels": 24, "deep": -1}):
        with pytest.raises(SemcallError, match=r"deep = -?\d: a number of convolutions, 0 or more"):
            begin(**change)
    assert not (tmp_path / "pairs").exists(), "nothing of the above has waited for pairs"
    begin()
    with pytest.raises(SemcallError, match=r"pairs have crop = 64: use another output directory"):
        begin(stored=128)


def test_a_sheet_shows_what_changes(data: Path, tmp_path: Path) -> None:
    """Decoded, restored, original, and eight times the change on grey, of the same crops each time."""

    class Brighter(torch.nn.Module):
        def __init__(self, by: float) -> None:
            super().__init__()
            self.by = by

        def residual(self, y: Any, uv: Any, qp: Any) -> Any:
            return torch.full_like(y, self.by), torch.zeros_like(uv)

    found = prepared(data, tmp_path / "pairs")
    drawn = []
    for by in (0, 5):
        Sheet(found, 3).draw(Brighter(by), tmp_path / f"{by}.png")
        sheet = cv2.imread(str(tmp_path / f"{by}.png"))
        assert sheet.shape == (6 * 128, 4 * 128, 3)
        drawn.append(np.split(sheet.astype(int), 4, 1))
    still, moved = drawn
    assert np.array_equal(still[0], still[1])
    assert (still[3] == 128).all()
    for column in (0, 2):
        assert np.array_equal(still[column], moved[column])
    assert 0.5 < np.abs(still[0] - still[2]).mean() < 30, "the original is another picture, of the same place"
    assert np.median(moved[1] - moved[0]) == 6  # 5 code values of 219
    assert np.median(moved[3]) == 128 + 8 * 6
    with pytest.raises(SemcallError, match="Cannot write"):
        Sheet(found, 3).draw(Brighter(0), tmp_path / "nowhere" / "sheet.png")
