"""How much of what was sent is lost lately."""

from __future__ import annotations

from collections import deque


class LossWindow:
    """Fraction of the RTP packets lost in the last `span` seconds, from counts that run since the call began.

    Times are the caller's clock, in seconds.
    """

    def __init__(self, span: float = 3.0) -> None:
        self._span = span
        self._counts: deque[tuple[float, int, int]] = deque()

    def add(self, when: float, received: int, lost: int) -> None:
        """At `when` so many packets had come and so many were lost. The clock may be set back in between."""
        self._counts.append((when, received, lost))
        # One older than the window stays: the fraction is that of what came since.
        while len(self._counts) > 2 and abs(when - self._counts[1][0]) >= self._span:
            self._counts.popleft()

    @property
    def fraction(self) -> float | None:
        """0..1; None before anything came twice."""
        if not self._counts:
            return None
        received = max(self._counts[-1][1] - self._counts[0][1], 0)  # another stream counts from 0
        lost = max(self._counts[-1][2] - self._counts[0][2], 0)
        return lost / (received + lost) if received + lost > 0 else None
