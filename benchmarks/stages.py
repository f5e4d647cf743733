"""Every stage of a picture's way at 1280x720, on one core, against plain x264 in the same run.

    python -m benchmarks.stages

Median of 150 pictures of the demo source, all stages in turn on each picture, so that a machine whose speed drifts
slows them alike. The ratio is to the plain encode (same preset and latency settings, x264's own rate control).
"""

from __future__ import annotations

import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import av
import cv2
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from models.evaluation.plain import open_plain
from models.registry import find_model
from receiver.decoder import Decoder
from receiver.jitter import AccessUnit
from sender.encoder import SemanticEncoder, warm_up
from sender.face import SteadySegmenter
from sender.parser import FaceParser
from shared.astronaut import AstronautClip
from shared.picture import CLOCK_RATE, Picture, bgra_from_i420
from shared.restorer import Restorer

PICTURES, SKIPPED, FPS, BITRATE = 150, 15, 30, 400_000


def main() -> None:
    cv2.setNumThreads(1)
    warm_up()
    face = find_model("face", "face-parser")
    clip, segmenter = AstronautClip(), SteadySegmenter(FaceParser(face.path, face.card))
    semantic = SemanticEncoder(1280, 720, BITRATE, 0.35, mode="exact")
    plain, decoder = open_plain(1280, 720, FPS, BITRATE), Decoder()
    restorer = Restorer(find_model("small").path, "small")
    restorer.warm_up(1280, 720)
    times: dict[str, list[float]] = defaultdict(list)

    def timed(name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        start = time.perf_counter()
        result = call(*arguments)
        times[name].append((time.perf_counter() - start) * 1e3)
        return result

    for index in track(range(PICTURES), "stages"):
        i420 = timed("demo source: render", clip.picture, index)
        picture = Picture(i420, index * CLOCK_RATE // FPS, index)
        mask = timed("face mask, all of it", segmenter.mask, picture)
        for stage, spent in segmenter.milliseconds.items():
            times["  " + {"network": "network (every 4th picture)"}.get(stage, stage)].append(spent)
        frame = av.VideoFrame.from_ndarray(i420, format="yuv420p")
        frame.pts = index
        timed("plain x264", plain.encode, frame)
        unit, stats = timed("semantic encode, all of it", semantic.encode, picture, mask)
        for stage, spent in stats.milliseconds.items():
            times[f"  {stage}"].append(spent)
        coded = AccessUnit(unit, picture.ticks, 0.0, stats.keyframe, False)
        decoded = timed("decode, quantiser map", decoder.decode, coded)[0]
        timed("restore (small, one thread)", restorer.restore, decoded.i420, decoded.qp)
        timed("to BGRA for the window", bgra_from_i420, decoded.i420)

    reference = float(np.median(times["plain x264"][SKIPPED:]))
    table = Table(title=f"Milliseconds per 1280x720 picture, {platform.machine()}, {os.cpu_count()} cores")
    for title in ("stage", "median", "p95", "ratio to plain x264"):
        table.add_column(title, justify="left" if title == "stage" else "right")
    for name, values in times.items():
        kept = values[SKIPPED * len(values) // PICTURES :]
        median, p95 = float(np.median(kept)), float(np.percentile(kept, 95))
        table.add_row(name, f"{median:.2f}", f"{p95:.2f}", f"{median / reference:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
