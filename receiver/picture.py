"""What the decoder hands on: a picture with its quantiser map and its times."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from shared.picture import I420, size_of


@dataclass(slots=True)
class DecodedPicture:
    """One decoded picture on its way to the window.

    `i420`: uint8 [H * 3 / 2, W]; `qp`: uint8 [rows, columns], luma quantiser per macroblock (0..51);
    `rtp_ticks`: unwrapped RTP timestamp, 90 kHz; `captured`, `arrived`, `decoded`, `shown`: Unix seconds
    (0.0 where unknown: only semcall senders say when a picture was captured);
    `restored`: the restorer's output, I420 of the same shape, or None when it was bypassed;
    `period`: seconds from one picture to the next, smoothed, 1/30 at first;
    `rung`: what the restorer had time for, or tried, when it came ("fast, whole picture", "fast, face only", "off");
    `aspect`: width of a sample by its height (H.264 clause E.2.1, sample aspect ratio).
    """

    i420: I420
    qp: NDArray[np.uint8]
    rtp_ticks: int
    keyframe: bool
    captured: float = 0.0
    arrived: float = 0.0
    decoded: float = 0.0
    shown: float = 0.0
    restored: I420 | None = field(default=None)
    restore_ms: float = 0.0
    rung: str = "off"
    stamped: bool = False
    damaged: bool = False
    aspect: Fraction = Fraction(1)
    period: float = math.inf

    @property
    def width(self) -> int:
        """Luma samples per row."""
        return size_of(self.i420)[0]

    @property
    def height(self) -> int:
        """Luma rows."""
        return size_of(self.i420)[1]

    @property
    def display_size(self) -> tuple[int, int]:
        """Width and height in square pixels."""
        return round(self.width * self.aspect), self.height

    @property
    def visible(self) -> I420:
        """What is to be shown: the restored picture where there is one."""
        return self.i420 if self.restored is None else self.restored
