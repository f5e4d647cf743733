"""The arrows between the rooms: semcall -> sender | receiver | models -> shared, and who may know torch and Qt."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "semcall": {"sender", "receiver", "models", "shared"},
    "sender": {"sender", "shared"},
    "receiver": {"receiver", "shared"},
    "models": {"models", "shared"},
    "shared": {"shared"},
}
TORCH = {"torch", "torchvision", "onnx"}
TORCH_ROOMS = ("models/networks/", "models/training/")
QT = {"PySide6", "shiboken6"}
QT_ROOMS = ("receiver/window.py", "receiver/view.py")
QT_INSIDE_FUNCTIONS = ("receiver/app.py",)


def modules() -> list[Path]:
    files = [ROOT / "semcall.py"]
    for package in ("sender", "receiver", "models", "shared"):
        files += sorted((ROOT / package).rglob("*.py"))
    return files


def imports(source: str) -> Iterator[tuple[str, int]]:
    """Top-level name and line of every import, wherever in the source it stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield ("." * node.level + (node.module or "")).partition(".")[0] if not node.level else ".", node.lineno
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "import_module",
            "importlib.import_module",
            "__import__",
        ):
            name = node.args[0]
            yield (str(name.value).partition(".")[0] if isinstance(name, ast.Constant) else "?"), node.lineno


def breaches(name: str, source: str) -> list[str]:
    """What the module `name` (a path below the root) imports and must not."""
    room = name.removesuffix(".py").partition("/")[0]
    top_level = {node.lineno for node in ast.parse(source).body}
    found = []
    for target, line in imports(source):
        wrong = target in MAY_IMPORT and target not in MAY_IMPORT[room]
        wrong |= target in (".", "?", "tests")
        wrong |= target in TORCH and not name.startswith(TORCH_ROOMS)
        lazily = name in QT_INSIDE_FUNCTIONS and line not in top_level
        wrong |= target in QT and name not in QT_ROOMS and not lazily
        if wrong:
            found.append(f"{name}:{line} imports {target}")
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_follow_the_arrows(path: Path) -> None:
    assert breaches(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("sender/a.py", "import receiver.app"),
        ("receiver/a.py", "def f():\n    from sender.app import send"),
        ("shared/a.py", "class A:\n    def f(self):\n        import models.registry"),
        ("models/registry.py", "from receiver.decoder import Decoder"),
        ("models/registry.py", "if True:\n    import torch.nn as nn"),
        ("models/evaluation/a.py", "import onnx"),
        ("receiver/decoder.py", "import onnxruntime, torch"),
        ("receiver/display.py", "def f():\n    import PySide6"),
        ("receiver/app.py", "from PySide6 import QtCore"),
        ("sender/a.py", "from . import b"),
        ("sender/a.py", "import importlib\nimportlib.import_module('receiver.app')"),
        ("shared/a.py", "name = 'sender'\n__import__(name)"),
        ("semcall.py", "import torch"),
    ],
)
def test_the_rules_bite(name: str, source: str) -> None:
    assert len(breaches(name, source)) == 1


def test_the_rules_let_pass_what_is_right() -> None:
    assert breaches("receiver/decoder.py", "import onnxruntime\nfrom shared.errors import SemcallError") == []
    assert breaches("receiver/app.py", "def f():\n    from PySide6 import QtCore") == []
    assert breaches("models/networks/a.py", "import torch\nfrom models.registry import Model") == []
    assert breaches("semcall.py", "import sender.app, receiver.app, models.registry, shared.errors") == []


def test_every_room_is_looked_at() -> None:
    rooms = {path.relative_to(ROOT).parts[0] for path in modules()}
    assert rooms == {"semcall.py", "sender", "receiver", "models", "shared"}
    assert len(modules()) > 30


def test_a_call_loads_neither_torch_nor_qt() -> None:
    code = (
        "import sys; import semcall, sender.app, receiver.app, models.registry; "
        "print(sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    loaded = set(ast.literal_eval(done.stdout))
    assert {"aiortc", "av", "onnxruntime"} <= loaded
    assert not loaded & (TORCH | QT)
