"""From a trained RGB network to an ONNX graph that keeps the restorer contract, and its card."""

from __future__ import annotations

import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import nn

from models.networks.planes_contract import PlanesContract
from models.registry import CONTRACTS, check_name, save_model
from models.training.calibration import Material
from models.training.export_int8 import Comparison, compare, quantised
from models.training.parity import Planes, check_parity, not_finite, opened, trial
from shared.errors import SemcallError
from shared.inference import first_line

KIND = "restorer"
OPSET = 17
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
    session = opened(content, name)
    parity = check_parity(_in_torch(contract, name), session, name)
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
        "parity": parity,
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
        **_speed(opened(small, f"{name}-int8")),
    }
    int8_card.pop("parity")  # the comparison with the float network stands for it
    return Exported(path, save_model(folder, small, int8_card), sentence)


def _variant(content: bytes, material: Material, name: str) -> tuple[bytes | None, Comparison | None, str]:
    """The 8-bit graph if it is kept, what was measured, and the decision as a sentence."""
    try:
        small = quantised(content, material.calibration)
        opened(small, f"{name}-int8")
        found = compare(content, small, material)
    except SemcallError as error:
        return None, None, f"The int8 variant is not kept: {first_line(error)}"
    if reason := found.reason():
        return None, found, f"The int8 variant is not kept: {reason}."
    return small, found, f"The int8 variant is kept: {found.gain()}."


def _export(contract: PlanesContract, name: str) -> bytes:
    """The graph with its weights inside."""
    fed = trial(96, 64)
    example = torch.from_numpy(fed["y"]), torch.from_numpy(fed["uv"])
    try:
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
            # Tracing warns of what could freeze a size; check_parity finds what does. It is named legacy, but the
            # newer exporter needs one more package.
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


def _in_torch(contract: PlanesContract, name: str) -> Callable[[Planes], list[NDArray[Any]]]:
    """The network on a picture. Its own values are seen too: code values are finite in any case."""

    def run(fed: Planes) -> list[NDArray[Any]]:
        seen: list[bool] = []
        hook = contract.net.register_forward_hook(lambda _net, _in, out: seen.append(bool(torch.isfinite(out).all())))
        try:
            with torch.inference_mode():
                restored = contract(torch.from_numpy(fed["y"]), torch.from_numpy(fed["uv"]))
        finally:
            hook.remove()
        if not all(seen):
            raise not_finite(name)
        return [plane.numpy() for plane in restored]

    return run


def _speed(session: ort.InferenceSession) -> dict[str, Any]:
    """For the card: the best time of a 1280x720 picture on one CPU thread, and whether that asks for a GPU."""
    width, height = _TIMED_AT
    fed = trial(width, height)
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
