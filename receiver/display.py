"""Whether there is a screen for the receiver's window, and why not."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

_PROBE = """
import resource
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
from PySide6 import QtWidgets
QtWidgets.QApplication([])
"""


class NoDisplayError(Exception):
    """There is no screen for a window. The message says why, without a full stop."""


def display_problem(timeout: float = 10.0) -> str | None:
    """Why no window can be opened here, in a few words; None when one can.

    Imports no Qt: without a display Qt ends the process (SIGABRT), and where system libraries are missing its
    import fails. On Linux a short-lived child process tries it instead: about 0.2 s, at most `timeout` seconds.
    """
    if importlib.util.find_spec("PySide6") is None:
        return "PySide6 is not installed"
    if sys.platform in ("darwin", "win32"):
        return None
    if not any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")):
        return "neither DISPLAY nor WAYLAND_DISPLAY is set"
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return f"the display does not answer within {timeout:g} s"
    return None if probe.returncode == 0 else _reason(probe.stderr)


def _reason(stderr: str) -> str:
    """What a failed start of Qt says, in one line."""
    lines = [line.strip().rstrip(".") for line in stderr.splitlines() if line.strip()]
    for line in lines:
        if line.startswith("qt.qpa.") and "could not connect" in line:
            return line.split(": ", 1)[1]
    for line in lines:
        if line.startswith("qt.qpa.plugin: ") and "is needed to load" in line:
            return f"Qt lacks system libraries: {line.split(': ', 1)[1]}"
    for line in lines:
        if line.startswith("qt.qpa.plugin: "):
            return line.split(": ", 1)[1]
    return f"Qt does not start: {lines[-1]}" if lines else "Qt does not start"
