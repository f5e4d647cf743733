"""From a trained RGB network to an ONNX graph that keeps the restorer contract, and its card."""

from __future__ import annotations

import platform
import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import nn

from models.networks.planes_contract import PlanesContract
from models.registry import CONTRACTS, check_name, save_model
from models.training.calibration import Material, inputs
from models.training.export_int8 import Comparison, compare, cpu_session, quantised
from shared.contracts import check_session
from shared.errors import SemcallError
from shared.grid import grid_shape
from shared.inference import first_line
from shared.picture import I420

KIND = "restorer"
OPSET = 17
CHECKED_AT = ((96, 64), (50, 86), (130, 34), (176, 144))
"""Width and height of the pictures on which graph and network are compared."""
TOLERATED = 1e-3
"""Part of the samples that may differ by more than one code value."""
GPU_ABOVE_MS = 100.0
_TIMED_AT = 1280, 720


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote. `int8`: the second model, if one was kept; `sentence`: why, or why not; may be empty."""

    path: Path
    int8: Path | None
    sentence: str


def write_rgb(
    net: nn.Module,
    name: str,
    folder: Path,
    facts: Mapping[str, Any],
    material: Material | None = None,
    multiple: int = 2,
) -> Exported:
    """Write an RGB network to `folder` as `name`.onnx with its card, and `name`-int8 where that is worth it.

    `net` and `multiple`: as `PlanesContract` has them, on the CPU; it is put into evaluation mode. `facts` (training
    data, licence, metrics, command) go into the cards. `material`: pictures for an 8-bit variant, which is kept where
    it is faster and not worse (`export_int8.Comparison`); None: not tried. Raises SemcallError, and writes nothing,
    when the network cannot be exported, does not keep the contract, or gives other pictures under ONNX Runtime than
    under PyTorch.
    """
    check_name(name)
    contract = PlanesContract(net, multiple).eval()
    content = _export(contract, name)
    session = _opened(content, name)
    worst = max(_compare(contract, session, width, height, name) for width, height in CHECKED_AT)
    card = {
        "name": name,
        "kind": KIND,
        "contract": CONTRACTS[KIND],
        "sha256": "",
        "bytes": 0,
        "opset": OPSET,
        "precision": "float32",
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "inputs": {
            "y": "uint8 [1, 1, H, W], H and W even",
            "uv": "uint8 [1, 2, H/2, W/2]",
            "qp": "uint8 [1, 1, ceil(H/16), ceil(W/16)], not used",
        },
        "outputs": {"y_out": "uint8 [1, 1, H, W]", "uv_out": "uint8 [1, 2, H/2, W/2]"},
        "parity": {"sizes": [f"{w}x{h}" for w, h in CHECKED_AT], "largest_difference_code_values": worst},
        **_speed(session),
        "made": datetime.now(UTC).date().isoformat(),
        **facts,
    }
    if material is None:
        return Exported(save_model(folder, content, card), None, "")
    small, found, sentence = _variant(content, material, name)
    kept = small is not None
    about = {"kept": kept, "reason": sentence, **({"measured": found.figures()} if found else {})}
    path = save_model(folder, content, {**card, "int8": about})
    if small is None:
        left = folder / f"{name}-int8.onnx"
        if left.exists():
            sentence += f" {left} is of an earlier export: remove it."
        return Exported(path, None, sentence)
    int8_card = {
        **card,
        "name": f"{name}-int8",
        "precision": "int8: quantise-dequantise, uint8 features, 7-bit weights per channel; conversions in float32",
        "variant_of": name,
        "calibration": {"pictures": len(material.calibration), "of": material.source},
        "int8": about,
        **_speed(_opened(small, f"{name}-int8")),
    }
    int8_card.pop("parity")  # the comparison with the float network stands for it
    return Exported(path, save_model(folder, small, int8_card), sentence)


def _variant(content: bytes, material: Material, name: str) -> tuple[bytes | None, Comparison | None, str]:
    """The 8-bit graph if it is kept, what was measured, and the decision as a sentence."""
    try:
        small = quantised(content, material.calibration)
        _opened(small, f"{name}-int8")
        found = compare(content, small, material)
    except SemcallError as error:
        return None, None, f"The int8 variant is not kept: {first_line(error)}"
    if reason := found.reason():
        return None, found, f"The int8 variant is not kept: {reason}."
    return small, found, f"The int8 variant is kept: {found.gain()}."


def _export(contract: PlanesContract, name: str) -> bytes:
    """The graph with its weights inside."""
    fed = inputs(_picture(96, 64), _quantisers(96, 64))
    example = torch.from_numpy(fed["y"]), torch.from_numpy(fed["uv"])
    try:
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
            # Tracing warns of what could freeze a size; _compare finds what does. It is named legacy, but the newer
            # exporter needs one more package.
            warnings.simplefilter("ignore")
            path = Path(folder) / "restorer.onnx"
            torch.onnx.export(
                contract,
                example,
                path,
                dynamo=False,
                opset_version=OPSET,
                input_names=["y", "uv"],
                output_names=["y_out", "uv_out"],
                dynamic_axes={
                    **{key: {2: "height", 3: "width"} for key in ("y", "y_out")},
                    **{key: {2: "half_height", 3: "half_width"} for key in ("uv", "uv_out")},
                },
            )
            model = onnx.load(path)
        # Tracing drops what is not used; the contract has it all the same.
        qp = helper.make_tensor_value_info("qp", TensorProto.UINT8, [1, 1, "rows", "columns"])
        model.graph.input.append(qp)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # torch and onnx raise many kinds
        raise SemcallError(f"The restorer {name} cannot be exported to ONNX: {first_line(error)}") from error
    model.graph.name = name
    return bytes(model.SerializeToString())


def _opened(content: bytes, name: str) -> ort.InferenceSession:
    """A session on one CPU thread, the contract checked."""
    try:
        session = cpu_session(content)
    except Exception as error:  # the runtime's exceptions have no common base
        raise SemcallError(f"ONNX Runtime does not open the restorer {name}: {first_line(error)}") from error
    check_session(session, KIND, {}, f"The restorer {name}")
    return session


def _compare(contract: PlanesContract, session: ort.InferenceSession, width: int, height: int, name: str) -> int:
    """The largest difference in code values between graph and network on one picture.

    Raises SemcallError where more than a thousandth of the samples differ by more than one, or the network gives
    values that are not finite.
    """
    fed = inputs(_picture(width, height), _quantisers(width, height))
    seen: list[bool] = []
    hook = contract.net.register_forward_hook(lambda _net, _in, out: seen.append(bool(torch.isfinite(out).all())))
    try:
        with torch.inference_mode():
            expected = [plane.numpy() for plane in contract(torch.from_numpy(fed["y"]), torch.from_numpy(fed["uv"]))]
    except Exception as error:  # a network may raise anything
        raise SemcallError(
            f"The restorer {name} fails on a {width}x{height} picture in PyTorch: {first_line(error)}"
        ) from error
    finally:
        hook.remove()
    if not all(seen):
        raise SemcallError(
            f"The restorer {name} gives values that are not finite: train it again or take an older one."
        )
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


def _speed(session: ort.InferenceSession) -> dict[str, Any]:
    """For the card: the best time of a 1280x720 picture on one CPU thread, and whether that asks for a GPU."""
    width, height = _TIMED_AT
    fed = inputs(_picture(width, height), _quantisers(width, height))
    spent: list[float] = []
    # The best, since other programs only ever slow it down; a slow network is timed once after its first run.
    while len(spent) < (2 if spent and spent[0] > 1000 else 6):
        start = time.perf_counter()
        session.run(["y_out", "uv_out"], fed)
        spent.append((time.perf_counter() - start) * 1000)
    best = min(spent)
    return {
        "milliseconds": {
            "picture": f"{width}x{height}",
            "best": round(best, 1),
            "runs": len(spent),
            "on": f"one CPU thread, {platform.machine()}, ONNX Runtime {ort.__version__}",
        },
        "needs_gpu": best > GPU_ABOVE_MS,
    }


def _picture(width: int, height: int) -> I420:
    """Gradients, a bright disc, noise, colours to the limits."""
    down, right = np.mgrid[:height, :width]
    disc = 70.0 * (np.hypot(down - height * 0.4, right - width * 0.5) < 0.3 * min(height, width))
    luma = 40 + 110 * down / height + disc
    chroma = np.stack([40 + 170 * right / width, 210 - 170 * down / height])[:, ::2, ::2].reshape(-1, width)
    noise = np.random.default_rng(0).normal(0, 8, (height * 3 // 2, width))
    i420: NDArray[np.float64] = np.concatenate([luma, chroma]) + noise
    return np.clip(i420, 0, 255).astype(np.uint8)


def _quantisers(width: int, height: int) -> NDArray[np.uint8]:
    return np.full(grid_shape(width, height), 34, np.uint8)
