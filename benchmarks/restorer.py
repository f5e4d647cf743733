"""Milliseconds per picture of every restorer: by size, precision, provider and threads, alone and with decoding.

    python -m benchmarks.restorer [--quick] [--size 1280x720] [--threads 1] [--model small] [--pictures 60]

The pictures are the demo source's, coded by the sender's encoder at 400 kb/s for 1280x720 (scaled to the size) with
15% for the face, and decoded by the receiver's decoder, which is timed too. All rows of a table take turns on each
picture, so that a machine whose speed drifts slows them alike; so does a fixed reference, an OpenCV 11x11 Gaussian
blur of the same luma on one thread: the ratio to it is what to compare between runs and machines. A network that
takes seconds is given fewer pictures.

Every provider that ONNX Runtime lists is tried; one that does not work here says so. OpenVINO (extra `benchmark`)
compiles the very same file for the size, in float32 where the file is; its row says how far its pictures are from
ONNX Runtime's.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import io
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from models.evaluation.study.protocol import target_kbps
from models.registry import Model, find_model, list_models
from receiver.decoder import Decoder
from receiver.jitter import AccessUnit
from sender.encoder import SemanticEncoder, warm_up
from sender.face import SteadySegmenter
from sender.parser import FaceParser
from shared.astronaut import AstronautClip
from shared.inference import first_line
from shared.picture import CLOCK_RATE, I420, Picture, planes
from shared.providers import session_options

SIZES = ((640, 360), (1280, 720), (1920, 1080))
FPS, KBPS, SHARE = 30, 400.0, 0.15
CODED = 30
"""Pictures of the stream; it is decoded anew from its IDR as often as needed."""
ROW_SECONDS = 20.0
"""After which a row is given no more pictures, if it has had five."""

Planes = dict[str, NDArray[np.uint8]]
Run = Callable[[Planes], list[NDArray[np.uint8]]]


@dataclass
class Row:
    """`run` is None where it cannot run here; `note` says why, or how its pictures differ. Times in ms."""

    model: str
    precision: str
    provider: str
    run: Run | None
    note: str = ""
    alone: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)

    @property
    def wanted(self) -> bool:
        return self.run is not None and (len(self.alone) < 5 or sum(self.alone) < ROW_SECONDS * 1e3)


def stream(size: tuple[int, int]) -> list[AccessUnit]:
    """The demo source as the sender codes it."""
    face = find_model("face", "face-parser")
    clip, segmenter = AstronautClip(size), SteadySegmenter(FaceParser(face.path, face.card))
    encoder = SemanticEncoder(*size, target_kbps(KBPS, size) * 1e3, SHARE, fps=FPS)
    units = []
    for index in range(CODED):
        picture = Picture(clip.picture(index), index * CLOCK_RATE // FPS, index)
        data, stats = encoder.encode(picture, segmenter.mask(picture))
        units.append(AccessUnit(data, picture.ticks, 0.0, stats.keyframe, False))
    return units


def pictures(units: list[AccessUnit], count: int) -> Iterator[tuple[float, I420, NDArray[np.uint8]]]:
    """So many decoded pictures: milliseconds that decoding took, I420, quantisers."""
    done = 0
    while True:
        decoder = Decoder()
        for unit in units:
            start = time.perf_counter()
            decoded = decoder.decode(unit)
            spent = (time.perf_counter() - start) * 1e3
            for picture in decoded:
                yield spent, picture.i420, np.ascontiguousarray(picture.qp)
                done += 1
                if done == count:
                    return


def onnx_runtime(model: Model, provider: str, threads: int) -> Run:
    """The model under one provider. Raises whatever the runtime does, ValueError where another one stands in."""
    with contextlib.redirect_stdout(io.StringIO()):  # the fallback that is refused below is announced there
        session = ort.InferenceSession(str(model.path), session_options(threads), providers=[provider])
    if session.get_providers()[0] != provider:
        raise ValueError("its libraries are missing or there is no device")
    return lambda fed: list(session.run(["y_out", "uv_out"], fed))


def openvino(model: Model, size: tuple[int, int], threads: int) -> Run:
    """The same on OpenVINO's CPU device. Raises ModuleNotFoundError without it, and whatever it raises."""
    core: Any = importlib.import_module("openvino").Core()
    graph = core.read_model(str(model.path))
    width, height = size
    graph.reshape(
        {
            "y": [1, 1, height, width],
            "uv": [1, 2, height // 2, width // 2],
            "qp": [1, 1, -(-height // 16), -(-width // 16)],
        }
    )
    options = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(graph, "CPU", options).create_infer_request()

    def run(fed: Planes) -> list[NDArray[np.uint8]]:
        found = request.infer(fed, share_inputs=True, share_outputs=True)
        return [found["y_out"], found["uv_out"]]

    return run


def rows_of(model: Model, size: tuple[int, int], threads: int) -> list[Row]:
    """A row per runtime and provider."""
    rows = []
    kinds: list[tuple[str, Callable[[], Run]]] = [
        (f"ORT {name.removesuffix('ExecutionProvider')}", lambda name=name: onnx_runtime(model, name, threads))  # type: ignore[misc]
        for name in sorted(ort.get_available_providers(), key=lambda name: name != "CPUExecutionProvider")
    ]
    kinds.append(("OpenVINO CPU", lambda: openvino(model, size, threads)))
    for provider, make in kinds:
        row = Row(model.name, precision(model), provider, None)
        try:
            row.run = make()
        except ModuleNotFoundError as error:
            row.note = f"{error.name} is not installed"
        except Exception as error:  # the runtimes' exceptions have no common base
            row.note = f"does not work here: {first_line(error)[:70]}"
        rows.append(row)
    return rows


def precision(model: Model) -> str:
    """By the graph, not by its card: the names of its operations are plain in the file."""
    content = model.path.read_bytes()
    return "int8" if b"DequantizeLinear" in content else "float32"


def first_run(rows: list[Row], fed: Planes) -> None:
    """Every row once, untimed: engines are built, memory is found, results are compared with the first row's."""
    reference: dict[str, list[NDArray[np.uint8]]] = {}
    for row in rows:
        if row.run is None:
            continue
        try:
            found = [plane.copy() for plane in row.run(fed)]
        except Exception as error:  # the runtimes' exceptions have no common base
            row.run, row.note = None, f"fails: {first_line(error)[:70]}"
            continue
        if row.model in reference:
            pairs = zip(found, reference[row.model], strict=True)
            apart = max(int(np.abs(a.astype(np.int32) - b).max()) for a, b in pairs)
            row.note = f"within {apart} code values of it"
        else:
            reference[row.model] = found


def measure(rows: list[Row], units: list[AccessUnit], count: int) -> tuple[list[float], list[float]]:
    """Fill in the rows; returns milliseconds of decoding and of the reference."""
    decode: list[float] = []
    reference: list[float] = []
    for number, (spent, i420, qp) in enumerate(pictures(units, count + 1)):
        y, uv = planes(i420)
        fed = {"y": y[None, None], "uv": uv[None], "qp": qp[None, None]}
        if not number:
            first_run(rows, fed)
            continue  # the IDR, and whatever is done but once
        decode.append(spent)
        start = time.perf_counter()
        cv2.GaussianBlur(y, (11, 11), 1.5)
        reference.append((time.perf_counter() - start) * 1e3)
        turn = number % len(rows)  # nobody is always the one after the largest
        for row in rows[turn:] + rows[:turn]:
            if row.run is not None and row.wanted:
                start = time.perf_counter()
                row.run(fed)
                row.alone.append((time.perf_counter() - start) * 1e3)
                row.whole.append(row.alone[-1] + spent)
    return decode, reference


def spread(values: list[float]) -> list[str]:
    """Median, 10th and 90th percentile."""
    tenths = np.percentile(values, [10, 90])
    return [f"{value:.2f}" for value in (statistics.median(values), *tenths)]


def report(rows: list[Row], decode: list[float], reference: list[float], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for name in ("restorer", "precision", "runtime", "ms", "p10", "p90", "ratio", "decode+restore", "p90", "n", ""):
        table.add_column(name, justify="left" if name in ("restorer", "precision", "runtime", "") else "right")
    unit = statistics.median(reference)
    for name, values in (("reference blur", reference), ("decode", decode)):
        table.add_row(
            name, "", "", *spread(values), f"{statistics.median(values) / unit:.1f}", "", "", str(len(values))
        )
    for row in rows:
        figures = [""] * 7
        if row.alone:
            middle, _, high = spread(row.whole)
            ratio = f"{statistics.median(row.alone) / unit:.1f}"
            figures = [*spread(row.alone), ratio, middle, high, str(len(row.alone))]
            first = next(other for other in rows if other.model == row.model and other.alone)
            if first is not row:
                row.note = (
                    f"{statistics.median(row.alone) / statistics.median(first.alone):.2f} x ORT CPU; {row.note}"
                )
        table.add_row(row.model, row.precision, row.provider, *figures, row.note)
    return table


def machine() -> str:
    """What the figures were taken on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    try:
        vino = importlib.metadata.version("openvino")
    except importlib.metadata.PackageNotFoundError:
        vino = "not installed"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{names[0] if names else platform.processor() or platform.machine()}, {cores} cores{load}; "
        f"ONNX Runtime {ort.__version__}, OpenVINO {vino}"
    )


def even_size(text: str) -> tuple[int, int]:
    width, height = (int(side) for side in text.lower().split("x"))
    if width % 2 or height % 2 or not 64 <= min(width, height) <= max(width, height) <= 4096:
        raise ValueError(text)
    return width, height


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.restorer", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--size", action="append", type=even_size, help="WIDTHxHEIGHT, even; default: 640x360, 1280x720, 1920x1080"
    )
    parser.add_argument("--threads", action="append", type=int, help="default: 1 and 2")
    parser.add_argument("--model", action="append", help="name or ONNX file; default: every restorer there is")
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--quick", action="store_true", help="two smaller sizes, one thread, 15 pictures")
    chosen = parser.parse_args([] if arguments is None else arguments)
    sizes = chosen.size or SIZES[: 2 if chosen.quick else 3]
    threads = chosen.threads or ([1] if chosen.quick else [1, 2])
    count = 15 if chosen.quick else chosen.pictures
    models = [find_model(name) for name in chosen.model or [model.name for model in list_models("restorer")]]
    cv2.setNumThreads(1)
    warm_up()
    console = Console(width=150)
    console.print(machine(), highlight=False)
    for size in sizes:
        units = stream(size)
        kbps = sum(len(unit.data) for unit in units[1:]) * 8 * FPS / (len(units) - 1) / 1e3
        for number in threads:
            rows = [row for model in models for row in rows_of(model, size, number)]
            decode, reference = measure(rows, units, count)
            title = f"{size[0]}x{size[1]}, {number} thread{'s' * (number > 1)}; stream of {kbps:.0f} kb/s; ms: median"
            console.print(report(rows, decode, reference, title), highlight=False)


if __name__ == "__main__":
    main(sys.argv[1:])
