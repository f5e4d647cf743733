"""BRISQUE (Mittal, Moorthy, Bovik 2012): how unlike a natural photograph a picture's statistics are, no reference.

The implementation is semcall's own of the variant in OpenCV's quality module (opencv_contrib, qualitybrisque.cpp),
and the model is that module's brisque_model_live.yml, trained on LIVE release 2 with it: another variant of the
features needs another model. Published scales differ: with the authors' release, scikit-video, piq, pyiqa or pip's
`brisque` the same picture scores up to tens of points elsewhere, so only values of one implementation compare.
"""

from __future__ import annotations

import hashlib
import math
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.errors import SemcallError

MODEL = "brisque_model_live.yml"
RANGE = "brisque_range_live.yml"
SHA256 = {
    MODEL: "4c44c7eec9e5139830c0bb0e4a044c9cd351ba5bbc9e3798beca3243e2782ff4",
    RANGE: "a18427f4f7ad087524bd0d63389649a3899b51ca6d44a4d5f8d8171f1f914a9c",
}
"""Of the files as opencv_contrib has them under modules/quality/samples."""
LEAST = 16
"""Samples across and down that a picture must have: half of it has to hold the window of seven."""

_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (-1, 1))  # down, right: horizontal, vertical, both diagonals
_FLAT = np.float32(1 / 255)  # the paper's C = 1 for codes of 0 .. 255 (equation 1)


class Brisque:
    """The score, 0 (natural) .. 100 (distorted), lower is better; clipped there, as OpenCV does.

    `data`: directory that holds brisque_model_live.yml and brisque_range_live.yml, or holds a directory `weights`
    with them. Raises SemcallError when one is missing or another file than OpenCV's.

    Calling it with a picture, uint8 [H, W, 3] of B, G, R or [H, W] of full-range grey, gives a float; NaN for a
    picture with no texture at all. Raises ValueError for other types, SemcallError below 16x16.
    """

    higher_is_better = False
    name = "BRISQUE (OpenCV's variant and LIVE model)"

    def __init__(self, data: Path) -> None:
        folder = data if (data / MODEL).exists() else data / "weights"
        for name, digest in SHA256.items():
            _verify(folder / name, digest)
        self._model = cv2.ml.SVM.load(str(folder / MODEL))
        storage = cv2.FileStorage(str(folder / RANGE), cv2.FILE_STORAGE_READ)
        self._low, self._high = storage.getNode("range").mat()
        storage.release()

    def __call__(self, picture: NDArray[np.uint8]) -> float:
        """The score of one picture."""
        values = features(picture)
        if not np.isfinite(values).all():
            return float("nan")
        scaled = 2 * (values - self._low) / (self._high - self._low) - 1  # section III-B: features to -1 .. 1
        score = float(self._model.predict(scaled[None].astype(np.float32))[1][0, 0])
        return min(100.0, max(0.0, score))


def features(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The 36 features of a picture, float32 [36]: 18 at its own scale, 18 at half of it (section III-A, table I).

    Of each scale: shape and variance of the normalised luminance, then for pairs of neighbours (horizontal, vertical,
    two diagonals) shape, mean, left and right variance of their products. `picture`: uint8 [H, W, 3] of B, G, R or
    [H, W]. Not finite for a picture with no texture. Raises as `Brisque` does.

    >>> noise = np.random.default_rng(0).normal(128, 20, (64, 64)).astype(np.uint8)
    >>> values = features(noise)
    >>> values.shape, 2 < values[0] < 10  # flatter than a Gaussian's 2: every window is scaled by its own deviation
    ((36,), np.True_)
    """
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or picture.shape[2:] not in ((), (3,)):
        raise ValueError(f"BRISQUE takes uint8 [H, W] or [H, W, 3], not {picture.dtype} {list(picture.shape)}")
    height, width = picture.shape[:2]
    if min(height, width) < LEAST:
        raise SemcallError(f"BRISQUE cannot judge {width}x{height}; give a picture of at least {LEAST}x{LEAST}.")
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY) if picture.ndim == 3 else picture
    # float32 and the borders as OpenCV has them: rounding decides the sign of nearly flat samples.
    full = grey.astype(np.float32) * np.float32(1 / 255)
    half = cv2.resize(full, (width // 2, height // 2), interpolation=cv2.INTER_CUBIC)
    return np.concatenate([_of_scale(full), _of_scale(np.asarray(half, np.float32))])


def _of_scale(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    mean = _window(grey)
    variance = _window(grey * grey) - mean * mean
    normalised = np.asarray((grey - mean) / (np.sqrt(np.maximum(variance, 0)) + _FLAT), np.float32)  # equation 1
    # Below zero by rounding, in flat windows, whose samples would count by the sign of noise. OpenCV drops them too.
    normalised[variance < 0] = 0
    shape, left, right = _fit(normalised)
    values = [shape, (left**2 + right**2) / 2]
    for down, right_by in _NEIGHBOURS:
        shape, left, right = _fit(normalised * _moved(normalised, down, right_by))
        values += [shape, _mean(shape, left, right), left**2, right**2]
    return np.array(values, np.float32)


def _window(data: NDArray[np.float32]) -> NDArray[np.float32]:
    blurred = cv2.GaussianBlur(data, (7, 7), 7 / 6, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(blurred, np.float32)


def _moved(data: NDArray[np.float32], down: int, right: int) -> NDArray[np.float32]:
    """The neighbour of every sample, 0 where it lies outside."""
    padded = np.pad(data, 1)
    height, width = data.shape
    return padded[1 + down : 1 + down + height, 1 + right : 1 + right + width]


def _fit(data: NDArray[np.float32]) -> tuple[float, float, float]:
    """Shape, left and right deviation of an asymmetric generalised Gaussian by moments (equations 7 to 9).

    After Lasmar, Stitou and Berthoumieu (2009). All NaN unless there are values of both signs.
    """
    values = data.astype(np.float64).ravel()
    negative, positive = values[values < 0], values[values > 0]
    if not len(negative) or not len(positive):
        return math.nan, math.nan, math.nan
    left, right = (math.sqrt(float(np.mean(side**2))) for side in (negative, positive))
    ratio = left / right
    rho = float(np.abs(values).mean()) ** 2 / float(np.mean(values**2))
    wanted = rho * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shapes, rhos = _table()
    after = min(int(np.searchsorted(rhos, wanted)), len(rhos) - 1)
    nearest = after - 1 if after and wanted - rhos[after - 1] <= rhos[after] - wanted else after
    return float(shapes[nearest]), left, right


def _mean(shape: float, left: float, right: float) -> float:
    """Mean of the fitted distribution (equation 10)."""
    if math.isnan(shape):
        return math.nan
    one, two, three = (math.gamma(n / shape) for n in (1, 2, 3))
    return (right - left) * two / one * math.sqrt(one / three)


@cache
def _table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shapes 0.2 .. 10 in steps of 0.001 and their gamma(2/s)^2 / (gamma(1/s) gamma(3/s)), which rises with them."""
    shapes = 0.2 + 0.001 * np.arange(9801, dtype=np.float64)
    one, two, three = (np.array([math.gamma(n / shape) for shape in shapes]) for n in (1, 2, 3))
    return shapes, np.asarray(two**2 / (one * three), np.float64)


def _verify(path: Path, digest: str) -> None:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SemcallError(
            f"BRISQUE's file {path} cannot be read; put OpenCV's {path.name} (opencv_contrib, quality samples) there."
        ) from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise SemcallError(
            f"{path} is another file than OpenCV's {path.name}, and scores on other models do not compare; get it "
            "from opencv_contrib, quality samples."
        )
