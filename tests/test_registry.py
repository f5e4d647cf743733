"""Finding and verifying models."""

from __future__ import annotations

import hashlib
import json
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


@pytest.mark.parametrize("text", ["{", "[]", '"card"'])
def test_a_broken_card_is_named(tmp_path: Path, text: str) -> None:
    path = write_model(tmp_path, "mine")
    path.with_suffix(".json").write_text(text)
    with pytest.raises(SemcallError, match=r"model card .*mine\.json"):
        find_model(str(path))


def test_names_come_from_the_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    write_model(tmp_path, "one")
    write_model(tmp_path, "two", kind="parser")
    assert [model.name for model in list_models()] == ["one", "two"]
    assert [model.name for model in list_models("parser")] == ["two"]
    assert find_model("one").path == tmp_path / "one.onnx"
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
    assert find_model("small").name == "small"
    with pytest.raises(SemcallError, match=r"broken\.json cannot be read"):
        find_model("mine")


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


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "../a", "a b", "a.onnx", "a\n", "ä", None])
def test_names_that_no_model_can_have(mine: Path, name: str | None) -> None:
    with pytest.raises(SemcallError, match="cannot be called"):
        save_model(mine, b"weights", {"name": name})
    assert not mine.exists()


def test_a_save_that_fails_halfway_leaves_no_model(mine: Path) -> None:
    (mine / "mine.json").mkdir(parents=True)
    with pytest.raises(SemcallError, match="Cannot write"):
        save_model(mine, b"weights", {"name": "mine"})
    assert sorted(file.name for file in mine.iterdir()) == ["mine.json", "mine.onnx"]
    assert (mine / "mine.json").is_dir()
