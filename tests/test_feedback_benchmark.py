"""The benchmark of per-packet feedback: its estimator, its fake call, its table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import fake_call, feedback
from benchmarks.fake_call import Call
from benchmarks.feedback import CONTROLLERS, rows
from benchmarks.link import LinkSpec, parse_rate
from benchmarks.transport_cc import Fate, TransportCc
from sender.congestion import START

ROWS = {row.title: row for row in rows()}
seeds = pytest.mark.parametrize("seed", [1, 2])


@seeds
def test_the_estimator_falls_with_the_link_and_rises_after(seed: int) -> None:
    call = Call(ROWS["1500, 600, 1500 kb/s, 1M"], CONTROLLERS["GCC, patient"], seed)
    call.run()
    assert call.mean(9, 14) < 600e3 < 700e3 < call.mean(6, 8)
    assert call.mean(22, 24) > 1.3 * call.mean(10, 14)


@seeds
def test_random_loss_is_no_sign_to_the_patient_one(seed: int) -> None:
    row = replace(ROWS["no limit, 2% loss, 1M"], ceiling=400e3)
    for name in ("GCC, patient", "REMB"):
        (call := Call(row, CONTROLLERS[name], seed)).run()
        assert call.mean(0, 24) > 0.95 * 400e3


def test_half_the_packets_lost_lowers_the_rate_and_patience_wants_a_queue() -> None:
    now = 0.0
    plain, patient = (TransportCc(1e6, 100e3, lambda: now, patient=patience) for patience in (False, True))
    for step in range(1, 41):
        now = 0.05 * step
        sent = [now - 0.1 + 0.01 * index for index in range(4)]
        for target in (plain, patient):
            target.sent(2000, 4)
            target.feedback([Fate(t, t + 0.04 if n % 2 else None, 4480) for n, t in enumerate(sent)], 0.1)
            target.update()
    assert plain.loss_based < 0.5 * START
    assert patient.loss_based > START


def test_a_queue_that_grows_is_overuse_and_one_that_drains_is_not() -> None:
    now, wait = 0.0, 0.04
    target = TransportCc(1e6, 100e3, lambda: now)
    seen = set()
    for step in range(1, 61):
        now, wait = step / 30, wait + (0.01 if step <= 40 else -0.01)
        target.sent(1200, 1)
        target.feedback([Fate(now, now + wait, 10096)], 0.1)
        seen.add((step <= 40, target.usage))
    assert {(True, 1), (False, -1)} <= seen
    assert target.update() < 0.9 * START


def test_feedback_tells_of_every_packet_once_and_of_the_lost_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_call, "SECONDS", 4.0)
    row = replace(ROWS["no limit, 2% loss, 1M"], forward=LinkSpec(parse_rate("2M"), 0.04, lose={5, 6, 20}))
    told: list[Fate] = []
    call = Call(row, CONTROLLERS["GCC"], 1)
    monkeypatch.setattr(call.target, "feedback", lambda fates, trip: told.extend(fates))
    call.run()
    assert [index for index, fate in enumerate(told) if fate.arrived is None] == [5, 6, 20]
    assert all(fate.arrived is None or 0.039 < fate.arrived - fate.sent < 0.2 for fate in told)


def test_the_table_has_a_row_per_link_and_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (fake_call, feedback):
        monkeypatch.setattr(module, "SECONDS", 15.0)
    table = feedback.table(seeds=1)
    assert [cell for cell in table.columns[0].cells if cell] == list(ROWS)
    assert table.row_count == len(ROWS) * len(CONTROLLERS)
