"""Google congestion control at the sender, from per-packet feedback, to set beside semcall's own. No I/O.

After draft-ietf-rmcat-gcc-02; where libwebrtc has left the draft, after libwebrtc: a line through the smoothed delay
in place of section 5.3's Kalman filter, and faster gains of the adaptive threshold, which aiortc's receiver has, too.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, linear_regression

from sender.congestion import (
    AGAIN_AT_MOST,
    BETA,
    CALM,
    GROWTH,
    GROWTH_FIRST,
    GROWTH_NEAR,
    HEAVY_LOSS,
    NEAR,
    QUEUE_NOTICED,
    START,
)
from sender.sent import EXPANSION, SentLog

FPS, PACKET = 30, 9600  # pictures a second and bits of a full packet, for the packet that section 5.5 grows by
BURST = 0.005  # seconds; packets that left within it are one group (section 5.2)
FITTED, SMOOTHING, GAIN, DELTAS = 20, 0.9, 4.0, 60  # groups, weight of the past, and what the slope is scaled by
FIRST, K_UP, K_DOWN, THRESHOLDS = 12.5, 0.0087, 0.039, (6.0, 600.0)  # ms, per ms: the adaptive threshold (5.4)
SPIKE = 15.0  # ms over the threshold that it does not follow
OVERUSED = 10.0  # ms over the threshold until it counts
ARRIVING, RECENT = 0.5, 0.05  # seconds, and the weight of the newest, of what arrives (5.5)
FEW_LOST, MANY_LOST = 0.02, 0.1  # fractions (section 6)


@dataclass(frozen=True, slots=True)
class Fate:
    """One packet as the sender learns of it: seconds, bits on the wire; `arrived` None: lost."""

    sent: float
    arrived: float | None
    bits: float


class TransportCc:
    """Google congestion control at the sender (draft-ietf-rmcat-gcc-02), fed per packet; targets as of RateTarget.

    Feedback is that of draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3, already matched with what left.
    """

    def __init__(
        self, ceiling: float, floor: float, clock: Callable[[], float], patient: bool = False, quick: bool = False
    ) -> None:
        self._ceiling, self._floor, self._clock, self._patient, self._quick = ceiling, floor, clock, patient, quick
        self._fresh, self._again = SentLog(), SentLog()
        self.delay_based = min(START, ceiling * EXPANSION)
        self.loss_based = ceiling * EXPANSION if patient else self.delay_based
        self.usage, self._hold = 0, False  # 1: too much is sent, -1: a queue drains
        self._arrived: deque[tuple[float, float]] = deque()
        self._fates: deque[tuple[float, bool]] = deque()
        self._group: tuple[float, float, float] | None = None  # first and last sent, last arrived
        self._previous: tuple[float, float] | None = None
        self._line: deque[tuple[float, float]] = deque(maxlen=FITTED)  # ms: arrived, smoothed delay
        self._summed = self._smoothed = self._trend = 0.0
        self._deltas, self._over, self._overs, self._threshold = 0, 0.0, 0, FIRST
        self._knee: float | None = None  # mean of what arrived when it was too much, bit/s, and its relative variance
        self._variance, self._shortest, self._queue = 0.4e3, math.inf, 0.0
        self._updated = clock()
        self._cut = self._cut_loss = -math.inf
        self.rtt: float | None = None
        self.bitrate = self.update()

    def sent(self, payload: int, packets: int, *, again: bool = False) -> None:
        now = self._clock()
        for log in (self._fresh, self._again):
            log.begin(now)
        (self._again if again else self._fresh).add(now, payload * 8, packets)

    def feedback(self, fates: Sequence[Fate], round_trip: float) -> None:
        now, self.rtt = self._clock(), round_trip
        for fate in fates:
            self._fates.append((now, fate.arrived is None))
            if fate.arrived is not None:
                self._arrived.append((fate.arrived, fate.bits))
                self._shortest = min(self._shortest, fate.arrived - fate.sent)
                self._queue = fate.arrived - fate.sent - self._shortest
                self._grouped(fate.sent, fate.arrived)
        while self._arrived and self._arrived[0][0] <= self._arrived[-1][0] - ARRIVING:
            self._arrived.popleft()
        while self._fates and self._fates[0][0] <= now - 1:
            self._fates.popleft()
        elapsed, self._updated = min(now - self._updated, 1.0), now
        self._rule_delay(now, elapsed, sum(bits for _, bits in self._arrived) / ARRIVING)
        self._rule_loss(now, elapsed)

    def update(self) -> float:
        expansion, again = self._fresh.expansion(self._clock()), self._again.wire(self._clock())
        wanted = self._ceiling * expansion
        self.delay_based = min(max(self.delay_based, self._floor), wanted)
        self.loss_based = min(max(self.loss_based, self._floor), wanted)
        estimate = min(self.delay_based, self.loss_based)
        self.bitrate = max((estimate - min(again, AGAIN_AT_MOST * estimate)) / expansion, self._floor)
        return self.bitrate

    def _grouped(self, sent: float, arrived: float) -> None:
        """Pre-filtering (section 5.2) and inter-group delay variation (5.1)."""
        if self._group is not None:
            first, last, came = self._group
            if sent < first:
                return
            if sent - first <= BURST or arrived - came < min(BURST, sent - last):
                self._group = first, max(sent, last), max(arrived, came)
                return
            if self._previous is not None:
                left = (last - self._previous[0]) * 1e3
                self._filtered((came - self._previous[1]) * 1e3 - left, left, came * 1e3)
            self._previous = last, came
        self._group = sent, sent, arrived

    def _filtered(self, variation: float, left: float, came: float) -> None:
        """Arrival-time filter, a line through the smoothed delay, and over-use detector (5.4); all in ms."""
        self._deltas += 1
        self._summed += variation
        self._smoothed += (1 - SMOOTHING) * (self._summed - self._smoothed)
        step = min(came - self._line[-1][0], 100.0) if self._line else 0.0
        self._line.append((came, self._smoothed))
        trend = self._trend
        if len(self._line) == FITTED:
            trend = linear_regression(*zip(*self._line, strict=True)).slope
        size = min(self._deltas, DELTAS) * GAIN * trend
        if size > self._threshold:
            self._over += left if self._overs else left / 2
            self._overs += 1
            if self._over > OVERUSED and self._overs > 1 and trend >= self._trend:
                self.usage, self._over, self._overs = 1, 0.0, 0
        else:
            self.usage, self._over, self._overs = -1 if size < -self._threshold else 0, 0.0, 0
        self._trend = trend
        if abs(size) <= self._threshold + SPIKE:
            gain = K_DOWN if abs(size) < self._threshold else K_UP
            low, high = THRESHOLDS
            self._threshold = min(max(self._threshold + gain * (abs(size) - self._threshold) * step, low), high)

    def _rule_delay(self, now: float, elapsed: float, arriving: float) -> None:
        """Rate control (5.5)."""
        if self.usage > 0 and arriving and now - self._cut >= max(self.rtt or 0.0, 0.1):
            if self._knee is None or abs(arriving - self._knee) > 3 * self._spread:
                self._knee = arriving
            self._knee += RECENT * (arriving - self._knee)
            variance = (arriving - self._knee) ** 2 / self._knee
            self._variance = min(max((1 - RECENT) * self._variance + RECENT * variance, 0.4e3), 2.5e3)
            self.delay_based = min(self.delay_based, BETA * arriving)
            self._cut, self._hold = now, True
        elif self.usage < 0:
            self._hold = True
        elif not self.usage and self._hold:
            self._hold = False
        elif not self.usage:
            if self._knee is not None and arriving > self._knee + 3 * self._spread and not self._quick:
                self._knee = None
            self.delay_based = max(self.delay_based, min(self._grown(now, elapsed), 1.5 * arriving + 10e3))

    @property
    def _spread(self) -> float:
        return math.sqrt(self._variance * (self._knee or 0.0))

    def _grown(self, now: float, elapsed: float) -> float:
        rate = self.delay_based
        if self._quick:
            near = self._knee is not None and rate > NEAR * self._knee and now - self._cut < CALM
            growth = GROWTH_FIRST if self._knee is None else GROWTH_NEAR if near else GROWTH
            return rate * (1 + growth * elapsed)
        if self._knee is None:
            return float(rate * 1.08**elapsed)
        picture = rate / FPS
        packet = picture / math.ceil(picture / (PACKET))
        return rate + max(1000.0, 0.5 * min(elapsed / (0.1 + (self.rtt or 0.1)), 1.0) * packet)

    def _rule_loss(self, now: float, elapsed: float) -> None:
        """Section 6, over the last second: a feedback alone is of few packets."""
        lost = fmean(missing for _, missing in self._fates) if self._fates else 0.0
        if lost > MANY_LOST and (not self._patient or self._queue > QUEUE_NOTICED):
            if now - self._cut_loss >= 0.3 + (self.rtt or 0.1) and len(self._fates) >= FPS / 2:
                self.loss_based, self._cut_loss = self.loss_based * (1 - lost / 2), now
                self._fates.clear()  # heeded
        elif lost < (HEAVY_LOSS if self._patient else FEW_LOST):
            self.loss_based *= 1 + (GROWTH if self._patient else 0.05) * elapsed
