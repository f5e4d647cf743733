"""Two rate-quality curves compared: the Bjontegaard rate difference and the bandwidth factor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Curve = Sequence[tuple[float, float]]
"""Measured points: rate (any unit, the same for both curves) and metric, in any order."""

LEAST = 4
"""Points of a curve for a BD-rate, as in Bjontegaard's document."""

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Reading:
    """A figure read off curves. `value` is NaN where there is none; `reason` then says why, and is else empty."""

    value: float
    reason: str = ""


def bd_rate(anchor: Curve, test: Curve, higher_is_better: bool = True) -> Reading:
    """Mean rate difference of `test` against `anchor` at equal metric, percent, above -100; lower is better, 0 equal.

    Log rate as a function of the metric, interpolated by a monotone piecewise cubic, is integrated over the range of
    the metric that both curves reach; the mean difference d gives 100 (10^d - 1). -50 is half the rate. After
    Bjontegaard (VCEG-M33, 2001) with the interpolation of JCTVC's and JVET's later practice (Fritsch and Butland's
    PCHIP) for his single cubic.

    NaN with a reason: fewer than four points, rates that are not positive or the same twice, a metric that is not
    finite or does not improve with every step of the rate, curves that share no range of the metric.

    >>> plain = [(100.0, 30.0), (200.0, 33.0), (400.0, 36.0), (800.0, 39.0)]
    >>> round(bd_rate(plain, [(rate / 2, metric) for rate, metric in plain]).value, 6)
    -50.0
    >>> bd_rate(plain, [(rate, metric + 20) for rate, metric in plain]).reason
    'the curves share no range of the metric'
    """
    sides = []
    for name, curve in (("the anchor", anchor), ("the test", test)):
        rates, metric = _sorted(curve, higher_is_better)
        reason = _trouble(name, rates, metric, LEAST) or _unsteady(name, metric)
        if reason:
            return Reading(math.nan, reason)
        sides.append((metric, np.log10(rates)))
    low = max(float(metric[0]) for metric, _ in sides)
    high = min(float(metric[-1]) for metric, _ in sides)
    if not low < high:
        return Reading(math.nan, "the curves share no range of the metric")
    areas = [_Pchip(metric, log_rate).integral(low, high) for metric, log_rate in sides]
    return Reading(100 * (10 ** ((areas[1] - areas[0]) / (high - low)) - 1))


def bandwidth_factor(plain: Curve, ours: Curve, rate: float, higher_is_better: bool = True) -> Reading:
    """How many times `rate` plain x264 needs for the metric that semcall has at `rate`; above 0, higher is better.

    The metric is read off `ours` at log `rate`, its rate off `plain`, both by monotone piecewise cubics through the
    measured points; 3 is what the paper claims (abstract, of faces). Two points of a curve are enough.

    NaN with a reason, and never an extrapolation: `rate` beyond the rates of `ours`, a metric beyond what `plain`
    reaches (the factor then exceeds, or falls short of, its last rate), a plain curve that does not improve with
    every step of the rate, and rates or metrics as for `bd_rate`.

    >>> plain = [(200.0, 33.0), (400.0, 36.0), (800.0, 39.0)]
    >>> round(bandwidth_factor(plain, [(100.0, 30.0), (200.0, 39.0)], 200).value, 6)
    4.0
    >>> bandwidth_factor(plain, [(100.0, 30.0), (200.0, 40.0)], 200).reason
    'semcall is better than plain at its highest rate: the factor is above 4.00'
    """
    (rates, metric), (plain_rates, plain_metric) = (_sorted(curve, higher_is_better) for curve in (ours, plain))
    reason = (
        _trouble("semcall's curve", rates, metric, 2)
        or _trouble("plain's curve", plain_rates, plain_metric, 2)
        or _unsteady("plain's curve", plain_metric)
    )
    if reason:
        return Reading(math.nan, reason)
    if not rates[0] <= rate <= rates[-1]:
        return Reading(math.nan, "semcall was not measured on both sides of this rate")
    reached = _Pchip(np.log10(rates), metric)(math.log10(rate))
    if reached > plain_metric[-1]:
        bound = plain_rates[-1] / rate
        return Reading(math.nan, f"semcall is better than plain at its highest rate: the factor is above {bound:.2f}")
    if reached < plain_metric[0]:
        bound = plain_rates[0] / rate
        return Reading(math.nan, f"semcall is worse than plain at its lowest rate: the factor is below {bound:.2f}")
    return Reading(10 ** _Pchip(plain_metric, np.log10(plain_rates))(reached) / rate)


class _Pchip:
    """Monotone piecewise cubic through points of rising x (Fritsch and Butland 1984; ends as in Moler 2004)."""

    def __init__(self, x: _Floats, y: _Floats) -> None:
        self._x, self._y = x, y
        self._step = np.diff(x)
        self._slope = np.diff(y) / self._step
        self._tangent = self._tangents()

    def _tangents(self) -> _Floats:
        step, slope = self._step, self._slope
        if len(slope) == 1:
            return np.repeat(slope, 2)
        tangent = np.zeros(len(self._x))
        before, after = slope[:-1], slope[1:]
        same = before * after > 0  # else an extremum: flat
        weight_before, weight_after = (2 * step[1:] + step[:-1])[same], (step[1:] + 2 * step[:-1])[same]
        harmonic = (weight_before + weight_after) / (weight_before / before[same] + weight_after / after[same])
        tangent[1:-1][same] = harmonic
        tangent[0] = _end(step[0], step[1], slope[0], slope[1])
        tangent[-1] = _end(step[-1], step[-2], slope[-1], slope[-2])
        return tangent

    def __call__(self, x: float) -> float:
        k = self._segment(x)
        return float(np.polyval(self._cubic(k), x - self._x[k]))

    def integral(self, low: float, high: float) -> float:
        """Over low .. high, both inside the points."""
        total = 0.0
        for k in range(self._segment(low), self._segment(high) + 1):
            left, right = max(low, float(self._x[k])), min(high, float(self._x[k + 1]))
            area = np.polyint(self._cubic(k))
            total += float(np.polyval(area, right - self._x[k]) - np.polyval(area, left - self._x[k]))
        return total

    def _segment(self, x: float) -> int:
        return int(np.clip(np.searchsorted(self._x, x, "right") - 1, 0, len(self._step) - 1))

    def _cubic(self, k: int) -> _Floats:
        """Coefficients in x - x[k], highest power first (Hermite)."""
        h, d, left, right = self._step[k], self._slope[k], self._tangent[k], self._tangent[k + 1]
        return np.array([(left + right - 2 * d) / h**2, (3 * d - 2 * left - right) / h, left, self._y[k]])


def _end(step: float, next_step: float, slope: float, next_slope: float) -> float:
    """The tangent at an end: of the parabola through three points, kept from overshooting."""
    tangent = ((2 * step + next_step) * slope - step * next_slope) / (step + next_step)
    if tangent * slope <= 0:
        return 0.0
    return 3 * slope if slope * next_slope <= 0 and abs(tangent) > 3 * abs(slope) else tangent


def _sorted(curve: Curve, higher_is_better: bool) -> tuple[_Floats, _Floats]:
    """Rates in rising order and the metric, negated where lower is better."""
    points = np.array(sorted(curve), np.float64).reshape(-1, 2)
    return points[:, 0], points[:, 1] * (1 if higher_is_better else -1)


def _trouble(name: str, rates: _Floats, metric: _Floats, least: int) -> str:
    if len(rates) < least:
        return f"{name} has {len(rates)} of the {least} points needed"
    if not (np.isfinite(rates).all() and (rates > 0).all()):
        return f"{name} has rates that are not positive numbers"
    if not np.isfinite(metric).all():
        return f"{name} has points without the metric"
    return f"{name} has two points at one rate" if (np.diff(rates) <= 0).any() else ""


def _unsteady(name: str, metric: _Floats) -> str:
    return f"{name} does not improve with every step of the rate" if (np.diff(metric) <= 0).any() else ""
