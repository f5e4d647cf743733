"""Regions of interest for x264: exact quantiser offsets per region, through PyAV.

PyAV cannot create AV_FRAME_DATA_REGIONS_OF_INTEREST side data. A frame that once passed N `addroi` filters carries
N such records, though; that frame is kept and its planes, records and time stamp are overwritten for every picture.
"""

from __future__ import annotations

import ctypes
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
from numpy.typing import NDArray

from shared.grid import MACROBLOCK
from shared.picture import I420, planes

# struct AVRegionOfInterest of libavutil/frame.h; the quantiser offset is the rational numerator / denominator.
_RECORD = np.dtype(
    {
        "names": ["self_size", "top", "bottom", "left", "right", "numerator", "denominator"],
        "formats": ["<u4", *["<i4"] * 6],
    }
)
# libx264.c multiplies the offset by 51 (its quantiser range): hundredths of a quantiser step are exact.
_DENOMINATOR = 100 * 51


class RegionFrame:
    """One reused AVFrame with `records` region records for pictures of `width` x `height` (even)."""

    def __init__(self, width: int, height: int, records: int = 192) -> None:
        blank = av.VideoFrame(width, height, "yuv420p")
        blank.pts, blank.time_base = 0, Fraction(1, 30)
        self.frame = _through_filters(blank, records)
        self.frame.make_writable()
        side_data = cast(Any, self.frame.side_data)["REGIONS_OF_INTEREST"]  # typed for motion vectors only
        self._records = _bytes_at(side_data.buffer_ptr, side_data.buffer_size).view(_RECORD)
        self._planes = [_bytes_at(p.buffer_ptr, p.buffer_size).reshape(-1, p.line_size) for p in self.frame.planes]
        self._width, self._height = width, height

    def load(self, i420: I420, pts: int) -> av.VideoFrame:
        """Copy a picture in; returns the frame, ready for the encoder."""
        luma, chroma = planes(i420)
        width, height = self._width, self._height
        self._planes[0][:height, :width] = luma
        self._planes[1][: height // 2, : width // 2] = chroma[0]
        self._planes[2][: height // 2, : width // 2] = chroma[1]
        self.frame.pts = pts
        return self.frame

    def set_offsets(self, runs: NDArray[np.int32], inside: float, outside: float) -> int:
        """Quantiser offset `inside` the runs of macroblocks ([n, 3]: row, first, end) and `outside` them.

        Where regions overlap the first record wins, so the whole picture comes last. Returns how many runs had
        no record left and stay outside.
        """
        records = self._records
        kept = runs[: len(records) - 1]
        count = len(kept)
        records[:] = 0
        records["self_size"], records["denominator"] = _RECORD.itemsize, _DENOMINATOR
        records["top"][:count] = kept[:, 0] * MACROBLOCK
        records["bottom"][:count] = (kept[:, 0] + 1) * MACROBLOCK
        records["left"][:count] = kept[:, 1] * MACROBLOCK
        records["right"][:count] = kept[:, 2] * MACROBLOCK
        records["numerator"][:count] = round(inside * 100)
        records["bottom"][count], records["right"][count] = self._height, self._width
        records["numerator"][count] = round(outside * 100)
        return len(runs) - count


def _through_filters(frame: av.VideoFrame, count: int) -> av.VideoFrame:
    graph = av.filter.Graph()
    last = graph.add_buffer(
        width=frame.width, height=frame.height, format=av.VideoFormat("yuv420p"), time_base=frame.time_base
    )
    for _ in range(count):
        region = graph.add("addroi", "x=0:y=0:w=16:h=16:qoffset=0")
        last.link_to(region)
        last = region
    last.link_to(graph.add("buffersink"))
    graph.configure()
    graph.vpush(frame)
    return graph.vpull()


def _bytes_at(address: int, size: int) -> NDArray[np.uint8]:
    """A writable view on memory that the AVFrame owns; valid as long as the frame lives."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
