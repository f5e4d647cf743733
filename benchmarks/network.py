"""The real programs across poor links, and stock aiortc beside them in the same run.

    python -m benchmarks.network [--scenario NAME ...] [--seconds 20] [--clip FILE] [--quick] [--no-stock]
        [--namespaces] [--json FILE]

`semcall send` and `semcall receive --headless --restore off` as processes of their own, with benchmarks/relay.py
between them, which needs no root; stock aiortc is benchmarks/stock.py. The source is a clip at 1280x720 and 30 fps
(the first of ../shared/data/clips/val at that rate that fills it, else the demo source), coded anew so that reading
it costs little. Links: 40 ms each way, a queue of 400 ms; only what is said of a link is lost. Their clocks begin
with the first RTP packet. The figures, over the whole call unless said:

- fps: pictures decoded and not damaged, per second, from the first for as long as the sender captured (W3C
  webrtc-stats, framesPerSecond). After a repaired loss several come at once, and of those only the newest is shown.
- coded: pictures that the sender coded per second: what a busy machine, or the sender's policy, leaves of 30.
- p50, p95: milliseconds from capture to decoded, of the pictures that are not damaged, those included that a newer
  one replaced before they were shown: they count as decoded when that one was.
- freeze: seconds in which the picture stood still (W3C webrtc-stats, totalFreezesDuration: gaps between clean
  pictures shown of three mean periods and more, and of the mean and 150 ms); what is missing at the end counts.
- wire: kb/s into the link, RTP, SRTP, UDP and IP headers, RTCP and retransmissions included; x: over --bitrate.
- lost: percent of the datagrams lost by chance or outage, + percent that found the queue full.
- IDR: keyframes coded, the first left out (of stock unknown); PLI: keyframes asked for (of stock unknown).
- settled: seconds after which no two seconds carry more than the link's rate and 5%.
- down: seconds after the link narrows until half a second carries no more than its rate and 5%;
  up: seconds after it widens until a second begins that carries 90% of the two before it narrowed.
- back: seconds from the outage's end until a clean picture that was captured after it is shown.

A reach in fps is lowered with the source's rate, where that is not 30. --quick: 8 s each, without stock, for a look.
--namespaces: both ends in network namespaces of their own, joined by TUN devices (benchmarks/namespaces.py).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.calls import Figures
from benchmarks.namespaces import namespaces_problem
from benchmarks.programs import run
from benchmarks.punctual import run_punctual
from benchmarks.scenarios import Scenario, missed, scenarios
from shared.clips import Clip, fitted
from shared.errors import SemcallError
from shared.mp4 import Sound
from shared.picture import CLOCK_RATE
from shared.x264 import writing_mp4


def choose_clip(data: Path) -> Path | None:
    """The first val clip under `data` that fills 1280x720 at 30 fps."""
    for path in sorted((data / "clips" / "val").glob("*")):
        with contextlib.suppress(SemcallError):
            clip = Clip(path)
            if fitted(clip.size, (1280, 720)) == (1280, 720) and abs(clip.fps - 30) < 0.5:
                return path
    return None


def prepare(path: Path, out: Path) -> float:
    """Write the clip at the size at which it is sent, cheap to read; returns its pictures per second."""
    clip = Clip(path)
    with (
        contextlib.closing(Sound(path, 0.0)) as sound,
        writing_mp4(out, clip.size, clip.fps, sound, {"preset": "ultrafast", "crf": "10"}) as write,
    ):
        for i420, seconds in clip:
            write(i420, round(seconds * CLOCK_RATE))
    return clip.fps


def _load() -> str:
    """How busy the machine is before the first call: what else runs here spoils latency and picture rate."""
    return f"load {os.getloadavg()[0]:.1f} before" if hasattr(os, "getloadavg") else "load unknown"


def _cells(scenario: Scenario, f: Figures, stock: bool) -> list[str]:
    def number(value: float | None, scale: float = 1.0, digits: int = 1) -> str:
        return "-" if value is None else f"{value * scale:.{digits}f}"

    after = [f"{n} {number(v)} s" for n, v in _after(scenario, f)]
    return [
        number(f.fps), number(f.coded_fps), number(f.p50, 1e3, 0), number(f.p95, 1e3, 0), number(f.frozen, 1, 2),
        f"{f.wire / 1e3:.0f}" + ("" if stock else f" ({f.wire / scenario.bitrate:.2f}x)"),
        f"{f.lost * 100:.1f}+{f.tail_dropped * 100:.1f}",
        "-" if stock else str(f.keyframes), "-" if f.plis is None else str(f.plis), ", ".join(after),
    ]  # fmt: skip


def _after(scenario: Scenario, f: Figures) -> list[tuple[str, float | None]]:
    if scenario.steps is not None:
        return [("down", f.down), ("up", f.up)]
    if scenario.outage is not None:
        return [("back", f.back)]
    return [("settled", f.settled)] if scenario.limit is not None else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", action="append", choices=list(scenarios(20)), help="may be repeated")
    parser.add_argument("--seconds", type=float, default=20, help="of each call")
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--quick", action="store_true", help="8 s each, without stock")
    parser.add_argument("--no-stock", action="store_true", help="semcall only")
    parser.add_argument("--namespaces", action="store_true", help="over TUN and network namespaces (Linux, root)")
    parser.add_argument("--json", type=Path)
    options, _ = parser.parse_known_args()
    seconds = 8.0 if options.quick else options.seconds
    if not 5 <= seconds <= 600:
        parser.error("--seconds must be between 5 and 600")
    wanted = {name: s for name, s in scenarios(seconds).items() if not options.scenario or name in options.scenario}
    if options.namespaces and (problem := namespaces_problem()) is not None:
        parser.error(f"--namespaces: {problem}")
    ends = [False] if options.quick or options.no_stock else [False, True]
    console, results, late = Console(width=170), {}, 0.0
    with tempfile.TemporaryDirectory() as folder:
        where, clip = Path(folder), options.clip or choose_clip(options.data)
        source, fps = ("demo", 30.0) if clip is None else (str(where / "clip.mp4"), prepare(clip, where / "clip.mp4"))
        name = "demo" if clip is None else clip.stem
        table = Table(title=f"{name}, {seconds:g} s a call, {os.cpu_count()} cores, {_load()}")
        titles = (
            "link",
            "--bitrate",
            "",
            "fps",
            "coded",
            "p50",
            "p95",
            "freeze",
            "wire",
            "lost+full %",
            "IDR",
            "PLI",
        )
        for title in (*titles, "", "reach"):
            table.add_column(title, justify="right" if title in titles[3:] else "left")
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), refresh_per_second=1) as progress:
            task = progress.add_task("", total=len(wanted) * len(ends))
            for name, scenario in wanted.items():
                for stock in ends:
                    who = "aiortc" if stock else "semcall"
                    progress.update(task, description=f"{name}, {who}")
                    try:
                        f = run_punctual(run(scenario, stock, source, seconds, where, options.namespaces))
                        late = max(late, f.late or 0.0)
                        lacks = missed(scenario, f, fps)
                        verdict = f"missed: {', '.join(lacks)}" if lacks else "met"
                        cells = _cells(scenario, f, stock)
                        results[f"{name}/{who}"] = {**f.as_json(), "missed": lacks}
                    except (SemcallError, TimeoutError) as error:
                        cells, verdict = ["-"] * 10, f"no call: {error or 'nothing came in time'}"
                        results[f"{name}/{who}"] = {"error": str(error)}
                    rate = "its own" if stock else f"{scenario.bitrate / 1e3:.0f}k"
                    table.add_row(scenario.title, rate, who, *cells, verdict)
                    progress.advance(task)
                table.add_section()
    table.caption = f"The links' models let 95% of the datagrams out at most {late * 1e3:.1f} ms late."
    console.print(table)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
