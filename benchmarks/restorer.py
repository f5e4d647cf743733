"""Milliseconds per picture of every shipped restorer on one CPU thread, beside a fixed reference.

    python -m benchmarks.restorer [WIDTH HEIGHT]

Other programs slow everything alike, so each round also times an OpenCV 11x11 Gaussian blur of the same luma on one
thread: the ratio is what to compare between runs and machines.
"""

from __future__ import annotations

import statistics
import sys
import time

import cv2
import numpy as np

from models.registry import list_models
from shared.grid import grid_shape
from shared.picture import planes
from shared.restorer import Restorer

ROUNDS = 60


def main() -> None:
    width, height = (int(value) for value in sys.argv[1:3]) if len(sys.argv) > 2 else (1280, 720)
    random = np.random.default_rng(0)
    i420 = random.integers(16, 236, (height * 3 // 2, width), np.uint8)
    qp = random.integers(24, 44, grid_shape(width, height), np.uint8)
    cv2.setNumThreads(1)
    restorers = [Restorer(model.path, model.name) for model in list_models("restorer")]
    spent: dict[str, list[float]] = {"reference": []}
    for restorer in restorers:
        restorer.warm_up(width, height)
        spent[restorer.name] = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        cv2.GaussianBlur(planes(i420)[0], (11, 11), 1.5)
        spent["reference"].append((time.perf_counter() - start) * 1000)
        for restorer in restorers:
            restorer.restore(i420, qp)
            spent[restorer.name].append(restorer.last_ms)
    reference = statistics.median(spent["reference"])
    print(f"{width}x{height}, one thread, {ROUNDS} rounds; median, 10th and 90th percentile in ms")
    devices = {restorer.name: restorer.device for restorer in restorers}
    for name, values in spent.items():
        tenths = statistics.quantiles(values, n=10)
        median = statistics.median(values)
        device = devices.get(name, "CPU")
        print(f"{name:12} {device:5} {median:7.2f} {tenths[0]:7.2f} {tenths[-1]:7.2f}   x{median / reference:.1f}")


if __name__ == "__main__":
    main()
