"""What a restorer's training run looks for first, remembers, binds and tells."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from rich.console import Console

from models.training.manifest import permissive_clips
from shared.astronaut import photograph
from shared.clips import Clip
from shared.errors import SemcallError
from shared.grid import grid_shape
from shared.picture import I420, planes
from shared.restorer import Restorer

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("onnx", reason="needs the train extra")

from test_moving import Finder  # noqa: E402
from test_training import ENCODE, RECIPE, Eye, clips_data, moving, prepared  # noqa: E402

from models.networks.restorer import FastRestorer  # noqa: E402
from models.training.checkpoints import ExportOptions, export_checkpoint  # noqa: E402
from models.training.fit import launched  # noqa: E402
from models.training.recipe import read_recipe  # noqa: E402
from models.training.restoration import codings, eyes, judge, looks, pairs, train  # noqa: E402
from models.training.restoration import moving as moves  # noqa: E402
from models.training.restoration.batches import Batches  # noqa: E402
from models.training.restoration.cuts import write_cut  # noqa: E402
from models.training.restoration.eyes import open_eyes  # noqa: E402
from models.training.restoration.objective import Objective  # noqa: E402
from models.training.restoration.recipe import RestorerRecipe  # noqa: E402
from models.training.restoration.train import rounds, train_restorer  # noqa: E402
from models.training.restoration.units import check_units  # noqa: E402

QUIET = Console(quiet=True)
TINY = RestorerRecipe(
    "tiny", channels=24, depth=1, pixel_steps=2, feature_steps=0, batch=2, crop=64, codings=1, seconds=1.0
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return clips_data(tmp_path)


def with_portraits(root: Path) -> Path:
    (root / "images" / "faces").mkdir(parents=True)
    cv2.imwrite(str(root / "images" / "faces" / "some.png"), photograph())
    (root / "images" / "manifest.tsv").write_text("path\torigin\tfaces\tlicence\nfaces/some.png\tme/mine\t1\tMIT\n")
    return root


def begin(data: Path, out: Path, **change: Any) -> Any:
    return next(rounds(replace(TINY, **change), data, out, ENCODE, QUIET))


def test_what_is_missing_is_said_before_the_pairs_are_made(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SemcallError, match=r"images.manifest\.tsv cannot be read; name the data directory"):
        begin(data, tmp_path, portraits=1)
    with_portraits(data)
    with pytest.raises(SemcallError, match=r"The reference detector .* is missing"):
        begin(data, tmp_path, portraits=1)
    with pytest.raises(SemcallError, match=r"features = false leaves nothing to look through"):
        begin(data, tmp_path, feature_steps=1, features=False)
    with pytest.raises(SemcallError, match=r"mobilefacenet_112\.onnx cannot be read"):
        begin(data, tmp_path, face=0.5, feature_steps=1, features=False)
    (data / "images" / "manifest.tsv").write_text("path\torigin\tfaces\tlicence\nfaces/a.png\tme/mine\t7\tMIT\n")
    with pytest.raises(SemcallError, match="has no permissive portrait"):
        begin(data, tmp_path, portraits=1)
    for broken in ("path\torigin\tfaces\tlicence\nfaces/a.png\tme/mine\t\tMIT\n", "path\nfaces/a.png\n"):
        (data / "images" / "manifest.tsv").write_text(broken)
        with pytest.raises(SemcallError, match=r"manifest\.tsv is no list of stills"):
            begin(data, tmp_path, portraits=1)
    manifest = data / "clips" / "manifest.tsv"
    manifest.write_text(manifest.read_text().replace("\tval\t", "\ttrain\t"))
    with pytest.raises(SemcallError, match="no permissive clip of split val"):
        begin(data, tmp_path)
    assert not (tmp_path / "pairs").exists()


def test_pairs_that_cannot_be_written_are_said(data: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs").write_text("in the way")
    with pytest.raises(SemcallError, match=r"Cannot write to .*pairs \(.+\); choose another --out"):
        begin(data, tmp_path)


def test_every_loss_can_be_switched_off(tmp_path: Path) -> None:
    config = tmp_path / "bare.toml"
    config.write_text("pixel = 0.0\nsteady = 0.0\nadversarial = 0.0\n")
    recipe = read_recipe(config, RestorerRecipe)
    assert (recipe.pixel, recipe.steady, recipe.adversarial) == (0, 0, 0)
    config.write_text("rate = 0.0\n")
    with pytest.raises(SemcallError, match=r"rate = 0\.0 is out of range"):
        read_recipe(config, RestorerRecipe)


def test_rounds_follow_each_other_and_resume_to_the_bit(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each begins with the averaged weights of the one before; an interruption in the first changes nothing."""
    torch.save({}, tmp_path / "eye.pth")
    monkeypatch.setattr(train, "open_eyes", lambda *_: eyes.Eyes(Eye(tmp_path / "eye.pth")))
    said = Console(record=True, quiet=False, file=io.StringIO(), width=200)
    recipe = replace(TINY, pixel_steps=3, feature_steps=2, adversarial_steps=2, mesh=0.3, checkpoint_every=1)

    def run(folder: Path) -> None:
        before = None
        for fit in rounds(recipe, data, folder, ENCODE, said):
            begun = {name: value.clone() for name, value in fit.net.state_dict().items()}
            if before is not None:
                assert begun.keys() == before.keys()
                assert all(torch.equal(value, begun[name]) for name, value in before.items())
            if fit.name == "adversarial":
                fit._watched.seen["discriminator"] = 0.01
            assert fit.run(QUIET)
            before = fit.averaged().state_dict()

    run(tmp_path / "straight")
    assert "The discriminator wins: lower `adversarial`" in said.export_text()
    stopped = next(rounds(recipe, data, tmp_path / "stopped", ENCODE, QUIET))
    assert not stopped.run(QUIET, minutes=0)
    run(tmp_path / "stopped")
    one, other = (torch.load(tmp_path / name / "adversarial.pt") for name in ("straight", "stopped"))
    for part in ("net", "ema"):
        assert all(torch.equal(value, other[part][name]) for name, value in one[part].items())
    rivals = [found["watched"]["adversary"]["net"] for found in (one, other)]
    assert all(torch.equal(value, rivals[1][name]) for name, value in rivals[0].items())


def test_without_its_part_there_is_no_discriminator(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({}, tmp_path / "eye.pth")
    monkeypatch.setattr(train, "open_eyes", lambda *_: eyes.Eyes(Eye(tmp_path / "eye.pth")))
    fit = begin(data, tmp_path, pixel_steps=0, adversarial_steps=1, adversarial=0.0)
    assert fit.run(QUIET)
    assert torch.load(tmp_path / "adversarial.pt")["watched"]["adversary"] is None


def test_a_run_with_portraits(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From recipe to card; it goes on with the same recipe only, and with the same file that it started from."""
    monkeypatch.setattr(moves, "ReferenceDetector", Finder)
    monkeypatch.setattr(train, "ReferenceDetector", Finder)
    monkeypatch.setattr(train, "_PORTRAIT_SECONDS", 0.4)
    monkeypatch.setattr(judge, "SECONDS", 1.0)
    monkeypatch.setattr(judge, "CODINGS", ((400, 15, False),))
    config = tmp_path / "tiny.toml"
    config.write_text(RECIPE + "portraits = 1\ncuts = 1\nluma_strength = 1.5\nchroma_strength = 0.5\n")
    out = tmp_path / "out"
    path = train_restorer(config, with_portraits(data), out, ENCODE)
    assert path is not None
    card = json.loads(path.with_suffix(".json").read_text())
    assert len(card["metrics"]["results"]) == 1
    assert card["training_data"]["portraits"] == {"MIT, me/mine": ["some"]}
    assert card["training_data"]["clips"] == {"one-1": "MIT, "}
    assert "portraits under MIT or Apache-2.0" in card["training_data"]["source"]
    assert (out / "pairs" / "portraits" / "some.npz").exists()

    exported = export_checkpoint(ExportOptions(out / "pixels.pt", tmp_path / "models", int8=False))
    again = json.loads(exported.path.with_suffix(".json").read_text())
    assert again["training_data"] == card["training_data"]
    assert (again["licence"], again["strengths"]) == (card["licence"], [1.5, 0.5])
    i420, qp = moving(64, 48, 1)[0], np.full((3, 4), 40, np.uint8)
    assert np.array_equal(Restorer(exported.path).restore(i420, qp), Restorer(path).restore(i420, qp))

    monkeypatch.setattr("models.training.restoration.train.export_restorer", lambda *_: None)
    for change in ("portraits = 1", "cuts = 1"):
        config.write_text(RECIPE + "portraits = 1\ncuts = 1\n".replace(change, change.replace("1", "2")))
        with pytest.raises(SemcallError, match="use another output directory"):
            train_restorer(config, data, out, ENCODE)
    config.write_text(RECIPE + f'start = "{path}"\n')
    begun = tmp_path / "begun"
    assert train_restorer(config, data, begun, ENCODE, minutes=1e-6) is None
    path.write_bytes(exported.path.read_bytes())
    other = export_checkpoint(ExportOptions(begun / "pixels.pt", tmp_path / "others", int8=False))
    path.write_bytes(other.path.read_bytes())
    with pytest.raises(SemcallError, match="belongs to another recipe"):
        train_restorer(config, data, begun, ENCODE)


def test_minutes_begin_with_the_training(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    prepare = train.prepare

    def slow(*arguments: Any, **named: Any) -> Any:
        now[0] += 3600
        return prepare(*arguments, **named)

    monkeypatch.setattr(train, "prepare", slow)
    monkeypatch.setattr(train, "export_restorer", lambda *_: Path("there"))
    monkeypatch.setattr(train, "time", SimpleNamespace(monotonic=lambda: now[0]))
    (tmp_path / "tiny.toml").write_text(RECIPE)
    assert train_restorer(tmp_path / "tiny.toml", data, tmp_path / "out", ENCODE, minutes=30) is not None
    assert now == [3600]


def test_pairs_made_otherwise_are_refused(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    prepared(data, folder)
    with pytest.raises(SemcallError, match=r"pairs have pictures = 7: use another output directory"):
        prepared(data, folder, 9)
    made = json.loads((folder / "made.json").read_text())
    (clip,) = permissive_clips(data, "train")
    with pytest.raises(SemcallError, match=r"pairs have looks = False"):
        pairs.prepare([clip], folder, ENCODE, made["codings"], made["seconds"], looks=True)
    del made["looks"]  # as before there were looks
    (folder / "made.json").write_text(json.dumps(made))
    prepared(data, folder)
    with pytest.raises(SemcallError, match=r"pairs have looks = False"):
        pairs.prepare([clip], folder, ENCODE, made["codings"], made["seconds"], looks=True)
    (folder / "made.json").write_text("{")
    with pytest.raises(SemcallError, match=r"made\.json cannot be read"):
        prepared(data, folder)


def test_a_clip_of_two_pictures_is_named(data: Path, tmp_path: Path) -> None:
    (clip,) = permissive_clips(data, "train")
    with pytest.raises(SemcallError, match=r"one-1\.mp4 gives no crop: it is too short or too small"):
        pairs.prepare([clip], tmp_path, ENCODE, 1, 2 / 30)


def test_a_cut_is_half_one_clip_and_half_another(data: Path, tmp_path: Path) -> None:
    one, other = data / "clips" / "train" / "one-1.mp4", data / "clips" / "val" / "three-1.mp4"
    out = tmp_path / "cut.mp4"
    write_cut(one, other, out, 1.0)
    found = [i420 for i420, _ in Clip(out)]
    first, second = (list(dict(Clip(path).pictures(set(range(15)))).values()) for path in (one, other))
    assert len(found) == 30
    assert all(np.array_equal(a, b) for a, b in zip(found, first + second, strict=True))


def test_cuts_are_of_other_people(data: Path, tmp_path: Path) -> None:
    """With nobody else there is nothing to cut to; with somebody there are more crops."""
    (clip,) = permissive_clips(data, "train")
    (other,) = permissive_clips(data, "val")
    alone = pairs.load(pairs.prepare([clip], tmp_path / "alone", ENCODE, 1, 1.0, cuts=2))
    both = pairs.load(pairs.prepare([clip, other], tmp_path / "both", ENCODE, 1, 1.0, cuts=2))
    assert both.clip.count("one-1") > 2 * len(alone.clip)
    same = replace(other, identity=clip.identity)
    assert pairs._somebody_else([clip, same], 0) is None
    assert pairs._somebody_else([clip, other], 1) == clip.path


def test_each_coding_is_of_another_look(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told apart by colour: the looks have none, cuts keep theirs."""
    monkeypatch.setattr(looks, "_COLOUR", (0.0, 0.0))
    monkeypatch.setattr(looks, "_WHITE", 0.0)
    written: list[tuple[Path, float]] = []

    def noting(clip: Path, out: Path, seconds: float, chance: np.random.Generator) -> None:
        written.append((clip, seconds))
        looks.write_look(clip, out, seconds, chance)

    monkeypatch.setattr(codings, "write_look", noting)
    (clip,) = permissive_clips(data, "train")
    (other,) = permissive_clips(data, "val")
    found = pairs.load(pairs.prepare([clip, other], tmp_path / "looks", ENCODE, 2, 0.5, cuts=1, looks=True))
    assert written == [(clip.path, 0.5)] * 2 + [(other.path, 0.5)] * 2
    grey = [bool((crop[:, 128:] == 128).all()) for crop in found.original]
    assert 0 < grey.count(False) < grey.count(True)
    error = np.abs(found.coded[grey].astype(int) - found.original[grey])[:, :, :128].mean()
    assert 0.2 < error < 25, "what is coded is the look"


def test_a_recipe_says_looks_and_relative_and_is_bound_to_them(data: Path, tmp_path: Path) -> None:
    fit = begin(data, tmp_path, looks=True, relative=True)
    assert json.loads((tmp_path / "pairs" / "made.json").read_text())["looks"] is True
    assert (fit.about["looks"], fit.about["relative"]) == (True, True)
    with pytest.raises(SemcallError, match=r"relative = true is of SqueezeNet's features"):
        begin(data, tmp_path, relative=True, features=False, perceptual=1.0, feature_steps=1)
    objective = train._objective("features", replace(TINY, relative=True), eyes.Eyes(), None, None, None)  # type: ignore[arg-type]
    assert objective._relative


class Told(torch.nn.Module):
    """Adds to luma `much` of its macroblocks' quantisers, however a picture lies, and what grows to the right."""

    def __init__(self, much: float, slope: float = 0.0) -> None:
        super().__init__()
        self.much, self.slope = torch.nn.Parameter(torch.tensor(much)), slope

    def residual(self, y: torch.Tensor, uv: torch.Tensor, qp: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        told = qp.repeat_interleave(16, 2).repeat_interleave(16, 3)
        return self.much * told + self.slope * torch.arange(y.shape[3]), torch.zeros_like(uv)


def test_a_teacher_is_asked_of_all_eight_ways_a_crop_can_lie(data: Path, tmp_path: Path) -> None:
    """What says the same of all is agreed with or not; of what leans to one side the mean is left."""
    batch = Batches(prepared(data, tmp_path / "pairs"), 1, 2, 64).at(0)
    for much in (1.0, 2.0):
        objective = Objective(None, 0.0, 0.0, teacher=(1.0, Told(1.0)))
        for _ in range(8):
            objective.seen.clear()
            objective(Told(much), batch)
            wrong = float(batch[4].square().mean()) * (much - 1) ** 2
            assert objective.seen["teacher"] == pytest.approx(wrong, rel=1e-5, abs=1e-6)
    net = Free(2, 64)

    def pull(objective: Objective) -> torch.Tensor:
        objective(net, batch).backward()
        assert net.luma.grad is not None
        pulled, net.luma.grad = net.luma.grad[0, 0].clone(), None
        return pulled

    pixels, taught = pull(Objective(None, 0.0, 0.0)), Objective(None, 0.0, 0.0, teacher=(1.0, Told(0.0, slope=0.25)))
    pulls = [pull(taught) - pixels for _ in range(8)]
    corners = [tuple((one[::63, ::63] < one.mean()).flatten().tolist()) for one in pulls]
    assert len(set(corners)) == 4, "it leans to each side in turn"
    mean = torch.stack(pulls).mean(0)
    assert float(mean.std()) < 1e-3 * float(pulls[0].std())


def test_a_recipe_says_teacher_and_turned_and_is_bound_to_them(data: Path, tmp_path: Path) -> None:
    fit = begin(data, tmp_path, teacher=0.5, turned=True)
    assert (fit.about["teacher"], fit.about["turned"]) == (0.5, True)
    net = FastRestorer(24, 2)
    objective = train._objective("features", replace(TINY, teacher=0.5), eyes.Eyes(), launched(False), None, net)
    assert objective._teacher is not None
    part, teacher = objective._teacher
    assert part == 0.5
    before = [one.clone() for one in teacher.parameters()]  # type: ignore[attr-defined]
    with torch.no_grad():
        net.exit.weight.add_(1)
    assert all(torch.equal(one, other) for one, other in zip(before, teacher.parameters(), strict=True))  # type: ignore[attr-defined]


def test_losses_through_other_networks_take_the_features_place(data: Path, tmp_path: Path) -> None:
    """The first of them pulls as it does, others and the pixels as parts of its strength."""
    batch = Batches(prepared(data, tmp_path / "pairs"), 1, 2, 64).at(0)
    torch.save({}, tmp_path / "eye.pth")
    eye = Eye(tmp_path / "eye.pth")

    def loss(seen: Any) -> Any:
        return eye.distance(eye(seen.restored), eye(seen.original))

    def gradient(objective: Objective) -> Any:
        torch.manual_seed(0)
        net = FastRestorer(24, 2)
        objective(net, batch).backward()
        return torch.cat([parameter.grad.flatten() for parameter in net.parameters()])

    alone = gradient(Objective(None, 0.0, 0.0, {"perceptual": (1.0, loss)}))
    half = gradient(Objective(None, 0.0, 0.0, {"perceptual": (0.5, loss)}))
    twice = gradient(Objective(None, 0.0, 0.0, {"perceptual": (1.0, loss), "face": (1.0, loss)}))
    pixels = gradient(Objective(None, 0.5, 0.0, {"perceptual": (1.0, loss)}))
    assert alone.abs().max() > 0
    assert torch.allclose(half, alone / 2, rtol=1e-3, atol=1e-7)
    assert torch.allclose(twice, 2 * alone, rtol=1e-3, atol=1e-7)
    assert not torch.allclose(pixels, alone, rtol=1e-3)


class Free(torch.nn.Module):
    """Stands for a network that may change every sample as it likes: gradients show what pulls at which crop."""

    def __init__(self, crops: int, size: int) -> None:
        super().__init__()
        self.luma = torch.nn.Parameter(torch.zeros(2 * crops, 1, size, size))

    def residual(self, y: torch.Tensor, uv: torch.Tensor, _qp: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.luma, torch.zeros_like(uv)


def test_relative_distances_let_well_coded_crops_count(tmp_path: Path) -> None:
    """Of two crops the worse one, ten times as wrong, pulls many times as much; in parts, less than half of that."""
    torch.save({}, tmp_path / "eye.pth")
    eye = Eye(tmp_path / "eye.pth")
    chance = torch.Generator().manual_seed(1)
    true_y = torch.full((4, 1, 64, 64), 128.0)
    errors = torch.tensor([2.0, 20.0, 2.0, 20.0])[:, None, None, None]
    y = true_y + errors * torch.randn(true_y.shape, generator=chance)
    grey = torch.full((4, 2, 32, 32), 128.0)
    batch = (y, grey, true_y, grey, torch.full((4, 1, 4, 4), 30.0), torch.zeros(2, 1, 4, 4))
    ratios, kept = [], []
    for relative in (False, True):
        net, objective = Free(2, 64), Objective(eye, 0.0, 0.0, relative=relative)
        objective(net, batch).backward()
        assert net.luma.grad is not None
        well, badly = (float(net.luma.grad[index].norm()) for index in range(2))
        ratios.append(badly / well)
        kept.append(objective.seen["features kept"])
        assert ("features before" in objective.state_dict()["seen"]) == relative
    assert ratios[0] > 7
    assert 0.5 < ratios[1] < ratios[0] / 2
    assert kept == pytest.approx([1.0, 1.0])


def test_networks_are_looked_through_by_the_path_that_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def choose(kind: str, weights: Path, path: Path | None) -> tuple[Any, str]:
        asked.append((kind, path))
        return torch.nn.Conv2d(3, 1, 1), f"{kind} of {path}"

    monkeypatch.setattr(eyes, "choose", choose)
    recipe = replace(TINY, features=False, perceptual=1.0, background=0.5, face=0.25, vggface="a.pth")
    opened = open_eyes(recipe, tmp_path, torch.device("cpu"))
    assert asked == [("vgg19", None), ("vggface", Path("a.pth"))]
    assert {name: part for name, (part, _) in opened.parts.items()} == {
        "perceptual": 1.0, "background": 0.5, "face": 0.25
    }  # fmt: skip
    assert opened.names["face"] == "vggface of a.pth"
    assert opened.sharp is None


def test_a_dead_layer_of_the_deep_branch_is_reported(data: Path, tmp_path: Path) -> None:
    batch = Batches(prepared(data, tmp_path / "pairs"), 1, 2, 64).at(0)
    net = FastRestorer(24, 1, deep=2)
    with torch.no_grad():
        net.deep.body[0].weight.zero_()  # type: ignore[union-attr,index,operator]
        net.deep.body[0].bias_or_zero().zero_()  # type: ignore[union-attr,index,operator]
    with pytest.raises(SemcallError, match=r"Every unit of layer deep\.body\.0 died"):
        check_units(net, batch, QUIET)


def test_opposite_shifts_of_colour_do_not_cancel() -> None:
    from models.training.restoration.effects import side_effects

    pictures = moving(192, 128, 2, blur=3)
    qp = np.full(grid_shape(192, 128), 36, np.uint8)
    by = iter((3, -3))

    def tinted(decoded: I420, _: Any) -> I420:
        changed = decoded.copy()
        planes(changed)[1][:] += np.uint8(next(by) % 256)
        return changed

    found = side_effects([(one, qp, one) for one in pictures], tinted)
    assert found["colour_shift"] == pytest.approx(3)
    assert found["colour_change"] == pytest.approx(3)
    assert found["colour_error"] == pytest.approx([0, 3])
