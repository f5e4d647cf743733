"""Other looks of clips: what training makes of the few people that it has."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from models.training.restoration import looks
from models.training.restoration.looks import another_look, write_look
from shared.astronaut import photograph
from shared.clips import Clip
from shared.errors import SemcallError
from shared.picture import I420, i420_from_bgr, planes, size_of
from shared.x264 import write_pictures


@pytest.fixture
def picture() -> I420:
    """Half of its luma is an odd number of samples across."""
    return i420_from_bgr(np.ascontiguousarray(photograph()[:240, :310]))


def chance(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_look_that_moves_nothing_is_the_clip_or_its_mirror_image(
    picture: I420, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the sample, in luma and chroma: neither plane slips against the other."""
    for name in ("_TURN", "_STRETCH", "_NEARER", "_BEND", "_GAMMA", "_WHITE"):
        monkeypatch.setattr(looks, name, 0.0)
    monkeypatch.setattr(looks, "_COLOUR", (1.0, 1.0))
    luma, chroma = planes(picture)
    mirrored = 0
    for seed in range(6):
        seen_luma, seen_chroma = planes(another_look(*size_of(picture), chance(seed))(picture))
        if np.array_equal(seen_luma, luma):
            assert np.array_equal(seen_chroma, chroma)
        else:
            mirrored += 1
            assert np.array_equal(seen_luma, luma[:, ::-1])
            assert np.array_equal(seen_chroma, chroma[:, :, ::-1])
    assert 0 < mirrored < 6


def test_looks_differ_by_chance_alone(picture: I420) -> None:
    seen = [another_look(310, 240, chance(seed))(picture) for seed in (1, 1, 2, 3)]
    assert np.array_equal(seen[0], seen[1])
    assert all(one.shape == picture.shape and one.dtype == np.uint8 for one in seen)
    for one in seen[2:]:
        assert np.abs(planes(one)[0].astype(int) - planes(seen[0])[0]).mean() > 5


def test_a_face_stays_in_the_picture_and_moves(picture: I420) -> None:
    """A mark at a third, where a face may be, is found again in each look, whole, and at other places."""
    marked = picture.copy()
    planes(marked)[0][60:100, 83:123] = 255
    places = []
    for seed in range(12):
        plain, seen = (planes(another_look(310, 240, chance(seed))(one))[0].astype(int) for one in (picture, marked))
        changed = np.argwhere(np.abs(seen - plain) > 20)
        assert 800 < len(changed) < 2600
        row, column = changed.mean(0)
        places.append((row, min(column, 309 - column)))  # it may be the mirror image
    spread = np.ptp(places, axis=0)
    assert (spread > 5).all()
    assert (np.abs(np.array(places) - (79.5, 102.5)) < 40).all()


def test_light_differs_and_stays_in_range(picture: I420, monkeypatch: pytest.MonkeyPatch) -> None:
    def means(seeds: range) -> tuple[list[float], list[float]]:
        lit = [another_look(310, 240, chance(seed))(picture) for seed in seeds]
        assert all(one.min() >= 16 and one.max() <= 240 for one in lit)
        return (
            [float(planes(one)[0].mean()) for one in lit],
            [float(np.abs(planes(one)[1].astype(int) - 128).mean()) for one in lit],
        )

    brightness, _ = means(range(8))
    assert max(brightness) > 1.1 * min(brightness)
    monkeypatch.setattr(looks, "_WHITE", 0.0)
    _, colours = means(range(8))
    assert max(colours) > 1.3 * min(colours)


@pytest.fixture
def clip(tmp_path: Path, picture: I420) -> Path:
    """Two seconds at 10 pictures a second, whose brightness tells the number, with the photograph's colours."""
    path, pictures = tmp_path / "clip.mp4", [picture.copy() for _ in range(20)]
    for number, one in enumerate(pictures):
        planes(one)[0][:] = 40 + 8 * number
    write_pictures(path, size_of(picture), 10, pictures)
    return path


def test_a_piece_from_anywhere_is_written_in_one_look(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "_GAMMA", 0.0)
    starts = set()
    for seed in range(8):
        out = tmp_path / f"{seed}.mp4"
        write_look(clip, out, 0.5, chance(seed))
        written = [i420 for i420, _ in Clip(out)]
        numbers = [(planes(i420)[0].mean() - 40) / 8 for i420 in written]
        assert all(np.array_equal(planes(one)[1], planes(written[0])[1]) for one in written), "one look for all"
        assert numbers == [numbers[0] + step for step in range(5)]
        assert 0 <= numbers[0] <= 15
        assert Clip(out).fps == 10
        starts.add(numbers[0])
    assert len(starts) > 3


def test_a_short_clip_is_written_whole_and_a_broken_one_named(clip: Path, tmp_path: Path) -> None:
    write_look(clip, tmp_path / "whole.mp4", 9.0, chance(1))
    assert len(list(Clip(tmp_path / "whole.mp4"))) == 20
    (tmp_path / "no.mp4").write_text("no video")
    with pytest.raises(SemcallError, match=r"Cannot read .*no\.mp4 as video"):
        write_look(tmp_path / "no.mp4", tmp_path / "out.mp4", 1.0, chance(1))
    assert not (tmp_path / "out.mp4").exists()


def test_the_photograph_keeps_its_detail(picture: I420) -> None:
    """Resampling takes little of the finest detail: an original must not look coded."""

    def detail(i420: I420) -> float:
        return float(np.abs(cv2.Laplacian(planes(i420)[0].astype(np.float32), cv2.CV_32F)).mean())

    found = [detail(another_look(310, 240, chance(seed))(picture)) for seed in range(6)]
    assert min(found) > 0.75 * detail(picture)
