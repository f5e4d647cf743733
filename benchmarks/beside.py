"""What a receiver restores that has the machine almost to itself: the real programs, the sender as light as it gets.

    python -m benchmarks.beside [--source demo --source CLIP.mp4] [--calls 7] [--seconds 12]

`semcall receive --headless --restore auto` and, as another process on the same machine, `semcall send` that seeks no
face and codes by x264's fastest usable preset; the sources take turns. A row per call: pictures shown, percent
restored, by which network of which part, and milliseconds from capture to shown (50th and 95th percentile).
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.programs import Program
from models.evaluation.call_log import read_call_log
from models.evaluation.summary import summarise
from shared.errors import SemcallError

_LIGHT = ("--face", "off", "--sal", 0, "--preset", "superfast", "--bitrate", "400k")
_ENDS_WITHIN = 40.0  # seconds


def main() -> None:
    """Hold the calls and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--source", action="append", help="`demo` or a video file; may be given again")
    arguments.add_argument("--calls", type=int, default=7, help="how many in all (%(default)s)")
    arguments.add_argument("--seconds", type=float, default=12.0, help="of each call (%(default)s)")
    told = arguments.parse_args()
    sources = told.source or ["demo"]
    console = Console(stderr=True)
    found: list[tuple[str, dict[str, Any]]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in track(range(told.calls), "calling", console=console):
            source = sources[number % len(sources)]
            try:
                summary = asyncio.run(call(source, told.seconds, Path(folder) / str(number)))
            except SemcallError as error:
                raise SystemExit(str(error)) from None
            found.append((source, summary))
    Console().print(table(found))


async def call(source: str, seconds: float, folder: Path) -> dict[str, Any]:
    """One call, as `summarise` says it. Raises SemcallError when none comes about."""
    folder.mkdir()
    sent, received = folder / "sender.jsonl", folder / "receiver.jsonl"
    programs: list[Program] = []
    try:
        receive = (
            "semcall",
            "receive",
            "--headless",
            "--once",
            "--port",
            0,
            "--restore",
            "auto",
            "--stats",
            received,
        )
        programs.append(await Program.start(*receive))
        url = await programs[0].says(r"Waiting for a caller at (http://\S+/whip)\s")
        send = ("semcall", "send", "--to", url, "--source", source, "--seconds", seconds, *_LIGHT, "--stats", sent)
        programs.append(await Program.start(*send))
        await programs[1].ends(seconds + _ENDS_WITHIN)
        await programs[0].ends(_ENDS_WITHIN)
    finally:
        for started in programs:
            await started.ends(0)
    log = read_call_log(sent, received)
    if not log.shown:
        raise SemcallError(f"No call came about: {programs[-1].said.strip()[-300:]}")
    return summarise(log)


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
