"""Crops of what the link makes of a clip: pictures after FFmpeg's decoder, which conceals what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags
from numpy.typing import NDArray

from shared.grid import MACROBLOCK, Mask, grid_shape
from shared.picture import I420, cropped, i420_from_frame, size_of
from shared.quantisers import SIDE_DATA, quantiser_map

_PER_CROP = 60_000  # samples of a picture
_MOST_CROPS = 8
_ON_FACE = 0.6

Crop = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8], Mask, np.bool_]
"""As Pairs holds it: coded, original [2, 3 S / 2, S], quantisers [2, S / 16, S / 16], mask, whether a loss shows."""


def decoded(path: Path, wanted: set[int], lost: int | None) -> dict[int, tuple[I420, NDArray[np.uint8]]]:
    """Pictures and luma quantisers of a coded file by number, uint8 [rows, columns], as far as they are `wanted`.

    `lost`: the number of an access unit that never came: the picture before stands for it.
    """
    found: dict[int, tuple[I420, NDArray[np.uint8]]] = {}
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.options = dict(SIDE_DATA)
        stream.codec_context.flags |= Flags.low_delay | Flags.output_corrupt
        stream.thread_type = "NONE"
        latest: tuple[I420, NDArray[np.uint8]] | None = None
        for number, packet in enumerate(packet for packet in container.demux(stream) if packet.size):
            if number != lost:
                for frame in stream.codec_context.decode(packet):
                    i420 = i420_from_frame(frame)
                    rows, columns = grid_shape(*size_of(i420))
                    latest = i420, np.ascontiguousarray(quantiser_map(frame)[:rows, :columns])
            if number in wanted and latest is not None:
                found[number] = latest
            if number >= max(wanted):
                break
    return found


def crops(
    coded: dict[int, tuple[I420, NDArray[np.uint8]]],
    original: dict[int, I420],
    number: int,
    face: Mask,
    concealed: np.bool_,
    chance: np.random.Generator,
    crop: int,
) -> Iterator[Crop]:
    """Crops on the macroblock grid of picture `number` and the next, most of them on the face.

    `coded`: as `decoded` says; `face`: the mask of picture `number`; `concealed`: what the crops are told to be;
    `crop`: samples across and down. None from a picture that is smaller.
    """
    width, height = size_of(original[number])
    edge = crop // MACROBLOCK
    last_row, last_column = height // MACROBLOCK - edge, width // MACROBLOCK - edge
    if min(last_row, last_column) < 0:
        return
    on_face = np.argwhere(face)
    for _ in range(min(_MOST_CROPS, max(1, width * height // _PER_CROP))):
        if len(on_face) and chance.random() < _ON_FACE:
            row, column = on_face[chance.integers(len(on_face))] - chance.integers(1, edge, 2)
        else:
            row, column = chance.integers(last_row + 1), chance.integers(last_column + 1)
        row, column = int(np.clip(row, 0, last_row)), int(np.clip(column, 0, last_column))
        area = slice(row, row + edge), slice(column, column + edge)
        corner = row * MACROBLOCK, column * MACROBLOCK
        pair = (number, number + 1)
        yield (
            np.stack([cropped(coded[n][0], *corner, crop, crop) for n in pair]),
            np.stack([cropped(original[n], *corner, crop, crop) for n in pair]),
            np.stack([coded[n][1][area] for n in pair]),
            face[area],
            concealed,
        )
