"""An hour of a call, and whether memory stays flat.

    python -m benchmarks.soak [--minutes 60] [--speed 10] [--loss 2] [--size 320x192] [--restore small]

Sender and receiver are joined by two real peer connections of this process: the demo source, x264, RTP, SRTP, the
jitter buffer, the decode and restore threads; so many per cent of the RTP packets are lost, and every minute of the
call everything for two seconds. With `--speed` the source gives that many times 30 pictures a second, as far as the
machine goes: what is measured is counted by the pictures sent, 1800 to a minute of call. The call is long; what
breaks with calls that follow each other shows in tests. Ctrl-C ends it with what came of it so far.

Resident memory is read twelve times a minute of call; what comes before a tenth of the time, and before two minutes
of call, is warm-up. The slope is that of the straight line through the rest (least squares), in MB per hour of call.
"""

from __future__ import annotations

import argparse
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from models.registry import find_model
from receiver.picture import DecodedPicture
from receiver.pipeline import DecodeThread, RestoreThread
from receiver.restorer import RestorerLadder
from receiver.restorer_files import RestorerFile, open_restorers
from receiver.rtp import ReceivePath
from sender.control import SendControl
from sender.encoder import warm_up
from sender.face import FaceSegmenter
from sender.live import EncodeOptions, EncodeThread
from sender.parser import FaceParser
from sender.rate import KeyframeGate
from sender.track import AccessUnitTrack
from shared.astronaut import AstronautClip
from shared.mailbox import Latest
from shared.memory import keep_freed_memory
from shared.peer import LoopThread, close_peer, create_peer, prefer_h264, video_transceiver, wait_connected
from shared.picture import CLOCK_RATE, Picture
from shared.signals import interruptible

FPS, KBPS = 30, 400.0
PER_MINUTE = 60 * FPS
OUTAGE = 2 * FPS  # pictures of every minute of call during which nothing arrives
SAMPLES = 12  # a minute of call
LOOP = 150  # pictures of the source, again and again: rendering them would be most of the work


@dataclass
class Soak:
    """What came of it. `samples`: minutes of call, resident MB; `sent`, `shown`: pictures."""

    samples: list[tuple[float, float]] = field(default_factory=list)
    sent: int = 0
    shown: int = 0
    plis: int = 0
    nacks: int = 0
    seconds: float = 0.0

    @property
    def steady(self) -> list[tuple[float, float]]:
        """The samples after the warm-up."""
        begin = max(2.0, self.samples[-1][0] / 10) if self.samples else 0.0
        return [sample for sample in self.samples if sample[0] >= begin]

    @property
    def slope(self) -> float | None:
        """MB per hour of call; None where there is too little to tell."""
        if len(self.steady) < SAMPLES:
            return None
        minutes, memory = np.array(self.steady).T
        return float(np.polyfit(minutes / 60, memory, 1)[0])


def resident_mb() -> float:
    """Resident memory of this process; only Linux tells it that way."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise OSError("no VmRSS in /proc/self/status")


class Call:
    """Both ends, in the loop of `loop`."""

    def __init__(self, loop: LoopThread, size: tuple[int, int], speed: float, loss: float, restorer: str) -> None:
        self._loop, self._loss = loop, loss
        self._random = random.Random(7)
        self.soak = Soak()
        self._gone = False
        self._track: AccessUnitTrack
        self._ladder: RestorerLadder | None = None
        if restorer != "off":
            model = find_model(restorer)
            opened, _ = open_restorers([RestorerFile(model.path, model.name)])
            self._ladder = RestorerLadder(opened)
            self._ladder.warm_up(*size)
        self._restore = RestoreThread(self._ladder, self._shown)
        self._restore.start()
        self._gate = KeyframeGate(gap=1.0 / speed)
        loop.call(self._connect(KBPS * 1e3 * speed))
        face = find_model("face", "face-parser")
        self._segmenter = FaceSegmenter(FaceParser(face.path, face.card))
        self.pictures: Latest[Picture] = Latest()
        options = EncodeOptions(bitrate=KBPS * 1e3, fps=FPS)
        self._encode = EncodeThread(
            self.pictures,
            self._segmenter,
            self._gate,
            self._coded,
            lambda: self._track.congested,
            options,
            size,
            target=lambda: self._control.target / speed,
        )
        self._encode.start()

    async def _connect(self, rate: float) -> None:
        # `rate`: bit/s of wall-clock time, which pacing and retransmissions go by.
        self._sending, self._answering = create_peer(), create_peer()
        prefer_h264(self._sending.addTransceiver("video", direction="sendonly"))
        sender = video_transceiver(self._sending).sender
        self._track = AccessUnitTrack()
        sender.replaceTrack(self._track)
        self._control = SendControl(sender, self._gate, rate, rate / 4)
        await self._sending.setLocalDescription(await self._sending.createOffer())
        prefer_h264(self._answering.addTransceiver("video", direction="recvonly"))
        receiver = video_transceiver(self._answering).receiver
        self._decode: DecodeThread
        self._path = ReceivePath(receiver, lambda unit: self._decode.submit(unit), self._silent)
        self._decode = DecodeThread(self._restore.pictures.put, self._path.request_keyframe)
        self._decode.start()
        await self._answering.setRemoteDescription(self._sending.localDescription)
        await self._answering.setLocalDescription(await self._answering.createAnswer())
        self._lose(receiver.transport)
        await self._sending.setRemoteDescription(self._answering.localDescription)
        await wait_connected(self._sending)

    def _lose(self, transport: object) -> None:
        handle = transport._handle_rtp_data  # type: ignore[attr-defined]

        async def maybe(data: bytes, arrival_time_ms: int) -> None:
            if self._random.random() >= self._loss and self.soak.sent % PER_MINUTE >= OUTAGE:
                await handle(data, arrival_time_ms=arrival_time_ms)

        transport._handle_rtp_data = maybe  # type: ignore[attr-defined]

    async def _silent(self) -> None:
        self._gone = True  # `check` tells it: raised here, it would only end the path's own timer

    def _coded(self, access_unit: bytes, ticks: int) -> None:
        self.soak.sent += 1
        self._loop.post(self._track.push, access_unit, ticks)

    def _shown(self, _picture: DecodedPicture) -> None:
        self.soak.shown += 1

    def check(self) -> None:
        """Raise what ended a part of the call."""
        if self._encode.error is not None:
            raise self._encode.error
        if self._gone:
            raise RuntimeError("the receiver takes the call for gone")
        if not (self._decode.is_alive() and self._restore.is_alive()):
            raise RuntimeError("a thread of the receiver has ended")

    def close(self) -> None:
        self.pictures.close()
        self._encode.join(5)
        self._segmenter.close()
        self.soak.plis, self.soak.nacks = self._path.plis, self._path.nacks
        self._loop.call(self._hang_up())
        self._decode.close()
        self._restore.close()
        if self._ladder is not None:
            self._ladder.close()

    async def _hang_up(self) -> None:
        self._path.close()
        self._track.finish()
        await close_peer(self._sending)
        await close_peer(self._answering)


def run(
    minutes: float,
    speed: float = 1.0,
    loss: float = 0.02,
    size: tuple[int, int] = (320, 192),
    restorer: str = "off",
    progressed: Callable[[float], None] = lambda _minutes: None,
) -> Soak:
    """A call of so many minutes of call time. `speed`: times real time, at most; `loss`: 0..1 of the RTP packets.

    Ctrl-C ends it early. Raises OSError where resident memory cannot be read.
    """
    resident_mb()
    keep_freed_memory()  # as both programs do
    cv2.setNumThreads(1)
    warm_up()
    clip = AstronautClip(size)
    source = [clip.picture(index) for index in range(LOOP)]
    source += source[::-1]
    began = time.monotonic()
    with LoopThread() as loop:
        call = Call(loop, size, speed, loss, restorer)
        soak = call.soak
        try:
            index, pause = 0, threading.Event()
            start, due = time.monotonic(), 0.0
            while soak.sent < minutes * PER_MINUTE:
                call.pictures.put(Picture(source[index % len(source)], index * CLOCK_RATE // FPS, index))
                index += 1
                now = time.monotonic() - start
                due = max(due + 1 / (FPS * speed), now)  # a machine that cannot keep up is not hurried
                pause.wait(max(0.001, due - now))
                call.check()
                done = soak.sent / PER_MINUTE
                if done * SAMPLES >= len(soak.samples) + 1:
                    soak.samples.append((done, resident_mb()))
                    progressed(done)
        except KeyboardInterrupt:
            pass  # what came of it so far
        finally:
            call.close()
    soak.seconds = time.monotonic() - began
    return soak


def report(soak: Soak, console: Console) -> None:
    """Memory over time in ten steps, and the slope."""
    samples = soak.samples
    table = Table(title="Resident memory")
    for title in ("minutes of call", "MB", ""):
        table.add_column(title, justify="left" if not title else "right")
    most = max((memory for _, memory in samples), default=1.0)
    for minutes, memory in samples[:: max(1, len(samples) // 12)]:
        table.add_row(f"{minutes:.1f}", f"{memory:.1f}", "#" * round(40 * memory / most))
    console.print(table)
    call = soak.sent / PER_MINUTE
    console.print(
        f"{call:.1f} minutes of call in {soak.seconds / 60:.1f} minutes: {soak.sent} pictures sent, {soak.shown} "
        f"shown, {soak.nacks} packets and {soak.plis} keyframes asked for."
    )
    if soak.slope is None:
        console.print("Too short to tell a slope.")
    else:
        steady = [memory for _, memory in soak.steady]
        console.print(
            f"After warm-up {min(steady):.1f} to {max(steady):.1f} MB; slope {soak.slope:+.1f} MB per hour of call."
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="of call")
    parser.add_argument("--speed", type=float, default=10.0, help="times real time, as far as the machine goes")
    parser.add_argument("--loss", type=float, default=2.0, help="per cent of the RTP packets")
    parser.add_argument("--size", default="320x192")
    parser.add_argument("--restore", default="off", help="a restorer's name, or off")
    options = parser.parse_args()
    width, _, height = options.size.partition("x")
    console = Console()
    columns = (TextColumn("{task.completed:.1f}/{task.total:g} minutes of call"), BarColumn(), TimeRemainingColumn())
    with interruptible(), Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=options.minutes)
        soak = run(
            options.minutes,
            options.speed,
            options.loss / 100,
            (int(width), int(height)),
            options.restore,
            lambda done: bar.update(task, completed=done),
        )
    report(soak, console)


if __name__ == "__main__":
    main()
