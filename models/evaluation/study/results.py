"""Measured cells by clip and setting, and the metrics that they hold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from shared.errors import SemcallError

Record = Mapping[str, Any]
"""One measured cell, as the study writes it."""

NONE = "none"
"""The restorer's name where there is none."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A column: `key` in a record's "face" and "frame", decimals shown, whether higher is better (None: neither)."""

    key: str
    label: str
    digits: int
    higher: bool | None

    @property
    def arrow(self) -> str:
        """Where better is: ↑, ↓ or nothing."""
        return {True: " ↑", False: " ↓", None: ""}[self.higher]

    @property
    def name(self) -> str:
        """The label without its unit."""
        return self.label.partition(",")[0]

    def show(self, value: float | None) -> str:
        """The value at the decimals shown, a dash for none."""
        return "–" if value is None else f"{value:.{self.digits}f}"

    def better(self, one: float, other: float) -> bool:
        """Whether `one` beats `other`; never so where neither direction is better."""
        return self.higher is not None and (one > other if self.higher else one < other)


METRICS = {
    metric.key: metric
    for metric in (
        Metric("distance", "distance", 3, False),
        Metric("brisque", "BRISQUE", 1, False),
        Metric("ssim", "SSIM", 4, True),
        Metric("psnr", "PSNR, dB", 2, True),
        Metric("identity", "identity", 3, True),
        Metric("flicker", "flicker", 2, False),
    )
}
OF_PAPER = ("distance", "brisque", "ssim")
OF_FRAME = tuple(key for key in METRICS if key != "identity")  # identity is of faces only


class Setting(NamedTuple):
    """What a clip was coded and shown with: nominal kb/s, share in percent (0: plain x264), restorer."""

    kbps: float
    share: int
    restorer: str = NONE


class Results:
    """Measured cells, found by clip and setting.

    Raises SemcallError when there are none, or two of one clip and setting.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self._cells: dict[tuple[str, Setting], Record] = {}
        for record in records:
            setting = Setting(float(record["kbps"]), int(record["share"]), str(record["restorer"]))
            key = (str(record["clip"]), setting)
            if key in self._cells:
                raise SemcallError(
                    f"{key[0]} was measured twice at {setting.kbps:g}k, share {setting.share}, "
                    f"restorer {setting.restorer}; give every cell once."
                )
            self._cells[key] = record
        if not self._cells:
            raise SemcallError("No cell was measured, so there is nothing to report; give clips that can be decoded.")
        self.clips = sorted({clip for clip, _ in self._cells})
        self.restorers = sorted({setting.restorer for _, setting in self._cells} - {NONE})

    def records(self) -> list[Record]:
        """All, in the order of clip, rate, share, restorer."""
        return [self._cells[key] for key in sorted(self._cells)]

    def of_clip(self, clip: str) -> list[Record]:
        """The cells of one clip."""
        return [record for record in self.records() if record["clip"] == clip]

    def has(self, clip: str, setting: Setting) -> bool:
        """Whether this cell was measured."""
        return (clip, setting) in self._cells

    def complete(self, settings: Iterable[Setting]) -> list[str]:
        """The clips that were measured at every one of `settings`; none where that is empty."""
        wanted = set(settings)
        return [clip for clip in self.clips if wanted and all((clip, setting) in self._cells for setting in wanted)]

    def value(self, clip: str, setting: Setting, field: str) -> float | None:
        """A figure, None where it is missing, null or not finite.

        `field`: "face.psnr" and the like; a record's own key such as "bytes"; "rate", the measured rate in kb/s on
        the scale of 1280x720; or "share", the measured share in percent.
        """
        record = self._cells.get((clip, setting))
        if record is None:
            return None
        if field == "rate":
            measured, target = finite(record["measured_kbps"]), finite(record["target_kbps"])
            return setting.kbps * measured / target if measured is not None and target else None
        if field == "share":
            share = finite(record["measured_share"])
            return None if share is None else 100 * share
        area, _, key = field.rpartition(".")
        return finite((record[area] if area else record).get(key))

    def sample(
        self, clips: Sequence[str], settings: Iterable[Setting], field: str
    ) -> tuple[list[str], dict[Setting, list[float]]]:
        """Values per setting over the same clips: those that have the figure in every setting where any clip has it.

        Returns these clips, and per setting one value for each of them, or nothing where no clip has it.
        """
        rows = {setting: [self.value(clip, setting, field) for clip in clips] for setting in dict.fromkeys(settings)}
        filled = [values for values in rows.values() if any(value is not None for value in values)]
        kept = [k for k in range(len(clips)) if filled and all(values[k] is not None for values in filled)]
        picked = {setting: [values[k] for k in kept] for setting, values in rows.items()}
        return [clips[k] for k in kept], {
            setting: [value for value in values if value is not None] for setting, values in picked.items()
        }

    def measured(self, field: str) -> bool:
        """Whether any cell has this figure."""
        return any(self.value(clip, setting, field) is not None for clip, setting in self._cells)


def finite(value: object) -> float | None:
    """The number, or None where it is none or not finite.

    >>> finite(3), finite(None), finite(float("nan"))
    (3.0, None, None)
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if math.isfinite(value) else None


def mean_known(values: Iterable[object]) -> float | None:
    """The mean of those that are finite numbers; None where none is."""
    return average([value for value in map(finite, values) if value is not None])


def changed(before: object, after: object) -> float | None:
    """By how many percent; None where one is unknown or there was nothing to change.

    >>> changed(0.5, 0.25), changed(None, 0.4), changed(0, 1)
    (-50.0, None, None)
    """
    one, other = finite(before), finite(after)
    return 100 * (other / one - 1) if one and other is not None else None


def average(values: Sequence[float]) -> float | None:
    """The mean, or None of nothing."""
    return sum(values) / len(values) if values else None


def deviation(values: Sequence[float]) -> float | None:
    """The standard deviation of a sample (n - 1), or None of fewer than two."""
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
