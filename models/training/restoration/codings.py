"""What the sender's encoder and a link make of one clip or portrait: codings as calls have them, and crops of them.

Clips go through the encoder of the call at rates and shares that a call has, with keyframes and with lost access
units, and back through FFmpeg's decoder, which conceals what is missing and exports the quantisers. Crops are taken
of two successive pictures, so that a training can see flicker.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import numpy as np

from models.evaluation.study.coding import read_masks, stats_path
from models.evaluation.study.measure import decoded
from models.evaluation.study.protocol import target_kbps
from models.training.restoration.crops import Crop, crops
from models.training.restoration.cuts import write_cut
from models.training.restoration.looks import write_look
from models.training.restoration.moving import write_moving
from shared.clips import Clip, fitted
from shared.encode import Encode, ShareMode
from shared.grid import MACROBLOCK

_LOSSY = 0.3  # of the codings
_AFTER_LOSS = 12  # pictures among which concealed ones are sought
_LEAST_SIDE = 272

_MODES: tuple[ShareMode, ...] = get_args(ShareMode)


@dataclass(frozen=True, slots=True)
class Order:
    """A clip or portrait and what is wanted of it.

    `detector`: for a portrait, the weights that find its faces; `codings`: of up to `seconds`, of its beginning as it
    is or, with `looks`, of a piece from anywhere in another look each; `cuts`: more of them, cut to `other`, a clip
    of somebody else, where there is one; `crop`: samples of a crop across and down; `pictures`: that are cropped of
    each coding, with the ones right after.
    """

    path: Path
    detector: Path | None
    other: Path | None
    codings: int
    cuts: int
    seconds: float
    crop: int
    pictures: int
    looks: bool


def coded_crops(order: Order, encode: Encode, chance: np.random.Generator) -> Iterator[Crop]:
    """Crops of all codings that are ordered. Raises SemcallError for what cannot be read or coded."""
    with TemporaryDirectory() as folder:
        clip, look, cut = order.path, Path(folder) / "look.mp4", Path(folder) / "cut.mp4"
        if order.detector is not None:
            clip = Path(folder) / "moving.mp4"
            write_moving(order.path, order.detector, clip, order.seconds, chance)
        for _ in range(order.codings):
            if order.looks:
                write_look(clip, look, order.seconds, chance)
            yield from _coding(order, look if order.looks else clip, encode, chance)
        if order.other is not None:
            write_cut(clip, order.other, cut, order.seconds)
            for _ in range(order.cuts):
                yield from _coding(order, cut, encode, chance)


def _coding(order: Order, path: Path, encode: Encode, chance: np.random.Generator) -> Iterator[Crop]:
    """Crops of one coding of a clip, at a rate and share as calls have them."""
    width, height = Clip(path).size
    # Most clips are soft and already compressed once; made smaller they are as sharp as a camera's picture.
    least = max(_LEAST_SIDE, order.crop + MACROBLOCK)
    shrink = max(float(chance.choice([1.0, 0.75, 0.5])), min(1.0, least / min(width, height)))
    size = fitted((width, height), (round(max(width, height) * shrink), round(min(width, height) * shrink)))
    kbps = target_kbps(float(np.exp(chance.uniform(np.log(200), np.log(800)))), size)
    share = float(chance.choice([0, 0.1, 0.15, 0.15, 0.2, 0.25, 0.3, 0.45]))
    mode = _MODES[chance.integers(2)]
    with TemporaryDirectory() as folder:
        out = Path(folder) / "coded.mp4"
        interval = float(chance.choice([1.5, 30.0]))
        encode(
            path, out, stats_path(out), kbps * 1e3, share, order.seconds,
            mode=mode, size=size, keyframe_interval=interval,
        )  # fmt: skip
        masks = read_masks(stats_path(out))
        lost = int(chance.integers(3, max(4, len(masks) - 3))) if chance.random() < _LOSSY else None
        numbers = _chosen(len(masks), order.pictures, lost, chance)
        if not numbers:
            return
        wanted = {number + step for number in numbers for step in (0, 1)}
        coded = decoded(out, frozenset(wanted), lost)
        original = dict(Clip(path, size).pictures(wanted))
    for number in numbers:
        if all(n in coded and n in original for n in (number, number + 1)):
            concealed = np.bool_(lost is not None and number >= lost)
            yield from crops(coded, original, number, masks[number], concealed, chance, order.crop)


def _chosen(count: int, pictures: int, lost: int | None, chance: np.random.Generator) -> list[int]:
    """Numbers of the pictures that are cropped: the first, others anywhere, and some after the loss."""
    if count < 3:
        return []
    numbers = {0, *(int(n) for n in chance.integers(1, count - 1, pictures - 1))}
    if lost is not None:
        numbers |= {int(n) for n in lost + chance.integers(0, _AFTER_LOSS, 2)}
    return sorted(n for n in numbers if n < count - 1)
