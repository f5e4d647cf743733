"""Which lost packets are sent again, and which of them twice."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

SHARE = 0.25  # of the target rate; the rest of the link belongs to new pictures
BURST = 0.1  # seconds of the target rate may go at once
COPIES, COPIES_BURST = 0.04, 2600  # of the rate, and bytes at once: two packets
LEAST_BURST = 9600  # bytes, at any rate: eight full packets, a lost picture
UNKNOWN_ROUND_TRIP = 0.1  # seconds, until there is a measurement
SHORTEST_GAP = 0.02  # seconds; NACKs of one burst arrive together
MARGIN = 0.8  # of the round trip: what is measured varies, and the receiver waits longer than one by itself
SPAN, FEW = 10.0, 2  # so many packets lost in so many seconds make a link that loses them
_KEPT = 512  # sequence numbers; four times what aiortc can still send again


class ChanceLoss:
    """Whether packets were lost again and again of late. `clock`: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lost: deque[tuple[float, int]] = deque(maxlen=_KEPT)

    def lost(self, packets: int) -> None:
        """So many packets are missing that were not before."""
        self._lost.append((self._clock(), packets))

    @property
    def recent(self) -> bool:
        """Whether so: then retransmissions are lost in their turn, and must not wait behind new packets."""
        since = self._clock() - SPAN
        return sum(packets for when, packets in self._lost if when >= since) >= FEW


class RetransmissionGovernor:
    """Answers every requested packet (generic NACK, RFC 4585 section 6.2.1) with yes or no.

    A token bucket: retransmissions take at most `share` of `rate()` bit/s, and a packet goes at most once per round
    trip, since an answer to the first request may still be on its way. Without this, each NACK for a congested link
    makes it more congested. `clock`: seconds.
    """

    def __init__(
        self, rate: Callable[[], float], share: float = SHARE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._share, self._clock = rate, share, clock
        self._tokens = self._burst  # bytes
        self._filled = self._copied = clock()
        self._spare = float(COPIES_BURST)  # bytes for copies
        self._sent: dict[int, float] = {}  # sequence number -> when last, oldest first
        self.retransmitted = 0
        self.refused = 0

    @property
    def _burst(self) -> float:
        return max(BURST * self._rate() / 8, LEAST_BURST)

    def allow(self, sequence_number: int, size: int, round_trip: float | None = None) -> bool:
        """Whether this packet of `size` bytes goes again now; `round_trip`: seconds, None where not known.

        True counts it as sent.
        """
        now = self._clock()
        self._fill(now)
        gap = max(SHORTEST_GAP, MARGIN * (UNKNOWN_ROUND_TRIP if round_trip is None else round_trip))
        last = self._sent.get(sequence_number)
        if size > self._tokens or (last is not None and now - last < gap):
            self.refused += 1
            return False
        self._tokens -= size
        self._sent.pop(sequence_number, None)
        self._sent[sequence_number] = now
        if len(self._sent) > _KEPT:
            del self._sent[next(iter(self._sent))]
        self.retransmitted += 1
        return True

    def allow_copy(self, size: int) -> bool:
        """Whether there is room for a copy of what has just been sent again, of COPIES of the rate."""
        now = self._clock()
        self._fill(now)
        spare = self._spare + (now - self._copied) * COPIES * self._rate() / 8
        self._spare, self._copied = min(spare, COPIES_BURST), now
        if size > min(self._tokens, self._spare):
            return False
        self._tokens -= size
        self._spare -= size
        return True

    def _fill(self, now: float) -> None:
        filled = self._tokens + (now - self._filled) * self._share * self._rate() / 8
        self._tokens, self._filled = min(filled, self._burst), now
