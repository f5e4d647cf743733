"""The metrics of a study, opened once in every process, and what each is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from models.evaluation.brisque import MODEL as BRISQUE_MODEL
from models.evaluation.brisque import Brisque
from models.evaluation.detector import FILE as DETECTOR
from models.evaluation.identity import Identity
from models.evaluation.perceptual import LEAST, Perceptual
from shared.errors import SemcallError

EMBEDDER = "mobilefacenet_112.onnx"
Bgr = NDArray[np.uint8]
Metric = TypeVar("Metric", Brisque, Perceptual, Identity)


@dataclass(frozen=True, slots=True)
class Metrics:
    """`names`: of what there is, by short name; `missing`: why another is not there, one sentence each."""

    names: dict[str, str]
    missing: dict[str, str]
    brisque: Callable[[Bgr], float] | None
    distance: Callable[[Bgr, Bgr], float] | None
    identity: Callable[[Bgr, Bgr], float] | None


@lru_cache(maxsize=1)
def open_metrics(data: Path) -> Metrics:
    """All metrics whose files are in `data` or its directory `weights`; SSIM, PSNR and flicker need none."""
    folder = data / "weights" if (data / "weights").is_dir() else data
    names = {"ssim": "SSIM (luma, Gaussian window 11x11)", "psnr": "PSNR (luma)", "flicker": "flicker (semcall's)"}
    missing: dict[str, str] = {}

    def opened(short: str, make: Callable[[], Metric]) -> Metric | None:
        try:
            metric = make()
        except SemcallError as error:
            missing[short] = str(error)
            return None
        names[short] = metric.name
        return metric

    brisque = opened("brisque", lambda: _brisque(folder))
    distance = opened("distance", lambda: Perceptual(folder))
    identity = opened("identity", lambda: _identity(folder))
    return Metrics(names, missing, brisque, distance, identity)


def fits(picture: Bgr) -> bool:
    """Whether a picture is large enough for every metric."""
    return bool(min(picture.shape[:2]) >= LEAST)


def _brisque(folder: Path) -> Brisque:
    if not (folder / BRISQUE_MODEL).exists():
        raise SemcallError(f"BRISQUE is left out: {folder} has no {BRISQUE_MODEL} (docs/metrics.md says whence).")
    return Brisque(folder)


def _identity(folder: Path) -> Identity:
    for name in (EMBEDDER, DETECTOR):
        if not (folder / name).exists():
            raise SemcallError(f"Identity similarity is left out: {folder} has no {name}.")
    return Identity(folder / EMBEDDER, folder / DETECTOR)
