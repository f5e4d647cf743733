"""Spacing of new packets."""

from __future__ import annotations

import pytest

from sender.pacer import FACTOR, LONGEST, Pacer

RATE = 400e3
GAP = 1000 * 8 / (FACTOR * RATE)


class Clock:
    def __init__(self) -> None:
        self.now = 5.0

    def __call__(self) -> float:
        return self.now


def test_packets_follow_each_other_evenly() -> None:
    clock = Clock()
    pacer = Pacer(lambda: RATE, clock)
    for _ in range(3):
        rest = pacer.sent(1000)
        assert rest == pytest.approx(GAP)
        clock.now += rest


def test_a_retransmission_takes_its_turn_from_what_follows() -> None:
    pacer = Pacer(lambda: RATE, Clock())
    pacer.sent(500)
    assert pacer.sent(1000) == pytest.approx(1.5 * GAP)


def test_the_rate_is_that_of_now() -> None:
    rates = [RATE]
    clock = Clock()
    pacer = Pacer(lambda: rates[0], clock)
    clock.now += pacer.sent(1000)
    rates[0] *= 2
    assert pacer.sent(1000) == pytest.approx(GAP / 2)


def test_nothing_is_held_back_for_long() -> None:
    pacer = Pacer(lambda: 1e3, Clock())
    assert [pacer.sent(1000) for _ in range(3)] == pytest.approx([LONGEST] * 3)


def test_a_rest_is_not_saved_up() -> None:
    clock = Clock()
    pacer = Pacer(lambda: RATE, clock)
    pacer.sent(1000)
    clock.now += 10
    assert pacer.sent(1000) == pytest.approx(GAP)
