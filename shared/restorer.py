"""Runs a restoration network on decoded pictures: ONNX Runtime, on CUDA where that works, else on the CPU.

The contract, version 1, is all that is known of a network: `y` uint8 [1, 1, H, W], `uv` uint8 [1, 2, H/2, W/2] and
`qp` uint8 [1, 1, ceil(H/16), ceil(W/16)] (luma quantiser, 0..51) go in, `y_out` and `uv_out` of the shapes of `y` and
`uv` come out, for every even H and W.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from shared.contracts import check_session
from shared.errors import SemcallError
from shared.grid import grid_shape
from shared.inference import first_line, open_session
from shared.picture import I420, planes

CONTRACT = 1


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
        self._session, self.device = open_session(
            path, "restorer", threads, lambda session: check_session(session, "restorer", {}, f"The restorer {path}")
        )

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
            raise SemcallError(f"The restorer {self.name} failed: {first_line(error)}") from error
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
