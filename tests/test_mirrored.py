"""The mean over views: what treats all directions alike is not changed by it, and what does not is evened out."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.mirrored import TURNS, over_views
from shared.grid import MACROBLOCK, grid_shape
from shared.picture import I420, planes, size_of


def picture(width: int, height: int) -> tuple[I420, NDArray[np.uint8]]:
    chance = np.random.default_rng(1)
    i420 = chance.integers(40, 200, (height * 3 // 2, width), np.uint8)
    return i420, chance.integers(20, 45, grid_shape(width, height), np.uint8)


@pytest.mark.parametrize("size", [(96, 64), (70, 46)])
def test_views_come_back_to_their_places_with_their_quantisers(size: tuple[int, int]) -> None:
    i420, qp = picture(*size)
    shapes = []

    def add_quantisers(part: I420, quantisers: NDArray[np.uint8]) -> I420:
        """To luma, that of its macroblock; to chroma 1 and 2."""
        width, height = size_of(part)
        assert quantisers.shape == grid_shape(width, height) == (height // MACROBLOCK, width // MACROBLOCK)
        shapes.append((width, height))
        out = part.copy()
        luma, chroma = planes(out)
        luma += np.kron(quantisers, np.ones((MACROBLOCK, MACROBLOCK), np.uint8))
        chroma[0] += 1
        chroma[1] += 2
        return out

    restored = over_views(add_quantisers)(i420, qp)
    change, chroma = planes(restored - i420)
    assert np.array_equal(change, np.kron(qp, np.ones((16, 16), np.uint8))[: size[1], : size[0]])
    assert (chroma[0] == 1).all()
    assert (chroma[1] == 2).all()
    wide = tuple(-(-side // MACROBLOCK) * MACROBLOCK for side in size)
    assert shapes == [wide] * 4 + [wide[::-1]] * 2
    assert len(TURNS) == 6


def test_what_leans_to_one_side_is_evened_out() -> None:
    i420, qp = picture(64, 64)

    def brighter_to_the_right(part: I420, _: NDArray[np.uint8]) -> I420:
        out = part.copy()
        planes(out)[0][:] += np.arange(64, dtype=np.uint8) // 2
        return out

    change, chroma = planes(over_views(brighter_to_the_right)(i420, qp) - i420)
    assert not chroma.any()
    assert {*change.ravel()} <= {15, 16}, "of 0 to 31"
