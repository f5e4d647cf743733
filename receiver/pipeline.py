"""The threads between the network and the eye: decode, restore.

    bounded queue -> decode thread -> Latest -> restore thread -> sink
                                                    <-> restoring thread

Coded pictures are never dropped (on overflow all are, and an IDR is asked for); decoded ones are, newest wins, and
after a loss those that it damaged, as `--on-loss` says.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import av

from receiver.decoder import Decoder
from receiver.freeze import Freeze, OnLoss
from receiver.jitter import AccessUnit
from receiver.picture import DecodedPicture
from receiver.restorer import RestorerLadder
from receiver.schedule import DEFAULT_BUDGET
from shared.mailbox import Latest

log = logging.getLogger(__name__)

_QUEUE = 64  # access units, two seconds: more means that decoding cannot keep up at all
_END_WITHIN = 1.0  # seconds for the restoration in hand


class DecodeThread(threading.Thread):
    """Owns FFmpeg's decoder. `submit` from the asyncio thread; pictures go to `deliver`.

    Damaged pictures are decoded in any case, since later ones refer to them; `on_loss` says whether they are
    delivered (receiver/freeze.py).
    """

    def __init__(
        self,
        deliver: Callable[[DecodedPicture], None],
        request_keyframe: Callable[[], None],
        on_loss: OnLoss = "freeze",
    ) -> None:
        super().__init__(name="decode", daemon=True)
        self._freeze = Freeze(on_loss)
        self._deliver, self._request_keyframe = deliver, request_keyframe
        self._units: queue.Queue[AccessUnit | None] = queue.Queue(_QUEUE)
        self._lossy = False  # units were cleared since the last IDR
        self.decoder = Decoder()

    @property
    def held(self) -> int:
        """Damaged pictures decoded but not delivered."""
        return self._freeze.held

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
                    if self._freeze.shows(picture.damaged):
                        self._deliver(picture)
            except av.FFmpegError:
                self._request_keyframe()
            except Exception:  # one picture less; a thread that ended would be a call that stands still for good
                log.warning("a picture could not be decoded", exc_info=True)
                self._request_keyframe()

    def _clear(self) -> None:
        while True:
            try:
                self._units.get_nowait()
            except queue.Empty:
                return


class RestoreThread(threading.Thread):
    """Takes the newest decoded picture, restores it when there is time, and hands it to `sink` either way.

    What is not restored within `budget` seconds of its decoding is shown as it is, and so is what comes while
    that restoration still runs; its result is dropped.
    """

    def __init__(
        self,
        ladder: RestorerLadder | None,
        sink: Callable[[DecodedPicture], None],
        budget: float = DEFAULT_BUDGET,
    ) -> None:
        super().__init__(name="restore", daemon=True)
        self._ladder, self._sink, self._budget = ladder, sink, budget
        self._work: queue.SimpleQueue[tuple[DecodedPicture, int] | None] = queue.SimpleQueue()
        self._worker = threading.Thread(target=self._restore_all, name="restoring", daemon=True)
        self._done = threading.Event()
        self._done.set()
        self.enabled = True
        self.pictures: Latest[DecodedPicture] = Latest()

    def run(self) -> None:
        """Until the mailbox is closed."""
        self._worker.start()
        try:
            while not self.pictures.closed:
                picture = self.pictures.get()
                if picture is not None:
                    self._sink(self._in_time(picture))
        finally:
            self._work.put(None)
            self._worker.join(_END_WITHIN)

    def close(self) -> None:
        """End the thread after the picture in hand, and wait for that about a second."""
        self.pictures.close()
        if self.is_alive() and threading.current_thread() is not self:
            self.join(2 * _END_WITHIN)

    def _in_time(self, picture: DecodedPicture) -> DecodedPicture:
        """The picture with what the ladder makes of it by then, or without."""
        if not self.enabled or self._ladder is None:
            return picture
        try:
            chosen = self._ladder.choose(picture)
        except Exception:  # it is shown as it is
            log.warning("a picture could not be restored", exc_info=True)
            return picture
        if chosen is None:
            return picture
        mine, ready = replace(picture), False  # the other may be on the screen when this one is filled in
        if self._done.is_set():
            self._done.clear()
            self._work.put((mine, chosen))
            ready = self._done.wait(picture.decoded + self._budget - time.time())
        self._ladder.shown(ready)
        return mine if ready else picture

    def _restore_all(self) -> None:
        while (job := self._work.get()) is not None:
            try:
                assert self._ladder is not None
                self._ladder.run(*job)
            except Exception:  # it is shown as it is
                log.warning("a picture could not be restored", exc_info=True)
            self._done.set()
