"""Training pairs on disk: what the sender's encoder and the link make of clips, beside the originals."""

from __future__ import annotations

import functools
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from models.evaluation.study.engine import Failure, run
from models.training.manifest import TrainingClip
from models.training.restoration.codings import Order, coded_crops
from models.training.stills import Still
from shared.encode import Encode
from shared.errors import SemcallError
from shared.outfile import make_folder

CROP = 128
"""Samples of a crop across and down where nothing else is asked for, on the macroblock grid."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Aligned crops of two successive pictures, n of them, in I420, S samples of luma across and down.

    `coded`, `original`: uint8 [n, 2, 3 S / 2, S]; `qp`: uint8 [n, 2, S / 16, S / 16], luma quantisers; `face`: bool
    [n, S / 16, S / 16], the sender's mask of the first picture; `concealed`: bool [n], a loss shows; `clip`: names.
    """

    coded: NDArray[np.uint8]
    original: NDArray[np.uint8]
    qp: NDArray[np.uint8]
    face: NDArray[np.bool_]
    concealed: NDArray[np.bool_]
    clip: list[str]

    @property
    def size(self) -> int:
        """S."""
        return int(self.coded.shape[3])


def prepare(
    sources: Sequence[TrainingClip | Still],
    folder: Path,
    encode: Encode,
    codings: int,
    seconds: float,
    workers: int = 1,
    crop: int = CROP,
    console: Console | None = None,
    pictures: int = 7,
    cuts: int = 0,
    detector: Path | None = None,
    looks: bool = False,
) -> list[Path]:
    """One .npz of crops per source in `folder`, in `workers` processes; those already there are kept.

    `sources`: clips, or portraits with `detector`, the weights that find their faces, which then move; `crop`:
    samples of a crop across and down, a multiple of 16; `pictures`: that are cropped of each coding, with the ones
    right after; `cuts`: codings more of each clip, cut to one of somebody else half-way; `looks`: all codings but the
    cuts are of a piece of `seconds` from anywhere, each in another look (looks.py), not of the beginning as it is.
    Returns the files, sorted. Raises SemcallError for what cannot be read, coded or written, or is smaller than a
    crop, and for a folder of pairs that were made otherwise.
    """
    make_folder(folder)
    _bind(
        folder,
        {"codings": codings, "seconds": seconds, "crop": crop, "pictures": pictures, "cuts": cuts, "looks": looks},
    )
    jobs = [
        (
            folder / f"{source.name}.npz",
            Order(
                source.path, detector, _somebody_else(sources, at) if cuts else None, codings, cuts, seconds, crop,
                pictures, looks,
            ),
        )
        for at, source in enumerate(sources)
    ]  # fmt: skip
    missing = [job for job in jobs if not job[0].exists()]
    what = "pairs of portraits" if detector else "pairs"
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=len(jobs), completed=len(jobs) - len(missing))

        def done(_index: int, result: Failure | None) -> None:
            if isinstance(result, Failure):
                raise SemcallError(result.sentence)
            progress.advance(task)

        run(missing, functools.partial(_prepare, encode=encode), done, workers)
    return sorted(file for file, _ in jobs)


def load(files: list[Path], crop: int = CROP) -> Pairs:
    """All crops of `prepare`'s files in memory, about 100 kB each (of 128 samples; 400 kB of 256).

    Raises SemcallError for a damaged file and for crops of another size than `crop`.
    """
    parts: dict[str, list[NDArray[np.uint8]]] = {"coded": [], "original": [], "qp": [], "face": [], "concealed": []}
    names: list[str] = []
    for file in files:
        try:
            with np.load(file) as content:
                for name, arrays in parts.items():
                    arrays.append(content[name])
        except (OSError, ValueError, KeyError, BadZipFile, zlib.error) as error:
            raise SemcallError(f"The training pairs {file} cannot be read ({error}); delete them.") from error
        if (found := parts["coded"][-1].shape[3]) != crop:
            raise SemcallError(f"{file} holds crops of {found} samples, not {crop}: use another output directory.")
        names += [file.stem] * len(parts["qp"][-1])
    whole = {name: np.concatenate(parts.pop(name)) for name in list(parts)}  # one after the other: they are large
    return Pairs(
        whole["coded"],
        whole["original"],
        whole["qp"],
        whole["face"].astype(np.bool_),
        whole["concealed"].astype(np.bool_),
        names,
    )


def _bind(folder: Path, made: dict[str, float]) -> None:
    """Note how a folder's pairs are made. Raises SemcallError where others are there."""
    note = folder / "made.json"
    if not note.exists():
        part = folder / f"made.{os.getpid()}.part"  # other processes may be at it, too
        part.write_text(json.dumps(made))
        part.rename(note)
    try:
        before = {"looks": False} | dict(json.loads(note.read_text()))  # earlier folders do not say
    except (OSError, ValueError, TypeError) as error:
        raise SemcallError(f"{note} cannot be read ({error}); delete the folder of pairs.") from error
    differs = [f"{name} = {before.get(name)}" for name, value in made.items() if before.get(name) != value]
    if differs:
        raise SemcallError(f"The pairs in {folder} have {', '.join(differs)}: use another output directory.")


def _somebody_else(sources: Sequence[TrainingClip | Still], at: int) -> Path | None:
    """The next source that shows another person, round to the first."""
    others = (*sources[at + 1 :], *sources[:at])
    return next((one.path for one in others if _who(one) != _who(sources[at])), None)


def _who(source: TrainingClip | Still) -> str:
    return source.identity if isinstance(source, TrainingClip) else source.name


def _prepare(job: tuple[Path, Order], encode: Encode) -> None:
    file, order = job
    found = list(coded_crops(order, encode, np.random.default_rng(zlib.crc32(file.stem.encode()))))
    if not found:
        raise SemcallError(f"{order.path} gives no crop: it is too short or too small; leave it out.")
    columns = [np.stack(column) for column in zip(*found, strict=True)]
    partial = file.with_suffix(".partial.npz")
    names = ("coded", "original", "qp", "face", "concealed")
    np.savez(partial, **dict(zip(names, columns, strict=True)))  # type: ignore[arg-type]
    partial.rename(file)
