"""The encode thread with the real encoder: nothing coded is lost, everything is told."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from sender.control import ROOM
from sender.live import EncodeOptions, EncodeThread
from sender.rate import KeyframeGate
from shared.astronaut import AstronautClip
from shared.errors import SemcallError
from shared.grid import Mask, grid_shape
from shared.h264 import is_keyframe
from shared.mailbox import Latest
from shared.picture import CLOCK_RATE, Picture
from shared.stamp import read_stamp

SIZE = 160, 96
START = 1_700_000_000 * CLOCK_RATE


class Masks:
    """Stands for the face segmenter: a fixed rectangle of macroblocks, or nobody."""

    def __init__(self, somebody: bool = True) -> None:
        self.somebody = somebody
        self.milliseconds = {"flow": 0.4}

    def mask(self, picture: Picture) -> Mask:
        mask = np.zeros(grid_shape(picture.width, picture.height), np.bool_)
        if self.somebody:
            mask[1:4, 3:6] = True
        return mask


class Bench:
    """An encode thread fed by hand: `feed` returns once the picture was dealt with."""

    def __init__(self, options: EncodeOptions | None = None, masks: Masks | None = None) -> None:
        self.pictures: Latest[Picture] = Latest()
        self.now = 0.0
        self.gate = KeyframeGate(clock=lambda: self.now)
        self.options = options or EncodeOptions(bitrate=80e3, share=0.3, mode="exact")
        self.congested = False
        self.target: float | None = None
        self.usable: float | None = None
        self.units: list[tuple[bytes, int]] = []
        self.clips: dict[tuple[int, int], AstronautClip] = {}
        self._asked = threading.Semaphore(0)
        self.thread = EncodeThread(
            self.pictures,
            masks or Masks(),
            self.gate,
            lambda unit, ticks: self.units.append((unit, ticks)),
            lambda: self.congested,
            self.options,
            SIZE,
            clock=lambda: self.now,
            target=lambda: self.target or self.options.bitrate,
            usable=lambda: self.usable or self.target or self.options.bitrate,
        )
        self._in_vain = False
        get = self.pictures.get

        def announced(timeout: float | None = None) -> Picture | None:
            self._asked.release()  # the thread is back for more: the last picture is dealt with
            assert timeout is not None  # nor does it wait for ever
            assert timeout < 1
            picture = get(20)
            if self._in_vain:
                self._in_vain, picture = False, None
            return picture

        self.pictures.get = announced  # type: ignore[method-assign]

    def __enter__(self) -> Bench:
        self.thread.start()
        assert self._asked.acquire(timeout=20)
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def feed(self, index: int, size: tuple[int, int] = SIZE) -> None:
        clip = self.clips.setdefault(size, AstronautClip(size))
        self.now = index / 30
        self.pictures.put(Picture(clip.picture(index), START + index * 3000, index))
        assert self._asked.acquire(timeout=20)

    def wait(self, seconds: float) -> None:
        """Let `seconds` go by in which no picture comes."""
        self.now += seconds
        self._in_vain = True
        self.pictures.put(Picture(np.zeros((24, 16), np.uint8), 0, 0))  # wakes the thread; it gets nothing
        assert self._asked.acquire(timeout=20)

    def close(self) -> None:
        self.pictures.close()
        self.thread.join(20)
        assert not self.thread.is_alive()


def test_every_coded_unit_is_delivered_and_decodes() -> None:
    with Bench() as bench:
        for index in range(20):
            bench.feed(index)
    assert bench.thread.error is None
    assert [ticks for _, ticks in bench.units] == [START + 3000 * n for n in range(20)]
    assert [is_keyframe(unit) for unit, _ in bench.units] == [True] + [False] * 19
    codec = av.CodecContext.create("h264", "r")
    codec.thread_count = 1
    frames = [frame for unit, _ in bench.units for frame in codec.decode(av.Packet(unit))] + codec.decode(None)
    assert len(frames) == 20
    assert not any(frame.is_corrupt for frame in frames)


def test_congestion_skips_before_coding_and_leaves_the_stream_whole() -> None:
    with Bench() as bench:
        for index in range(12):
            bench.congested = 4 <= index < 9
            bench.feed(index)
    assert bench.thread.skipped == 5
    assert bench.thread.dropped == 5
    assert [(ticks - START) // 3000 for _, ticks in bench.units] == [0, 1, 2, 3, 9, 10, 11]
    assert sum(is_keyframe(unit) for unit, _ in bench.units) == 1  # no IDR: nothing is missing
    codec = av.CodecContext.create("h264", "r")
    codec.thread_count = 1
    frames = [frame for unit, _ in bench.units for frame in codec.decode(av.Packet(unit))] + codec.decode(None)
    shown = frames[-1].to_ndarray().astype(float)[: SIZE[1]]
    source = AstronautClip(SIZE).picture(11)[: SIZE[1]]
    assert 10 * np.log10(255**2 / np.mean((shown - source) ** 2)) > 26


def test_a_new_target_is_met_within_a_second_without_an_idr() -> None:
    with Bench() as bench:
        for index in range(150):
            bench.target = 80e3 if index < 60 else 35e3 if index < 120 else 120e3
            bench.feed(index)
    assert bench.thread.level == 0
    assert [n for n, (unit, _) in enumerate(bench.units) if is_keyframe(unit)] == [0]
    rates = [sum(len(unit) for unit, _ in bench.units[n : n + 30]) * 8 for n in (30, 75, 90, 120)]
    assert rates == pytest.approx([80e3, 35e3, 35e3, 120e3], rel=0.15)


def test_a_poor_rate_takes_pictures_then_size_and_gives_them_back() -> None:
    """At 160x96 the rungs are below 4.0, 2.8 and 1.8 kb/s: `pixels` of `RUNGS`."""
    with Bench() as bench:
        for index in range(30 * 33):
            bench.target = 60e3 if index < 30 or index >= 300 else 1.5e3
            bench.feed(index)
    assert bench.thread.error is None
    assert bench.thread.level == 0
    codec = av.CodecContext.create("h264", "r")
    codec.thread_count = 1
    frames = [frame for unit, _ in bench.units for frame in codec.decode(av.Packet(unit))] + codec.decode(None)
    assert not any(frame.is_corrupt for frame in frames)
    sizes = [(frame.width, frame.height) for frame in frames]
    changes = [n for n in range(1, len(sizes)) if sizes[n] != sizes[n - 1]]
    assert [sizes[n] for n in (0, *changes)] == [SIZE, (80, 48), SIZE]
    assert [n for n, (unit, _) in enumerate(bench.units) if is_keyframe(unit)] == [0, *changes]
    seconds = [int((ticks - START) / CLOCK_RATE) for _, ticks in bench.units]
    assert [seconds.count(second) for second in (0, 5, 8, 32)] == [30, 15, 15, 30]
    assert bench.thread.skipped == 990 - len(bench.units)
    assert bench.thread.size == SIZE


def test_a_keyframe_is_not_left_out() -> None:
    with Bench() as bench:
        for index in range(120):
            bench.target = 2.5e3 if index else 60e3
            if index == 91:
                bench.gate.request()
            bench.feed(index)
    assert bench.thread.level == 2
    times = [(ticks - START) // 3000 for unit, ticks in bench.units if is_keyframe(unit)]
    assert times == [0, 91]


def test_room_for_repairs_takes_no_pictures_away() -> None:
    """A dip costs pictures; after it they come back, however much of the rate is kept free."""
    with Bench() as bench:
        levels = []
        for index in range(30 * 26):
            bench.usable = 2.5e3 if 270 <= index < 300 else 80e3
            bench.target = ROOM * bench.usable
            bench.feed(index)
            levels.append(bench.thread.level)
    assert max(levels) > 0
    assert levels[-1] == 0


def test_stamps_come_with_idrs_and_every_second() -> None:
    with Bench() as bench:
        for index in range(70):
            if index == 50:
                bench.gate.request()
            bench.feed(index)
    stamped = {n: stamp for n, (unit, _) in enumerate(bench.units) if (stamp := read_stamp(unit)) is not None}
    assert list(stamped) == [0, 1, 31, 50]
    assert stamped[0].face_share is None, "its bits are measured when it has left"
    assert stamped[1].face_share is not None
    for index, stamp in stamped.items():
        assert stamp.ticks == START + 3000 * index
    assert stamped[50].face_share == pytest.approx(0.3, abs=0.06)
    keys = [n for n, (unit, _) in enumerate(bench.units) if is_keyframe(unit)]
    assert keys == [0, 50]


def test_a_request_just_after_the_first_idr_waits_its_turn() -> None:
    """Receivers ask as soon as they connect; the first IDR has answered already."""
    with Bench() as bench:
        for index in range(40):
            if index == 2:
                bench.gate.request()
            bench.feed(index)
    assert [n for n, (unit, _) in enumerate(bench.units) if is_keyframe(unit)] == [0, 30]


def test_new_size_opens_a_new_encoder_with_an_idr() -> None:
    with Bench() as bench:
        for index in range(9):
            bench.feed(index, (96, 160) if 3 <= index < 6 else SIZE)
        bench.gate.request()  # inside the gap after the last of these IDRs
        bench.feed(9)
    assert [n for n, (unit, _) in enumerate(bench.units) if is_keyframe(unit)] == [0, 3, 6]
    codec = av.CodecContext.create("h264", "r")
    codec.thread_count = 1
    frames = [frame for unit, _ in bench.units for frame in codec.decode(av.Packet(unit))] + codec.decode(None)
    assert [(frame.width, frame.height) for frame in frames] == [SIZE] * 3 + [(96, 160)] * 3 + [SIZE] * 4


def test_lines_say_what_was_coded(tmp_path: Path) -> None:
    path = tmp_path / "stats.jsonl"
    with Bench(EncodeOptions(bitrate=80e3, share=0.3, stats=path)) as bench:
        for index in range(6):
            bench.congested = index == 2
            bench.feed(index)
    lines: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["frame"] for line in lines] == [0, 1, 3, 4, 5]
    for line, (unit, ticks) in zip(lines, bench.units, strict=True):
        stamp_bits = 36 * 8 if read_stamp(unit) else 0
        assert line["ticks"] == ticks
        assert line["bits"] == len(unit) * 8 - stamp_bits
        assert line["keyframe"] == is_keyframe(unit)
        assert line["share"] == pytest.approx(line["face_bits"] / line["bits"], abs=1e-4)
        assert 14 <= line["qp_face"] <= line["qp_background"] <= 51
        assert set(line["ms"]) == {"flow", "plan", "x264", "parse"}
        assert line["ms"]["flow"] == 0.4
        shape = grid_shape(line["width"], line["height"])
        packed = np.frombuffer(base64.b64decode(line["mask"]), np.uint8)
        mask = np.unpackbits(packed)[: shape[0] * shape[1]].reshape(shape).astype(bool)
        assert np.array_equal(mask, Masks().mask(Picture(AstronautClip(SIZE).picture(0), 0, 0)))
    assert [line["dropped"] for line in lines] == [0, 0, 1, 1, 1]


def test_lines_of_a_later_call_follow_those_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "stats.jsonl"
    path.write_text("of an earlier run\n")
    for append in (False, True):
        with Bench(EncodeOptions(bitrate=80e3, share=0.3, stats=path, append=append)) as bench:
            bench.feed(0)
            bench.feed(1)
    assert [json.loads(line)["frame"] for line in path.read_text().splitlines()] == [0, 1, 0, 1]


def test_status_line_and_share() -> None:
    with Bench() as bench:
        assert bench.thread.stats().line() == "starting"
        assert bench.thread.face_share is None
        for index in range(45):
            bench.feed(index)
    parts = bench.thread.stats().line().split(" · ")
    assert parts[0] == "160x96"
    assert parts[1] in ("30 fps", "31 fps")
    assert float(parts[2].removesuffix(" kb/s")) == pytest.approx(80, rel=0.5)
    share = bench.thread.face_share
    assert share is not None
    assert parts[3] == f"face {share * 100:.0f}%"
    last = bench.thread.last
    assert last is not None
    assert parts[4] == f"QP {last.qp_face:.0f}/{last.qp_background:.0f}"


def test_nobody_in_view_is_said() -> None:
    with Bench(masks=Masks(somebody=False)) as bench:
        for index in range(3):
            bench.feed(index)
    assert bench.thread.face_share is None
    assert "no face" in bench.thread.stats().line()
    stamp = read_stamp(bench.units[0][0])
    assert stamp is not None
    assert stamp.face_share is None


def test_a_source_that_pauses_is_sent_again_about_once_a_second(tmp_path: Path) -> None:
    path = tmp_path / "stats.jsonl"
    with Bench(EncodeOptions(bitrate=80e3, share=0.3, stats=path)) as bench:
        bench.wait(5.0)  # before the first picture there is nothing to send
        for index in range(30):
            bench.feed(index)
        planned = [bench.thread._encoder.controller._face.qp, bench.thread._encoder.controller._period]
        for _ in range(24):
            bench.wait(0.5)
        assert planned == [bench.thread._encoder.controller._face.qp, bench.thread._encoder.controller._period]
        bench.feed(30 + 12 * 30)
    assert bench.thread.error is None
    seconds = [(ticks - START) / CLOCK_RATE for _, ticks in bench.units]
    assert seconds[29:] == pytest.approx([29 / 30 + n for n in range(13)] + [13.0])
    assert sum(len(unit) for unit, _ in bench.units[30:42]) * 8 < 0.02 * 80e3 * 12
    frames = [json.loads(line)["frame"] for line in path.read_text().splitlines()]
    assert frames == [*range(30), *[29] * 12, 390]
    codec = av.CodecContext.create("h264", "r")
    codec.thread_count = 1
    decoded = [frame for unit, _ in bench.units for frame in codec.decode(av.Packet(unit))] + codec.decode(None)
    still = [frame.to_ndarray().astype(int) for frame in decoded[29:42]]
    assert len(still) == 13
    assert max(float(np.abs(picture - still[0]).mean()) for picture in still) < 1


def test_a_keyframe_asked_for_in_a_pause_comes_at_once() -> None:
    with Bench() as bench:
        for index in range(45):
            bench.feed(index)
        bench.gate.request()
        bench.wait(0.1)
        bench.wait(0.1)
    assert [n for n, (unit, _) in enumerate(bench.units) if is_keyframe(unit)] == [0, 45]
    assert len(bench.units) == 46
    assert bench.units[45][1] == START + 44 * 3000 + 9000
    assert read_stamp(bench.units[45][0]) is not None


def test_ticks_never_run_back_after_a_pause() -> None:
    with Bench() as bench:
        bench.feed(0)
        bench.wait(1.0)
        late = [Picture(AstronautClip(SIZE).picture(n), START + n * 3000, n) for n in (28, 29, 33)]
        for picture in late:  # its source runs a little behind
            bench.pictures.put(picture)
            assert bench._asked.acquire(timeout=20)
    assert [ticks - START for _, ticks in bench.units] == [0, 90_000, 90_001, 90_002, 99_000]


def test_a_congested_pause_sends_nothing_and_then_what_was_skipped() -> None:
    with Bench() as bench:
        bench.feed(0)
        bench.congested = True
        bench.feed(1)
        bench.wait(1.5)
        assert len(bench.units) == 1
        bench.congested = False
        bench.wait(0.1)
    assert bench.thread.skipped == 1
    assert len(bench.units) == 2
    codec = av.CodecContext.create("h264", "r")
    codec.thread_count = 1
    frames = [frame for unit, _ in bench.units for frame in codec.decode(av.Packet(unit))] + codec.decode(None)
    luma = frames[1].to_ndarray()[: SIZE[1]].astype(float)
    errors = [float(np.mean((luma - AstronautClip(SIZE).picture(n)[: SIZE[1]]) ** 2)) for n in (0, 1)]
    assert errors[1] < errors[0]


def test_the_status_line_goes_on_in_a_pause() -> None:
    with Bench() as bench:
        for index in range(60):
            bench.feed(index)
        before, share = bench.thread.stats().line(), bench.thread.face_share
        bench.now += 10.0
        after = bench.thread.stats().line()
    assert " 30 fps" in before or " 31 fps" in before
    assert after.split(" · ")[1:3] == ["0 fps", "0 kb/s"]
    assert bench.thread.face_share == share


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_log_that_breaks_off_is_kept() -> None:
    with Bench(EncodeOptions(bitrate=80e3, stats=Path("/dev/full"))) as bench:
        assert bench.thread.log_error is None
        for index in range(3):
            bench.feed(index)
    assert bench.thread.error is None
    assert bench.thread.log_error is not None
    assert len(bench.units) == 3


def failing(_unit: bytes, _ticks: int) -> None:
    raise RuntimeError("the loop is closed")


@pytest.mark.parametrize("deliver", [failing])
def test_a_failure_ends_the_thread_and_is_kept(deliver: Callable[[bytes, int], None], tmp_path: Path) -> None:
    bench = Bench(EncodeOptions(bitrate=80e3, stats=tmp_path / "stats.jsonl"))
    bench.thread._deliver = deliver
    bench.thread.start()
    bench.pictures.put(Picture(AstronautClip(SIZE).picture(0), START, 0))
    bench.thread.join(20)
    assert not bench.thread.is_alive()
    assert isinstance(bench.thread.error, RuntimeError)
    assert bench.pictures.closed
    assert not (tmp_path / "stats.jsonl").exists()  # closed, and removed for want of lines


def test_stats_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(SemcallError, match="--stats"):
        Bench(EncodeOptions(stats=tmp_path / "absent" / "stats.jsonl"))


def test_gate_serves_a_request_once_and_not_too_often() -> None:
    now = [100.0]
    gate = KeyframeGate(gap=1.0, clock=lambda: now[0])
    assert not gate.due()
    gate.request()
    assert gate.pending
    assert gate.due()
    assert not gate.due()
    gate.request()
    gate.request()
    assert not gate.pending
    now[0] = 100.9
    assert not gate.due()  # inside the gap: kept, not lost
    now[0] = 101.0
    assert gate.due()
    assert not gate.due()
    gate.request()
    gate.sent()  # an IDR left anyway
    now[0] = 110.0
    assert not gate.due()
