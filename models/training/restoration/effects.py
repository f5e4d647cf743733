"""What a restorer must not do: shift colours, print a mesh, touch what was coded finely."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from shared.grid import mask_to_pixels
from shared.picture import I420, planes, size_of

FINE_QP = 24
"""Luma quantiser up to which there is next to nothing to mend."""
_NEAR = range(2, 9)
"""Bins on either side of a frequency that its power is compared with."""

Restore = Callable[[I420, NDArray[np.uint8]], I420]


def side_effects(
    pictures: Iterable[tuple[I420, NDArray[np.uint8], I420]], restore: Restore
) -> dict[str, float | list[float] | None]:
    """Over decoded pictures (I420), their quantisers (uint8 [rows, columns]) and originals (I420), of one size.

    `colour_shift`: the mean change of a chroma plane, its size averaged over the pictures, of the plane where it is
    larger, code values; `colour_change`: mean absolute change of chroma samples; `colour_error`: as `colour_shift`,
    but to the original's plane, of the decoded and of the restored pictures; `fine_psnr`: of restored to
    decoded luma in macroblocks of quantiser FINE_QP or less, dB (None without such, or where nothing changes);
    `mesh_2`, `mesh_4`, `mesh_8`: `mesh` at that period of the original, the decoded and the restored pictures, means.
    """
    shifts, changes, wrong, errors, counts = [], [], [], 0.0, 0
    meshes: dict[int, list[list[float]]] = {2: [], 4: [], 8: []}
    for decoded, qp, original in pictures:
        restored = restore(decoded, qp)
        (before, colours), (after, mended) = planes(decoded), planes(restored)
        change = mended.astype(np.float64) - colours
        shifts.append(change.mean((1, 2)))
        changes.append(np.abs(change).mean())
        wrong.append([(seen.astype(np.float64) - planes(original)[1]).mean((1, 2)) for seen in (colours, mended)])
        fine = mask_to_pixels(qp <= FINE_QP, *size_of(decoded))
        errors += float(np.square(after[fine].astype(np.float64) - before[fine]).sum())
        counts += int(fine.sum())
        for period, found in meshes.items():
            found.append([mesh(luma, period) for luma in (planes(original)[0], before, after)])
    return {
        "colour_shift": round(float(np.abs(shifts).mean(0).max()), 3),
        "colour_change": round(float(np.mean(changes)), 3),
        "colour_error": [round(float(one.max()), 3) for one in np.abs(wrong).mean(0)],
        "fine_psnr": round(10 * math.log10(255**2 * counts / errors), 2) if errors else None,
        **{
            f"mesh_{period}": [round(float(value), 3) for value in np.mean(found, 0)]
            for period, found in meshes.items()
        },
    }


def mesh(luma: NDArray[np.uint8], period: int) -> float:
    """How far a pattern of `period` samples stands out of a plane's spectrum, across or down: 1 is not at all.

    Power at that frequency over the median of those nearby, of rows and of columns, the greater of the two. What
    pixel shuffling may print repeats every 2, 4 or 8 samples.

    >>> noise = np.random.default_rng(0).integers(100, 110, (128, 128)).astype(np.uint8)
    >>> printed = noise + 6 * (np.arange(128) % 4 == 0).astype(np.uint8)
    >>> mesh(noise, 4) < 1.5 < 10 < mesh(printed, 4)
    True
    """
    return max(_stands_out(plane, period) for plane in (luma, luma.T))


def _stands_out(luma: NDArray[np.uint8], period: int) -> float:
    length = luma.shape[1] - luma.shape[1] % 32
    rows = luma[:, :length].astype(np.float64)
    # A window: the jump from the right border to the left one would hide everything.
    power = np.square(np.abs(np.fft.rfft((rows - rows.mean(1, keepdims=True)) * np.hanning(length)))).mean(0)
    at = length // period
    near = [power[at + side * step] for side in (-1, 1) for step in _NEAR if at + side * step < len(power)]
    return float(power[at] / max(np.median(near), 1e-9))
