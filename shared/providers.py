"""ONNX Runtime's execution providers: which to try, in which order, and whether one does what it promises.

Tried on machines without a GPU only: there the others are refused or give way, and the CPU serves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort
import platformdirs

TENSORRT = "TensorRT"
CPU = "CPU"
GPUS = frozenset({TENSORRT, "CUDA", "CoreML", "DirectML"})
"""Devices that are, or can be, a graphics processor or something as fast."""

# ONNX Runtime prints to stderr, missing CUDA libraries above all; what matters is raised or shown.
_FATAL_ONLY = 4
_ASSIGNMENT = "session.record_ep_graph_assignment_info"


@dataclass(frozen=True, slots=True)
class Provider:
    """`name`: ONNX Runtime's; `device`: what the user reads; `options`: of the provider, as the runtime has them."""

    name: str
    device: str
    options: tuple[tuple[str, str], ...] = ()


_ORDER = (
    Provider("CUDAExecutionProvider", "CUDA"),
    Provider("CoreMLExecutionProvider", "CoreML"),
    Provider("DmlExecutionProvider", "DirectML"),
    Provider("OpenVINOExecutionProvider", "OpenVINO", (("device_type", "CPU"),)),
)


def accelerators() -> list[Provider]:
    """The providers that this runtime was built with, best first, without TensorRT and the CPU's own.

    TensorRT comes before all of them, but builds engines for minutes: see `open_tensorrt`.
    """
    available = ort.get_available_providers()
    return [provider for provider in _ORDER if provider.name in available]


def session_options(threads: int) -> ort.SessionOptions:
    """Quiet, without spinning; `threads`: CPU threads of one run."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A waiting thread must sleep: encoder, decoder and window need the core.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _FATAL_ONLY
    ort.set_default_logger_severity(_FATAL_ONLY)
    return options


def open_on(
    content: bytes,
    threads: int,
    provider: Provider,
    check: Callable[[ort.InferenceSession], None],
    others: tuple[str, ...] = ("CPUExecutionProvider",),
) -> ort.InferenceSession | None:
    """A session on `provider` that `check`, which runs it once, has let pass; None where any of that fails.

    `content`: the ONNX model; `others`: providers for what this one cannot run. A provider that leaves most of the
    network to others counts as failed: it would only pay for the way there and back.
    """
    options, own = session_options(threads), dict(provider.options)
    if provider.device == "DirectML":  # it cannot plan memory ahead
        options.enable_mem_pattern = False
    if provider.device == "OpenVINO":
        own["num_of_threads"] = str(threads)
    options.add_session_config_entry(_ASSIGNMENT, "1")
    try:
        # Read from memory: tensors in other files then have no folder to be found in. Without the fallback of
        # Python's class, which prints, and goes on with the CPU in the middle of a call.
        session = ort.InferenceSession(content, options, providers=[(provider.name, own), *others], enable_fallback=0)
        if session.get_providers()[0] != provider.name or not _does_most(session, provider.name):
            return None
        check(session)
    except Exception:  # the runtime's exceptions have no common base; whatever it is, the next is tried
        return None
    return session


def open_tensorrt(
    content: bytes, threads: int, profile: dict[str, str], check: Callable[[ort.InferenceSession], None]
) -> ort.InferenceSession | None:
    """A session on TensorRT in half precision; None where it cannot be had. The first time it takes minutes.

    `profile`: `trt_profile_min_shapes`, `_opt_shapes` and `_max_shapes`, the sizes its engine is to be built for.
    Engines and timings are kept in the user's cache folder.
    """
    if "TensorrtExecutionProvider" not in ort.get_available_providers():
        return None
    try:
        options = tensorrt_options(content, profile)
    except OSError:  # no cache, no TensorRT: minutes at every start are too long
        return None
    provider = Provider("TensorrtExecutionProvider", TENSORRT, tuple(options.items()))
    return open_on(content, threads, provider, check, ("CUDAExecutionProvider", "CPUExecutionProvider"))


def tensorrt_options(content: bytes, profile: dict[str, str]) -> dict[str, str]:
    """TensorRT's options for a model; makes its cache folder. Raises OSError where that cannot be."""
    cache = platformdirs.user_cache_path("semcall") / "tensorrt"
    # A folder for each model: the runtime tells engines apart by the graph, not by the weights.
    engines: Path = cache / hashlib.sha256(content).hexdigest()[:16]
    engines.mkdir(parents=True, exist_ok=True)
    return {
        "trt_fp16_enable": "1",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(engines),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(cache),
        **profile,
    }


def _does_most(session: ort.InferenceSession, name: str) -> bool:
    """Whether at least half of the network's nodes run on provider `name`; True where this runtime cannot tell."""
    ask: Any = getattr(session, "get_provider_graph_assignment_info", None)
    if ask is None:  # an older release
        return True
    nodes = {part.ep_name: 0 for part in ask()}
    for part in ask():
        nodes[part.ep_name] += len(part.get_nodes())
    return 2 * nodes.get(name, 0) >= sum(nodes.values())
