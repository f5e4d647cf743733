"""Training pairs on disk: what the sender's encoder and the link make of clips, beside the originals.

Clips go through the encoder of the call at rates and shares that a call has, with keyframes and with lost access
units, and back through FFmpeg's decoder, which conceals what is missing and exports the quantisers. Crops are taken
of two successive pictures, so that a training can see flicker.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, Protocol
from zipfile import BadZipFile

import av
import numpy as np
from av.codec.context import Flags
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from models.evaluation.study.coding import read_masks, stats_path
from models.evaluation.study.engine import Failure, run
from models.evaluation.study.protocol import target_kbps
from models.training.manifest import TrainingClip
from models.training.restoration.moving import write_moving
from models.training.stills import Still
from shared.clips import Clip, fitted
from shared.errors import SemcallError
from shared.grid import MACROBLOCK, Mask, grid_shape
from shared.picture import I420, cropped, i420_from_frame, size_of
from shared.quantisers import SIDE_DATA, quantiser_map

CROP = 128
"""Samples of a crop across and down where nothing else is asked for, on the macroblock grid."""
_PER_CROP = 60_000  # samples of a picture
_MOST_CROPS = 8
_ON_FACE = 0.6
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
    source: TrainingClip | Still
    detector: Path | None
    file: Path
    codings: int
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
    detector: Path | None = None,
) -> list[Path]:
    """One .npz of crops per clip or portrait in `folder`, in `workers` processes; those already there are kept.

    `crop`: their samples across and down, a multiple of 16; `pictures`: that are cropped of each coding,
    with the ones right after; `detector`: the weights that find the faces of portraits, which have to move. Returns
    the files, sorted. Raises SemcallError for what cannot be read or coded, or is smaller than a crop.
    """
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [
        _Job(source, detector, folder / f"{source.name}.npz", codings, seconds, crop, pictures) for source in sources
    ]
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
    whole = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    return Pairs(
        whole["coded"],
        whole["original"],
        whole["qp"],
        whole["face"].astype(np.bool_),
        whole["concealed"].astype(np.bool_),
        names,
    )


def _prepare(job: _Job, encode: EncodeClip) -> None:
    chance = np.random.default_rng(zlib.crc32(job.source.name.encode()))
    with TemporaryDirectory() as folder:
        path = job.source.path
        if job.detector is not None:
            path = Path(folder) / "moving.mp4"
            write_moving(job.source.path, job.detector, path, job.seconds, chance)
        crops = [crop for _ in range(job.codings) for crop in _coding(job, path, encode, chance)]
    if not crops:
        raise SemcallError(f"{job.source.path} gives no crop: it is too short or too small; leave it out.")
    columns = [np.stack(column) for column in zip(*crops, strict=True)]
    partial = job.file.with_suffix(".partial.npz")
    names = ("coded", "original", "qp", "face", "concealed")
    np.savez(partial, **dict(zip(names, columns, strict=True)))  # type: ignore[arg-type]
    partial.rename(job.file)


_Crop = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8], Mask, np.bool_]


def _coding(job: _Job, path: Path, encode: EncodeClip, chance: np.random.Generator) -> Iterator[_Crop]:
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
        wanted = {number + step for number in numbers for step in (0, 1)}
        coded = _decoded(out, wanted, lost)
        original = dict(Clip(path, size).pictures(wanted))
    for number in numbers:
        if all(n in coded and n in original for n in (number, number + 1)):
            concealed = np.bool_(lost is not None and number >= lost)
            yield from _crops(coded, original, number, masks[number], concealed, chance, job.crop)


def _chosen(count: int, pictures: int, lost: int | None, chance: np.random.Generator) -> list[int]:
    """Numbers of the pictures that are cropped: the first, others anywhere, and some after the loss."""
    if count < 3:
        return []
    numbers = {0, *(int(n) for n in chance.integers(1, count - 1, pictures - 1))}
    if lost is not None:
        numbers |= {int(n) for n in lost + chance.integers(0, _AFTER_LOSS, 2)}
    return sorted(n for n in numbers if n < count - 1)


def _decoded(path: Path, wanted: set[int], lost: int | None) -> dict[int, tuple[I420, NDArray[np.uint8]]]:
    """Pictures and quantisers by number, where access unit `lost` never came: the picture before stands for it."""
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


def _crops(
    coded: dict[int, tuple[I420, NDArray[np.uint8]]],
    original: dict[int, I420],
    number: int,
    face: Mask,
    concealed: np.bool_,
    chance: np.random.Generator,
    crop: int,
) -> Iterator[_Crop]:
    """Crops on the macroblock grid of a picture and the next, most of them on the face."""
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
