"""Which lost packets to ask for again, and when (generic NACK, RFC 4585 section 6.2.1). Pure policy.

A number that is missing is asked for at once on a link that has kept packets in order so far; at first, and where one
came late by itself, once two packets have come from behind the missing one, or after ten milliseconds: sooner would
ask for packets that only changed places on the way. No answer within a round trip and its usual variation means that
the request, or the retransmission, was lost in its turn: it is asked for again, until the answer could not come in
time any more. Three tries fit into `patience`. With 5% lost in both directions a try fails in 10% of all cases, three
in a row in one of a thousand. Where first tries fail, each gets an echo a few milliseconds later: a request is small,
and a sender that has answered the first leaves the second alone. What nothing has come from behind is guessed at
(receiver/tail.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from receiver.sequence import RESTART_DISTANCE, distance
from receiver.tail import TailProbe
from shared.picture import CLOCK_RATE

REORDERING = 0.01  # seconds; a packet that much behind its successor counts as lost
_ECHO = 0.015  # seconds from a first try to its echo: bursts of loss on a radio link are mostly shorter
_FAILING = 0.03  # part of first tries unanswered from which they get one
_BEHIND = 2  # packets from behind a missing one that make it lost at once
_ORDERED = 32  # packets in order that a link has to carry first, for one to do
_FIRST_INTERVAL = 0.1  # seconds between tries before a round trip has been measured
_INTERVALS = 0.03, 0.5  # seconds; bounds of it after that
_TRIES = 4  # per packet, however short the round trip
_IN_TIME = 3  # tries that `patience` has room for
_PATIENCE = 0.15, 0.8  # seconds; bounds of it. Below, a slow sender's answer would come late; above, a call stutters
_REMEMBERED = 256  # numbers, those given up included
_BATCH = 64  # numbers in one message: at worst 256 bytes, and four for a guess
_MEMORY = 2.0  # seconds after which the answer to a request is no longer expected
_OUTAGE = 0.3  # seconds of media; more packets missing than an IDR has, and over that time, and the IDR is cheaper
_KEYFRAME = 16  # packets, more than an IDR at 500 kbit/s has
MOST_MISSING = 128  # packets missing at a time; what is beyond is not repaired


class RtpNumbers(Protocol):
    """What is looked at of an RTP packet."""

    sequence_number: int
    timestamp: int
    marker: int
    ssrc: int


def irreparable(count: int, ticks: int) -> bool:
    """Whether a gap of `count` packets over `ticks` of the RTP clock (90 kHz) is not worth asking for."""
    return count > MOST_MISSING or (count > _KEYFRAME and ticks > _OUTAGE * CLOCK_RATE)


@dataclass(slots=True)
class _Missing:
    since: float  # when the first packet came from behind it
    behind: int = 1  # packets that did
    tries: int = 0
    first: float = 0.0  # when it was first asked for
    last: float = 0.0
    given_up: bool = False
    echoed: bool = False
    early: bool = False  # asked for on the order kept so far alone, before any round trip was known
    guessed: bool = False  # before it was seen: what comes may answer that, and says nothing of the round trip


class NackSchedule:
    """Takes the place of aiortc's NackGenerator, which asks once and never again. For one thread.

    aiortc calls `add` with every packet, retransmissions unwrapped (RFC 4588), and sends what is in `missing` when
    it says so; a timer sends what `due` returns.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds, never running back."""
        self._clock = clock
        self._holes: dict[int, _Missing] = {}
        self._highest: int | None = None
        self._timestamp = 0  # the highest packet's
        self._variation = 0.0
        self._backed_off = 0.0
        self._tail = TailProbe(clock)
        self._guess: tuple[int, float] | None = None  # what was asked for by `_tail` last, and when
        self._in_order = True  # no packet has come late by itself so far
        self._came = 0  # packets that came in their turn, or beyond a hole
        self._failing = 0.0  # part of first tries that needed a second, smoothed
        self.ssrc: int | None = None
        """Whose numbers are in `missing` and returned by `due`."""
        self.missing: list[int] = []
        """The numbers to ask for now, after `add` has returned True. Ascending, as aiortc's packer needs them."""
        self.rtt: float | None = None
        """Seconds from a request to its answer, smoothed; None before the first."""
        self.requested = 0
        """Packets asked for, every try counted."""
        self.recovered = 0
        """Packets that came after they had been asked for, and in time."""

    @property
    def interval(self) -> float:
        """Seconds between two tries."""
        if self.rtt is None:
            return max(_FIRST_INTERVAL, self._backed_off)
        # As a retransmission timer (RFC 6298), but with half its margin: asking in vain costs one packet at most.
        bounded = min(max(self.rtt + max(0.02, 2 * self._variation), _INTERVALS[0]), _INTERVALS[1])
        return max(bounded, self._backed_off)

    @property
    def patience(self) -> float:
        """Seconds that a hole should be waited for, so that the last try's answer is in time."""
        return min(max(4 * REORDERING + _IN_TIME * self.interval, _PATIENCE[0]), _PATIENCE[1])

    def add(self, packet: RtpNumbers) -> bool:
        """Take one packet's numbers. Whether there is something to ask for: see `missing`."""
        number, now = packet.sequence_number, self._clock()
        if self._highest is None or packet.ssrc != self.ssrc:
            self._restart(packet)
            return False
        ahead = distance(self._highest, number)
        if ahead <= 0:
            self._arrived(number, now)
            if ahead < -RESTART_DISTANCE:
                self._restart(packet)
            return False
        ticks = (packet.timestamp - self._timestamp) & 0xFFFFFFFF
        if irreparable(ahead - 1, ticks if ticks < 1 << 31 else 0) or len(self._holes) + ahead > _REMEMBERED:
            self._restart(packet)
            return False
        for hole in self._holes.values():
            hole.behind += 1
        for step in range(1, ahead):
            self._holes[(self._highest + step) & 0xFFFF] = self._new_hole((self._highest + step) & 0xFFFF, now)
        if ahead > 1:
            self._tail.lost()
        self._highest, self._timestamp = number, packet.timestamp
        self._came += 1
        self._tail.came(number, packet.timestamp, bool(packet.marker))
        self.missing = self.due()
        return bool(self.missing)

    def due(self) -> list[int]:
        """The numbers to ask for now, ascending, each counted as asked for; at most 64. Call it on a timer too."""
        now, interval, patience = self._clock(), self.interval, self.patience
        for number in [number for number, hole in self._holes.items() if now - hole.since > _MEMORY]:
            del self._holes[number]
        answered = self.rtt or 0.0  # seconds after now
        chosen: list[int] = []
        for number, hole in self._holes.items():
            if len(chosen) == _BATCH:
                break
            waited = now - hole.since
            if hole.given_up:
                continue
            if hole.tries == 1 and not hole.echoed and self._failing > _FAILING and now - hole.last >= _ECHO:
                hole.echoed = True  # no try of its own: the round trip stays that of the first
                chosen.append(number)
                continue
            if hole.tries == 0:
                ripe = hole.behind >= _BEHIND or waited >= REORDERING
                hole.early = not ripe and self._keeps_order and self.rtt is None
                ripe = ripe or self._keeps_order
            else:
                ripe = hole.tries < _TRIES and now - hole.last >= interval
            # The first try goes out even where it is late: without its answer no longer round trip is ever learnt.
            if ripe and (waited + answered <= patience or (hole.tries == 0 and waited <= patience)):
                if hole.tries == 1:
                    self._failing += (1.0 - self._failing) / 16
                hole.first = hole.first if hole.tries else now
                hole.last = now
                hole.tries += 1
                chosen.append(number)
        if self.rtt is not None and (guess := self._tail.due(self.rtt)) is not None:
            self._guess = guess, now
            chosen.append(guess)
        self.requested += len(chosen)
        return sorted(chosen)

    def forget_before(self, number: int) -> None:
        """Ask no more for what lies before `number`: its picture is given up."""
        for missing, hole in list(self._holes.items()):
            if distance(missing, number) > 0:
                hole.given_up = True  # not forgotten: its answer still tells the round trip

    @property
    def _keeps_order(self) -> bool:
        return self._in_order and (self.rtt is not None or self._came >= _ORDERED)

    def _new_hole(self, number: int, now: float) -> _Missing:
        number_asked, asked = self._guess or (-1, 0.0)
        if number_asked != number or now - asked > _MEMORY:
            return _Missing(now)
        if now - asked < (self.rtt or 0.0) / 2:  # perhaps before the sender had the packet: no try
            return _Missing(now, guessed=True)
        return _Missing(now, tries=1, first=asked, last=asked, guessed=True)

    def _arrived(self, number: int, now: float) -> None:
        hole = self._holes.pop(number, None)
        if hole is None:
            return
        # Sooner than any answer: it was on its way all the time.
        by_itself = hole.tries == 0 or (self.rtt is not None and now - hole.first < self.rtt / 2)
        by_itself = by_itself or (hole.early and self.rtt is None and now - hole.since < REORDERING)
        self._in_order = self._in_order and not by_itself
        if by_itself:
            return
        self.recovered += not hole.given_up
        if hole.guessed:
            return
        if hole.first != hole.last:
            # Which try it answers, nobody knows (Karn's algorithm, RFC 6298 section 3). At most, the first: until
            # an answer is clear, tries are that far apart, or a round trip longer than them could not be learnt.
            self._backed_off = min(now - hole.first + REORDERING, _INTERVALS[1])
            return
        # What failed before may only have been asked for twice in one round trip.
        self._failing = 0.0 if self._backed_off else self._failing * 15 / 16
        self._backed_off = 0.0
        took = now - hole.first
        if self.rtt is None:
            self.rtt, self._variation = took, took / 8
        else:
            self._variation += (abs(took - self.rtt) - self._variation) / 4
            self.rtt += (took - self.rtt) / 8

    def _restart(self, packet: RtpNumbers) -> None:
        """Numbers begin anew: another source, or a gap that is not to be repaired."""
        self._holes.clear()
        if packet.ssrc != self.ssrc:
            self._tail, self._guess = TailProbe(self._clock), None
        self._tail.came(packet.sequence_number, packet.timestamp, bool(packet.marker))
        self.ssrc, self._highest, self._timestamp = packet.ssrc, packet.sequence_number, packet.timestamp
