"""Opening ONNX models for ONNX Runtime: quietly, from one file, on the best provider that works."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort

from shared.errors import SemcallError
from shared.providers import CPU, accelerators, open_on, session_options

Tensor = tuple[str, tuple[int | None, ...]]
"""Element type as ONNX Runtime names it ("uint8", "float") and shape; None is a size that has to be left open."""


def open_session(
    path: str | os.PathLike[str], kind: str, threads: int, check: Callable[[ort.InferenceSession], None]
) -> tuple[ort.InferenceSession, str]:
    """A session that `check` has let pass, and its device: "CUDA", "CoreML", "DirectML", "OpenVINO" or "CPU".

    `kind`: what sentences call the model ("restorer"); `threads`: CPU threads of one run. `check` runs the network
    once, for CUDA often fails only then, and raises SemcallError for what does not keep its contract. Raises
    SemcallError when the file cannot be read, is no ONNX model or keeps tensors in other files.
    """
    content = read_model(path, kind)
    for provider in accelerators():
        if (accelerated := open_on(content, threads, provider, check)) is not None:
            return accelerated, provider.device
    try:
        session = ort.InferenceSession(content, session_options(threads), providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions have no common base
        if "external" in str(error).lower():
            raise SemcallError(
                f"The {kind} {path} keeps its weights in other files; export it as one file."
            ) from error
        raise SemcallError(f"The {kind} {path} is damaged or no ONNX model: {first_line(error)}") from error
    check(session)
    return session, CPU


def read_model(path: str | os.PathLike[str], kind: str) -> bytes:
    """The file's content. Raises SemcallError when it cannot be read."""
    path = Path(path)
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SemcallError(f"The {kind} {path} cannot be read ({reason}); check the path.") from error


def check_tensors(
    session: ort.InferenceSession, broken: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]
) -> None:
    """Raise SemcallError unless a network has just these inputs and outputs.

    `broken`: how its sentence begins ("The restorer x.onnx does not keep the restorer contract"). Sizes may be left
    open where the contract gives a number.
    """
    for role, expected, found in (
        ("input", inputs, session.get_inputs()),
        ("output", outputs, session.get_outputs()),
    ):
        names = sorted(value.name for value in found)
        if names != sorted(expected):
            raise SemcallError(
                f"{broken}: its {role}s are {', '.join(names)} instead of {', '.join(sorted(expected))}."
            )
        for value in found:
            element, shape = expected[value.name]
            if value.type != f"tensor({element})" or not _fits(value.shape, shape):
                wanted = ", ".join("any" if size is None else str(size) for size in shape)
                have = f"{value.type} {value.shape}"
                raise SemcallError(f"{broken}: its {role} {value.name} is {have} instead of {element} [{wanted}].")


def first_line(error: Exception) -> str:
    """The runtime's message without its stack, as the end of a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".") + "."


def _fits(found: Sequence[Any], expected: Sequence[int | None]) -> bool:
    """Whether sizes that the contract gives are so or left open, and the others are open."""
    return len(found) == len(expected) and all(
        not isinstance(size, int) or size == wanted for size, wanted in zip(found, expected, strict=True)
    )
