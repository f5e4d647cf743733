"""What the decoder hands on: a picture with its quantiser map and its times."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shared.picture import I420


@dataclass(slots=True)
class DecodedPicture:
    """One decoded picture on its way to the window.

    `i420`: uint8 [H * 3 / 2, W]; `qp`: uint8 [rows, columns], luma quantiser per macroblock (0..51);
    `rtp_ticks`: unwrapped RTP timestamp, 90 kHz; `captured`, `arrived`, `decoded`, `shown`: Unix seconds
    (0.0 where unknown: only semcall senders say when a picture was captured);
    `restored`: the restorer's output, I420 of the same shape, or None when it was bypassed.
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
    stamped: bool = False
    damaged: bool = False

    @property
    def width(self) -> int:
        """Luma samples per row."""
        return int(self.i420.shape[1])

    @property
    def height(self) -> int:
        """Luma rows."""
        return int(self.i420.shape[0]) * 2 // 3

    @property
    def visible(self) -> I420:
        """What is to be shown: the restored picture where there is one."""
        return self.i420 if self.restored is None else self.restored
