"""Which macroblocks show a face, for every picture: the parser now and then, optical flow in between."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sender.geometry import on_macroblocks
from sender.propagation import MaskTracker, motion_grid
from shared.grid import Mask, grid_shape
from shared.mailbox import Latest
from shared.picture import CLOCK_RATE, I420, Picture, planes, shrunk

log = logging.getLogger(__name__)

EVERY = 4
"""Pictures from one parse to the next, where the machine keeps up."""
_SELDOM = 30  # ...and where it does not: about once a second, lest who enters waits longer
_BUSY = 0.5  # part of its time that the network's thread may be busy
_RECENT = 0.3  # weight of the newest value in moving means
_SHORT, _LONG = 1 / 240, 0.1  # seconds between pictures that count: a source that pauses says nothing of its rate
_COVERED = 0.48  # mean belief in a macroblock from which on it is coded as face: half of its cells, if they are sure
_PATIENCE = 0.025  # seconds that a picture waits for the parser where nothing is known of its scene


class Parser(Protocol):
    """What finds faces: `sender.parser.FaceParser`, or a test's stand-in."""

    def probabilities(self, i420: I420) -> NDArray[np.float32]:
        """How likely each spot is face, 0..1: float32 [h', w'], equal cells over the picture uint8 [H * 3 / 2, W]."""
        ...


class Segmenter(Protocol):
    """What gives every picture its mask; pictures come in the order in which they are coded."""

    milliseconds: dict[str, float]

    def mask(self, picture: Picture) -> Mask:
        """Bool [rows, columns] of the picture's macroblocks; all False while nobody is in view."""
        ...


class SteadySegmenter:
    """The parser runs inside `mask`, every `every`-th picture: same pictures, same masks. For files.

    `parser`: None for nobody ever. `milliseconds`: of the stages that the last picture went through: "shrink",
    "flow" and, where it was parsed, "network". Raises what the parser raises.
    """

    def __init__(self, parser: Parser | None, every: int = EVERY) -> None:
        self._parser, self._every = parser, every
        self._view = _View()
        self.milliseconds: dict[str, float] = {}

    def mask(self, picture: Picture) -> Mask:
        """Bool [rows, columns] of the picture's macroblocks; all False while nobody is in view."""
        if self._parser is None:
            return _nobody(picture)
        view, self.milliseconds = self._view, {}
        view.advance(picture, self.milliseconds)
        if view.due(self._every):
            at = view.mark()
            with _timed(self.milliseconds, "network"):
                found = self._parser.probabilities(picture.i420)
            view.tracker.observe(found, at)
        return view.mask


class FaceSegmenter:
    """The parser runs in a thread of its own, so that `mask` takes a millisecond. For calls.

    What the parser found in an earlier picture is carried on to the one that is coded. `mask` waits for it, and no
    longer than 25 ms, only at the first picture, after a scene cut and at a new size: the keyframe or the new scene
    shall know its face. The parser looks at every 4th picture, down to every 30th where its thread would else be busy
    more than half of the time, and once more at once where it says something quite different.

    `parser`: None for nobody ever. `milliseconds`: of the stages that the last picture went through: "shrink",
    "flow" and, where a parse came in, "network". When the parser fails, `error` holds why and masks stay empty: the
    call goes on without a face. `clock`: seconds, to measure the network.
    """

    def __init__(self, parser: Parser | None, clock: Callable[[], float] = time.perf_counter) -> None:
        self._parser, self._clock = parser, clock
        self._view = _View()
        self._pace = Pace()
        self._jobs: Latest[_Job] = Latest()
        self._parses: Latest[_Parse] = Latest()
        self._asked = self._heard = 0  # numbers of the newest job and of the newest parse
        self._since = 0  # pictures since the newest job
        self.milliseconds: dict[str, float] = {}
        self.error: Exception | None = None
        self._thread: threading.Thread | None = None
        if parser is not None:
            self._thread = threading.Thread(target=self._run, args=(parser,), name="segment", daemon=True)
            self._thread.start()

    def mask(self, picture: Picture) -> Mask:
        """Bool [rows, columns] of the picture's macroblocks; all False while nobody is in view."""
        if self._thread is None or self.error is not None:
            return _nobody(picture)
        view, self.milliseconds = self._view, {}
        view.advance(picture, self.milliseconds)
        self._pace.picture(picture.ticks)
        self._listen(0.0)
        lost = view.tracker.lost
        self._since += 1
        # What is being parsed is waited for, unless it belongs to another scene.
        wanted = (lost and not view.tracker.marked) or (self._heard == self._asked and view.due(self._pace.every))
        if wanted and self._since >= self._pace.least:
            self._asked, self._since = self._asked + 1, 0
            self._jobs.put(_Job(picture.i420, view.mark(), self._asked))
            if lost and self._pace.seconds < _PATIENCE:  # else in vain
                self._listen(_PATIENCE)
        return view.mask if self.error is None else _nobody(picture)

    def close(self) -> None:
        """End the thread; a network that hangs is given two seconds, once."""
        if self._thread is not None and not self._jobs.closed:
            self._jobs.close()
            self._thread.join(timeout=2)

    def _listen(self, seconds: float) -> None:
        """Take the parse that was asked for, where it comes within so many seconds."""
        end = time.monotonic() + seconds
        while (parse := self._parses.get(max(0.0, end - time.monotonic()))) is not None:
            self._pace.network(parse.seconds)
            self._heard = parse.number
            if parse.number == self._asked:
                self.milliseconds["network"] = parse.seconds * 1e3
                self._view.tracker.observe(parse.found, parse.at)
                return

    def _run(self, parser: Parser) -> None:
        try:
            while not self._jobs.closed:
                job = self._jobs.get()
                if job is not None:
                    start = self._clock()
                    found = parser.probabilities(job.i420)
                    self._parses.put(_Parse(found, job.at, job.number, self._clock() - start))
        except Exception as error:
            log.debug("the face finder failed", exc_info=error)
            self.error = error
        finally:
            self._parses.close()


@dataclass(frozen=True, slots=True)
class _Job:
    i420: I420
    at: int
    number: int


@dataclass(frozen=True, slots=True)
class _Parse:
    found: NDArray[np.float32]
    at: int
    number: int
    seconds: float


class Pace:
    """How often the parser may look, from how long it takes and how fast pictures come."""

    def __init__(self) -> None:
        self.seconds = 0.0
        """Moving mean of what a look takes."""
        self._interval = 0.0
        self._last: int | None = None

    @property
    def every(self) -> int:
        """Pictures from one look to the next."""
        return max(EVERY, self.least)

    @property
    def least(self) -> int:
        """Pictures from one look to the next even where one is wanted at once; 0 while that is not known."""
        if not self._interval:
            return 0
        return min(_SELDOM, math.ceil(self.seconds / (_BUSY * self._interval)))

    def network(self, seconds: float) -> None:
        """A look took so long."""
        self.seconds += (_RECENT if self.seconds else 1.0) * (seconds - self.seconds)

    def picture(self, ticks: int) -> None:
        """A picture came, taken at `ticks` (90 kHz)."""
        interval = _LONG if self._last is None else (ticks - self._last) / CLOCK_RATE
        if interval < _LONG:
            interval = max(_SHORT, interval)
            self._interval += (_RECENT if self._interval else 1.0) * (interval - self._interval)
        self._last = ticks


class _View:
    """The tracker of pictures of one size; a new size starts anew."""

    def __init__(self) -> None:
        self.tracker = MaskTracker()
        self._size = (0, 0)
        self._cells = (0, 0)
        self._unseen = 0  # pictures since the last look
        self._hurried = False  # whether that was an urgent one

    def advance(self, picture: Picture, milliseconds: dict[str, float]) -> None:
        size = picture.width, picture.height
        if size != self._size:
            self.tracker, self._size, self._cells = MaskTracker(), size, motion_grid(*size)
        with _timed(milliseconds, "shrink"):
            luma = planes(picture.i420)[0]
            rows = 4 * self._cells[1]
            if picture.height >= 2 * rows:  # four rows of a cell have its mean too, and a fifth as much to read
                luma = luma.take(_spread(rows, picture.height), 0)
            luma = shrunk(luma, self._cells)
        with _timed(milliseconds, "flow"):
            self.tracker.advance(luma)
        self._unseen += 1

    def due(self, every: int) -> bool:
        """Whether the parser should look at the newest picture."""
        # After an urgent look not at once again: a network that contradicts itself must not run on every picture.
        soon = every // 2 if self._hurried else 1
        return self.tracker.lost or self._unseen >= (soon if self.tracker.urgent else every)

    def mark(self) -> int:
        self._hurried = self.tracker.urgent
        self._unseen = 0
        return self.tracker.mark()

    @property
    def mask(self) -> Mask:
        if self.tracker.lost:
            return np.zeros(grid_shape(*self._size), np.bool_)
        return on_macroblocks(self.tracker.belief, *self._size) >= _COVERED


@functools.lru_cache(maxsize=8)
def _spread(count: int, length: int) -> NDArray[np.intp]:
    """`count` of `length` rows, evenly spread."""
    return ((np.arange(count) + 0.5) * (length / count)).astype(np.intp)


def _nobody(picture: Picture) -> Mask:
    return np.zeros(grid_shape(picture.width, picture.height), np.bool_)


@contextlib.contextmanager
def _timed(milliseconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    milliseconds[stage] = (time.perf_counter() - start) * 1e3
