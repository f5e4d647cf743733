"""The receiver's restorers as a ladder: the largest that keeps the budget, then less, then nothing, and back up.

From the top: the largest network on the whole picture, then on the face only; so for each smaller one; off. A larger
network on the face alone mends it better than the next one does, and often in less time. The schedule (schedule.py)
says where to stand; here pictures are restored and, on a thread beside the call, rungs measured.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from receiver.picture import DecodedPicture
from receiver.rung import SLOW, Network, Rung
from receiver.schedule import RestoreSchedule
from shared.errors import SemcallError
from shared.grid import grid_shape
from shared.picture import I420
from shared.providers import GPUS
from shared.quantisers import coarser
from shared.restorer import Restorer
from shared.steady import Steadiness

_RUNS = 3  # of a first measurement: memory is not yet in place
_END_WITHIN = 1.0  # seconds
_TYPICAL_QP = 36  # of the picture that rungs are measured on before there is one


@dataclass(frozen=True, slots=True)
class RestorerFile:
    """A restorer to open. `needs_gpu`: only where one works; `optional`: the call goes on without it."""

    path: Path
    name: str
    needs_gpu: bool = False
    optional: bool = False


def open_restorers(
    files: Sequence[RestorerFile], threads: int | None = None
) -> tuple[list[Restorer], dict[str, str]]:
    """The networks in `files`, in that order, without those that need a GPU where none works; and what fails, why.

    `threads`: CPU threads of one restoration; default: two where there are two. The second result holds optional
    ones by name. Raises SemcallError as Restorer does for the others.
    """
    threads = threads or min(2, os.cpu_count() or 1)
    opened: list[Restorer] = []
    lost: dict[str, str] = {}
    for file in files:
        try:
            restorer = Restorer(file.path, file.name, threads)
        except SemcallError as error:
            if not file.optional:
                raise
            lost[file.name] = str(error)
            continue
        if not file.needs_gpu or restorer.device in GPUS:
            opened.append(restorer)
    return opened, lost


@dataclass(frozen=True, slots=True)
class _Job:
    """Rungs to be measured on a picture, the fastest first, in so many runs each."""

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
        self._rungs = [Rung(network, face_only) for network in networks for face_only in (False, True)]
        self._schedule, self._clock = schedule(len(self._rungs)), clock
        self._lock = threading.Lock()  # around the schedule and what follows
        self._seen: tuple[I420, NDArray[np.uint8]] | None = None  # the newest picture and its quantisers
        self._asked: int | None = None  # the rung that is due and has been handed over
        self._failures = dict(lost or {})  # by the network's name
        self._steady = Steadiness()
        self._closed = self._measuring = False
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
        """The rung that there is time for, None for none; fills in `rung`. Quick."""
        i420, qp = picture.i420, _told(picture)
        with self._lock:
            known, self._seen = self._of_this_size(i420), (i420, qp)
            if not known:  # one of its size
                self._asked = None
                self._schedule.reset()
                self._jobs.put(_Job(self._all(), i420, qp))
            chosen = self._schedule.choose(time.time() - picture.decoded, self._clock())
            stands = self._schedule.rung
            if self._schedule.due not in (None, self._asked):
                self._asked = self._schedule.due
                assert self._asked is not None
                # Once: while it runs it takes time from the call's pictures.
                self._jobs.put(_Job([self._asked], i420, qp, runs=1))
        picture.rung = str(self._rungs[stands]) if stands < len(self._rungs) else "off"
        return chosen

    def run(self, picture: DecodedPicture, chosen: int) -> None:
        """Fill in `restored` and `restore_ms` by the rung that was chosen.

        A damaged picture is restored too (the networks are trained on such), but no block of it counts as well coded
        as its quantiser says.
        """
        start = time.perf_counter()
        try:
            restored = self._rungs[chosen].restore(picture.i420, _told(picture))
        except SemcallError as error:  # the call goes on with less
            self._fail(self._rungs[chosen].network, error)
            return
        picture.restored = self._steady(picture.i420, restored)
        seconds = time.perf_counter() - start
        picture.restore_ms = seconds * 1e3
        with self._lock:
            failed = self._rungs[chosen].network.name in self._failures  # on the other thread, just now
            if self._of_this_size(picture.i420) and not failed and not self._measuring:
                self._schedule.took(chosen, seconds, self._clock())

    def shown(self, in_time: bool) -> None:
        """A picture for which a rung was chosen is on its way to the eye, restored or too early for that.

        While another rung is measured, which takes time from the call's pictures, neither this nor what they take
        says anything of the one in use.
        """
        with self._lock:
            if not self._measuring:
                self._schedule.shown(in_time, self._clock())

    def close(self) -> None:
        """Measure no more, and wait about a second for the rung in hand."""
        self._closed = True
        self._jobs.put(None)
        self._thread.join(_END_WITHIN)

    def _of_this_size(self, i420: I420) -> bool:
        """Whether pictures still have that one's size; with the lock."""
        return self._seen is not None and self._seen[0].shape == i420.shape

    def _none_left(self) -> bool:
        return all(network.name in self._failures for network in self._networks)

    def _all(self) -> list[int]:
        return list(range(len(self._rungs)))[::-1]

    def _run_jobs(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._measuring = True
            self._measure(job)
            self._measuring = False

    def _measure(self, job: _Job) -> None:
        slow: dict[str, float] = {}  # seconds, by device: what comes next there is larger
        for index in job.rungs:
            rung = self._rungs[index]
            if self._closed or rung.network.name in self._failures:
                continue
            try:
                seconds = slow.get(rung.network.device) or rung.timed(job.i420, job.qp, job.runs)
            except SemcallError as error:
                self._fail(rung.network, error)
                continue
            if seconds > SLOW:
                slow[rung.network.device] = seconds
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

    def _fail(self, network: Network, error: SemcallError) -> None:
        with self._lock:
            self._failures[network.name] = str(error)
            for index, rung in enumerate(self._rungs):
                if rung.network is network:
                    self._schedule.lost(index, self._clock())


def _told(picture: DecodedPicture) -> NDArray[np.uint8]:
    return coarser(picture.qp) if picture.damaged else picture.qp
