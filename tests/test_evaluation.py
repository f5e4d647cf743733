"""The demo and its parts: the yardstick, the joined logs, the figures, the contact sheet."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.evaluation.call_log import read_call_log
from models.evaluation.contact_sheet import Row, draw_sheet, face_box
from models.evaluation.plain import encode_plain
from models.evaluation.summary import face_psnr, summarise
from shared.astronaut import AstronautClip
from shared.grid import grid_shape
from shared.picture import CLOCK_RATE, planes

SIZE = (320, 180)


def mask_of(size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(grid_shape(*size), np.bool_)
    mask[3:8, 8:12] = True
    return mask


def test_plain_encode_meets_the_rate_within_one_percent() -> None:
    clip = AstronautClip(SIZE)
    pictures, rate = encode_plain(lambda: map(clip.picture, range(90)), 30, 150e3, {10, 80})
    assert rate == pytest.approx(150e3, rel=0.01)
    assert sorted(pictures) == [10, 80]
    everywhere = np.ones(grid_shape(*SIZE), np.bool_)
    own = face_psnr(clip.picture(80), pictures[80], everywhere)
    assert own > face_psnr(clip.picture(10), pictures[80], everywhere) + 3  # the right picture at each position


def write_logs(folder: Path, gap_at: int | None = None) -> tuple[Path, Path]:
    mask = base64.b64encode(np.packbits(mask_of(SIZE)).tobytes()).decode()
    start = 1_700_000_000 * CLOCK_RATE
    sent, shown = [], []
    for index in range(60):
        ticks = start + index * 3000
        line = {"ticks": ticks, "frame": index, "bits": 1000, "face_bits": 250.0, "dropped": 2, "mask": mask}
        sent.append(line | {"width": SIZE[0], "height": SIZE[1]})
        late = 0.4 if gap_at is not None and index >= gap_at else 0.0
        if index != 7:
            when = ticks / CLOCK_RATE + 0.05 + late
            shown.append(
                {"ticks": ticks, "decoded": when - 0.03, "shown": when, "restored": index % 2 == 0, "restore_ms": 9.0}
                | {"dropped": int(index > 7), "lost": 3, "rung": "b, face only" if index < 10 else "a, whole picture"}
            )
    shown.append(
        {"dropped": 9, "lost": 9, "ticks": 5, "decoded": 0.0, "shown": 0.0, "restored": True, "restore_ms": 1.0}
        | {"rung": "off"}
    )  # nobody sent it
    paths = folder / "sent.jsonl", folder / "received.jsonl"
    for path, lines in zip(paths, (sent, shown), strict=True):
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return paths


def test_summary_joins_both_logs(tmp_path: Path) -> None:
    log = read_call_log(*write_logs(tmp_path, gap_at=30))
    figures = summarise(log)
    assert figures["pictures_sent"] == 60
    assert figures["pictures_shown"] == 59
    assert figures["dropped_after_decode"] == 1
    assert figures["dropped_before_encode"] == 2
    assert figures["packets_lost"] == 3
    assert figures["kbps"] == pytest.approx(30.0)
    assert figures["face_share"] == 0.25
    assert figures["fps_sent"] == pytest.approx(30.0)
    assert figures["glass_to_decoded_ms"]["p50"] == pytest.approx(420, abs=1)
    assert (figures["freezes"], figures["frozen_seconds"]) == (1, pytest.approx(0.43, abs=0.01))
    assert figures["restored_percent"] == pytest.approx(100 * 30 / 59, abs=0.1)
    assert figures["restored_on"] == {"a, whole picture": 42.4, "b, face only": 8.5}  # 25 and 5 of 59
    assert (log.sent[0].mask == mask_of(SIZE)).all()


def test_summary_of_a_call_that_never_began(tmp_path: Path) -> None:
    figures = summarise(read_call_log(tmp_path / "none", tmp_path / "neither"))
    assert figures["pictures_shown"] == 0
    assert figures["glass_to_shown_ms"] is None


def test_moments_are_spread_and_leave_the_opening_out(tmp_path: Path) -> None:
    log = read_call_log(*write_logs(tmp_path))
    for index in (0, 10, 20, 30, 40, 50):
        picture = AstronautClip(SIZE).picture(index)
        np.savez(tmp_path / f"{log.sent[index].ticks}.npz", decoded=picture, shown=picture, restored=index != 20)
    moments = log.moments(tmp_path, 3)
    assert [moment.position for moment in moments] == [10, 30, 50]
    assert moments[1].seconds == pytest.approx(1.0)
    assert all(moment.restored for moment in moments)


def test_face_psnr_looks_at_the_mask_only() -> None:
    picture = AstronautClip(SIZE).picture(0)
    other = picture.copy()
    planes(other)[0][:16, :16] = 0
    assert face_psnr(picture, other, mask_of(SIZE)) > 90
    corner = np.zeros(grid_shape(*SIZE), np.bool_)
    corner[0, 0] = True
    assert face_psnr(picture, other, corner) < 20


def test_face_box_is_square_and_inside() -> None:
    left, top, right, bottom = face_box(mask_of(SIZE), *SIZE)
    assert right - left == bottom - top == 80
    assert left <= 128
    assert right >= 192
    left, top, right, bottom = face_box(np.zeros(grid_shape(*SIZE), np.bool_), *SIZE)
    assert 0 <= left < right <= 320
    assert 0 <= top < bottom <= 180


def test_contact_sheet_shows_every_column() -> None:
    clip = AstronautClip(SIZE)
    columns = [clip.picture(0), clip.picture(40), clip.picture(80)]
    sheet = draw_sheet(["one", "two", "three", "mask"], [Row("0 s", columns, mask_of(SIZE))] * 2)
    tiles = np.split(sheet[36:261, : 4 * 406], 4, axis=1)
    means = [cv2.cvtColor(tile[:, :400], cv2.COLOR_BGR2GRAY).astype(float) for tile in tiles]
    assert np.abs(means[0] - means[1]).mean() > 2  # different pictures
    assert means[3].mean() < 0.6 * means[0].mean()  # all but the face is darkened


def test_demo_holds_a_real_call(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "semcall", "demo", "--out", str(tmp_path), "--seconds", "4", "--headless"]
    command += ["--size", "640x360", "--sal", "35", "--bitrate", "250k"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | {"COLUMNS": "120"})
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "summary.json").read_text())
    assert figures["pictures_shown"] > 30
    assert figures["restored_percent"] > 0
    assert figures["plain_kbps"] == pytest.approx(figures["kbps"], rel=0.015)
    assert figures["face_psnr_db"]["decoded"] > figures["face_psnr_db"]["plain"]
    sheet = cv2.imread(str(tmp_path / "contact-sheet.png"))
    assert sheet is not None
    assert sheet.shape[1] == 5 * 406
    video = cv2.VideoCapture(str(tmp_path / "received.mp4"))
    assert video.read()[0]
    assert "The call, measured" in done.stdout


def test_demo_refuses_to_show_no_restorer(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "semcall", "demo", "--out", str(tmp_path / "out"), "--restore", "off"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_demo_says_what_is_wrong(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "semcall", "demo", "--out", str(tmp_path / "out"), "--source", "nothing.mp4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("semcall: ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
