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

from shared.grid import MACROBLOCK, Mask, row_runs
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


def rectangles(mask: Mask) -> NDArray[np.int32]:
    """The macroblocks of a mask (bool [rows, columns]) as rectangles that do not overlap, largest first.

    Equal horizontal runs in consecutive rows become one. Returns int32 [n, 4]: first row, row after the last, first
    column, column after the last.
    """
    runs = row_runs(mask)
    if not len(runs):
        return np.zeros((0, 4), np.int32)
    row, first, end = runs.T.astype(np.int64)
    # One number for each run, one more where it stands right below its like.
    height, width = mask.shape[0] + 1, mask.shape[1] + 1
    order = np.argsort((first * width + end) * height + row)
    row, first, end = row[order], first[order], end[order]
    place = (first * width + end) * height + row
    begins = np.flatnonzero(np.append(True, place[1:] != place[:-1] + 1))
    lasts = np.append(begins[1:], len(row)) - 1
    top, bottom, first, end = row[begins], row[lasts] + 1, first[begins], end[begins]
    order = np.argsort(((top - bottom) * (end - first) * height + top) * width + first)
    return np.stack([top, bottom, first, end], axis=1)[order].astype(np.int32)


class RegionFrame:
    """One reused AVFrame with `records` region records for pictures of `width` x `height` (even)."""

    def __init__(self, width: int, height: int, records: int = 192) -> None:
        self.capacity = records - 1
        """How many regions fit besides the whole picture."""
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

    def set_offsets(self, regions: NDArray[np.int32], inside: float, outside: float) -> None:
        """Quantiser offset `inside` the rectangles of macroblocks ([n, 4], see `rectangles`) and `outside` them.

        Where regions overlap the first record wins, so the whole picture comes last. Raises ValueError for more
        than `capacity` rectangles.
        """
        records = self._records
        count = len(regions)
        if count > self.capacity:
            raise ValueError(f"{count} regions, but {self.capacity} records")
        records[:] = 0
        records["self_size"], records["denominator"] = _RECORD.itemsize, _DENOMINATOR
        for place, name in enumerate(("top", "bottom", "left", "right")):
            records[name][:count] = regions[:, place] * MACROBLOCK
        records["numerator"][:count] = round(inside * 100)
        records["bottom"][count], records["right"][count] = self._height, self._width
        records["numerator"][count] = round(outside * 100)


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
