"""Whether there is time to restore: decisions from made-up times."""

from __future__ import annotations

from receiver.schedule import DEFAULT_BUDGET, RestoreSchedule


def run(schedule: RestoreSchedule, count: int, cost: float, age: float = 0.0) -> list[bool]:
    """`count` pictures, each `age` seconds old; a restoration takes `cost` seconds."""
    decisions = []
    for _ in range(count):
        decisions.append(schedule.admits(age))
        if decisions[-1]:
            schedule.took(cost)
    return decisions


def test_a_fast_machine_restores_everything() -> None:
    schedule = RestoreSchedule()
    assert all(run(schedule, 100, 0.012, age=0.002))


def test_a_slow_machine_tries_once_and_then_seldom() -> None:
    schedule = RestoreSchedule()
    decisions = run(schedule, 300, 0.100)
    assert decisions[0]
    assert 1 < sum(decisions) < 30


def test_a_machine_that_was_busy_recovers_within_two_seconds() -> None:
    schedule = RestoreSchedule()
    assert all(run(schedule, 30, 0.015))
    hiccup = run(schedule, 10, 0.100)
    assert not all(hiccup)
    after = run(schedule, 60, 0.015)
    assert all(after[-20:])


def test_one_outlier_changes_nothing_for_a_fast_machine() -> None:
    schedule = RestoreSchedule()
    run(schedule, 30, 0.010)
    run(schedule, 1, 0.060)
    assert all(run(schedule, 30, 0.010))


def test_a_picture_that_is_already_old_is_shown_as_it_is() -> None:
    schedule = RestoreSchedule()
    run(schedule, 10, 0.010)
    assert not schedule.admits(DEFAULT_BUDGET - 0.005)
    assert schedule.admits(DEFAULT_BUDGET - 0.015)
    assert not RestoreSchedule().admits(2 * DEFAULT_BUDGET)


def test_the_budget_is_the_callers() -> None:
    assert all(run(RestoreSchedule(budget=0.2), 50, 0.1))
    assert not all(run(RestoreSchedule(budget=0.05), 50, 0.1))
