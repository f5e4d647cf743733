"""Figures read off whole rate-quality curves: Table 8, the BD-rates, and Table 9, the bandwidth factors."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence

from models.evaluation.bd_rate import LEAST, Reading, bandwidth_factor, bd_rate
from models.evaluation.study.paper import FACTOR, Paper
from models.evaluation.study.protocol import CURVE_RATES, CURVE_SHARES
from models.evaluation.study.results import METRICS, NONE, OF_FRAME, Metric, Results, Setting
from models.evaluation.study.sheet import Cell, Column, Table

SHARES = tuple(share for share in CURVE_SHARES if share)
"""Percent, of semcall's curves; plain x264's has 0."""
FACTOR_RATES = (200, 400)
FACTOR_METRICS = ("psnr", "ssim", "distance")

_BOUND = re.compile(r"the factor is (above|below) ([\d.]+)")


def curve(results: Results, clip: str, share: int, restorer: str, field: str) -> list[tuple[float, float]]:
    """The measured points of a clip: measured kb/s and the figure `field`, by rising nominal rate."""
    points = []
    for kbps in CURVE_RATES:
        setting = Setting(kbps, share, restorer)
        rate, value = results.value(clip, setting, "measured_kbps"), results.value(clip, setting, field)
        if rate is not None and value is not None:
            points.append((rate, value))
    return points


def factor(results: Results, clip: str, setting: Setting, field: str) -> Reading:
    """The bandwidth factor of a clip at a setting, in the figure `field` ("face.psnr" and the like)."""
    rate, value = results.value(clip, setting, "measured_kbps"), results.value(clip, setting, field)
    if rate is None or value is None:
        return Reading(math.nan, "this cell was not measured")
    ours = [(rate, value), (2 * rate, value)]  # read where it was measured: semcall's other rates do not matter
    plain = curve(results, clip, 0, NONE, field)
    return bandwidth_factor(plain, ours, rate, METRICS[field.rpartition(".")[2]].higher is True)


def interval(reading: Reading) -> tuple[float, float] | None:
    """Between what a factor lies: twice its value, or its bound and 0 or infinity; None where nothing is known.

    >>> interval(Reading(math.nan, "semcall is better: the factor is above 4.00"))
    (4.0, inf)
    """
    if math.isfinite(reading.value):
        return reading.value, reading.value
    bound = _BOUND.search(reading.reason)
    if bound is None:
        return None
    return (float(bound[2]), math.inf) if bound[1] == "above" else (0.0, float(bound[2]))


def median_factor(readings: Sequence[Reading]) -> tuple[float, float] | None:
    """Between what the median over clips lies, bounds taken at their worst and best; None of nothing known."""
    known = [ends for ends in map(interval, readings) if ends is not None]
    if not known:
        return None
    return statistics.median(low for low, _ in known), statistics.median(high for _, high in known)


def known_factors(readings: Sequence[Reading]) -> int:
    """How many have a value or at least a bound."""
    return sum(interval(reading) is not None for reading in readings)


def interval_text(ends: tuple[float, float] | None) -> str:
    """The value, its bound, or its two ends.

    >>> interval_text((4, math.inf)), interval_text((0, 2)), interval_text((2, 3)), interval_text((3, 3))
    ('> 4.00', '< 2.00', '2.00 to 3.00', '3.00')
    """
    if ends is None or ends == (0, math.inf):
        return "–"
    low, high = ends
    if math.isinf(high):
        return f"> {low:.2f}"
    if low == high:
        return f"{low:.2f}"
    return f"{low:.2f} to {high:.2f}" if low else f"< {high:.2f}"


def rate_table(results: Results) -> Table:
    """Table 8: percent of plain x264's rate for the same metric, per clip, share and restorer, medians last."""
    fields = [(area, key) for area in ("face", "frame") for key in (METRICS if area == "face" else OF_FRAME)]
    fields = [(area, key) for area, key in fields if results.measured(f"{area}.{key}")]
    columns = [Column(area, Metric(key, METRICS[key].name, 1, None)) for area, key in fields]
    rows, cells = [], []
    for share, restorer, clips in _series(results, CURVE_RATES, LEAST):
        readings = [[_bd(results, clip, share, restorer, *field) for field in fields] for clip in clips]
        rows += [_row(name, share, restorer) for name in [*clips, "median"]]
        cells += [[_cell(reading) for reading in row] for row in readings]
        cells.append([_median(column) for column in zip(*readings, strict=True)])
    notes = [
        "BD-rate against plain x264, percent: -50 is half the rate for the same metric; lower is better. "
        f"Over {', '.join(map(str, CURVE_RATES))} kb/s; medians over the clips that have a value."
    ]
    return _finished(8, "BD-rate, percent", columns, rows, cells, results, notes)


def factor_table(results: Results, paper: Paper) -> Table:
    """Table 9: the bandwidth factor on faces, per clip, share and restorer, medians last."""
    fields = [(kbps, key) for kbps in FACTOR_RATES for key in FACTOR_METRICS]
    columns = [Column(f"{kbps} kb/s", Metric(key, METRICS[key].name, 2, None)) for kbps, key in fields]
    rows, cells = [], []
    for share, restorer, clips in _series(results, FACTOR_RATES, 1):
        readings = [
            [factor(results, clip, Setting(kbps, share, restorer), f"face.{key}") for kbps, key in fields]
            for clip in clips
        ]
        rows += [_row(name, share, restorer) for name in [*clips, "median"]]
        cells += [[_cell(reading) for reading in row] for row in readings]
        cells.append([_median_factor(column) for column in zip(*readings, strict=True)])
    notes = [
        "How many times semcall's rate plain x264 needs for the same metric on the face; higher is better. "
        "Medians count bounds as bounds.",
        f"paper (other videos): {paper.claim(FACTOR):g}, as claimed.",
    ]
    return _finished(9, "bandwidth factor on face patches", columns, rows, cells, results, notes)


def _series(results: Results, rates: Sequence[int], least: int) -> list[tuple[int, str, list[str]]]:
    """Share, restorer and the clips that were measured so at `least` of the rates, where there are any."""
    found = []
    for restorer in [NONE, *results.restorers]:
        for share in SHARES:
            settings = [Setting(kbps, share, restorer) for kbps in rates]
            clips = [clip for clip in results.clips if sum(results.has(clip, s) for s in settings) >= least]
            if clips:
                found.append((share, restorer, clips))
    return found


def _bd(results: Results, clip: str, share: int, restorer: str, area: str, key: str) -> Reading:
    plain, ours = (
        curve(results, clip, wanted, name, f"{area}.{key}") for wanted, name in ((0, NONE), (share, restorer))
    )
    reading = bd_rate(plain, ours, METRICS[key].higher is True)
    return Reading(
        reading.value, reading.reason.replace("the anchor", "plain's curve").replace("the test", "semcall's curve")
    )


def _row(name: str, share: int, restorer: str) -> str:
    return f"{name}, {share}%" + ("" if restorer == NONE else f", {restorer}")


def _cell(reading: Reading) -> Cell:
    if math.isfinite(reading.value):
        return Cell(reading.value, 1)
    ends = interval(reading)
    if ends is None:
        return Cell(note=reading.reason)
    return Cell(shown=interval_text(ends), note=reading.reason.partition(":")[0])  # the bound is shown already


def _median(readings: Sequence[Reading]) -> Cell:
    values = [reading.value for reading in readings if math.isfinite(reading.value)]
    return Cell(statistics.median(values), len(values)) if values else Cell()


def _median_factor(readings: Sequence[Reading]) -> Cell:
    ends = median_factor(readings)
    if ends is None:
        return Cell()
    if ends[0] == ends[1]:
        return Cell(ends[0], known_factors(readings))
    return Cell(n=known_factors(readings), shown=interval_text(ends))


def _finished(
    number: int,
    title: str,
    columns: list[Column],
    rows: list[str],
    cells: list[list[Cell]],
    results: Results,
    notes: list[str],
) -> Table:
    if not cells:
        notes = [*notes, "No clip has a curve of semcall's."]
    clips = [clip for clip in results.clips if any(row.startswith(f"{clip}, ") for row in rows)]
    return Table(number, title, "clip, share", rows, columns, cells, clips, notes)
