"""Figures of a running call: rates over a window, percentiles, one snapshot that both ends fill."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Final, Literal

Role = Literal["send", "receive"]


class WindowedRate:
    """Sum per second of what was added in the last `span` seconds. Times are the caller's clock, in seconds.

    Thread-safe: status lines are read on another thread than the one that counts.
    """

    def __init__(self, span: float = 2.0) -> None:
        self._span = span
        self._items: deque[tuple[float, float]] = deque()
        self._start: float | None = None
        self._lock = threading.Lock()

    def add(self, when: float, amount: float = 1.0) -> None:
        """Count `amount` at time `when`, no earlier than the last but for a clock that was set."""
        with self._lock:
            if self._start is None:
                self._start = when
            self._items.append((when, amount))
            self._trim(when)

    def per_second(self, now: float) -> float:
        """The rate over the window that ends `now`; 0.0 while nothing was added.

        A window younger than a second counts as a second: one keyframe is no bitrate yet.
        """
        total = self.total(now)
        if self._start is None:
            return 0.0
        return total / max(min(self._span, abs(now - self._start)), 1.0)

    def total(self, now: float) -> float:
        """The sum over the window that ends `now`."""
        with self._lock:
            self._trim(now)
            return sum(amount for _, amount in self._items)

    def _trim(self, now: float) -> None:
        # Far ahead is as old: wall clocks are set back.
        while self._items and abs(now - self._items[0][0]) > self._span:
            self._items.popleft()


def nearest_rank(values: Collection[float], percent: float) -> float | None:
    """Nearest-rank percentile, `percent` in 0..100; None of no values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else None


class WindowedValues:
    """The last `size` values, for medians and percentiles."""

    def __init__(self, size: int = 90) -> None:
        self._values: deque[float] = deque(maxlen=size)

    def add(self, value: float) -> None:
        """Remember `value`, forgetting the oldest."""
        self._values.append(value)

    def percentile(self, percent: float) -> float | None:
        """Nearest-rank percentile, `percent` in 0..100; None while empty."""
        return nearest_rank(self._values, percent)

    @property
    def median(self) -> float | None:
        """The 50th percentile; None while empty."""
        return self.percentile(50)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """A call as one end sees it; None where not known (yet). What only one end fills says so.

    Counts run from the beginning of the call. RTP packets, NACKs and PLIs are those of the video.
    """

    role: Role = "receive"
    state: str = "waiting"
    """`live`, or what is waited for, for people."""
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    """Pictures shown or coded per second."""
    kbps: float | None = None
    """Video payload received or coded, kbit/s."""
    target_kbps: float | None = None
    """Sender: what the encoder is asked for."""
    link_kbps: float | None = None
    """Sender: what the link is believed to carry, headers included; None without a known limit."""
    wire_kbps: float | None = None
    """Sender: what goes out, headers (RTP, SRTP, UDP, IP) and retransmissions included."""
    face_share: float | None = None
    """Share of the bits on the face as the sender measured it, 0..1."""
    qp_face: float | None = None
    """Sender: mean quantiser in the newest picture's face, 0..51."""
    qp_background: float | None = None
    """Sender: the same outside the face."""
    loss: float | None = None
    """Fraction of the RTP packets lost lately, 0..1."""
    packets: int | None = None
    """RTP packets sent or received."""
    lost: int | None = None
    """RTP packets lost on the way (RFC 3550 section 6.4.1), sent again or not; falls when one comes late."""
    nacks: int | None = None
    """Packets asked for again (NACK, RFC 4585 section 6.2.1), every request counted."""
    retransmitted: int | None = None
    """Packets sent again, or those of them that came in time."""
    plis: int | None = None
    """Keyframes asked for (PLI, RFC 4585 section 6.3.1; at the sender FIR too)."""
    keyframes: int | None = None
    """Keyframes coded or shown."""
    jitter_ms: float | None = None
    """Interarrival jitter at the receiver (RFC 3550 section 6.4.1)."""
    rtt_ms: float | None = None
    """Round trip."""
    latency_ms: float | None = None
    """Receiver: median capture to shown, by the two machines' clocks."""
    restorer: str | None = None
    """Receiver: the restorer's name, device and part of the picture, or why there is none."""
    restore_ms: float | None = None
    """Receiver: median milliseconds of one restoration."""
    restored_percent: float | None = None
    """Receiver: how many of the pictures shown were restored, 0..100."""
    pictures: int | None = None
    """Pictures shown or coded."""
    dropped: int | None = None
    """Pictures decoded and not shown, or captured and not coded."""
    held: int | None = None
    """Receiver: pictures damaged by a loss and therefore not shown."""
    skipped: int | None = None
    """Receiver: holes in the stream given up, each with its picture. Sender: pictures left out for a full link."""
    freeze_seconds: float | None = None
    """Receiver: seconds of standing still, see `shared.freezes`."""
    trouble: str = ""
    """What the user asked for and no longer gets, in a few words."""

    def known(self) -> dict[str, str | int | float]:
        """The fields that are known, by name, ready for JSON; fractions to four digits."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in values.items()
            if value is not None and value != ""
        }

    def line(self) -> str:
        """One status line."""
        if self.state != "live":
            return self.state
        nobody = "no face" if self.role == "send" else ""
        restorer = f"{self.restorer or ''} {_text('{:.0f} ms', self.restore_ms)}".strip()
        parts = [
            self.trouble,
            self._size(),
            _text("{:.0f} fps", self.fps),
            _text("{:.0f} kb/s", self.kbps),
            _text("face {:.0%}", self.face_share) or nobody,
            restorer,
            _text("QP {:.0f}", self.qp_face) + _text("/{:.0f}", self.qp_background),
            _text("latency {:.0f} ms", self.latency_ms),
            _text("lost {}", self.lost or None),
        ]
        return " · ".join(filter(None, parts))

    def rows(self) -> list[tuple[str, str]]:
        """The figures with their names, for a table; a dash for those that this end is yet to learn."""
        found = [("state", self.state), ("resolution", self._size() or _UNKNOWN)]
        for name, ends, formats in _ROWS:
            known = filter(None, (_text(form, getattr(self, field)) for field, form in formats.items()))
            text = ", ".join(known)
            if text or self.role in ends:
                found.append((name, text or _UNKNOWN))
        return [*found, ("trouble", self.trouble)] if self.trouble else found

    def _size(self) -> str:
        return f"{self.width}x{self.height}" if self.width and self.height else ""


_UNKNOWN: Final = "–"
_BOTH: Final[tuple[Role, ...]] = ("send", "receive")
_SEND: Final[tuple[Role, ...]] = ("send",)
_RECEIVE: Final[tuple[Role, ...]] = ("receive",)
_ROWS: Final[tuple[tuple[str, tuple[Role, ...], dict[str, str]], ...]] = (
    # name, the ends that show it before it is known, and what stands in it; few enough for 24 lines
    ("frame rate", _BOTH, {"fps": "{:.1f} fps"}),
    ("bitrate", _BOTH, {"kbps": "{:.0f} kb/s"}),
    ("target", _SEND, {"target_kbps": "{:.0f} kb/s"}),
    ("link", _SEND, {"link_kbps": "{:.0f} kb/s", "wire_kbps": "{:.0f} in use"}),
    ("face share", _BOTH, {"face_share": "{:.0%}"}),
    ("quantisers", _SEND, {"qp_face": "face {:.0f}", "qp_background": "rest {:.0f}"}),
    ("restorer", _RECEIVE, {"restorer": "{}"}),
    ("restoration", _RECEIVE, {"restore_ms": "{:.1f} ms"}),
    ("restored", _RECEIVE, {"restored_percent": "{:.0f}%"}),
    ("latency", _RECEIVE, {"latency_ms": "{:.0f} ms"}),
    ("round trip", _SEND, {"rtt_ms": "{:.0f} ms"}),
    ("jitter", _BOTH, {"jitter_ms": "{:.1f} ms"}),
    ("RTP packets", _BOTH, {"packets": "{}"}),
    ("packets lost", _BOTH, {"lost": "{}", "loss": "{:.1%} lately"}),
    ("NACKs", _BOTH, {"nacks": "{}", "retransmitted": "{} retransmitted"}),
    ("PLIs", _BOTH, {"plis": "{}"}),
    ("keyframes", _BOTH, {"keyframes": "{}"}),
    ("pictures", _BOTH, {"pictures": "{}", "dropped": "{} dropped", "held": "{} held", "skipped": "{} skipped"}),
    ("frozen", _RECEIVE, {"freeze_seconds": "{:.1f} s"}),
)


def _text(form: str, value: float | str | None) -> str:
    return "" if value is None else form.format(value)
