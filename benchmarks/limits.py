"""How far the goals of a restorer can be reached at all, and how cheaply one of them.

    python -m benchmarks.limits --data DIR [--model fine ...] [--clip NAME ...]

On the permissive validation clips, 4 s each, at 400 kb/s (for 1280x720) with 15% for the face, changes against the
decoded picture of the judge's perceptual distance, of the one that restorers are trained through, and of BRISQUE, on
faces and frames. Needs extra `train`. Rows:

- `original`: what BRISQUE says of the source;
- `x264 crf N`: the source coded finely, which nobody tells from it: what it loses of sensor noise is no restorer's
  to find again, so its distance is a floor;
- the restorers, e.g. one and its predecessor out of the history;
- the first of them as the mean over six views of every picture, mirrored and turned (benchmarks/mirrored.py);
- the first of them with grain: noise of so many code values, the same on every picture, which hardly shows, on what
  is coded coarsely (quantiser 28 and above, in full from 36 on), everywhere or only where there is detail.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.mirrored import TURNS, over_views
from benchmarks.parts import KBPS, SECONDS, SHARE, encoder, spread
from models.evaluation.study.coding import code, read_masks, stats_path
from models.evaluation.study.measure import Box, cut, decoded, face_box, judged, window
from models.evaluation.study.metrics import Bgr, open_metrics
from models.evaluation.study.protocol import target_kbps
from models.evaluation.study.results import changed
from models.networks.features import SQUEEZENET, SqueezeNet
from models.networks.lpips import PictureDistance
from models.registry import find_model
from models.training.manifest import permissive_clips
from shared.clips import Clip
from shared.encode import Encode
from shared.picture import I420, bgr_from_i420, planes, size_of
from shared.restorer import Restore, Restorer
from shared.steady import Steadiness
from shared.x264 import write_pictures

FINE = (16, 20, 24)
GRAIN = (0.5, 1.0, 1.5)
FIRST_QP, FULL_QP = 28, 36

Variant = Callable[[int], I420]
Scores = dict[str, Callable[[Bgr, Bgr], float]]
"""Perceptual distances of two pictures, by what a column is called."""


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="directory with clips/ and weights/"
    )
    arguments.add_argument("--model", action="append", help="name or file of a restorer (fine); may be given again")
    arguments.add_argument("--clip", action="append", help="only this one; may be given again")
    told = arguments.parse_args()
    metrics, encode = open_metrics(told.data), encoder()
    if metrics.distance is None:
        raise SystemExit(metrics.missing["distance"])
    scores: Scores = {"distance": metrics.distance}
    trained_through = told.data / "weights" / SQUEEZENET
    if trained_through.is_file():
        scores["on SqueezeNet"] = PictureDistance(SqueezeNet(trained_through))
    clips = [clip for clip in permissive_clips(told.data, "val") if not told.clip or clip.name in told.clip]
    found: dict[str, list[Mapping[str, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for clip in track(clips, "measuring"):
            coded = Path(folder) / f"{clip.name}.mp4"
            for name, figures in _clip(clip.path, coded, told.model or ["fine"], scores, metrics.brisque, encode):
                found[name].append(figures)
    table = Table(title=f"Change against the decoded picture, mean over {len(clips)} clips (lowest to highest), %")
    columns = [f"{part} {name}" for name in (*scores, "BRISQUE") for part in ("face", "frame")]
    console = Console(width=210)
    for column in ("", *columns):
        table.add_column(column, justify="left" if not column else "right")
    decoded_figures = found.pop("decoded")
    for name, rows in found.items():
        cells = []
        for column in columns:
            if name == "original" and "BRISQUE" not in column:
                cells.append("–")
                continue
            both = zip(decoded_figures, rows, strict=True)
            cells.append(spread(changed(before.get(column), row.get(column)) for before, row in both))
        table.add_row(name, *cells)
    console.print(table)


def _clip(
    source: Path,
    out: Path,
    models: Sequence[str],
    scores: Scores,
    brisque: Callable[[Bgr], float] | None,
    encode: Encode,
) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Figures of every row, by its name."""
    code(source, out, target_kbps(KBPS, Clip(source).size), SHARE / 100, SECONDS, encode)
    masks = read_masks(stats_path(out))
    numbers = judged(len(masks))
    originals = dict(Clip(source).pictures(set(numbers)))
    pictures = decoded(out, frozenset(range(max(numbers) + 1)))
    restorers = {model: Restorer(find_model(model).path).restore for model in models}
    restored = {model: _restored(restore, pictures) for model, restore in restorers.items()}
    boxes = {number: face_box(masks[number], *size_of(originals[number])) for number in numbers}

    def figures(of: Variant) -> Mapping[str, float]:
        triples = {number: (originals[number], of(number), boxes[number]) for number in numbers}
        return _figures(triples, scores, brisque)

    yield "decoded", figures(lambda number: pictures[number][0])
    yield "original", figures(originals.__getitem__)
    for crf in FINE:
        finely = _finely(source, out.with_suffix(f".{crf}.mp4"), crf, frozenset(numbers))
        yield f"x264 crf {crf}", figures(finely.__getitem__)
    for model, repaired in restored.items():
        yield model, figures(repaired.__getitem__)
    views = _restored(over_views(restorers[models[0]]), pictures)
    yield f"{models[0]}, mean of {len(TURNS)} views", figures(views.__getitem__)
    for where in ("everywhere", "in detail"):
        for deviation in GRAIN:
            yield (
                f"{models[0]}, grain of {deviation:g} {where}",
                figures(
                    lambda number, by=deviation, detail=where != "everywhere": with_grain(  # type: ignore[misc]
                        restored[models[0]][number], pictures[number][1], by, detail
                    )
                ),
            )


def with_grain(i420: I420, qp: NDArray[np.uint8], deviation: float, detail: bool) -> I420:
    """A copy with noise on luma; `qp`: uint8 [rows, columns]."""
    grainy = i420.copy()
    luma = planes(grainy)[0]
    height, width = luma.shape
    noise = np.random.default_rng(0).normal(0, deviation, (height, width)).astype(np.float32)
    wide = cv2.resize(qp.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    gate = np.clip((wide - FIRST_QP) / (FULL_QP - FIRST_QP), 0, 1)
    if detail:
        values = luma.astype(np.float32)
        activity = cv2.GaussianBlur(np.abs(values - cv2.GaussianBlur(values, (0, 0), 2)), (0, 0), 3)
        gate *= np.clip(activity / 2, 0, 2)
    luma[:] = np.clip(np.round(luma + gate * noise), 0, 255)
    return grainy


def _restored(restore: Restore, pictures: Mapping[int, tuple[I420, NDArray[np.uint8]]]) -> dict[int, I420]:
    steady = Steadiness()
    return {number: steady(i420, restore(i420, qp)) for number, (i420, qp) in sorted(pictures.items())}


def _finely(source: Path, out: Path, crf: int, numbers: frozenset[int]) -> dict[int, I420]:
    """The pictures of these numbers after x264 in its constant quality."""
    clip = Clip(source)
    pictures = (i420 for _, i420 in clip.pictures(set(range(max(numbers) + 1))))
    write_pictures(out, clip.size, clip.fps, pictures, {"preset": "medium", "crf": str(crf)})
    return {number: i420 for number, (i420, _) in decoded(out, numbers).items()}


def _figures(
    triples: Mapping[int, tuple[I420, I420, Box | None]], scores: Scores, brisque: Callable[[Bgr], float] | None
) -> Mapping[str, float]:
    """Means over pictures: (original, another, the face's box) by number."""
    found: dict[str, list[float]] = defaultdict(list)
    for number, (original, other, box) in triples.items():
        true, seen = bgr_from_i420(original), bgr_from_i420(other)
        height, width = true.shape[:2]
        areas: dict[str, Box | None] = {"frame": None} if box is None else {"frame": None, "face": box}
        for part, area in areas.items():
            place = window(number, area, width, height)
            for name, score in scores.items():
                found[f"{part} {name}"].append(score(cut(true, place), cut(seen, place)))
            if brisque is not None:
                found[f"{part} BRISQUE"].append(brisque(seen if area is None else cut(seen, area)))
    return {name: float(np.mean(values)) for name, values in found.items()}


if __name__ == "__main__":
    main()
