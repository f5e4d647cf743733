"""A picture between threads: 8-bit I420 in one array, with the time at which it was taken.

The array has the layout that PyAV and OpenCV both use: uint8 [height * 3 / 2, width], C-contiguous, the luma
plane followed by U and V at half size. Width and height are even. Colours are BT.601, limited range, everywhere
inside semcall; capture converts to it and the stream says so.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import cast

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from numpy.typing import NDArray

CLOCK_RATE = 90_000
"""Ticks per second of video RTP timestamps (RFC 6184 section 8.1)."""

I420 = NDArray[np.uint8]

_KEPT = (2, 5, 6)  # H.273 MatrixCoefficients: unspecified, BT.470BG, SMPTE 170M: the last two are BT.601


def now_ticks() -> int:
    """The time now in 90 kHz ticks since the Unix epoch."""
    return time.time_ns() * 9 // 100_000


@dataclass(frozen=True, slots=True)
class Picture:
    """One captured picture.

    `i420`: uint8 [height * 3 / 2, width]; `ticks`: when it was taken, 90 kHz ticks since the Unix epoch;
    `index`: position in its source (frame number of a file, counter of a camera).
    """

    i420: I420
    ticks: int
    index: int

    @property
    def width(self) -> int:
        """Luma samples per row."""
        return size_of(self.i420)[0]

    @property
    def height(self) -> int:
        """Luma rows."""
        return size_of(self.i420)[1]


def size_of(i420: I420) -> tuple[int, int]:
    """Width and height of an I420 array in luma samples."""
    rows, width = i420.shape
    return width, rows * 2 // 3


def planes(i420: I420) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Views on an I420 array: luma [H, W] and chroma [2, H/2, W/2]."""
    width, height = size_of(i420)
    return i420[:height], i420[height:].reshape(2, height // 2, width // 2)


def joined(luma: NDArray[np.uint8], *chroma: NDArray[np.uint8]) -> I420:
    """A new I420 array of luma [H, W] and chroma, [2, H/2, W/2] or its two planes."""
    return np.concatenate([plane.ravel() for plane in (luma, *chroma)]).reshape(-1, luma.shape[1])


def cropped(i420: I420, top: int, left: int, height: int, width: int) -> I420:
    """A piece of an I420 array as a new one: `height` x `width` luma samples or what is there of them; all even."""
    luma, chroma = planes(i420)
    luma = luma[top : top + height, left : left + width]
    chroma = chroma[:, top // 2 : (top + height) // 2, left // 2 : (left + width) // 2]
    return joined(luma, chroma)


def i420_from_frame(frame: av.VideoFrame, width: int | None = None, height: int | None = None) -> I420:
    """Any decoded frame as an I420 array, BT.601 limited range, scaled to an even `width` x `height` if given.

    Untagged YUV keeps its values. An odd size is scaled to the even one below it: 4:2:0 has no half samples.
    """
    width, height = width or frame.width & ~1, height or frame.height & ~1
    if (
        frame.format.name == "yuv420p"
        and frame.colorspace in _KEPT
        and frame.color_range != ColorRange.JPEG
        and (frame.width, frame.height) == (width, height)
    ):
        return cast(I420, frame.to_ndarray())
    smaller = width * height < frame.width * frame.height
    frame = frame.reformat(
        width,
        height,
        "yuv420p",
        dst_colorspace=Colorspace.ITU601,
        dst_color_range=ColorRange.MPEG,
        interpolation=Interpolation.AREA if smaller else Interpolation.BICUBIC,
        threads=1,
    )
    return cast(I420, frame.to_ndarray())


def letterboxed(i420: I420, width: int, height: int) -> I420:
    """A picture of any size as uint8 [height * 3 / 2, width]: scaled to fit, black bars around it.

    `width` and `height` are even. A picture that already has the size is returned as it is.
    """
    own_width, own_height = size_of(i420)
    if (own_width, own_height) == (width, height):
        return i420
    scale = min(width / own_width, height / own_height)
    inner_width = min(width, max(2, round(own_width * scale) & ~1))
    inner_height = min(height, max(2, round(own_height * scale) & ~1))
    left, top = (width - inner_width) // 4 * 2, (height - inner_height) // 4 * 2
    canvas = np.full((height * 3 // 2, width), 128, np.uint8)
    canvas[:height] = 16  # black in limited range
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    (luma, chroma), (luma_out, chroma_out) = planes(i420), planes(canvas)
    luma_out[top : top + inner_height, left : left + inner_width] = cv2.resize(
        luma, (inner_width, inner_height), interpolation=how
    )
    for plane, out in zip(chroma, chroma_out, strict=True):
        out[top // 2 : (top + inner_height) // 2, left // 2 : (left + inner_width) // 2] = cv2.resize(
            plane, (inner_width // 2, inner_height // 2), interpolation=how
        )
    return canvas


def bgra_from_i420(i420: I420) -> NDArray[np.uint8]:
    """uint8 [H, W, 4], B G R A in memory: what Qt calls RGB32 on little-endian machines."""
    return cast(NDArray[np.uint8], cv2.cvtColor(i420, cv2.COLOR_YUV2BGRA_I420))


def bgr_from_i420(i420: I420) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] for OpenCV's writers and drawing."""
    return cast(NDArray[np.uint8], cv2.cvtColor(i420, cv2.COLOR_YUV2BGR_I420))


def i420_from_bgr(bgr: NDArray[np.uint8]) -> I420:
    """The reverse of `bgr_from_i420`; odd sizes lose their last row or column."""
    height, width = bgr.shape[:2]
    even = np.ascontiguousarray(bgr[: height & ~1, : width & ~1])
    return cast(I420, cv2.cvtColor(even, cv2.COLOR_BGR2YUV_I420))


def shrunk(plane: NDArray[np.uint8], size: tuple[int, int], exact: bool = False) -> NDArray[np.uint8]:
    """A plane uint8 [H, W], or planes [H, W, n], at another width and height.

    By the mean of the area, or nearly where it is not to be `exact`; enlarged where it is smaller.
    """
    # Halving is far the fastest in OpenCV: 4:1 in two steps costs an eighth of one, odd ratios after it a third. What
    # is left below 2:1 leaves no sample out between its neighbours, and costs a fifth of a true mean.
    height, width = plane.shape[:2]
    while width % 2 == height % 2 == 0 and width >= 2 * size[0] and height >= 2 * size[1]:
        height, width = height // 2, width // 2
        plane = _resized(plane, (width, height))
    return plane if (width, height) == size else _resized(plane, size, exact)


def _resized(plane: NDArray[np.uint8], size: tuple[int, int], exact: bool = False) -> NDArray[np.uint8]:
    height, width = plane.shape[:2]
    smaller = size[0] <= width and size[1] <= height
    how = cv2.INTER_AREA if smaller and (exact or width >= 2 * size[0] or height >= 2 * size[1]) else cv2.INTER_LINEAR
    # A quoted type: NumPy takes a hundredth of a millisecond to spell one out, several times a picture.
    return cast("NDArray[np.uint8]", cv2.resize(plane, size, interpolation=how))
