"""Crops of what the link makes of a clip, beside the original's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from shared.grid import MACROBLOCK, Mask
from shared.picture import I420, cropped, size_of

_PER_CROP = 60_000  # samples of a picture
_MOST_CROPS = 8
_ON_FACE = 0.6

Crop = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8], Mask, np.bool_]
"""As Pairs holds it: coded, original [2, 3 S / 2, S], quantisers [2, S / 16, S / 16], mask, whether a loss shows."""


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
