"""The way to the face parser: photographs, heads, samples, teacher, labels, a short training, its resumption."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest
from command import call

from models.registry import find_model
from sender.parser import FaceParser as Runner
from shared.astronaut import AstronautClip, photograph
from shared.errors import SemcallError
from shared.picture import i420_from_bgr

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("onnx", reason="needs the train extra")

from rich.console import Console  # noqa: E402

from models.networks.face_parser import CLASSES, MULTIPLE, FaceParser  # noqa: E402
from models.training.export_parser import write_parser  # noqa: E402
from models.training.face import labels, teacher, train  # noqa: E402
from models.training.face.export import REGIONS, export_face  # noqa: E402
from models.training.face.known import Known  # noqa: E402
from models.training.face.loss import parsing_loss, questions, tensors  # noqa: E402
from models.training.face.materials import Head, Person  # noqa: E402
from models.training.face.photographs import held_out, read_photographs, without_people  # noqa: E402
from models.training.face.recipe import FaceRecipe  # noqa: E402
from models.training.face.reduce import reduce_parser  # noqa: E402
from models.training.face.sample import Sample, paste, placed, squeezed, with_longer_neck  # noqa: E402
from models.training.face.scenes import Material, Scenes, shapes  # noqa: E402
from models.training.face.start import load_parser  # noqa: E402
from models.training.fit import Fit  # noqa: E402
from models.training.recipe import read_recipe  # noqa: E402

ROOT = Path(__file__).parents[1]
QUIET = Console(quiet=True)


def astronaut_head() -> Head:
    """The astronaut's head, labelled by hand: an oval face on a larger oval of hair, cut out with its neck."""
    picture = photograph()[20:210, 140:310]
    face, head = np.zeros(picture.shape[:2], np.uint8), np.zeros(picture.shape[:2], np.uint8)
    cv2.ellipse(face, (83, 98), (36, 50), 0, 0, 360, 1, -1)
    cv2.rectangle(face, (66, 140), (100, 180), 1, -1)
    cv2.ellipse(head, (83, 85), (62, 75), 0, 0, 360, 1, -1)
    return Head("frontal-astronaut", picture, face, np.maximum(face, head), (47, 50, 72, 98))


def astronaut() -> Person:
    boxes = np.array([[187, 70, 72, 98, *[205, 110, 240, 110, 222, 130, 210, 145, 235, 145], 0.95]], np.float32)
    return Person("astronaut", "collins", False, photograph(), boxes)


def labelled_astronaut() -> labels.Labelled:
    face = np.zeros((512, 512), np.uint8)
    cv2.ellipse(face, (222, 120), (36, 50), 0, 0, 360, 255, -1)
    head = face.copy()
    cv2.ellipse(head, (222, 105), (62, 75), 0, 0, 360, 255, -1)
    return labels.Labelled(astronaut(), face, head, np.zeros((512, 512), np.uint8))


def wall(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 1, (240, 400, 3)).astype(np.float32)
    return np.clip(110 + 300 * cv2.GaussianBlur(noise, (0, 0), 5), 0, 255).astype(np.uint8)


def scenes(seed: int = 1, batch: int = 4) -> Scenes:
    return Scenes(Material([labelled_astronaut()], [astronaut_head()], [wall(), wall(1)]), seed, batch)


@pytest.mark.parametrize("size", [(180, 320), (320, 180), (240, 240), (36, 64), (76, 116), (16, 16)])
@pytest.mark.parametrize("lean", [False, True])
def test_logits_are_a_quarter_whatever_the_size(size: tuple[int, int], lean: bool) -> None:
    net = FaceParser(8, 4, lean=lean).eval()
    with torch.no_grad():
        logits = net(torch.randint(0, 256, (2, 3, *size)).float())
    assert logits.shape == (2, len(CLASSES), size[0] // 4, size[1] // 4)


def test_questions_are_the_softmax_seen_two_ways() -> None:
    logits = torch.randn(2, 3, 5, 7)
    classes = torch.softmax(logits, 1)
    said = torch.sigmoid(questions(logits))
    assert torch.allclose(said[:, 0], classes[:, 1], atol=1e-6)
    assert torch.allclose(said[:, 1], classes[:, 1] + classes[:, 2], atol=1e-6)


def test_what_is_unknown_costs_nothing() -> None:
    sample = Sample.empty(wall()[:180, :320])
    sample.face[40:80, 40:80] = sample.head[40:80, 40:80] = 1
    pictures, answers, known = tensors([sample])
    assert pictures.shape == (1, 3, 180, 320)
    assert answers.shape == known.shape == (1, 2, 45, 80)

    def loss(logits: torch.Tensor, where: torch.Tensor) -> float:
        return float(parsing_loss(lambda _: logits, (pictures, answers, where)))  # type: ignore[arg-type]

    right = torch.stack([8 - 16 * answers[:, 0], 16 * answers[:, 0] - 8, torch.full((1, 45, 80), -8.0)], 1)
    wrong = right.clone()
    wrong[..., 30:, 60:] = wrong[:, [1, 0, 2], 30:, 60:]
    assert loss(right, known) < 0.02 < 0.5 < loss(wrong, known)
    known[..., 30:, 60:] = 0
    assert loss(wrong, known) < 0.02


def test_photographs_are_split_and_rid_of_people() -> None:
    names = [f"bsds500-{n:03}" for n in range(500)]
    assert 90 <= sum(map(held_out, names)) <= 110
    assert held_out("kodak-lossless-tru-001")
    assert not without_people("bsds500-038")  # two faces in fur hoods
    assert without_people("bsds500-000")  # a polar bear far off
    assert 300 < sum(map(without_people, names)) < 400


def test_missing_data_is_said_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    with pytest.raises(SemcallError, match=r"manifest\.tsv cannot be read; name the data directory with --data"):
        read_photographs(tmp_path, kept=True)
    config = ROOT / "configs" / "face.toml"
    assert call(monkeypatch, "train", "face", config, "--data", tmp_path, "--out", tmp_path / "run") == 2
    assert "name the data directory with --data." in capsys.readouterr().err


def test_a_pasted_head_is_where_its_label_says() -> None:
    head, chance = astronaut_head(), np.random.default_rng(5)
    background = np.full((180, 320, 3), 30, np.uint8)
    sample = Sample.empty(background)
    matrix = placed(0.8, 0, False, (83, 99), (200, 80))
    paste(sample, head, matrix, background, chance, dressed=0.0)
    rows, columns = np.nonzero(sample.face > 0.5)
    assert abs(columns.mean() - 200) < 5
    assert abs((sample.head > 0.5).sum() - 0.64 * (head.head > 0).sum()) < 0.1 * (sample.head > 0.5).sum()
    assert (sample.face <= sample.head + 1e-3).all()
    assert (np.abs(sample.picture - 30).max(2)[sample.head == 0] < 30).mean() > 0.99
    assert rows.min() < 80 < rows.max()


def test_covering_takes_the_label_away() -> None:
    sample = Sample.empty(wall()[:80, :80])
    sample.face[:] = sample.head[:] = 1
    hand = np.zeros((80, 80), np.float32)
    hand[20:40] = 1
    sample.cover(hand, np.full((80, 80, 3), 7, np.float32))
    assert sample.face[30].max() == 0
    assert sample.face[60].min() == 1
    assert (sample.picture[30] == 7).all()


def test_necks_only_grow() -> None:
    head = astronaut_head()
    grown = [with_longer_neck(head, np.random.default_rng(n)) for n in range(20)]
    assert max(g.face.shape[0] for g in grown) > head.face.shape[0]
    assert all(g.face.shape == g.head.shape == g.picture.shape[:2] for g in grown)
    assert all(np.array_equal(g.picture[:100], head.picture[:100]) for g in grown)


def test_squeezed_heads_keep_their_height_and_their_box() -> None:
    head = astronaut_head()
    for number in range(8):
        other = squeezed(head, np.random.default_rng(number))
        assert other.face.shape == other.head.shape == other.picture.shape[:2]
        across = other.face.shape[1] / head.face.shape[1]
        assert 0.8 < across < 1.25
        assert other.face.shape[0] == head.face.shape[0]
        assert other.box[0::2] == pytest.approx([across * value for value in head.box[0::2]], rel=0.01)
        assert other.face.mean() == pytest.approx(head.face.mean(), abs=0.01)


def test_shapes_have_the_area_asked_for_and_sides_that_quarter() -> None:
    for pixels in (57600, 82944, 129600):
        for width, height in shapes(pixels):
            assert width % 4 == height % 4 == 0
            assert width * height == pytest.approx(pixels, rel=0.02)


def test_training_goes_on_from_an_exported_parser(tmp_path: Path) -> None:
    old = fit(tmp_path / "old", steps=8)
    old.run(QUIET)
    file = write_parser(old.averaged(), "old", tmp_path, CLASSES, REGIONS, 57600, MULTIPLE, {})
    batches = [scenes(batch=4).batch(step)[0] for step in range(0, 12, 6)]
    net = FaceParser(4, 2)
    load_parser(net, file, batches)
    pictures = batches[0].float()
    with torch.no_grad():
        told = old.averaged()(pictures)
        assert torch.allclose(net.eval()(pictures), told, atol=1e-4)
        # In training normalisations use their batch's own statistics: about the same.
        assert (net.train()(pictures) - told).abs().mean() < 0.2 * told.abs().mean()
    with pytest.raises(SemcallError, match="is no export of this"):
        load_parser(FaceParser(8, 2), file, batches)
    file.write_bytes(b"nonsense")
    with pytest.raises(SemcallError, match="is no export of this"):
        load_parser(FaceParser(4, 2), file, batches)


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_a_lean_parser_says_about_what_the_full_one_says(noise: float) -> None:
    """A full parser put together from a lean one's halves comes apart again, about so with noise on its weights."""
    torch.manual_seed(4)
    given, full, lean = FaceParser(4, 2, lean=True), FaceParser(4, 2), FaceParser(4, 2, lean=True)
    pictures = scenes(batch=4).batch(0)[0]
    _lively(given, pictures)
    state = given.state_dict()
    whole = {name: value for name, value in state.items() if name in full.state_dict()}
    for name in ("quarter.0", "quarter.1", "eighth.0", "eighth.1", "sixteenth", "to_quarter", "fuse"):
        down, across = state[f"{name}.0.weight"], state[f"{name}.1.weight"]
        weight = torch.einsum("riy,orx->oiyx", down[..., 0], across[:, :, 0])
        whole[f"{name}.0.weight"] = weight + noise * weight.std() * torch.randn(weight.shape)
        for value in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            whole[f"{name}.1.{value}"] = state[f"{name}.2.{value}"]
    full.load_state_dict(whole)
    reduce_parser(full, lean, [pictures[:2], pictures[2:]])
    unseen = scenes(seed=5, batch=2).batch(0)[0].float()
    with torch.no_grad():
        told, said, before = full(unseen), lean(unseen), lean(pictures.float())
        trained = lean.train()(pictures.float())
    off = (said - told).abs().mean() / told.std()
    if noise:
        assert off < min(0.3, (given.eval()(unseen) - told).abs().mean() / told.std())
    else:
        assert off < 0.02
        # In training normalisations use their batch's own statistics: theirs, of what they were fitted on.
        assert (trained - before).abs().mean() < 0.05 * before.std()
    assert sum(p.numel() for p in lean.parameters()) < 0.9 * sum(p.numel() for p in full.parameters())


def _lively(net: FaceParser, pictures: torch.Tensor) -> None:
    """Normalisations with the statistics of real pictures: an untrained network says the same of all."""
    net.train()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # a plain mean
        net(pictures.float())
    net.eval()


def test_a_known_parser_says_what_its_file_says(tmp_path: Path) -> None:
    torch.manual_seed(3)
    net = FaceParser(4, 2).eval()
    known = Known(write_parser(net, "known", tmp_path, CLASSES, REGIONS, 57600, MULTIPLE, {}))
    assert not list(known.parameters())
    pictures = scenes().batch(0)[0][..., :176, :176].float()
    told = torch.cat([pictures, torch.full_like(pictures[:, :1], 255)], 1)  # with a teacher's fourth channel
    with torch.no_grad():
        assert torch.allclose(known(told), net(pictures), atol=1e-4)


def test_what_is_no_parser_labels_nothing() -> None:
    with pytest.raises(SemcallError, match="is no face parser; set `labeller`"):
        Known(find_model("fast", "restorer").path)


def test_scenes_depend_on_their_step_alone() -> None:
    one, again = scenes(), scenes()
    again.batch(3)
    for step in range(len(shapes(57600))):
        first, second = one.batch(step), again.batch(step)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        assert first[0].shape == (4, 3, *shapes(57600)[step][::-1])
    assert not torch.equal(one.batch(0)[0], one.batch(1)[0])
    assert not torch.equal(one.batch(0)[0], scenes(seed=2).batch(0)[0])


def test_scenes_show_faces_near_and_far_and_nobody() -> None:
    answers = torch.cat([scenes(batch=16).batch(step)[1][:, 0].flatten(1).mean(1) for step in range(0, 24, 6)])
    assert (answers == 0).any()
    assert (answers > 0.06).any()
    assert ((answers > 0) & (answers < 0.02)).any()


def test_the_teachers_crop_puts_the_face_where_it_belongs() -> None:
    box = (187.0, 70.0, 72.0, 98.0)
    matrix = teacher.crop(box)
    told = teacher.oval(box, matrix)
    rows, columns = np.nonzero(told)
    assert rows.max() - rows.min() == pytest.approx(teacher.SIDE / teacher.MARGIN, abs=3)
    assert columns.mean() == pytest.approx(teacher.SIDE / 2, abs=1)
    cells = cv2.resize(told, (40, 40), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    found = teacher.back(cells, matrix, (512, 512)) > 0.5
    expected = np.zeros((512, 512), np.uint8)
    cv2.ellipse(expected, (223, 119), (36, 49), 0, 0, 360, 1, -1)
    assert (found & (expected > 0)).sum() / (found | (expected > 0)).sum() > 0.9


class Told(torch.nn.Module):
    """A teacher that believes its fourth channel, shifted by some cells."""

    def __init__(self, shift: int = 0) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        face = torch.nn.functional.avg_pool2d(pictures[:, 3:] / 255, 4).roll(self.shift, 2)
        return torch.cat([9 - 18 * face, 18 * face - 9, torch.full_like(face, -9.0)], 1)


def test_labels_are_kept_where_teacher_and_detector_agree(tmp_path: Path) -> None:
    people = [astronaut()]
    kept = labels.label(Told(), people, QUIET)
    assert len(kept) == 1
    assert kept[0].face[119, 223] > 250
    assert kept[0].face[300, 223] == 0
    assert labels.label(Told(shift=20), people, QUIET) == []
    labels.write_labels(kept, tmp_path / "labels", {"seed": 1})
    (again,) = labels.read_labels(people, tmp_path / "labels", {"seed": 1}) or []
    assert np.array_equal(again.face, kept[0].face)
    assert labels.read_labels(people, tmp_path / "other", {}) is None
    with pytest.raises(SemcallError, match="belong to another recipe"):
        labels.read_labels(people, tmp_path / "labels", {"seed": 2})


def test_uncertain_faces_are_left_unknown() -> None:
    person = astronaut()
    unsure = person.boxes.copy()
    unsure[0, :4], unsure[0, 14] = (380, 300, 60, 80), 0.65
    two = Person("two", "two", True, person.picture, np.concatenate([person.boxes, unsure]))
    (label,) = labels.label(Told(), [two], QUIET)
    assert label.unknown[340, 410] == 255
    assert label.unknown[120, 220] == 0


def fit(folder: Path, steps: int = 12, seed: int = 1, **change: object) -> Fit:
    torch.manual_seed(seed)
    options = {"steps": steps, "rate": 4e-3, "ema": 0.9, "checkpoint_every": 4, **change}
    return Fit("parser", FaceParser(4, 2), folder, {"seed": seed}, scenes(seed, 2).batch, parsing_loss, **options)


def test_a_stopped_fit_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole")
    assert whole.run(QUIET)
    stopped = fit(tmp_path / "stopped")
    assert not stopped.run(QUIET, minutes=0)
    assert stopped.step == 1
    again = fit(tmp_path / "stopped")
    assert again.step == 1
    assert again.run(QUIET)
    for name, value in whole.ema.items():
        assert torch.equal(value, again.ema[name]), name
    assert list((tmp_path / "whole").glob("events*"))  # the curves


def test_checkpoints_of_others_are_refused(tmp_path: Path) -> None:
    fit(tmp_path, steps=1).run(QUIET)
    with pytest.raises(SemcallError, match="belongs to another recipe"):
        fit(tmp_path, seed=2)
    (tmp_path / "parser.pt").write_bytes(b"nonsense")
    with pytest.raises(SemcallError, match="cannot be read"):
        fit(tmp_path)


def test_a_divergence_is_reported(tmp_path: Path) -> None:
    def lost(net: torch.nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return parsing_loss(net, batch) * float("nan")

    torch.manual_seed(1)
    broken = Fit("parser", FaceParser(4, 2), tmp_path, {}, scenes(1, 2).batch, lost, steps=5, rate=1e-3, ema=0.9)
    with pytest.raises(SemcallError, match="diverged at step"):
        broken.run(QUIET)


def test_a_short_overfit_finds_the_face_and_exports_it(tmp_path: Path) -> None:
    """One scene, learnt by heart, recognised by the file that comes out under ONNX Runtime."""
    sample = Sample.empty(wall()[:180, :320])
    background = wall(1)[:180, :320]
    matrix = placed(0.8, 0, False, (83, 99), (130, 80))
    paste(sample, astronaut_head(), matrix, background, np.random.default_rng(1), dressed=0.0)
    batch = tensors([sample, Sample.empty(background)])
    torch.manual_seed(0)
    pictures: list[int] = []
    run = Fit(
        "parser",
        FaceParser(8, 4),
        tmp_path,
        {},
        lambda _: batch,
        parsing_loss,
        steps=90,
        rate=1e-2,
        ema=0.9,
        show=lambda _net, step: pictures.append(step),
        show_every=60,
    )
    assert run.run(QUIET)
    assert pictures == [60, 90]
    path = export_face(run, FaceRecipe(name="tiny", steps=90), _data(tmp_path), tmp_path / "out", "test")
    model = find_model(str(path), "face-parser")
    bgr = np.clip(sample.picture, 0, 255).astype(np.uint8)
    found = Runner(path, model.card).probabilities(i420_from_bgr(bgr)) > 0.5
    label = cv2.resize(batch[1][0, 0].numpy(), found.shape[::-1]) > 0.5
    assert (found & label).sum() / (found | label).sum() > 0.8
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["regions"] == {"face": ["face"], "face+hair": ["face", "hair"]}
    assert card["training"]["recipe"] == asdict(FaceRecipe(name="tiny", steps=90))
    assert "FASSEG" in card["licence"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("steps = 'x'", "steps = 'x' is no whole number"),
        ("batch = 0", "batch = 0 is out of range"),
        ("rate = 'fast'", "rate = 'fast' is no number"),
        ("rate = nan", "rate = nan is out of range"),
        ("frames = -1", "frames = -1 is out of range"),
        ("bf16 = 1", "bf16 = 1 is no true or false"),
        ("threads = true", "threads = True is no whole number"),
        ("colour = 1", "has unknown entries: colour"),
        ("\xe9 = 1", "cannot be read"),
    ],
)
def test_recipes_out_of_range_are_refused(tmp_path: Path, entry: str, said: str) -> None:
    path = tmp_path / "odd.toml"
    path.write_bytes(entry.encode("latin-1"))
    with pytest.raises(SemcallError, match=said):
        read_recipe(path, FaceRecipe)


def test_a_run_needs_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (tmp_path / "run").write_text("in the way")
    assert call(monkeypatch, "train", "face", ROOT / "configs" / "face.toml", "--out", tmp_path / "run") == 2
    assert "choose another --out." in capsys.readouterr().err


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with one person in a clip and a portrait, two walls and two labelled heads."""
    import av

    weights = ROOT.parent / "shared" / "data" / "weights" / "yunet_n_640_640.onnx"
    if not weights.exists():
        pytest.skip("needs the reference detector of ../shared/data")
    root = _data(tmp_path)
    for part in ("clips/train", "images/photos", "images/faces", "faceparts/train", "weights"):
        (root / part).mkdir(parents=True)
    shutil.copy(weights, root / "weights")
    clip = AstronautClip((320, 240))
    with av.open(str(root / "clips" / "train" / "a-1.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for index in range(6):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(clip.picture(index), "yuv420p")))
        container.mux(stream.encode())
    cv2.imwrite(str(root / "images" / "faces" / "b.jpg"), photograph())
    for number in range(2):
        cv2.imwrite(str(root / "images" / "photos" / f"bsds500-00{number}.jpg"), wall(number))
    with (root / "images" / "manifest.tsv").open("a") as manifest:
        manifest.writelines(f"photos/bsds500-00{number}.jpg\t0\tnone\n" for number in range(2))
    head = astronaut_head()
    for name in ("frontal-1", "pose+30-personne01"):
        cv2.imwrite(str(root / "faceparts" / "train" / f"{name}.jpg"), head.picture)
        cv2.imwrite(str(root / "faceparts" / "train" / f"{name}.png"), 2 * head.head - head.face)
    return root


def test_train_face_from_data_to_model_and_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of `semcall train face`, with a teacher that knows already: four steps would not make one."""
    monkeypatch.setattr(train, "train_teacher", lambda *_: Told())
    config, out = tmp_path / "tiny.toml", tmp_path / "run"
    config.write_text(
        'name = "tiny"\nwidth = 4\ncontext = 2\nsteps = 4\npolish_steps = 2\nbatch = 2\nframes = 3\nworkers = 0\n'
        "pictures_every = 4\n"
    )
    assert train.train_face(config, data, out, minutes=0) is None
    assert not list(out.glob("*.onnx"))
    path = train.train_face(config, data, out)
    assert path == out / "tiny.onnx"
    model = find_model(str(path), "face-parser")
    assert model.card["training_data"]["clips"] == {"a-1": "MIT, "}
    assert {file.name for file in out.glob("*.jpg")} == {"labels.jpg", "parser-000004.jpg", "polish-000002.jpg"}
    again = train.train_face(config, data, out)
    assert again is not None
    assert find_model(str(again), "face-parser").card["sha256"] == model.card["sha256"]
    config.write_text(config.read_text().replace("frames = 3", "frames = 4"))
    with pytest.raises(SemcallError, match="belong to another recipe"):
        train.train_face(config, data, out)


def test_train_face_reduces_a_parser_on_what_another_labels(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped one labels; no teacher is trained."""
    monkeypatch.setattr(train, "train_teacher", None)
    old = fit(tmp_path / "old", steps=2)  # for biases of its own
    old.run(QUIET)
    full = write_parser(old.averaged(), "full", tmp_path, CLASSES, REGIONS, 57600, MULTIPLE, {})
    config, out = tmp_path / "tiny.toml", tmp_path / "run"
    config.write_text(
        f'name = "tiny"\nwidth = 4\ncontext = 2\nstart = "{full}"\nlean = true\n'
        f'labeller = "{find_model("face", "face-parser").path}"\n'
        "steps = 0\npolish_steps = 0\nbatch = 2\nframes = 3\nworkers = 0\n"
    )
    path = train.train_face(config, data, out)
    assert path == out / "tiny.onnx"
    card = find_model(str(path), "face-parser").card
    assert card["training"]["recipe"]["lean"] is True
    assert card["parameters"] == sum(p.numel() for p in FaceParser(4, 2, lean=True).parameters())


def test_the_teacher_is_trained_on_heads_and_people(data: Path, tmp_path: Path) -> None:
    recipe = FaceRecipe(teacher_width=4, teacher_steps=2, batch=4, workers=0, frames=3)
    net = train.train_teacher(recipe, data, tmp_path / "run", QUIET)
    (seen,) = teacher.look(net, photograph(), [(187.0, 70.0, 72.0, 98.0)])
    assert seen[0].shape == (40, 40)
    assert 0 <= seen[0].min() <= seen[0].max() <= 1
    assert (tmp_path / "run" / "teacher.pt").exists()


def test_a_teacher_that_agrees_on_nothing_is_reported(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "train_teacher", lambda *_: Told(shift=20))
    config = tmp_path / "tiny.toml"
    config.write_text("frames = 3\n")
    with pytest.raises(SemcallError, match="agrees with the detector on no picture"):
        train.train_face(config, data, tmp_path / "run")
    assert not (tmp_path / "run" / "labels").exists()


@pytest.mark.parametrize("minutes", ["-3", "0", "nan"])
def test_a_training_takes_time(minutes: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    assert call(monkeypatch, "train", "face", ROOT / "configs" / "face.toml", "--minutes", minutes) == 2
    assert "is no time to train for" in capsys.readouterr().err


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("face*.toml")), ids=lambda file: file.stem)
def test_recipes_in_the_repository_are_valid(file: Path) -> None:
    assert read_recipe(file, FaceRecipe).name == "face"


def _data(folder: Path) -> Path:
    """Manifests alone: what a card quotes."""
    root = folder / "data"
    for part in ("clips", "images"):
        (root / part).mkdir(parents=True)
    (root / "clips" / "manifest.tsv").write_text(
        "path\tidentity\tsplit\tpermissive\tlicence\ntrain/a-1.mp4\ta\ttrain\tyes\tMIT\n"
    )
    (root / "images" / "manifest.tsv").write_text("path\tfaces\tlicence\nfaces/b.jpg\t1\tMIT\n")
    return root
