"""The 8-bit variant of an exported float restorer: its graph, and whether it is worth keeping."""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from models.evaluation.metrics import psnr
from models.networks.features import JudgeVgg, rgb
from models.training.calibration import Material, Sample, coded_like_a_call, inputs
from models.training.parity import opened
from shared.astronaut import AstronautClip
from shared.errors import SemcallError
from shared.inference import first_line
from shared.picture import I420, planes

LEAST_PSNR = 40.0
"""dB that the 8-bit network's pictures keep to the float network's: closer than coding keeps to the original."""
MOST_WORSE = 1.02
"""Most that the distance to the originals may be, in the float network's."""
MOST_TIME = 0.95
"""The same of its time: less gain is within what medians of a few runs can tell, and not worth a second file."""
TIMED_AT = (640, 360)
# What may stand between two convolutions and has an 8-bit kernel.
_BETWEEN = ("Add", "Clip", "LeakyRelu", "Pad", "Relu", "Resize")


@dataclass(frozen=True, slots=True)
class Comparison:
    """An 8-bit network beside the float one it was made of.

    `psnr_db`: mean PSNR of its pictures (all three planes) against the float network's; `distance_float` and
    `distance_int8`: mean distance of either's pictures to the originals, by `distance`; `ms_float` and `ms_int8`:
    median milliseconds of `runs` alternating runs each at 640x360 on one CPU thread.
    """

    psnr_db: float
    distance: str
    distance_float: float
    distance_int8: float
    ms_float: float
    ms_int8: float
    runs: int

    def reason(self) -> str:
        """Why the 8-bit network is not kept, as the end of a sentence; empty where it is."""
        reasons = []
        time_taken, distance = self._ratios()
        if not time_taken <= MOST_TIME:  # written so that a NaN fails too
            reasons.append(f"{self._time()}, which has to be {MOST_TIME:g} or less")
        if not self.psnr_db >= LEAST_PSNR:
            reasons.append(
                f"its pictures are {self.psnr_db:.1f} dB from the float network's, {LEAST_PSNR:g} are asked"
            )
        if not distance <= MOST_WORSE:
            reasons.append(
                f"its distance to the originals ({self.distance}) is {distance:.3f} times the float network's, "
                f"{MOST_WORSE:g} is allowed"
            )
        return "; ".join(reasons)

    def gain(self) -> str:
        """What speaks for the 8-bit network, as the end of a sentence."""
        return (
            f"{self._time()}, its pictures are {self.psnr_db:.1f} dB from the float network's, its distance to the "
            f"originals ({self.distance}) is {self._ratios()[1]:.3f} times as large"
        )

    def figures(self) -> dict[str, float | str]:
        """All of it, rounded, for a card."""
        return {key: value if isinstance(value, str) else round(value, 4) for key, value in asdict(self).items()}

    def _time(self) -> str:
        return (
            f"it takes {self._ratios()[0]:.2f} times the float network's time at {TIMED_AT[0]}x{TIMED_AT[1]} "
            f"(medians of {self.runs} alternating runs on one thread)"
        )

    def _ratios(self) -> tuple[float, float]:
        return self.ms_int8 / self.ms_float, self.distance_int8 / max(self.distance_float, 1e-12)


def quantised(content: bytes, samples: Sequence[Sample]) -> bytes:
    """An exported graph with its network's convolutions, and what lies between them, in 8 bits.

    Quantise-dequantise form, weights per channel, calibrated on `samples`. Weights have 7 bits on every machine: the
    file travels, and 8-bit weights overflow on x86 without VNNI. The conversions around the network stay in float.
    Raises SemcallError when there is nothing to quantise or the runtime cannot do it.
    """
    names = _inside(onnx.load_from_string(content))
    if not names:
        raise SemcallError("it has no convolutions to quantise.")
    root = logging.getLogger()
    level = root.level
    try:
        root.setLevel(logging.ERROR)  # it recommends a preparation that the exporter's graphs do not need
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
            source.write_bytes(content)
            quantize_static(
                source,
                target,
                _Reader(samples),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv", *_BETWEEN],
                nodes_to_quantize=names,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibration_providers=["CPUExecutionProvider"],
            )
            return target.read_bytes()
    except Exception as error:  # the runtime's exceptions have no common base
        raise SemcallError(f"it cannot be made ({first_line(error).rstrip('.')}).") from error
    finally:
        root.setLevel(level)


def compare(content: bytes, small: bytes, material: Material, seconds: float = 30.0) -> Comparison:
    """The float graph `content` and the 8-bit one `small` on the judged pictures, and timed in turn for `seconds`."""
    sessions = opened(content, "float"), opened(small, "int8")
    apart, distances = [], []
    for sample in material.judged:
        exact, coarse = (_restored(session, sample) for session in sessions)
        apart.append(psnr(exact, coarse))
        distances.append([_distance(material.eye, picture, sample.original) for picture in (exact, coarse)])
    means = np.mean(distances, axis=0)
    demo = coded_like_a_call([AstronautClip(TIMED_AT).picture(n) for n in range(2)], 36)[-1]
    fed = inputs(demo.coded, demo.qp)
    spent: tuple[list[float], list[float]] = ([], [])
    for session in sessions:
        session.run(None, fed)
    end = time.perf_counter() + seconds
    while len(spent[0]) < 5 or (len(spent[0]) < 25 and time.perf_counter() < end):
        for session, mine in zip(sessions, spent, strict=True):
            start = time.perf_counter()
            session.run(None, fed)
            mine.append((time.perf_counter() - start) * 1000)
    return Comparison(
        float(np.mean(apart)),
        "VGG-19 features" if material.eye else "RMSE of luma",
        float(means[0]),
        float(means[1]),
        statistics.median(spent[0]),
        statistics.median(spent[1]),
        len(spent[0]),
    )


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, samples: Sequence[Sample]) -> None:
        self._left: Iterator[Sample] = iter(samples)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """The next picture, None after the last."""
        sample = next(self._left, None)
        return None if sample is None else inputs(sample.coded, sample.qp)


def _inside(model: onnx.ModelProto) -> list[str]:
    """Names of the network's convolutions and of what lies on the way from one of them to another."""
    nodes = list(model.graph.node)  # in an order in which each comes after what it reads
    convolutions = {node.name for node in nodes if node.op_type == "Conv" and node.name.startswith("/net/")}
    after: set[str] = set()  # values that a convolution had a part in
    for node in nodes:
        if node.name in convolutions or after & set(node.input):
            after |= set(node.output)
    before: set[str] = set()  # values that a convolution will read
    for node in reversed(nodes):
        if node.name in convolutions or before & set(node.output):
            before |= set(node.input)
    return [
        node.name
        for node in nodes
        if node.name in convolutions
        or (node.op_type in _BETWEEN and after & set(node.input) and before & set(node.output))
    ]


def _restored(session: ort.InferenceSession, sample: Sample) -> I420:
    y, uv = session.run(["y_out", "uv_out"], inputs(sample.coded, sample.qp))
    return np.concatenate([y[0, 0], uv.reshape(-1, y.shape[3])])


def _distance(eye: JudgeVgg | None, picture: I420, original: I420) -> float:
    if eye is None:
        error = planes(picture)[0].astype(np.float64) - planes(original)[0]
        return float(np.sqrt((error**2).mean()))
    with torch.inference_mode():
        return float(eye.distance(eye(_tensor(picture)), eye(_tensor(original))))


def _tensor(i420: I420) -> torch.Tensor:
    y, uv = (torch.from_numpy(plane.astype(np.float32)) for plane in planes(i420))
    return rgb(y[None, None], uv[None]).clamp(0, 1)
