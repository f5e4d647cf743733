"""Which clips a study takes, and the boxes of faces where somebody gives them."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from models.evaluation.study.cells import Source
from models.evaluation.study.measure import Box
from models.evaluation.study.store import Digests
from shared.clips import Clip
from shared.errors import SemcallError

SUFFIXES = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".ts", ".webm", ".y4m"}


def find_clips(folder: Path) -> list[Path]:
    """The video files in a directory, by name. Raises SemcallError where there are none."""
    if not folder.is_dir():
        raise SemcallError(f"{folder} is no directory: give --clips the directory that holds the clips.")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise SemcallError(f"There is no video file in {folder}: --clips takes {', '.join(sorted(SUFFIXES))}.")
    return found


def read_sources(
    paths: Sequence[Path], digests: Digests, boxes: Path | None = None
) -> tuple[list[Source], dict[str, str]]:
    """The clips that can be read, and why others cannot: a sentence by file name.

    `boxes`: a CSV of faces, see `read_boxes`. Raises SemcallError when none can be read.
    """
    given = read_boxes(boxes) if boxes is not None else {}
    times = Counter(path.stem for path in paths)
    sources, skipped = [], {}
    for path in paths:
        name = path.stem if times[path.stem] == 1 else f"{path.parent.name}-{path.stem}"
        try:
            size = Clip(path).size
            digest = digests.of(path)
        except SemcallError as error:
            skipped[path.name] = str(error)
            continue
        except OSError as error:
            skipped[path.name] = f"Cannot read {path}: {error.strerror or error}."
            continue
        sources.append(Source(name, path, size, digest, given.get(name) if boxes is not None else None))
    if not sources:
        raise SemcallError(f"None of {len(paths)} clips can be read: {next(iter(skipped.values()), 'none given')}")
    return sources, skipped


def read_boxes(path: Path) -> dict[str, tuple[tuple[int, Box], ...]]:
    """Boxes by clip's name from a CSV with the columns clip, frame, left, top, width, height (samples as coded).

    A box holds from its frame on until the next. Raises SemcallError for anything else.
    """
    found: dict[str, list[tuple[int, Box]]] = defaultdict(list)
    try:
        with path.open(newline="") as file:
            for number, row in enumerate(csv.DictReader(file), 2):
                frame, left, top, width, height = (
                    int(row[name]) for name in ("frame", "left", "top", "width", "height")
                )
                if min(frame, left, top) < 0 or min(width, height) < 16:
                    raise SemcallError(f"{path}, line {number}: a box is at least 16x16 and lies in the picture.")
                left, top = left & ~1, top & ~1
                found[row["clip"]].append((frame, (left, top, left + (width & ~1), top + (height & ~1))))
    except OSError as error:
        raise SemcallError(f"Cannot read the boxes in {path} ({error.strerror or error}).") from None
    except (KeyError, TypeError, ValueError, csv.Error):
        raise SemcallError(
            f"{path} lists no boxes: it needs whole numbers in the columns clip, frame, left, top, width, height."
        ) from None
    return {name: tuple(sorted(some)) for name, some in found.items()}
