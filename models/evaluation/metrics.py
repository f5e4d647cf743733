"""PSNR and SSIM: picture quality against a reference, on one plane of 8-bit codes, luma unless said otherwise.

There is one definition of each in semcall. Luma is BT.601's in limited range, as coded, with a peak of 255 all the
same, as codecs are usually compared. docs/metrics.md calibrates both against other implementations.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.uint8]


def psnr(reference: Plane, other: Plane, where: NDArray[np.bool_] | None = None) -> float:
    """Peak signal-to-noise ratio in dB, 0 .. 96, higher is better.

    `reference`, `other`: uint8 [H, W]; `where`: bool [H, W], the samples that count (default: all). Identical planes
    give 96, one part in four thousand million. NaN where `where` holds no sample.

    10 log10(255^2 / mean squared error), the error over all samples that count.

    >>> plane = np.full((32, 32), 100, np.uint8)
    >>> round(psnr(plane, plane + np.uint8(5)), 2)
    34.15
    """
    error = (reference.astype(np.float32) - other.astype(np.float32)) ** 2
    if where is not None and not where.any():
        return float("nan")
    mean = float(error.mean() if where is None else error[where].mean())
    return min(96.0, 10 * float(np.log10(255**2 / max(mean, 1e-9))))


def ssim_map(reference: Plane, other: Plane) -> NDArray[np.float32]:
    """SSIM at every sample, -1 .. 1, higher is better (Wang et al. 2004, equation 13).

    `reference`, `other`: uint8 [H, W]; returns float32 [H, W]. Gaussian window of 11x11 and sigma 1.5, K1 = 0.01,
    K2 = 0.03, codes of 0..255, no downsampling; borders reflected, so that the map has the plane's size. The mean
    over all samples differs from implementations that crop the border in the third decimal.

    >>> plane = (np.arange(64 * 64).reshape(64, 64) % 251).astype(np.uint8)
    >>> float(ssim_map(plane, plane).min()) > 0.9999
    True
    """
    one, two = reference.astype(np.float32), other.astype(np.float32)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_one, mean_two = _blur(one), _blur(two)
    variance_one, variance_two = _blur(one * one) - mean_one**2, _blur(two * two) - mean_two**2
    covariance = _blur(one * two) - mean_one * mean_two
    above = (2 * mean_one * mean_two + c1) * (2 * covariance + c2)
    below = (mean_one**2 + mean_two**2 + c1) * (variance_one + variance_two + c2)
    return np.asarray(above / below, np.float32)


def ssim(reference: Plane, other: Plane, where: NDArray[np.bool_] | None = None) -> float:
    """Mean structural similarity, -1 .. 1, higher is better (Wang et al. 2004, equation 17).

    `reference`, `other`: uint8 [H, W]; `where`: bool [H, W], the samples of `ssim_map` that count (default: all; NaN
    where there are none). The map is made of the whole plane: what lies up to five samples outside `where` has its
    say at the rim.

    >>> plane = (np.arange(64 * 64).reshape(64, 64) % 251).astype(np.uint8)
    >>> round(ssim(plane, plane), 4), ssim(plane, 255 - plane) < 0
    (1.0, True)
    """
    values = ssim_map(reference, other)
    if where is None:
        return float(values.mean())
    return float(values[where].mean()) if where.any() else float("nan")


def _blur(data: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(data, (11, 11), 1.5), np.float32)
