"""The two logs of one call, joined by capture time stamp."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shared.grid import Mask, unpack_mask
from shared.lines import read_lines
from shared.picture import CLOCK_RATE, I420


@dataclass(frozen=True, slots=True)
class Sent:
    """One coded picture as its sender logged it."""

    ticks: int
    frame: int
    bits: int
    face_bits: float
    dropped: int
    mask: Mask


@dataclass(frozen=True, slots=True)
class Shown:
    """One picture as its receiver logged it; times in Unix seconds.

    `rung`: what restored it, if anything did; `dropped`: decoded pictures not shown so far; `lost`: RTP packets lost
    so far.
    """

    ticks: int
    decoded: float
    shown: float
    restored: bool
    restore_ms: float
    rung: str
    dropped: int
    lost: int

    @property
    def captured(self) -> float:
        """When it was taken, Unix seconds."""
        return self.ticks / CLOCK_RATE


@dataclass(frozen=True, slots=True)
class Moment:
    """A picture that the receiver kept: its position in the call, what was decoded and what was shown."""

    position: int
    seconds: float
    decoded: I420
    shown: I420
    restored: bool
    mask: Mask


@dataclass(frozen=True, slots=True)
class CallLog:
    """`sent`: every coded picture; `shown`: every one of them that was shown."""

    sent: list[Sent]
    shown: list[Shown]

    @property
    def duration(self) -> float:
        """Seconds of video sent."""
        if len(self.sent) < 2:
            return 0.0
        return (self.sent[-1].ticks - self.sent[0].ticks) / CLOCK_RATE * len(self.sent) / (len(self.sent) - 1)

    @property
    def bitrate(self) -> float:
        """Measured bit/s of all access units."""
        return sum(picture.bits for picture in self.sent) / self.duration if self.duration else 0.0

    def moments(self, snapshots: Path, count: int) -> list[Moment]:
        """Up to `count` snapshots spread over the call after its first picture, restored ones where there are any."""
        positions = {picture.ticks: index for index, picture in enumerate(self.sent)}
        kept = sorted((int(file.stem), file) for file in snapshots.glob("*.npz"))
        restored = {picture.ticks for picture in self.shown if picture.restored}
        known = [(ticks, file) for ticks, file in kept if positions.get(ticks, 0) > 0]
        known = [(ticks, file) for ticks, file in known if ticks in restored] or known
        chosen = (
            [known[i] for i in sorted({round(j) for j in np.linspace(0, len(known) - 1, count)})] if known else []
        )
        moments = []
        for ticks, file in chosen:
            position = positions[ticks]
            with np.load(file) as arrays:
                seconds = (ticks - self.sent[0].ticks) / CLOCK_RATE
                mask = self.sent[position].mask
                was_restored = bool(arrays["restored"])
                moments.append(Moment(position, seconds, arrays["decoded"], arrays["shown"], was_restored, mask))
        return moments


def read_call_log(sent: Path, received: Path) -> CallLog:
    """Read both ends' JSON lines; pictures that the receiver cannot match to a sent one are left out."""
    coded = [_sent(line) for line in _lines(sent)]
    known = {picture.ticks for picture in coded}
    shown = [
        Shown(**{name: line[name] for name in Shown.__dataclass_fields__})
        for line in _lines(received)
        if line["ticks"] in known
    ]
    return CallLog(coded, shown)


def _sent(line: dict[str, Any]) -> Sent:
    mask = unpack_mask(line["mask"], line["width"], line["height"])
    return Sent(line["ticks"], line["frame"], line["bits"], line["face_bits"], line["dropped"], mask)


def _lines(path: Path) -> list[dict[str, Any]]:
    return read_lines(path) if path.exists() else []
