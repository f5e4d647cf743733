"""What shared/memory.py saves a receiver: milliseconds, page faults and megabytes, with and without each part.

    python -m benchmarks.memory [--restorer fast] [--pictures 300]

The demo source at 1280x720 and 400 kb/s is coded once; then each variant decodes, restores and steadies all of it on
a thread of a process of its own, as a receiver does, one after the other. `steady` is shared/steady.py. Medians;
faults are minor page faults of that thread per picture; MB is the most that was resident beyond what was before.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.soak import resident_mb
from models.registry import find_model
from receiver.decoder import Decoder
from receiver.jitter import AccessUnit
from sender.encoder import SemanticEncoder, warm_up
from shared.astronaut import AstronautClip
from shared.grid import grid_shape
from shared.memory import keep_freed_memory
from shared.picture import CLOCK_RATE, Picture
from shared.restorer import Restorer
from shared.steady import Steadiness

SIZE, FPS, BITRATE, SKIPPED = (1280, 720), 30, 400_000, 20


def code(pictures: int) -> list[AccessUnit]:
    """The demo source's first pictures, coded; the middle counts as the face."""
    warm_up()
    clip, encoder = AstronautClip(SIZE), SemanticEncoder(*SIZE, BITRATE, 0.35)
    rows, columns = grid_shape(*SIZE)
    mask = np.zeros((rows, columns), np.bool_)
    mask[rows // 4 : 3 * rows // 4, columns // 3 : 2 * columns // 3] = True
    units = []
    for index in track(range(pictures), "coding", console=Console(stderr=True)):
        picture = Picture(clip.picture(index), index * CLOCK_RATE // FPS, index)
        unit, stats = encoder.encode(picture, mask)
        units.append(AccessUnit(unit, picture.ticks, 0.0, stats.keyframe, False))
    return units


def receive(units: list[AccessUnit], restorer: Restorer, collected: bool) -> dict[str, float]:
    """Decode, restore and steady; `collected`: frames are freed by the decoder's collector."""
    decoder, steady = Decoder(), Steadiness()
    if not collected:
        decoder._frames.read = lambda: None  # type: ignore[method-assign]
        gc.unfreeze()
    times: list[tuple[float, float, float]] = []
    before, most = resident_mb(), 0.0
    faults = 0
    for index, unit in enumerate(units):
        if index == SKIPPED:
            faults = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        start = time.perf_counter()
        (picture,) = decoder.decode(unit)
        decoded = time.perf_counter()
        restored = restorer.restore(picture.i420, picture.qp)
        mended = time.perf_counter()
        steady(picture.i420, restored)
        times.append((decoded - start, mended - decoded, time.perf_counter() - mended))
        most = max(most, resident_mb())
    faults = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - faults
    decode, restore, steadied = np.median(np.array(times[SKIPPED:]) * 1e3, 0)
    return {
        "decode": float(decode),
        "restore": float(restore),
        "steady": float(steadied),
        "faults": faults / (len(units) - SKIPPED),
        "MB": most - before,
    }


def _variant(coded: Path, restorer: str, kept: bool, collected: bool) -> None:
    cv2.setNumThreads(1)
    if kept:
        keep_freed_memory()
    units = pickle.loads(coded.read_bytes())
    network = Restorer(find_model(restorer).path, restorer)
    network.warm_up(*SIZE)
    found: dict[str, float] = {}
    thread = threading.Thread(target=lambda: found.update(receive(units, network, collected)))
    thread.start()
    thread.join()
    print(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--restorer", default="fast")
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--variant", nargs=3, help=argparse.SUPPRESS)
    options, _ = parser.parse_known_args()
    if options.variant:
        coded, kept, collected = options.variant
        _variant(Path(coded), options.restorer, kept == "1", collected == "1")
        return
    table = Table(title=f"1280x720, {options.pictures} pictures, {os.cpu_count()} cores")
    for title in ("freed memory is kept", "frames are collected", "decode ms", f"{options.restorer} ms", "steady ms",
                  "faults per picture", "MB"):  # fmt: skip
        table.add_column(title, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        coded = Path(folder) / "units"
        coded.write_bytes(pickle.dumps(code(options.pictures)))
        for kept, collected in itertools.product((False, True), repeat=2):
            command = [sys.executable, "-m", "benchmarks.memory", "--restorer", options.restorer]
            command += ["--variant", str(coded), str(int(kept)), str(int(collected))]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            cells = [f"{found[name]:.2f}" for name in ("decode", "restore", "steady")]
            said = ["yes" if it else "no" for it in (kept, collected)]
            table.add_row(*said, *cells, f"{found['faults']:.0f}", f"{found['MB']:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
