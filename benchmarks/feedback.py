"""Would per-packet feedback (transport-cc) keep the rate nearer to what a link carries than REMB does?

    python -m benchmarks.feedback [--seeds 5] [--spaced]

Calls of 24 s in a fake clock (benchmarks/fake_call.py), 40 ms each way, queue 400 ms: 30 pictures a second at the
target, sizes lognormal (sigma 0.5) with their debt paid back, lost packets asked for once and sent again within
semcall's limits, receiver reports every 0.5 to 1.5 s, new packets spaced while some get lost (`--spaced`: always),
the same headers for all. Controllers:

- REMB: semcall's RateTarget. no REMB: without it. REMB, trips: with it and with the round trip that each
  transport-cc feedback, 20 a second, tells.
- GCC: benchmarks/transport_cc.py. GCC, patient: there, loss counts over a tenth with a queue only. GCC, patient,
  quick: it grows as RateTarget does, too.

Figures are means and standard deviations over the seeds. settled, down, up: as in benchmarks.network, by what enters
the link; the whole call, or what is left of it, where it never is. use: mean target (coded video alone) over what can
be had, the lower of link and ceiling, from 5 s on; with steps from 2 s after the link narrows until it widens.
queue: of all packets, up to 400 ms. full: per cent of all packets that found it full.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from statistics import fmean, pstdev

from rich.console import Console
from rich.table import Table

from benchmarks import calls
from benchmarks.fake_call import SECONDS, Call, Controller, Row
from benchmarks.link import LinkSpec, parse_rate
from benchmarks.transport_cc import TransportCc
from sender.congestion import RateTarget

STEPS = 8.0, 14.0  # seconds at which a link narrows and widens
COLUMNS = {
    "settled": ("settled s", 1), "down": ("down s", 1), "up": ("up s", 1), "use": ("use", 2),
    "p50": ("queue p50 ms", 0), "p95": ("p95 ms", 0), "full": ("full %", 1),
}  # fmt: skip
"""Figure -> title and digits."""

CONTROLLERS = {
    "REMB": Controller(RateTarget, remb=True, feedback=False),
    "no REMB": Controller(RateTarget, feedback=False),
    "REMB, trips": Controller(RateTarget, remb=True),
    "GCC": Controller(TransportCc),
    "GCC, patient": Controller(partial(TransportCc, patient=True)),
    "GCC, patient, quick": Controller(partial(TransportCc, patient=True, quick=True)),
}


def rows() -> list[Row]:
    wan = LinkSpec(delay=0.04, queue=0.4)
    slow = replace(wan, rate=parse_rate("600k"))
    steps = replace(wan, rate=parse_rate("1500k,{:g}:600k,{:g}:1500k".format(*STEPS)))
    out = replace(wan, outages=((8.0, 1.0),))
    bad = replace(wan, loss=0.05)
    return [
        Row("600 kb/s, 2% loss, 1M", replace(slow, loss=0.02), 1e6, wan, 600e3),
        Row("1500, 600, 1500 kb/s, 1M", steps, 1e6, wan, 600e3, steps=True),
        Row("300 kb/s, 400k", replace(wan, rate=parse_rate("300k")), 400e3, wan, 300e3),
        Row("600 kb/s, 20 ms jitter, 1M", replace(slow, jitter=0.02), 1e6, wan, 600e3),
        Row("600 kb/s, 5% loss both ways, 400k", replace(slow, loss=0.05), 400e3, bad),
        Row("no limit, 2% loss, 1M", replace(wan, loss=0.02), 1e6, wan),
        Row("no limit, 5% loss both ways, 1M", bad, 1e6, bad),
        Row("1 s outage both ways, 400k", out, 400e3, out),
    ]


def figures(row: Row, controller: Controller, seed: int, spaced: bool = False) -> dict[str, float]:
    """Of one call, by the keys of COLUMNS; what does not apply is left out."""
    call = Call(row, controller, seed, spaced)
    call.run()
    counts = call.link.counts
    wire = calls.Call([(0.0, False), (SECONDS, False)], [], 0.0, counts.entered)
    found: dict[str, float] = {}
    start, end = 5.0, SECONDS
    if row.limit and row.steps:
        narrow, wide = STEPS
        start, end = narrow + 2, wide
        down, up = wire.fell(narrow, row.limit), wire.rose(wide, 0.9 * wire.wire(narrow - 2, narrow))
        found = {"down": wide - narrow if down is None else down, "up": SECONDS - wide if up is None else up}
    elif row.limit:
        settled = wire.settled(row.limit)
        found = {"settled": SECONDS if settled is None else settled}
    return found | {
        "use": call.mean(start, end) / row.had,
        "p50": 1e3 * counts.wait(50),
        "p95": 1e3 * counts.wait(95),
        "full": 100 * counts.tail_dropped / max(counts.packets, 1),
    }


def table(seeds: int = 5, spaced: bool = False) -> Table:
    """A row per link and controller."""
    made = Table("link", "controller", title="new packets spaced: " + ("always" if spaced else "while some get lost"))
    for title, _ in COLUMNS.values():
        made.add_column(title, justify="right")
    for row in rows():
        for index, (name, controller) in enumerate(CONTROLLERS.items()):
            runs = [figures(row, controller, seed, spaced) for seed in range(1, seeds + 1)]
            cells = []
            for key, (_, digits) in COLUMNS.items():
                values = [run[key] for run in runs if key in run]
                cells.append(f"{fmean(values):.{digits}f} ±{pstdev(values):.{digits}f}" if values else "")
            made.add_row("" if index else row.title, name, *cells, end_section=index == len(CONTROLLERS) - 1)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--spaced", action="store_true", help="space new packets on every link")
    options, _ = parser.parse_known_args()
    Console().print(table(options.seeds, options.spaced))


if __name__ == "__main__":
    main()
