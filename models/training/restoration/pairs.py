"""Training pairs on disk: what the sender's encoder and the link make of clips, beside the originals.

Clips go through the encoder of the call at rates and shares that a call has, with keyframes and with lost access
units, and back through FFmpeg's decoder, which conceals what is missing and exports the quantisers. Crops are taken
of two successive pictures, so that a training can see flicker.
"""

from __future__ import annotations

import functools
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, Protocol
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from models.evaluation.study.coding import read_masks, stats_path
from models.evaluation.study.engine import Failure, run
from models.evaluation.study.measure import decoded
from models.evaluation.study.protocol import target_kbps
from models.training.manifest import TrainingClip
from models.training.restoration.crops import Crop, crops
from models.training.restoration.cuts import write_cut
from models.training.restoration.moving import write_moving
from models.training.stills import Still
from shared.clips import Clip, fitted
from shared.errors import SemcallError
from shared.grid import MACROBLOCK
from shared.outfile import make_folder

CROP = 128
"""Samples of a crop across and down where nothing else is asked for, on the macroblock grid."""
_LOSSY = 0.3  # of the codings
_AFTER_LOSS = 12  # pictures among which concealed ones are sought
_LEAST_SIDE = 272


Mode = Literal["floor", "exact"]
_MODES: tuple[Mode, ...] = ("floor", "exact")


class EncodeClip(Protocol):
    """The sender's encoder on a file: see `sender.offline.encode_at`."""

    def __call__(
        self,
        source: Path,
        out: Path,
        stats: Path,
        bitrate: float,
        share: float,
        seconds: float,
        *,
        mode: Mode = "exact",
        size: tuple[int, int] = (1280, 720),
        keyframe_interval: float | None = None,
    ) -> None:
        """Code up to `seconds` of `source` to `out`, with a JSON line per picture in `stats`."""
        ...


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


@dataclass(frozen=True, slots=True)
class _Job:
    """`detector`: for a portrait; `other`: a clip of somebody else, which `cuts` more codings cut to."""

    path: Path
    detector: Path | None
    other: Path | None
    file: Path
    codings: int
    cuts: int
    seconds: float
    crop: int
    pictures: int


def prepare(
    sources: Sequence[TrainingClip | Still],
    folder: Path,
    encode: EncodeClip,
    codings: int,
    seconds: float,
    workers: int = 1,
    crop: int = CROP,
    console: Console | None = None,
    pictures: int = 7,
    cuts: int = 0,
    detector: Path | None = None,
) -> list[Path]:
    """One .npz of crops per source in `folder`, in `workers` processes; those already there are kept.

    `sources`: clips, or portraits with `detector`, the weights that find their faces, which then move; `crop`:
    samples of a crop across and down, a multiple of 16; `pictures`: that are cropped of each coding, with the ones
    right after; `cuts`: codings more of each clip, cut to one of somebody else half-way. Returns the files, sorted.
    Raises SemcallError for what cannot be read, coded or written, or is smaller than a crop, and for a folder of
    pairs that were made otherwise.
    """
    make_folder(folder)
    _bind(folder, {"codings": codings, "seconds": seconds, "crop": crop, "pictures": pictures, "cuts": cuts})
    jobs = [
        _Job(
            source.path, detector, _somebody_else(sources, at) if cuts else None, folder / f"{source.name}.npz",
            codings, cuts, seconds, crop, pictures,
        )
        for at, source in enumerate(sources)
    ]  # fmt: skip
    missing = [job for job in jobs if not job.file.exists()]
    what = "pairs of portraits" if detector else "pairs"
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=len(jobs), completed=len(jobs) - len(missing))

        def done(_index: int, result: Failure | None) -> None:
            if isinstance(result, Failure):
                raise SemcallError(result.sentence)
            progress.advance(task)

        run(missing, functools.partial(_prepare, encode=encode), done, workers)
    return sorted(job.file for job in jobs)


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
        before = dict(json.loads(note.read_text()))
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


def _prepare(job: _Job, encode: EncodeClip) -> None:
    chance = np.random.default_rng(zlib.crc32(job.file.stem.encode()))
    with TemporaryDirectory() as folder:
        path, cut = job.path, Path(folder) / "cut.mp4"
        if job.detector is not None:
            path = Path(folder) / "moving.mp4"
            write_moving(job.path, job.detector, path, job.seconds, chance)
        found = [crop for _ in range(job.codings) for crop in _coding(job, path, encode, chance)]
        if job.other is not None:
            write_cut(path, job.other, cut, job.seconds)
            found += [crop for _ in range(job.cuts) for crop in _coding(job, cut, encode, chance)]
    if not found:
        raise SemcallError(f"{job.path} gives no crop: it is too short or too small; leave it out.")
    columns = [np.stack(column) for column in zip(*found, strict=True)]
    partial = job.file.with_suffix(".partial.npz")
    names = ("coded", "original", "qp", "face", "concealed")
    np.savez(partial, **dict(zip(names, columns, strict=True)))  # type: ignore[arg-type]
    partial.rename(job.file)


def _coding(job: _Job, path: Path, encode: EncodeClip, chance: np.random.Generator) -> Iterator[Crop]:
    """Crops of one coding of a clip, at a rate and share as calls have them."""
    width, height = Clip(path).size
    # Most clips are soft and already compressed once; made smaller they are as sharp as a camera's picture.
    least = max(_LEAST_SIDE, job.crop + MACROBLOCK)
    shrink = max(float(chance.choice([1.0, 0.75, 0.5])), min(1.0, least / min(width, height)))
    size = fitted((width, height), (round(max(width, height) * shrink), round(min(width, height) * shrink)))
    kbps = target_kbps(float(np.exp(chance.uniform(np.log(200), np.log(800)))), size)
    share = float(chance.choice([0, 0.1, 0.15, 0.15, 0.2, 0.25, 0.3, 0.45]))
    mode = _MODES[chance.integers(2)]
    with TemporaryDirectory() as folder:
        out = Path(folder) / "coded.mp4"
        interval = float(chance.choice([1.5, 30.0]))
        encode(
            path, out, stats_path(out), kbps * 1e3, share, job.seconds,
            mode=mode, size=size, keyframe_interval=interval,
        )  # fmt: skip
        masks = read_masks(stats_path(out))
        lost = int(chance.integers(3, max(4, len(masks) - 3))) if chance.random() < _LOSSY else None
        numbers = _chosen(len(masks), job.pictures, lost, chance)
        if not numbers:
            return
        wanted = {number + step for number in numbers for step in (0, 1)}
        coded = decoded(out, frozenset(wanted), lost)
        original = dict(Clip(path, size).pictures(wanted))
    for number in numbers:
        if all(n in coded and n in original for n in (number, number + 1)):
            concealed = np.bool_(lost is not None and number >= lost)
            yield from crops(coded, original, number, masks[number], concealed, chance, job.crop)


def _chosen(count: int, pictures: int, lost: int | None, chance: np.random.Generator) -> list[int]:
    """Numbers of the pictures that are cropped: the first, others anywhere, and some after the loss."""
    if count < 3:
        return []
    numbers = {0, *(int(n) for n in chance.integers(1, count - 1, pictures - 1))}
    if lost is not None:
        numbers |= {int(n) for n in lost + chance.integers(0, _AFTER_LOSS, 2)}
    return sorted(n for n in numbers if n < count - 1)
