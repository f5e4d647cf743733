"""The manifests of the data directory, and the clips that may be trained on by them."""

from __future__ import annotations

import csv
from collections.abc import Collection
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


def read_rows(path: Path, columns: Collection[str], what: str) -> list[dict[str, str]]:
    """The rows of a manifest, text in tab-separated columns that its first line names, those in `columns` among them.

    Raises SemcallError where it cannot be read, and where it is no list of `what`.
    """
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except OSError as error:
        raise SemcallError(f"{path} cannot be read; name the data directory with --data.") from error
    except (ValueError, csv.Error) as error:  # no text, or no table
        raise SemcallError(f"{path} is no list of {what} ({error}); get the data again.") from error
    for number, row in enumerate(rows, 2):
        for name in columns:
            if row.get(name) is None:
                raise SemcallError(f"{path} is no list of {what} (line {number} has no {name}); get the data again.")
    return rows


def permissive_clips(data: Path, split: str) -> list[TrainingClip]:
    """The clips of `split` ("train" or "val") under MIT, Apache-2.0 or CC-BY, by the manifest in `data`/clips.

    Raises SemcallError when the manifest cannot be read or none of its clips can be used.
    """
    manifest = data / "clips" / "manifest.tsv"
    clips = [
        TrainingClip(
            Path(row["path"]).stem,
            row["identity"],
            data / "clips" / row["path"],
            row["licence"],
            row.get("origin", ""),
        )
        for row in read_rows(manifest, ("path", "identity", "licence", "split", "permissive"), "clips")
        if row["split"] == split and row["permissive"] == "yes" and row["identity"] not in _SKIPPED
    ]
    if not clips:
        raise SemcallError(f"{manifest} lists no permissive clip of split {split}; there is nothing to train on.")
    return clips
