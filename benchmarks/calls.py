"""What a call across a link came to: figures from the lines that both ends wrote and from the link's own counts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.link import LinkCounts
from shared.freezes import FreezeCounter
from shared.picture import CLOCK_RATE
from shared.stats import nearest_rank

_STEP = 0.1  # seconds between the windows in which rates are looked at
_CLOSE = 1e-3  # seconds; two times of one picture, written by two programs
_TOLERANCE = 1.05  # a window of the wire may hold a packet more than its share


@dataclass(frozen=True, slots=True)
class Seen:
    """A picture at the receiver, Unix seconds: `captured` by the sender's clock, `decoded`, `shown`.

    `replaced`: pictures that were decoded so far and not shown, since a newer one was there already.
    """

    captured: float
    decoded: float
    shown: float
    damaged: bool
    replaced: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """Both ends' records of a call. `sent`: (captured, whether an IDR), each coded picture; `began`: of its media.

    `seen`: in the order shown; `entered`: (seconds since `began`, bytes with IP and UDP headers) into the link.
    """

    sent: Sequence[tuple[float, bool]]
    seen: Sequence[Seen]
    began: float
    entered: Sequence[tuple[float, int]]
    plis: int | None = None

    def wire(self, start: float, end: float) -> float:
        """Bit/s that entered the link between `start` and `end` seconds after `began`."""
        return sum(size for when, size in self.entered if start <= when < end) * 8 / (end - start)

    @property
    def length(self) -> float:
        """Seconds from the first packet to the last picture's capture."""
        return self.sent[-1][0] - self.began if self.sent else 0.0

    def fps(self, after: float = 0.0) -> float:
        """Clean pictures decoded per second, from `after` seconds on."""
        first, end = self._window(after)
        within = [s for s in self.seen if first <= s.shown < end]
        if not within or end <= first:
            return 0.0
        replaced = within[-1].replaced - within[0].replaced
        return (sum(not s.damaged for s in within) + replaced) / (end - first)

    def frozen(self) -> float:
        """Seconds in freezes (shared/freezes.py) between successive clean pictures, to the end of the call."""
        first, end = self._window(0.0)
        counter = FreezeCounter(usual=self.length / max(len(self.sent), 1))
        for when in (first, *(when for when in self._clean() if first < when < end), end):
            counter.shown(when)
        return counter.seconds

    def latency(self, percentile: float) -> float | None:
        """Seconds from capture to decoded of the clean pictures, nearest rank; None without any.

        Those that a newer one replaced count as decoded when that one was.
        """
        values = [s.decoded - s.captured for s in self.seen if not s.damaged] + self._replaced()
        return nearest_rank(values, percentile)

    def settled(self, rate: float, span: float = 2.0) -> float | None:
        """Seconds after which no window of `span` carries more than `rate` bit/s (and 5%); None: it never is so."""
        starts = _steps(0.0, self.length - span)
        over = [start for start in starts if self.wire(start, start + span) > rate * _TOLERANCE]
        found = over[-1] + _STEP if over else 0.0
        return found if found < self.length - span else None

    def fell(self, at: float, rate: float) -> float | None:
        """Seconds after `at` until half a second carries no more than `rate` bit/s (and 5%); None: never."""
        starts = _steps(at, self.length - 0.5)
        return next((s - at for s in starts if self.wire(s, s + 0.5) <= rate * _TOLERANCE), None)

    def rose(self, at: float, rate: float) -> float | None:
        """Seconds after `at` until the first of a second that carries `rate` bit/s; None: never."""
        return next((s - at for s in _steps(at, self.length - 1) if self.wire(s, s + 1) >= rate), None)

    def back(self, at: float) -> float | None:
        """Seconds from `at`, after `began`, until a clean picture that was captured later is shown; None: never."""
        when = self.began + at
        return min((s.shown - when for s in self.seen if not s.damaged and s.captured >= when), default=None)

    def keyframes(self, after: float = 0.0) -> int:
        """IDRs coded, the call's first left out, of pictures captured `after` seconds or later."""
        return sum(key for when, key in self.sent[1:] if when >= self.began + after)

    def _replaced(self) -> list[float]:
        """Seconds from capture to decoded of the pictures that are not in `seen`, at most so many."""
        values: list[float] = []
        for last, s in pairwise(self.seen):
            if s.damaged or s.replaced <= last.replaced:
                continue
            between = [when for when, _ in self.sent if last.captured + _CLOSE < when < s.captured - _CLOSE]
            values += [s.decoded - when for when in between[last.replaced - s.replaced :]]
        return values

    def _clean(self) -> list[float]:
        return sorted(s.shown for s in self.seen if not s.damaged)

    def _window(self, after: float) -> tuple[float, float]:
        clean = self._clean()
        if not clean or not self.sent:
            return self.began, self.began + self.length
        return clean[0] + after, clean[0] + self.sent[-1][0] - self.sent[0][0]


def _steps(start: float, end: float) -> list[float]:
    return [start + _STEP * index for index in range(max(math.floor((end - start) / _STEP) + 1, 0))]


def read_call(sender: Path, receiver: Path, began: float, counts: LinkCounts) -> Call:
    """A call from both ends' `--stats` files; lines that are about no picture are left out."""
    sent = [(line["ticks"] / CLOCK_RATE, bool(line["keyframe"])) for line in _lines(sender) if "keyframe" in line]
    received = [line for line in _lines(receiver) if line.get("captured")]
    seen = [
        Seen(x["captured"], x["decoded"], x["shown"], bool(x["damaged"]), int(x.get("dropped") or 0))
        for x in received
    ]
    asked = [int(line["plis"]) for line in received if line.get("plis") is not None]
    return Call(sent, seen, began, counts.entered, max(asked, default=None))


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]


@dataclass(frozen=True, slots=True)
class Figures:
    """A row of the table; seconds, bit/s. None: does not apply, or never came about."""

    fps: float
    fps_after_3s: float
    coded_fps: float
    p50: float | None
    p95: float | None
    frozen: float
    wire: float
    lost: float
    tail_dropped: float
    keyframes: int
    plis: int | None
    settled: float | None = None
    down: float | None = None
    up: float | None = None
    back: float | None = None
    keyframes_after: int | None = None
    late: float | None = None
    """By which 95% of the datagrams left the link at most after their time: the model's own error."""

    def as_json(self) -> Mapping[str, object]:
        return asdict(self)


def figures(
    call: Call,
    counts: LinkCounts,
    limit: float | None = None,
    steps: tuple[float, float] | None = None,
    outage: tuple[float, float] | None = None,
) -> Figures:
    """The figures of a call. `limit`: bit/s of the link, where settling is asked for (with `steps`: while narrow);
    `steps`: seconds at which the link narrows and widens; `outage`: (start, length)."""
    down = up = None
    if steps is not None and limit is not None:
        narrow, wide = steps
        before = call.wire(max(narrow - 2, 0), narrow)
        down, up = call.fell(narrow, limit), call.rose(wide, 0.9 * before)
    length = max(call.length, 1e-3)
    packets = max(counts.packets, 1)
    return Figures(
        fps=call.fps(),
        fps_after_3s=call.fps(3.0),
        coded_fps=len(call.sent) / length,
        p50=call.latency(50),
        p95=call.latency(95),
        frozen=call.frozen(),
        wire=call.wire(0.0, length),
        lost=counts.lost / packets,
        tail_dropped=counts.tail_dropped / packets,
        keyframes=call.keyframes(),
        plis=call.plis,
        settled=call.settled(limit) if limit is not None and steps is None else None,
        down=down,
        up=up,
        back=call.back(sum(outage)) if outage is not None else None,
        keyframes_after=call.keyframes(outage[0]) if outage is not None else None,
        late=nearest_rank(counts.late, 95),
    )
