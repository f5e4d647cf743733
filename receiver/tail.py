"""When to ask for a packet that nothing has come from behind as yet. Pure policy.

A packet is missed when one from behind it comes. Behind a picture's last packet that is the next picture, a
thirtieth of a second later, and every second loss is such a one, since a call's pictures have one or two packets. On
a link that loses packets the next one is therefore asked for once it is late (as TCP's tail loss probe does, RFC 8985
section 7). A sender that has not sent it yet has nothing to answer; one that has spends a packet, so where most
guesses are in vain there are none until packets get lost again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from receiver.sequence import distance
from shared.picture import CLOCK_RATE

SPAN, FEW = 10.0, 2  # so many losses in so many seconds make a link that loses packets
LEAST = 0.008  # seconds late; what is sent together arrives together, but machines pause
DEVIATIONS = 2.0  # usual deviations from its time that a picture may have before it counts as late
_LONGEST = 0.15  # seconds between pictures; beyond, the source pauses
_STEPS = 8  # pictures, of which the longest interval is expected: some senders leave every third out
_GAIN = 1 / 8  # weight of the newest value in running means
_VAIN, _VAIN_GAIN = 0.5, 1 / 4  # part of guesses in vain from which there are none, and the newest one's weight
_FORGIVEN = 0.7  # what is left of that part after a loss


class TailProbe:
    """Call `came` for every packet beyond the highest, `lost` for every hole, `due` every few milliseconds.

    `clock`: seconds, never running back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._losses: deque[float] = deque(maxlen=FEW)
        self._highest: int | None = None
        self._timestamp = 0
        self._marker = False
        self._first = self._last = 0.0  # when the first and the last packet of the newest picture came
        self._steps: deque[float] = deque(maxlen=_STEPS)  # seconds between pictures, by their timestamps
        self._deviation = LEAST  # of the first packets' arrival
        self._spacing = LEAST / 2  # seconds between packets of a picture
        self._markers = True  # whether pictures end with a marker
        self._asked: tuple[int, float, float] | None = None  # the highest then, when, the round trip then
        self._vain = 0.0

    def came(self, number: int, timestamp: int, marker: bool) -> None:
        """Packet `number` came, the highest so far."""
        now = self._clock()
        ticks = (timestamp - self._timestamp) & 0xFFFFFFFF
        together = self._highest is not None and distance(self._highest, number) == 1
        if self._asked is not None and together and self._asked[0] == self._highest:
            in_vain = now - self._asked[1] < self._asked[2] / 2  # it was on its way
            self._vain += _VAIN_GAIN * (in_vain - self._vain)
        if self._highest is not None and ticks and ticks < _LONGEST * CLOCK_RATE:
            seconds = ticks / CLOCK_RATE
            self._steps.append(seconds)
            self._deviation += _GAIN * (abs(now - self._first - seconds) - self._deviation)
            self._markers = self._marker or not together
        elif not ticks and together:
            self._spacing += _GAIN * (now - self._last - self._spacing)
            marker = marker or self._marker  # padding may follow the end
        if ticks:
            self._first = now
        self._highest, self._timestamp, self._marker, self._last = number, timestamp, marker, now

    def lost(self) -> None:
        """Packets are missing."""
        self._losses.append(self._clock())
        self._vain *= _FORGIVEN

    def due(self, round_trip: float) -> int | None:
        """The number to ask for now, once each; None mostly. `round_trip`: seconds."""
        now = self._clock()
        if self._highest is None or not self._steps or not self._markers or self._vain > _VAIN:
            return None
        if self._asked is not None and self._asked[0] == self._highest:
            return None
        if len(self._losses) < FEW or now - self._losses[0] > SPAN:
            return None
        if self._marker:
            expected = self._first + max(self._steps) + max(LEAST, DEVIATIONS * self._deviation)
        else:
            expected = self._last + self._spacing + max(LEAST, self._spacing)
        if now < expected or now - self._last > 2 * _LONGEST:
            return None
        self._asked = self._highest, now, round_trip
        return (self._highest + 1) & 0xFFFF
