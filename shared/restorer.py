"""Runs a restoration network on decoded pictures: ONNX Runtime, on the best provider that works here.

The contract, version 1, is all that is known of a network: `y` uint8 [1, 1, H, W], `uv` uint8 [1, 2, H/2, W/2] and
`qp` uint8 [1, 1, ceil(H/16), ceil(W/16)] (luma quantiser, 0..51) go in, `y_out` and `uv_out` of the shapes of `y` and
`uv` come out, for every even H and W.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from shared.contracts import check_session
from shared.errors import SemcallError
from shared.grid import grid_shape
from shared.inference import first_line, open_session, read_model
from shared.picture import I420, planes
from shared.providers import CPU, TENSORRT, open_tensorrt

Restore = Callable[[I420, NDArray[np.uint8]], I420]
"""A picture, uint8 [H * 3 / 2, W], and its quantisers, uint8 [rows, columns], to a new array: the restored one."""
# Pictures that TensorRT's engine is built for: from a small face at the border to upright 1920x1080.
_SIZES = {"min": (16, 16), "opt": (1280, 720), "max": (1920, 1920)}
_KEPT = 4  # picture sizes whose device memory is kept


class Restorer:
    """One network, ready to run. Two threads may use it at once; on a device they take turns.

    Raises SemcallError when the file cannot be read, is no ONNX model, keeps tensors in other files or does not keep
    the contract. `threads`: CPU threads of one restoration.
    """

    def __init__(self, model_path: str | os.PathLike[str], name: str = "", threads: int = 1) -> None:
        self._path, self._threads = Path(model_path), threads
        self.name = name or self._path.stem
        self.last_ms = 0.0
        """Milliseconds that the last `restore` took."""
        self._runner = _Runner(*open_session(self._path, "restorer", threads, self._check))
        self._before: _Runner | None = None  # TensorRT came
        self._beyond: set[tuple[int, ...]] = set()  # shapes that its engine is not for

    @property
    def device(self) -> str:
        """Where it runs: "TensorRT", "CUDA", "CoreML", "DirectML", "OpenVINO" or "CPU"."""
        return self._runner.device

    def restore(self, i420: I420, qp: NDArray[np.uint8]) -> I420:
        """The restored picture, a new I420 array.

        `i420`: uint8 [H * 3 / 2, W], H and W even; `qp`: uint8 [ceil(H/16), ceil(W/16)], 0..51. Raises SemcallError
        when the network fails, for instance because a device was lost.
        """
        start = time.perf_counter()
        restored = np.empty_like(i420, order="C")
        runner = self._runner
        if self._before is not None and i420.shape in self._beyond:
            runner = self._before
        try:
            runner.run(np.ascontiguousarray(i420), np.ascontiguousarray(qp), restored)
        except Exception as error:  # the runtime's exceptions have no common base
            if runner.device == TENSORRT and self._before is not None:  # a picture that its engine is too small for?
                self._beyond.add(i420.shape)
                return self.restore(i420, qp)
            raise SemcallError(f"The restorer {self.name} failed: {first_line(error)}") from error
        self.last_ms = (time.perf_counter() - start) * 1000
        return restored

    def warm_up(self, width: int, height: int, times: int = 3) -> float:
        """Restore `times` grey pictures so that the first real one finds memory in place; returns the best ms."""
        i420 = np.full((height * 3 // 2, width), 128, np.uint8)
        qp = np.full(grid_shape(width, height), 30, np.uint8)
        spent = []
        for _ in range(times):
            start = time.perf_counter()
            self.restore(i420, qp)
            spent.append((time.perf_counter() - start) * 1000)
        return min(spent)

    def accelerate(self) -> bool:
        """Go over to TensorRT in half precision where that works; returns whether.

        For a thread of its own: the first time on a machine it takes minutes, in which `restore` goes on as it was.
        """
        if self._before is not None:
            return False
        try:
            content = read_model(self._path, "restorer")
        except SemcallError:  # it was taken away since
            return False
        session = open_tensorrt(content, self._threads, _profile(), self._check)
        if session is None:
            return False
        self._before, self._runner = self._runner, _Runner(session, TENSORRT)
        return True

    def _check(self, session: ort.InferenceSession) -> None:
        check_session(session, "restorer", {}, f"The restorer {self._path}")


class _Runner:
    """A session and what it needs from picture to picture."""

    def __init__(self, session: ort.InferenceSession, device: str) -> None:
        self.device = device
        self._session = session
        self._memory: dict[tuple[int, ...], DeviceMemory] = {}
        # The CPU's session may be run by two threads at once; the device's memory here may not.
        self._turn: contextlib.AbstractContextManager[Any] = (
            contextlib.nullcontext() if device == CPU else threading.Lock()
        )

    def run(self, i420: I420, qp: NDArray[np.uint8], restored: I420) -> None:
        """One inference from I420 to I420, all contiguous; without copies on the CPU."""
        y, uv = planes(i420)
        inputs = {"y": y[None, None], "uv": uv[None], "qp": qp[None, None]}
        y, uv = planes(restored)
        outputs = {"y_out": y[None, None], "uv_out": uv[None]}
        with self._turn:
            if self.device in ("CUDA", TENSORRT):
                if i420.shape not in self._memory:
                    while len(self._memory) >= _KEPT:
                        del self._memory[next(iter(self._memory))]
                    self._memory[i420.shape] = DeviceMemory(self._session, inputs, outputs)
                self._memory[i420.shape].run(inputs, outputs)
                return
            binding = self._session.io_binding()
            for name, array in inputs.items():
                binding.bind_input(name, "cpu", 0, np.uint8, array.shape, array.ctypes.data)
            for name, array in outputs.items():
                binding.bind_output(name, "cpu", 0, np.uint8, array.shape, array.ctypes.data)
            self._session.run_with_iobinding(binding)


class DeviceMemory:
    """A device's buffers for one picture size, bound to a session. `where`: ONNX Runtime's name of the memory."""

    def __init__(
        self,
        session: ort.InferenceSession,
        inputs: dict[str, NDArray[np.uint8]],
        outputs: dict[str, NDArray[np.uint8]],
        where: str = "cuda",
    ) -> None:
        """`inputs`, `outputs`: arrays of the shapes to come, by name."""
        self._session, self._binding = session, session.io_binding()
        self._buffers = {
            name: ort.OrtValue.ortvalue_from_shape_and_type(array.shape, np.uint8, where, 0)
            for name, array in {**inputs, **outputs}.items()
        }
        for name in outputs:
            self._binding.bind_ortvalue_output(name, self._buffers[name])

    def run(self, inputs: dict[str, NDArray[np.uint8]], outputs: dict[str, NDArray[np.uint8]]) -> None:
        """One inference; `outputs` are written to."""
        for name, array in inputs.items():
            self._buffers[name].update_inplace(array)
            # Bound anew: what a node on the CPU reads was copied when it was bound.
            self._binding.bind_ortvalue_input(name, self._buffers[name])
        self._session.run_with_iobinding(self._binding)
        for name, array in outputs.items():
            np.copyto(array, self._buffers[name].numpy())


def _profile() -> dict[str, str]:
    """Sizes for TensorRT's engine: one for all of them, else it would be built anew for each picture size."""
    profile = {}
    for which, (width, height) in _SIZES.items():
        rows, columns = grid_shape(width, height)
        shapes = {"y": (1, height, width), "uv": (2, height // 2, width // 2), "qp": (1, rows, columns)}
        profile[f"trt_profile_{which}_shapes"] = ",".join(
            f"{name}:1x{'x'.join(map(str, shape))}" for name, shape in shapes.items()
        )
    return profile
