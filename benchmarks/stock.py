"""Stock aiortc at both ends, for comparison: its own encoder, congestion control, jitter buffer and decoder.

    python -m benchmarks.stock receive --stats FILE
    python -m benchmarks.stock send --to URL --source CLIP --seconds 20 --stats FILE

Only the signalling is semcall's. Every picture carries its capture time in blocks of luma along its upper edge, so
that no clock or timestamp of aiortc is relied on. A picture counts as damaged where FFmpeg marks it or the blocks
cannot be read; what follows a wholly lost picture is marked by nobody, in stock's favour.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from aiortc import MediaStreamTrack, RTCPeerConnection, VideoStreamTrack
from aiortc.mediastreams import MediaStreamError

from sender.capture import open_source
from shared.lines import JsonLines
from shared.peer import create_peer, prefer_h264, wait_connected
from shared.picture import CLOCK_RATE, I420
from shared.whip_client import WhipClient
from shared.whip_server import WhipServer

_BLOCK, _BITS, _CHECK = 16, 28, 8  # luma samples; bits of milliseconds (three days); bits that check them
_DARK, _LIGHT = 40, 210


def stamp(i420: I420, seconds: float) -> I420:
    """A copy of a picture, at least 576 wide, that says when it was captured."""
    value = round(seconds * 1e3) % (1 << _BITS)
    word = value << _CHECK | value % 251
    out = i420.copy()
    for bit in range(_BITS + _CHECK):
        out[:_BLOCK, bit * _BLOCK : (bit + 1) * _BLOCK] = _LIGHT if word >> bit & 1 else _DARK
    return out


def stamped(luma: np.ndarray, now: float) -> float | None:
    """The Unix seconds that `stamp` wrote, at most a day before `now`; None when they cannot be read."""
    blocks = luma[:_BLOCK, : (_BITS + _CHECK) * _BLOCK].reshape(_BLOCK, -1, _BLOCK)
    levels = blocks.mean(axis=(0, 2))
    word = sum(1 << bit for bit, level in enumerate(levels) if level > (_DARK + _LIGHT) / 2)
    value = word >> _CHECK
    if value % 251 != word & ((1 << _CHECK) - 1):
        return None
    age = (round(now * 1e3) - value) % (1 << _BITS)
    return now - age / 1e3 if age < 86_400e3 else None


class ClipTrack(VideoStreamTrack):
    """A source at its own pace, newest picture first; `lines` gets the capture time of each."""

    def __init__(self, source: str, lines: JsonLines) -> None:
        super().__init__()
        self._frames: Iterator[tuple[int, float, I420]] = open_source(source).frames()
        self._lines, self._start = lines, 0.0

    async def recv(self) -> av.VideoFrame:
        loop = asyncio.get_running_loop()
        _, seconds, i420 = await loop.run_in_executor(None, lambda: next(self._frames))
        self._start = self._start or time.time() - seconds
        await asyncio.sleep(max(self._start + seconds - time.time(), 0))
        if time.time() - self._start - seconds > 0.1:  # a machine that cannot keep up: go on from now
            self._start = time.time() - seconds
        captured = self._start + seconds
        frame = av.VideoFrame.from_ndarray(stamp(i420, captured), format="yuv420p")
        frame.pts, frame.time_base = round(seconds * CLOCK_RATE), Fraction(1, CLOCK_RATE)
        self._lines.write({"ticks": round(captured * CLOCK_RATE), "keyframe": False})
        return frame


async def send(to: str, source: str, seconds: float, stats: Path) -> None:
    lines, peer, client = JsonLines(stats), create_peer(), WhipClient(to)
    prefer_h264(peer.addTransceiver(ClipTrack(source, lines), direction="sendonly"))
    try:
        await client.publish(peer)
        await wait_connected(peer)
        await asyncio.sleep(seconds)
    finally:
        await client.close()
        await peer.close()
        lines.close()


async def receive(stats: Path, host: str) -> None:
    lines, over = JsonLines(stats), asyncio.Event()
    watching: list[asyncio.Task[None]] = []

    async def watch(track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                now = time.time()
                assert isinstance(frame, av.VideoFrame)
                plane = frame.planes[0]
                luma = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
                captured = stamped(luma, now)
                damaged = captured is None or frame.is_corrupt
                lines.write({"captured": captured or now, "decoded": now, "shown": now, "damaged": damaged})

    async def on_call(peer: RTCPeerConnection) -> None:
        peer.on("track", lambda track: watching.append(asyncio.ensure_future(watch(track))))

    server = WhipServer(on_call, on_end=over.set)
    await server.start(host, 0)
    print(f"Waiting for a caller at {server.url}", flush=True)
    await over.wait()
    await server.stop()
    lines.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("end", choices=["send", "receive"])
    parser.add_argument("--to", default="http://127.0.0.1:8787/whip")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--source", default="demo")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--stats", type=Path, required=True)
    options = parser.parse_args()
    if options.end == "receive":
        asyncio.run(receive(options.stats, options.host))
    else:
        asyncio.run(send(options.to, options.source, options.seconds, options.stats))


if __name__ == "__main__":
    main()
