"""The rate target on modelled links, and each sign by itself."""

from __future__ import annotations

import pytest
from link_model import Call, Link

from sender.congestion import HOLD, START, RateTarget

STEPS = ((0.0, 1500e3), (10.0, 600e3), (20.0, 1500e3))
seeds = pytest.mark.parametrize("seed", [1, 2, 3])


@seeds
@pytest.mark.parametrize("loss", [0.02, 0.05])
@pytest.mark.parametrize("remb", [True, False])
def test_random_loss_alone_costs_no_more_than_what_goes_twice(seed: int, loss: float, remb: bool) -> None:
    call = Call(Link([(0, 600e3)], loss), 400e3, seed=seed, remb=remb)
    call.run(20)
    assert call.mean(0, 20) > (0.985 - 1.5 * loss) * 400e3
    assert call.wire_rate(0, 20) < 1.1 * 400e3


@seeds
@pytest.mark.parametrize("loss", [0.0, 0.02])
def test_settles_under_the_link_within_three_seconds(seed: int, loss: float) -> None:
    call = Call(Link([(0, 600e3)], loss), 1e6, seed=seed)
    call.run(20)
    assert 0.75 * 600e3 < call.mean(3, 20) < 600e3
    assert call.delay(95, 3) < 0.3
    assert call.wire_rate(3, 20) < 600e3


@seeds
@pytest.mark.parametrize(("ceiling", "loss"), [(1.5e6, 0.0), (1.2e6, 0.02)])
def test_a_link_that_narrows_and_widens(seed: int, ceiling: float, loss: float) -> None:
    call = Call(Link(STEPS, loss), ceiling, seed=seed)
    call.run(35)
    assert call.below(600e3, after=10) < 1
    assert call.above(0.9 * ceiling, after=20) < 10
    assert call.delay(95, 3) < 0.3


@seeds
@pytest.mark.parametrize("ceiling", [400e3, 1e6])
def test_a_narrow_link_is_used(seed: int, ceiling: float) -> None:
    call = Call(Link([(0, 300e3)]), ceiling, seed=seed)
    call.run(20)
    assert 0.75 * 300e3 < call.mean(3, 20) < 300e3


@seeds
def test_an_outage_is_no_congestion(seed: int) -> None:
    call = Call(Link([(0, 1500e3)], outage=(8, 9)), 400e3, seed=seed)
    call.run(20)
    assert call.mean(0, 20) > 0.985 * 400e3


@seeds
def test_without_remb_the_round_trip_rules(seed: int) -> None:
    call = Call(Link([(0, 600e3)], 0.02), 1e6, seed=seed, remb=False)
    call.run(20)
    assert 0.7 * 600e3 < call.mean(5, 20) < 600e3


def test_a_quiet_link_gets_exactly_what_was_asked_for() -> None:
    call = Call(Link([(0, 100e6)], delay=0.001), 400e3)
    call.run(20)
    assert {target for _, target in call.targets} == {400e3}
    assert call.target.estimate is None


class Bench:
    """A rate target fed by hand: `go` sends so many seconds at its own target, in packets of 1000 bytes."""

    def __init__(self, ceiling: float = 400e3, floor: float = 100e3) -> None:
        self.now = 100.0
        self.target = RateTarget(ceiling, floor, lambda: self.now)

    def go(self, seconds: float, part: float = 1.0) -> float:
        for _ in range(round(seconds * 20)):
            self.now += 0.05
            size = int(part * self.target.bitrate * 0.05 / 8)
            self.target.sent(size, -(-size // 1000))
            self.target.update()
        return self.target.bitrate


def test_a_call_that_wants_much_begins_with_less_and_gets_it_soon() -> None:
    bench = Bench(ceiling=2e6)
    assert bench.target.bitrate < START
    assert bench.go(6) == 2e6
    assert bench.target.estimate is None


def test_a_falling_remb_counts_where_packets_are_missing_and_growth_waits() -> None:
    bench = Bench()
    bench.go(5)
    bench.target.reported(0.0, 0.05)
    bench.target.estimated(390_000)
    bench.target.estimated(350_000)  # 0.85 of 410: all that was sent arrived
    assert bench.go(0.2) == 400e3
    bench.target.estimated(250_000)
    low = bench.target.bitrate
    assert 240e3 < low <= 250e3  # the headers beside it are those that REMB does not count
    assert bench.go(HOLD - 0.1) == pytest.approx(low, rel=0.01)
    assert low < bench.go(1) < 1.2 * low
    assert bench.go(12) == 400e3


def test_headers_and_retransmissions_come_out_of_the_estimate() -> None:
    bench = Bench()
    bench.go(2)
    bench.target.estimated(200_000)
    alone = bench.target.bitrate
    assert bench.target.estimate is not None
    assert alone < bench.target.estimate < 1.2 * alone
    for _ in range(4):
        bench.target.sent(1000, 1, again=True)
    bench.target.update()
    assert bench.target.bitrate == pytest.approx(alone * (1 - 4 * 8 * 1062 / bench.target.estimate), rel=0.01)


def test_one_step_down_leaves_half() -> None:
    bench = Bench(ceiling=450e3)
    bench.go(2)
    bench.target.estimated(20_000)
    assert bench.target.bitrate == pytest.approx(225e3)
    bench.target.estimated(19_000)
    assert bench.target.bitrate == pytest.approx(112.5e3)


def test_the_floor_holds_whatever_is_said() -> None:
    bench = Bench(floor=150e3)
    bench.go(2)
    for bitrate in (100_000, 10_000, 1, 0):
        bench.target.estimated(bitrate)
        bench.target.reported(1.0, 5.0)
        bench.target.nacked(100, 3.0)
        bench.go(0.2)
        assert bench.target.bitrate >= 150e3
    assert bench.go(0.5) == 150e3


def test_a_limit_that_somebody_set_is_kept() -> None:
    bench = Bench()
    for _ in range(60):
        bench.go(0.5)
        bench.target.estimated(250_000)
    assert bench.target.bitrate < 1.3 * 250e3


def test_heavy_loss_in_report_after_report_lowers_the_rate() -> None:
    bench = Bench()
    bench.go(2)
    bench.target.reported(0.6)
    assert bench.go(0.5) == 400e3  # one alone: an outage
    for _ in range(3):
        bench.target.reported(0.09)
        assert bench.go(0.9) == 400e3
    for _ in range(4):
        bench.target.reported(0.2)
        bench.go(0.9)
    assert bench.target.bitrate < 0.9 * 400e3
    assert bench.target.loss == pytest.approx(0.2)


def test_loss_with_a_queue_is_congestion_within_a_round_trip() -> None:
    bench = Bench()
    bench.go(2)
    bench.target.nacked(1, 0.08)
    bench.target.nacked(12, 0.08)  # as many with an empty queue
    assert bench.go(1.5) == 400e3
    for _ in range(5):
        bench.target.nacked(2, 0.14)
    assert bench.target.bitrate < 0.92 * 400e3


def test_a_queue_alone_is_enough_and_old_news_is_not() -> None:
    bench = Bench()
    bench.go(2)
    bench.target.reported(0.0, 0.08)
    bench.target.reported(0.0, 0.3)  # a machine that paused, perhaps
    assert bench.go(0.1) == 400e3
    bench.target.reported(0.0, 0.3)
    low = bench.target.bitrate
    assert low < 400e3
    bench.go(0.1)
    bench.target.nacked(5, 0.4)  # of a packet that left before
    assert bench.target.bitrate == pytest.approx(low, rel=0.01)


def test_what_is_not_used_is_not_grown() -> None:
    bench = Bench(ceiling=5e6)
    bench.go(10, part=0.2)
    assert bench.target.bitrate < 1.1 * START


@pytest.mark.parametrize(("ceiling", "floor"), [(100e3, 200e3), (100e3, 0.0)])
def test_floor_and_ceiling_make_sense(ceiling: float, floor: float) -> None:
    with pytest.raises(ValueError, match="floor"):
        RateTarget(ceiling, floor)
