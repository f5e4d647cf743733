"""Spacing of new packets on a link that loses some, so that what is asked for again need not queue behind them.

Alone, a picture leaves at once and waits in the link's queue, and a retransmission waits behind it: some forty
milliseconds at a rate near the link's, as much again as its way. Where packets get lost, new ones are therefore sent
not much faster than they are coded, and retransmissions overtake what is held back here.
"""

from __future__ import annotations

import time
from collections.abc import Callable

FACTOR = 1.75  # times the rate of coded video at which a picture leaves
LONGEST = 0.1  # seconds from a packet to the next at most


class Pacer:
    """When the next packet may leave. `rate()`: bit/s of coded video; `clock`: monotonic seconds. For one loop."""

    def __init__(self, rate: Callable[[], float], clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._free = 0.0  # when the last packet is through

    def sent(self, size: int) -> float:
        """A packet of `size` bytes left. Returns the seconds until the next new one may."""
        now = self._clock()
        self._free = min(max(now, self._free) + size * 8 / (FACTOR * self._rate()), now + LONGEST)
        return self._free - now
