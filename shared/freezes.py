"""How long the picture stood still."""

from __future__ import annotations

from collections import deque


class FreezeCounter:
    """Seconds in which the picture stood still, after W3C webrtc-stats (totalFreezesDuration).

    A gap between two pictures shown is a freeze from three mean periods on, and from the mean period + 150 ms on; the
    mean is that of up to 30 periods before it, and at least five; `usual`: the mean before that, in seconds (None: no
    gap counts yet). Times are the caller's clock, in seconds.
    """

    def __init__(self, usual: float | None = None) -> None:
        self._usual = usual
        self._periods: deque[float] = deque(maxlen=30)
        self._last: float | None = None
        self.seconds = 0.0
        """In all freezes that have ended."""

    def shown(self, when: float) -> None:
        """A picture was shown at `when`. Earlier than the last, where a clock was set back, it tells nothing."""
        if self._last is not None and when >= self._last:
            gap = when - self._last
            mean = sum(self._periods) / len(self._periods) if len(self._periods) >= 5 else self._usual
            if mean is not None:
                self.seconds += gap if gap >= max(3 * mean, mean + 0.15) else 0.0
            self._periods.append(gap)
        self._last = when
