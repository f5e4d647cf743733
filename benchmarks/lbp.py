"""The face finder that the parser replaced: a baseline, as it was. Needs scikit-image for the cascade's file."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.grid import MACROBLOCK, Mask, grid_shape
from shared.picture import Picture, planes

Box = tuple[float, float, float, float]
"""Left, top, width, height in luma samples of the full picture."""

_DETECTION_WIDTH = 320  # longer side of what the cascade sees: 10-25 ms on one core
_SMALLEST_FACE = 24  # the cascade's window, in samples of that small picture
_SUPERSAMPLING = 4  # the oval is drawn on a grid this much finer than macroblocks, then thresholded
_COVERED = 0.25  # a macroblock is face from this coverage on: better a little wide than a cut chin


class LbpFaceDetector:
    """scikit-image's frontal face cascade (local binary patterns), run by OpenCV."""

    def __init__(self) -> None:
        from skimage.data import lbp_frontal_face_cascade_filename

        text = Path(lbp_frontal_face_cascade_filename()).read_text()
        # The file's "featuhreParams" is a slip that makes OpenCV refuse it.
        text = text.replace("featuhreParams", "featureParams")
        storage = cv2.FileStorage(text, cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)
        self._cascade = cv2.CascadeClassifier()
        if not self._cascade.read(storage.getFirstTopLevelNode()):
            raise RuntimeError("scikit-image's face cascade cannot be read by this OpenCV")

    def detect(self, luma: NDArray[np.uint8]) -> list[Box]:
        """Faces in a luma plane [H, W], largest first."""
        height, width = luma.shape
        scale = min(1.0, _DETECTION_WIDTH / max(width, height))
        small = cv2.resize(luma, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        found = self._cascade.detectMultiScale(small, 1.1, 3, 0, (_SMALLEST_FACE, _SMALLEST_FACE))
        boxes = [tuple(float(v) / scale for v in box) for box in found]
        return sorted(boxes, key=lambda box: -box[2])


def oval_and_neck(boxes: list[Box], width: int, height: int) -> Mask:
    """The macroblocks under each box's face oval and neck: bool [rows, columns].

    The cascade's square spans brows to chin; the oval reaches up to the hairline and down past the chin.
    """
    rows, columns = grid_shape(width, height)
    canvas = np.zeros((rows * _SUPERSAMPLING, columns * _SUPERSAMPLING), np.uint8)
    unit = _SUPERSAMPLING / MACROBLOCK
    for left, top, side, tall in boxes:
        x, y = (left + side / 2) * unit, (top + tall / 2) * unit
        axes = (round(0.46 * side * unit), round(0.62 * tall * unit))
        cv2.ellipse(canvas, (round(x), round(y)), axes, 0, 0, 360, 1, -1)
        neck = (round(x - 0.27 * side * unit), round(y + 0.4 * tall * unit))
        chest = (round(x + 0.27 * side * unit), round(y + 0.80 * tall * unit))
        cv2.rectangle(canvas, neck, chest, 1, -1)
    coverage = cv2.resize(canvas.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
    return coverage >= _COVERED


class FaceTracker:
    """Steadies detections over time: smooths a face's box, keeps it through short misses."""

    def __init__(self, patience: int = 8, smoothing: float = 0.5) -> None:
        """`patience`: detections that may miss a face before it is let go; `smoothing`: weight of the old box."""
        self._patience, self._smoothing = patience, smoothing
        self._faces: list[tuple[Box, int]] = []

    def update(self, found: list[Box]) -> list[Box]:
        """The faces in view after one more detection."""
        kept: list[tuple[Box, int]] = []
        fresh = list(found)
        for box, missed in self._faces:
            match = next((other for other in fresh if _overlap(box, other) > 0.3), None)
            if match is None:
                if missed + 1 < self._patience:
                    kept.append((box, missed + 1))
                continue
            fresh.remove(match)
            # A still face must not tremble with the cascade; a moving one must not trail.
            weight = self._smoothing if _overlap(box, match) > 0.75 else 0.0
            smooth = tuple(weight * old + (1 - weight) * new for old, new in zip(box, match, strict=True))
            kept.append((smooth, 0))  # type: ignore[arg-type]
        self._faces = kept + [(box, 0) for box in fresh]
        return [box for box, _ in self._faces]


def _overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    wide = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    tall = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    if wide <= 0 or tall <= 0:
        return 0.0
    return wide * tall / (one[2] * one[3] + other[2] * other[3] - wide * tall)


class LbpSegmenter:
    """The cascade at every fifth picture and its tracker, as calls had it."""

    def __init__(self, every: int = 5) -> None:
        self._detector, self._tracker, self._every = LbpFaceDetector(), FaceTracker(), every
        self._seen = 0
        self._mask: Mask | None = None
        self.milliseconds: dict[str, float] = {}

    def mask(self, picture: Picture) -> Mask:
        """Bool [rows, columns] of macroblocks."""
        self.milliseconds = {}
        if self._mask is None or self._seen % self._every == 0:
            start = time.perf_counter()
            boxes = self._tracker.update(self._detector.detect(planes(picture.i420)[0]))
            self._mask = oval_and_neck(boxes, picture.width, picture.height)
            self.milliseconds["network"] = (time.perf_counter() - start) * 1e3
        self._seen += 1
        return self._mask
