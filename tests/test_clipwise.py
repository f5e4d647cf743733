"""The table that benchmarks.clipwise makes of an evaluation's records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import clipwise


def record(kbps: int, share: int, restorer: str, face: float, frame: float) -> dict[str, object]:
    sides = {part: {"distance": value, "ssim": 0.9} for part, value in (("face", face), ("frame", frame))}
    return {"clip": "a-1", "kbps": kbps, "share": share, "restorer": restorer, **sides}


def test_changes_are_relative_to_the_decoded_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [
        record(1000, 0, "none", 0.1, 0.2), record(400, 0, "none", 0.3, 0.4), record(400, 15, "none", 0.5, 0.6),
        record(400, 15, "small", 0.4, 0.63), record(400, 45, "small", 0.25, 0.5),
    ]  # fmt: skip
    path = tmp_path / "records.json"
    path.write_text(json.dumps({"facts": {}, "records": records}))
    clipwise.main([str(path), "--restorer", "small"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "| a-1 | 0.100 | 0.300 | 0.500 | 0.400 (-20.0%) | 0.250 | 0.600 | 0.630 (+5.0%) |"
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    assert lines[-2:] == [
        "frame, small: distance 0.630, ssim 0.900",
        "frame, small: distance changed by 5.0% in the mean of the clips",
    ]


def test_what_is_not_known_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = ((1000, 0, "none"), (400, 0, "none"), (400, 15, "none"), (400, 15, "small"), (400, 45, "small"))
    records = [record(*cell, 0.5, 0.5) for cell in cells]
    for one in records:
        one["face"] = {"distance": None, "ssim": None}
    path = tmp_path / "records.json"
    path.write_text(json.dumps({"facts": {}, "records": records}))
    clipwise.main([str(path), "--restorer", "small"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| a-1 | – | – | – | – | – | 0.500 |")
    assert "face, small: nothing is known" in lines
    assert "face, small: distance changed by –% in the mean of the clips" in lines
    assert "frame, small: distance 0.500, ssim 0.900" in lines
