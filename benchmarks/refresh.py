"""Periodic intra refresh against keyframes on request: what it costs while nothing is lost.

    python -m benchmarks.refresh [--data ../shared/data] [--seconds 8] [--rate 400e3]

Our encoder without regions (`--sal 0`) at one rate, once as it is and once with x264's intra-refresh, which codes a
column of intra macroblocks in every picture so that any loss is mended within its period. Clips as in
benchmarks.encoder. PSNR: luma, from the third second on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean
from unittest import mock

import av
import numpy as np
from rich.console import Console
from rich.table import Table

import sender.encoder
from benchmarks.encoder import SETTLED, load
from models.evaluation.metrics import psnr
from sender.encoder import SemanticEncoder
from shared.picture import CLOCK_RATE, Picture, i420_from_frame, planes, size_of

PERIODS = (0, 90)
"""Pictures in which the refresh goes over the picture; 0: none."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rate", type=float, default=400e3)
    options, _ = parser.parse_known_args()
    table = Table(title=f"{options.rate / 1e3:.0f} kb/s, {options.seconds:g} s")
    for title in ("clip", "refresh", "kb/s", "QP", "PSNR", "against none"):
        table.add_column(title, justify="left" if title == "clip" else "right")
    for sequence in load(options.data, options.seconds):
        none = 0.0
        for period in PERIODS:
            own = sender.encoder._OPTIONS
            params = {"intra-refresh": "1", "g": str(period)} if period else {}
            with mock.patch.object(sender.encoder, "_OPTIONS", own | params):
                encoder = SemanticEncoder(*size_of(sequence.pictures[0]), options.rate, 0.0, fps=sequence.fps)
            decoder = av.CodecContext.create("h264", "r")
            bits, quantisers, qualities = 0, [], []
            for index, (i420, seconds) in enumerate(zip(sequence.pictures, sequence.times, strict=True)):
                mask = np.zeros_like(sequence.masks[0])
                unit, stats = encoder.encode(Picture(i420, round(seconds * CLOCK_RATE), index), mask)
                bits += stats.bits
                for frame in decoder.decode(av.Packet(unit)):
                    if seconds >= SETTLED:
                        quantisers.append(stats.qp_background)
                        qualities.append(psnr(planes(i420)[0], planes(i420_from_frame(frame))[0]))
            quality = mean(qualities)
            none = quality if not period else none
            name = "none" if not period else f"{period} pictures"
            rate = bits / (sequence.times[-1] + 1 / sequence.fps) / 1e3
            table.add_row(
                sequence.name,
                name,
                f"{rate:.0f}",
                f"{mean(quantisers):.1f}",
                f"{quality:.2f}",
                f"{quality - none:+.2f} dB",
            )
        table.add_section()
    Console().print(table)


if __name__ == "__main__":
    main()
