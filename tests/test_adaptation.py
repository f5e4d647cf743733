"""Fewer and smaller pictures: when, how many, and what they look like."""

from __future__ import annotations

import numpy as np
import pytest

from sender.adaptation import OPENING, RUNGS, FrameLimit, Ladder, scaled, scaled_size
from sender.congestion import GROWTH_FIRST, START
from shared.astronaut import AstronautClip
from shared.picture import planes, size_of


class Climber:
    def __init__(self, ceiling: float = 400e3, pixels: int = 1280 * 720) -> None:
        self.now = 0.0
        self.ladder = Ladder(ceiling, pixels, lambda: self.now)

    def hold(self, bitrate: float, seconds: float) -> int:
        """The level after so many seconds of one rate, looked at 30 times a second."""
        for _ in range(round(seconds * 30)):
            self.now += 1 / 30
            self.ladder.update(bitrate)
        return self.ladder.level


def test_down_soon_and_one_step_at_a_time() -> None:
    climber = Climber()
    assert climber.hold(250e3, 60) == 0
    assert climber.hold(230e3, 0.4) == 0
    assert climber.hold(230e3, 0.3) == 1
    assert climber.hold(200e3, 60) == 1
    assert climber.hold(160e3, 0.7) == 2
    assert climber.ladder.rung.fps == 15
    assert climber.ladder.rung.scale == 1


def test_size_goes_last_after_a_longer_wait_and_no_further() -> None:
    climber = Climber()
    assert climber.hold(400e3, 1) == 0
    assert climber.hold(90e3, 1.5) == 2
    assert climber.hold(90e3, 1.5) == 2
    assert climber.hold(90e3, 1.0) == 3
    assert climber.ladder.rung.scale == 0.5
    assert climber.hold(1e3, 60) == 3


def test_up_late_and_only_with_something_to_spare() -> None:
    climber = Climber()
    climber.hold(400e3, 1)
    climber.hold(90e3, 10)
    assert climber.hold(130e3, 60) == 3  # less than a quarter more than it needs
    assert climber.hold(400e3, 9.9) == 3
    assert climber.hold(400e3, 0.3) == 2
    assert climber.hold(400e3, 4.7) == 2
    assert climber.hold(400e3, 0.5) == 1
    assert climber.hold(400e3, 5.5) == 0


def test_a_dip_or_a_peak_starts_the_wait_anew() -> None:
    climber = Climber()
    for _ in range(20):
        climber.hold(200e3, 0.4)
        assert climber.hold(300e3, 0.1) == 0
    climber.hold(200e3, 1)
    for _ in range(5):
        climber.hold(390e3, 4)
        assert climber.hold(250e3, 0.1) == 1
    climber.hold(390e3, 4)
    assert climber.hold(160e3, 0.3) == 1  # the wait for up does not count for down


def test_a_call_that_feels_its_way_up_leaves_no_picture_out() -> None:
    climber = Climber(ceiling=6e6, pixels=3840 * 2160)
    rate = START
    while rate < 6e6:
        assert climber.hold(rate, 1 / 30) == 0
        rate *= 1 + GROWTH_FIRST / 30
    climber = Climber(ceiling=6e6, pixels=3840 * 2160)
    assert climber.hold(START, 1) == 0
    assert climber.hold(0.8 * START, 1) > 0  # it fell
    climber = Climber(ceiling=6e6, pixels=3840 * 2160)
    assert climber.hold(START, OPENING + 1) > 0  # it does not rise


def test_what_is_usable_follows_the_size_of_the_picture() -> None:
    assert Climber(pixels=640 * 360).hold(100e3, 60) == 0
    assert Climber(ceiling=2e6, pixels=1920 * 1080).hold(400e3, 60) == 1


@pytest.mark.parametrize("ceiling", [50e3, 100e3, 200e3])
def test_who_asks_for_little_gets_all_pictures(ceiling: float) -> None:
    climber = Climber(ceiling=ceiling)
    assert climber.hold(ceiling, 60) == 0
    assert climber.hold(0.7 * ceiling, 60) > 0


@pytest.mark.parametrize(("source", "fps", "kept"), [(30, 20, 200), (30, 15, 150), (25, 15, 150), (15, 15, 150)])
def test_pictures_are_left_out_evenly(source: float, fps: float, kept: int) -> None:
    limit, generator = FrameLimit(), np.random.default_rng(1)
    times = [n / source + generator.uniform(-0.002, 0.002) for n in range(round(10 * source))]
    left = [when for when in times if limit.due(round(when * 90_000), fps)]
    assert abs(len(left) - kept) <= 1
    assert max(np.diff(left)) < 1 / fps + 1 / source + 0.005


def test_without_a_limit_all_pictures_are_due() -> None:
    limit = FrameLimit()
    assert all(limit.due(n * 3000, None) for n in range(50))
    assert [limit.due(n * 3000, 15) for n in range(50, 56)] == [True, True, False, True, False, True]


def test_a_clock_that_is_set_back_stops_nothing() -> None:
    limit = FrameLimit()
    assert limit.due(10**9, 15)
    assert limit.due(90_000, 15)
    assert not limit.due(93_000, 15)
    assert limit.due(96_000, 15)
    assert limit.due(10**9, 15)  # and forth


def test_smaller_pictures_keep_their_content() -> None:
    whole = AstronautClip((320, 180)).picture(3)
    assert scaled(whole, (320, 180)) is whole
    half = scaled(whole, scaled_size(320, 180, 0.5))
    assert size_of(half) == (160, 90)
    assert half.flags.c_contiguous
    for plane, small in zip([planes(whole)[0], *planes(whole)[1]], [planes(half)[0], *planes(half)[1]], strict=True):
        rows, columns = small.shape
        means = plane[: rows * 2, : columns * 2].reshape(rows, 2, columns, 2).mean((1, 3))
        assert np.abs(means - small).max() <= 1


@pytest.mark.parametrize("size", [(1280, 720), (1366, 768), (854, 480), (2, 2), (640, 358)])
def test_sizes_stay_even(size: tuple[int, int]) -> None:
    width, height = scaled_size(*size, 0.5)
    assert width % 2 == height % 2 == 0
    assert min(width, height) >= 2
    assert scaled_size(*size, 1) == size


def test_rungs_descend() -> None:
    assert RUNGS[0].fps is None
    assert [rung.usable for rung in RUNGS[1:]] == sorted((rung.usable for rung in RUNGS[1:]), reverse=True)
    assert min(rung.fps for rung in RUNGS if rung.fps) >= 15
