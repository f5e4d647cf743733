"""The threads between network and eye."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from test_decoder import as_unit, coded, reference

from receiver import pipeline
from receiver.freeze import OnLoss
from receiver.jitter import AccessUnit
from receiver.picture import DecodedPicture
from receiver.pipeline import DecodeThread, RestoreThread
from receiver.restorer import RestorerLadder
from receiver.schedule import RestoreSchedule
from shared.errors import SemcallError
from shared.picture import I420

WAIT = 20.0  # seconds after which a test gives up
AHEAD = 1000.0  # decoded in the future: however slow this machine is, there is time to restore


def decoded(number: int, age: float = -AHEAD) -> DecodedPicture:
    i420 = np.full((48, 32), number, np.uint8)
    return DecodedPicture(i420, np.full((2, 2), 30, np.uint8), number, False, decoded=time.time() - age)


class Inverter:
    """A restorer that takes its time: it waits for `go` and says when it has begun."""

    name, device = "inverter", "CPU"

    def __init__(self, waits: bool = False) -> None:
        self.go = threading.Semaphore(0) if waits else None
        self.begun: queue.Queue[int] = queue.Queue()

    def restore(self, i420: I420, qp: NDArray[np.uint8]) -> I420:
        assert qp.shape == (2, 2)
        self.begun.put(int(i420[0, 0]))
        if self.go is not None:
            assert self.go.acquire(timeout=WAIT)
        return 255 - i420

    def accelerate(self) -> bool:
        return False


class Shown:
    """The sink, and the thread in front of it. Its ladder knows the size of the pictures and has time."""

    def __init__(
        self, restorer: Inverter | None, schedule: RestoreSchedule | None = None, budget: float = WAIT
    ) -> None:
        self.pictures: queue.Queue[DecodedPicture] = queue.Queue()
        self.ladder = None
        if restorer is not None:
            self.ladder = RestorerLadder([restorer], lambda rungs: schedule or RestoreSchedule(rungs))
            go, restorer.go = restorer.go, None
            self.ladder.warm_up(32, 32)
            restorer.go, restorer.begun = go, queue.Queue()
        self.thread = RestoreThread(self.ladder, self.pictures.put, budget)
        self.thread.start()

    def show(self, picture: DecodedPicture) -> DecodedPicture:
        self.thread.pictures.put(picture)
        return self.next()

    def next(self) -> DecodedPicture:
        return self.pictures.get(timeout=WAIT)


def test_restored_when_there_is_time() -> None:
    shown = Shown(Inverter())
    for number in range(5):
        picture = shown.show(decoded(number))
        assert picture.rtp_ticks == number
        assert picture.restored is not None
        assert np.all(picture.visible == 255 - number)
        assert np.all(picture.i420 == number)
        assert picture.restore_ms > 0
    shown.thread.close()
    assert not shown.thread.is_alive()


def test_bypassed_when_late() -> None:
    restorer = Inverter()
    shown = Shown(restorer, budget=0.01)
    picture = shown.show(decoded(1, age=1.0))
    assert picture.restored is None
    assert picture.rung == "inverter, whole picture", "it stands there all the same"
    assert picture.visible is picture.i420
    assert picture.restore_ms == 0
    assert restorer.begun.empty()
    shown.thread.close()


def test_a_slow_restorer_is_bypassed_from_the_second_picture_on() -> None:
    schedule = RestoreSchedule(2, budget=1.0)
    shown = Shown(Inverter(), schedule)
    picture = shown.show(decoded(1, age=0.0))
    assert picture.restored is not None
    assert picture.rung == "inverter, whole picture"
    for rung in range(2):
        for _ in range(9):
            schedule.took(rung, 3.0, time.monotonic())  # it was slow
    picture = shown.show(decoded(2, age=0.0))
    assert picture.restored is None
    assert picture.rung == "off"
    shown.thread.close()


def test_no_picture_waits_longer_than_the_budget() -> None:
    """One that is not restored by then is shown as it is, and so are others as long as the restorer is at it."""
    restorer = Inverter(waits=True)
    assert restorer.go is not None
    shown = Shown(restorer, RestoreSchedule(2, budget=WAIT), budget=0.05)
    late = shown.show(decoded(1, age=0))
    assert restorer.begun.get(timeout=WAIT) == 1
    assert late.restored is None
    assert late.rung == "inverter, whole picture"
    next_one = shown.show(decoded(2, age=0))
    assert next_one.restored is None
    assert next_one.rung == "inverter, whole picture"
    assert restorer.begun.empty(), "it is still at the first"
    restorer.go.release(2)
    assert shown.thread._done.wait(WAIT)
    assert late.restored is None, "it has been shown"
    shown.thread._budget = WAIT
    assert shown.show(decoded(3)).restored is not None
    shown.thread.close()


def test_closing_waits_for_the_restoration_in_hand() -> None:
    restorer = Inverter(waits=True)
    assert restorer.go is not None
    shown = Shown(restorer, RestoreSchedule(2, budget=WAIT), budget=0.0)
    shown.show(decoded(1, age=0))
    assert restorer.begun.get(timeout=WAIT) == 1
    threading.Timer(0.1, restorer.go.release).start()
    shown.thread.close()
    assert not shown.thread._worker.is_alive()
    assert not shown.thread.is_alive()


def test_the_newest_wins_and_order_is_kept() -> None:
    restorer = Inverter(waits=True)
    assert restorer.go is not None
    shown = Shown(restorer)
    shown.thread.pictures.put(decoded(1))
    assert restorer.begun.get(timeout=WAIT) == 1
    for number in (2, 3, 4):  # while the first is being restored
        shown.thread.pictures.put(decoded(number))
    restorer.go.release(2)
    assert [shown.next().rtp_ticks for _ in range(2)] == [1, 4]
    assert shown.thread.pictures.dropped == 2
    shown.thread.close()
    assert shown.pictures.empty()


def test_the_restorer_is_told_of_damage() -> None:
    told: list[int] = []

    class Listener(Inverter):
        def restore(self, i420: I420, qp: NDArray[np.uint8]) -> I420:
            told.append(int(qp.max()))
            return super().restore(i420, qp)

    shown = Shown(Listener())
    told.clear()
    for damaged in (False, True):
        picture = shown.show(replace(decoded(1), damaged=damaged))
        assert picture.restored is not None
        assert np.all(picture.qp == 30)  # what was coded
    assert told == [30, 36]
    shown.thread.close()


def test_off_and_on_again() -> None:
    restorer = Inverter()
    shown = Shown(restorer)
    shown.thread.enabled = False
    assert shown.show(decoded(1)).restored is None
    shown.thread.enabled = True
    assert shown.show(decoded(2)).restored is not None
    assert list(restorer.begun.queue) == [2]
    shown.thread.close()


def test_without_a_restorer_pictures_pass() -> None:
    shown = Shown(None)
    picture = shown.show(decoded(1))
    assert picture.restored is None
    assert picture.rung == "off"
    shown.thread.close()
    shown.thread.close()  # again: harmless


def test_a_restorer_that_fails_does_not_end_the_call() -> None:
    class Lost(Inverter):
        lost = False

        def restore(self, i420: I420, qp: NDArray[np.uint8]) -> I420:
            restored = super().restore(i420, qp)
            if self.lost:
                raise SemcallError("The restorer small failed: the device was lost.")
            return restored

    restorer = Lost()
    shown = Shown(restorer)
    restorer.lost = True
    assert [shown.show(decoded(number)).restored for number in (1, 2, 3)] == [None, None, None]
    assert list(restorer.begun.queue) == [1]  # not asked again
    assert shown.ladder is not None
    assert shown.ladder.status == "off (The restorer small failed: the device was lost.)"
    shown.thread.close()


def test_closing_does_not_wait_for_pictures() -> None:
    restorer = Inverter(waits=True)
    assert restorer.go is not None
    shown = Shown(restorer)
    shown.thread.pictures.put(decoded(1))
    restorer.begun.get(timeout=WAIT)
    shown.thread.pictures.put(decoded(2))
    shown.thread.pictures.close()
    restorer.go.release(2)
    shown.thread.join(WAIT)
    assert not shown.thread.is_alive()
    assert [picture.rtp_ticks for picture in shown.pictures.queue] == [1]  # the one in hand


class Decoding:
    def __init__(self, on_loss: OnLoss = "show") -> None:
        self.pictures: queue.Queue[DecodedPicture] = queue.Queue()
        self.requests = 0
        self.thread = DecodeThread(self.pictures.put, self.ask, on_loss)

    def ask(self) -> None:
        self.requests += 1


def test_units_are_decoded_in_order() -> None:
    units = coded(6)
    decoding = Decoding()
    decoding.thread.start()
    for index, data in enumerate(units):
        decoding.thread.submit(as_unit(data, index))
    for frame in reference(units):
        assert np.array_equal(decoding.pictures.get(timeout=WAIT).i420, frame.to_ndarray(format="yuv420p"))
    assert decoding.requests == 0
    decoding.thread.close()
    decoding.thread.join(WAIT)
    assert not decoding.thread.is_alive()


def test_a_damaged_unit_asks_for_a_keyframe_and_decoding_goes_on() -> None:
    units = coded(4, keyframes=(0, 3))
    decoding = Decoding()
    for index, data in enumerate([units[0], b"\0\0\0\1\x41", units[2], units[3]]):
        decoding.thread.submit(as_unit(data, index))
    decoding.thread.start()
    assert [decoding.pictures.get(timeout=WAIT).damaged for _ in range(3)] == [False, True, False]
    assert decoding.requests == 1
    decoding.thread.close()
    decoding.thread.join(WAIT)


def test_what_nobody_foresaw_costs_a_picture_and_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    decoding = Decoding()
    first, second, *_ = coded(3)
    real = decoding.thread.decoder.decode

    def fails(unit: AccessUnit) -> list[DecodedPicture]:
        monkeypatch.setattr(decoding.thread.decoder, "decode", real)
        raise ValueError("unforeseen")

    monkeypatch.setattr(decoding.thread.decoder, "decode", fails)
    decoding.thread.submit(as_unit(first, 0))
    decoding.thread.submit(as_unit(first, 0))
    decoding.thread.submit(as_unit(second, 1))
    decoding.thread.start()
    assert [decoding.pictures.get(timeout=WAIT).rtp_ticks for _ in range(2)] == [0, 3000]
    assert decoding.requests == 1
    decoding.thread.close()

    for name in ("run", "choose"):
        shown = Shown(Inverter())
        monkeypatch.setattr(shown.ladder, name, lambda *_: 1 / 0)
        assert shown.show(decoded(1)).restored is None
        assert shown.show(decoded(2)).restored is None
        shown.thread.close()


def test_damaged_pictures_are_decoded_and_held_until_the_idr() -> None:
    units = coded(5, keyframes=(0, 3))
    decoding = Decoding("freeze")
    for index in (0, 2, 3, 4):  # without the second
        tainted = index == 2
        decoding.thread.submit(replace(as_unit(units[index], index), tainted=tainted))
    decoding.thread.start()
    got = [decoding.pictures.get(timeout=WAIT) for _ in range(3)]
    assert [picture.rtp_ticks // 3000 for picture in got] == [0, 3, 4]
    assert not any(picture.damaged for picture in got)
    assert decoding.thread.held == 1
    decoding.thread.close()
    decoding.thread.join(WAIT)


@pytest.mark.parametrize("with_keyframe", [False, True])
def test_an_overflow_clears_and_asks_for_a_keyframe(with_keyframe: bool) -> None:
    """The thread has not started: nobody takes anything out."""
    units = coded(6, keyframes=(0, 1, 4))
    decoding = Decoding()
    for _ in range(pipeline._QUEUE):
        decoding.thread.submit(as_unit(units[0], 0))
    assert decoding.requests == 0
    for index in range(1 if with_keyframe else 2, 6):
        decoding.thread.submit(as_unit(units[index], index))
    assert decoding.requests == (0 if with_keyframe else 1)
    decoding.thread.start()
    if with_keyframe:  # the picture that overflowed can itself be decoded from
        got = [decoding.pictures.get(timeout=WAIT) for _ in range(5)]
        assert [picture.damaged for picture in got] == [False] * 5
    else:
        got = [decoding.pictures.get(timeout=WAIT) for _ in range(2)]
        assert [picture.rtp_ticks // 3000 for picture in got] == [4, 5]  # before an IDR nothing can be decoded
        assert [picture.damaged for picture in got] == [False, False]
    decoding.thread.close()
    decoding.thread.join(WAIT)
    assert not decoding.thread.is_alive()


def test_after_an_overflow_in_mid_stream_pictures_are_damaged_up_to_the_next_idr() -> None:
    units = coded(6, keyframes=(0, 4))
    decoding = Decoding()
    decoding.thread.decoder.decode(as_unit(units[0], 0))
    for _ in range(pipeline._QUEUE):
        decoding.thread.submit(as_unit(units[1], 1))
    for index in (2, 3, 4, 5):
        decoding.thread.submit(as_unit(units[index], index))
    decoding.thread.start()
    got = [decoding.pictures.get(timeout=WAIT) for _ in range(4)]
    assert [picture.rtp_ticks // 3000 for picture in got] == [2, 3, 4, 5]
    assert [picture.damaged for picture in got] == [True, True, False, False]
    decoding.thread.close()
    decoding.thread.join(WAIT)


def test_closing_drops_what_is_queued() -> None:
    decoding = Decoding()
    for _ in range(pipeline._QUEUE):
        decoding.thread.submit(as_unit(b"\0\0\0\1\x65", 0))
    decoding.thread.close()
    decoding.thread.start()
    decoding.thread.join(WAIT)
    assert not decoding.thread.is_alive()
    assert decoding.requests == 0
    assert decoding.pictures.empty()
