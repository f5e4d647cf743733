"""What happened to every picture: live figures, JSON lines, snapshots for later comparison."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from receiver.picture import DecodedPicture
from shared.errors import SemcallError
from shared.picture import CLOCK_RATE
from shared.stats import Stats, WindowedRate, WindowedValues, open_lines

_PLAUSIBLE_LATENCY = 10.0  # seconds; beyond it (or below zero) the two machines' clocks disagree


class Logbook:
    """Counts pictures as they are shown. `shown` may be called from any one thread, `stats` from any other.

    `lines`: JSON lines file, one per shown picture; `snapshots`: directory for stamped pictures, saved as
    `<ticks>.npz` with `decoded`, `restored` (I420) and `qp`. Raises SemcallError when these cannot be written.
    """

    def __init__(self, lines: Path | None = None, snapshots: Path | None = None) -> None:
        self._snapshots = snapshots
        if snapshots is not None:
            try:
                snapshots.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise SemcallError(f"Cannot make {snapshots} ({error.strerror}): choose another directory.") from None
        self._path = lines
        self._created = lines is not None and not lines.exists()
        self._lines = open_lines(lines)
        self._lock = threading.Lock()
        self._shown, self._restored, self._bytes = WindowedRate(), WindowedRate(), WindowedRate()
        self._latency, self._restore_ms = WindowedValues(), WindowedValues()
        self._size = 0, 0
        self.error: OSError | None = None
        """Why nothing more is logged, e.g. a full disk."""
        self.face_share: Callable[[], float | None] = lambda: None

    def received(self, size: int) -> None:
        """`size` bytes of coded video arrived."""
        with self._lock:
            self._bytes.add(time.time(), size)

    def shown(self, picture: DecodedPicture) -> None:
        """`picture` was shown at `picture.shown`."""
        with self._lock:
            self._shown.add(picture.shown)
            self._size = picture.width, picture.height
            if picture.restored is not None:
                self._restored.add(picture.shown)
                self._restore_ms.add(picture.restore_ms)
            latency = picture.shown - picture.captured
            if picture.captured and 0 <= latency < _PLAUSIBLE_LATENCY:
                self._latency.add(latency * 1e3)
            try:
                self._write(picture)
            except OSError as error:  # a full disk ends the logging, not the call
                self.error, self._snapshots = error, None
                self._drop_lines()

    def _write(self, picture: DecodedPicture) -> None:
        if self._lines is not None:
            self._lines.write(json.dumps(_record(picture)) + "\n")
        if self._snapshots is not None and picture.stamped and picture.restored is not None:
            name = self._snapshots / f"{_ticks(picture)}.npz"
            np.savez(name, decoded=picture.i420, restored=picture.restored, qp=picture.qp)

    def _drop_lines(self) -> None:
        lines, self._lines = self._lines, None
        if lines is not None:
            with contextlib.suppress(OSError):
                lines.close()

    def stats(self, base: Stats) -> Stats:
        """`base` with the figures of the last two seconds filled in."""
        now = time.time()
        with self._lock:
            fps, restored = self._shown.per_second(now), self._restored.per_second(now)
            return replace(
                base,
                width=self._size[0],
                height=self._size[1],
                fps=fps,
                kbps=self._bytes.per_second(now) * 8 / 1e3,
                face_share=self.face_share(),
                restore_ms=self._restore_ms.median if restored else None,
                restored_percent=100 * restored / fps if fps else 0.0,
                latency_ms=self._latency.median,
            )

    def close(self) -> None:
        """Finish the JSON lines. A file that was made here and got none is removed."""
        with self._lock:
            if self._lines is None or self._path is None:
                return
            self._drop_lines()
            with contextlib.suppress(OSError):
                if self._created and self._path.stat().st_size == 0:
                    self._path.unlink()


def _ticks(picture: DecodedPicture) -> int:
    return round(picture.captured * CLOCK_RATE)


def _record(picture: DecodedPicture) -> dict[str, object]:
    return {
        "ticks": _ticks(picture),
        "captured": picture.captured,
        "arrived": picture.arrived,
        "decoded": picture.decoded,
        "shown": picture.shown,
        "restored": picture.restored is not None,
        "restore_ms": round(picture.restore_ms, 2),
        "keyframe": picture.keyframe,
        "damaged": picture.damaged,
    }
