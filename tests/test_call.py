"""Whole calls: real processes, real sockets, real time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import receiver.app
import sender.app
import sender.call
from models.registry import list_models
from receiver.app import ReceiveOptions, Receiver
from receiver.jitter import AccessUnit
from receiver.picture import DecodedPicture
from sender.options import SendOptions
from shared.peer import LoopThread, create_peer

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 30.0  # seconds after which a test gives up
CTRL_C = 5.0  # generous; the measured times are well under 2 s
SMALL = ("--source", "demo", "--size", "640x360")
RESTORERS = list_models("restorer")
RESTORE = ("--restore", RESTORERS[0].name if RESTORERS else "off")
PARTS = ("whole picture", "face only")
DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")


class Process:
    """`semcall` with these arguments, and what it says so far."""

    def __init__(self, *arguments: object, **environment: str) -> None:
        clean = {name: value for name, value in os.environ.items() if name not in DISPLAYS}
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "semcall", *map(str, arguments)],
            cwd=ROOT,
            env=clean | {"PYTHONUNBUFFERED": "1"} | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._said: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def said(self) -> str:
        with self._changed:
            return "".join(self._said)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Until it has said something that `pattern` finds."""
        end = time.monotonic() + PATIENCE
        while (match := re.search(pattern, self.said)) is None:
            with self._changed:
                assert self._changed.wait(max(end - time.monotonic(), 0)), f"no {pattern!r} in:\n{self.said}"
            assert self.popen.poll() is None or re.search(pattern, self.said), f"ended without it:\n{self.said}"
        return match

    def interrupt(self, number: int = signal.SIGINT) -> float:
        """Ctrl-C; returns the seconds until it ended, cleanly."""
        start = time.monotonic()
        self.popen.send_signal(number)
        self.ends_cleanly()
        return time.monotonic() - start

    def ends_cleanly(self) -> str:
        assert self.popen.wait(PATIENCE) == 0, self.said
        self._reader.join(PATIENCE)
        assert "Traceback" not in self.said
        assert "Error" not in self.said
        return self.said

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            with self._changed:
                self._said.append(line)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def run(*arguments: object, **environment: str) -> Process:
        started.append(Process(*arguments, **environment))
        return started[-1]

    yield run
    for process in started:
        process.popen.kill()
        process.popen.wait()
        if process.popen.stdout is not None:
            process._reader.join(PATIENCE)
            process.popen.stdout.close()


def listening(process: Process) -> str:
    """The receiver's address, as it says it."""
    return process.wait_for(r"Waiting for a caller at (http://\S+/whip)")[1]


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# One receiver, two calls, Ctrl-C on each side


@dataclass
class Evening:
    receiver: Process
    senders: list[Process]
    record: Path
    shown: list[dict[str, Any]]
    coded: list[list[dict[str, Any]]]
    snapshots: list[Path]
    seconds: dict[str, float] = field(default_factory=dict)


@pytest.fixture(scope="module")
def evening(start: Callable[..., Process], tmp_path_factory: pytest.TempPathFactory) -> Evening:
    """A receiver without a display takes a call of 3 s and one that Ctrl-C ends; then Ctrl-C ends it too."""
    folder = tmp_path_factory.mktemp("evening")
    record, shown = folder / "seen.mp4", folder / "shown.jsonl"
    files = ("--record", record, "--stats", shown, "--snapshots", folder / "snapshots")
    answering = start("receive", "--port", 0, *RESTORE, *files)
    url = listening(answering)
    calling = []
    for index, length in enumerate((("--seconds", 3), ())):
        calling.append(
            start("send", *SMALL, "--to", url, "--sal", 40, "--stats", folder / f"coded{index}.jsonl", *length)
        )
        calling[-1].wait_for("Connected to")
        if length:
            calling[-1].ends_cleanly()
    answering.wait_for(r"(?s)Call ended.*640x360")  # the second call is on
    until(lambda: (folder / "coded1.jsonl").read_bytes().count(b"\n") > 10, "the second call's log")
    seconds = {"sender": calling[1].interrupt()}
    answering.wait_for(r"(?s)Call ended.*640x360.*Call ended")
    seconds["receiver"] = answering.interrupt()
    coded = [lines(folder / f"coded{index}.jsonl") for index in range(2)]
    snapshots = sorted((folder / "snapshots").iterdir())
    return Evening(answering, calling, record, lines(shown), coded, snapshots, seconds)


def test_no_display_is_said_and_the_call_is_held_headless(evening: Evening) -> None:
    assert re.search(r"^No display \(.*DISPLAY.*\): going on as --headless\.$", evening.receiver.said, re.MULTILINE)
    assert "Traceback" not in evening.receiver.said
    assert re.search(r"640x360 · \d+ fps · \d+ kb/s", evening.receiver.said)
    assert re.search(r"latency \d+ ms", evening.receiver.said)


def test_frames_arrive_with_their_times(evening: Evening) -> None:
    assert len(evening.shown) > 30
    stamped = [line for line in evening.shown if line["ticks"]]
    assert len(stamped) > 0.9 * len(evening.shown)
    for line in stamped:
        assert line["captured"] < line["arrived"] <= line["decoded"] <= line["shown"]
        assert line["shown"] - line["captured"] < 10
        assert not line["damaged"]
    assert evening.shown[0]["keyframe"] or evening.shown[0]["dropped"]  # it may be replaced before it is shown


def test_losses_and_drops_are_counted_for_each_call(evening: Evening) -> None:
    second = {line["ticks"] for line in evening.coded[1]}
    for call in (
        [x for x in evening.shown if x["ticks"] not in second],
        [x for x in evening.shown if x["ticks"] in second],
    ):
        for name in ("lost", "skipped", "plis", "dropped"):
            counts = [line[name] for line in call]
            assert counts == sorted(counts)
        assert call[0]["lost"] == call[-1]["skipped"] == 0
        assert call[0]["dropped"] <= 5, "begins anew"


def test_the_lines_of_both_ends_join(evening: Evening) -> None:
    shown = {line["ticks"] for line in evening.shown if line["ticks"]}
    for coded in evening.coded:
        ticks = [line["ticks"] for line in coded]
        assert ticks == sorted(set(ticks))
        assert len(shown & set(ticks)) > 2
        assert coded[0]["keyframe"]
        assert sum(line["bits"] for line in coded) > 0
    assert shown <= {line["ticks"] for coded in evening.coded for line in coded}


def test_the_face_gets_bits(evening: Evening) -> None:
    last = evening.coded[0][-15:]
    assert all(0.1 < line["share"] < 1 for line in last)
    assert all(line["qp_face"] < line["qp_background"] for line in last)
    assert all(line["face_bits"] == pytest.approx(line["share"] * line["bits"], rel=0.01) for line in last)


@pytest.mark.skipif(not RESTORERS, reason="no restorer is shipped")
def test_frames_are_restored_at_the_end(evening: Evening) -> None:
    restored = [line for line in evening.shown if line["restored"]]
    assert restored
    assert all(line["restore_ms"] > 0 for line in restored)
    assert {line["rung"] for line in restored} <= {f"{RESTORERS[0].name}, {part}" for part in PARTS}
    status = rf"^Restorer: ({RESTORERS[0].name} on \S+, ({'|'.join(PARTS)})|off: this machine is too slow)\.$"
    assert re.search(status, evening.receiver.said, re.MULTILINE)
    assert evening.snapshots
    with np.load(evening.snapshots[-1]) as saved:
        assert saved["decoded"].shape == saved["shown"].shape == (540, 640)
        change = np.abs(saved["shown"].astype(int) - saved["decoded"]).mean()
        assert (0 < change < 20) if saved["restored"] else change == 0
    ticks = {line["ticks"] for coded in evening.coded for line in coded}
    assert {int(path.stem) for path in evening.snapshots} <= ticks


def test_the_recording_plays_after_ctrl_c(evening: Evening) -> None:
    with av.open(str(evening.record)) as container:
        pictures = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    assert len(pictures) > 0.8 * len(evening.shown)
    assert all(picture.shape == (360, 640) for picture in pictures)
    assert min(picture.std() for picture in pictures) > 20, "a photograph, no grey"


def test_a_second_call_follows_without_a_restart(evening: Evening) -> None:
    assert evening.receiver.said.count("Call ended. Waiting for a caller") >= 2


def test_ctrl_c_ends_either_side(evening: Evening) -> None:
    assert evening.senders[0].said.endswith("The call has ended.\n")
    assert evening.senders[1].said.endswith("Ended.\n")
    print("seconds from Ctrl-C to the end:", evening.seconds)
    assert max(evening.seconds.values()) < CTRL_C


# Order of starting, hanging up, --once, the window


def test_the_sender_may_come_first_and_once_is_once(start: Callable[..., Process]) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    calling = start("send", *SMALL, "--to", f"http://127.0.0.1:{port}/whip")
    calling.wait_for(r"Waiting for a receiver at \S+ \(start `semcall receive` there\)")
    answering = start("receive", "--headless", "--once", "--restore", "off", "--port", port)
    answering.wait_for("640x360")  # a busy machine takes its time
    calling.interrupt()
    assert "Connected to" in calling.ends_cleanly()
    answering.ends_cleanly()  # by itself


def test_a_window_shows_the_call_and_ctrl_c_ends_both(start: Callable[..., Process], tmp_path: Path) -> None:
    shown, record = tmp_path / "shown.jsonl", tmp_path / "seen.mkv"
    files = ("--stats", shown, "--record", record)
    answering = start("receive", "--port", 0, "--restore", "off", *files, QT_QPA_PLATFORM="offscreen")
    calling = start("send", *SMALL, "--to", listening(answering))
    calling.wait_for(r"640x360 · \d+ fps · [1-9]")
    until(lambda: record.stat().st_size > 10_000, "the recording")
    seconds = answering.interrupt()
    start_of_end = time.monotonic()
    assert calling.ends_cleanly().endswith("The receiver has hung up.\n")
    print("receiver ended after", seconds, "and the sender", time.monotonic() - start_of_end, "later")
    assert seconds < CTRL_C
    assert "No display" not in answering.said
    pictures = lines(shown)
    assert len(pictures) > 5
    assert all(picture["shown"] >= picture["decoded"] for picture in pictures)
    with av.open(str(record)) as container:
        assert sum(1 for _ in container.decode(video=0)) > 5


HANGING = """
import threading
import receiver.app
from receiver.app import ReceiveOptions, Receiver, receive
receiver.app._GRACE = 0.0
Receiver.end = lambda self: print("asked to end", flush=True)
def ready(url):
    threading.Timer(0.5, print, ["ready"], {"flush": True}).start()
receive(ReceiveOptions(port=0, headless=%s), print, ready)
"""


@pytest.mark.parametrize("headless", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_ctrl_c_ends_a_receiver_that_hangs(headless: bool, number: int) -> None:
    if not headless:
        pytest.importorskip("PySide6.QtWidgets", reason="Qt's system libraries are missing", exc_type=ImportError)
    process = subprocess.Popen(
        [sys.executable, "-c", HANGING % headless],
        cwd=ROOT,
        env=os.environ | {"QT_QPA_PLATFORM": "offscreen", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    rescue = threading.Timer(PATIENCE, process.send_signal, [signal.SIGKILL])
    rescue.start()
    with process:
        assert process.stdout is not None
        assert "ready\n" in iter(process.stdout.readline, "")
        process.send_signal(number)
        assert "asked to end\n" in iter(process.stdout.readline, "")
        process.send_signal(number)
    rescue.cancel()
    assert process.returncode == -number


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_in_quick_succession_are_one(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver.app, "_GRACE", 1e9)
    before, asked = signal.getsignal(number), []
    with receiver.app._ctrl_c(lambda: asked.append(1)):
        for _ in range(3):
            signal.raise_signal(number)
        assert asked == [1]
    assert signal.getsignal(number) is before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_recording_and_a_log_that_are_lost_are_told(start: Callable[..., Process], tmp_path: Path) -> None:
    record = tmp_path / "seen.mp4"
    record.symlink_to("/dev/full")
    files = ("--record", record, "--force", "--stats", "/dev/full")
    answering = start("receive", "--headless", "--once", "--restore", "off", "--port", 0, *files)
    calling = start("send", *SMALL, "--to", listening(answering), "--seconds", 2)
    calling.ends_cleanly()
    said = answering.ends_cleanly()
    assert re.search(rf"^Recording to {re.escape(str(record))} stopped \(No space left on device\); ", said, re.M)
    assert "\nThe log /dev/full is incomplete (No space left on device).\n" in said


async def test_what_comes_after_the_end_of_a_call_is_not_counted() -> None:
    """A peer connection that takes long to close goes on receiving, maybe into the next call."""
    with contextlib.ExitStack() as stack:
        answering = Receiver(ReceiveOptions(), stack)
        peer = create_peer()
        peer.addTransceiver("video", direction="recvonly")
        await answering._call_began(peer)
        old = answering._call
        assert old is not None
        unit = AccessUnit(b"\0\0\0\1\x65" * 1000, 0, time.time(), True, False)
        old._arrived(unit)
        assert answering.stats().kbps > 0
        answering.restore.pictures.put(picture())
        answering.restore.pictures.put(picture())
        assert answering.stats().dropped == 1
        answering._call_ended()
        await answering._call_began(peer)
        new = answering._call
        assert new is not None
        old._arrived(unit)
        new.began, new.last_unit = True, time.time()
        stats = answering.stats()
        assert (stats.state, stats.kbps, stats.dropped) == ("live", 0, 0)
        answering.restore.pictures.put(picture())
        assert answering.stats().dropped == 1
        answering._call_ended()
        await peer.close()


def picture() -> DecodedPicture:
    return DecodedPicture(np.zeros((48, 32), np.uint8), np.zeros((2, 2), np.uint8), 0, True)


def test_a_waiting_sender_and_a_waiting_receiver_end_at_once(start: Callable[..., Process]) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # nobody listens, and nobody else will
        calling = start("send", *SMALL, "--to", f"http://127.0.0.1:{sock.getsockname()[1]}/whip")
        answering = start("receive", "--headless", "--port", 0, "--restore", "off")
        calling.wait_for("Waiting for a receiver")
        assert calling.interrupt() < CTRL_C
    listening(answering)
    assert answering.interrupt(signal.SIGTERM) < CTRL_C


def test_ctrl_c_while_connecting(start: Callable[..., Process]) -> None:
    """An endpoint that takes the offer and never answers."""
    asked = threading.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            request = await reader.readuntil(b"\r\n\r\n")
            if request.startswith(b"POST"):
                asked.set()
                await reader.read()
            else:
                writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
                await writer.drain()

    with LoopThread() as loop:
        server = loop.call(asyncio.start_server(answer, "127.0.0.1", 0))
        port = server.sockets[0].getsockname()[1]
        calling = start("send", *SMALL, "--to", f"http://127.0.0.1:{port}/whip")
        assert asked.wait(PATIENCE), calling.said
        assert calling.interrupt() < CTRL_C
        loop.post(server.close)
    assert calling.said == "Ended.\n"


# Ends without a goodbye


def test_a_killed_sender_is_given_up_and_the_next_can_call(
    start: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver.watchdog, "OVER", 3.0)
    with contextlib.ExitStack() as stack:
        answering = Receiver(ReceiveOptions(), stack)
        loop = stack.enter_context(LoopThread())
        loop.call(answering.server.start("127.0.0.1", 0))
        stack.callback(lambda: loop.call(answering.stop()))
        answering.restore.start()
        stack.callback(answering.restore.close)
        for gone in (True, False):
            calling = start("send", *SMALL, "--to", answering.server.url)
            until(lambda: answering.stats().state == "live" and answering.stats().fps > 5, "pictures")
            until(lambda: 0.05 < (answering.stats().face_share or 0) < 1, "the sender's word on the face")
            assert answering.server.busy
            if gone:
                calling.popen.kill()
            else:
                calling.interrupt(signal.SIGTERM)
            until(lambda: not answering.server.busy, "the end of the call")
            ended = "No media came for 3 s: the call has ended." if gone else "Call ended."
            assert answering.stats().state.startswith(f"{ended} Waiting for a caller at http")
            assert not answering.over.is_set()


def test_a_killed_receiver_is_noticed(start: Callable[..., Process], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender.call, "_SILENCE", 3.0)
    answering = start("receive", "--headless", "--port", 0, "--restore", "off")
    said: list[str] = []
    told: list[str] = []

    def status(line: str) -> None:
        told.append(line)
        if len(told) == 6:  # after 2.5 s reports have come
            answering.popen.kill()

    options = SendOptions(to=listening(answering), source="demo", size=(640, 360), seconds=PATIENCE)
    sender.app.send(options, said.append, status)
    assert said[-1] == "Nothing came from the receiver for 3 s: the call has ended."
