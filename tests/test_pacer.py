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


def test_the_first_packet_leaves_at_once_and_others_follow_evenly() -> None:
    clock = Clock()
    pacer = Pacer(lambda: RATE, clock)
    assert [pacer.wait(1000) for _ in range(3)] == pytest.approx([0, GAP, 2 * GAP])
    clock.now += 3 * GAP
    assert pacer.wait(1000) == pytest.approx(0)


def test_a_retransmission_takes_its_turn_from_what_follows() -> None:
    pacer = Pacer(lambda: RATE, Clock())
    pacer.wait(1000)
    pacer.sent(500)
    assert pacer.wait(1000) == pytest.approx(1.5 * GAP)


def test_the_rate_is_that_of_now() -> None:
    rates = [RATE, 2 * RATE, RATE]
    pacer = Pacer(lambda: rates[0], Clock())
    pacer.wait(1000)
    rates.pop(0)
    assert pacer.wait(1000) == pytest.approx(GAP)
    assert pacer.wait(1000) == pytest.approx(1.5 * GAP)


def test_nothing_is_held_back_for_long() -> None:
    pacer = Pacer(lambda: 1e3, Clock())
    pacer.wait(1000)
    assert pacer.wait(1000) == LONGEST


def test_a_rest_is_not_saved_up() -> None:
    clock = Clock()
    pacer = Pacer(lambda: RATE, clock)
    pacer.wait(1000)
    clock.now += 10
    assert [pacer.wait(1000) for _ in range(2)] == pytest.approx([0, GAP])
