"""Which restorers a receiver opens, and what it does without."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.errors import SemcallError
from shared.providers import GPUS
from shared.restorer import Restorer

LARGEST_ON_CPUS = 400_000
"""Parameters of the largest network that a CPU runs in a call unasked. A larger one had time for the face alone: 0.6
points there, which the next one on the whole picture outweighs on frames, and later pictures (docs/restorer.md)."""


@dataclass(frozen=True, slots=True)
class RestorerFile:
    """A restorer to open. `needs_gpu`: only where one works; `optional`: the call goes on without it."""

    path: Path
    name: str
    needs_gpu: bool = False
    optional: bool = False


def left_to_gpus(card: Mapping[str, Any]) -> bool:
    """Whether a call that may choose runs the network of this card on GPUs alone."""
    return card.get("needs_gpu") is True or int(card.get("parameters") or 0) > LARGEST_ON_CPUS


def open_restorers(
    files: Sequence[RestorerFile], threads: int | None = None
) -> tuple[list[Restorer], dict[str, str]]:
    """The networks in `files`, in that order, without those that need a GPU where none works; and what fails, why.

    `threads`: CPU threads of one restoration; default: two where there are two. The second result holds optional
    ones by name. Raises SemcallError as Restorer does for the others.
    """
    threads = threads or min(2, os.cpu_count() or 1)
    opened: list[Restorer] = []
    lost: dict[str, str] = {}
    for file in files:
        try:
            restorer = Restorer(file.path, file.name, threads)
        except SemcallError as error:
            if not file.optional:
                raise
            lost[file.name] = str(error)
            continue
        if not file.needs_gpu or restorer.device in GPUS:
            opened.append(restorer)
    return opened, lost
