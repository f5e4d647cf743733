"""A sender on a narrow link in a fake second: packets through a queue, and what a stock receiver says of them.

The receiver's estimator is aiortc's own; reports, NACKs and REMB travel back with the link's delay. No threads, no
sockets, no real clock: twenty seconds of call take a fraction of one.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiortc.rate import RemoteBitrateEstimator

from sender.congestion import RateTarget
from sender.retransmission import RetransmissionGovernor
from sender.sent import PACKET_OVERHEAD

PAYLOAD = 1200


@dataclass(frozen=True)
class Link:
    """`rates`: (from second, bit/s), in order; `queue`: seconds at that rate; `loss`: chance, either way."""

    rates: Sequence[tuple[float, float]]
    loss: float = 0.0
    delay: float = 0.04
    queue: float = 0.4
    outage: tuple[float, float] = (0.0, 0.0)

    def rate(self, now: float) -> float:
        return [rate for start, rate in self.rates if start <= now][-1]

    def out(self, now: float) -> bool:
        return self.outage[0] <= now < self.outage[1]


class Call:
    """`run(seconds)` goes on so long; `target(time)` and what arrived are logged."""

    def __init__(self, link: Link, ceiling: float, floor: float = 100e3, seed: int = 1, remb: bool = True) -> None:
        self.link, self.remb = link, remb
        self.now = 0.0
        self._random = random.Random(seed)
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._free = 0.0  # when the link has sent what is queued
        self._sequence = 0
        self._left: dict[int, float] = {}
        self._received: deque[tuple[float, int]] = deque()
        self._highest = -1
        self._before = (-1, 0)
        self._count = 0
        self._asked: set[int] = set()
        self._debt = 0.0
        self.idrs = [0.0]
        self._estimator = RemoteBitrateEstimator()
        self.target = RateTarget(ceiling, floor, lambda: self.now)
        self.governor = RetransmissionGovernor(lambda: self.target.bitrate, clock=lambda: self.now)
        self.targets: list[tuple[float, float]] = []
        self.wire: list[tuple[float, int]] = []
        self.delays: list[tuple[float, float]] = []
        self.dropped = 0
        self._at(0.0, self._picture)
        self._at(0.05, self._tick)
        self._at(0.7, self._report)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, action = heapq.heappop(self._events)
            action()
        self.now = end

    def mean(self, start: float, end: float) -> float:
        """Of the target, bit/s."""
        values = [target for when, target in self.targets if start <= when < end]
        return sum(values) / len(values)

    def wire_rate(self, start: float, end: float) -> float:
        """What left, bit/s with all headers and retransmissions."""
        return sum(bits for when, bits in self.wire if start <= when < end) / (end - start)

    def below(self, rate: float, after: float) -> float:
        """Seconds after the time `after` when the target first was below `rate`."""
        return next(when for when, target in self.targets if when >= after and target < rate) - after

    def above(self, rate: float, after: float) -> float:
        return next(when for when, target in self.targets if when >= after and target >= rate) - after

    def delay(self, percent: float, start: float) -> float:
        """Of the packets that left from `start` on, seconds one way."""
        values = sorted(delay for when, delay in self.delays if when >= start)
        return values[int(len(values) * percent / 100)]

    def _at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), action))

    def _picture(self) -> None:
        even = self.target.bitrate / 30
        idr = bool(self.idrs) and self.now >= self.idrs[0]
        if idr:
            self.idrs.pop(0)
            bits = 0.25 * self.target.bitrate
        else:
            bits = min(max(even + self._debt / 3, 0.55 * even), 2.5 * even) * self._random.lognormvariate(0, 0.2)
        self._debt = min(max(self._debt + even - bits, -0.8 * self.target.bitrate), 0.5 * self.target.bitrate)
        size = int(bits / 8)
        packets = -(-size // PAYLOAD)
        self.target.sent(size, packets)
        for index in range(packets):
            part = min(PAYLOAD, size - index * PAYLOAD)
            self._left[self._sequence] = self.now
            self._send(part, self._sequence)
            self._sequence += 1
        self._at(self.now + 1 / 30, self._picture)

    def _send(self, size: int, sequence: int, again: bool = False) -> None:
        wire = size + PACKET_OVERHEAD
        self.wire.append((self.now, wire * 8))
        rate = self.link.rate(self.now)
        if self.link.out(self.now) or self._random.random() < self.link.loss:
            return
        start = max(self._free, self.now)
        if start - self.now > self.link.queue:
            self.dropped += 1
            return
        self._free = start + wire * 8 / rate
        left = self._left[sequence]
        arrival = self._free + self.link.delay
        if not again:
            self.delays.append((self.now, arrival - self.now))
        self._at(arrival, lambda: self._arrive(size, sequence, left, again))

    def _back(self, action: Callable[[], None]) -> None:
        if self._random.random() >= self.link.loss and not self.link.out(self.now):
            self._at(self.now + self.link.delay, action)

    def _arrive(self, size: int, sequence: int, left: float, again: bool) -> None:
        self._count += 1
        stamp = int(left * (1 << 18)) & 0xFFFFFF
        estimate = self._estimator.add(int(self.now * 1000), stamp, size, 2 if again else 1)
        if estimate is not None and self.remb:
            bitrate = estimate[0]
            self._back(lambda: self.target.estimated(bitrate))
        missing = [number for number in range(self._highest + 1, sequence) if self._highest >= 0]
        self._highest = max(self._highest, sequence)
        if missing and len(missing) < 64:
            self._back(lambda: self._nack(missing, sequence))

    def _nack(self, missing: list[int], shown_by: int) -> None:
        fresh = [number for number in missing if number not in self._asked]
        self._asked.update(fresh)
        self.target.nacked(len(fresh), self.now - self._left[shown_by])
        for number in fresh:
            if self.governor.allow(number, PAYLOAD, self.target.rtt):
                self.target.sent(PAYLOAD, 1, again=True)
                self._send(PAYLOAD, number, again=True)

    def _report(self) -> None:
        highest, count = self._before
        expected = self._highest - highest
        lost = max(0.0, 1 - (self._count - count) / expected) if expected > 0 else 0.0
        self._before = self._highest, self._count
        trip = max(self._free - self.now, 0.0) + 2 * self.link.delay
        self._back(lambda: self.target.reported(lost, trip))
        self._at(self.now + self._random.uniform(0.5, 1.5), self._report)

    def _tick(self) -> None:
        self.targets.append((self.now, self.target.update()))
        self._at(self.now + 0.05, self._tick)
