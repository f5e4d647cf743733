"""One direction of a poor link as a model: rate, queue, delay, jitter, loss, reordering, outages. Pure."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from shared.errors import SemcallError
from shared.stats import nearest_rank

Pattern = Collection[int] | Callable[[int], bool]
"""Which media datagrams are lost, by their number on the link from 0 (retransmissions count as well)."""

_HELD = 0.02  # seconds by which a reordered datagram is held back: later ones overtake it
_PIECE = re.compile(r"(?:(\d+(?:\.\d+)?):)?(\d+(?:\.\d+)?)([kKmM]?)")


def parse_rate(text: str) -> tuple[tuple[float, float], ...]:
    """A rate schedule as (seconds, bit/s), the first from 0 on; raises SemcallError for anything else.

    >>> parse_rate("1500k,10:600k,20:1.5M")
    ((0.0, 1500000.0), (10.0, 600000.0), (20.0, 1500000.0))
    """
    pieces: list[tuple[float, float]] = []
    for part in text.split(","):
        match = _PIECE.fullmatch(part.strip())
        since = float(match[1] or 0) if match else 0.0
        rate = float(match[2]) * {"": 1, "k": 1e3, "m": 1e6}[match[3].lower()] if match else 0.0
        if rate <= 0 or (since == 0) != (not pieces) or (pieces and since <= pieces[-1][0]):
            raise SemcallError(f"{text!r} is no rate schedule: write for example 600k, or 1500k,10:600k,20:1500k.")
        pieces.append((since, rate))
    return tuple(pieces)


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """What a link does to datagrams. All times in seconds; those of `rate` and `outages` count from `Link.begin`.

    `rate`: (since, bit/s), rising from since 0; empty: no limit. `delay`: of every datagram; `jitter`: up to this
    much more, evenly spread, order kept. `loss`: probability; `lose`: these besides. `reorder`: probability that a
    datagram is held back 20 ms and overtaken. `queue`: what must wait longer for its turn is dropped. `outages`:
    (start, length), in which whatever comes is lost; what is under way already arrives. `seed`: of all chance.
    """

    rate: tuple[tuple[float, float], ...] = ()
    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    lose: Pattern = ()
    reorder: float = 0.0
    queue: float = 0.4
    outages: tuple[tuple[float, float], ...] = ()
    seed: int = 1


@dataclass(slots=True)
class LinkCounts:
    """What came to the link since `begin`: datagrams, their bytes, and what became of them.

    `lost`: by chance, pattern or outage; `tail_dropped`: found the queue full; `waits`: seconds in the queue of
    those that did not; `entered`: (seconds since `begin`, bytes) of everything that came, lost or not; `late`:
    seconds by which whoever asked the link let datagrams out after their time.
    """

    packets: int = 0
    bytes: int = 0
    media: int = 0
    lost: int = 0
    tail_dropped: int = 0
    waits: list[float] = field(default_factory=list)
    entered: list[tuple[float, int]] = field(default_factory=list)
    late: list[float] = field(default_factory=list)

    def wait(self, percentile: float) -> float:
        """Seconds in the queue that `percentile` (0..100) of the datagrams did not exceed; 0 without any."""
        return nearest_rank(self.waits, percentile) or 0.0


class Link:
    """Says of every datagram when it leaves at the other end, if it does.

    Until `begin` it only delays: how a connection is set up is not what is looked at. A datagram first waits for
    those before it, then takes size / rate to be sent, where the rate may change meanwhile; loss comes after that,
    so what is lost has used the link. `now` of successive calls must not fall.
    """

    def __init__(self, spec: LinkSpec) -> None:
        self.spec = spec
        self.counts = LinkCounts()
        self._random = random.Random(spec.seed)
        self._begun: float | None = None
        self._free = self._last = -math.inf

    @property
    def begun(self) -> bool:
        """Whether the link's clock runs."""
        return self._begun is not None

    def begin(self, now: float) -> None:
        """Start the clock of rate schedule and outages; later calls change nothing."""
        if self._begun is None:
            self._begun = now

    def push(self, now: float, size: int, media: bool = False) -> float | None:
        """A datagram of `size` bytes comes at `now`; returns when it leaves, or None when it is lost.

        `media`: it is one of those that patterns count; the first begins the link.
        """
        if media:
            self.begin(now)
        if self._begun is None:
            return self._leave(now + self.spec.delay)
        counts, since = self.counts, now - self._begun
        number = counts.media if media else None
        counts.packets, counts.bytes, counts.media = counts.packets + 1, counts.bytes + size, counts.media + media
        counts.entered.append((since, size))
        # The same chances for every datagram, whatever happens to it: links of one seed differ only where meant.
        lost, held, jitter = (self._random.random() for _ in range(3))
        if any(start <= since < start + length for start, length in self.spec.outages):
            counts.lost += 1
            return None
        wait = max(self._free - now, 0.0)
        if wait > self.spec.queue:
            counts.tail_dropped += 1
            return None
        counts.waits.append(wait)
        self._free = self._begun + self._sent(since + wait, size * 8)
        if lost < self.spec.loss or (number is not None and self._chosen(number)):
            counts.lost += 1
            return None
        out = self._free + self.spec.delay + jitter * self.spec.jitter
        if held < self.spec.reorder:
            return max(out, self._last) + _HELD
        return self._leave(out)

    def rate(self, since: float) -> float:
        """Bit/s at `since` seconds after `begin`; infinite without a limit."""
        return next((rate for start, rate in reversed(self.spec.rate) if start <= since), math.inf)

    def _chosen(self, number: int) -> bool:
        lose = self.spec.lose
        return lose(number) if callable(lose) else number in lose

    def _leave(self, out: float) -> float:
        self._last = max(out, self._last)
        return self._last

    def _sent(self, start: float, bits: float) -> float:
        """When `bits` that begin at `start` are through."""
        for end, _ in self.spec.rate[1:]:
            if end <= start:
                continue
            room = (end - start) * self.rate(start)
            if bits <= room:
                break
            start, bits = end, bits - room
        return start + bits / self.rate(start)
