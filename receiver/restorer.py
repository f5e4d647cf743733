"""The receiver's restorers as a ladder: the largest that keeps the budget, then less, then nothing, and back up.

From the top: the largest network on the whole picture, then on the face only; so for each smaller one; off. A larger
network on the face alone mends it better than the next one does, and often in less time. The schedule (schedule.py)
says where to stand; here pictures are restored and, on a thread beside the call, rungs measured.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from receiver.picture import DecodedPicture
from receiver.rung import Network, Rung, rungs
from receiver.schedule import RestoreSchedule
from shared.errors import SemcallError
from shared.grid import grid_shape
from shared.picture import I420
from shared.quantisers import coarser
from shared.steady import Steadiness

log = logging.getLogger(__name__)

_RUNS = 3  # of a first measurement: memory is not yet in place
_END_WITHIN = 1.0  # seconds
_TYPICAL_QP = 36  # of the picture that rungs are measured on before there is one
_SLOW = 0.3  # seconds; a network that takes longer is not run again to see, nor a larger one once


@dataclass(frozen=True, slots=True)
class _Job:
    """Rungs to be measured on a picture, from the last on, in so many runs each."""

    rungs: Sequence[int]
    i420: I420
    qp: NDArray[np.uint8]
    runs: int = _RUNS


class RestorerLadder:
    """Restores pictures as well as there is time for. `choose` and `run` are for a thread each, the rest for any."""

    def __init__(
        self,
        networks: Sequence[Network],
        schedule: Callable[[int], RestoreSchedule] = RestoreSchedule,
        clock: Callable[[], float] = time.monotonic,
        lost: Mapping[str, str] | None = None,
    ) -> None:
        """`networks`: the largest first; `schedule`: makes one for that many rungs; `clock`: seconds for it.

        `lost`: names of networks that would not even open, and why, for `status`.
        """
        self._networks = networks
        self._rungs = rungs(networks)
        self._schedule, self._clock = schedule(len(self._rungs)), clock
        self._lock = threading.Lock()  # around the schedule and what follows
        self._seen: tuple[I420, NDArray[np.uint8]] | None = None  # the newest picture and its quantisers
        self._asked: int | None = None  # the rung that is due and has been handed over
        self._turns = 0  # of the measuring thread: odd while it is at it
        self._failures = dict(lost or {})  # by the network's name
        self._steady = Steadiness()
        self._closed = False
        self._turn = 0  # what `_turns` was when a rung was chosen last
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run_jobs, name="measure", daemon=True)
        self._thread.start()

    @property
    def status(self) -> str:
        """Which network restores what on which device, or why none does, and what has failed."""
        with self._lock:
            rung, known = self._schedule.rung, self._schedule.measured_any
            failures = " ".join(self._failures.values())
        if self._none_left():
            return f"off ({failures})" if failures else "off"
        if rung < len(self._rungs):
            said = f"{self._rungs[rung].network.name} on {self._rungs[rung].network.device}, {self._rungs[rung].part}"
        else:
            said = "off: this machine is too slow" if known else "measuring"
        return f"{said} ({failures})" if failures else said

    def warm_up(self, width: int, height: int) -> None:
        """Measure all rungs on a picture of that size, in this thread; then look for TensorRT in another.

        Raises SemcallError when no network can restore one.
        """
        i420 = np.full((height * 3 // 2, width), 128, np.uint8)
        qp = np.full(grid_shape(width, height), _TYPICAL_QP, np.uint8)
        with self._lock:
            self._seen = i420, qp
            self._schedule.reset()
        self._measure(_Job(self._all(), i420, qp))
        if self._failures and self._none_left():
            raise SemcallError(" ".join(self._failures.values()))
        threading.Thread(target=self._accelerate, name="accelerate", daemon=True).start()

    def choose(self, picture: DecodedPicture) -> int | None:
        """The rung that there is time for, or that is to be tried; None for none; fills in `rung`. Quick."""
        i420, qp = picture.i420, _told(picture)
        with self._lock:
            self._turn = self._turns
            known, self._seen = self._of_this_size(i420), (i420, qp)
            if not known:  # one of its size
                self._asked = None
                self._schedule.reset()
                self._jobs.put(_Job(self._all(), i420, qp))
            chosen = self._schedule.choose(
                time.time() - picture.decoded, self._clock(), self._undisturbed(self._turn), picture.period
            )
            stands = self._schedule.rung
            if self._schedule.due not in (None, self._asked) and not self._schedule.probing:
                self._asked = self._schedule.due
                assert self._asked is not None
                self._jobs.put(_Job([self._asked], i420, qp, runs=1))  # once: it takes time from the call's pictures
        rung = stands if chosen is None else chosen
        picture.rung = str(self._rungs[rung]) if rung < len(self._rungs) else "off"
        return chosen

    def run(self, picture: DecodedPicture, chosen: int) -> None:
        """Fill in `restored` and `restore_ms` by the rung that was chosen.

        A damaged picture is restored too (the networks are trained on such), but no block of it counts as well coded
        as its quantiser says.
        """
        turn, start = self._turns, time.perf_counter()
        try:
            restored = self._rungs[chosen].restore(picture.i420, _told(picture))
        except Exception as error:  # the call goes on with less
            self._fail(self._rungs[chosen], error)
            return
        picture.restored = self._steady(picture.i420, restored)
        seconds = time.perf_counter() - start
        picture.restore_ms = seconds * 1e3
        with self._lock:
            failed = self._rungs[chosen].network.name in self._failures  # on the other thread, just now
            if self._of_this_size(picture.i420) and not failed and self._undisturbed(turn):
                self._schedule.took(chosen, seconds, self._clock())

    def shown(self, in_time: bool) -> None:
        """A picture for which a rung was chosen is on its way to the eye, restored or too early for that.

        What a measurement beside it delays says nothing of the rung in use.
        """
        with self._lock:
            if self._undisturbed(self._turn):
                self._schedule.shown(in_time, self._clock())

    def close(self) -> None:
        """Measure no more, and wait about a second for the rung in hand."""
        self._closed = True
        self._jobs.put(None)
        self._thread.join(_END_WITHIN)

    def _of_this_size(self, i420: I420) -> bool:
        """Whether pictures still have that one's size; with the lock."""
        return self._seen is not None and self._seen[0].shape == i420.shape

    def _undisturbed(self, turn: int) -> bool:
        """Whether nothing was measured since `_turns` was `turn`; with the lock."""
        return turn % 2 == 0 and turn == self._turns

    def _none_left(self) -> bool:
        return all(network.name in self._failures for network in self._networks)

    def _all(self) -> list[int]:
        return list(range(len(self._rungs)))[::-1]

    def _run_jobs(self) -> None:
        while (job := self._jobs.get()) is not None:
            with self._lock:
                self._turns += 1
            self._measure(job)
            with self._lock:
                self._turns += 1

    def _measure(self, job: _Job) -> None:
        slow: dict[tuple[str, bool], float] = {}  # seconds, by device and whether on the face: networks get larger
        for index in job.rungs:
            rung = self._rungs[index]
            if self._closed or rung.network.name in self._failures:
                continue
            device = rung.network.device
            known = slow.get((device, True)) or slow.get((device, rung.face_only))
            try:
                seconds = known or rung.timed(job.i420, job.qp, job.runs, _SLOW)
            except Exception as error:
                self._fail(rung, error)
                continue
            if seconds > _SLOW:
                slow[device, rung.face_only] = seconds
            with self._lock:
                if not self._of_this_size(job.i420):
                    return  # pictures have another size now, and another job waits
                if rung.network.name not in self._failures:
                    self._schedule.measured(index, seconds, self._clock())
                if self._asked == index:
                    self._asked = None

    def _accelerate(self) -> None:
        for network in self._networks:
            if not self._closed and network.accelerate() and self._seen is not None:
                mine = [index for index in self._all() if self._rungs[index].network is network]
                self._jobs.put(_Job(mine, *self._seen))

    def _fail(self, failed: Rung, error: Exception) -> None:
        """Go on without that rung's network; from its `except`."""
        if not isinstance(error, SemcallError):  # not a network's own sentence, but a bug
            log.warning("%s failed", failed, exc_info=True)
        with self._lock:
            self._failures[failed.network.name] = str(error)
            for index, rung in enumerate(self._rungs):
                if rung.network is failed.network:
                    self._schedule.lost(index, self._clock())


def _told(picture: DecodedPicture) -> NDArray[np.uint8]:
    return coarser(picture.qp) if picture.damaged else picture.qp
