"""The figures by which face masks are judged, against masks counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.face.masks import Tally, inner, outside, overlap
from benchmarks.face.material import COMPOSITES, composites
from models.training.face.photographs import held_out, without_people

pytest.importorskip("torch", reason="benchmarks.face uses the training's materials")
SIZE = 640, 320


def boxes(*rows: tuple[float, float, float, float, float]) -> np.ndarray:
    found = np.zeros((len(rows), 15), np.float32)
    for row, (left, top, wide, tall, score) in zip(found, rows, strict=True):
        row[:4], row[14] = (left, top, wide, tall), score
    return found


def test_the_inner_ellipse_and_what_is_outside() -> None:
    face = boxes((160, 80, 160, 160, 0.9))
    inside = inner(face, *SIZE)
    assert inside.shape == (20, 40)
    assert inside.sum() == pytest.approx(np.pi * 25, abs=6)
    assert inside[10, 15]
    assert not inside[5, 10]  # the box's corner
    beyond = outside(face, *SIZE)
    assert not beyond[10, 15]
    assert not (inside & beyond).any()
    assert (~beyond).sum() == 18 * 18  # 1.8 times the box: 288 samples square
    assert beyond[0, 39]


def test_unsure_boxes_excuse_but_do_not_oblige() -> None:
    face = boxes((160, 80, 160, 160, 0.6))
    assert not inner(face, *SIZE).any()
    assert not outside(face, *SIZE)[10, 15]


def test_overlap() -> None:
    one, other = np.zeros((4, 4), np.bool_), np.zeros((4, 4), np.bool_)
    assert overlap(one, other) == 1
    one[:2], other[1:3] = True, True
    assert overlap(one, other) == pytest.approx(1 / 3)


def test_a_tally_counts_hits_mistakes_and_misses() -> None:
    face = boxes((160, 80, 160, 160, 0.9))
    wanted = inner(face, *SIZE)
    half = wanted.copy()
    half[:10] = False
    wrong = wanted.copy()
    wrong[0, 36:40] = True
    tally = Tally()
    for mask in (wanted, half, wrong, np.zeros_like(wanted)):
        tally.add(mask, face, *SIZE)
    tally.add(wrong, boxes(), *SIZE)  # the detector sees nobody: says nothing about the mask
    assert tally.frames == 5
    assert tally.recall == pytest.approx((2 * wanted.sum() + half.sum()) / (4 * wanted.sum()))
    assert tally.worst == 0
    assert tally.missed == 0.25
    assert tally.false == pytest.approx(4 / (4 * outside(face, *SIZE).sum()))


def test_flips_within_five_frames_are_unsteady_and_slower_ones_are_not() -> None:
    nobody, face = np.zeros((20, 40), np.bool_), boxes()
    on = nobody.copy()
    on[4:14, 10:20] = True
    blinking = on.copy()
    blinking[4, 10] = False

    def unsteady(*masks: np.ndarray) -> float:
        tally = Tally()
        for mask in masks:
            tally.add(mask, face, *SIZE)
        return tally.flipped_twice

    assert unsteady(on, on, blinking, on, on, on) == 1
    assert unsteady(on, blinking, blinking, blinking, blinking, on, on) == 1
    assert unsteady(on, blinking, blinking, blinking, blinking, blinking, on, on) == 0
    assert unsteady(on, on, blinking, blinking, blinking, blinking) == 0
    assert unsteady(on, blinking, on, blinking, on) == 3


def test_tallies_add_up() -> None:
    face = boxes((160, 80, 160, 160, 0.9))
    one, two = Tally(), Tally()
    one.add(inner(face, *SIZE), face, *SIZE)
    two.add(np.zeros((20, 40), np.bool_), face, *SIZE)
    one += two
    assert one.recall == 0.5
    assert one.missed == 0.5
    assert one.worst == 0


def test_composites_use_photographs_that_are_held_out_and_show_nobody() -> None:
    rows = composites()
    assert len(rows) == 284
    assert COMPOSITES.name == "composites.tsv"
    assert all(held_out(row.photograph) and without_people(row.photograph) for row in rows)
    assert {row.band for row in rows} == {"3-10%", "10-20%", "20-40%", "40-60%"}
    assert all(0.03 <= row.size <= 0.6 for row in rows)
