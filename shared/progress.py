"""The progress bar of the commands that go through a file."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Progressed = Callable[[int, int | None], None]
"""Told after every picture: how many are done, and how many there will be, as far as is known."""


@contextlib.contextmanager
def progress_bar(console: Console) -> Iterator[Progressed]:
    """A bar with pictures per second, gone when the block ends; nothing where `console` is no terminal."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None, speed="")
        start = time.monotonic()

        def progressed(done: int, total: int | None) -> None:
            speed = f"{done / max(time.monotonic() - start, 1e-3):.0f} fps"
            bar.update(task, completed=done, total=total, speed=speed)

        yield progressed
