"""`semcall send` from the inside: what is checked first, what ends a call, how signals are taken."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from faces import CARD, BrightParser
from numpy.typing import NDArray

import sender.app
import sender.call
from sender.call import Call
from sender.capture import DemoSource, open_source
from sender.live import EncodeOptions
from sender.options import SendOptions
from sender.parser import FaceOptions
from sender.stage import Stage
from shared.errors import SemcallError
from shared.lines import JsonLines
from shared.peer import LoopThread, close_peer, create_peer, prefer_h264
from shared.picture import I420
from shared.signals import interruptible
from shared.stats import Stats

needs_signals = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"ice_servers": ("stun:127.0.0.1", "nonsense")}, "is no ICE server"),
        ({"to": "nonsense"}, "not an address to call"),
        ({"token": "two words"}, "unusual characters"),
        ({"face": FaceOptions(Path("gone.onnx"), CARD)}, "cannot be read"),
    ],
)
def test_what_can_be_checked_is_checked_before_anything_is_opened(
    monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any], complaint: str
) -> None:
    def opened(*_: object) -> None:
        raise AssertionError("the camera was opened")

    monkeypatch.setattr(sender.app, "open_source", opened)
    with pytest.raises(SemcallError, match=complaint):
        sender.app.send(SendOptions(**wrong), print, print)


class Link:
    """Stands for WHIP client, peer and media path: it connects at once and takes whatever is sent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent = 0
        self.closing = 0
        link = self

        async def connect(call: Any, _say: object) -> None:
            call._track = SimpleNamespace(congested=False, push=link.push, finish=lambda: None)

        async def hang_up(_call: Any) -> None:
            link.closing += 1

        monkeypatch.setattr(sender.call.Call, "connect", connect)
        monkeypatch.setattr(sender.call.Call, "_hang_up", hang_up)

    def push(self, _unit: bytes, _ticks: int) -> None:
        self.sent += 1


def options(**more: Any) -> SendOptions:
    return SendOptions(source="demo", size=(160, 96), **more)


@pytest.mark.parametrize(("bitrate", "floor", "lowest"), [(400e3, 150e3, 150e3), (80e3, 100e3, 80e3)])
async def test_a_call_is_controlled_from_its_first_packet(bitrate: float, floor: float, lowest: float) -> None:
    asked = options(encode=EncodeOptions(bitrate=bitrate), min_bitrate=floor)
    call = Call(asked, None, open_source("demo", (160, 96), None), None, LoopThread())
    assert call._target() == bitrate
    peer = create_peer()
    prefer_h264(peer.addTransceiver("video", direction="sendonly"))
    call.attach(peer)
    assert call.control is not None
    assert call._target() == call.control.target == bitrate
    for remb in range(20_000, 10_000, -1000):
        call.control._packed(10_000, 10)
        call.control._estimated(remb)
    assert call._target() == lowest
    assert call.stats().target_kbps == lowest / 1e3
    await close_peer(peer)


def test_an_unexpected_failure_of_the_source_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    link = Link(monkeypatch)
    failure = MemoryError("no more\nmemory")

    def frames(self: DemoSource) -> Iterator[tuple[int, float, I420]]:
        yield 0, 0.0, self._clip.picture(0)
        raise failure

    monkeypatch.setattr(DemoSource, "frames", frames)
    with pytest.raises(SemcallError) as caught:
        sender.app.send(options(), print, lambda _stats: None)
    assert "MemoryError: no more memory" in str(caught.value)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is failure
    assert link.closing == 1


def test_a_failure_that_has_its_sentence_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    Link(monkeypatch)
    failure = SemcallError("The camera 0 stopped: plug it in again.")

    def frames(_self: DemoSource) -> Iterator[tuple[int, float, I420]]:
        raise failure
        yield 0, 0.0, np.zeros((0, 0), np.uint8)

    monkeypatch.setattr(DemoSource, "frames", frames)
    with pytest.raises(SemcallError) as caught:
        sender.app.send(options(), print, lambda _stats: None)
    assert caught.value is failure


def test_statistics_and_face_finder_that_failed_are_told_at_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    link = Link(monkeypatch)
    path = tmp_path / "coded.jsonl"
    coded = threading.Event()

    def full(self: JsonLines, _record: object) -> None:
        coded.set()
        self._fail(OSError(28, "No space left on device"))

    def fail(_found: object) -> NDArray[np.float32]:
        raise ValueError("network")

    def status(_stats: Stats) -> None:
        assert coded.wait(20)

    monkeypatch.setattr(JsonLines, "write", full)
    monkeypatch.setattr(FaceOptions, "open", lambda _options: BrightParser({0: fail}))
    said: list[str] = []
    sender.app.send(options(seconds=0.6, encode=EncodeOptions(stats=path)), said.append, status)
    assert link.sent > 0
    assert [line for line in said if str(path) in line and "No space left on device" in line]
    assert [line for line in said if "face finder" in line and "ValueError: network" in line]
    assert said[-1] == "The call has ended."


def test_viewers_share_one_file_of_statistics_and_one_who_left_meanwhile_is_skipped() -> None:
    append: list[bool] = []
    closed = 0

    class Viewed:
        end = "The viewer has hung up."

        def __init__(self, over: bool) -> None:
            self.over = over

        def run(self, _say: object, _status: object, more: bool) -> None:
            append.append(more)
            if len(append) == 3:
                raise KeyboardInterrupt

        def close(self) -> None:
            nonlocal closed
            closed += 1

    stage = Stage(options(listen=("127.0.0.1", 0), token="secret"))
    for over in (False, False, True, False):
        stage._came.put(Viewed(over))  # type: ignore[arg-type]
    source = open_source("demo", (160, 96), None)
    with LoopThread() as loop, pytest.raises(KeyboardInterrupt):
        stage.play(source, None, loop, lambda _line: None, lambda _stats: None, lambda _url: None)
    assert append == [False, True, True]
    assert closed == 4


@needs_signals
def test_a_second_ctrl_c_does_not_cut_the_hanging_up_short(monkeypatch: pytest.MonkeyPatch) -> None:
    link = Link(monkeypatch)
    finished = []
    close = sender.call.Call.close

    def closing(call: Any) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        close(call)
        finished.append(True)

    def stopping(loop: LoopThread, *_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        stop(loop)
        finished.append(True)

    stop = LoopThread.stop
    monkeypatch.setattr(sender.call.Call, "close", closing)
    monkeypatch.setattr(LoopThread, "__exit__", stopping)
    said: list[str] = []

    def status(_stats: Stats) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    sender.app.send(options(), said.append, status)
    assert said[-1] == "Ended."
    assert finished == [True, True]
    assert link.closing == 1
    assert signal.getsignal(signal.SIGINT) is before


@needs_signals
def test_signals_are_heard_again_when_the_way_out_hangs() -> None:
    now = [100.0]
    heard = []
    with interruptible(lambda: now[0]):
        for seconds in (0.0, 0.0, 1.0, 5.0):
            now[0] += seconds
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except KeyboardInterrupt:
                heard.append(now[0])
    assert heard == [100.0, 106.0]


@needs_signals
def test_an_ignored_sigint_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_leave_the_signals_alone() -> None:
    failures: list[BaseException] = []

    def elsewhere() -> None:
        try:
            with interruptible():
                pass
        except BaseException as error:
            failures.append(error)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join(10)
    assert failures == []
    assert signal.getsignal(signal.SIGTERM) is before
