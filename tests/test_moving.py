"""Portraits that move: what training makes of stills."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
from faces import shipped

from models.evaluation.detector import ReferenceDetector
from models.training import stills
from models.training.restoration import moving, pairs
from models.training.restoration.moving import moved, write_moving
from models.training.stills import by_origin, permissive_portraits
from sender.offline import encode_at
from shared.astronaut import photograph
from shared.clips import Clip
from shared.errors import SemcallError
from shared.picture import bgr_from_i420, planes, size_of

ENCODE = functools.partial(encode_at, face=shipped())


def box(left: float, top: float, width: float, height: float) -> np.ndarray:
    """As the detector says it: corners of the mouth three quarters down."""
    marks = [
        (left + a * width, top + b * height)
        for a, b in ((0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8))
    ]
    return np.array([[left, top, width, height, *(v for mark in marks for v in mark), 0.9]], np.float32)


class Finder:
    """Stands for the detector, whose weights are not in the repository: a face where the whole photograph has it."""

    def __init__(self, model: Path) -> None:
        self.model = model

    def find(self, bgr: np.ndarray) -> np.ndarray:
        height, width = bgr.shape[:2]
        return box(0.35 * width, 0.1 * height, 0.18 * width, 0.19 * height)


def changes(picture: np.ndarray, boxes: np.ndarray, seed: int) -> np.ndarray:
    """Mean absolute change of luma from the first of 20 pictures to the others, [H, W]."""
    luma = [planes(i420)[0].astype(int) for i420 in moved(picture, boxes, 20, np.random.default_rng(seed))]
    return np.mean([np.abs(one - luma[0]) for one in luma[1:]], axis=0)


@pytest.fixture
def texture() -> np.ndarray:
    random = np.random.default_rng(0)
    smooth = cv2.GaussianBlur(random.normal(0, 1, (241, 321, 3)).astype(np.float32), (0, 0), 3)
    return np.clip(128 + 40 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def test_a_head_moves_more_than_the_corners(texture: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "_camera", lambda *_: lambda number, across, down: (0 * across, 0 * down))
    for seed in range(3):
        found = changes(texture, box(130, 80, 60, 80), seed)
        assert found[90:150, 140:180].mean() > 4 + 3 * found[:20, :20].mean()


def test_where_nobody_is_only_the_camera_moves(texture: np.ndarray) -> None:
    """Of many cameras some stand still, and others do not."""
    none = np.zeros((0, 15), np.float32)
    found = [changes(texture, none, seed).mean() for seed in range(12)]
    assert min(found) < 3 < max(found)


def test_pictures_are_even_steady_in_size_and_told_by_the_seed(texture: np.ndarray) -> None:
    def pictures(seed: int) -> list[np.ndarray]:
        return list(moved(texture, box(130, 80, 60, 80), 3, np.random.default_rng(seed)))

    assert [size_of(one) for one in pictures(1)] == [(320, 240)] * 3
    assert all(np.array_equal(a, b) for a, b in zip(pictures(1), pictures(1), strict=True))
    assert not np.array_equal(pictures(1)[0], pictures(2)[0])


def test_motion_is_smooth(texture: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """From one picture to the next less happens than over half a second."""
    monkeypatch.setattr(moving, "_NOISE", (0, 0))
    luma = [
        planes(one)[0].astype(int) for one in moved(texture, box(110, 60, 100, 130), 30, np.random.default_rng(3))
    ]
    step = np.mean([np.abs(a - b).mean() for a, b in itertools.pairwise(luma)])
    far = np.mean([np.abs(a - b).mean() for a, b in zip(luma, luma[15:], strict=False)])
    assert 0 < step < 0.6 * far


@pytest.mark.parametrize(("left", "top"), [(5, 5), (430, 450), (200, 60)])
def test_a_frame_lies_inside_the_picture_with_its_face(left: float, top: float) -> None:
    picture = photograph()
    boxes = np.concatenate([box(left, top, 70, 60), box(0, 0, 30, 30)])
    for seed in range(5):
        frame, inside = moving._framed(picture, boxes, np.random.default_rng(seed))
        height, width = frame.shape[:2]
        assert min(height, width) >= 300
        x, y = (round(float(one)) for one in inside[0, :2])
        assert np.array_equal(frame[y, x], picture[round(top), round(left)])
        assert inside[0, 2:4].tolist() == [70, 60]
        assert inside[0, 4] - x == pytest.approx(0.3 * 70, abs=1)


def test_a_portrait_is_written_without_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "ReferenceDetector", Finder)
    kept: list[np.ndarray] = []

    def noting(*arguments: object) -> object:
        for one in moved(*arguments):  # type: ignore[arg-type]
            kept.append(one)
            yield one

    monkeypatch.setattr(moving, "moved", noting)
    path = tmp_path / "face.png"
    cv2.imwrite(str(path), photograph())
    out = tmp_path / "moving.mp4"
    write_moving(path, tmp_path / "detector.onnx", out, 0.3, np.random.default_rng(1))
    written = [i420 for i420, _ in Clip(out)]
    assert len(written) == len(kept) == 9
    assert all(np.array_equal(a, b) for a, b in zip(written, kept, strict=True))
    assert Clip(out).fps == 30
    path.write_text("no picture")
    with pytest.raises(SemcallError, match=r"face\.png cannot be read"):
        write_moving(path, tmp_path / "detector.onnx", tmp_path / "other.mp4", 0.3, np.random.default_rng(1))
    assert not (tmp_path / "other.mp4").exists()


def portrait_data(folder: Path) -> Path:
    (folder / "images" / "faces").mkdir(parents=True)
    cv2.imwrite(str(folder / "images" / "faces" / "one.png"), photograph())
    rows = [
        "path\torigin\tfaces\tlicence",
        "faces/one.png\tsomebody/somewhere\t1\tMIT",
        "faces/crowd.png\tsomebody/somewhere\t5\tMIT",
        "faces/unfree.png\tsomebody/somewhere\t1\tnone stated",
        "faces/nobody.png\tsomebody/somewhere\t0\tApache-2.0",
        "photos/wall.png\tsomebody/somewhere\t1\tMIT",
    ]
    (folder / "images" / "manifest.tsv").write_text("\n".join(rows) + "\n")
    return folder


def test_portraits_are_permissive_and_of_few_people(tmp_path: Path) -> None:
    (one,) = permissive_portraits(portrait_data(tmp_path / "data"))
    assert (one.name, one.origin, one.licence) == ("one", "somebody/somewhere", "MIT")
    assert by_origin([one]) == {"MIT, somebody/somewhere": ["one"]}
    assert len(stills.stills(tmp_path / "data", "faces")) == 4
    with pytest.raises(SemcallError, match=r"manifest\.tsv cannot be read; name the data directory with --data"):
        permissive_portraits(tmp_path)
    manifest = tmp_path / "data" / "images" / "manifest.tsv"
    for damage, said in (
        (lambda text: text.replace("\t1\tMIT", "\tone\tMIT"), "faces of faces/one.png"),
        (lambda text: text + "faces/more.png\n", "line 7 has no faces"),
        (lambda text: text.replace("licence", "license"), "line 2 has no licence"),
        (lambda _: "\ufffd".encode("utf-16").decode("latin-1"), "no list of stills"),
    ):
        whole = manifest.read_text()
        manifest.write_text(damage(whole), "latin-1")
        with pytest.raises(SemcallError, match=said):
            permissive_portraits(tmp_path / "data")
        manifest.write_text(whole)


def test_pairs_of_a_portrait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Coded and decoded by the real encoder: many crops lie on the face, and coding has changed them."""
    monkeypatch.setattr(moving, "ReferenceDetector", Finder)
    portraits = permissive_portraits(portrait_data(tmp_path / "data"))
    detector = tmp_path / "detector.onnx"
    files = pairs.prepare(portraits, tmp_path / "pairs", ENCODE, 3, 0.6, pictures=3, detector=detector)
    assert [file.name for file in files] == ["one.npz"]
    found = pairs.load(files)
    assert found.coded.shape == found.original.shape
    assert 0.2 < np.abs(found.coded.astype(int) - found.original).mean() < 20
    assert found.face.any(axis=(1, 2)).mean() > 0.3
    assert len(np.unique(found.original[:, 0] != found.original[:, 1])) == 2, "nothing moves"


def test_faces_stay_in_view_and_light_differs(tmp_path: Path) -> None:
    """With the real detector: a frame around the face, which is still found in what is written."""
    weights = Path(__file__).parents[2] / "shared" / "data" / "weights" / "yunet_n_640_640.onnx"
    if not weights.exists():
        pytest.skip("needs the reference detector of ../shared/data")
    path = tmp_path / "face.png"
    cv2.imwrite(str(path), photograph())
    means = set()
    for seed in range(4):
        write_moving(path, weights, tmp_path / "out.mp4", 0.1, np.random.default_rng(seed))
        (i420,) = dict(Clip(tmp_path / "out.mp4").pictures({2})).values()
        bgr = bgr_from_i420(i420)
        assert bgr.shape[0] < 512
        (found,) = ReferenceDetector(weights).find(bgr)
        left, top, width, height = found[:4]
        assert 70 < height < 130
        assert left > 0 < top
        assert left + width < bgr.shape[1]
        means.add(round(float(bgr[:40].mean())))
    assert len(means) > 2
