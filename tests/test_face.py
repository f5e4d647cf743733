"""The face mask of every picture: where the face is, steady, never in the way of the call."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
from faces import (
    SIZE,
    BrightParser,
    GatedParser,
    Square,
    astronaut_face,
    film,
    oval,
    overlap,
    scene,
    shipped,
    squares,
)
from numpy.typing import NDArray

import sender.face
from sender.face import EVERY, FaceSegmenter, Pace, Parser, SteadySegmenter
from sender.parser import FaceParser
from sender.propagation import MaskTracker, motion_grid
from shared.astronaut import AstronautClip, photograph
from shared.grid import Mask, grid_shape
from shared.mailbox import Latest
from shared.picture import I420, Picture, bgr_from_i420, i420_from_bgr, planes, shrunk

ONE: Square = (240, 96, 112)
OTHER: Square = (480, 208, 40)  # five cells
Cells = NDArray[np.float32]


def masks(parser: BrightParser, pictures: list[I420], every: int = EVERY) -> list[Mask]:
    segmenter = SteadySegmenter(parser, every)
    return [segmenter.mask(picture) for picture in film(*pictures)]


# The tracker


def test_the_first_picture_knows_its_face() -> None:
    parser = BrightParser()
    (mask,) = masks(parser, [scene(ONE)])
    assert mask.shape == grid_shape(*SIZE)
    assert np.array_equal(mask, squares(ONE))


def test_the_network_looks_at_every_fourth_picture() -> None:
    parser = BrightParser()
    found = masks(parser, [scene(ONE)] * 13)
    assert parser.seen == 4
    assert all(np.array_equal(mask, squares(ONE)) for mask in found)


def test_nobody_is_an_empty_mask() -> None:
    assert not any(mask.any() for mask in masks(BrightParser(), [scene()] * 6))
    assert not SteadySegmenter(None).mask(film(scene(ONE))[0]).any()


def test_a_scene_cut_is_seen_at_once() -> None:
    parser = BrightParser()
    moved: Square = (60, 180, 140)
    found = masks(parser, [scene(ONE)] * 6 + [scene(moved, place=1)] * 3 + [scene(place=2)] * 2)
    assert np.array_equal(found[5], squares(ONE))
    for mask in found[6:9]:
        assert np.array_equal(mask, squares(moved))
    assert not found[9].any()
    assert parser.seen == 4  # 0, 4, 6 and 9


def test_who_enters_and_leaves_is_settled_by_two_looks_in_a_row() -> None:
    parser = BrightParser()
    found = masks(parser, [scene(ONE)] * 2 + [scene(ONE, OTHER)] * 8 + [scene(OTHER)] * 8)
    assert all(np.array_equal(mask, squares(ONE)) for mask in found[:5])
    assert all(np.array_equal(mask, squares(ONE, OTHER)) for mask in found[5:10])  # 4 and 5 looked
    last = [n for n, mask in enumerate(found) if mask[squares(ONE)].any()][-1]
    assert 10 <= last < 14
    assert all(np.array_equal(mask, squares(OTHER)) for mask in found[last + 1 :])


def test_two_faces_are_kept_and_specks_are_not() -> None:
    speck: Square = (40, 40, 8)  # one cell
    found = masks(BrightParser(), [scene(ONE, OTHER, speck)] * 9)
    assert all(np.array_equal(mask, squares(ONE, OTHER)) for mask in found)


def blob(found: Cells) -> Cells:
    told = found.copy()
    told[4:12, 4:14] = 0.97
    return told


def blind(found: Cells) -> Cells:
    return np.full_like(found, 0.01)


def half_blind(found: Cells) -> Cells:
    told = found.copy()
    told[:, :38] = 0.01
    return told


@pytest.mark.parametrize("lie", [blob, blind, half_blind])
def test_one_wrong_look_changes_nothing(lie: Callable[[Cells], Cells]) -> None:
    parser = BrightParser({2: lie})
    found = masks(parser, [scene(ONE, OTHER)] * 24)
    assert all(np.array_equal(mask, squares(ONE, OTHER)) for mask in found)
    assert parser.seen == 7  # 0, 4, 8 (wrong), 9, 13, 17, 21


def test_a_wrong_first_look_is_put_right_by_two() -> None:
    found = masks(BrightParser({0: blob}), [scene(ONE)] * 9)
    assert not np.array_equal(found[4], squares(ONE))
    assert np.array_equal(found[5], squares(ONE))


def test_a_network_that_contradicts_itself_does_not_run_on_every_picture() -> None:
    parser = BrightParser(dict.fromkeys(range(0, 100, 2), blob))
    masks(parser, [scene(ONE)] * 40)
    assert parser.seen <= 2 * 40 / EVERY + 1


def test_weak_cells_join_late_and_leave_late() -> None:
    """Between the two thresholds a cell stays what it is."""
    tracker = MaskTracker()
    luma = shrunk(planes(scene())[0], motion_grid(*SIZE))
    history = []
    for value in [0.9, *[0.4] * 6, *[0.25] * 6, *[0.4] * 6, *[0.6] * 6]:
        tracker.advance(luma)
        found = np.full((45, 80), 0.02, np.float32)
        found[10:20, 10:20], found[10:20, 20] = 0.95, value
        tracker.observe(found, tracker.mark())
        history.append(bool(tracker.mask[15, 20]))
    assert history[:7] == [True] * 7
    assert history[12:19] == [False] * 7
    assert history[-1]


def moving(step: float, count: int, size: tuple[int, int] = SIZE) -> list[tuple[I420, Square]]:
    faces = [(round(80 + step * n), 96, 112) for n in range(count)]
    return [(scene(face, size=size), face) for face in faces]


@pytest.mark.parametrize("step", [1, 4, 9])
def test_the_mask_moves_with_the_face_between_looks(step: float) -> None:
    shots = moving(step, 24)
    found = masks(BrightParser(), [i420 for i420, _ in shots])
    for mask, (_, face) in zip(found, shots, strict=True):
        assert overlap(mask, squares(face)) > 0.7  # of 7 columns one may be half a macroblock off
        lag = np.nonzero(squares(face))[1].mean() - np.nonzero(mask)[1].mean()
        assert abs(lag) <= 1


def test_a_cut_in_the_dark_is_a_cut_and_noise_there_is_none() -> None:
    def dark(place: int, seed: int) -> NDArray[np.uint8]:
        luma = shrunk(planes(scene(ONE, place=place))[0], (320, 180)).astype(np.float32)
        noise = np.random.default_rng(seed).normal(0, 4, luma.shape)
        return shrunk(np.clip(16 + 0.15 * (luma - 16) + noise, 0, 255).astype(np.uint8), motion_grid(*SIZE))

    tracker = MaskTracker()
    tracker.advance(dark(0, 0))
    tracker.observe(np.zeros((45, 80), np.float32), tracker.mark())
    for seed in range(1, 6):
        tracker.advance(dark(0, seed))
        assert not tracker.lost
    tracker.advance(dark(1, 6))
    assert tracker.lost


@pytest.mark.parametrize("across", [2, 5, 11])
def test_the_flow_finds_how_far_a_picture_moved(across: int) -> None:
    """In a picture of 1280x720, a step of `across` samples: what a mask is carried by, to a fifth of a macroblock."""
    wide = cv2.resize(photograph(), (1600, 1600), interpolation=cv2.INTER_AREA)[300:1020, :, 1]
    tracker, where = MaskTracker(), np.zeros((45, 80), np.float32)
    where[10:35, 20:50] = 0.95
    for step in range(6):
        left = 150 - across * step
        tracker.advance(shrunk(np.ascontiguousarray(wide[:, left : left + 1280]), motion_grid(1280, 720)))
        if step == 0:
            tracker.observe(where, tracker.mark())
    assert tracker.belief[10:35].sum() == pytest.approx(0.95 * 25 * 30, rel=0.1)
    centre = (tracker.belief[15:30] * np.arange(80)).sum() / tracker.belief[15:30].sum()
    assert centre == pytest.approx(34.5 + 5 * across / 16, abs=0.2)


@pytest.mark.parametrize(
    ("size", "grid"), [((1280, 720), (64, 36)), ((720, 1280), (36, 64)), ((2, 2), (48, 48)), ((4096, 16), (768, 8))]
)
def test_the_motion_grid_keeps_the_aspect(size: tuple[int, int], grid: tuple[int, int]) -> None:
    assert motion_grid(*size) == grid


def test_the_same_twice() -> None:
    pictures = [i420 for i420, _ in moving(5, 16)]
    for one, other in zip(masks(BrightParser(), pictures), masks(BrightParser(), pictures), strict=True):
        assert np.array_equal(one, other)


def test_slow_motion_adds_up() -> None:
    """A quarter of a sample a picture, below what counts as motion in any one of them."""
    shots = moving(0.25, 100)
    found = masks(BrightParser(), [i420 for i420, _ in shots], every=1000)
    assert overlap(found[-1], squares(shots[-1][1])) >= 0.75
    assert overlap(found[0], squares(shots[-1][1])) < 0.65


@pytest.mark.parametrize(
    "size", [(1920, 1080), (720, 1280), (362, 402), (160, 96), (16, 16), (2, 2), (320, 16), (1280, 16)]
)
def test_any_size(size: tuple[int, int]) -> None:
    segmenter = SteadySegmenter(BrightParser())
    for place in (0, 0, 1):
        picture = Picture(scene(size=size, place=place), 0, 0)
        mask = segmenter.mask(picture)
        assert mask.shape == grid_shape(*size)
        assert not mask.any()
    side = min(size) // 2
    if side >= 40:
        face: Square = (size[0] // 4, size[1] // 4, side)
        mask = SteadySegmenter(BrightParser()).mask(Picture(scene(face, size=size), 0, 0))
        assert overlap(mask, squares(face, size=size)) > 0.8


def test_a_new_size_starts_anew() -> None:
    segmenter = SteadySegmenter(BrightParser())
    assert segmenter.mask(Picture(scene(ONE), 0, 0)).any()
    turned = (360, 640)
    assert not segmenter.mask(Picture(scene(size=turned), 3000, 1)).any()
    face: Square = (96, 240, 112)
    assert not segmenter.mask(Picture(scene(size=turned), 6000, 2)).any()
    seen = [segmenter.mask(Picture(scene(face, size=turned), 3000 * n, n)) for n in range(3, 8)]
    assert np.array_equal(seen[-1], squares(face, size=turned))


def test_stages_are_timed() -> None:
    segmenter = SteadySegmenter(BrightParser())
    told = []
    for picture in film(*[scene(ONE)] * 5):
        segmenter.mask(picture)
        told.append(set(segmenter.milliseconds))
    assert told == [{"shrink", "flow", "network"}, *[{"shrink", "flow"}] * 3, {"shrink", "flow", "network"}]


# The network in its thread


class Announcing(Latest[sender.face._Parse]):
    """Tells when a parse has come."""

    def __init__(self) -> None:
        super().__init__()
        self.came = threading.Semaphore(0)

    def put(self, item: sender.face._Parse) -> None:
        super().put(item)
        self.came.release()


class Call:
    """A segmenter whose thread the test waits for."""

    def __init__(self, parser: Parser) -> None:
        self.segmenter = FaceSegmenter(parser)
        self.segmenter._parses = self.parses = Announcing()
        self.count = 0

    def mask(self, i420: I420, wait: bool = True) -> Mask:
        """The next picture's mask; `wait`: until a parse that this picture has asked for is there."""
        asked = self.segmenter._asked
        mask = self.segmenter.mask(Picture(i420, self.count * 3000, self.count))
        self.count += 1
        if wait and self.segmenter._asked != asked:
            assert self.parses.came.acquire(timeout=20)
        return mask

    def close(self) -> None:
        self.segmenter.close()
        assert self.segmenter._thread is not None
        assert not self.segmenter._thread.is_alive()


@pytest.fixture
def gated(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Call, GatedParser]]:
    monkeypatch.setattr(sender.face, "_PATIENCE", 20.0)
    parser = GatedParser()
    call = Call(parser)
    yield call, parser
    parser.gate.set()
    call.close()


def test_the_keyframe_waits_for_its_face(gated: tuple[Call, GatedParser]) -> None:
    call, parser = gated
    assert np.array_equal(call.mask(scene(ONE)), squares(ONE))
    for _ in range(8):
        assert np.array_equal(call.mask(scene(ONE)), squares(ONE))
    assert parser.seen == 3
    assert np.array_equal(call.mask(scene(OTHER, place=1)), squares(OTHER))  # so does a new scene


def test_no_picture_waits_long(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = GatedParser()
    call = Call(parser)
    parser.gate.clear()
    start = time.monotonic()
    found = [call.mask(scene(ONE), wait=False) for _ in range(8)]
    assert time.monotonic() - start < 5  # 25 ms and the flow, on a machine that may be busy
    assert not any(mask.any() for mask in found)
    assert call.segmenter._asked == 1  # it was asked once
    parser.gate.set()
    assert call.parses.came.acquire(timeout=20)
    assert np.array_equal(call.mask(scene(ONE)), squares(ONE))
    call.close()


def test_what_comes_late_is_carried_on(gated: tuple[Call, GatedParser]) -> None:
    """The parse of picture 4 arrives with picture 7; the mask is where the face is in each of them."""
    call, parser = gated
    shots = moving(6, 12)
    for n, (i420, face) in enumerate(shots):
        if n == 4:
            parser.gate.clear()
        mask = call.mask(i420, wait=not 4 <= n < 8)
        if n == 6:
            parser.gate.set()
            assert call.parses.came.acquire(timeout=20)
        assert overlap(mask, squares(face)) > 0.7  # of 7 columns one may be half a macroblock off
        lag = np.nonzero(squares(face))[1].mean() - np.nonzero(mask)[1].mean()
        assert abs(lag) <= 1


def test_a_parse_of_another_scene_is_not_taken(
    gated: tuple[Call, GatedParser], monkeypatch: pytest.MonkeyPatch
) -> None:
    call, parser = gated
    for _ in range(4):
        call.mask(scene(ONE))
    parser.gate.clear()
    parser.asked.clear()
    call.mask(scene(ONE), wait=False)  # is being parsed
    assert parser.asked.wait(20)
    monkeypatch.setattr(sender.face, "_PATIENCE", 0.0)
    assert not call.mask(scene(OTHER, place=1), wait=False).any()
    parser.gate.set()
    for _ in range(2):
        assert call.parses.came.acquire(timeout=20)
    assert np.array_equal(call.mask(scene(OTHER, place=1)), squares(OTHER))


def test_a_network_that_fails_empties_the_mask_and_is_told(gated: tuple[Call, GatedParser]) -> None:
    call, parser = gated
    assert call.mask(scene(ONE)).any()
    failure = ValueError("out of memory")

    def fail(_i420: I420) -> Cells:
        raise failure

    parser.probabilities = fail  # type: ignore[method-assign]
    for _ in range(4):
        call.mask(scene(ONE), wait=False)
    assert call.segmenter._thread is not None
    call.segmenter._thread.join(20)
    assert call.segmenter.error is failure
    for _ in range(6):
        assert not call.mask(scene(ONE), wait=False).any()


def test_a_network_that_fails_at_once_holds_nothing_up() -> None:
    def fail(_found: Cells) -> Cells:
        raise ValueError("broken")

    call = Call(BrightParser({0: fail}))
    assert not call.mask(scene(ONE), wait=False).any()
    call.close()
    assert isinstance(call.segmenter.error, ValueError)


def test_off_needs_no_thread() -> None:
    segmenter = FaceSegmenter(None)
    assert not segmenter.mask(Picture(scene(ONE), 0, 0)).any()
    assert segmenter.milliseconds == {}
    segmenter.close()
    assert segmenter.error is None


def test_the_clock_measures_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """80 ms a look, at 30 fps: at most half of the time means every fifth picture."""
    monkeypatch.setattr(sender.face, "_PATIENCE", 20.0)
    now = [0.0]

    class Slow(BrightParser):
        def probabilities(self, i420: I420) -> Cells:
            now[0] += 0.08
            return super().probabilities(i420)

    parser = Slow()
    call = Call(parser)
    call.segmenter._clock = lambda: now[0]
    for _ in range(11):
        call.mask(scene(ONE))
    assert parser.seen == 3
    assert call.segmenter._pace.every == 5
    call.close()


def test_looks_become_rare_on_a_slow_machine_and_frequent_again() -> None:
    pace = Pace()
    assert pace.every == EVERY
    for n in range(10):
        pace.picture(n * 3000)
    pace.network(0.008)
    assert pace.every == 4
    for _ in range(30):
        pace.network(0.1)
    assert pace.every == 6  # 200 ms for 100 ms of work
    for _ in range(30):
        pace.network(0.9)
    assert pace.every == 30  # no rarer, however slow
    for _ in range(30):
        pace.network(0.02)
    assert pace.every == 4


def test_the_pace_follows_the_rate_of_the_pictures() -> None:
    pace = Pace()
    pace.network(0.1)
    for n in range(40):
        pace.picture(n * 1500)
    assert pace.every == 12  # 60 fps
    for n in range(40):
        pace.picture(60_000 + n * 6000)
    assert pace.every == 4  # 15 fps: 200 ms are 3 pictures


def test_pauses_of_the_source_leave_the_pace_alone() -> None:
    pace = Pace()
    pace.network(0.2)
    for n in range(40):
        pace.picture(n * 3000)
    assert pace.every == pace.least == 12
    for n in range(10):
        pace.picture(400_000 + n * 90_000)
    assert pace.every == 12


def test_a_fast_network_may_look_at_once_and_a_slow_one_keeps_its_pace() -> None:
    pace = Pace()
    assert pace.least == 0  # before anything is known
    for n in range(10):
        pace.picture(n * 3000)
    pace.network(0.003)
    assert pace.least == 1


# The parser that ships


@pytest.fixture(scope="module")
def parser() -> FaceParser:
    opened = shipped().open()
    assert opened is not None
    return opened


@pytest.mark.parametrize("size", [(1280, 720), (640, 360), (480, 360), (404, 718)])
def test_finds_the_astronaut(parser: FaceParser, size: tuple[int, int]) -> None:
    clip, segmenter = AstronautClip(size), SteadySegmenter(parser)
    for index in range(0, 20):
        mask = segmenter.mask(Picture(clip.picture(index), index * 3000, index))
        x, y, tall = astronaut_face(clip, index)
        assert mask[oval(x, y, tall, size)].mean() > 0.9
        assert (mask & ~oval(x, y, 1.8 * tall, size)).sum() < 0.15 * mask.sum()


def test_finds_both_of_two(parser: FaceParser) -> None:
    """The same head twice, the other half as large."""
    clip = AstronautClip((640, 360))
    face = bgr_from_i420(clip.picture(0))[:, 140:500]
    wide = np.full((360, 640, 3), 90, np.uint8)
    wide[:, 280:] = face
    wide[90:270, 50:230] = cv2.resize(face, (180, 180), interpolation=cv2.INTER_AREA)
    mask = SteadySegmenter(parser).mask(Picture(i420_from_bgr(wide), 0, 0))
    x, y, tall = astronaut_face(clip, 0)
    large, small = (x + 140, y, tall), ((x - 140) / 2 + 50, y / 2 + 90, tall / 2)
    around = np.zeros_like(mask)
    for x, y, tall in (large, small):
        assert mask[oval(x, y, tall, (640, 360))].mean() > 0.8
        around |= oval(x, y, 1.8 * tall, (640, 360))
    assert (mask & ~around).sum() < 0.15 * mask.sum()


def empty_rooms() -> dict[str, I420]:
    random = np.random.default_rng(5)
    down, across = np.mgrid[0:360, 0:640].astype(np.float32)
    lamp = 60 + 190 * np.exp(-((across - 400) ** 2 + (down - 120) ** 2) / 3000)
    wood = 120 + 40 * np.sin(across / 9 + 3 * np.sin(down / 60))
    return {
        "noise": i420_from_bgr(random.integers(0, 256, (360, 640, 3), np.uint8)),
        "lamp": i420_from_bgr(np.dstack([lamp, lamp, lamp]).astype(np.uint8)),
        "wood": i420_from_bgr(np.dstack([wood * 0.5, wood * 0.8, wood]).astype(np.uint8)),
        "stripes": i420_from_bgr(np.repeat((across // 20 % 2 * 200).astype(np.uint8)[..., None], 3, axis=2)),
    }


@pytest.mark.parametrize(("name", "picture"), empty_rooms().items())
def test_finds_nobody_where_nobody_is(parser: FaceParser, name: str, picture: I420) -> None:
    assert not SteadySegmenter(parser).mask(Picture(picture, 0, 0)).any(), name


def test_blotches_are_seldom_a_face(parser: FaceParser) -> None:
    """Grey camouflage, in which the eye finds faces too: no more of it than of photographs may be flagged."""
    masks = [SteadySegmenter(parser).mask(Picture(scene(place=place), 0, 0)) for place in range(20)]
    assert np.mean(masks) <= 0.005


def test_the_call_finds_the_astronaut(parser: FaceParser, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread and the steady one agree."""
    monkeypatch.setattr(sender.face, "_PATIENCE", 20.0)
    clip, steady, call = AstronautClip((640, 360)), SteadySegmenter(parser), Call(parser)
    for index in range(10):
        i420 = clip.picture(index)
        mask = call.mask(i420)
        assert overlap(mask, steady.mask(Picture(i420, index * 3000, index))) > 0.9
    call.close()
