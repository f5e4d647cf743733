"""Finding and verifying models."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from models import registry
from models.registry import find_model, list_models, save_model, user_models, verify
from shared.errors import SemcallError


@pytest.fixture(autouse=True)
def mine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The user's folder of models, which does not exist at first."""
    folder = tmp_path / "data" / "models"
    monkeypatch.setenv("SEMCALL_MODELS", str(folder))
    return folder


def write_model(folder: Path, name: str, content: bytes = b"weights", /, **card: object) -> Path:
    path = folder / f"{name}.onnx"
    path.write_bytes(content)
    facts = {
        "name": name,
        "kind": "restorer",
        "contract": 1,
        "sha256": hashlib.sha256(content).hexdigest(),
        **card,
    }
    path.with_suffix(".json").write_text(json.dumps(facts))
    return path


SHIPPED = [model for model in list_models() if model.shipped]


@pytest.mark.parametrize("model", SHIPPED, ids=lambda model: model.name)
def test_shipped_models_are_what_their_cards_say(model: registry.Model) -> None:
    verify(model)
    assert model.card["kind"] in registry.CONTRACTS
    assert model.card["contract"] == registry.CONTRACTS[model.card["kind"]]
    assert model.card["licence"].startswith("MIT")
    assert model.card["command"].startswith("semcall ")
    assert model.card["training_data"]["clips"]
    assert model.card["metrics"]["definition"]


def test_the_small_restorer_ships() -> None:
    model = find_model("small")
    assert model.name == "small"
    assert model.path.name == "small.onnx"
    assert model.path.exists()


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(SemcallError, match=r"no restorer called 'smal'.*known are: .*small"):
        find_model("smal")


def test_a_restorer_is_no_face_parser() -> None:
    with pytest.raises(SemcallError, match="no parser called 'small'"):
        find_model("small", kind="parser")


def test_a_path_is_taken_with_its_card(tmp_path: Path) -> None:
    path = write_model(tmp_path, "mine")
    model = find_model(str(path))
    assert model.path == path
    assert model.card["name"] == "mine"


def test_a_path_without_card_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "bare.onnx"
    path.write_bytes(b"anything")
    model = find_model(str(path))
    assert model.name == "bare"
    assert not model.card


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SemcallError, match=r"cannot be read \(No such file or directory\)"):
        find_model(str(tmp_path / "gone.onnx"))


def test_a_directory_is_no_model(tmp_path: Path) -> None:
    folder = tmp_path / "folder.onnx"
    folder.mkdir()
    with pytest.raises(SemcallError, match="cannot be read"):
        find_model(str(folder))


def test_one_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = write_model(tmp_path, "mine")
    path.write_bytes(b"weightz")
    with pytest.raises(SemcallError, match="damaged: its SHA-256"):
        find_model(str(path))


def test_a_card_without_checksum_vouches_for_nothing(tmp_path: Path) -> None:
    with pytest.raises(SemcallError, match="damaged: its SHA-256"):
        find_model(str(write_model(tmp_path, "mine", sha256=None)))


def test_another_kind_or_contract_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SemcallError, match="of kind 'parser'; a restorer is needed"):
        find_model(str(write_model(tmp_path, "parser", kind="parser")))
    with pytest.raises(SemcallError, match=r"version 2 of the restorer contract; .* needs version 1"):
        find_model(str(write_model(tmp_path, "later", contract=2)))


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '"card"',
        "[" * 100_000 + "]" * 100_000,
        '{"metrics": ' + "[" * 30 + "]" * 30 + "}",
        r'{"name": "half \ud800"}',
        r'{"\udfff": 1}',
        '{"bytes": ' + "9" * 5000 + "}",
    ],
    ids=["cut", "list", "text", "too-deep-for-json", "deep", "half-character", "half-character-key", "long-number"],
)
def test_a_broken_card_is_named(tmp_path: Path, text: str) -> None:
    path = write_model(tmp_path, "mine")
    path.with_suffix(".json").write_text(text)
    with pytest.raises(SemcallError, match=r"model card .*mine\.json"):
        find_model(str(path))


@pytest.mark.parametrize("kind", [None, "", 7, ["restorer"]])
def test_a_card_without_a_kind_is_told_so(tmp_path: Path, kind: object) -> None:
    with pytest.raises(SemcallError, match=r"card of .*mine\.onnx names no `kind`; .* restorer, face-parser"):
        find_model(str(write_model(tmp_path, "mine", kind=kind)))


@pytest.mark.parametrize("path", [".", "..", "/", "./", "~", "folder/", "folder/..", ".onnx", "./.onnx", "a/b"])
def test_paths_that_are_no_onnx_file(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(SemcallError, match=r"is no \.onnx file|There is no face-parser called '(\.\.|~)'"):
        find_model(path, "face-parser")


def test_homes_of_unknown_users(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SemcallError, match=r"The face-parser ~nobody-here/x\.onnx lies in the home of an unknown"):
        find_model("~nobody-here/x.onnx", "face-parser")
    monkeypatch.setenv("SEMCALL_MODELS", "~nobody-here/x")
    with pytest.raises(SemcallError, match="SEMCALL_MODELS ~nobody-here/x lies in the home of an unknown user"):
        list_models()
    assert find_model("small").shipped, "which needs none of the user's"


def test_a_folder_that_cannot_be_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMCALL_MODELS", "long" * 100)
    assert all(model.shipped for model in list_models())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = write_model(tmp_path, "mine")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(SemcallError, match=r"mine\.onnx cannot be read \(it is a device or a pipe\)"):
        find_model(str(path))
    path.with_suffix(".json").unlink()
    os.mkfifo(path.with_suffix(".json"))
    with pytest.raises(SemcallError, match=r"mine\.json cannot be read"):
        find_model(str(path))


def test_names_are_those_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    write_model(tmp_path, "one")
    write_model(tmp_path, "two", kind="parser")
    assert [model.name for model in list_models()] == ["one", "two"]
    assert [model.name for model in list_models("parser")] == ["two"]
    assert find_model("one").path == tmp_path / "one.onnx"
    write_model(tmp_path, "three", name="one")
    assert [model.name for model in list_models("restorer")] == ["one", "three"]
    assert find_model("one").path == tmp_path / "one.onnx"
    assert find_model("three").path == tmp_path / "three.onnx"
    (tmp_path / "._one.json").write_bytes(b"\0\5\x16\7")
    assert len(list_models()) == 3
    (tmp_path / "one.onnx").unlink()
    with pytest.raises(SemcallError, match="cannot be read"):
        find_model("one")


def test_the_users_models_are_found_beside_the_shipped(mine: Path) -> None:
    mine.mkdir(parents=True)
    path = write_model(mine, "mine")
    assert find_model("mine").path == path
    assert {"mine", "small"} <= {model.name for model in list_models()}
    assert [model.name for model in list_models() if not model.shipped] == ["mine"]


def test_shipped_names_stand_for_shipped_models(mine: Path) -> None:
    mine.mkdir(parents=True)
    write_model(mine, "small")
    write_model(mine, "another", name="small", kind="face-parser")
    assert find_model("small").path.parent == registry.WEIGHTS
    assert [model.path.parent for model in list_models() if model.name == "small"] == [registry.WEIGHTS]
    with pytest.raises(SemcallError, match="no face-parser called 'small'"):
        find_model("small", "face-parser")


def test_a_broken_card_of_the_users_does_not_hide_the_shipped(mine: Path) -> None:
    mine.mkdir(parents=True)
    write_model(mine, "broken").with_suffix(".json").write_text("{")
    path = write_model(mine, "mine")
    assert find_model("small").name == "small"
    assert find_model("mine").path == path
    problems = {model.name: model.problem for model in list_models()}
    assert "broken.json cannot be read" in problems.pop("broken")
    assert set(problems.values()) == {""}
    for kind in ("restorer", "face-parser"):
        assert "broken" not in [model.name for model in list_models(kind)]
        with pytest.raises(SemcallError, match=r"broken\.json cannot be read"):
            find_model("broken", kind)


def test_where_the_users_models_lie(monkeypatch: pytest.MonkeyPatch, mine: Path) -> None:
    assert user_models() == mine
    monkeypatch.setenv("SEMCALL_MODELS", "~/nets")
    assert user_models() == Path.home() / "nets"
    monkeypatch.delenv("SEMCALL_MODELS")
    monkeypatch.setenv("XDG_DATA_HOME", str(mine))
    assert user_models().name == "models"
    assert user_models().parent.name == "semcall"


def test_bisenet_says_where_it_comes_from(tmp_path: Path, mine: Path) -> None:
    with pytest.raises(SemcallError, match="`semcall models add bisenet CHECKPOINT`"):
        find_model("bisenet", "face-parser")
    with pytest.raises(SemcallError, match="known are: "):
        find_model("bisenet", "restorer")
    mine.mkdir(parents=True)
    path = write_model(mine, "bisenet", kind="face-parser")
    assert find_model("bisenet", "face-parser").path == path


def test_a_saved_model_is_found(mine: Path) -> None:
    path = save_model(mine, b"weights", {"name": "mine-2.1", "kind": "restorer", "contract": 1, "sha256": "x"})
    assert path == mine / "mine-2.1.onnx"
    model = find_model("mine-2.1")
    assert model.path == path
    assert model.card["bytes"] == 7
    assert sorted(file.name for file in mine.iterdir()) == ["mine-2.1.json", "mine-2.1.onnx"]


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "../a", "a b", "a.onnx", "a\n", "ä", None, 7, "off"]
)
def test_names_that_no_model_can_have(mine: Path, name: object) -> None:
    with pytest.raises(SemcallError, match="cannot be called"):
        save_model(mine, b"weights", {"name": name})
    assert not mine.exists()


def test_a_save_that_fails_halfway_leaves_no_model(mine: Path) -> None:
    (mine / "mine.json").mkdir(parents=True)
    with pytest.raises(SemcallError, match="Cannot write"):
        save_model(mine, b"weights", {"name": "mine"})
    assert [file.name for file in mine.iterdir()] == ["mine.json"]
    assert (mine / "mine.json").is_dir()


@pytest.mark.parametrize("failing", ["write", 0, 1, 2, 3])
@pytest.mark.parametrize("kind", [PermissionError, KeyboardInterrupt])
def test_a_model_outlives_its_failing_replacement(
    mine: Path, monkeypatch: pytest.MonkeyPatch, failing: object, kind: type[BaseException]
) -> None:
    """Whichever step fails: writing the card, or one of the renames of the old files and the new."""
    save_model(mine, b"weights", {"name": "mine", "kind": "restorer", "contract": 1})
    before = {path.name: path.read_bytes() for path in mine.iterdir()}
    steps = []

    def replace(path: Path, target: Path) -> None:
        steps.append(path)
        if len(steps) - 1 == failing:
            raise kind(13, "Permission denied")
        os.replace(path, target)

    def write(path: Path, content: bytes) -> None:
        path.write_text(content.decode()[:3])
        if failing == "write" and ".json" in path.name:
            raise kind(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(Path, "write_bytes", write)
    with pytest.raises(KeyboardInterrupt if kind is KeyboardInterrupt else SemcallError):
        save_model(mine, b"others", {"name": "mine", "kind": "restorer", "contract": 1})
    assert {path.name: path.read_bytes() for path in mine.iterdir()} == before
    assert verify(find_model("mine")) == b"weights"


def test_what_cannot_be_put_back_is_kept(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(mine, b"weights", {"name": "mine"})
    moved = []

    def replace(path: Path, target: Path) -> None:
        if moved:
            raise PermissionError(13, "Permission denied")
        moved.append(path)
        os.replace(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(SemcallError, match=r"Cannot write .*Permission denied"):
        save_model(mine, b"others", {"name": "mine"})
    assert b"weights" in [path.read_bytes() for path in mine.iterdir()]
