"""`semcall models`: list, info, verify, add, remove."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import call
from faces import bright_model

from models.registry import WEIGHTS
from shared.contracts import check_file
from shared.errors import SemcallError

SMALL = WEIGHTS / "small.onnx"
Say = Callable[..., str]


@pytest.fixture(autouse=True)
def mine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The user's folder of models, which does not exist at first."""
    monkeypatch.setenv("COLUMNS", "100")
    folder = tmp_path / "data" / "models"
    monkeypatch.setenv("SEMCALL_MODELS", str(folder))
    return folder


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Say:
    """Runs `semcall models ...`, which must succeed, and returns what it printed."""

    def run(*arguments: object) -> str:
        capfd.readouterr()
        assert call(monkeypatch, "models", *arguments) == 0, capfd.readouterr().err
        printed = capfd.readouterr()
        assert printed.err == ""
        return printed.out

    return run


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Say:
    """Runs `semcall models ...`, which must fail and change nothing, and returns its sentence."""

    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def run(*arguments: object) -> str:
        before = files()
        capfd.readouterr()
        assert call(monkeypatch, "models", *arguments) == 2
        sentence = capfd.readouterr().err
        assert sentence.startswith("semcall: ")
        assert sentence.endswith(".\n")
        assert sentence.count("\n") == 1
        assert files() == before
        return sentence

    return run


def copy(folder: Path, name: str, /, **changes: Any) -> Path:
    """The shipped restorer under another name, its card changed."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.onnx"
    path.write_bytes(SMALL.read_bytes())
    card = {**json.loads(SMALL.with_suffix(".json").read_text()), "name": name, **changes}
    path.with_suffix(".json").write_text(json.dumps(card))
    return path


def bright_parser(folder: Path, name: str) -> Path:
    """A face parser of that name."""
    path = bright_model(folder, card={"name": name}).model
    assert path is not None
    path.with_suffix(".json").rename(folder / f"{name}.json")
    return path.rename(folder / f"{name}.onnx")


@pytest.mark.parametrize("command", ["", "list", "info", "verify", "add", "remove"])
def test_help_fits_one_screen(monkeypatch: pytest.MonkeyPatch, said: Say, command: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = said(*command.split(), "--help").splitlines()
    assert lines[1].strip().startswith(f"Usage: semcall models {command}".rstrip())
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80


def test_list(said: Say, mine: Path) -> None:
    assert {row["name"]: row["from"] for row in json.loads(said("list", "--json"))}["small"] == "shipped"
    copy(mine, "other", licence="CC-BY-4.0 [draft]")
    rows = {row["name"]: row for row in json.loads(said("list", "--json"))}
    assert rows["other"] == {
        "name": "other",
        "kind": "restorer",
        "bytes": SMALL.stat().st_size,
        "parameters": 23664,
        "licence": "CC-BY-4.0 [draft]",
        "from": "yours",
        "path": str(mine / "other.onnx"),
    }
    lines = said("list").splitlines()
    assert lines[0].split() == ["name", "kind", "size", "parameters", "licence", "from"]
    (line,) = [line for line in lines if line.split()[0] == "other"]
    assert line.split() == ["other", "restorer", "30", "kB", "24", "k", "CC-BY-4.0", "[draft]", "yours"]


def test_info(said: Say) -> None:
    printed = said("info", "small")
    for part in (
        "MIT",
        "frame psnr",
        "semcall train restorer",
        "talking-head clips",
        "58: 20 CC-BY-4.0",
        "uint8 [1, 1, H, W]",
    ):
        assert part in printed
    card = json.loads(SMALL.with_suffix(".json").read_text())
    assert json.loads(said("info", "small", "--json")) == card
    found = [row["face"]["flicker"] for row in card["metrics"]["results"]]
    before, after = (sum(pair[i] for pair in found) / len(found) for i in (0, 1))
    assert f"mean of {len(found)}: " in printed
    assert f"face flicker {before:.4g} -> {after:.4g}" in " ".join(printed.split())


def test_verify(said: Say, mine: Path) -> None:
    copy(mine, "other")
    assert {"other: ok", "small: ok"} <= set(said("verify").splitlines())
    assert said("verify", "small") == "small: ok\n"


def test_verify_names_what_failed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], refused: Say, mine: Path
) -> None:
    damaged = copy(mine, "damaged")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    copy(mine, "parser", kind="face-parser")
    copy(mine, "later", contract=2)
    copy(mine, "odd", kind="colouriser")
    copy(mine, "lost").unlink()
    assert call(monkeypatch, "models", "verify", "small", "damaged", "parser", "later", "odd", "lost") == 2
    printed = capfd.readouterr()
    lines = dict(line.split(": ", 1) for line in printed.out.splitlines())
    assert lines["small"] == "ok"
    assert "is damaged: its SHA-256" in lines["damaged"]
    assert "does not keep the face-parser contract" in lines["parser"]
    assert "follows version 2 of the restorer contract" in lines["later"]
    assert "is of a kind that this release of semcall does not run" in lines["odd"]
    assert "cannot be read" in lines["lost"]
    assert "5 of 6 models failed (damaged, parser, later, odd, lost)" in printed.err
    assert "1 of 1 models failed (later)" in refused("verify", "later")


def test_verify_opens_the_file(refused: Say, mine: Path) -> None:
    """A checksum that fits says nothing about what is inside."""
    path = copy(mine, "text", sha256=hashlib.sha256(b"no network").hexdigest())
    path.write_bytes(b"no network")
    assert "1 of 1 models failed (text)" in refused("verify", "text")
    with pytest.raises(SemcallError, match="is damaged or no ONNX model"):
        check_file(path, "restorer", {})


def test_names_that_are_none(refused: Say) -> None:
    for command in ("info", "verify", "remove"):
        assert "There is no model called 'smal'; known are: " in refused(command, "smal")
    assert "semcall models add bisenet CHECKPOINT" in refused("info", "bisenet")


def test_add_and_remove(said: Say, refused: Say, mine: Path, tmp_path: Path) -> None:
    path = copy(tmp_path, "other")
    printed = said("add", path)
    assert str(mine / "other.onnx") in printed
    assert "semcall receive --restore other" in printed
    assert (mine / "other.onnx").read_bytes() == path.read_bytes()
    assert said("verify", "other") == "other: ok\n"
    assert "There is a model called other already" in refused("add", path)
    copy(tmp_path, "other", licence="BSD-2-Clause")
    said("add", path, "--force")
    assert json.loads(said("info", "other", "--json"))["licence"] == "BSD-2-Clause"
    assert said("remove", "other") == f"Removed {mine / 'other.onnx'}.\n"
    assert list(mine.iterdir()) == []
    assert "no model called 'other'" in refused("remove", "other")


def test_shipped_names_are_taken(refused: Say, tmp_path: Path) -> None:
    path = copy(tmp_path, "mine", name="small")
    for force in ((), ("--force",)):
        assert "small is the name of a model that comes with semcall" in refused("add", path, *force)
    assert "small comes with semcall and stays" in refused("remove", "small")
    assert SMALL.exists()


def test_files_that_cannot_be_added(refused: Say, tmp_path: Path) -> None:
    assert "cannot be read" in refused("add", tmp_path / "gone.onnx")
    assert "is no .onnx file" in refused("add", tmp_path / "net.pth")
    assert "is no .onnx file" in refused("add", "small")
    bare = copy(tmp_path, "bare")
    bare.with_suffix(".json").unlink()
    assert "has no card; put bare.json next to it" in refused("add", bare)
    damaged = copy(tmp_path, "damaged", sha256="0" * 64)
    assert "damaged: its SHA-256" in refused("add", damaged)
    assert "follows version 2" in refused("add", copy(tmp_path, "later", contract=2))
    assert "does not keep the face-parser contract" in refused("add", copy(tmp_path, "face", kind="face-parser"))
    assert "cannot be called '../up'" in refused("add", copy(tmp_path, "up", name="../up"))


def test_a_folder_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, refused: Say, said: Say, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("precious")
    monkeypatch.setenv("SEMCALL_MODELS", str(tmp_path / "file"))
    assert "Cannot write" in refused("add", copy(tmp_path, "other"))
    assert "small" in said("list")


def test_a_users_broken_card_hides_no_other(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], said: Say, refused: Say, mine: Path
) -> None:
    copy(mine, "fine")
    path = copy(mine, "other")
    path.with_suffix(".json").write_text(r'{"name": "\ud800"}')
    printed = said("list")
    assert "small" in printed
    assert "fine" in printed
    assert "other.json cannot be read" in printed
    rows = {row["name"]: row for row in json.loads(said("list", "--json"))}
    assert "other.json cannot be read" in rows["other"]["problem"]
    assert "problem" not in rows["fine"]
    assert "other.json cannot be read" in refused("info", "other")
    assert call(monkeypatch, "models", "verify") == 2
    printed = capfd.readouterr().out
    assert "fine: ok\n" in printed
    assert "other: The model card" in printed
    assert "called other already" in refused("add", copy(mine.parent, "other"))
    said("add", mine.parent / "other.onnx", "--force")
    assert said("verify", "other") == "other: ok\n"
    path.with_suffix(".json").write_text("{")
    said("remove", "other")
    assert not path.exists()


def test_a_file_without_its_card_is_not_overwritten(said: Say, refused: Say, mine: Path, tmp_path: Path) -> None:
    copy(mine, "other").with_suffix(".json").unlink()
    assert "There is a model called other already" in refused("add", copy(tmp_path, "other"))
    said("add", tmp_path / "other.onnx", "--force")
    assert said("verify", "other") == "other: ok\n"


def test_names_are_those_of_the_files(said: Say, refused: Say, mine: Path, tmp_path: Path) -> None:
    """A card copied by hand and called otherwise stands in nobody's way."""
    copy(mine, "aaa", name="zed", licence="old")
    said("add", copy(tmp_path, "zed", licence="new"))
    rows = {row["name"]: row["licence"] for row in json.loads(said("list", "--json"))}
    assert (rows["aaa"], rows["zed"]) == ("old", "new")
    said("add", copy(tmp_path, "zed", licence="newer"), "--force")
    assert json.loads(said("info", "zed", "--json"))["licence"] == "newer"
    said("remove", "zed")
    assert "no model called 'zed'" in refused("info", "zed")
    assert json.loads(said("info", "aaa", "--json"))["licence"] == "old"


def test_reserved_names(said: Say, refused: Say, tmp_path: Path) -> None:
    assert "cannot be called 'off', which options use" in refused("add", copy(tmp_path, "off"))
    assert "cannot be called None" in refused("add", copy(tmp_path, "none", name=None))
    assert "a face-parser is needed" in refused("add", copy(tmp_path, "bisenet"))
    said("add", bright_parser(tmp_path, "bisenet"))
    assert said("verify", "bisenet") == "bisenet: ok\n"


def test_a_card_without_a_kind(refused: Say, mine: Path, tmp_path: Path) -> None:
    path = copy(tmp_path, "x", kind=None)
    assert "names no `kind`; it has to be one of restorer, face-parser" in refused("add", path)
    copy(mine, "x", kind=None)
    assert "1 of 1 models failed (x)" in refused("verify", "x")


def test_strange_numbers_on_a_card(said: Say, mine: Path) -> None:
    results = [{"a": 10**400, "b": float("inf"), "c": 1}, {"a": 1, "b": float("-inf"), "c": 2}]
    copy(mine, "odd", bytes=10**400, parameters=True, licence=None, metrics={"results": results})
    (line,) = [line for line in said("list").splitlines() if line.split()[0] == "odd"]
    assert line.split() == ["odd", "restorer", "?", "?", "?", "yours"]
    assert "c 1.5" in said("info", "odd")


def test_how_to_say_add(refused: Say, tmp_path: Path) -> None:
    assert "models add bisenet CHECKPOINT" in refused("add", "bisenet")
    assert "models add bisenet CHECKPOINT" in refused("add", tmp_path / "a.onnx", tmp_path / "b.pth")


def test_bisenet_without_torch(monkeypatch: pytest.MonkeyPatch, refused: Say, tmp_path: Path) -> None:
    for name in [name for name in sys.modules if name.startswith(("models.networks", "models.training"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "pip install 'semcall[train]'" in refused("add", "bisenet", tmp_path / "net.pth")


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs the train extra")
def test_bisenet(said: Say, refused: Say, mine: Path, tmp_path: Path) -> None:
    import torch

    from models.networks.bisenet import BiSeNet

    path = tmp_path / "net.pth"
    assert "cannot be read" in refused("add", "bisenet", path)
    torch.save({"fc.weight": torch.zeros(3)}, path)
    assert "it lacks cp.resnet.conv1.weight" in refused("add", "bisenet", path)
    torch.manual_seed(0)
    torch.save({f"module.{name}": value for name, value in BiSeNet().state_dict().items()}, path)
    printed = said("add", "bisenet", path)
    assert str(mine / "bisenet.onnx") in printed
    assert "semcall send --face bisenet" in printed
    card = json.loads(said("info", "bisenet", "--json"))
    assert card["input"] == {"pixels": 512 * 288, "multiple": 32}
    assert card["training_data"]["checkpoint_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert "non-commercial" in card["licence"]
    assert str(tmp_path) not in json.dumps(card)
    assert said("verify", "bisenet") == "bisenet: ok\n"
    assert "replace it with --force" in refused("add", "bisenet", path)
