"""What a study has measured, kept cell by cell: a run that is interrupted goes on, one that is repeated is done.

A cell's key is a digest of all that its figures depend on: the clip's content, the coding, the parser, the restorer,
the metrics that there are, and the code that codes and measures. Whatever changes, what depends on it is done anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[3]


class Store:
    """JSON documents by key in a directory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str) -> dict[str, Any] | None:
        """What was kept under `key`; None where nothing was, or nothing whole."""
        try:
            kept = json.loads(self._path(key).read_text())
        except (OSError, ValueError):
            return None
        return kept if isinstance(kept, dict) else None

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Keep `value`, never half of it."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(value, indent=1, allow_nan=False))
        part.replace(path)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"


def key_of(facts: dict[str, Any]) -> str:
    """Twenty hex digits that stand for `facts`, whatever their order.

    >>> key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1}), key_of({"a": 1}) == key_of({"a": 2})
    (True, False)
    """
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]


class Digests:
    """SHA-256 of files, remembered by path, size and time of change: a large data set is read once."""

    def __init__(self, folder: Path) -> None:
        self._store = Store(folder)

    def of(self, path: Path) -> str:
        """Hex digest of a file's content. Raises OSError where it cannot be read."""
        status = path.stat()
        key = key_of({"path": str(path.resolve()), "size": status.st_size, "changed": status.st_mtime_ns})
        kept = self._store.get(key)
        if kept is None:
            with path.open("rb") as file:
                kept = {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}
            self._store.put(key, kept)
        return str(kept["sha256"])


def code_digest(parts: Iterable[str]) -> str:
    """Of our own sources: files and directories (all that is in them) by their paths from the project's root.

    >>> code_digest(["sender", "shared"]) == code_digest(["sender", "shared"])
    True
    """
    digest = hashlib.sha256()
    for part in parts:
        root = _ROOT / part
        for path in sorted(root.rglob("*.py")) if root.is_dir() else [root]:
            digest.update(path.relative_to(_ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()
