"""How finely every macroblock of a decoded picture was coded, as FFmpeg's H.264 decoder exports it."""

from __future__ import annotations

from typing import Any, cast

import av
import numpy as np
from numpy.typing import NDArray

from shared.grid import grid_shape

SIDE_DATA = {"export_side_data": "venc_params"}
"""Options of a decoder whose frames `quantiser_map` reads."""
_BLOCK_DELTA = 16  # offset of delta_qp in struct AVVideoBlockParams: after x, y, width, height


def quantiser_map(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """Luma quantiser per macroblock, uint8 [rows, columns], from FFmpeg's AVVideoEncParams side data.

    Zeros where the decoder exported none.
    """
    found = exported_quantisers(frame)
    return np.zeros(grid_shape(frame.width, frame.height), np.uint8) if found is None else found


def exported_quantisers(frame: av.VideoFrame) -> NDArray[np.uint8] | None:
    """Luma quantiser per macroblock, 0..51 at any bit depth, uint8 [rows, columns]; None where none was exported.

    MPEG-2, MPEG-4 part 2 and VP9 export theirs on scales of their own: they count as none.
    """
    rows, columns = grid_shape(frame.width, frame.height)
    for data in cast(Any, frame.side_data):  # typed for motion vectors only
        if data.type.name != "VIDEO_ENC_PARAMS" or data.codec_type.name != "H264":
            continue
        if data.nb_blocks == rows * columns:
            raw = np.frombuffer(data, np.uint8)[data.blocks_offset :][: data.nb_blocks * data.block_size]
            blocks = raw.reshape(data.nb_blocks, data.block_size)
            delta = np.ascontiguousarray(blocks[:, _BLOCK_DELTA : _BLOCK_DELTA + 4]).view("<i4")[:, 0]
            # FFmpeg's include QpBdOffset (ITU-T H.264 equation 7-4): six for every bit beyond eight.
            deeper = 6 * (frame.format.components[0].bits - 8)
            luma: NDArray[np.uint8] = np.clip(delta + (data.qp - deeper), 0, 51).astype(np.uint8)
            return luma.reshape(rows, columns)
    return None


def coarser(qp: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luma quantisers of twice the step (ITU-T H.264 clause 8.5.8: 6 more), at most 51, uint8 of the same shape.

    For a picture that lacks what it refers to: it differs from the source by more than its quantisers tell. What
    stands out as a face still does.
    """
    return np.minimum(qp, 51 - 6) + np.uint8(6)
