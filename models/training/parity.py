"""Whether an exported restorer computes what the network does that it was made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.training.calibration import inputs
from shared.contracts import check_session
from shared.errors import SemcallError
from shared.grid import grid_shape
from shared.inference import first_line
from shared.providers import session_options

CHECKED_AT = ((96, 64), (50, 86), (130, 34), (176, 144))
"""Width and height of the pictures on which graph and network are compared."""
TOLERATED = 1e-3
"""Part of the samples that may differ by more than one code value."""

Planes = dict[str, NDArray[np.uint8]]
"""A restorer's inputs by name, shaped as the contract has them."""


def opened(content: bytes, name: str) -> ort.InferenceSession:
    """An exported restorer on one CPU thread, the contract checked. Raises SemcallError where it is not kept."""
    try:
        session = ort.InferenceSession(content, session_options(1), providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions have no common base
        raise SemcallError(f"ONNX Runtime does not open the restorer {name}: {first_line(error)}") from error
    check_session(session, "restorer", {}, f"The restorer {name}")
    return session


def check_parity(
    network: Callable[[Planes], Sequence[NDArray[Any]]], session: ort.InferenceSession, name: str
) -> dict[str, Any]:
    """How far apart `session` and `network` (PyTorch's, the planes that it restores) are, for the card.

    Raises SemcallError where either fails on a size, sizes differ, more than a thousandth of the samples differ by
    more than one code value, or the network gives values that are not finite.
    """
    worst = max(_compare(network, session, width, height, name) for width, height in CHECKED_AT)
    return {"sizes": [f"{w}x{h}" for w, h in CHECKED_AT], "largest_difference_code_values": worst}


def trial(width: int, height: int) -> Planes:
    """A restorer's inputs: gradients, a bright disc, noise, colours to the limits."""
    down, right = np.mgrid[:height, :width]
    disc = 70.0 * (np.hypot(down - height * 0.4, right - width * 0.5) < 0.3 * min(height, width))
    luma = 40 + 110 * down / height + disc
    chroma = np.stack([40 + 170 * right / width, 210 - 170 * down / height])[:, ::2, ::2].reshape(-1, width)
    noise = np.random.default_rng(0).normal(0, 8, (height * 3 // 2, width))
    i420: NDArray[np.float64] = np.concatenate([luma, chroma]) + noise
    return inputs(np.clip(i420, 0, 255).astype(np.uint8), np.full(grid_shape(width, height), 34, np.uint8))


def _compare(
    network: Callable[[Planes], Sequence[NDArray[Any]]],
    session: ort.InferenceSession,
    width: int,
    height: int,
    name: str,
) -> int:
    """The largest difference in code values on one picture."""
    fed = trial(width, height)
    try:
        expected = network(fed)
    except SemcallError:
        raise
    except Exception as error:  # a network may raise anything
        raise SemcallError(
            f"The restorer {name} fails on a {width}x{height} picture in PyTorch: {first_line(error)}"
        ) from error
    if not all(np.isfinite(plane).all() for plane in expected):
        raise not_finite(name)
    try:
        found = session.run(["y_out", "uv_out"], fed)
    except Exception as error:  # the runtime's exceptions have no common base
        raise SemcallError(
            f"The exported restorer {name} fails on a {width}x{height} picture: {first_line(error)}"
        ) from error
    if [plane.shape for plane in found] != [plane.shape for plane in expected]:
        raise SemcallError(
            f"The exported restorer {name} gives planes {[list(plane.shape) for plane in found]} of a "
            f"{width}x{height} picture: a size is frozen in the network's code."
        )
    apart = np.concatenate(
        [np.abs(a.astype(np.int32) - b).ravel() for a, b in zip(found, expected, strict=True)]  # of both planes
    )
    worst, part = int(apart.max()), float((apart > 1).mean())
    if part >= TOLERATED:
        raise SemcallError(
            f"The exported restorer {name} differs from the network by up to {worst} code values, by more than one "
            f"on {part:.2%} of a {width}x{height} picture: see what depends on the size or on training mode."
        )
    return worst


def not_finite(name: str) -> SemcallError:
    """What to say of a network that gives infinities or no numbers."""
    return SemcallError(f"The restorer {name} gives values that are not finite: train it again or take an older one.")
