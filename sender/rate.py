"""When an IDR may be sent."""

from __future__ import annotations

import time
from collections.abc import Callable

KEYFRAME_GAP = 1.0  # seconds; an IDR costs a third of a second's bits, so several a second would starve the call


class KeyframeGate:
    """Turns keyframe requests (PLI, FIR; RFC 4585 section 6.3.1) into at most one IDR per `gap` seconds.

    A request inside the gap is served at its end, never lost. Thread-safe: one flag, one time.
    """

    def __init__(self, gap: float = KEYFRAME_GAP, clock: Callable[[], float] = time.monotonic) -> None:
        self._gap, self._clock = gap, clock
        self._wanted = False
        self._last = -gap

    def request(self) -> None:
        """Somebody cannot decode: the next IDR is wanted."""
        self._wanted = True

    def due(self) -> bool:
        """Whether the next picture is to be an IDR; True answers the request."""
        if not self.pending:
            return False
        self._wanted, self._last = False, self._clock()
        return True

    @property
    def pending(self) -> bool:
        """Whether `due` would say True."""
        return self._wanted and self._clock() - self._last >= self._gap

    def sent(self) -> None:
        """An IDR left for another reason (the first picture, a new size)."""
        self._wanted, self._last = False, self._clock()
