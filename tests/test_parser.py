"""The face parser's contract and errors, and the way from its cells to macroblocks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from command import call
from faces import CARD, bright_model, overlap, scene, shipped, snapshot, squares
from hypothesis import given, settings
from hypothesis import strategies as st

from sender.geometry import on_macroblocks, small_size
from sender.parser import FaceOptions, FaceParser
from shared.astronaut import photograph
from shared.errors import SemcallError
from shared.grid import grid_shape
from shared.picture import bgr_from_i420, i420_from_bgr, shrunk


@pytest.fixture
def bright(tmp_path: Path) -> FaceOptions:
    return bright_model(tmp_path)


# Sizes and grids


@pytest.mark.parametrize(
    ("picture", "small"),
    [
        ((1280, 720), (320, 180)),
        ((1920, 1080), (320, 180)),
        ((640, 360), (320, 180)),
        ((720, 1280), (180, 320)),
        ((700, 700), (240, 240)),
        ((160, 96), (308, 184)),
        ((2, 2), (240, 240)),
        ((4096, 16), (3840, 32)),
    ],
)
def test_what_the_network_sees(picture: tuple[int, int], small: tuple[int, int]) -> None:
    assert small_size(*picture, pixels=57600, multiple=4) == small


@pytest.mark.parametrize(
    ("picture", "small"), [((1280, 720), (416, 224)), ((720, 1280), (224, 416)), ((640, 480), (352, 272))]
)
def test_what_the_shipped_parser_sees(picture: tuple[int, int], small: tuple[int, int]) -> None:
    parser = shipped().open()
    assert parser is not None
    assert parser.small_size(*picture) == small


def test_sides_are_multiples() -> None:
    for size in ((1280, 720), (1366, 768), (500, 333)):
        width, height = small_size(*size, pixels=100_000, multiple=32)
        assert width % 32 == height % 32 == 0
        assert width * height == pytest.approx(100_000, rel=0.2)


@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080), (1366, 768), (854, 480), (100, 60)])
def test_shrinking_takes_the_mean_of_the_area(size: tuple[int, int]) -> None:
    plane = cv2.resize(photograph()[..., 1], size, interpolation=cv2.INTER_CUBIC)
    small = shrunk(plane, (320, 180))
    assert small.shape == (180, 320)
    how = cv2.INTER_AREA if size[0] >= 320 else cv2.INTER_LINEAR
    difference = small.astype(int) - cv2.resize(plane, (320, 180), interpolation=how)
    assert np.abs(difference).mean() < 1.5
    assert abs(difference.mean()) < 0.5


def test_cells_of_720p_are_macroblocks() -> None:
    cells = np.random.default_rng(0).random((45, 80)).astype(np.float32)
    assert on_macroblocks(cells, 1280, 720) is cells


def test_coverage_by_hand() -> None:
    """40x24 samples: 3 columns (the last half outside), 2 rows (the last half outside); cells of 10x12 samples."""
    cells = np.arange(8, dtype=np.float32).reshape(2, 4)
    # Across: 10 samples of cell 0 and 6 of 1; 4 of 1, 10 of 2, 2 of 3; 8 of 3. Down: 12 of row 0 and 4 of 1; 8 of 1.
    across = np.array([6 * 1, 4 * 1 + 10 * 2 + 2 * 3, 16 * 3]) / 16
    assert on_macroblocks(cells, 40, 24) == pytest.approx(np.stack([across + 1, across + 4]))


def test_upright_and_odd_sizes_by_hand() -> None:
    upright = np.zeros((80, 45), np.float32)
    upright[:40] = 1  # the upper half of 720x1280
    found = on_macroblocks(upright, 720, 1280)
    assert found.shape == (80, 45)
    assert (found[:40] == 1).all()
    assert not found[40:].any()
    cells = np.zeros((45, 80), np.float32)
    cells[0, 0] = 1  # 24x24 samples of 1920x1080
    found = on_macroblocks(cells, 1920, 1080)
    assert found.shape == (68, 120)
    assert found[:2, :2] == pytest.approx(np.array([[1, 0.5], [0.5, 0.25]]))
    assert found.sum() == pytest.approx(2.25)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 90), st.integers(1, 90), st.integers(1, 700), st.integers(1, 700), st.integers(0, 2**31)
)  # fmt: skip
def test_coverage_keeps_sums_and_constants(
    rows: int, columns: int, half_width: int, half_height: int, seed: int
) -> None:
    width, height = 2 * half_width, 2 * half_height
    cells = np.random.default_rng(seed).random((rows, columns)).astype(np.float32)
    found = on_macroblocks(cells, width, height)
    assert found.shape == grid_shape(width, height)
    assert cells.min() - 1e-5 <= found.min()
    assert found.max() <= cells.max() + 1e-5
    down = np.minimum(16, height - 16 * np.arange(found.shape[0]))
    across = np.minimum(16, width - 16 * np.arange(found.shape[1]))
    area = width / columns * height / rows
    assert (found * down[:, None] * across).sum() == pytest.approx(cells.sum() * area, rel=1e-4)
    assert on_macroblocks(np.full_like(cells, 0.7), width, height) == pytest.approx(0.7)


# The network


def test_probabilities_of_a_region(bright: FaceOptions) -> None:
    parser = bright.open()
    assert parser is not None
    assert (parser.name, parser.device) in (("bright", "CPU"), ("bright", "CUDA"))
    face = (480, 192, 224)
    picture = scene(face, size=(1280, 720))
    before = picture.copy()
    found = parser.probabilities(picture)
    assert np.array_equal(picture, before)
    assert found.dtype == np.float32
    assert found.shape == (45, 80)
    assert 0 <= found.min() <= found.max() <= 1
    assert np.array_equal(found > 0.5, squares(face, size=(1280, 720)))
    assert parser.last_ms > 0
    assert parser.probabilities(scene(size=(720, 1280))).shape == (80, 45)
    assert parser.probabilities(scene(size=(160, 96))).shape == (46, 77)


def test_colours_arrive_as_they_are(tmp_path: Path) -> None:
    """Pure red is "hair" to this network, white is face; limited range and BT.601 or it would be neither."""
    bgr = np.zeros((360, 640, 3), np.uint8)
    bgr[:, :320], bgr[:, 320:] = (0, 0, 255), (255, 255, 255)
    i420 = i420_from_bgr(bgr)
    options = bright_model(tmp_path)
    face, both = (FaceParser(options.model or "", options.card, region) for region in ("face", "face+hair"))
    narrow, wide = face.probabilities(i420), both.probabilities(i420)
    assert narrow[:, :39].max() < 0.01
    assert narrow[:, 41:].min() > 0.99
    assert wide.min() > 0.99


def test_a_photograph_in_rgb(bright: FaceOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shrinking planes and converting then is as good as the reverse."""
    seen = []
    monkeypatch.setattr("sender.parser._run", lambda _session, rgb: seen.append(rgb) or np.zeros((3, 60, 60), "f"))
    parser = bright.open()
    assert parser is not None
    i420 = i420_from_bgr(photograph())
    parser.probabilities(i420)
    rgb = seen[-1][0].transpose(1, 2, 0)
    reference = cv2.resize(bgr_from_i420(i420), (240, 240), interpolation=cv2.INTER_AREA)[..., ::-1]
    assert rgb.shape == (240, 240, 3)
    assert np.abs(rgb.astype(int) - reference).mean() < 2.5


def test_off_is_no_parser() -> None:
    assert FaceOptions().open() is None


# Refusals


def refusal(options: FaceOptions) -> str:
    with pytest.raises(SemcallError) as caught:
        options.open()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_region_that_the_model_lacks(bright: FaceOptions) -> None:
    said = refusal(FaceOptions(bright.model, bright.card, "person"))
    assert "knows no region 'person'" in said
    assert "face, face+hair" in said


def test_a_file_without_a_card(bright: FaceOptions) -> None:
    assert "no card bright.json" in refusal(FaceOptions(bright.model, {}))


@pytest.mark.parametrize(
    ("card", "reason"),
    [
        ({"classes": None}, "`classes` is no list"),
        ({"classes": ["face"]}, "`classes` is no list"),
        ({"classes": ["face", "face", "hair"]}, "`classes` is no list"),
        ({"regions": ["face"]}, "`regions` has no `face`"),
        ({"regions": {"person": ["face"]}}, "`regions` has no `face`"),
        ({"regions": {"face": []}}, "no list of names from `classes`"),
        ({"regions": {"face": ["skin"]}}, "no list of names from `classes`"),
        ({"input": None}, "`input` needs"),
        ({"input": {"pixels": 3, "multiple": 4}}, "`input` needs"),
        ({"input": {"pixels": 57600, "multiple": 0}}, "`input` needs"),
        ({"classes": ["background", "face"], "regions": {"face": ["face"]}}, r"its output logits is tensor\(float\)"),
    ],
)
def test_a_card_that_breaks_the_contract(tmp_path: Path, card: dict[str, Any], reason: str) -> None:
    with pytest.raises(SemcallError, match=f"does not keep the face-parser contract: .*{reason}"):
        bright_model(tmp_path, card=card).open()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rename": {"rgb": "image"}}, "its inputs are image instead of rgb"),
        ({"rename": {"logits": "out"}}, "its outputs are out instead of logits"),
        ({"element": 1}, r"its input rgb is tensor\(float\)"),
        ({"fixed": (180, 320)}, r"instead of uint8 \[1, 3, any, any\]"),
        ({"stride": 8}, "instead of 3 classes at a quarter of it or more"),
        ({"channels": 2}, "its output logits is"),
    ],
)
def test_a_network_that_breaks_the_contract(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(SemcallError, match=f"does not keep the face-parser contract: .*{reason}"):
        bright_model(tmp_path, **change).open()


@pytest.mark.parametrize("kept", [0, 0.3, 0.9])
def test_a_damaged_file(bright: FaceOptions, kept: float) -> None:
    assert bright.model is not None
    content = bright.model.read_bytes()
    bright.model.write_bytes(content[: int(len(content) * kept)])
    said = refusal(bright)
    assert "bright.onnx" in said
    assert "damaged or no ONNX model" in said or "does not keep" in said


def test_a_missing_file(tmp_path: Path) -> None:
    assert "cannot be read (No such file or directory)" in refusal(FaceOptions(tmp_path / "gone.onnx", CARD))


def test_a_failure_while_running_is_one_sentence(bright: FaceOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = bright.open()
    assert parser is not None

    def fail(*_: object) -> None:
        raise RuntimeError("device lost\nstack")

    monkeypatch.setattr("sender.parser._run", fail)
    with pytest.raises(SemcallError, match=r"^The face parser bright failed: device lost\.$"):
        parser.probabilities(scene())


@pytest.mark.parametrize("command", ["send", "encode", "mask", "demo"])
def test_the_command_line_says_it_in_one_sentence(
    command: str,
    bright: FaceOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    files = {"encode": ["in.mp4", "out.mp4"], "mask": ["in.mp4", "out.mp4"]}.get(command, [])
    arguments = [command, *(str(tmp_path / file) for file in files)]
    arguments += ["--out", str(tmp_path / "demo-out")] if command == "demo" else []
    for name, expected in (
        ("nobody", "There is no face-parser called 'nobody'"),
        (str(tmp_path / "gone.onnx"), "cannot be read"),
        ("small", "There is no face-parser called 'small'"),
    ):
        assert call(monkeypatch, *arguments, "--face", name) == 2
        said = capfd.readouterr().err
        assert said.startswith("semcall: ")
        assert said.count("\n") == 1
        assert expected in said
    assert bright.model is not None
    bright.model.with_suffix(".json").unlink()
    if command != "demo":  # its sender says it
        assert call(monkeypatch, *arguments, "--face", bright.model) == 2
        assert "no card" in capfd.readouterr().err
    assert call(monkeypatch, *arguments, "--face-region", "nose") == 2


def test_numbers_that_are_none_are_an_error_and_no_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = bright_model(tmp_path).open()
    assert parser is not None
    logits = np.zeros((3, 45, 80), np.float32)
    logits[1, 3, 4] = np.nan
    monkeypatch.setattr("sender.parser._run", lambda _session, _rgb: logits)
    with pytest.raises(SemcallError, match="gives numbers that are none"):
        parser.probabilities(scene())


def test_the_shipped_parser_says_what_it_said() -> None:
    """On a fixed picture; not to the cell, for processors differ in their last bits."""
    kept = json.loads(Path(__file__).with_name("face_snapshot.json").read_text())
    said = snapshot()
    assert said.keys() == kept.keys() == {"face", "face+hair"}
    for region, runs in kept.items():
        before, now = np.zeros((56, 104), np.bool_), np.zeros((56, 104), np.bool_)
        for mask, some in ((before, runs), (now, said[region])):
            for row, first, end in some:
                mask[row, first:end] = True
        assert before.sum() > 300
        assert overlap(now, before) > 0.99
