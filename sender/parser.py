"""Runs a face parser on pictures: a network that says of every spot what it shows.

The contract, version 1: `rgb` uint8 [1, 3, h, w] goes in, `logits` float32 [1, C, h', w'] over the same picture come
out, h' >= ceil(h/4) and w' >= ceil(w/4), one of C exclusive classes per spot by softmax. The card names them in the
order of the channels: `"classes": ["background", "face", ...]`; `"regions": {"face": ["face"], ...}` are what may be
asked for; `"input": {"pixels": 57600, "multiple": 4}` gives the area to which a picture is scaled, aspect kept as
far as the multiples that its sides are of allow.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from sender.geometry import small_size
from shared.contracts import check_choice, check_session
from shared.errors import SemcallError
from shared.inference import first_line, open_session
from shared.picture import I420, planes, shrunk

# Limited-range BT.601 (ITU-R BT.601-7 section 2.5) to R G B.
_RGB_OF_YUV = np.array([[1.164384, 0.0, 1.596027], [1.164384, -0.391762, -0.812968], [1.164384, 2.017232, 0.0]])
_YUV_TO_RGB = np.column_stack([_RGB_OF_YUV, _RGB_OF_YUV @ [-16, -128, -128]])


@dataclass(frozen=True, slots=True)
class FaceOptions:
    """Which parser finds the face. `model`: ONNX file, None for none; `card`: that file's card; `region`: of it."""

    model: Path | None = None
    card: Mapping[str, Any] = field(default_factory=dict)
    region: str = "face"

    def open(self, threads: int = 1) -> FaceParser | None:
        """The parser, None where there is none. Raises SemcallError as `FaceParser` does."""
        return None if self.model is None else FaceParser(self.model, self.card, self.region, threads)


class FaceParser:
    """One network, ready to run. Not for use by two threads at once.

    `card`: the model's card; `region`: what of its regions to look for; `threads`: CPU threads of one run. Raises
    SemcallError when the file cannot be read, is no ONNX model, has no card, lacks the region or does not keep the
    contract.
    """

    def __init__(
        self, path: str | os.PathLike[str], card: Mapping[str, Any], region: str = "face", threads: int = 1
    ) -> None:
        path = Path(path)
        check_choice(path, card, region)
        self.name = path.stem
        self.last_ms = 0.0
        """Milliseconds that the last `probabilities` took."""
        called = f"The face parser {path}"
        self._wanted = [card["classes"].index(name) for name in card["regions"][region]]
        self._pixels, self._multiple = card["input"]["pixels"], card["input"]["multiple"]
        self._session, self.device = open_session(
            path, "face parser", threads, lambda session: check_session(session, "face-parser", card, called)
        )

    def small_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height at which the network sees a picture of `width` x `height`."""
        return small_size(width, height, self._pixels, self._multiple)

    def probabilities(self, i420: I420) -> NDArray[np.float32]:
        """How likely each spot shows the region, 0..1: float32 [h', w'], equal cells over the whole picture.

        `i420`: uint8 [H * 3 / 2, W]. Raises SemcallError when the network fails or gives NaN or infinity.
        """
        start = time.perf_counter()
        luma, chroma = planes(i420)
        size = self.small_size(luma.shape[1], luma.shape[0])
        try:
            logits = _run(self._session, _rgb(luma, chroma, size))
        except Exception as error:  # the runtime's exceptions have no common base
            raise SemcallError(f"The face parser {self.name} failed: {first_line(error)}") from error
        odds = np.exp(logits - logits.max(axis=0))
        found: NDArray[np.float32] = odds[self._wanted].sum(axis=0) / odds.sum(axis=0)
        if not np.isfinite(found).all():  # a mask would never get rid of it
            raise SemcallError(
                f"The face parser {self.name} gives numbers that are none; check it with another file."
            )
        self.last_ms = (time.perf_counter() - start) * 1e3
        return found


def _rgb(luma: NDArray[np.uint8], chroma: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """uint8 [1, 3, h, w]. Planes are shrunk first and converted then: a sixteenth of the work at 1280x720."""
    half = chroma.shape[2], chroma.shape[1]
    if half[0] >= size[0] and half[1] >= size[1]:  # the same, and a seventh quicker in one go
        small = shrunk(_merged([shrunk(luma, half), chroma[0], chroma[1]]), size)
    else:
        small = _merged([shrunk(luma, size), shrunk(chroma[0], size), shrunk(chroma[1], size)])
    rgb = np.empty((1, 3, size[1], size[0]), np.uint8)
    cv2.split(cv2.transform(small, _YUV_TO_RGB), list(rgb[0]))
    return rgb


def _merged(planes: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return cast("NDArray[np.uint8]", cv2.merge(planes))


def _run(session: ort.InferenceSession, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits [C, h', w']."""
    logits: NDArray[np.float32] = session.run(["logits"], {"rgb": rgb})[0][0]
    return logits
