"""Figures, JSON lines and snapshots of what was shown."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from receiver.logbook import Logbook
from receiver.picture import DecodedPicture
from shared.errors import SemcallError
from shared.lines import require_writable
from shared.picture import CLOCK_RATE
from shared.stats import Stats

TICKS = 1_700_000_000 * CLOCK_RATE + 12_345


def picture(shown: float, **facts: object) -> DecodedPicture:
    i420 = np.full((54, 64), 90, np.uint8)
    values = {"captured": shown - 0.050, "arrived": shown - 0.040, "decoded": shown - 0.030, "shown": shown}
    values |= {"keyframe": False} | facts
    return DecodedPicture(i420, np.full((3, 4), 31, np.uint8), 0, **values)  # type: ignore[arg-type]


def test_figures_of_the_last_seconds() -> None:
    logbook = Logbook()
    empty = logbook.stats()
    assert (empty.fps, empty.kbps, empty.restored_percent, empty.pictures, empty.freeze_seconds) == (0, 0, 0, 0, 0)
    assert empty.width is None
    assert empty.latency_ms is None
    assert empty.restore_ms is None
    base = Stats(state="live", restorer="small on CPU", face_share=0.21, lost=3, dropped=4)
    logbook.new_call(lambda: base)
    now = time.time()
    for index in range(30):
        restored = index % 3 == 0
        logbook.received(1000)
        logbook.shown(
            picture(
                now - 1 + index / 30,
                restored=np.full((54, 64), 91, np.uint8) if restored else None,
                restore_ms=8.0 if restored else 0.0,
            )
        )
    stats = logbook.stats()
    assert (stats.width, stats.height) == (64, 36)
    assert 0 < stats.fps <= 30
    assert 0 < stats.kbps <= 240
    assert stats.face_share == 0.21
    assert stats.restore_ms == 8.0
    assert stats.restored_percent == pytest.approx(100 / 3)
    assert stats.latency_ms == pytest.approx(50, abs=0.01)
    assert (stats.state, stats.restorer, stats.lost, stats.dropped) == ("live", "small on CPU", 3, 4)
    assert (stats.pictures, stats.keyframes) == (30, 0)


def test_latencies_that_only_disagreeing_clocks_explain_are_left_out() -> None:
    logbook = Logbook()
    now = time.time()
    logbook.shown(picture(now, captured=0.0))  # not known
    logbook.shown(picture(now, captured=now + 5))
    logbook.shown(picture(now, captured=now - 3600))
    assert logbook.stats().latency_ms is None


def test_old_pictures_count_no_more() -> None:
    logbook = Logbook()
    logbook.shown(picture(time.time() - 10, restored=np.zeros((54, 64), np.uint8), restore_ms=5.0))
    stats = logbook.stats()
    assert stats.fps == 0
    assert stats.restore_ms is None
    assert stats.restored_percent == 0


def test_a_json_line_for_every_picture_in_the_senders_ticks(tmp_path: Path) -> None:
    path = tmp_path / "shown.jsonl"
    logbook = Logbook(path)
    for index in range(3):
        logbook.shown(picture(1.7e9 + 1, captured=(TICKS + index) / CLOCK_RATE, restored=None))
    facts = {"restored": np.zeros((54, 64), np.uint8), "restore_ms": 7.654321, "rung": "small, face only"}
    logbook.shown(picture(1.7e9 + 2, captured=0.0, **facts))
    logbook.close()
    logbook.close()  # again: harmless
    logbook.shown(picture(1.7e9 + 3))  # after the end: figures only
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["ticks"] for line in lines] == [TICKS, TICKS + 1, TICKS + 2, 0]
    assert [line["restored"] for line in lines] == [False, False, False, True]
    assert lines[3]["restore_ms"] == 7.65
    assert [line["rung"] for line in lines] == ["off", "off", "off", "small, face only"]
    assert set(lines[1]) == {
        "ticks", "captured", "arrived", "decoded", "shown", "restored", "restore_ms", "rung", "keyframe",
        "damaged", "lost", "skipped", "plis", "dropped",
    }  # fmt: skip
    assert set(lines[0]) == set(lines[1]) | {"call"}


def test_every_line_tells_losses_from_drops(tmp_path: Path) -> None:
    logbook = Logbook(tmp_path / "shown.jsonl")
    for index in range(3):
        stats = Stats(lost=index, skipped=10 + index, plis=20 + index, dropped=30 + index)
        logbook.new_call(lambda stats=stats: stats)
        logbook.shown(picture(1.7e9 + index))
    logbook.close()
    lines = [json.loads(line) for line in (tmp_path / "shown.jsonl").read_text().splitlines()]
    for index, line in enumerate(lines):
        figures = [line[name] for name in ("lost", "skipped", "plis", "dropped")]
        assert figures == [index, 10 + index, 20 + index, 30 + index]


def test_about_once_a_second_a_line_tells_of_the_whole_call(tmp_path: Path) -> None:
    logbook = Logbook(tmp_path / "shown.jsonl")
    logbook.new_call(lambda: Stats(state="live", packets=10, lost=1, restorer="off"))
    times = [1.7e9 + index / 4 for index in range(9)]
    for when in times:
        logbook.shown(picture(when, keyframe=when == times[4]))
    logbook.shown(picture(times[0]))  # the clock was set back
    logbook.close()
    lines = [json.loads(line) for line in (tmp_path / "shown.jsonl").read_text().splitlines()]
    assert [index for index, line in enumerate(lines) if "call" in line] == [0, 4, 8, 9]
    call = lines[4]["call"]
    assert call["restorer"] == "off"
    assert (call["role"], call["state"], call["packets"], call["lost"]) == ("receive", "live", 10, 1)
    assert (call["pictures"], call["keyframes"], call["freeze_seconds"]) == (5, 1, 0)
    assert "target_kbps" not in call


def test_loss_and_freezes_of_a_call() -> None:
    logbook = Logbook()
    counts = {"packets": 0, "lost": 0}
    logbook.new_call(lambda: Stats(state="live", **counts))
    now = time.time()
    for index in range(10):
        counts["packets"] += 9
        counts["lost"] += 1
        logbook.shown(picture(now - 2 + index / 30 + (1.0 if index == 9 else 0)))
    stats = logbook.stats()
    assert stats.loss == pytest.approx(0.1)
    assert stats.freeze_seconds == pytest.approx(1 + 1 / 30)


def test_a_new_call_knows_nothing_of_the_one_before() -> None:
    logbook = Logbook()
    fresh = logbook.stats()
    for index in range(20):
        logbook.received(1000)
        logbook.shown(picture(time.time() + index * 1e-3, restored=np.zeros((54, 64), np.uint8), restore_ms=5.0))
    assert logbook.stats().latency_ms is not None
    logbook.new_call(Stats)
    assert logbook.stats() == fresh


def test_snapshots_of_stamped_pictures_restored_or_not(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "snapshots"
    logbook = Logbook(snapshots=folder)
    restored = np.full((54, 64), 91, np.uint8)
    captured = TICKS / CLOCK_RATE
    logbook.shown(picture(1.7e9, captured=captured, stamped=True))  # bypassed
    logbook.shown(picture(1.7e9, captured=captured + 1, restored=restored))  # not stamped
    logbook.shown(picture(1.7e9, captured=captured + 2, stamped=True, restored=restored))
    names = sorted(file.name for file in folder.iterdir())
    assert names == [f"{TICKS}.npz", f"{TICKS + 2 * CLOCK_RATE}.npz"]
    for name, code, was_restored in zip(names, (90, 91), (False, True), strict=True):
        with np.load(folder / name) as saved:
            assert np.all(saved["decoded"] == 90)
            assert np.all(saved["shown"] == code)
            assert bool(saved["restored"]) is was_restored


def test_what_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SemcallError, match=r"Cannot write .*missing.*choose another"):
        Logbook(tmp_path / "missing" / "shown.jsonl")
    with pytest.raises(SemcallError, match=r"Cannot write .*directory"):
        Logbook(tmp_path)
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SemcallError, match=r"Cannot make .*choose another directory"):
            Logbook(tmp_path / "shown.jsonl", snapshots=place)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_file_without_lines_is_not_left_behind(tmp_path: Path) -> None:
    path, old = tmp_path / "shown.jsonl", tmp_path / "old.jsonl"
    old.write_text("")
    for each in (path, old):
        Logbook(each).close()
    assert not path.exists()
    assert old.exists()  # was there before


def test_asking_whether_a_file_can_be_written_changes_nothing(tmp_path: Path) -> None:
    require_writable(None)
    require_writable(tmp_path / "new.jsonl")
    assert list(tmp_path.iterdir()) == []
    old = tmp_path / "old.jsonl"
    old.write_text("kept")
    require_writable(old)
    assert old.read_text() == "kept"
    with pytest.raises(SemcallError, match="Cannot write"):
        require_writable(tmp_path / "missing" / "new.jsonl")


def test_a_full_disk_ends_the_logging_and_not_the_call(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    logbook = Logbook(lines=Path("/dev/full"))
    for index in range(400):  # more than the file's buffer
        logbook.shown(picture(time.time() + index * 1e-6))
    assert logbook.errors == ["The log /dev/full is incomplete (No space left on device)."]
    assert logbook.stats().fps > 0
    logbook.close()


def test_snapshots_that_cannot_be_saved_end_and_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "snapshots"
    logbook = Logbook(snapshots=folder)
    folder.rmdir()
    logbook.shown(picture(1.7e9, captured=TICKS / CLOCK_RATE, stamped=True))
    assert logbook.errors == [f"Snapshots in {folder} are missing (No such file or directory)."]
    folder.mkdir()
    logbook.shown(picture(1.7e9 + 1, captured=TICKS / CLOCK_RATE + 1, stamped=True))
    assert list(folder.iterdir()) == []
