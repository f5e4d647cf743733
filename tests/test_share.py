"""The controller of rate and share against a synthetic codec: it must reach, hold and follow what is asked."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sender.share import BACKGROUND_COARSEST, QP_MAX, QP_MIN, ShareController
from shared.encode import ShareMode

PIXELS = 1280 * 720


class Plant:
    """A codec that obeys bits = exp(c + ln area + 0.5 ln(motion + 0.5) - k QP), with noise.

    The constants are not the controller's own: slopes and levels differ, which is what it has to learn.
    """

    def __init__(self, area: float = 0.12, noise: float = 0.15, level: tuple[float, float] = (13.6, 16.8)) -> None:
        self.area, self.noise, self.level = area, noise, level
        self.slope = (0.13, 0.2)
        self.random = np.random.default_rng(7)

    def run(
        self,
        controller: ShareController,
        pictures: int,
        keyframe: Callable[[int], bool] = lambda index: index == 0,
    ) -> list[tuple[float, float, float, float]]:
        """Rows of (face bits, all bits, face QP, background QP)."""
        rows = []
        for index in range(pictures):
            motion = 2 + math.sin(index / 9), 0.6 + 0.4 * math.sin(index / 13)
            key = keyframe(index)
            quantisers = controller.plan(self.area, motion, key, 1 / 30)
            parts = []
            for region, (part, moved) in enumerate(zip((self.area, 1 - self.area), motion, strict=True)):
                factor = math.exp(self.random.normal(0, self.noise)) * (4 if key else 1)
                law = self.level[region] + 0.5 * math.log(moved + 0.5) - self.slope[region] * quantisers[region]
                parts.append(part * math.exp(law) * factor)
            controller.feedback(parts[0], sum(parts) + 200)
            rows.append((parts[0], sum(parts) + 200, *quantisers))
        return rows


def rate(rows: list[tuple[float, float, float, float]]) -> float:
    return sum(row[1] for row in rows) / len(rows) * 30


def share(rows: list[tuple[float, float, float, float]]) -> float:
    return sum(row[0] for row in rows) / sum(row[1] for row in rows)


@pytest.mark.parametrize("wanted", [0.15, 0.25, 0.35, 0.45])
@pytest.mark.parametrize("bitrate", [250e3, 400e3, 1e6])
def test_converges_to_rate_and_share(bitrate: float, wanted: float) -> None:
    rows = Plant().run(ShareController(bitrate, wanted, "exact", PIXELS), 240)
    assert rate(rows[90:]) == pytest.approx(bitrate, rel=0.04)
    assert share(rows[90:]) == pytest.approx(wanted, abs=0.02)
    windows = [share(rows[start : start + 90]) for start in range(90, 151, 15)]
    assert max(abs(window - wanted) for window in windows) < 0.03


def test_a_lower_target_leaves_no_savings_to_spend() -> None:
    controller, plant = ShareController(1e6, 0.25, "exact", PIXELS), Plant()
    plant.run(controller, 60)
    controller._debt = 300e3  # the pictures before were easy
    controller.retarget(250e3)
    rows = plant.run(controller, 30, lambda _index: False)
    assert rate(rows) < 1.1 * 250e3
    controller._debt = 50e3
    controller.retarget(300e3)
    assert controller._debt == 50e3


def test_follows_steps_of_bitrate_and_share() -> None:
    controller, plant = ShareController(400e3, 0.15, "exact", PIXELS), Plant()
    plant.run(controller, 120)

    def later(_index: int) -> bool:
        return False

    for bitrate, wanted in ((1e6, 0.15), (250e3, 0.15), (250e3, 0.4), (500e3, 0.2)):
        controller.bitrate, controller.share = bitrate, wanted
        rows = plant.run(controller, 150, later)
        assert rate(rows[30:60]) == pytest.approx(bitrate, rel=0.2)  # after one second
        assert rate(rows[60:]) == pytest.approx(bitrate, rel=0.05)
        assert share(rows[60:]) == pytest.approx(wanted, abs=0.025)


@pytest.mark.parametrize("mode", ["floor", "exact"])
def test_nobody_in_view(mode: ShareMode) -> None:
    rows = Plant(area=0.0).run(ShareController(400e3, 0.3, mode, PIXELS), 200)
    assert all(row[2] == row[3] for row in rows)
    assert rate(rows[90:]) == pytest.approx(400e3, rel=0.04)


def test_face_fills_the_picture() -> None:
    controller = ShareController(400e3, 0.3, "floor", PIXELS)
    rows = Plant(area=1.0, level=(13.5, 13.0)).run(controller, 200)
    assert rate(rows[90:]) == pytest.approx(400e3, rel=0.04)
    assert all(row[2] <= row[3] for row in rows)


def test_face_that_comes_and_goes() -> None:
    controller, plant = ShareController(400e3, 0.3, "exact", PIXELS), Plant()
    for area in (0.12, 0.0, 0.12, 0.3):
        plant.area = area
        rows = plant.run(controller, 150, lambda _index: False)
        assert rate(rows[60:]) == pytest.approx(400e3, rel=0.05)
        assert share(rows[60:]) == pytest.approx(0.3 if area else 0.0, abs=0.025)


@pytest.mark.parametrize(("level", "limit"), [((25.0, 25.0), QP_MAX), ((8.0, 8.0), QP_MIN)])
def test_saturates_at_the_limits(level: tuple[float, float], limit: int) -> None:
    controller, plant = ShareController(400e3, 0.3, "exact", PIXELS), Plant(level=level)
    rows = plant.run(controller, 150)
    assert {row[2:] for row in rows[90:]} == {(limit, limit)}
    plant.level = (13.6, 16.8)  # and comes back: neither limit winds anything up for long
    rows = plant.run(controller, 180, lambda _index: False)
    assert rate(rows[90:]) == pytest.approx(400e3, rel=0.06)
    assert share(rows[90:]) == pytest.approx(0.3, abs=0.03)


def test_bits_that_the_face_cannot_use_go_to_the_background() -> None:
    rows = Plant(area=0.02, level=(10.0, 16.8)).run(ShareController(400e3, 0.4, "exact", PIXELS), 200)
    assert rows[-1][2] == QP_MIN
    assert rate(rows[90:]) == pytest.approx(400e3, rel=0.05)


def test_keyframe_leaves_no_trace() -> None:
    calm = Plant(noise=0.0).run(ShareController(400e3, 0.3, "exact", PIXELS), 240)
    rows = Plant(noise=0.0).run(ShareController(400e3, 0.3, "exact", PIXELS), 240, lambda index: index in (0, 120))
    assert abs(rows[120][2] - rows[119][2]) <= 12
    assert rows[120][1] < 0.4 * 400e3  # the first one taught it the size
    after, before = rows[150:180], calm[150:180]
    assert max(abs(a[3] - b[3]) for a, b in zip(after, before, strict=True)) <= 4
    assert rate(rows[120:210]) == pytest.approx(400e3, rel=0.1)  # the IDR is paid back
    assert share(rows[180:]) == pytest.approx(0.3, abs=0.02)


def test_floor_gives_at_least_the_share_and_never_codes_the_face_worse() -> None:
    busy = Plant(area=0.3, level=(14.0, 15.4))  # the face takes more than half of the bits at one quantiser
    rows = busy.run(ShareController(400e3, 0.15, "floor", PIXELS), 200)
    assert all(row[2] <= row[3] for row in rows)
    assert share(rows[60:]) > 0.3
    assert rate(rows[90:]) == pytest.approx(400e3, rel=0.05)
    exact = Plant(area=0.3, level=(14.0, 15.4)).run(ShareController(400e3, 0.15, "exact", PIXELS), 200)
    assert share(exact[90:]) == pytest.approx(0.15, abs=0.02)
    assert exact[-1][2] > exact[-1][3]
    small = Plant(area=0.03).run(ShareController(400e3, 0.3, "floor", PIXELS), 200)
    assert share(small[90:]) == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("mode", ["floor", "exact"])
def test_share_of_nothing_is_plain_coding(mode: ShareMode) -> None:
    rows = Plant().run(ShareController(400e3, 0.0, mode, PIXELS), 200, lambda index: index % 50 == 0)
    assert all(row[2] == row[3] for row in rows)


@settings(max_examples=60, deadline=None)
@given(
    bitrate=st.floats(1e3, 1e8),
    wanted=st.floats(0, 1),
    mode=st.sampled_from(["floor", "exact"]),
    pixels=st.integers(256, 4096 * 2304),
    steps=st.lists(
        st.tuples(
            st.floats(0, 1),  # area
            st.floats(0, 255),  # motion
            st.floats(0, 255),
            st.booleans(),  # keyframe
            st.floats(-1, 1e6),  # elapsed
            st.floats(0, 1e9),  # bits
            st.floats(0, 1),  # part of them on the face
            st.floats(1e3, 1e8),  # the next bitrate and share
            st.floats(0, 1),
        ),
        min_size=1,
        max_size=25,
    ),
)
def test_quantisers_stay_within_their_limits(
    bitrate: float, wanted: float, mode: ShareMode, pixels: int, steps: list[tuple[float, ...]]
) -> None:
    controller = ShareController(bitrate, wanted, mode, pixels)
    for area, inside, outside, keyframe, elapsed, bits, part, controller.bitrate, controller.share in steps:
        face, background = controller.plan(area, (inside, outside), bool(keyframe), elapsed)
        for quantiser in (face, background):
            assert math.isfinite(quantiser)
            assert QP_MIN <= quantiser <= QP_MAX
            assert quantiser == int(quantiser)
        assert abs(face - background) != 1  # x264 would code both with one
        assert mode == "exact" or face <= background
        controller.feedback(bits * part, bits)


def test_a_full_mask_uses_the_whole_rate_in_exact_mode_too() -> None:
    """A quarter of the bits for a face that is the whole picture leaves nobody to take the rest."""
    controller, plant = ShareController(400e3, 0.25, "exact", PIXELS), Plant(area=1.0)
    rows = plant.run(controller, 200)
    assert rate(rows[90:]) == pytest.approx(400e3, rel=0.06)


def test_the_background_does_not_fall_apart_for_the_face() -> None:
    coarsest = {}
    for wanted in (0.3, 0.9):
        rows = Plant().run(ShareController(120e3, wanted, "exact", PIXELS), 200)
        coarsest[wanted] = np.mean([row[3] for row in rows[90:]])
        assert rate(rows[90:]) == pytest.approx(120e3, rel=0.05)
    assert coarsest[0.3] < BACKGROUND_COARSEST
    assert coarsest[0.9] < BACKGROUND_COARSEST + 1
    assert share(rows[90:]) < 0.88  # what the face gave up


@pytest.mark.parametrize("mode", ["exact", "floor"])
def test_what_sets_in_suddenly_costs_a_few_budgets_not_many(mode: ShareMode) -> None:
    """Noise after stillness: bits grow with the square of the jump in motion, not with its root."""
    controller = ShareController(400e3, 0.25, mode, PIXELS)
    budget, area, worst, late = 400e3 / 30, 0.12, 0.0, 0.0
    for index in range(240):
        moved = 0.05 if index < 120 else 1.7
        face_qp, background_qp = controller.plan(area, (moved, moved), index == 0, 1 / 30)
        level = 3.5 if index >= 120 else 0.0  # what the law does not foresee
        face, rest = (
            part * math.exp(13.4 + level - 0.18 * quantiser)
            for part, quantiser in ((area, face_qp), (1 - area, background_qp))
        )
        controller.feedback(face, face + rest)
        worst = max(worst, (face + rest) / budget) if index >= 120 else worst
        late += (face + rest) / budget / 60 if index >= 180 else 0.0
    assert worst < 12
    assert late == pytest.approx(1, abs=0.15)


def test_even_pictures_vary_less_in_size() -> None:
    spread = []
    for even in (False, True):
        controller = ShareController(400e3, 0.25, "exact", even=even)
        sizes = np.array([row[1] for row in Plant(noise=0.5).run(controller, 600)[60:]])
        assert sizes.mean() * 30 == pytest.approx(400e3, rel=0.03)
        spread.append(sizes.std() / sizes.mean())
    assert spread[1] < 0.9 * spread[0]
