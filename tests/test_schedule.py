"""Whether there is time to restore, and how: decisions from made-up times on a made-up clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from receiver.schedule import DEFAULT_BUDGET, RestoreSchedule

FPS = 30


class Call:
    """A call whose machine needs `costs(rung, now)` seconds for a picture. `events`: (seconds, rung stepped to)."""

    def __init__(self, rungs: int, budget: float = DEFAULT_BUDGET) -> None:
        self.schedule = RestoreSchedule(rungs, budget)
        self.now = 100.0
        self.measured = 0
        self.events: list[tuple[float, int]] = []
        self.late = 0

    def warm_up(self, costs: Sequence[float]) -> None:
        for rung in reversed(range(len(costs))):
            self.schedule.measured(rung, costs[rung], self.now)

    def run(
        self, seconds: float, costs: Callable[[int, float], float], age: float = 0.0, fps: float = FPS
    ) -> list[int | None]:
        """Pictures `age` seconds old, one after another; what is due is measured on one or before the next one.

        Returns the rungs on which they were restored, but of those that measure where the schedule stands.
        """
        chosen = []
        for _ in range(round(seconds * fps)):
            before = self.schedule.rung
            chosen.append(rung := self.schedule.choose(age, self.now, period=1 / fps))
            if self.schedule.rung != before:
                self.events.append((self.now, self.schedule.rung))
            if rung is not None:
                cost = costs(rung, self.now)
                if rung == self.schedule.due:
                    self.measured += 1
                    chosen[-1] = None if self.schedule.rung == self.schedule.off else self.schedule.rung
                else:
                    self.late += age + cost > DEFAULT_BUDGET
                self.schedule.took(rung, cost, self.now)
            self.now += 1 / fps
            if self.schedule.due is not None and not self.schedule.probing:
                self.measured += 1
                self.schedule.measured(self.schedule.due, costs(self.schedule.due, self.now), self.now)
        return chosen


def single(cost: float, budget: float = DEFAULT_BUDGET) -> Call:
    call = Call(1, budget)
    call.warm_up([cost])
    return call


def steady(*costs: float) -> Callable[[int, float], float]:
    return lambda rung, _now: costs[rung]


def test_nothing_is_restored_before_anything_is_known() -> None:
    call = Call(2)
    assert call.run(2, steady(0.001, 0.001)) == [None] * 60
    assert call.measured == 0, "the first measurement is the ladder's to begin"
    call.schedule.measured(1, 0.010, call.now)
    assert call.schedule.choose(0.0, call.now) == 1
    call.schedule.measured(0, 0.012, call.now)
    assert call.schedule.choose(0.0, call.now) == 0


def test_a_fast_machine_restores_everything() -> None:
    assert set(single(0.012).run(4, steady(0.012), age=0.002)) == {0}


def test_a_slow_machine_restores_nothing_and_measures_seldom() -> None:
    call = single(0.100)
    assert set(call.run(60, steady(0.100))) == {None}
    assert 1 <= call.measured < 10
    call.run(600, steady(0.100))
    assert call.measured < 30


def test_measuring_anew_takes_little_of_the_time() -> None:
    call = single(4.0)
    call.run(60, steady(4.0))
    assert call.measured == 0
    call.run(540, steady(4.0))
    assert 1 <= call.measured <= 600 / (20 * 4.0)


def test_a_machine_that_was_busy_recovers_within_two_seconds() -> None:
    call = single(0.015)
    assert set(call.run(1, steady(0.015))) == {0}
    hiccup = call.run(1 / 3, steady(0.100))
    assert None in hiccup
    after = call.run(2, steady(0.015))
    assert set(after[-20:]) == {0}


def test_one_outlier_changes_nothing_for_a_fast_machine() -> None:
    for outlier in (0.060, 3.0):
        call = single(0.010)
        call.run(1, steady(0.010))
        call.run(1 / FPS, steady(outlier))
        assert set(call.run(1, steady(0.010))) == {0}


def test_a_picture_that_is_already_old_is_shown_as_it_is() -> None:
    call = single(0.010)
    call.run(1 / 3, steady(0.010))
    assert call.schedule.choose(DEFAULT_BUDGET - 0.005, call.now) is None
    assert call.schedule.choose(DEFAULT_BUDGET - 0.015, call.now) == 0
    assert RestoreSchedule(1).choose(2 * DEFAULT_BUDGET, 0.0) is None


def test_pictures_that_are_always_old_leave_time_for_less() -> None:
    call = Call(2)
    call.warm_up([0.020, 0.005])
    assert call.run(1, steady(0.020, 0.005), age=0.020)[-1] == 1
    assert call.run(1, steady(0.020, 0.005), age=0.100)[-1] is None
    assert call.schedule.rung == call.schedule.off
    assert call.run(5, steady(0.020, 0.005), age=0.001)[-1] == 0
    assert [rung for _, rung in call.events] == [1, 2, 1, 0], "up one rung at a time"


def test_the_budget_is_the_callers() -> None:
    assert set(single(0.1, budget=0.2).run(2, steady(0.1), fps=5)) == {0}
    assert set(single(0.1, budget=0.05).run(2, steady(0.1), fps=5)) == {None}


def test_it_begins_on_the_best_rung_that_fits() -> None:
    call = Call(4)
    call.warm_up([2.0, 0.060, 0.020, 0.004])
    assert set(call.run(20, steady(2.0, 0.060, 0.020, 0.004))) == {2}


def test_a_better_rung_need_not_be_slower() -> None:
    """Ours are not: the largest network on the face, the next one on the whole picture."""
    costs = (0.060, 0.020, 0.040, 0.010)
    call = Call(4)
    call.warm_up(costs)
    assert set(call.run(20, steady(*costs))) == {1}
    busy = tuple(3 * cost for cost in costs)
    assert call.run(2, steady(*busy))[-1] == 3
    assert 2 not in {rung for _, rung in call.events}
    assert call.run(120, steady(*costs))[-1] == 1


def test_a_rung_that_is_no_good_does_not_bar_the_way() -> None:
    """Its known time fits, but one picture in eight is not ready: the faster and better one above is tried again."""
    costs = (0.160, 0.050, 0.040, 0.013, 0.018, 0.008)
    call = Call(6)
    call.warm_up(costs)
    call.run(5, steady(*costs))
    assert call.schedule.rung == 3
    call.run(20, steady(*(3 * cost for cost in costs)))
    assert call.schedule.rung > 3
    back = 0
    for picture in range(60 * FPS):
        (chosen,) = call.run(1 / FPS, steady(*costs))
        call.schedule.shown(chosen != 4 or picture % 8 != 0, call.now)
        back = picture if chosen != 3 else back
    assert call.schedule.rung == 3
    assert back < 30 * FPS


def test_down_means_faster() -> None:
    costs = (0.020, 0.026, 0.008)
    call = Call(3)
    call.warm_up(costs)
    assert call.run(1, steady(*costs))[-1] == 0
    for _ in range(5):
        call.schedule.shown(False, call.now)
    assert call.schedule.rung == 2


def test_what_never_fitted_is_tried_seldom_and_what_did_soon() -> None:
    costs = (0.049, 0.015, 0.008)
    call = Call(3)
    call.warm_up(costs)
    call.run(5, steady(*costs))
    assert (call.measured, call.schedule.rung) == (0, 1)
    call.run(1, steady(0.200, 0.060, 0.020))
    assert call.schedule.rung == 2
    call.run(5, steady(*costs))
    assert call.schedule.rung == 1
    before = call.measured
    call.run(60, steady(*costs))
    assert 1 <= call.measured - before <= 4


def test_the_nearest_of_those_that_may_fit_is_tried_first() -> None:
    call = Call(3)
    call.warm_up([0.060, 0.050, 0.010])
    assert call.schedule.choose(0.0, call.now + 1000) == 1
    assert (call.schedule.due, call.schedule.rung) == (1, 2)


def test_a_rung_is_tried_on_a_young_picture_where_it_may_be_nearly_fast_enough() -> None:
    for known, probing in ((0.090, True), (0.110, False)):
        call = Call(2)
        call.warm_up([known, 0.010])
        assert call.schedule.choose(0.020, call.now + 1000) == 1
        assert (call.schedule.due, call.schedule.probing) == (0, probing)
        assert call.schedule.choose(0.002, call.now + 1000, typical=False) == 1
        assert call.schedule.choose(0.002, call.now + 1000) == (0 if probing else 1)
        call.schedule.took(0, 0.012, call.now + 1000)
        if probing:
            assert call.schedule.due is None
            assert not call.schedule.probing
            assert call.schedule.choose(0.002, call.now + 1001) == 0


@pytest.mark.parametrize("costs", [(0.005,), (0.012, 0.004), (0.049, 0.015, 0.013, 0.005, 0.008, 0.003)])
def test_pictures_that_come_late_do_not_keep_a_rung_from_being_tried(costs: tuple[float, ...]) -> None:
    call = Call(len(costs))
    call.warm_up(costs)
    assert call.run(5, steady(*costs), age=0.020)[-1] is not None
    call.run(0.5, steady(*(10 * cost for cost in costs)), age=0.020)
    after = call.run(120, steady(*costs), age=0.020)
    assert None not in after[-10 * FPS :]


def test_a_lost_rung_is_due_no_more() -> None:
    call = Call(3)
    call.warm_up([0.060, 0.050, 0.010])
    assert call.schedule.choose(0.0, call.now + 1000) == 1
    call.schedule.lost(1, call.now + 1000)
    assert call.schedule.due is None
    assert call.schedule.choose(0.0, call.now + 1001) == 0


def test_up_goes_one_rung_at_a_time() -> None:
    call = Call(3)
    call.warm_up([0.012, 0.009, 0.006])
    for _ in range(12):
        call.schedule.shown(False, call.now)
    assert call.schedule.rung == call.schedule.off
    call.run(60, steady(0.012, 0.009, 0.006))
    assert [rung for _, rung in call.events] == [2, 1, 0]


def test_patience_is_forgotten_when_a_rung_fits() -> None:
    call = Call(1)
    call.warm_up([0.060])
    call.run(300, steady(0.060))
    assert call.run(1, steady(0.010))[-1] is None
    call.schedule.measured(0, 0.010, call.now)  # it has another device now
    assert call.run(2, steady(0.010))[-1] == 0
    call.run(1, steady(0.100))
    assert call.run(6, steady(0.010))[-1] == 0


def test_an_untypical_age_is_not_learnt_from() -> None:
    call = single(0.020)
    for _ in range(30):
        assert call.schedule.choose(0.030, call.now, typical=False) is None
    assert call.schedule.choose(0.001, call.now) == 0


def test_a_rung_that_would_only_just_fit_is_not_stepped_up_to() -> None:
    call = Call(2)
    call.warm_up([0.99 * DEFAULT_BUDGET, 0.010])
    assert set(call.run(10, steady(0.99 * DEFAULT_BUDGET, 0.010))) == {1}


def test_a_rung_that_would_miss_pictures_at_a_high_rate_is_not_stood_on() -> None:
    """25 ms fit into the budget, but not between two of 60 pictures a second."""
    costs = (0.025, 0.016, 0.010)
    call = Call(3)
    call.warm_up(costs)
    assert set(call.run(10, steady(*costs), fps=30)) == {0}
    assert set(call.run(20, steady(*costs), fps=60)) == {1}, "it was there: it stays while it keeps up"
    assert set(call.run(10, steady(0.025, 0.017, 0.010), fps=60)[60:]) == {2}
    assert set(call.run(20, steady(*costs), fps=60)) == {2}, "nothing above leaves a margin"
    assert call.run(10, steady(*costs), fps=30)[-1] == 0
    assert set(call.run(5, steady(*costs), fps=15)) == {0}


def test_load_leads_down_within_a_few_pictures_and_back_up_afterwards() -> None:
    idle, busy = (0.020, 0.012, 0.006), (0.080, 0.048, 0.024)
    call = Call(3)
    call.warm_up(idle)
    call.run(5, steady(*idle))
    down = call.run(1, steady(*busy))
    assert down[0] == 0
    assert down[10:] == [2] * 20
    assert call.late <= 8
    assert set(call.run(10, steady(*busy))) == {2}
    up = call.run(60, steady(*idle))
    assert up[-1] == 0
    assert [rung for _, rung in call.events] == [1, 2, 1, 0], "one rung at a time"


@pytest.mark.parametrize("period", [0.5, 1.0, 2.0, 5.0])
def test_alternating_load_does_not_toggle(period: float) -> None:
    """Half of each period idle, half of it busy: seldomer and seldomer it is tried."""

    def costs(rung: int, now: float) -> float:
        return (0.020, 0.004)[rung] * (4.0 if now % period > period / 2 else 1.0)

    call = Call(2)
    call.warm_up([0.020, 0.004])
    began = call.now
    chosen = call.run(120, costs)
    assert len(call.events) <= 16
    assert sum(when > began + 60 for when, _ in call.events) <= 4
    assert chosen.count(None) < 0.05 * len(chosen), "the rung below holds all the time"


def test_a_budget_is_exceeded_by_few_pictures_under_alternating_load() -> None:
    call = single(0.010)
    chosen = call.run(300, lambda _, now: 0.010 if now % 4 < 2 else 0.200)
    assert call.late < 0.01 * len(chosen)


def test_a_lost_rung_is_never_chosen_again() -> None:
    call = Call(3)
    call.warm_up([0.010, 0.008, 0.004])
    assert call.schedule.choose(0.0, call.now) == 0
    call.schedule.lost(0, call.now)
    assert set(call.run(30, steady(0.010, 0.008, 0.004))) == {1}
    call.schedule.lost(1, call.now)
    call.schedule.lost(2, call.now)
    assert set(call.run(30, steady(0.010, 0.008, 0.004))) == {None}
    assert call.measured == 0


def test_another_picture_size_begins_anew() -> None:
    call = single(0.010)
    call.run(1, steady(0.010))
    call.schedule.reset()
    assert not call.schedule.measured_any
    assert set(call.run(1, steady(0.010))) == {None}
    call.warm_up([0.030])
    assert set(call.run(1, steady(0.030))) == {None}


def test_without_rungs_it_stays_off() -> None:
    call = Call(0)
    assert set(call.run(1, steady())) == {None}


def test_measuring_beside_the_call_does_not_lead_it_down() -> None:
    """What pictures take meanwhile is not told, and the rung that holds is kept however often it is in vain."""
    costs, now, done, job = (0.140, 0.020, 0.006), 100.0, 0.0, None
    schedule = RestoreSchedule(3)
    for rung in (2, 1, 0):
        schedule.measured(rung, costs[rung], now)
    chosen, measured = [], 0
    for _ in range(300 * FPS):
        if job is not None and now >= done:
            schedule.measured(job, 1.2 * costs[job], now)
            job, measured = None, measured + 1
        rung = schedule.choose(0.002, now)
        chosen.append(rung)
        if job is None and schedule.due is not None:
            assert not schedule.probing
            job, done = schedule.due, now + 2 * costs[schedule.due]
        if rung is not None and job is None:
            schedule.took(rung, costs[rung], now)
        now += 1 / FPS
    assert measured >= 3
    assert {rung for rung in chosen if rung != 1} <= {None}
    assert chosen.count(None) < 0.02 * len(chosen)


def test_pictures_that_keep_missing_their_time_lead_down() -> None:
    """A hiccup does not; one picture in eight does, although the mean time fits."""
    call = single(0.026)
    for number in range(200):
        call.run(1 / FPS, steady(0.026))
        call.schedule.shown(number not in (50, 51, 52, 150), call.now)
    assert call.schedule.rung == 0
    for number in range(60):
        call.run(1 / FPS, steady(0.026))
        call.schedule.shown(number % 8 != 0, call.now)
    assert [rung for _, rung in call.events[-1:]] == [1] or call.schedule.rung == 1
