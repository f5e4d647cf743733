"""Figures of a running call: rates over a window, percentiles, one snapshot for window and terminal."""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass


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
        """Count `amount` at time `when` (non-decreasing)."""
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
        return total / max(min(self._span, now - self._start), 1.0)

    def total(self, now: float) -> float:
        """The sum over the window that ends `now`."""
        with self._lock:
            self._trim(now)
            return sum(amount for _, amount in self._items)

    def _trim(self, now: float) -> None:
        while self._items and self._items[0][0] < now - self._span:
            self._items.popleft()


class WindowedValues:
    """The last `size` values, for medians and percentiles."""

    def __init__(self, size: int = 90) -> None:
        self._values: deque[float] = deque(maxlen=size)

    def add(self, value: float) -> None:
        """Remember `value`, forgetting the oldest."""
        self._values.append(value)

    def percentile(self, percent: float) -> float | None:
        """Nearest-rank percentile, `percent` in 0..100; None while empty."""
        if not self._values:
            return None
        ordered = sorted(self._values)
        return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]

    @property
    def median(self) -> float | None:
        """The 50th percentile; None while empty."""
        return self.percentile(50)


@dataclass(frozen=True, slots=True)
class Stats:
    """What a receiver shows of its call. None where not known (yet)."""

    state: str = "waiting"
    width: int = 0
    height: int = 0
    fps: float = 0.0
    """Pictures shown per second."""
    kbps: float = 0.0
    """Video payload received, kbit/s."""
    face_share: float | None = None
    """Share of the bits on the face as the sender measured it, 0..1."""
    restorer: str = "off"
    """Name and device of the restorer and the part of the picture that it restores, or why there is none."""
    restore_ms: float | None = None
    """Median milliseconds of one restoration."""
    restored_percent: float = 0.0
    """How many of the pictures shown were restored, 0..100."""
    latency_ms: float | None = None
    """Median capture to shown, by the two machines' clocks."""
    lost: int = 0
    """RTP packets lost so far."""
    dropped: int = 0
    """Pictures decoded but not shown so far."""
    trouble: str = ""
    """What the user asked for and no longer gets, in a few words."""

    def line(self) -> str:
        """One status line."""
        if self.state != "live":
            return self.state
        parts = [self.trouble] if self.trouble else []
        parts += [f"{self.width}x{self.height}", f"{self.fps:.0f} fps", f"{self.kbps:.0f} kb/s"]
        if self.face_share is not None:
            parts.append(f"face {self.face_share * 100:.0f}%")
        restorer = self.restorer
        if self.restore_ms is not None:
            restorer += f" {self.restore_ms:.0f} ms"
        parts.append(restorer)
        if self.latency_ms is not None:
            parts.append(f"latency {self.latency_ms:.0f} ms")
        if self.lost:
            parts.append(f"lost {self.lost}")
        return " · ".join(parts)
