"""The two threads between the network and the eye: decode, restore.

    bounded queue -> decode thread -> Latest -> restore thread -> sink

Coded pictures are never dropped (on overflow all are, and an IDR is asked for); decoded ones are, newest wins.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import av
import numpy as np
from numpy.typing import NDArray

from receiver.decoder import Decoder
from receiver.jitter import AccessUnit
from receiver.picture import DecodedPicture
from receiver.schedule import RestoreSchedule
from shared.errors import SemcallError
from shared.mailbox import Latest
from shared.picture import I420

_QUEUE = 64  # access units, two seconds: more means that decoding cannot keep up at all
_END_WITHIN = 1.0  # seconds for the restoration in hand


class PictureRestorer(Protocol):
    """What the restore thread needs of a restorer (shared/restorer.py)."""

    def restore(self, i420: I420, qp: NDArray[np.uint8]) -> I420:
        """The repaired picture, a new array of the same shape. Raises SemcallError when it cannot go on."""
        ...


class DecodeThread(threading.Thread):
    """Owns FFmpeg's decoder. `submit` from the asyncio thread; pictures go to `deliver`."""

    def __init__(self, deliver: Callable[[DecodedPicture], None], request_keyframe: Callable[[], None]) -> None:
        super().__init__(name="decode", daemon=True)
        self._deliver, self._request_keyframe = deliver, request_keyframe
        self._units: queue.Queue[AccessUnit | None] = queue.Queue(_QUEUE)
        self._lossy = False  # units were cleared since the last IDR
        self.decoder = Decoder()

    def submit(self, unit: AccessUnit) -> None:
        """Queue one access unit; never blocks. A full queue is emptied, and an IDR asked for."""
        if self._units.full():
            self._clear()
            self._lossy = True
            if not unit.keyframe:
                self._request_keyframe()
        self._lossy = self._lossy and not unit.keyframe
        self._units.put_nowait(replace(unit, tainted=True) if self._lossy else unit)

    def close(self) -> None:
        """End the thread; what is queued is not decoded any more."""
        self._clear()
        self._units.put_nowait(None)

    def run(self) -> None:
        """Until `close`."""
        while (unit := self._units.get()) is not None:
            try:
                for picture in self.decoder.decode(unit):
                    self._deliver(picture)
            except av.FFmpegError:
                self._request_keyframe()

    def _clear(self) -> None:
        while True:
            try:
                self._units.get_nowait()
            except queue.Empty:
                return


class RestoreThread(threading.Thread):
    """Takes the newest decoded picture, restores it when there is time, and hands it to `sink` either way."""

    def __init__(
        self,
        restorer: PictureRestorer | None,
        sink: Callable[[DecodedPicture], None],
        schedule: RestoreSchedule | None = None,
    ) -> None:
        super().__init__(name="restore", daemon=True)
        self._restorer, self._sink = restorer, sink
        self.schedule = schedule or RestoreSchedule()
        self.enabled = True
        self.failure: str | None = None
        """Why pictures are no longer restored: the restorer failed, say because its device was lost."""
        self.pictures: Latest[DecodedPicture] = Latest()

    def run(self) -> None:
        """Until the mailbox is closed."""
        while not self.pictures.closed:
            picture = self.pictures.get()
            if picture is None:
                continue
            if self.enabled and self._restorer is not None and self.schedule.admits(time.time() - picture.decoded):
                self._restore(self._restorer, picture)
            self._sink(picture)

    def close(self) -> None:
        """End the thread after the picture in hand, and wait for that about a second."""
        self.pictures.close()
        if self.is_alive() and threading.current_thread() is not self:
            self.join(_END_WITHIN)

    def _restore(self, restorer: PictureRestorer, picture: DecodedPicture) -> None:
        start = time.perf_counter()
        try:
            picture.restored = restorer.restore(picture.i420, picture.qp)
        except SemcallError as error:  # the call goes on without
            self.failure, self._restorer = str(error), None
            return
        seconds = time.perf_counter() - start
        picture.restore_ms = seconds * 1e3
        self.schedule.took(seconds)
