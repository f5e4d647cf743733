"""Whether a face is still the same person's: cosine of a face recogniser's embeddings, before and after."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.evaluation.detector import ReferenceDetector
from shared.errors import SemcallError
from shared.inference import first_line, open_session

SIDE = 112
STANDARD_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""[5, 2] x, y in the 112x112 crop: eyes, nose, corners of the mouth, left in the picture first (InsightFace)."""


class Identity:
    """Cosine similarity of a face in two pictures, -1 .. 1, higher is better; 1 is unchanged.

    `embedder`: ONNX, input float32 [n, 3, 112, 112] of R, G, B as (code - 127.5) / 128, output float32 [n, d]. What
    values mean is the embedder's: with mobilefacenet_112.onnx pictures of one person give 0.40 to 0.95, of two 0.28
    at most. `detector`: the reference detector's ONNX. Alignment and cosine as in ArcFace (Deng et al. 2019). Raises
    SemcallError when a file cannot be read or the embedder does not keep this contract.
    """

    higher_is_better = True

    def __init__(self, embedder: Path, detector: Path) -> None:
        self._detector = ReferenceDetector(detector)

        def check(session: ort.InferenceSession) -> None:
            _check(session, embedder)

        self._session, _ = open_session(embedder, "face embedder", 1, check)
        self.name = f"identity similarity ({embedder.stem})"

    def __call__(self, reference: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
        """The similarity of the largest face of `reference` and what is in the same place in `other`.

        Both uint8 [H, W, 3] of B, G, R, of one size, sample on sample: one alignment serves both, so that a detector
        that errs on a bad picture is no part of the figure. NaN where the detector finds no face in `reference`.
        Raises ValueError for unequal sizes.
        """
        if reference.shape != other.shape:
            raise ValueError(f"identity compares pictures of one size, not {reference.shape} and {other.shape}")
        points = self.landmarks(reference)
        if points is None:
            return float("nan")
        return cosine(*self.embed(np.stack([align(picture, points) for picture in (reference, other)])))

    def landmarks(self, bgr: NDArray[np.uint8]) -> NDArray[np.float64] | None:
        """Eyes, nose and corners of the mouth of the largest face, [5, 2] x, y in pixels; None without a face."""
        boxes = self._detector.find(bgr)
        if not len(boxes):
            return None
        largest = boxes[np.argmax(boxes[:, 2] * boxes[:, 3])]
        return np.asarray(largest[4:14].reshape(5, 2), np.float64)

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embeddings [n, d] of aligned crops, uint8 [n, 112, 112, 3] of B, G, R."""
        rgb = crops[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)
        name = self._session.get_inputs()[0].name
        return np.asarray(self._session.run(None, {name: (rgb - 127.5) / 128})[0], np.float32)


def cosine(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Cosine of the angle between two vectors [d], -1 .. 1; NaN where one is zero.

    >>> cosine(np.array([1, 0], np.float32), np.array([2, 0], np.float32))
    1.0
    """
    one, two = first.astype(np.float64), second.astype(np.float64)
    length = float(np.linalg.norm(one) * np.linalg.norm(two))
    return float(np.clip(one @ two / length, -1, 1)) if length else float("nan")


def align(bgr: NDArray[np.uint8], points: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The face with `points` ([5, 2], pixels) on STANDARD_POINTS: uint8 [112, 112, 3], black beyond the picture."""
    matrix = similarity_transform(points, STANDARD_POINTS)
    # Most faces in calls are larger than 112 samples: bilinear at such a scale would alias.
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if scale < 0.5:
        halved = cv2.resize(bgr, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        return align(np.asarray(halved, np.uint8), (points + 0.5) / 2 - 0.5)
    return np.asarray(cv2.warpAffine(bgr, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR), np.uint8)


def similarity_transform(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rotation, uniform scale and shift, [2, 3], that bring `source` nearest to `target`, both [n, 2] x, y.

    Least squares (Umeyama 1991, equations 40 to 42); never a reflection. Raises ValueError when all source points
    coincide.

    >>> square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    >>> similarity_transform(square, square[[1, 2, 3, 0]] * 2).tolist()
    [[0.0, -2.0, 2.0], [2.0, 0.0, 0.0]]
    """
    middle, goal = source.mean(0), target.mean(0)
    one, two = source - middle, target - goal
    spread = float((one**2).sum())
    if not spread:
        raise ValueError("five points in one place say nothing about a face")
    # In the plane the singular value decomposition of the paper comes down to two sums.
    cosine = float((one * two).sum()) / spread
    sine = float((one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]).sum()) / spread
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([turn, goal - turn @ middle])


def _check(session: ort.InferenceSession, path: Path) -> None:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    fits = len(inputs) == 1 and len(outputs) == 1 and inputs[0].type == "tensor(float)" and len(inputs[0].shape) == 4
    fits = fits and all(
        not isinstance(size, int) or size == wanted
        for size, wanted in zip(inputs[0].shape[1:], (3, SIDE, SIDE), strict=True)
    )
    found = None
    if fits:
        try:
            found = session.run(None, {inputs[0].name: np.zeros((2, 3, SIDE, SIDE), np.float32)})[0]
        except Exception as error:  # the runtime's exceptions have no common base
            raise SemcallError(f"The face embedder {path} fails on two faces: {first_line(error)}") from error
    if found is None or found.ndim != 2 or len(found) != 2:
        raise SemcallError(
            f"The face embedder {path} does not turn float [n, 3, {SIDE}, {SIDE}] into [n, d]; give one that does."
        )
