"""Fewer and smaller pictures where the rate is too low for all of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from shared.picture import CLOCK_RATE, I420, joined, planes, shrunk, size_of


@dataclass(frozen=True, slots=True)
class Rung:
    """One way to code the source: at most `fps` pictures per second (None: all), `scale` times as wide and high.

    `usable`: bit/s at 1280x720 below which the rung above is no use.
    """

    fps: float | None
    scale: float
    usable: float


# A new frame rate costs nothing; a new size costs an IDR when every bit counts, so it comes last and seldom.
RUNGS = (Rung(None, 1, 0.0), Rung(20, 1, 240e3), Rung(15, 1, 170e3), Rung(15, 0.5, 110e3))
CEILING_PART = 0.75  # of what the user asked for: who asks for little has chosen the picture for it
DOWN_AFTER, DOWN_SIZE_AFTER = 0.5, 2.0  # seconds below what is usable
UP_AFTER, UP_SIZE_AFTER = 5.0, 10.0  # seconds above it, by
UP_MARGIN = 1.25
OPENING, FALLEN = 8.0, 0.9  # seconds in which the rate may still be on its way up, unless it falls to this part
_TOLERANCE = 0.005  # seconds that a camera's picture may be early


class Ladder:
    """Which rung a target rate is good for: down soon, up late, one step at a time.

    A call begins below its ceiling and feels its way up (sender/congestion.py): until its rate falls, that says
    nothing of the link.

    `ceiling`: the rate that was asked for, bit/s; `pixels`: luma samples of the source's pictures; `clock`: seconds.
    """

    def __init__(self, ceiling: float, pixels: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._usable = [min(rung.usable * pixels / (1280 * 720), CEILING_PART * ceiling) for rung in RUNGS]
        self._since: float | None = None  # when the rate became one for another rung
        self._up = False
        self._began: float | None = None
        self._opening, self._highest = True, 0.0
        self.level = 0

    @property
    def rung(self) -> Rung:
        """The present one."""
        return RUNGS[self.level]

    def update(self, bitrate: float) -> Rung:
        """The rung for a target of so many bit/s, now."""
        if self._opening and self._only_rises(bitrate):
            return self.rung
        down = self.level + 1 < len(RUNGS) and bitrate < self._usable[self.level + 1]
        up = self.level > 0 and bitrate > UP_MARGIN * self._usable[self.level]
        if not down and not up:
            self._since = None
            return self.rung
        now = self._clock()
        if self._since is None or up != self._up:
            self._since, self._up = now, up
        target = self.level + (1 if down else -1)
        resized = RUNGS[target].scale != self.rung.scale
        patience = (UP_SIZE_AFTER if resized else UP_AFTER) if up else (DOWN_SIZE_AFTER if resized else DOWN_AFTER)
        if now - self._since >= patience:
            self.level, self._since = target, None
        return self.rung

    def _only_rises(self, bitrate: float) -> bool:
        now = self._clock()
        self._began = now if self._began is None else self._began
        self._highest = max(self._highest, bitrate)
        self._opening = now - self._began < OPENING and bitrate > FALLEN * self._highest
        return self._opening


class FrameLimit:
    """Leaves pictures out so that at most so many per second remain, evenly."""

    def __init__(self) -> None:
        self._next = 0.0  # ticks

    def due(self, ticks: int, fps: float | None) -> bool:
        """Whether the picture of `ticks` (90 kHz, rising) is to be coded at `fps` (None: all are)."""
        if fps is None:
            self._next = ticks
            return True
        period = CLOCK_RATE / fps
        early = self._next - ticks
        if _TOLERANCE * CLOCK_RATE < early <= 2 * period:  # further ahead only after a clock was set back
            return False
        self._next = (self._next if abs(early) <= period else ticks) + period
        return True


def scaled_size(width: int, height: int, scale: float) -> tuple[int, int]:
    """Even width and height of a picture at `scale`."""
    return max(2, round(width * scale) & ~1), max(2, round(height * scale) & ~1)


def scaled(i420: I420, size: tuple[int, int]) -> I420:
    """A picture at another even width and height; itself where it has that already."""
    if size_of(i420) == size:
        return i420
    luma, chroma = planes(i420)
    half = size[0] // 2, size[1] // 2
    return joined(shrunk(luma, size), *(shrunk(plane, half) for plane in chroma))
