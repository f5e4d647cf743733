"""The demo source: a real face in motion that needs no camera and no download.

NASA's portrait of the astronaut Eileen Collins (astronaut.png, 512x512, public domain as a work of the United States
government) under smooth pan, zoom and rotation, with sensor noise. Every picture follows from its index alone, so
that anyone can make the same one again.
"""

from __future__ import annotations

import math
from functools import cached_property
from importlib.resources import files
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.picture import I420, i420_from_bgr, planes

_FACE = (222.0, 118.0)  # centre of the face in the photograph, pixels
_NOISE_SIGMA = 2.0  # code values: a webcam indoors
_NOISE_FIELDS = 7  # enough that no two neighbours repeat


def photograph() -> NDArray[np.uint8]:
    """The portrait: uint8 [512, 512, 3], B G R."""
    content = np.frombuffer(files("shared").joinpath("astronaut.png").read_bytes(), np.uint8)
    return cast(NDArray[np.uint8], cv2.imdecode(content, cv2.IMREAD_COLOR))


class AstronautClip:
    """`picture(index)` is the I420 picture at index / fps seconds. `size`: width, height (even)."""

    def __init__(self, size: tuple[int, int] = (1280, 720), fps: float = 30.0) -> None:
        self.size = size[0] & ~1, size[1] & ~1
        self.fps = fps

    def picture(self, index: int) -> I420:
        """uint8 [height * 3 / 2, width], BT.601 limited range; the same for the same index."""
        width, height = self.size
        luma, chroma = self._photo
        matrix = self._view(index / self.fps)
        out = np.empty((height * 3 // 2, width), np.uint8)
        out_luma, out_chroma = planes(out)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        warped = cv2.warpAffine(luma, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
        noise = self._noise[index % _NOISE_FIELDS]
        cv2.add(warped, noise, dst=out_luma, dtype=cv2.CV_8U)
        half = matrix.copy()
        half[:, 2] = (matrix[:, 2] + 0.5 * (matrix[:, 0] + matrix[:, 1]) - 0.5) / 2  # sample centres of 4:2:0
        for plane, target in zip(chroma, out_chroma, strict=True):
            cv2.warpAffine(
                plane,
                half,
                (width // 2, height // 2),
                dst=target,
                flags=flags,
                borderMode=cv2.BORDER_REFLECT_101,
            )
        return out

    @cached_property
    def _photo(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        return planes(i420_from_bgr(photograph()))

    @cached_property
    def _noise(self) -> list[NDArray[np.int16]]:
        generator = np.random.default_rng(2020)
        width, height = self.size
        shape = (_NOISE_FIELDS, height, width)
        return list(np.rint(generator.normal(0, _NOISE_SIGMA, shape)).astype(np.int16))

    def _view(self, seconds: float) -> NDArray[np.float64]:
        """The affine map from picture to photograph: somebody who moves a little before a laptop."""
        width, height = self.size
        zoom = math.sqrt(width * height / (430 * 242)) * (1 + 0.07 * math.sin(0.9 * seconds))
        angle = math.radians(2.5 * math.sin(1.3 * seconds))
        centre = (
            _FACE[0] + 22 + 9 * math.sin(1.1 * seconds) + 1.5 * math.sin(5.1 * seconds),
            _FACE[1] + 12 + 5 * math.sin(1.7 * seconds),
        )
        cosine, sine = math.cos(angle) / zoom, math.sin(angle) / zoom
        matrix = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0]])
        matrix[:, 2] = np.array(centre) - matrix[:, :2] @ np.array([width / 2, height / 2])
        return matrix
