"""The soak benchmark itself: a short call, and what it makes of figures."""

from __future__ import annotations

import sys

import pytest
from rich.console import Console

from benchmarks import soak
from benchmarks.soak import SAMPLES, Soak, report, run


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_a_short_call_with_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "OUTAGE", 0)
    told: list[float] = []
    result = run(0.1, speed=10, loss=0.05, size=(160, 96), progressed=told.append)
    assert result.sent >= 0.1 * soak.PER_MINUTE
    assert result.shown > 0
    assert result.nacks > 0
    assert told == [minutes for minutes, _ in result.samples] == sorted(told)
    assert all(memory > 20 for _, memory in result.samples)
    assert result.slope is None


def test_the_slope_is_in_megabytes_per_hour() -> None:
    minutes = [index / SAMPLES for index in range(10 * SAMPLES)]
    growing = Soak([(minute, 500 - 100 * (minute < 2) + minute) for minute in minutes], seconds=1.0)
    assert growing.slope == pytest.approx(60)
    flat = Soak([(minute, 100.0 + minute * (minute < 2)) for minute in minutes], seconds=1.0)
    assert flat.slope == pytest.approx(0, abs=1e-6)
    console = Console(record=True, width=100)
    report(growing, console)
    assert "slope +60.0 MB per hour of call" in console.export_text()
