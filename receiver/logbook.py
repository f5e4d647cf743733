"""What happened to every picture: live figures, JSON lines, snapshots for later comparison."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from receiver.loss import LossWindow
from receiver.picture import DecodedPicture
from shared.errors import SemcallError
from shared.freezes import FreezeCounter
from shared.lines import JsonLines
from shared.picture import CLOCK_RATE
from shared.stats import Stats, WindowedRate, WindowedValues

_PLAUSIBLE_LATENCY = 10.0  # seconds; beyond it (or below zero) the two machines' clocks disagree
_CALL_PERIOD = 1.0  # seconds between lines that bear the whole call's figures


class Logbook:
    """Counts pictures as they are shown. `shown` may be called from any one thread, `stats` from any other.

    `lines`: JSON lines file, one per shown picture, with the call's counts so far, and about once a second also all
    that is known of the call (`call`, see `Stats.known`); `snapshots`: directory for stamped pictures, saved as
    `<ticks>.npz` with `decoded` and `shown` (I420) and `restored` (whether it was).
    Raises SemcallError when these cannot be written.
    """

    def __init__(self, lines: Path | None = None, snapshots: Path | None = None) -> None:
        self._snapshots = snapshots
        if snapshots is not None:
            try:
                snapshots.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise SemcallError(f"Cannot make {snapshots} ({error.strerror}): choose another directory.") from None
        self._path, self._lines = lines, JsonLines(lines)
        self._lock = threading.Lock()
        self._snapshot_error: str | None = None
        self.new_call(Stats)

    def new_call(self, figures: Callable[[], Stats]) -> None:
        """Begin anew. `figures`: what else is known of the call, asked for with every picture, from any thread."""
        with self._lock:
            self._figures = figures
            self._shown, self._restored, self._bytes = WindowedRate(), WindowedRate(), WindowedRate()
            self._latency, self._restore_ms, self._freezes = WindowedValues(), WindowedValues(), FreezeCounter()
            self._loss, self._pictures, self._keyframes = LossWindow(), 0, 0
            self._size: tuple[int | None, int | None] = None, None
            self._told = float("-inf")

    @property
    def errors(self) -> list[str]:
        """A sentence for each thing that is no longer written, e.g. for a full disk."""
        lines = self._lines.error
        log = [] if lines is None else [f"The log {self._path} is incomplete ({lines.strerror or lines})."]
        return log if self._snapshot_error is None else [*log, self._snapshot_error]

    def received(self, size: int) -> None:
        """`size` bytes of coded video arrived."""
        with self._lock:
            self._bytes.add(time.time(), size)

    def shown(self, picture: DecodedPicture) -> None:
        """`picture` was shown at `picture.shown`."""
        figures = self._figures()
        with self._lock:
            self._count(picture)
            if figures.packets is not None and figures.lost is not None:
                self._loss.add(picture.shown, figures.packets, figures.lost)
            due = not 0 <= picture.shown - self._told < _CALL_PERIOD  # a clock that is set back too
            if due:
                self._told = picture.shown
        record = _record(picture, figures)
        self._lines.write(record | {"call": self.stats().known()} if due else record)
        if self._snapshots is not None and picture.stamped:
            self._save(picture, self._snapshots / f"{_ticks(picture)}.npz")

    def _count(self, picture: DecodedPicture) -> None:
        self._shown.add(picture.shown)
        self._freezes.shown(picture.shown)
        self._pictures += 1
        self._keyframes += picture.keyframe
        self._size = picture.width, picture.height
        if picture.restored is not None:
            self._restored.add(picture.shown)
            self._restore_ms.add(picture.restore_ms)
        latency = picture.shown - picture.captured
        if picture.captured and 0 <= latency < _PLAUSIBLE_LATENCY:
            self._latency.add(latency * 1e3)

    def _save(self, picture: DecodedPicture, path: Path) -> None:
        try:
            np.savez(path, decoded=picture.i420, shown=picture.visible, restored=picture.restored is not None)
        except OSError as error:  # a full disk ends the snapshots, not the call
            self._snapshots = None
            self._snapshot_error = f"Snapshots in {path.parent} are missing ({error.strerror or error})."

    def stats(self) -> Stats:
        """What the call knows, with the counts of pictures and the figures of the last two seconds filled in."""
        figures, now = self._figures(), time.time()
        with self._lock:
            fps, restored = self._shown.per_second(now), self._restored.per_second(now)
            return replace(
                figures,
                width=self._size[0],
                height=self._size[1],
                fps=fps,
                kbps=self._bytes.per_second(now) * 8 / 1e3,
                restore_ms=self._restore_ms.median if restored else None,
                restored_percent=100 * restored / fps if fps else 0.0,
                latency_ms=self._latency.median,
                loss=self._loss.fraction,
                pictures=self._pictures,
                keyframes=self._keyframes,
                freeze_seconds=self._freezes.seconds,
            )

    def close(self) -> None:
        """Finish the JSON lines."""
        self._lines.close()


def _ticks(picture: DecodedPicture) -> int:
    return round(picture.captured * CLOCK_RATE)


def _record(picture: DecodedPicture, figures: Stats) -> dict[str, object]:
    return {
        "ticks": _ticks(picture),
        "captured": picture.captured,
        "arrived": picture.arrived,
        "decoded": picture.decoded,
        "shown": picture.shown,
        "restored": picture.restored is not None,
        "restore_ms": round(picture.restore_ms, 2),
        "rung": picture.rung,
        "keyframe": picture.keyframe,
        "damaged": picture.damaged,
        "lost": figures.lost or 0,
        "skipped": figures.skipped or 0,
        "plis": figures.plis or 0,
        "dropped": figures.dropped or 0,
    }
