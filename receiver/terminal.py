"""A receiver without a window: why there is none, and the call's figures live in the terminal."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Callable

from rich.console import Console
from rich.live import Live
from rich.table import Table

from shared.stats import Stats

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


class TerminalView:
    """Shows `stats()` twice a second as a live table; where the output is no terminal, as a plain line now and then.

    Plain lines come at once when the state changes, and every `plain_period` seconds where there is news.
    Runs in a thread of its own between `start` and `stop`; use it as a context manager or call both.
    """

    def __init__(
        self,
        stats: Callable[[], Stats],
        console: Console | None = None,
        period: float = 0.5,
        plain_period: float = 5.0,
    ) -> None:
        """`stats` is called from the view's thread; `period` and `plain_period` are seconds."""
        self._stats = stats
        self._console = console or Console()
        self._period = period
        self._plain_period = plain_period
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to show."""
        run = self._run_live if self._console.is_terminal else self._run_plain
        self._thread = threading.Thread(target=run, name="terminal", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Show the figures a last time and leave the terminal as it was. May be repeated."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> TerminalView:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run_live(self) -> None:
        with Live(table(self._stats()), console=self._console, auto_refresh=False) as live:
            while not self._stop.wait(self._period):
                live.update(table(self._stats()), refresh=True)
            live.update(table(self._stats()), refresh=True)

    def _run_plain(self) -> None:
        kind, said, since = "", "", 0.0
        while True:
            last = self._stop.wait(self._period if kind else 0)
            stats = self._stats()
            since += self._period
            due = last or since >= self._plain_period
            if _kind(stats) != kind or (due and stats.state != said):
                self._console.print(plain_line(stats), markup=False, highlight=False, soft_wrap=True)
                kind, since = _kind(stats), 0.0
                said = "" if stats.state == "live" else stats.state
            if last:
                return


def _kind(stats: Stats) -> str:
    """The state without its numbers: "No media for 3 s" is no news after "No media for 2 s"."""
    return "".join(letter for letter in stats.state if not letter.isdigit())


def plain_line(stats: Stats) -> str:
    """One line with everything that the table shows."""
    if stats.state != "live":
        return stats.line()
    return f"{stats.line()} · restored {stats.restored_percent:.0f}% · dropped {stats.dropped}"


def table(stats: Stats) -> Table:
    """The figures as two columns; a dash where a figure is not known."""
    rows = {
        "state": stats.state,
        "resolution": f"{stats.width}x{stats.height}" if stats.width else "–",
        "frame rate": f"{stats.fps:.1f} fps",
        "bitrate": f"{stats.kbps:.0f} kb/s",
        "face share": _known(stats.face_share and stats.face_share * 100, "%"),
        "restorer": stats.restorer,
        "restoration": _known(stats.restore_ms, " ms", 1),
        "restored": f"{stats.restored_percent:.0f}%",
        "latency": _known(stats.latency_ms, " ms"),
        "packets lost": str(stats.lost),
        "pictures dropped": str(stats.dropped),
    }
    if stats.trouble:
        rows["trouble"] = stats.trouble
    result = Table(title="semcall receive", title_justify="left", show_header=False, min_width=44)
    result.add_column(style="dim", no_wrap=True)
    result.add_column(overflow="fold")
    for name, value in rows.items():
        result.add_row(name, f"[bold green]{value}[/]" if value == "live" else _escaped(value))
    return result


def _known(value: float | None, unit: str, digits: int = 0) -> str:
    return "–" if value is None else f"{value:.{digits}f}{unit}"


def _escaped(text: str) -> str:
    """Addresses such as http://[::1]:8787 are no markup."""
    return text.replace("[", "\\[")
