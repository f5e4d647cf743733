"""What a receiver restores that has the machine almost to itself: the real programs, the sender as light as it gets.

    python -m benchmarks.beside [--source demo --source CLIP.mp4] [--calls 7] [--seconds 12]
        [--pace 2] [--size 640x360]

`semcall receive --headless --restore auto` and, as another process on the same machine, `semcall send` that seeks no
face and codes by the preset `superfast`; the sources take turns. A row per call: pictures shown, percent restored, by
which network of which part, and milliseconds from capture to shown (50th and 95th percentile). `--pace` shows the
pictures of files, ten seconds of them at most, so many times as fast: a call of 60 pictures a second, say.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.programs import hold
from models.evaluation.call_log import read_call_log
from models.evaluation.summary import summarise
from shared.clips import Clip
from shared.errors import SemcallError
from shared.x264 import write_pictures

_LIGHT = ("--face", "off", "--sal", 0, "--preset", "superfast", "--bitrate", "400k")
_FASTER_SECONDS = 10.0  # of a file that is shown faster


def main() -> None:
    """Hold the calls and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--source", action="append", help="`demo` or a video file; may be given again")
    arguments.add_argument("--calls", type=int, default=7, help="how many in all (%(default)s)")
    arguments.add_argument("--seconds", type=float, default=12.0, help="of each call (%(default)s)")
    arguments.add_argument("--pace", type=float, default=1.0, help="of video files, times their own (%(default)s)")
    arguments.add_argument("--size", default="1280x720", help="largest picture (%(default)s)")
    told = arguments.parse_args()
    sources = told.source or ["demo"]
    console = Console(stderr=True)
    found: list[tuple[str, dict[str, Any]]] = []
    with tempfile.TemporaryDirectory() as folder:
        if told.pace != 1:
            sources = [faster(source, told.pace, Path(folder)) for source in sources]
        for number in track(range(told.calls), "calling", console=console):
            source = sources[number % len(sources)]
            try:
                summary = asyncio.run(call(source, told.seconds, told.size, Path(folder) / str(number)))
            except (SemcallError, TimeoutError) as error:
                raise SystemExit(str(error) or "A program of the benchmark kept silent.") from None
            found.append((source, summary))
    Console().print(table(found))


def faster(source: str, pace: float, folder: Path) -> str:
    """A video file's first pictures at `pace` times its rate, as another file; `demo` keeps its own."""
    if source == "demo":
        return source
    try:
        clip, out = Clip(source), folder / Path(source).with_suffix(".mp4").name
        pictures = (i420 for i420, _ in islice(clip, round(_FASTER_SECONDS * clip.fps)))
        write_pictures(out, clip.size, pace * clip.fps, pictures, {"preset": "veryfast", "crf": "16"})
    except SemcallError as error:
        raise SystemExit(str(error)) from None
    return str(out)


async def call(source: str, seconds: float, size: str, folder: Path) -> dict[str, Any]:
    """One call, as `summarise` says it. Raises SemcallError when none comes about or it is cut short."""
    folder.mkdir()
    sent, received = folder / "sender.jsonl", folder / "receiver.jsonl"

    async def send(url: str) -> Sequence[object]:
        return (
            "semcall",
            "send",
            "--to",
            url,
            *_LIGHT,
            "--source",
            source,
            "--seconds",
            seconds,
            "--size",
            size,
            "--stats",
            sent,
        )

    receive = ("semcall", "receive", "--headless", "--once", "--port", 0, "--restore", "auto", "--stats", received)
    said = await hold(receive, send, seconds)
    summary = summarise(read_call_log(sent, received))
    if summary["seconds"] < 0.9 * seconds:
        raise SemcallError(f"No whole call came about: {said.strip()[-300:]}")
    return summary


def table(found: list[tuple[str, dict[str, Any]]]) -> Table:
    """A row per call: its source, and its summary."""
    drawn = Table("source", "shown", "restored", "by", "glass to shown, p50 / p95")
    for source, summary in found:
        rungs = ", ".join(f"{percent:.0f}% {rung}" for rung, percent in summary["restored_on"].items())
        shown = summary["glass_to_shown_ms"]
        drawn.add_row(
            Path(source).stem,
            str(summary["pictures_shown"]),
            f"{summary['restored_percent']:.0f}%",
            rungs,
            f"{shown['p50']:.0f} / {shown['p95']:.0f} ms",
        )
    return drawn


if __name__ == "__main__":
    main()
