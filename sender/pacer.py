"""Spacing of new packets on a link that loses some, so that what is asked for again need not queue behind them.

Alone, a picture leaves at once and waits in the link's queue, and a retransmission waits behind it: some forty
milliseconds at a rate near the link's, as much again as its way. Where packets get lost, new ones are therefore sent
little faster than they are coded, and retransmissions overtake what is held back here.
"""

from __future__ import annotations

import time
from collections.abc import Callable

FACTOR = 1.75  # times the rate of coded video at which a picture leaves
LONGEST = 0.1  # seconds that a packet is held back at most


class Pacer:
    """When a packet may leave. `rate()`: bit/s of coded video; `clock`: monotonic seconds. For one loop."""

    def __init__(self, rate: Callable[[], float], clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._free = 0.0  # when the last packet is through

    def wait(self, size: int) -> float:
        """Seconds until a new packet of `size` bytes may leave; counts it as sent then."""
        now = self._clock()
        wait = min(max(self._free - now, 0.0), LONGEST)
        self._take(now + wait, size)
        return wait

    def sent(self, size: int) -> None:
        """A packet of `size` bytes left without asking."""
        self._take(max(self._clock(), self._free), size)

    def _take(self, when: float, size: int) -> None:
        self._free = when + size * 8 / (FACTOR * self._rate())
