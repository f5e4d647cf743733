"""Printing what a command was asked for: that it cannot be written is an error like any other file's."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from shared.errors import SemcallError


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """What the block prints has reached stdout when it ends. The block must do nothing else that raises OSError.

    Raises SemcallError when stdout is closed or takes no more (a full disk), and BrokenPipeError when its reader has
    gone away, which ends a command without a word.
    """
    if sys.stdout is None:  # closed by whoever started the command; print would say nothing
        raise SemcallError("Cannot write to standard output: it is closed; send it to a file or a terminal.")
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop_the_rest()
        reason = error.strerror or type(error).__name__
        raise SemcallError(f"Cannot write to standard output ({reason}): send it elsewhere.") from error


def _drop_the_rest() -> None:
    """Python writes what is buffered when it ends: that would fail again, with a message and exit code of its own."""
    with contextlib.suppress(OSError, ValueError):  # a stdout that is no file
        sink = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(sink, sys.stdout.fileno())
        finally:
            os.close(sink)
