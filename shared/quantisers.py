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
    rows, columns = grid_shape(frame.width, frame.height)
    for data in cast(Any, frame.side_data):  # typed for motion vectors only
        if data.type.name == "VIDEO_ENC_PARAMS" and data.nb_blocks == rows * columns:
            raw = np.frombuffer(data, np.uint8)[data.blocks_offset :][: data.nb_blocks * data.block_size]
            blocks = raw.reshape(data.nb_blocks, data.block_size)
            delta = np.ascontiguousarray(blocks[:, _BLOCK_DELTA : _BLOCK_DELTA + 4]).view("<i4")[:, 0]
            return np.asarray(delta + data.qp, np.uint8).reshape(rows, columns)
    return np.zeros((rows, columns), np.uint8)
