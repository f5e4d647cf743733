"""The still pictures of the data directory, by their manifest: photographs and portraits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from models.training.manifest import read_rows
from shared.errors import SemcallError

Image = NDArray[np.uint8]
"""BGR, [h, w, 3], or one plane, [h, w]."""
_PERMISSIVE = ("MIT", "Apache-2.0")
_TOO_CROWDED = 4


@dataclass(frozen=True, slots=True)
class Still:
    """One row of the manifest. `name`: file name without suffix; `path`: of the file; `origin`: whose it is."""

    name: str
    path: Path
    faces: int
    licence: str
    origin: str = ""


def stills(data: Path, folder: str) -> list[Still]:
    """The manifest's pictures in `data`/images/`folder` ("photos" or "faces"). Raises SemcallError without it."""
    path = data / "images" / "manifest.tsv"
    found = []
    for row in read_rows(path, ("path", "faces", "licence"), "stills"):
        if not row["path"].startswith(f"{folder}/"):
            continue
        if not row["faces"].isdecimal():
            raise SemcallError(f"{path} is no list of stills (faces of {row['path']}); get the data again.")
        name, file = Path(row["path"]).stem, path.parent / row["path"]
        found.append(Still(name, file, int(row["faces"]), row["licence"], row.get("origin", "")))
    return found


def permissive_portraits(data: Path) -> list[Still]:
    """Pictures of one to four people under MIT or Apache-2.0, by the manifest.

    Raises SemcallError without it, and where it lists none.
    """
    found = [one for one in stills(data, "faces") if one.licence in _PERMISSIVE and 1 <= one.faces <= _TOO_CROWDED]
    if not found:
        raise SemcallError(f"{data / 'images'} has no permissive portrait; name the data directory with --data.")
    return found


def by_origin(portraits: list[Still]) -> dict[str, list[str]]:
    """Sorted names by licence and origin, for a card.

    >>> by_origin([Still("b", Path(), 1, "MIT", "x/y"), Still("a", Path(), 1, "MIT", "x/y")])
    {'MIT, x/y': ['a', 'b']}
    """
    found: dict[str, list[str]] = {}
    for one in sorted(portraits, key=lambda one: (one.licence, one.origin, one.name)):
        found.setdefault(f"{one.licence}, {one.origin}", []).append(one.name)
    return found


def read_picture(path: Path) -> Image:
    """A picture file as BGR, uint8 [h, w, 3]. Raises SemcallError when it cannot be read."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise SemcallError(f"The picture {path} cannot be read; get the data again.")
    return np.asarray(picture, np.uint8)
