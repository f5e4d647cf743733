"""Output files that are there in the end whole or not at all, and the folders for them."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from shared.errors import SemcallError


def require_free(path: Path, force: bool) -> None:
    """Raise SemcallError where `path` cannot become a new file: no such folder, or something is there.

    A regular file that is there, or a link to one, passes with `force`.
    """
    try:
        if not path.parent.is_dir():
            raise SemcallError(f"Cannot write {path}: the folder {path.parent} does not exist; create it first.")
        _require_replaceable(path)
        if os.path.lexists(path) and not force:
            raise SemcallError(f"Cannot write {path}: it exists; name another file or add --force.")
    except OSError as error:  # a name too long, a folder that may not be looked into
        raise _unwritable(path, error) from None


def make_folder(folder: Path, instead: str = "another --out") -> None:
    """Make a folder, and those it lies in, where it is not there. Raises SemcallError where it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SemcallError(f"Cannot write to {folder} ({error.strerror or error}); choose {instead}.") from error


def require_outputs(source: Path, out: Path | None, lines: Path | None, option: str, force: bool) -> None:
    """Everything about the outputs that can be said before the work, as SemcallError.

    `out`: an MP4 file, None for none; `lines`: a file of JSON lines that was asked for with `option`, None for none.
    """
    if out is not None and out.suffix.lower() != ".mp4":
        raise SemcallError(f"Cannot write {out}: the name has to end in .mp4.")
    if out is not None and lines is not None and os.path.realpath(lines) == os.path.realpath(out):
        raise SemcallError(f"Cannot write video and {option} both to {out}: choose two names.")
    for path in (out, lines):
        if path is None:
            continue
        with contextlib.suppress(OSError):  # one of the two is not there: said below, or when it is read
            if path.samefile(source):
                raise SemcallError(f"Cannot write {path}: it is the file to be read; choose another name.")
        require_free(path, force)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file beside `path` that takes its place when the block ends well and vanishes when it does not.

    Raises SemcallError where it cannot be written, and for a folder, device or pipe there.
    """
    part = path.with_name(f".semcall-{secrets.token_hex(4)}.part")
    try:
        try:
            _require_replaceable(path)
            part.open("xb").close()
        except OSError as error:
            raise _unwritable(path, error) from None
        yield part
        try:
            part.replace(path)
        except OSError as error:
            raise _unwritable(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def writing_lines(path: Path | None) -> Iterator[Callable[[str], None]]:
    """A function that writes one line to a file that is there in the end whole or not at all; None: to nowhere."""
    if path is None:
        yield lambda _line: None
        return
    with replacing(path) as part:
        file: IO[str] = part.open("w", encoding="utf-8")

        def write(line: str) -> None:
            try:
                file.write(line + "\n")
            except OSError as error:
                raise _unwritable(path, error) from None

        try:
            yield write
        except BaseException:
            with contextlib.suppress(OSError):
                file.close()
            raise
        try:
            file.close()
        except OSError as error:
            raise _unwritable(path, error) from None


def _require_replaceable(path: Path) -> None:
    """Raise SemcallError for what is there and no regular file: a new file must not take the place of a device."""
    if path.is_dir():
        raise SemcallError(f"Cannot write {path}: it is a folder; name a file in it.")
    if path.exists() and not path.is_file():
        raise SemcallError(f"Cannot write {path}: it is a device or a pipe, not a file; name another.")


def _unwritable(path: Path, error: OSError) -> SemcallError:
    return SemcallError(f"Cannot write {path} ({error.strerror or error}): nothing was kept; choose another place.")
