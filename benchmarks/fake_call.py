"""A call in a fake clock across benchmarks/link.py: what a rate controller makes of a link, and the link of it.

No threads, no sockets: twenty-four seconds take a tenth of one. REMB is from aiortc's own estimator, fed as aiortc's
receiver feeds it; lost packets are asked for once; governor and pacer of the sender are semcall's.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import fmean

from aiortc.rate import RemoteBitrateEstimator

from benchmarks.link import Link, LinkSpec
from benchmarks.transport_cc import Fate, TransportCc
from sender.congestion import RateTarget
from sender.pacer import Pacer
from sender.retransmission import ChanceLoss, RetransmissionGovernor
from sender.sent import PACKET_OVERHEAD

FLOOR, SECONDS, FPS, PAYLOAD = 100e3, 24.0, 30, 1200
SMALL = 100  # bytes of RTCP with its headers
EVERY = 0.05  # seconds between transport-cc feedbacks
SIGMA, DEBT = 0.5, 8  # of the logarithm of picture sizes; pictures in which what was too much is paid back
TICK = 250e-6  # seconds; arrival times come in these (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1)


@dataclass(frozen=True)
class Row:
    """`limit`: bit/s that settling, down and up are about."""

    title: str
    forward: LinkSpec
    ceiling: float
    back: LinkSpec
    limit: float | None = None
    steps: bool = False

    @property
    def had(self) -> float:
        """Bit/s that can be had after settling."""
        return min(self.ceiling, self.limit or self.ceiling)


@dataclass(frozen=True)
class Controller:
    """`make(ceiling, floor, clock)`; what comes back besides reports and NACKs."""

    make: Callable[[float, float, Callable[[], float]], RateTarget | TransportCc]
    remb: bool = False
    feedback: bool = True


class Call:
    """One call, run to its end by `run`. `targets`: (seconds, bit/s), ten times a second."""

    def __init__(self, row: Row, controller: Controller, seed: int, spaced: bool = False) -> None:
        self.now, self.row, self._controller, self._spaced = 0.0, row, controller, spaced
        self._random = random.Random(seed)
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self.link = Link(replace(row.forward, seed=seed))
        self._return = Link(replace(row.back, seed=seed + 100))
        self._return.begin(0.0)
        self.target = controller.make(row.ceiling, FLOOR, lambda: self.now)
        self._governor = RetransmissionGovernor(lambda: self.target.bitrate, clock=lambda: self.now)
        self._next = 0.0  # when the next new packet may leave
        self._chance, self._pacer = ChanceLoss(lambda: self.now), Pacer(lambda: self.target.bitrate, lambda: self.now)
        self._estimator = RemoteBitrateEstimator()
        self._stamps: list[tuple[float, int]] = []  # of new packets: abs-send-time, bytes of payload
        self._left: list[tuple[float, int]] = []  # of all packets: seconds, bytes on the wire
        self._came: dict[int, float] = {}
        self._told = 0  # packets that feedback has spoken of
        self._highest, self._count, self._before, self._trip = -1, 0, (-1, 0), 0.0
        self._debt = 0.0
        self.targets: list[tuple[float, float]] = []
        for when, action in ((0.0, self._picture), (0.1, self._tick), (0.3, self._asks), (0.7, self._report)):
            self._at(when, action)
        if controller.feedback:
            self._at(EVERY, self._feedback)

    def run(self) -> None:
        while self._events[0][0] <= SECONDS:
            self.now, _, action = heapq.heappop(self._events)
            action()

    def mean(self, start: float, end: float) -> float:
        """Of the target, bit/s."""
        return fmean(target for when, target in self.targets if start <= when < end)

    def _at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), action))

    def _picture(self) -> None:
        even = self.target.bitrate / FPS
        bits = 0.2 * self.target.bitrate  # the first is an IDR
        if self._stamps:
            bits = min(max(even + self._debt / DEBT, 0.5 * even), 2 * even)
            bits *= self._random.lognormvariate(-(SIGMA**2) / 2, SIGMA)
            self._debt += even - bits
        size = max(int(bits / 8), 50)
        packets = -(-size // PAYLOAD)
        self.target.sent(size, packets)
        for index in range(packets):
            number, part = len(self._stamps), min(PAYLOAD, size - index * PAYLOAD)
            leaves = max(self.now, self._next)
            self._stamps.append((leaves, part))  # after the wait for the one before it
            self._at(leaves, lambda number=number: self._send(number))  # type: ignore[misc]
            rest = self._pacer.sent(part + PACKET_OVERHEAD)
            self._next = self.now + rest if self._spaced or self._chance.recent else self.now
        self._at(self.now + 1 / FPS, self._picture)

    def _send(self, number: int, again: bool = False) -> None:
        stamp, payload = self._stamps[number]
        payload += 2 if again else 0  # RFC 4588 section 4
        order = len(self._left)
        self._left.append((self.now, payload + PACKET_OVERHEAD))
        arrival = self.link.push(self.now, payload + PACKET_OVERHEAD, media=True)
        if arrival is not None:
            self._at(arrival, lambda: self._arrive(number, stamp, payload, order, again))

    def _back(self, action: Callable[[], None]) -> None:
        arrival = self._return.push(self.now, SMALL)
        if arrival is not None:
            self._at(arrival, action)

    def _arrive(self, number: int, stamp: float, payload: int, order: int, again: bool) -> None:
        self._came[order] = self.now
        target = self.target
        if self._controller.remb and isinstance(target, RateTarget):
            sent = int(stamp * (1 << 18)) & 0xFFFFFF
            told = self._estimator.add(int(self.now * 1000), sent, payload, 2 if again else 1)
            if told is not None:
                self._back(lambda: target.estimated(told[0]))
        if not again:
            self._count += 1
            missing = list(range(self._highest + 1, number))
            self._highest = number
            if 0 < len(missing) < 64:
                self._back(lambda: self._asked(missing, number))

    def _asked(self, missing: list[int], shown_by: int) -> None:
        self._chance.lost(len(missing))
        if isinstance(self.target, RateTarget):
            self.target.nacked(len(missing), self.now - self._stamps[shown_by][0])
        for number in missing:
            size = self._stamps[number][1] + 2
            if self._governor.allow(number, size + PACKET_OVERHEAD, self.target.rtt):
                self.target.sent(size, 1, again=True)
                self._pacer.sent(size + PACKET_OVERHEAD)
                self._send(number, again=True)

    def _feedback(self) -> None:
        self._at(self.now + EVERY, self._feedback)
        if self._came and (highest := max(self._came)) >= self._told:
            came = {
                number: round(self._came.get(number, -1.0) / TICK) * TICK for number in range(self._told, highest + 1)
            }
            self._told, held = highest + 1, self.now - self._came[highest]
            self._back(lambda: self._learn(came, held))

    def _learn(self, came: dict[int, float], held: float) -> None:
        trip = self.now - held - self._left[max(came)][0]
        if isinstance(self.target, RateTarget):
            self.target.nacked(0, trip)
        else:
            left = ((number, *self._left[number]) for number in came)
            self.target.feedback([Fate(t, came[n] if came[n] >= 0 else None, size * 8) for n, t, size in left], trip)

    def _asks(self) -> None:
        """A sender report: it waits in the queue as well, and shows the round trip."""
        began = self.now
        arrival = self.link.push(began, SMALL)
        if arrival is not None:
            self._at(arrival, lambda: setattr(self, "_trip", arrival - began))
        self._at(self.now + self._random.uniform(0.5, 1.5), self._asks)

    def _report(self) -> None:
        expected, count = self._highest - self._before[0], self._count - self._before[1]
        lost = int(256 * max(0.0, 1 - count / expected)) / 256 if expected else 0.0
        self._before = self._highest, self._count
        forward, began, target = self._trip, self.now, self.target
        if isinstance(target, RateTarget):
            self._back(lambda: target.reported(lost, forward + self.now - began if forward else None))
        self._at(self.now + self._random.uniform(0.5, 1.5), self._report)

    def _tick(self) -> None:
        self.targets.append((self.now, self.target.update()))
        self._at(self.now + 0.1, self._tick)
