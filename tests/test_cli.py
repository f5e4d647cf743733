"""What the command line says when something is wrong: one sentence, exit code 2, nothing left behind."""

from __future__ import annotations

import hashlib
import http.server
import importlib.util
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import semcall
from models.registry import list_models
from shared.peer import LoopThread
from shared.whip_server import WhipServer

Run = Callable[..., str]
RESTORERS = list_models("restorer")
needs_a_restorer = pytest.mark.skipif(not RESTORERS, reason="no restorer is shipped")


def call(monkeypatch: pytest.MonkeyPatch, arguments: tuple[object, ...]) -> int:
    monkeypatch.setattr(sys, "argv", ["semcall", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        semcall.main()
    return int(ended.value.code or 0)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs a command that must fail and returns its sentence."""

    def run(*arguments: object) -> str:
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        capfd.readouterr()
        assert call(monkeypatch, arguments) == 2
        said = capfd.readouterr().err
        assert said.startswith("semcall: "), said
        assert said.endswith("\n")
        assert said.count("\n") == 1, "one line, however long"
        sentence = said.removeprefix("semcall: ").strip()
        assert len(sentence) > 30
        after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        assert after == before, "something was left behind"
        return sentence

    return run


@pytest.fixture
def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A receiver that wants a token."""

    async def never(_peer: object) -> None:
        raise AssertionError("nobody has the token")

    with LoopThread() as loop:
        server = WhipServer(never, token="right")
        loop.call(server.start(port=0))
        yield server.url
        loop.call(server.stop())


@pytest.fixture(scope="module")
def web_server() -> Iterator[str]:
    """Speaks HTTP, but not WHIP."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/whip"
        server.shutdown()


@pytest.fixture
def mail_server() -> Iterator[str]:
    """Speaks, but not HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    client.sendall(b"220 mail.example ESMTP\r\n")

        threading.Thread(target=greet, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/whip"


# Options


@pytest.mark.parametrize("text", ["fast", "400 kb", "-1", "10", "1G", "49k", "21M", "nan", ""])
def test_bitrates(refused: Run, text: str) -> None:
    assert "write for example 400k or 1.2M" in refused("send", f"--bitrate={text}", "--source", "demo")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--min-bitrate=slow",), "--min-bitrate slow is not a rate"),
        (("--min-bitrate=500k",), "--min-bitrate 500k is more than --bitrate 400k"),
        (("--bitrate=80k", "--min-bitrate=81k"), "more than --bitrate 80k"),
    ],
)
def test_lowest_bitrates(refused: Run, arguments: tuple[str, ...], complaint: str) -> None:
    assert complaint in refused("send", *arguments, "--source", "demo")


@pytest.mark.parametrize("text", ["1280", "1280x", "32x32", "9000x9000", "1280*720", "-1x5"])
def test_sizes(refused: Run, text: str) -> None:
    assert "write for example 1280x720" in refused("send", f"--size={text}", "--source", "demo")


@pytest.mark.parametrize("text", ["-1", "96", "nan"])
def test_shares(refused: Run, text: str) -> None:
    assert "percentage between 0 and 95" in refused("send", f"--sal={text}", "--source", "demo")


@pytest.mark.parametrize("text", ["0", "-5", "121", "nan"])
def test_frame_rates(refused: Run, text: str) -> None:
    assert "rate between 1 and 120" in refused("send", f"--fps={text}", "--source", "demo")


@pytest.mark.parametrize("option", ["--bitrate=x", "--size=x", "--sal=99", "--fps=0"])
def test_the_demo_checks_its_options_too(refused: Run, option: str, tmp_path: Path) -> None:
    refused("demo", option, "--out", tmp_path / "out")


@pytest.mark.parametrize(
    "arguments",
    [
        ("send", "--nonsense"),
        ("receive", "--port", "many"),
        ("send", "--sal-mode", "sometimes"),
        ("send", "--sal", "much"),
        ("wait",),
        ("train", "restorer"),
    ],
)
def test_misuse_is_explained(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert call(monkeypatch, arguments) == 2
    said = capfd.readouterr().err
    assert "Usage: semcall" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("command", ["", "receive", "send", "mask", "demo", "train", "train restorer"])
def test_help_fits_one_screen(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert call(monkeypatch, (*command.split(), "--help")) == 0
    lines = capfd.readouterr().out.splitlines()
    assert 8 < len(lines) <= 40
    assert max(map(len, lines)) <= 80
    if command in ("receive", "send", "encode", "mask", "demo"):
        assert any(line.strip().startswith("Example: semcall " + command) for line in lines)


# Sources


@pytest.mark.parametrize("source", ["97", "/dev/video97", "camera:/dev/video98"])
def test_no_camera(refused: Run, source: str) -> None:
    said = refused("send", "--source", source)
    assert "Cannot open camera" in said
    assert "--source demo" in said


def test_unreadable_sources(refused: Run, tmp_path: Path) -> None:
    assert "film.mp4" in refused("send", "--source", tmp_path / "film.mp4")
    (tmp_path / "notes.mp4").write_text("no film at all\n" * 100)
    (tmp_path / "empty.mp4").write_bytes(b"")
    for name in ("notes.mp4", "empty.mp4", "."):
        assert str(tmp_path) in refused("send", "--source", tmp_path / name)


# The other end


def test_receiver_absent(refused: Run, free_port: int) -> None:
    url = f"http://127.0.0.1:{free_port}/whip"
    said = refused("send", "--source", "demo", "--size", "320x180", "--to", url, "--timeout", 1)
    assert f"No receiver answers at {url} after 1 s" in said
    assert "semcall receive" in said


def test_not_a_whip_endpoint(refused: Run, web_server: str, mail_server: str) -> None:
    for url in (web_server, mail_server):
        said = refused("send", "--source", "demo", "--size", "320x180", "--to", url, "--timeout", 1)
        assert f"{url} is not a WHIP endpoint" in said


def test_tokens(refused: Run, endpoint: str) -> None:
    send = ("send", "--source", "demo", "--size", "320x180", "--to", endpoint)
    assert "wants a token" in refused(*send)
    assert "does not accept this token" in refused(*send, "--token", "wrong")
    assert "unusual characters" in refused(*send, "--token", "two words")


@pytest.mark.parametrize("url", ["receiver", "ftp://127.0.0.1/whip", "http://", "http://127.0.0.1:99999/whip"])
def test_addresses(refused: Run, url: str) -> None:
    assert "http://HOST:8787/whip" in refused("send", "--source", "demo", "--size", "320x180", "--to", url)


def test_ice_servers(refused: Run, tmp_path: Path) -> None:
    receive = ("receive", "--headless", "--restore", "off", "--port", 0, "--record", tmp_path / "a.mp4")
    assert "is no ICE server" in refused(*receive, "--ice-server", "stun.example.org")


# The receiver's own


def test_port_in_use(refused: Run, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        files = ("--record", tmp_path / "call.mp4", "--stats", tmp_path / "call.jsonl")
        said = refused("receive", "--headless", "--restore", "off", "--port", port, *files)
    assert f"Port {port} on 127.0.0.1 is in use" in said
    assert "--port" in said


def test_impossible_addresses(refused: Run) -> None:
    receive = ("receive", "--headless", "--restore", "off")
    assert "There is no port 70000" in refused(*receive, "--port", 70000)
    assert "not an address of this machine" in refused(*receive, "--host", "192.0.2.7", "--port", 0)


def test_tokens_that_nobody_could_show(refused: Run, tmp_path: Path) -> None:
    receive = ("receive", "--headless", "--restore", "off", "--port", 0, "--record", tmp_path / "call.mp4")
    for token in ("", "two words", "schlüssel"):
        assert "choose another with --token" in refused(*receive, "--token", token)


def test_places_that_cannot_be_written(refused: Run, tmp_path: Path) -> None:
    (tmp_path / "file.mp4").write_text("precious")
    receive = ("receive", "--headless", "--restore", "off", "--port", 0)
    assert "does not exist" in refused(*receive, "--record", tmp_path / "missing" / "call.mp4")
    assert "exists" in refused(*receive, "--record", tmp_path / "file.mp4")
    assert ".mp4" in refused(*receive, "--record", tmp_path / "call.gif")
    good = ("--record", tmp_path / "call.mp4")
    assert "Cannot write" in refused(*receive, *good, "--stats", tmp_path / "missing" / "shown.jsonl")
    assert "Cannot write" in refused(*receive, *good, "--stats", tmp_path)
    assert "Cannot make" in refused(*receive, *good, "--snapshots", tmp_path / "file.mp4" / "below")


def test_the_senders_figures_cannot_be_written(refused: Run, tmp_path: Path, endpoint: str) -> None:
    """Said before anybody is called."""
    send = ("send", "--source", "demo", "--size", "320x180", "--to", endpoint)
    assert "Cannot write" in refused(*send, "--stats", tmp_path / "missing" / "coded.jsonl")
    assert "Cannot write" in refused(*send, "--stats", tmp_path)
    assert "wants a token" in refused(*send, "--stats", tmp_path / "coded.jsonl")


def test_presets(refused: Run, endpoint: str) -> None:
    assert "veryfast" in refused("send", "--source", "demo", "--to", endpoint, "--preset", "warp")


# Models


def test_models_that_are_not_there(refused: Run, tmp_path: Path) -> None:
    said = refused("receive", "--headless", "--port", 0, "--restore", "medium-rare")
    assert "no restorer called 'medium-rare'" in said
    assert "known are" in said
    assert "cannot be read" in refused("receive", "--headless", "--port", 0, "--restore", tmp_path / "gone.onnx")


def test_a_file_that_is_no_model(refused: Run, tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(b"certainly not a network" * 20)
    said = refused("receive", "--headless", "--port", 0, "--restore", path, "--record", tmp_path / "call.mp4")
    assert "is damaged or no ONNX model" in said


def test_a_model_of_another_contract(refused: Run, tmp_path: Path) -> None:
    path = tmp_path / "later.onnx"
    path.write_bytes(b"weights")
    card = {"name": "later", "kind": "restorer", "contract": 99, "sha256": hashlib.sha256(b"weights").hexdigest()}
    path.with_suffix(".json").write_text(json.dumps(card))
    said = refused("receive", "--headless", "--port", 0, "--restore", path)
    assert "follows version 99 of the restorer contract" in said


@needs_a_restorer
def test_a_shipped_model_with_one_bit_flipped(refused: Run, tmp_path: Path) -> None:
    model = RESTORERS[0]
    content = bytearray(model.path.read_bytes())
    content[len(content) // 2] ^= 1
    path = tmp_path / model.path.name
    path.write_bytes(content)
    path.with_suffix(".json").write_text(json.dumps(dict(model.card)))
    said = refused("receive", "--headless", "--port", 0, "--restore", path, "--record", tmp_path / "call.mp4")
    assert "is damaged: its SHA-256 is not the one on its card" in said


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed here")
def test_training_without_torch(refused: Run, tmp_path: Path) -> None:
    assert "pip install 'semcall[train]'" in refused("train", "restorer", tmp_path / "config.toml")
