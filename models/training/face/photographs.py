"""Photographs without people: what a face parser must leave alone, and what heads are pasted on."""

from __future__ import annotations

from pathlib import Path

from models.training.stills import Image, read_picture, stills
from shared.errors import SemcallError

# The manifest counts no faces in BSDS500 because nobody counted them. By eye: people, apes, statues, line drawings.
# fmt: off
_PEOPLED = frozenset((
    5, 6, 31, 36, 38, 39, 42, 44, 45, 46, 47, 48, 49, 51, 55, 58, 67, 70, 71, 72, 73, 74, 75, 76, 81, 82, 84, 85,
    86, 87, 92, 94, 95, 97, 98, 99, 100, 101, 103, 104, 105, 107, 108, 109, 110, 113, 114, 115, 119, 120, 121,
    124, 125, 127, 128, 131, 135, 139, 147, 153, 154, 155, 156, 158, 160, 161, 162, 173, 178, 179, 185, 190,
    191, 193, 194, 221, 223, 234, 235, 236, 237, 238, 240, 241, 242, 244, 256, 263, 264, 265, 269, 272, 273,
    274, 276, 277, 279, 280, 281, 283, 288, 293, 296, 297, 298, 303, 304, 307, 308, 309, 310, 318, 319, 322,
    324, 328, 329, 330, 334, 336, 341, 350, 351, 352, 353, 354, 355, 356, 359, 360, 362, 371, 374, 378, 379,
    381, 382, 395, 400, 401, 410, 418, 421, 423, 430, 434, 441, 443, 446, 448, 454, 455, 460, 461, 462, 464,
    467, 469, 471, 474, 477, 482, 484, 485, 493, 498, 500, 501, 502,
))
# fmt: on
_PEOPLED_KODAK = ("kodak-lossless-tru-004",)


def held_out(name: str) -> bool:
    """Whether a photograph is kept for acceptance: every fifth of BSDS500, and all of Kodak."""
    return not name.startswith("bsds500") or int(name[-3:]) % 5 == 4


def without_people(name: str) -> bool:
    """Whether a photograph of the data, by its file name without suffix, shows nobody."""
    return name not in _PEOPLED_KODAK and not (name.startswith("bsds500") and int(name[-3:]) in _PEOPLED)


def read_photographs(data: Path, kept: bool) -> list[tuple[str, Image]]:
    """Names and pictures of the photographs without people; `kept`: those held out, else those for training.

    Raises SemcallError where there are none.
    """
    pictures = [
        (still.name, read_picture(still.path))
        for still in stills(data, "photos")
        if still.faces == 0 and without_people(still.name) and held_out(still.name) == kept
    ]
    if not pictures:
        raise SemcallError(
            f"{data / 'images'} has no photograph without people; name the data directory with --data."
        )
    return pictures
