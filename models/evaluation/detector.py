"""A face detector with five landmarks, as reference: it places training crops and judges masks, no call uses it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.errors import SemcallError

SIDE = 640
FILE = "yunet_n_640_640.onnx"

Boxes = NDArray[np.float32]
"""[n, 15]: left, top, width, height, five landmarks (x, y: eyes, nose, corners of the mouth), score; pixels."""


class ReferenceDetector:
    """YuNet (Wu et al. 2023) at 640x640, run by OpenCV. Raises SemcallError when `model` cannot be read.

    `score`: least confidence of a box, 0..1.
    """

    def __init__(self, model: Path, score: float = 0.6) -> None:
        if not model.is_file():
            raise SemcallError(f"The reference detector {model} is missing; name the data directory with --data.")
        try:
            self._net = cv2.FaceDetectorYN.create(str(model), "", (SIDE, SIDE), score, 0.3, 50)
        except cv2.error as error:
            raise SemcallError(f"The reference detector {model} is damaged; get it again.") from error

    def find(self, bgr: NDArray[np.uint8]) -> Boxes:
        """Faces in a picture uint8 [H, W, 3], in its own pixels; [0, 15] when there are none."""
        height, width = bgr.shape[:2]
        scale = SIDE / max(height, width)
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        small = cv2.resize(bgr, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=how)
        square = np.zeros((SIDE, SIDE, 3), np.uint8)
        square[: small.shape[0], : small.shape[1]] = small
        found = self._net.detect(square)[1]
        if found is None:
            return np.zeros((0, 15), np.float32)
        boxes = found.astype(np.float32)
        boxes[:, :14] /= scale
        return boxes
