"""The clips that may be trained on, by the manifest of the data directory."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from shared.errors import SemcallError

# These clips turn into a cartoon half-way.
_SKIPPED = ("pyfeat_man",)


@dataclass(frozen=True, slots=True)
class TrainingClip:
    """One row of the manifest. `name`: file name without suffix; `identity`: who is seen; `origin`: whose it is."""

    name: str
    identity: str
    path: Path
    licence: str
    origin: str = ""


def permissive_clips(data: Path, split: str) -> list[TrainingClip]:
    """The clips of `split` ("train" or "val") under MIT, Apache-2.0 or CC-BY, by the manifest in `data`/clips.

    Raises SemcallError when the manifest is missing or none of its clips can be used.
    """
    manifest = data / "clips" / "manifest.tsv"
    try:
        with manifest.open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except OSError as error:
        raise SemcallError(
            f"There are no training clips in {data}: {manifest} cannot be read; name the data directory with --data."
        ) from error
    clips = [
        TrainingClip(
            Path(row["path"]).stem,
            row["identity"],
            data / "clips" / row["path"],
            row["licence"],
            row.get("origin", ""),
        )
        for row in rows
        if row["split"] == split and row["permissive"] == "yes" and row["identity"] not in _SKIPPED
    ]
    if not clips:
        raise SemcallError(f"{manifest} lists no permissive clip of split {split}; there is nothing to train on.")
    return clips
