"""A way to restore pictures: a network on all of them, or on the face alone; and how long it takes."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from receiver.face_region import restore_face
from shared.picture import I420


class Network(Protocol):
    """What the ladder needs of one (shared/restorer.py)."""

    name: str

    @property
    def device(self) -> str:
        """Where it runs, as the user reads it."""
        ...

    def restore(self, i420: I420, qp: NDArray[np.uint8]) -> I420:
        """The repaired picture, a new array of the same shape. Raises SemcallError when it cannot go on."""
        ...

    def accelerate(self) -> bool:
        """Go over to something faster, maybe minutes later; whether there is such a thing."""
        ...


@dataclass(frozen=True, slots=True)
class Rung:
    """A network on the whole picture, or on the face alone."""

    network: Network
    face_only: bool

    def __str__(self) -> str:
        return f"{self.network.name}, {self.part}"

    @property
    def part(self) -> str:
        """What it restores, as the user reads it."""
        return "face only" if self.face_only else "whole picture"

    def restore(self, i420: I420, qp: NDArray[np.uint8]) -> I420:
        """The picture restored, all of it or the face."""
        restore = self.network.restore
        return restore_face(restore, i420, qp) if self.face_only else restore(i420, qp)

    def timed(self, i420: I420, qp: NDArray[np.uint8], runs: int, slow: float) -> float:
        """Seconds that a restoration takes, at best of so many; of fewer where the best takes more than `slow`."""
        best = math.inf
        for _ in range(runs):
            start = time.perf_counter()
            self.restore(i420, qp)
            best = min(best, time.perf_counter() - start)
            if best > slow:
                break
        return best


def rungs(networks: Sequence[Network]) -> list[Rung]:
    """The ladder's, from the top; `networks`: the largest first."""
    return [Rung(network, face_only) for network in networks for face_only in (False, True)]
