"""`semcall demo`: a call with oneself, two processes over real sockets, measured and drawn.

Both ends run as a user would start them, through the command line; they are told to log every picture, and this
module joins the two logs by capture time stamp.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from models.evaluation.call_log import CallLog, read_call_log
from models.evaluation.contact_sheet import Row, draw_sheet
from models.evaluation.plain import encode_plain
from models.evaluation.summary import face_psnr, print_summary, summarise
from shared.astronaut import AstronautClip
from shared.clips import Clip
from shared.errors import SemcallError
from shared.picture import I420

_ROWS = 4
_RESULTS = ("received.mp4", "contact-sheet.png", "summary.json")
_PATIENCE = 30.0  # seconds beyond the call's length after which a process counts as stuck


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What `semcall demo` was asked for; texts as on the command line."""

    source: str
    out: Path
    seconds: float
    bitrate: str
    sal: float
    restore: str
    headless: bool
    size: str
    fps: float | None
    face: str
    face_region: str


def hold_demo(options: DemoOptions, console: Console) -> bool:
    """Hold the call, write its video, contact sheet and `summary.json` to `options.out`, print the figures.

    Returns whether pictures really arrived and were restored. Raises SemcallError when an end cannot start.
    """
    if options.restore == "off":
        raise SemcallError("The demo shows what the restorer does: give --restore a name or an ONNX file.")
    bound = _bound(options.size)
    source = _Source(options, bound)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SemcallError(f"Cannot make {options.out} ({error.strerror}): choose another --out.") from None
    for name in _RESULTS:  # an earlier run's must not pass for this one's
        (options.out / name).unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="semcall-demo-") as name:
        work = Path(name)
        _call(options, work, console)
        log = read_call_log(work / "sent.jsonl", work / "received.jsonl")
        summary = summarise(log)
        if log.shown:
            with console.status("Encoding the same pictures with plain x264 and drawing the contact sheet"):
                summary.update(_draw(log, source, work / "snapshots", options.out / "contact-sheet.png"))
    summary["source"], summary["restorer"], summary["cores"] = options.source, options.restore, os.cpu_count()
    (options.out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print_summary(summary, console)
    console.print(f"Written to {options.out}: {', '.join(_written(options.out))}", highlight=False)
    if not log.shown:
        console.print("No picture arrived.")
    elif not summary["restored_percent"]:
        console.print("No picture was restored: this machine is too slow or too busy for this restorer.")
    return bool(log.shown) and summary["restored_percent"] > 0


def _written(out: Path) -> list[str]:
    return [name for name in _RESULTS if (out / name).exists()]


def _call(options: DemoOptions, work: Path, console: Console) -> None:
    """Run receiver and sender to their end."""
    endpoint = f"127.0.0.1:{_free_port()}"
    receive = ["receive", "--port", endpoint.split(":")[1], "--once", "--restore", options.restore]
    receive += ["--record", str(options.out / "received.mp4"), "--force"]
    receive += ["--stats", str(work / "received.jsonl"), "--snapshots", str(work / "snapshots")]
    receive += ["--headless"] if options.headless else []
    send = ["send", "--to", f"http://{endpoint}/whip", "--source", options.source, "--size", options.size]
    send += ["--bitrate", options.bitrate, "--sal", str(options.sal), "--seconds", str(options.seconds)]
    send += ["--face", options.face, "--face-region", options.face_region]
    send += ["--stats", str(work / "sent.jsonl")]
    send += ["--fps", str(options.fps)] if options.fps else []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with _process(receive, work / "receive.log") as receiver, _process(send, work / "send.log") as sender:
        with Progress(*columns, console=console) as progress:
            task = progress.add_task(f"Call over {endpoint}", total=options.seconds)
            start: float | None = None
            while sender.running:
                time.sleep(0.2)
                if not receiver.running and sender.running and start is None:
                    receiver.finish(0)
                if start is None and "Connected" in sender.output():
                    start = time.monotonic()
                if start is not None:
                    progress.update(task, completed=min(options.seconds, time.monotonic() - start))
                    if time.monotonic() - start > options.seconds + _PATIENCE:
                        raise SemcallError("The sender did not end in time: is this machine overloaded?")
        sender.finish(5)
        receiver.finish(15)


class _process:  # noqa: N801 (a context manager, used like a function)
    """One end of the call as a child process, its output kept in a file."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        self._name, self._log = arguments[0], log
        with log.open("w") as output:
            command = [sys.executable, "-m", "semcall", *arguments]
            self._child = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)

    def __enter__(self) -> _process:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait()

    @property
    def running(self) -> bool:
        return self._child.poll() is None

    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def finish(self, timeout: float) -> None:
        """Wait for the end. Raises SemcallError with the process's own words when it failed."""
        try:
            code = self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            raise SemcallError(f"`semcall {self._name}` did not end: is this machine overloaded?") from None
        if code:
            said = self.output().strip().splitlines() or ["nothing"]
            message = said[-1].removeprefix("semcall: ")
            raise SemcallError(f"`semcall {self._name}` failed: {message}")


class _Source:
    """The pictures that the sender took, made again from their frame numbers."""

    def __init__(self, options: DemoOptions, bound: tuple[int, int]) -> None:
        if options.source == "demo":
            self._astronaut: AstronautClip | None = AstronautClip(bound, options.fps or 30.0)
        else:
            self._astronaut = None
            self._clip = Clip(options.source, bound)

    def pictures(self, frames: list[int]) -> Iterator[I420]:
        """The pictures with these frame numbers, in this order; numbers that fall back start a new round."""
        if self._astronaut is not None:
            yield from (self._astronaut.picture(frame) for frame in frames)
            return
        position = 0
        while position < len(frames):
            end = position + 1
            while end < len(frames) and frames[end] >= frames[end - 1]:
                end += 1
            times = Counter(frames[position:end])  # a picture is sent again where its source pauses
            for index, i420 in self._clip.pictures(set(times)):
                yield from [i420] * times[index]
            position = end


def _draw(log: CallLog, source: _Source, snapshots: Path, sheet: Path) -> dict[str, Any]:
    """The contact sheet; returns the figures that need pictures."""
    frames = [picture.frame for picture in log.sent]
    moments = log.moments(snapshots, _ROWS)
    if not moments:
        return {}
    positions = {moment.position for moment in moments}
    duration = max(log.duration, 1e-3)
    plain, plain_rate = encode_plain(lambda: source.pictures(frames), len(frames) / duration, log.bitrate, positions)
    originals = dict(_at(source.pictures(frames), positions))
    rows, scores = [], []
    for moment in moments:
        columns = [originals[moment.position], plain[moment.position], moment.decoded, moment.shown]
        rows.append(Row(f"{moment.seconds:.1f} s", columns, moment.mask))
        scores.append([face_psnr(columns[0], column, moment.mask) for column in columns[1:]])
    shown = "semcall restored" if all(moment.restored for moment in moments) else "semcall shown, not restored"
    rate = f"{log.bitrate / 1e3:.0f} kb/s"
    titles = ["source", f"plain x264, {plain_rate / 1e3:.0f} kb/s", f"semcall decoded, {rate}", shown]
    cv2.imwrite(str(sheet), draw_sheet([*titles, "face mask"], rows))
    means = [sum(values) / len(values) for values in zip(*scores, strict=True)]
    names = ("plain", "decoded", "restored")
    psnr = {name: round(value, 2) for name, value in zip(names, means, strict=True)}
    return {"plain_kbps": round(plain_rate / 1e3, 1), "face_psnr_db": psnr, "pictures_compared": len(moments)}


def _at(pictures: Iterator[I420], positions: set[int]) -> Iterator[tuple[int, I420]]:
    return ((index, i420) for index, i420 in enumerate(pictures) if index in positions)


def _bound(size: str) -> tuple[int, int]:
    width, _, height = size.lower().partition("x")
    return int(width), int(height)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
