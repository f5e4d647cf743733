"""Media that stops: when to say so, when to give the call up. Pure policy.

A peer that was killed or lost its link says no goodbye. A semcall sender repeats a still picture every second, so
silence is never a still.
"""

from __future__ import annotations

import time
from collections.abc import Callable

SILENT = 5.0  # seconds without media after which the user is told
OVER = 30.0  # seconds without media after which a call counts as gone


class MediaWatchdog:
    """Counts the seconds without media since the call began or the last packet came. From any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds, never running back."""
        self._clock = clock
        self.last = clock()
        """When something came last, by the clock; at first, when the watch began."""

    def heard(self) -> None:
        """Media came."""
        self.last = self._clock()

    @property
    def silence(self) -> float:
        """Seconds without media."""
        return self._clock() - self.last

    @property
    def over(self) -> bool:
        """Whether to end the call."""
        return self.silence >= OVER

    def sentence(self) -> str | None:
        """What to tell the user of the silence; None while it is short."""
        silence = self.silence
        if silence < SILENT:
            return None
        return f"No media for {silence:.0f} s: the sender or the link is silent; the call ends after {OVER:.0f} s"
