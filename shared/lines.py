"""JSON lines about a running call: a log that may fail without taking the call with it."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from shared.errors import SemcallError


class JsonLines:
    """One JSON object per line into `path`, or nowhere for None; `append`: after what it holds. Thread-safe.

    Raises SemcallError at once when the file cannot be written. A write that fails later (a full disk) ends the
    log, not its caller: `error` then says why. A file that was made here and got no line is removed by `close`.
    """

    def __init__(self, path: Path | None, append: bool = False) -> None:
        self._path = path
        self._created = path is not None and not path.exists()
        self._lock = threading.Lock()
        self._file = None if path is None else _open(path, "a" if append else "w")
        self.error: OSError | None = None

    def write(self, record: Mapping[str, object]) -> None:
        """Add one line; ignored once closed or failed."""
        with self._lock:
            if self._file is None:
                return
            try:
                self._file.write(json.dumps(record) + "\n")
            except OSError as error:
                self._fail(error)

    def close(self) -> None:
        """Finish the file; safe to call twice."""
        with self._lock:
            file, self._file = self._file, None
            if file is None or self._path is None:
                return
            try:
                file.close()
            except OSError as error:
                self.error = error
            with contextlib.suppress(OSError):
                if self._created and self._path.stat().st_size == 0:
                    self._path.unlink()

    def _fail(self, error: OSError) -> None:
        file, self._file, self.error = self._file, None, error
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines. Raises OSError and ValueError for what cannot be read."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def require_writable(path: Path | None) -> None:
    """Raise the SemcallError that `JsonLines` would raise, and leave the file or its absence as it is."""
    if path is not None:
        existed = path.exists()
        _open(path, "a").close()
        if not existed:
            path.unlink()


def _open(path: Path, mode: str) -> IO[str]:
    try:
        return path.open(mode, encoding="utf-8")
    except OSError as error:
        raise SemcallError(f"Cannot write {path} ({error.strerror}): choose another --stats file.") from None
