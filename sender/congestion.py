"""The rate that the link carries: REMB, loss and round trips in, the encoder's target out. No I/O.

Two signs of a full link come from any receiver: its own estimate (REMB, draft-alvestrand-rmcat-remb-03), which falls
when packets come later and later, and receiver reports (RFC 3550 section 6.4). A third is faster than the reports:
a NACK names a loss and, by the packet that showed it, the round trip of that moment. Loss alone says little, radio
links lose packets at any rate: below a tenth it is only heeded where the queue grows too (draft-ietf-rmcat-gcc-02
section 6 has the same threshold). An estimate of the link is kept only after such a sign; before it, and once the
estimate has outgrown what is wanted, the target is the ceiling itself.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable

from sender.sent import EXPANSION, WINDOW, SentLog

BETA = 0.85  # of what arrived, that receivers say when they see overuse (draft-ietf-rmcat-gcc-02 section 5.5)
MISSING = 0.75  # REMB over what should have arrived: below it the link delivers less than it is given
START = 500e3  # bit/s on the wire; a call that wants more grows from here, so that its first second fills no queue
FORESIGHT = 0.2  # seconds of falling REMBs after which their slope is believed
HOLD = 1.0  # seconds without growth after a step down: the queue drains first
PAUSE = 0.5  # the same after a fall of REMB that nothing else confirms
QUEUE_LIMIT, QUEUE_NOTICED = 0.15, 0.05  # seconds of queue: too much by itself, and too much together with loss
HEAVY_LOSS, FLOODED_LOSS = 0.1, 0.25  # with a queue or in report after report, and by itself within a second
LOST_AT_LEAST, FLOODED_AT_LEAST = 4, 10  # packets, before a fraction of few is believed
LARGEST_STEP = 0.5  # of the estimate is left by one step down: what follows is judged anew
STEP_DOWN = 0.9  # of what arrived, when the queue says that it is too much
USUAL, USUAL_LEAST = 10.0, 3  # seconds, and reports, of which the median is what a link loses by chance
LOSS_SPAN = 3.0  # seconds of receiver reports behind the loss that counts by itself
GROWTH, GROWTH_FIRST, GROWTH_NEAR = 0.4, 0.25, 0.08  # per second; the second until there was a step down
NEAR, CALM = 0.85, 5.0  # feel the way from this part of the rate that was too much last, until so many seconds after
LONGEST_RUN = 8  # packets of one NACK that count: more in a row were lost by an outage, not by a queue
RECENT = 0.05  # weight of the newest value of what went twice, some thirty a second
AGAIN_AT_MOST = 0.3  # of the estimate is set aside for retransmissions
REACH = 1.5  # times what is sent: an estimate that nothing has tried is worth no more
STUCK = 10.0  # seconds that a REMB below what is sent stays the same until it counts as a limit
BASE_SPAN = 10.0  # seconds whose shortest round trip is the empty queue's; a longer way is one soon, too


class RateTarget:
    """Follows the link between `floor` and `ceiling`, bit/s of coded video.

    Call `sent` for every access unit and retransmission, `estimated`, `reported` and `nacked` for what comes back,
    and `update` some ten times a second. Belongs to one thread. `clock`: monotonic seconds.
    """

    def __init__(self, ceiling: float, floor: float, clock: Callable[[], float] = time.monotonic) -> None:
        if not 0 < floor <= ceiling:
            raise ValueError(f"floor {floor} and ceiling {ceiling}")
        self._ceiling, self._floor, self._clock = ceiling, floor, clock
        self._fresh, self._again = SentLog(), SentLog()  # new packets and retransmissions
        self._nacked: deque[tuple[float, int]] = deque()
        self._reports: deque[tuple[float, float]] = deque()  # (when, fraction lost), of USUAL, the longer span
        self._trips: deque[tuple[float, float]] = deque()  # (when, seconds), of ever longer ones
        self._last: deque[tuple[float, float]] = deque(maxlen=2)  # (when, seconds)
        self._knee: float | None = None  # on the wire, what was too much last
        self._changed = -HOLD  # last step down
        self._paused_until = -HOLD
        # When REMBs began to fall, the first, what was sent then:
        self._fall: tuple[float, float, float] | None = None
        self._fell = -HOLD
        self._doubled = 0.0  # bit/s on the wire of what went twice, smoothed
        self._updated = clock()
        self._moved = clock()  # when REMB was another one last
        self.bitrate = ceiling
        """What the encoder is to spend, bit/s."""
        self.estimate: float | None = START if ceiling * EXPANSION > START else None
        """What the link is believed to carry, bit/s on the wire; None while nothing speaks against the ceiling."""
        self.remb = 0
        """The last REMB, bit/s; 0 before the first."""
        self.rtt: float | None = None
        """The last round trip, seconds."""
        self._apply(self._updated)

    @property
    def loss(self) -> float | None:
        """Fraction lost in the reports of the last seconds, 0..1; None without any."""
        recent = self._lost_within(LOSS_SPAN)
        return sum(recent) / len(recent) if recent else None

    @property
    def queued(self) -> bool:
        """Whether packets wait in a queue on their way."""
        return self._queue(self._clock()) > QUEUE_NOTICED

    def may_be_trip(self, seconds: float | None) -> bool:
        """Whether a packet of that age may have been answered: none is younger than the shortest round trip."""
        return seconds is not None and not (self._trips and seconds < self._trips[0][1])

    @property
    def wire(self) -> float:
        """Bit/s that left in the last second: payloads, headers down to IP, retransmissions."""
        now = self._clock()
        return self._fresh.wire(now) + self._again.wire(now)

    def sent(self, payload: int, packets: int, *, again: bool = False) -> None:
        """So many bytes of RTP payload left in so many packets; `again`: as retransmissions."""
        now = self._clock()
        for log in (self._fresh, self._again):
            log.begin(now)
        (self._again if again else self._fresh).add(now, payload * 8, packets)

    def estimated(self, bitrate: int) -> None:
        """A REMB: bit/s of RTP payload that the receiver thinks possible."""
        now = self._clock()
        before, self.remb = self.remb, bitrate
        if bitrate != before:
            self._moved = now
        expansion = self._fresh.expansion(now)
        delay = self.rtt or 0.0
        sent = self._fresh.payload(now - delay) + self._again.payload(now - delay)
        delivered = sent * (1 - self._usual())
        # The first is what arrived in a second; the next ones rise for as long as the receiver sees nothing wrong.
        # A fall comes with keyframes and with every hiccup of a machine, too: it counts where packets are missing or
        # late, and where the round trip is not known.
        if bitrate < before or not before:
            if bitrate < MISSING * delivered or self._queue(now) > QUEUE_NOTICED or not self._trips:
                ahead = self._foreseen(now, bitrate, delivered)
                self._step_down(ahead * expansion, bitrate / BETA * expansion)
            elif before:
                self._paused_until = now + PAUSE
        elif now - self._moved >= STUCK and bitrate < delivered:  # a limit that somebody has set
            self._step_down(bitrate * expansion, None)

    def _foreseen(self, now: float, bitrate: float, delivered: float) -> float:
        """Where falling REMBs will end, bit/s.

        They tell of the last second, and so for that second also of the time before the link became narrow. What they
        lose per second is what it now carries less than we gave it before.
        """
        if now - self._fell > PAUSE or self._fall is None:
            self._fall = now, bitrate, delivered
        self._fell = now
        start, first, given = self._fall
        if now - start < FORESIGHT:
            return bitrate
        carried = given - (first - bitrate) / (now - start) / BETA
        return min(max(BETA * carried, 0.5 * bitrate), bitrate)

    def reported(self, lost: float, round_trip: float | None = None) -> None:
        """A receiver report: fraction lost since the last one, 0..1, and the round trip in seconds if it tells."""
        now = self._clock()
        self._reports.append((now, lost))
        while self._reports[0][0] < now - USUAL:
            self._reports.popleft()
        self._heard(now, round_trip)
        since = [part for when, part in self._reports if when >= now - LOSS_SPAN and when > self._changed]
        if len(since) > 1 and (usual := statistics.median_low(since)) > HEAVY_LOSS:  # one alone may tell of an outage
            self._step_down(self._current(now) * (1 - usual / 2), None)

    def nacked(self, packets: int, round_trip: float | None = None) -> None:
        """So many packets are asked for the first time; `round_trip`: seconds since the one after them left."""
        now = self._clock()
        if round_trip is not None and now - round_trip < self._changed:
            return  # of before the last step down
        self._nacked.append((now, min(packets, LONGEST_RUN)))
        while self._nacked[0][0] < now - WINDOW:
            self._nacked.popleft()
        self._heard(now, round_trip)
        count, lost = self._missing(now)
        full = count >= LOST_AT_LEAST and lost > self._usual() + HEAVY_LOSS and self._queue(now) > QUEUE_NOTICED
        if full or (count >= FLOODED_AT_LEAST and lost > FLOODED_LOSS):
            self._full(now)

    def update(self) -> float:
        """Grow where nothing speaks against it. Returns the new `bitrate`."""
        now = self._clock()
        elapsed, self._updated = min(now - self._updated, 0.5), now
        if self.estimate is not None and self._may_grow(now):
            growth = GROWTH_FIRST if self._knee is None else GROWTH
            if self._knee is not None and self.estimate > NEAR * self._knee and now - self._changed < CALM:
                growth = GROWTH_NEAR
            grown = self.estimate * (1 + growth * elapsed)
            self.estimate = max(self.estimate, min(grown, REACH * self.wire))
            if self.estimate > self._wanted(now):
                self.estimate = None
        self._apply(now)
        return self.bitrate

    def _apply(self, now: float) -> None:
        # What goes twice comes out of the pictures, not on top of them.
        self._doubled += RECENT * (min(self._again.wire(now), AGAIN_AT_MOST * self._ceiling) - self._doubled)
        self.bitrate = max(self._ceiling - self._doubled, self._floor)
        if self.estimate is not None:
            again = min(self._again.wire(now), AGAIN_AT_MOST * self.estimate)
            media = (self.estimate - again) / self._fresh.expansion(now)
            self.bitrate = min(max(media, self._floor), self.bitrate)

    def _wanted(self, now: float) -> float:
        """Bit/s on the wire that the ceiling takes."""
        return self._ceiling * self._fresh.expansion(now) + self._again.wire(now)

    def _current(self, now: float) -> float:
        """Bit/s on the wire that we allow ourselves, or use where that is less."""
        wanted = self._wanted(now) if self.estimate is None else self.estimate
        return min(wanted, max(self.wire, self._floor))

    def _heard(self, now: float, round_trip: float | None) -> None:
        if round_trip is None:
            return
        self.rtt = round_trip = max(round_trip, 0.0)
        self._last.append((now, round_trip))
        while self._trips and self._trips[-1][1] >= round_trip:
            self._trips.pop()
        self._trips.append((now, round_trip))
        while self._trips[0][0] < now - BASE_SPAN:
            self._trips.popleft()
        if now - round_trip >= self._changed and self._queue(now) > QUEUE_LIMIT:
            self._full(now)

    def _missing(self, now: float) -> tuple[int, float]:
        """Packets asked for in the last second, and which fraction of those sent they are."""
        count = sum(number for when, number in self._nacked if when > now - WINDOW)
        return count, min(count / max(self._fresh.packets(now), 1.0), 0.8)

    def _usual(self) -> float:
        """Fraction that the link loses by chance, as far as reports tell: the median of the last ones."""
        recent = self._lost_within(USUAL)
        return statistics.median_low(recent) if len(recent) >= USUAL_LEAST else 0.0

    def _lost_within(self, span: float) -> list[float]:
        """Fractions lost in the reports of the last seconds, at most USUAL of them."""
        since = self._clock() - span
        return [lost for when, lost in self._reports if when >= since]

    def _may_grow(self, now: float) -> bool:
        held = now - self._changed < HOLD or now < self._paused_until
        if self._reports and now - self._reports[-1][0] < LOSS_SPAN:
            held |= self._reports[-1][1] > HEAVY_LOSS
        return not held and self._queue(now) < QUEUE_NOTICED

    def _queue(self, now: float) -> float:
        """Seconds that packets spend in queues beyond what they must; 0 where nothing recent is known.

        The shorter of the last two round trips: a machine that pauses makes one long, a queue makes both.
        """
        recent = [seconds for when, seconds in self._last if now - when < 3 * WINDOW]
        return min(recent) - self._trips[0][1] if len(recent) > 1 and self._trips else 0.0

    def _full(self, now: float) -> None:
        """The queue says that what was sent is too much; what arrived of it is what the link carries."""
        arrived = self._fresh.wire(now) * (1 - self._missing(now)[1])
        self._nacked.clear()
        self._step_down(min(STEP_DOWN * arrived, self._current(now)), None if self.remb else arrived)

    def _step_down(self, wire: float, knee: float | None) -> None:
        now = self._clock()
        self._changed = now
        if knee is not None:
            self._knee = knee
        before = self._wanted(now) if self.estimate is None else self.estimate
        self.estimate = max(min(wire, before), LARGEST_STEP * before, self._floor)
        self._apply(now)
