"""Restored pictures are as still as the decoded ones where these stand still, and follow them where they move."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.astronaut import AstronautClip
from shared.steady import BLOCK, EVERY, KEPT, Steadiness

SIZES = [(64, 48), (70, 50), (16, 16), (2, 2)]


def grey(width: int, height: int, value: int = 100) -> NDArray[np.uint8]:
    return np.full((height * 3 // 2, width), value, np.uint8)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_what_trembles_over_a_still_picture_comes_to_rest(width: int, height: int) -> None:
    steady, chance = Steadiness(), np.random.default_rng(1)
    decoded = grey(width, height)
    given, shown = [], []
    for _ in range(40):
        restored = grey(width, height, 104) + chance.integers(-3, 4, decoded.shape).astype(np.int8).view(np.uint8)
        given.append(restored.astype(np.int16))
        shown.append(steady(decoded, restored.copy()).astype(np.int16))
    assert np.array_equal(shown[0], given[0])
    trembled, trembles = (np.abs(np.diff(np.stack(some[10:]), axis=0)).mean() for some in (given, shown))
    assert trembles < 0.4 * trembled
    assert abs(np.stack(shown[10:]).mean() - 104) < 0.5


def test_a_change_of_the_restoration_comes_in_a_few_pictures() -> None:
    steady, decoded = Steadiness(), grey(64, 48)
    steady(decoded, grey(64, 48, 100))
    seen = [int(steady(decoded, grey(64, 48, 120))[5, 5]) for _ in range(3 * EVERY)]
    assert seen[0] == round(100 * KEPT + 120 * (1 - KEPT))
    assert seen == sorted(seen)
    assert seen[-1] == 120


def test_small_strong_changes_and_changes_of_colour_are_no_stillness() -> None:
    for at in (np.s_[20:24, 20:24], np.s_[48:, :]):  # an eye, far away; the chroma planes
        steady, one = Steadiness(), grey(64, 48)
        other = one.copy()
        other[at] += 60
        steady(one, one + np.uint8(20))
        assert np.array_equal(steady(other, other.copy())[at], other[at])


def test_what_moves_is_as_restored() -> None:
    steady, chance = Steadiness(), np.random.default_rng(2)
    for _ in range(3):
        decoded = chance.integers(0, 256, (72, 64)).astype(np.uint8)
        restored = chance.integers(0, 256, (72, 64)).astype(np.uint8)
        assert np.array_equal(steady(decoded, restored.copy()), restored)


def test_only_the_still_part_is_held() -> None:
    steady = Steadiness()
    one, other = grey(64, 48), grey(64, 48)
    other[:48, 32:] = 140  # its right half lights up
    steady(one, one + np.uint8(10))
    shown = steady(other, other.copy())
    assert np.array_equal(shown[:48, 32 + 2 * BLOCK :], other[:48, 32 + 2 * BLOCK :])
    assert (shown[:48, : 32 - 2 * BLOCK] == 108).all()  # 0.8 of what was added to the last


def test_slight_changes_are_followed_at_once() -> None:
    steady = Steadiness()
    one = grey(64, 48)
    steady(one, one.copy())
    other = one.copy()
    other[::4, ::4] += 1  # too few to count as motion
    assert np.array_equal(steady(other, other.copy()), other)


def test_a_new_size_starts_anew() -> None:
    steady = Steadiness()
    steady(grey(64, 48), grey(64, 48, 120))
    assert (steady(grey(32, 32), grey(32, 32, 140)) == 140).all()


def test_real_pictures_keep_their_range() -> None:
    clip, steady = AstronautClip((320, 180)), Steadiness()
    for index in range(6):
        decoded = clip.picture(index)
        shown = steady(decoded, cast_off(decoded))
        assert np.abs(shown.astype(np.int16) - decoded).max() <= 3


def cast_off(decoded: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.clip(decoded.astype(np.int16) + 3, 0, 255).astype(np.uint8)
