"""The receiver's ladder of restorers: the face region, rungs, measuring, failures, what the command line opens."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import call
from numpy.typing import NDArray

import models.registry
import receiver.restorer
import receiver.restorer_files
import semcall
from models.registry import find_model
from receiver.app import ReceiveOptions, Receiver
from receiver.face_region import face_region, middle, restore_face
from receiver.picture import DecodedPicture
from receiver.restorer import RestorerLadder
from receiver.restorer_files import LARGEST_ON_CPUS, RestorerFile, open_restorers
from receiver.rung import Rung
from receiver.schedule import RestoreSchedule
from shared.errors import SemcallError
from shared.grid import grid_shape
from shared.picture import I420, planes
from shared.restorer import Restorer

WAIT = 20.0  # seconds after which a test gives up
AMPLE = 1000.0  # seconds of budget: however slow this machine is, there is time


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def quantisers(width: int, height: int, face: tuple[slice, slice] | None = None) -> NDArray[np.uint8]:
    qp = np.full(grid_shape(width, height), 38, np.uint8)
    if face is not None:
        qp[face] = 28
    return qp


def texture(width: int, height: int) -> I420:
    random = np.random.default_rng(3)
    luma = np.kron(random.integers(40, 210, (-(-height // 8), -(-width // 8)), np.uint8), np.ones((8, 8), np.uint8))
    chroma = random.integers(110, 146, (height // 2, width), np.uint8)
    return np.concatenate([luma[:height, :width] + random.integers(0, 6, (height, width), np.uint8), chroma])


def decoded(width: int = 96, height: int = 64, face: bool = True) -> DecodedPicture:
    qp = quantisers(width, height, (slice(1, 2), slice(2, 3)) if face else None)
    return DecodedPicture(texture(width, height), qp, 0, False, decoded=time.time())


class Fake:
    """Adds `amount` to every sample. Waits for `go`, fails with `problem`, and notes what it did on which thread."""

    def __init__(self, name: str, amount: int, device: str = "CPU") -> None:
        self.name, self.amount, self.device = name, amount, device
        self.go: threading.Semaphore | None = None
        self.problem = ""
        self.faster = ""
        self.done: queue.Queue[tuple[str, tuple[int, ...]]] = queue.Queue()

    def restore(self, i420: I420, qp: NDArray[np.uint8]) -> I420:
        height, width = i420.shape[0] * 2 // 3, i420.shape[1]
        assert qp.shape == grid_shape(width, height)
        if self.go is not None:
            assert self.go.acquire(timeout=WAIT)
        self.done.put((threading.current_thread().name, i420.shape))
        if self.problem:
            raise SemcallError(self.problem)
        return i420 + np.uint8(self.amount)

    def accelerate(self) -> bool:
        self.device = self.faster or self.device
        return bool(self.faster)

    def forget(self) -> None:
        self.done = queue.Queue()


def restore(ladder: RestorerLadder, picture: DecodedPicture) -> None:
    """As the receiver's two threads do, in one."""
    chosen = ladder.choose(picture)
    if chosen is not None:
        ladder.run(picture, chosen)


class Climb:
    """A ladder of two fakes with all the time in the world, its schedule and its clock."""

    def __init__(self, *networks: Fake, budget: float = AMPLE, warm: bool = True) -> None:
        self.networks = list(networks) or [Fake("large", 3), Fake("small", 1)]
        self.now = 100.0
        self._budget = budget
        self.schedule = RestoreSchedule(2 * len(self.networks), budget)
        self.ladder = RestorerLadder(self.networks, self._made, lambda: self.now)
        if warm:
            self.ladder.warm_up(96, 64)
            for network in self.networks:
                network.forget()

    def _made(self, rungs: int) -> RestoreSchedule:
        assert rungs == self.schedule.off
        return self.schedule

    def show(self, picture: DecodedPicture | None = None) -> DecodedPicture:
        picture = picture or decoded()
        restore(self.ladder, picture)
        return picture

    def slow(self, rung: int) -> None:
        """Pictures on `rung` took three times the budget lately."""
        for _ in range(20):
            self.schedule.took(rung, 3 * self._budget, self.now)

    def hopeless(self, rung: int) -> None:
        """Measured, `rung` took so long that no picture is given to it to see."""
        self.schedule.measured(rung, 4 * self._budget, self.now)


# The face region


def test_the_face_region_is_what_was_coded_finely_and_a_macroblock_around_it() -> None:
    qp = quantisers(320, 192, (slice(4, 7), slice(5, 9)))
    assert face_region(qp) == (slice(3, 8), slice(4, 10))


def test_the_largest_connected_part_counts() -> None:
    qp = quantisers(320, 192, (slice(4, 7), slice(5, 9)))
    qp[10, 15:20] = 20  # longer, but smaller
    qp[7, 9] = 28  # corner to corner belongs to it
    assert face_region(qp) == (slice(3, 9), slice(4, 11))


def test_a_region_ends_with_the_picture() -> None:
    qp = quantisers(100, 70, (slice(0, 5), slice(0, 3)))
    assert qp.shape == (5, 7)
    rows, columns = face_region(qp) or pytest.fail("none")
    i420 = texture(100, 70)
    restored = restore_face(Fake("f", 7).restore, i420, qp)
    changed = planes(restored)[0] != planes(i420)[0]
    assert changed[:70, : 16 * columns.stop].all()
    assert not changed[:, 16 * columns.stop :].any()
    assert rows.stop * 16 >= 70


@pytest.mark.parametrize("finer", [0, 3])
def test_what_is_hardly_finer_is_no_face(finer: int) -> None:
    qp = quantisers(320, 192)
    qp[4:7, 5:9] -= finer
    assert face_region(qp) is None


def test_four_steps_finer_is_a_face_and_no_quantisers_are_none() -> None:
    qp = quantisers(320, 192)
    qp[4:7, 5:9] -= 4
    assert face_region(qp) is not None
    assert face_region(np.zeros((12, 20), np.uint8)) is None


@pytest.mark.parametrize("shape", [(45, 80), (80, 45), (4, 6), (3, 3), (2, 5), (1, 1)])
def test_the_middle_lies_inside(shape: tuple[int, int]) -> None:
    for part, count in zip(middle(*shape), shape, strict=True):
        assert 0 <= part.start < part.stop <= count
        assert part.start == count - part.stop
        assert part.stop - part.start <= count // 2 + 4


def test_the_face_alone_is_as_in_the_whole_and_the_rest_untouched() -> None:
    """Real network: away from the region's border, where it sees less than in the whole picture, nothing differs."""
    model = find_model("fast")
    network = Restorer(model.path, model.name)
    i420, qp = texture(320, 192), quantisers(320, 192, (slice(2, 10), slice(5, 15)))
    before = i420.copy()
    whole, face = network.restore(i420, qp), restore_face(network.restore, i420, qp)
    assert np.array_equal(i420, before)
    assert not np.shares_memory(face, i420)
    rows, columns = face_region(qp) or pytest.fail("none")
    for plane, scale in ((0, 16), (1, 8)):
        got, all_of_it, old = (planes(picture)[plane] for picture in (face, whole, i420))
        inside = np.zeros(got.shape[-2:], np.bool_)
        inside[rows.start * scale : rows.stop * scale, columns.start * scale : columns.stop * scale] = True
        assert np.array_equal(got[..., ~inside], old[..., ~inside])
        middle = (
            slice((rows.start + 3) * scale, (rows.stop - 3) * scale),
            slice((columns.start + 3) * scale, (columns.stop - 3) * scale),
        )
        assert np.array_equal(got[..., *middle], all_of_it[..., *middle])
        if plane == 0:
            assert (got[middle] != old[middle]).mean() > 0.2


# Rungs


def test_rungs_lead_from_the_largest_whole_to_its_face_to_the_smallest_face_to_off() -> None:
    climb = Climb()
    large, small = climb.networks
    seen = []
    for rung in range(5):
        picture = climb.show()
        seen.append((picture.rung, climb.ladder.status, picture.restored is not None))
        if rung < 4:
            climb.slow(rung)
    assert seen == [
        ("large, whole picture", "large on CPU, whole picture", True),
        ("large, face only", "large on CPU, face only", True),
        ("small, whole picture", "small on CPU, whole picture", True),
        ("small, face only", "small on CPU, face only", True),
        ("off", "off: this machine is too slow", False),
    ]
    for network in (large, small):
        assert [shape for _, shape in network.done.queue] == [(96, 96), (72, 48)]


def test_a_picture_says_what_became_of_it() -> None:
    climb = Climb()
    picture = climb.show()
    assert picture.restored is not None
    assert np.array_equal(picture.restored, picture.i420 + np.uint8(3))
    assert picture.restore_ms > 0
    late = decoded()
    late.decoded -= 2 * AMPLE
    assert climb.show(late).restored is None
    assert (late.rung, late.restore_ms) == ("large, whole picture", 0), "one late picture leads nowhere"


def test_a_rung_slower_than_pictures_follow_each_other_is_left() -> None:
    climb = Climb()
    for rung, seconds in enumerate((0.025, 0.020, 0.015, 0.010)):
        climb.schedule.measured(rung, seconds, climb.now)
    rungs = {}
    for rate in (30, 60):
        picture = decoded()
        picture.period = 1 / rate
        climb.ladder.choose(picture)
        rungs[rate] = picture.rung
    assert rungs == {30: "large, whole picture", 60: "small, whole picture"}


def test_face_only_restores_the_middle_where_no_face_stands_out() -> None:
    """A sender that codes all macroblocks alike must not be left with nothing."""
    climb = Climb()
    climb.show(decoded(320, 192, face=False))
    until(lambda: climb.ladder.status == "large on CPU, whole picture")
    climb.slow(0)
    picture = climb.show(decoded(320, 192, face=False))
    assert picture.rung == "large, face only"
    assert picture.restored is not None
    changed = planes(picture.restored)[0] != planes(picture.i420)[0]
    inside = np.zeros_like(changed)
    inside[32:160, 64:256] = True  # of 12x20 macroblocks those from 3 and 5 on, and one around them
    assert np.array_equal(changed, inside)
    assert picture.restore_ms > 0


def test_one_network_alone_has_whole_face_and_off() -> None:
    climb = Climb(Fake("mine", 1))
    assert climb.show().rung == "mine, whole picture"
    climb.slow(0)
    assert climb.show().rung == "mine, face only"
    climb.slow(1)
    assert climb.show().rung == "off"


def test_no_networks_are_off() -> None:
    ladder = RestorerLadder([])
    ladder.warm_up(64, 48)
    assert ladder.status == "off"
    picture = decoded()
    restore(ladder, picture)
    assert (picture.restored, picture.rung) == (None, "off")


def test_a_real_model_climbs() -> None:
    model = find_model("small")
    ladder = RestorerLadder(
        open_restorers([RestorerFile(model.path, model.name)])[0], lambda n: RestoreSchedule(n, AMPLE)
    )
    assert ladder.status == "measuring"
    ladder.warm_up(96, 64)
    assert ladder.status.startswith("small on ")
    assert ladder.status.endswith(", whole picture")
    picture = decoded()
    restore(ladder, picture)
    assert picture.restored is not None
    assert not np.array_equal(picture.restored, picture.i420)
    ladder.close()


# Measuring beside the call


def test_what_an_old_size_took_is_not_told_of_the_new_one() -> None:
    climb = Climb()
    old = decoded()
    chosen = climb.ladder.choose(old)
    assert chosen == 0
    for network in climb.networks:
        network.go = threading.Semaphore(0)
    climb.ladder.choose(decoded(128, 80))  # its rungs are being measured, which hangs
    climb.networks[0].go = None
    climb.ladder.run(old, chosen)
    assert old.restored is not None
    assert not climb.schedule.measured_any
    for network in climb.networks:
        if network.go is not None:
            network.go.release(100)
    climb.ladder.close()


def test_pictures_of_another_size_pass_until_the_rungs_are_measured() -> None:
    climb = Climb()
    for network in climb.networks:
        network.go = threading.Semaphore(0)
    for _ in range(3):
        picture = climb.show(decoded(128, 80))  # would hang if it were measured here
        assert (picture.restored, picture.rung) == (None, "off")
    assert climb.ladder.status == "measuring"
    for network in climb.networks:
        assert network.go is not None
        network.go.release(100)
    until(lambda: climb.ladder.status == "large on CPU, whole picture")
    assert climb.show(decoded(128, 80)).restored is not None
    small = climb.networks[1]
    assert {thread for thread, _ in small.done.queue} == {"measure"}
    assert small.done.queue[0] == ("measure", (72, 48)), "the fastest first"


def test_a_measurement_of_pictures_that_come_no_more_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver.restorer, "_SLOW", AMPLE)  # it waits here, and yet is to run three times
    climb = Climb(Fake("slow", 1))
    network = climb.networks[0]
    network.go = threading.Semaphore(0)
    runs = receiver.restorer._RUNS
    climb.show(decoded(128, 80))
    network.go.release(runs)  # the face rung is done with, the whole one hangs
    until(lambda: climb.schedule.measured_any)
    climb.show(decoded(160, 96))
    assert not climb.schedule.measured_any
    network.go.release(2 * runs)  # the old picture whole, the new one's face
    until(lambda: climb.schedule.measured_any)
    assert climb.ladder.status == "slow on CPU, face only"
    network.go.release(100)
    until(lambda: climb.ladder.status == "slow on CPU, whole picture")
    shapes = [shape for _, shape in network.done.queue]
    assert shapes[runs : 2 * runs] == [(120, 128)] * runs
    assert shapes[-1] == (144, 160)


def test_the_face_rung_is_measured_on_the_middle_where_no_face_is_in_view() -> None:
    climb = Climb()
    climb.show(decoded(128, 80, face=False))
    until(lambda: climb.ladder.status == "large on CPU, whole picture")
    face = [shape for _, shape in climb.networks[1].done.queue if shape != (120, 128)]
    assert face == [(120, 96)] * receiver.restorer._RUNS


def test_a_better_rung_is_tried_on_a_picture_and_then_used() -> None:
    climb = Climb(budget=1.0)
    large = climb.networks[0]
    climb.slow(0)
    assert climb.show().rung == "large, face only"
    large.forget()
    climb.now += 70  # three budgets take sixty seconds to be worth it
    tried = climb.show()
    assert tried.rung == "large, whole picture"
    assert tried.restored is not None
    assert climb.schedule.due is None
    until(lambda: climb.ladder._jobs.empty() and climb.ladder._turns % 2 == 0)
    assert list(large.done.queue) == [("MainThread", (96, 96))]
    assert climb.show().rung == "large, whole picture"


def test_what_is_late_while_a_rung_is_tried_does_not_count() -> None:
    climb = Climb(budget=1.0)
    climb.slow(0)
    climb.show()
    climb.now += 70
    picture = decoded()
    assert climb.ladder.choose(picture) == 0
    for _ in range(50):
        climb.ladder.shown(False)
    climb.ladder.run(picture, 0)
    assert climb.show().rung == "large, whole picture"
    for _ in range(50):
        climb.ladder.shown(False)
    assert climb.show().rung != "large, whole picture"


def test_a_rung_far_too_slow_is_measured_on_the_other_thread() -> None:
    climb = Climb(budget=1.0)
    large = climb.networks[0]
    climb.hopeless(0)
    assert climb.show().rung == "large, face only"
    climb.now += 100
    assert climb.show().rung == "large, face only"
    until(lambda: climb.schedule.due is None)
    assert {thread for thread, shape in large.done.queue if shape == (96, 96)} == {"measure"}
    assert climb.show().rung == "large, whole picture"


def test_what_is_due_is_asked_for_once() -> None:
    climb = Climb(budget=1.0)
    large = climb.networks[0]
    climb.hopeless(0)
    climb.hopeless(1)
    assert climb.show().rung == "small, whole picture"
    large.go = threading.Semaphore(0)
    climb.now += 100
    for _ in range(5):
        assert climb.show().restored is not None
    until(lambda: climb.ladder._turns % 2)
    assert climb.ladder._jobs.empty(), "each run takes time from the call's own pictures"
    large.go.release(100)
    until(lambda: climb.ladder._turns % 2 == 0)
    assert large.done.qsize() == 1
    climb.ladder.close()


def test_what_was_measured_in_vain_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    climb = Climb(budget=1.0)
    large = climb.networks[0]
    climb.hopeless(0)
    climb.show()

    def four_budgets(rung: Rung, i420: I420, qp: NDArray[np.uint8], *_: object) -> float:
        rung.restore(i420, qp)
        return 4.0

    monkeypatch.setattr(Rung, "timed", four_budgets)
    for _ in range(2):
        large.forget()
        climb.now += 400
        assert climb.show().rung == "large, face only"
        until(lambda: climb.schedule.due is None)
        assert [shape for thread, shape in large.done.queue if thread == "measure"] == [(96, 96)]
    climb.ladder.close()


def test_a_measurement_does_not_lead_pictures_down() -> None:
    """It takes the cores from them for as long as it lasts: from one that is at work when it begins to the last."""
    climb = Climb(budget=1.0)
    large = climb.networks[0]
    climb.hopeless(0)
    climb.hopeless(1)
    climb.show()
    large.go = threading.Semaphore(0)
    climb.now += 100
    assert climb.show().rung == "small, whole picture"  # and asks for a measurement
    until(lambda: climb.ladder._turns % 2)
    climb.now += 1
    for _ in range(50):
        picture = decoded()
        picture.decoded -= 1.1  # too old for any
        assert climb.ladder.choose(picture) is None
        climb.ladder.shown(False)
    beside = decoded()
    assert climb.ladder.choose(beside) == 2
    climb.ladder.run(beside, 2)
    assert beside.restored is not None
    assert climb.schedule._since[2] < climb.now
    assert climb.ladder.choose(decoded()) == 2
    large.go.release(1)
    until(lambda: climb.ladder._turns % 2 == 0)
    for _ in range(50):
        climb.ladder.shown(False)  # that last one
    assert climb.schedule.rung == 2
    large.go = None
    for _ in range(50):
        climb.show()
        until(lambda: climb.ladder._turns % 2 == 0)
        climb.ladder.shown(False)
    assert climb.schedule._since[2] == climb.now
    assert climb.schedule.rung > 2
    climb.ladder.close()


@pytest.mark.parametrize("beside", [False, True])
def test_a_bug_in_a_network_costs_that_network_alone(beside: bool) -> None:
    climb = Climb(budget=1.0)
    large = climb.networks[0]
    for rung in range(2):
        (climb.hopeless if beside else climb.slow)(rung)
    climb.show()

    def broken(i420: I420, qp: NDArray[np.uint8]) -> I420:
        raise ValueError("not a sentence")

    large.restore = broken  # type: ignore[method-assign]
    climb.now += 100
    climb.show()
    until(lambda: "not a sentence" in climb.ladder.status)
    until(lambda: climb.ladder._turns % 2 == 0)
    assert climb.show().rung == "small, whole picture"
    climb.show(decoded(128, 80))
    until(lambda: climb.ladder.status.startswith("small on CPU, whole picture"))
    climb.ladder.close()


def test_a_slow_network_is_run_once_and_a_larger_one_never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver.restorer, "_SLOW", 0.0)
    networks = [Fake("larger", 2), Fake("small", 1), Fake("other", 3, device="CUDA")]
    climb = Climb(*networks, warm=False)
    climb.ladder.warm_up(96, 64)
    assert [network.done.qsize() for network in networks] == [0, 1, 1]
    assert climb.schedule.measured_any


def test_another_device_is_measured_and_said() -> None:
    network = Fake("quick", 1, device="CUDA")
    network.faster = "TensorRT"
    climb = Climb(network, warm=False)
    climb.ladder.warm_up(96, 64)
    runs = 2 * receiver.restorer._RUNS
    until(lambda: network.done.qsize() == 2 * runs)
    assert climb.ladder.status == "quick on TensorRT, whole picture"


def test_only_what_has_another_device_is_measured_again() -> None:
    quick, other = Fake("quick", 1, device="CUDA"), Fake("other", 1)
    quick.faster = "TensorRT"
    climb = Climb(quick, other, warm=False)
    climb.ladder.warm_up(96, 64)
    until(lambda: quick.done.qsize() == 4 * receiver.restorer._RUNS)
    until(climb.ladder._jobs.empty)
    climb.ladder.close()
    assert other.done.qsize() == 2 * receiver.restorer._RUNS, "whole and face, once"


# Failures


def test_a_network_that_fails_gives_way_to_the_next_and_is_named() -> None:
    climb = Climb()
    large, small = climb.networks
    large.problem = "The restorer large failed: the device was lost."
    picture = climb.show()
    assert picture.restored is None, "shown as it is"
    assert climb.ladder.status == "small on CPU, whole picture (The restorer large failed: the device was lost.)"
    assert climb.show().rung == "small, whole picture"
    small.problem = "The restorer small failed: out of memory."
    climb.show()
    assert climb.ladder.status == f"off ({large.problem} {small.problem})"
    picture = climb.show()
    assert (picture.restored, picture.rung) == (None, "off")
    assert large.done.qsize() == 1
    assert small.done.qsize() == 2, "not asked again, not even for a face"
    climb.show(decoded(128, 80))
    assert climb.ladder.status.startswith("off (")


def test_a_network_that_fails_at_once_is_passed_over() -> None:
    large, small = Fake("large", 3), Fake("small", 1)
    large.problem = "The restorer large failed: out of memory."
    climb = Climb(large, small, warm=False)
    climb.ladder.warm_up(96, 64)
    assert climb.ladder.status == f"small on CPU, whole picture ({large.problem})"


def test_where_none_works_that_is_an_error() -> None:
    only = Fake("only", 1)
    only.problem = "The restorer only failed: out of memory."
    with pytest.raises(SemcallError, match="only failed: out of memory"):
        Climb(only)


# Opening


def test_a_network_that_needs_a_gpu_is_left_out_where_none_works(monkeypatch: pytest.MonkeyPatch) -> None:
    path = find_model("small").path
    files = [RestorerFile(path, "big", needs_gpu=True), RestorerFile(path, "small")]
    monkeypatch.setattr(receiver.restorer_files, "GPUS", frozenset())
    assert [restorer.name for restorer in open_restorers(files)[0]] == ["small"]
    monkeypatch.setattr(receiver.restorer_files, "GPUS", frozenset({Restorer(path).device}))
    assert [restorer.name for restorer in open_restorers(files)[0]] == ["big", "small"]


@pytest.mark.parametrize(("cores", "asked", "threads"), [(1, None, 1), (None, None, 1), (16, None, 2), (16, 5, 5)])
def test_two_threads_where_there_are_two(
    monkeypatch: pytest.MonkeyPatch, cores: int | None, asked: int | None, threads: int
) -> None:
    used: list[int] = []

    class Noted(Restorer):
        def __init__(self, path: Any, name: str, threads: int) -> None:
            used.append(threads)
            super().__init__(path, name, 1)

    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.setattr(receiver.restorer_files, "Restorer", Noted)
    open_restorers([RestorerFile(find_model("small").path, "small")], asked)
    assert used == [threads]


# The command line


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """Ship the small restorer, and only it, under other names with other cards."""
    model = find_model("small")
    monkeypatch.setattr(models.registry, "WEIGHTS", tmp_path)

    def ship(name: str, **facts: object) -> Path:
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(model.path.read_bytes())
        path.with_suffix(".json").write_text(json.dumps({**model.card, "name": name, **facts}))
        return path

    return ship


def test_auto_takes_what_is_shipped_the_largest_first(shipped: Callable[..., Path]) -> None:
    shipped("a", parameters=1000)
    shipped("b", parameters=9000, needs_gpu=True)
    shipped("c", parameters=5000)
    shipped("d", parameters=LARGEST_ON_CPUS)
    shipped("e", parameters=LARGEST_ON_CPUS + 1)
    files = semcall._restorers("auto")
    assert [file.name for file in files] == ["e", "d", "b", "c", "a"]
    assert [file.name for file in files if file.needs_gpu] == ["e", "b"]
    for name in ("b", "e"):
        (file,) = semcall._restorers(name)
        assert (file.name, file.needs_gpu) == (name, False), "who names one wants it"
    assert semcall._restorers("off") == ()


def test_files_get_the_largest_shipped_and_calls_on_cpus_what_keeps_up() -> None:
    files = semcall._restorers("auto")
    assert semcall._largest_restorer() == files[0].name == "finer"
    assert [file.name for file in files if not file.needs_gpu] == ["fine", "fast", "small"]


def refusal(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], restore: object) -> str:
    """The one sentence with which `semcall receive` refuses a restorer."""
    assert call(monkeypatch, "receive", "--headless", "--port", 0, "--restore", restore) == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.startswith("semcall: ")
    assert said.err.count("\n") == 1
    return said.err


def test_weights_in_other_files_are_refused(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "split.onnx"
    model = onnx.load(find_model("small").path)
    onnx.save(model, path, save_as_external_data=True, size_threshold=64, location="weights.bin")
    assert "keeps its weights in other files; export it as one file" in refusal(monkeypatch, capfd, path)


def test_a_network_of_another_contract_is_refused(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "parser.onnx"  # without its card nobody knows what it is
    path.write_bytes(find_model("face", "face-parser").path.read_bytes())
    said = refusal(monkeypatch, capfd, path)
    assert "does not keep the restorer contract: its inputs are rgb instead of qp, uv, y" in said


def test_a_shipped_file_that_is_damaged_is_refused_in_auto_too(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], shipped: Callable[..., Path]
) -> None:
    shipped("fine")
    path = shipped("broken")
    path.write_bytes(path.read_bytes()[:-1])
    assert "broken.onnx is damaged: its SHA-256 is not the one on its card" in refusal(monkeypatch, capfd, "auto")


def test_without_a_network_that_runs_auto_goes_on(tmp_path: Path) -> None:
    """Nobody asked for one: a call without restoring is better than none. Who names one is told at once."""
    path = tmp_path / "mine.onnx"
    path.write_bytes(find_model("face", "face-parser").path.read_bytes())
    opened, lost = open_restorers([RestorerFile(path, "mine", optional=True)])
    ladder = RestorerLadder(opened, lost=lost)
    assert ladder.status.startswith("off (The restorer ")
    assert "does not keep the restorer contract" in ladder.status
    picture = decoded()
    restore(ladder, picture)
    assert (picture.restored, picture.rung) == (None, "off")
    ladder.close()
    with pytest.raises(SemcallError, match="does not keep the restorer contract"):
        open_restorers([RestorerFile(path, "mine")])
    with contextlib.ExitStack() as stack:
        receiver = Receiver(ReceiveOptions(restorers=(RestorerFile(path, "mine", optional=True),)), stack)
        assert receiver.restorer_name == ladder.status
