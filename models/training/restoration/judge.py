"""Whether a restorer helps: the evaluation's figures on clips of people it has never seen, for its card."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.progress import track

from models.evaluation.flicker import FLAT_SPAN
from models.evaluation.study.coding import code, read_masks, stats_path
from models.evaluation.study.measure import (
    JUDGED,
    WINDOW,
    as_told,
    cut,
    decoded,
    face_box,
    judged,
    measure,
)
from models.evaluation.study.metrics import Metrics, open_metrics
from models.evaluation.study.pictures import draw_sheet
from models.evaluation.study.protocol import target_kbps
from models.evaluation.study.results import mean_known
from models.training.manifest import TrainingClip
from models.training.restoration.effects import FINE_QP, side_effects
from shared.clips import Clip
from shared.encode import Encode
from shared.grid import Mask
from shared.picture import I420, bgr_from_i420, size_of
from shared.restorer import Restorer

Coding = tuple[int, int, bool]
"""kbit/s at 1280x720 (scaled to a clip's pixels), percent of the bits for the face, whether something is lost."""
CODINGS: tuple[Coding, ...] = ((400, 15, False), (400, 0, False), (200, 15, False), (400, 15, True))
"""The first is drawn."""
SECONDS = 4.0
_DECODED = "decoded"
_DIGITS = {"ssim": 4, "psnr": 2, "flicker": 3, "flat_flicker": 3, "brisque": 1, "distance": 4, "identity": 3}


@dataclass(frozen=True, slots=True)
class Judged:
    """Figures of one clip at one coding: name of the metric to [decoded, restored], or None where there is none.

    `lost`: the access unit in the middle never came, and no keyframe follows.
    """

    clip: str
    kbps: int
    share: int
    lost: bool
    face: dict[str, list[float | None]]
    frame: dict[str, list[float | None]]
    effects: Mapping[str, float | Sequence[float | None] | None]
    """See `side_effects`; and `brisque_original`, of the original's faces and frames: what BRISQUE may fall to."""


def definition(data: Path) -> str:
    """What the figures are, for a card."""
    metrics = open_metrics(data)
    named = "; ".join(f"{short}: {name}" for short, name in metrics.names.items())
    return (
        f"[decoded, restored], means over up to {JUDGED} pictures of the first {SECONDS:g} s, coded by semcall's "
        "encoder at `kbps` (for 1280x720, scaled to a clip's pixels) in exact mode with `share` percent of the "
        "bits for the face; lost: the access unit in the middle never came, FFmpeg's decoder conceals what is "
        f"missing from there on, and only those pictures are judged. {named}. distance: of {WINDOW}x{WINDOW} "
        f"samples. flat_flicker: where 5x5 samples of the original span at most {FLAT_SPAN} code values. Lower is "
        "better for flicker, brisque and distance, higher for the others. docs/metrics.md defines them. effects: "
        "colour_shift, mean change of a chroma plane (code values), its size averaged over the pictures, the "
        "larger of the two; colour_change, mean absolute change of chroma samples; colour_error, mean difference "
        "of a plane to the original's likewise, decoded and restored; fine_psnr, restored to decoded luma where "
        f"the quantiser is at most {FINE_QP} (dB); mesh_2, mesh_4, mesh_8, how far a period of so many samples "
        "stands out of the spectrum of the original, the decoded and the restored picture (1: not at all); "
        "brisque_original, of the original's faces and frames."
    )


def judge(
    model: Path,
    clips: Sequence[TrainingClip],
    data: Path,
    folder: Path,
    encode: Encode,
    codings: Sequence[Coding] | None = None,
) -> list[Judged]:
    """Figures of the restorer in the ONNX file `model`, decoded pictures beside restored ones.

    `codings`: default: CODINGS. Coded files are kept in `folder`, for the next to be judged, and a sheet of every
    clip is drawn there. Raises SemcallError for what cannot be read.
    """
    metrics, restorer, codings = open_metrics(data), Restorer(model), codings or CODINGS
    found = []
    pieces = [(clip, *coding) for clip in clips for coding in codings]
    for clip, kbps, share, lossy in track(pieces, description=f"judging {model.stem}"):
        coded = _coded(clip, kbps, share, folder, encode)
        masks = read_masks(stats_path(coded))
        lost = len(masks) // 2 if lossy else None
        figures = measure(clip.path, coded, metrics, {_DECODED: None, model.stem: model}, lost=lost)
        both = (figures[_DECODED], figures[model.stem])
        face, frame = (_paired(both, part) for part in ("face", "frame"))
        originals = dict(Clip(clip.path).pictures(set(judged(len(masks), lost or 0))))
        pictures = as_told(decoded(coded, frozenset(originals), lost), lost)
        sides = side_effects(((*pictures[at], original) for at, original in originals.items()), restorer.restore)
        effects = sides | _brisque_of_originals(originals, masks, metrics)
        found.append(Judged(clip.name, kbps, share, lossy, face, frame, effects))
        if (kbps, share, lossy) == codings[0]:
            plain = _coded(clip, kbps, 0, folder, encode)
            draw_sheet(clip.path, plain, coded, model, data, folder / f"{model.stem}-{clip.name}.jpg")
    return found


def as_json(results: Sequence[Judged]) -> list[dict[str, Any]]:
    """For a card."""
    return [asdict(one) for one in results]


def _brisque_of_originals(
    originals: Mapping[int, I420], masks: Sequence[Mask], metrics: Metrics
) -> dict[str, list[float | None]]:
    """`brisque_original`, of faces and frames of the judged pictures; nothing where there is no BRISQUE."""
    if metrics.brisque is None:
        return {}
    faces, frames = [], []
    for number, original in originals.items():
        bgr, box = bgr_from_i420(original), face_box(masks[number], *size_of(original))
        frames.append(metrics.brisque(bgr))
        if box is not None:
            faces.append(metrics.brisque(cut(bgr, box)))
    return {"brisque_original": [_rounded(mean_known(part), _DIGITS["brisque"]) for part in (faces, frames)]}


def _coded(clip: TrainingClip, kbps: int, share: int, folder: Path, encode: Encode) -> Path:
    out = folder / f"{clip.name}-{kbps}-{share}.mp4"
    if not (out.exists() and stats_path(out).exists()):
        code(clip.path, out, target_kbps(kbps, Clip(clip.path).size), share / 100, SECONDS, encode)
    return out


def _paired(sides: tuple[Mapping[str, Any], Mapping[str, Any]], part: str) -> dict[str, list[float | None]]:
    names = [name for name in _DIGITS if name in sides[0][part]]
    return {name: [_rounded(side[part][name], _DIGITS[name]) for side in sides] for name in names}


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None or math.isnan(value) else round(value, digits)
