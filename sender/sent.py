"""What was sent in the last second, with and without headers."""

from __future__ import annotations

from collections import deque

PACKET_OVERHEAD = 62  # bytes: IPv4 20, UDP 8, RTP 12, its two header extensions 12, SRTP tag 10
WINDOW = 1.0  # seconds over which rates are measured; also that of the receivers' estimators
EXPANSION = 1.08  # bits on the wire for every bit of payload, before anything was sent


class SentLog:
    """Rates over the last second of what left. Times are the caller's clock, in seconds."""

    def __init__(self) -> None:
        self._items: deque[tuple[float, int, int]] = deque()  # when, payload bits, packets
        self._start: float | None = None

    def begin(self, now: float) -> None:
        """The call runs from now on, or does already."""
        self._start = now if self._start is None else self._start

    def add(self, now: float, bits: int, packets: int) -> None:
        """So many bits of payload left in so many packets."""
        self._items.append((now, bits, packets))
        while self._items[0][0] < now - 3 * WINDOW:
            self._items.popleft()

    def payload(self, now: float) -> float:
        """Bit/s of RTP payload in the second that ends `now`."""
        return self._per_second(now)[0]

    def packets(self, now: float) -> float:
        """Packets per second."""
        return self._per_second(now)[1]

    def wire(self, now: float) -> float:
        """Bit/s with all headers."""
        bits, packets = self._per_second(now)
        return bits + packets * PACKET_OVERHEAD * 8

    def expansion(self, now: float) -> float:
        """Bits on the wire for every bit of payload; a guess before anything was sent."""
        bits, packets = self._per_second(now)
        return 1 + packets * PACKET_OVERHEAD * 8 / bits if bits else EXPANSION

    def _per_second(self, now: float) -> tuple[float, float]:
        if self._start is None:
            return 0.0, 0.0
        inside = [(bits, packets) for when, bits, packets in self._items if now - WINDOW < when <= now]
        span = min(max(now - self._start, 0.2), WINDOW)
        return sum(bits for bits, _ in inside) / span, sum(packets for _, packets in inside) / span
