"""Contact sheets of masks on clips, to be looked at."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from benchmarks.face.candidates import Candidate
from benchmarks.face.material import Footage
from benchmarks.face.quality import masks_of
from models.training.face.labels import tiled
from sender.overlay import overlay
from shared.picture import bgr_from_i420


def sheet(candidate: Candidate, clips: list[Footage], path: Path, columns: int = 6) -> None:
    """A row of frames, evenly spread, per clip."""
    cells = []
    for clip in clips:
        shown = {int(n) for n in np.linspace(0, len(clip.frames) - 1, columns)}
        row = [
            bgr_from_i420(overlay(i420, mask))
            for n, (i420, mask) in enumerate(masks_of(candidate, clip))
            if n in shown
        ]
        row += [np.zeros_like(row[0])] * (columns - len(row))
        cv2.putText(row[0], clip.name, (8, row[0].shape[0] - 12), cv2.FONT_HERSHEY_SIMPLEX, 1.2, (0, 255, 255), 3)
        cells += row
    cv2.imwrite(str(path), tiled(cells, columns, (320, 180)))
