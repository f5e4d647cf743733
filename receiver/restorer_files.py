"""Which restorers a receiver opens, and what it does without."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.errors import SemcallError
from shared.providers import GPUS
from shared.restorer import Restorer


@dataclass(frozen=True, slots=True)
class RestorerFile:
    """A restorer to open. `needs_gpu`: only where one works; `optional`: the call goes on without it."""

    path: Path
    name: str
    needs_gpu: bool = False
    optional: bool = False


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
