"""What cards say, as tables: nothing is measured, so all can be known by hand."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cards
from models.registry import find_model

ROW: dict[str, Any] = {
    "clip": "one-1", "kbps": 400, "share": 15, "lost": False,
    "face": {"distance": [0.5, 0.4], "brisque": [50, 45], "ssim": [0.9, 0.91], "flicker": [1, 1.02],
             "identity": [0.9, 0.91]},
    "frame": {"distance": [1, 0.95], "brisque": [40, 40], "ssim": [0.8, 0.8], "flicker": [2, 2],
              "flat_flicker": [0.4, 0.5]},
    "effects": {"colour_shift": 0.3, "colour_change": 0.4, "mesh_2": [1.0, 1.05, 1.1], "mesh_4": [2.0, 2.0, 1.0]},
}  # fmt: skip


@pytest.fixture
def results() -> list[dict[str, Any]]:
    other, lost = copy.deepcopy(ROW), copy.deepcopy(ROW)
    other["clip"], other["face"]["distance"], other["effects"]["colour_shift"] = "two-1", [0.5, 0.5], 0.1
    lost["lost"] = True
    return [ROW, other, lost]


@pytest.mark.parametrize(
    ("card", "why"),
    [(None, "no card with figures"), ({"metrics": {"results": [{"clip": "one-1"}]}}, "of today's kind")],
)
def test_a_card_without_these_figures_is_one_sentence(
    card: dict[str, Any] | None, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "old.onnx"
    shutil.copy(find_model("small").path, path)
    if card is not None:
        shipped = json.loads(find_model("small").path.with_suffix(".json").read_text())
        path.with_suffix(".json").write_text(json.dumps(shipped | card))
    for model, what in ((path, why), (tmp_path / "none.onnx", "none.onnx")):
        monkeypatch.setattr("sys.argv", ["cards", "--model", str(model)])
        with pytest.raises(SystemExit, match=what):
            cards.main()


def test_a_line_per_clip_and_coding(results: list[dict[str, Any]]) -> None:
    lines = cards.table(results).splitlines()
    assert lines[2] == (
        "| one-1 | 400, 15% | 0.500 → 0.400 | 50.0 → 45.0 | 0.900 → 0.910 | 1.00 → 1.02 "
        "| 1.000 → 0.950 | 40.0 → 40.0 | 0.800 → 0.800 | 2.00 → 2.00 |"
    )
    assert [line.split(" | ")[:2] for line in lines[3:]] == [["| two-1", "400, 15%"], ["| one-1", "400, 15%, a loss"]]
    assert {line.count("|") for line in lines} == {11}


def test_means_are_over_the_clips_of_a_coding(results: list[dict[str, Any]]) -> None:
    lines = cards.means({"fine": results, "fast": results[:2]}).splitlines()
    assert lines[2] == "| 400, 15% | `fine` | -10.0 | -10.0 | +2.0 | -5.0 | +0.0 | +0.0 |"
    assert [line.split(" | ")[:3] for line in lines[3:]] == [
        ["| 400, 15%", "`fast`", "-10.0"],
        ["| 400, 15%, a loss", "`fine`", "-20.0"],
    ]
    assert {line.count("|") for line in lines} == {9}


def test_the_worst_clip_is_shown_of_what_may_not_go_wrong(results: list[dict[str, Any]]) -> None:
    results[1]["face"]["identity"] = [0.9, 0.85]
    results[1]["face"]["ssim"] = [0.9, 0.9]
    results[1]["face"]["flicker"] = [1, 1.5]
    results[1]["effects"]["mesh_4"] = [2.0, 3.0, 1.9]
    lines = cards.worst({"fine": results}).splitlines()
    assert lines[2:] == [
        "| 400, 15% | `fine` | -0.050 | +0.000 | 1.50 | 1.25 | 0.30 | 0.40 | 1.10 (1.05) | 0.95 (1.50) |",
        "| 400, 15%, a loss | `fine` | +0.010 | +0.010 | 1.02 | 1.25 | 0.30 | 0.40 | 1.10 (1.05) | 0.50 (1.00) |",
    ]
    assert {line.count("|") for line in lines} == {11}


@pytest.mark.parametrize("clips", [False, True])
def test_clips_are_shown_when_asked_for(
    clips: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["cards", "--model", "small", *(["--clips"] if clips else [])])
    cards.main()
    assert ("| lp_d13-1 | 400, 15% |" in capsys.readouterr().out) is clips
