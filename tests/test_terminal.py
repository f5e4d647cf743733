"""The headless view, and finding out that there is no display."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from receiver.terminal import TerminalView, _reason, display_problem, plain_line, table
from shared.stats import Stats

ROOT = Path(__file__).resolve().parents[1]
LIVE = Stats(
    state="live",
    width=1280,
    height=720,
    fps=29.94,
    kbps=401.7,
    face_share=0.163,
    restorer="small on CPU, whole picture",
    restore_ms=14.26,
    restored_percent=97.4,
    latency_ms=41.2,
    lost=3,
    dropped=5,
)
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="X and Wayland are Linux matters")


def rendered(stats: Stats) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(table(stats))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def shown_while(
    console: Console, stats: Callable[[], Stats], enough: threading.Event, plain_period: float = 5.0
) -> str:
    view = TerminalView(stats, console, period=0.01, plain_period=plain_period)
    with view:
        assert enough.wait(10)
    view.stop()  # may be repeated
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


class Script:
    """Hands out `states` one per call, then the last for ever, and says when it has been asked often enough."""

    def __init__(self, states: list[Stats], calls: int) -> None:
        self.states, self.calls, self.count, self.enough = states, calls, 0, threading.Event()

    def __call__(self) -> Stats:
        self.count += 1
        if self.count >= self.calls:
            self.enough.set()
        return self.states[min(self.count, len(self.states)) - 1]


def test_table_has_every_figure() -> None:
    rows = {}
    for line in rendered(LIVE).splitlines():
        cells = [cell.strip() for cell in line.strip("│┃").split("│")]
        if len(cells) == 2:
            rows[cells[0]] = cells[1]
    assert rows == {
        "state": "live",
        "resolution": "1280x720",
        "frame rate": "29.9 fps",
        "bitrate": "402 kb/s",
        "face share": "16%",
        "restorer": "small on CPU, whole picture",
        "restoration": "14.3 ms",
        "restored": "97%",
        "latency": "41 ms",
        "packets lost": "3",
        "pictures dropped": "5",
    }


def test_table_shows_a_dash_for_the_unknown_and_keeps_brackets() -> None:
    text = rendered(Stats(state="waiting for a caller at http://[::1]:8787"))
    assert "http://[::1]:8787" in text
    assert text.count("–") == 4
    assert "0%" in rendered(Stats(face_share=0.0)).split("face share")[1].splitlines()[0]


def test_what_is_no_longer_written_is_shown_first() -> None:
    stats = replace(LIVE, trouble="log and recording stopped")
    assert "log and recording stopped" in rendered(stats)
    assert plain_line(stats).startswith("log and recording stopped · 1280x720")


def test_live_table_follows_the_figures_and_restores_the_cursor() -> None:
    script = Script([Stats(state="waiting"), LIVE], 6)
    console = Console(file=io.StringIO(), force_terminal=True, width=80, _environ={"TERM": "xterm"})
    text = shown_while(console, script, script.enough)
    assert "waiting" in text
    assert text.rfind("402 kb/s") > text.rfind("waiting")
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l") >= 0


def test_plain_output_has_lines_and_no_control_codes() -> None:
    script = Script([Stats(state="waiting"), Stats(state="waiting"), LIVE, LIVE, Stats(state="call ended")], 8)
    console = Console(file=io.StringIO(), width=40)
    text = shown_while(console, script, script.enough)
    assert "\x1b" not in text
    assert text.splitlines() == [
        "waiting",
        "1280x720 · 30 fps · 402 kb/s · face 16% · small on CPU, whole picture 14 ms · latency 41 ms · lost 3"
        " · restored 97% · dropped 5",
        "call ended",
    ]


def test_plain_output_repeats_during_a_call() -> None:
    script = Script([LIVE], 12)
    text = shown_while(Console(file=io.StringIO()), script, script.enough, plain_period=0.03)
    assert 3 <= text.count(plain_line(LIVE) + "\n") <= script.count // 3 + 2


def test_plain_output_is_not_flooded_by_a_counting_state() -> None:
    script = Script([LIVE] + [Stats(state=f"No media for {n} s") for n in range(2, 14)], 16)
    lines = shown_while(Console(file=io.StringIO()), script, script.enough, plain_period=0.05).splitlines()
    assert lines == [plain_line(LIVE), *(f"No media for {n} s" for n in (2, 7, 12)), "No media for 13 s"]


def test_plain_line_of_a_waiting_receiver_is_its_state() -> None:
    assert plain_line(Stats(state="waiting")) == "waiting"


@linux
def test_no_display_is_said_without_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    assert display_problem() == "neither DISPLAY nor WAYLAND_DISPLAY is set"


@linux
def test_a_dead_display_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("QT_QPA_PLATFORM", raising=False)
    monkeypatch.setenv("DISPLAY", ":9999")
    problem = display_problem()
    assert problem is not None
    assert ":9999" in problem or "librar" in problem or "lib" in problem
    assert "\n" not in problem


@linux
def test_an_unknown_platform_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QT_QPA_PLATFORM", "nonesuch")
    assert "nonesuch" in (display_problem() or "")


@linux
def test_missing_system_libraries_are_no_display(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "PySide6").mkdir()
    message = "libEGL.so.1: cannot open shared object file"
    (tmp_path / "PySide6" / "__init__.py").write_text(f"raise ImportError({message!r})")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    assert display_problem() == f"Qt does not start: ImportError: {message}"


@linux
def test_a_display_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "PySide6").mkdir()
    (tmp_path / "PySide6" / "__init__.py").write_text("import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    assert display_problem(timeout=0.5) == "the display does not answer within 0.5 s"


def test_reasons_are_qts_own_words() -> None:
    dead = (
        "qt.qpa.xcb: could not connect to display :5\n"
        "qt.qpa.plugin: From 6.5.0, xcb-cursor0 or libxcb-cursor0 is needed to load the Qt xcb platform plugin.\n"
    )
    assert _reason(dead) == "could not connect to display :5"
    assert _reason(dead.splitlines()[1]).startswith("Qt lacks system libraries: From 6.5.0, xcb-cursor0")
    assert _reason("Traceback\n  x\nImportError: libGL.so.1\n\n") == "Qt does not start: ImportError: libGL.so.1"
    assert _reason("") == "Qt does not start"


def test_headless_imports_no_qt() -> None:
    code = "import sys, receiver.terminal; print([name for name in sys.modules if name.startswith('PySide6')])"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "[]\n"
