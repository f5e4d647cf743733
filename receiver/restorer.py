"""Runs a restoration network on decoded pictures: ONNX Runtime, on CUDA where that works, else on the CPU.

The contract, version 1, is all that is known of a network: `y` uint8 [1, 1, H, W], `uv` uint8 [1, 2, H/2, W/2] and
`qp` uint8 [1, 1, ceil(H/16), ceil(W/16)] (luma quantiser, 0..51) go in, `y_out` and `uv_out` of the shapes of `y` and
`uv` come out, for every even H and W.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from shared.errors import SemcallError
from shared.grid import grid_shape
from shared.picture import I420, planes

CONTRACT = 1
_INPUTS = {"y": (1, 1), "uv": (1, 2), "qp": (1, 1)}
_OUTPUTS = {"y_out": (1, 1), "uv_out": (1, 2)}
# ONNX Runtime prints to stderr, missing CUDA libraries above all; what matters is raised or shown in the window.
_FATAL_ONLY = 4
_TRIAL = (48, 32)
"""Width and height of the picture that a network must restore before it is trusted."""


class Restorer:
    """One network, ready to run. Not for use by two threads at once.

    Raises SemcallError when the file cannot be read, is no ONNX model, keeps tensors in other files or does not keep
    the contract. `threads`: CPU threads of one restoration.
    """

    def __init__(self, model_path: str | os.PathLike[str], name: str = "", threads: int = 1) -> None:
        path = Path(model_path)
        self.name = name or path.stem
        self.last_ms = 0.0
        """Milliseconds that the last `restore` took."""
        try:
            content = path.read_bytes()
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise SemcallError(f"The restorer {path} cannot be read ({reason}); check the path.") from error
        self._session, self.device = _open(content, path, threads)

    def restore(self, i420: I420, qp: NDArray[np.uint8]) -> I420:
        """The restored picture, a new I420 array.

        `i420`: uint8 [H * 3 / 2, W], H and W even; `qp`: uint8 [ceil(H/16), ceil(W/16)], 0..51. Raises SemcallError
        when the network fails, for instance because a device was lost.
        """
        start = time.perf_counter()
        restored = np.empty_like(i420, order="C")
        try:
            _run(self._session, np.ascontiguousarray(i420), np.ascontiguousarray(qp), restored)
        except Exception as error:  # the runtime's exceptions have no common base
            raise SemcallError(f"The restorer {self.name} failed: {_first_line(error)}") from error
        self.last_ms = (time.perf_counter() - start) * 1000
        return restored

    def warm_up(self, width: int, height: int, times: int = 3) -> float:
        """Restore `times` grey pictures so that the first real one finds memory in place; returns the best ms."""
        i420 = np.full((height * 3 // 2, width), 128, np.uint8)
        qp = np.full(grid_shape(width, height), 30, np.uint8)
        spent = []
        for _ in range(times):
            self.restore(i420, qp)
            spent.append(self.last_ms)
        return min(spent)


def _open(content: bytes, path: Path, threads: int) -> tuple[ort.InferenceSession, str]:
    """A session that has restored a picture, and the device it did so on."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A waiting thread must sleep: encoder, decoder and window need the core.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _FATAL_ONLY
    ort.set_default_logger_severity(_FATAL_ONLY)
    if "CUDAExecutionProvider" in ort.get_available_providers():
        try:
            # Read from memory: tensors in other files then have no folder to be found in.
            session = ort.InferenceSession(
                content, options, providers=["CUDAExecutionProvider", "CPUExecutionProvider"]
            )
            if session.get_providers()[0] == "CUDAExecutionProvider":
                _check_contract(session, path)
                _try(session)
                return session, "CUDA"
        except Exception:
            pass
    try:
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions have no common base
        if "external" in str(error).lower():
            raise SemcallError(
                f"The restorer {path} keeps its weights in other files; export it as one file."
            ) from error
        raise SemcallError(f"The restorer {path} is damaged or no ONNX model: {_first_line(error)}") from error
    _check_contract(session, path)
    try:
        _try(session)
    except Exception as error:  # the runtime's exceptions have no common base
        raise SemcallError(
            f"The restorer {path} does not keep the restorer contract: it fails on a {_TRIAL[0]}x{_TRIAL[1]} picture "
            f"({_first_line(error)})"
        ) from error
    return session, "CPU"


def _check_contract(session: ort.InferenceSession, path: Path) -> None:
    for kind, expected, found in (
        ("input", _INPUTS, session.get_inputs()),
        ("output", _OUTPUTS, session.get_outputs()),
    ):
        names = sorted(value.name for value in found)
        if names != sorted(expected):
            raise SemcallError(
                f"The restorer {path} does not keep the restorer contract: its {kind}s are {', '.join(names)} "
                f"instead of {', '.join(sorted(expected))}."
            )
        for value in found:
            if value.type != "tensor(uint8)" or not _fits(value.shape, expected[value.name]):
                raise SemcallError(
                    f"The restorer {path} does not keep the restorer contract: its {kind} {value.name} is "
                    f"{value.type} {value.shape} instead of uint8 [{expected[value.name][0]}, "
                    f"{expected[value.name][1]}, any, any]."
                )


def _fits(shape: list[Any], leading: tuple[int, int]) -> bool:
    """Whether batch and channels are right or left open, and height and width are open."""
    if len(shape) != 4:
        return False
    fixed = all(not isinstance(have, int) or have == want for have, want in zip(shape[:2], leading, strict=True))
    return fixed and not any(isinstance(size, int) for size in shape[2:])


def _try(session: ort.InferenceSession) -> None:
    width, height = _TRIAL
    i420 = np.full((height * 3 // 2, width), 128, np.uint8)
    _run(session, i420, np.full(grid_shape(width, height), 30, np.uint8), np.empty_like(i420))


def _run(session: ort.InferenceSession, i420: I420, qp: NDArray[np.uint8], restored: I420) -> None:
    """One inference between the planes of two I420 arrays, without copies on the CPU."""
    y, uv = planes(i420)
    binding = session.io_binding()
    for name, array in (("y", y[None, None]), ("uv", uv[None]), ("qp", qp[None, None])):
        binding.bind_input(name, "cpu", 0, np.uint8, array.shape, array.ctypes.data)
    y_out, uv_out = planes(restored)
    for name, array in (("y_out", y_out[None, None]), ("uv_out", uv_out[None])):
        binding.bind_output(name, "cpu", 0, np.uint8, array.shape, array.ctypes.data)
    session.run_with_iobinding(binding)


def _first_line(error: Exception) -> str:
    """The runtime's message without its stack, as the end of a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".") + "."
