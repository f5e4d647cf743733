"""Finding out that there is no display."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from receiver.display import _reason, display_problem

ROOT = Path(__file__).resolve().parents[1]
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="X and Wayland are Linux matters")


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
    code = "import sys, receiver.display, shared.terminal; print([name for name in sys.modules if 'PySide6' in name])"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "[]\n"
