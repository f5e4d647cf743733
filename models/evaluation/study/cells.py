"""One cell of a study: a clip, coded once and measured as it is and restored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.evaluation.study.coding import Coded, code, from_json, stats_path
from models.evaluation.study.measure import Box, measure
from models.evaluation.study.metrics import open_metrics
from models.evaluation.study.protocol import Coding, target_kbps
from models.evaluation.study.store import Store
from shared.encode import Encode

CODING_CODE = ("sender", "shared", "models/evaluation/study/coding.py")
MEASURING_CODE = (
    "shared",
    "models/networks",
    *(
        f"models/evaluation/{name}.py"
        for name in ("brisque", "detector", "flicker", "identity", "metrics", "perceptual")
    ),
    *(
        f"models/evaluation/study/{name}.py"
        for name in ("cells", "coding", "measure", "metrics", "protocol", "results")
    ),
)
"""Sources that figures depend on."""


@dataclass(frozen=True, slots=True)
class Source:
    """A clip of a study. `size`: width and height as coded; `sha256`: of the file; `boxes`: given ones, or None."""

    name: str
    path: Path
    size: tuple[int, int]
    sha256: str
    boxes: tuple[tuple[int, Box], ...] | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """What one worker does at once. `key`: of the coding; `restorers`: by name, those not yet measured."""

    source: Source
    coding: Coding
    key: str
    restorers: tuple[tuple[str, Path | None], ...]
    folder: Path
    data: Path
    seconds: float
    encode: Encode

    def __repr__(self) -> str:
        return f"{self.source.name} at {self.coding.kbps} kb/s with {self.coding.share}%"


def coded_path(folder: Path, key: str) -> Path:
    """The coded file of a coding's key."""
    return folder / "codings" / f"{key}.mp4"


def work(job: Job) -> dict[str, dict[str, Any]]:
    """Records (docs/results, models/evaluation/study/report.py) by restorer's name.

    Codes the clip unless that was done before. Raises SemcallError for what cannot be read, coded or restored.
    """
    coded = _coded(job)
    measured = measure(
        job.source.path,
        coded_path(job.folder, job.key),
        open_metrics(job.data),
        dict(job.restorers),
        None if job.source.boxes is None else dict(job.source.boxes),
    )
    return {name: _record(job, coded, name, part) for name, part in measured.items()}


def _coded(job: Job) -> Coded:
    out, store = coded_path(job.folder, job.key), Store(job.folder / "codings")
    kept = store.get(job.key)
    if kept is not None and out.exists() and stats_path(out).exists():
        return from_json(kept)
    target = target_kbps(job.coding.kbps, job.source.size)
    coded = code(job.source.path, out, target, job.coding.share / 100, job.seconds, job.encode)
    store.put(job.key, asdict(coded))
    return coded


def _record(job: Job, coded: Coded, restorer: str, measured: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "clip": job.source.name,
        "size": list(coded.size),
        "fps": round(coded.fps, 3),
        "frames": coded.frames,
        "judged": measured["judged"],
        "scaled": target_kbps(1.0, coded.size) < 1,
        "kbps": job.coding.kbps,
        "share": job.coding.share,
        "restorer": restorer,
        "target_kbps": round(coded.target_kbps, 3),
        "measured_kbps": round(coded.kbps, 3),
        "bytes": coded.bytes,
        "reached": coded.reached,
        "measured_share": _rounded(coded.share, 5),
        "qp_face": _rounded(coded.qp_face, 2),
        "qp_background": _rounded(coded.qp_background, 2),
        "face": {name: _rounded(value, 5) for name, value in measured["face"].items()},
        "frame": {name: _rounded(value, 5) for name, value in measured["frame"].items()},
        "restorer_ms": measured["restorer_ms"],
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
