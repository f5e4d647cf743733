"""From a trained face parser to an ONNX graph and its card: float32, any picture size, the face-parser contract."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.registry import CONTRACTS, save_model
from shared.contracts import check_parser_card, check_session
from shared.errors import SemcallError
from shared.inference import first_line

KIND = "face-parser"
OPSET = 17
TOLERANCE = 1e-3
"""Largest difference between ONNX Runtime's and PyTorch's logits, relative to the largest logit (at least 1)."""


class Contract(nn.Module):
    """A face parser as the contract has it: `rgb` uint8 [1, 3, h, w] to `logits` float32 [1, C, h', w']."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, rgb: Tensor) -> Tensor:
        """The network's logits of a picture in code values."""
        logits: Tensor = self.net(rgb.float())
        return logits


def write_parser(
    net: nn.Module,
    name: str,
    folder: Path,
    classes: Sequence[str],
    regions: Mapping[str, Sequence[str]],
    input_pixels: int,
    input_multiple: int,
    facts: Mapping[str, Any],
) -> Path:
    """Write a face parser to `folder` as `name`.onnx with its card `name`.json; returns the former's path.

    `net` turns RGB code values, float32 [1, 3, h, w], 0..255, on the CPU, into logits, float32 [1, C, h', w'], with
    h' >= ceil(h/4) and w' >= ceil(w/4), for all h and w that are multiples of `input_multiple`; it is put into
    evaluation mode. `classes`: the C classes' names in channel order; `regions`: which of them are `face` (always),
    `face+hair` and `person`; `input_pixels`: area to which pictures are scaled; `facts` (data, licence, metrics,
    command) go into the card. Raises SemcallError, and writes nothing, when the network cannot be exported, does not
    keep the contract, or gives other logits under ONNX Runtime than under PyTorch.
    """
    parameters = sum(parameter.numel() for parameter in net.parameters())
    card = {
        "name": name,
        "kind": KIND,
        "contract": CONTRACTS[KIND],
        "sha256": "",
        "bytes": 0,
        "opset": OPSET,
        "precision": "float32",
        "parameters": parameters,
        "inputs": {"rgb": f"uint8 [1, 3, h, w], h and w multiples of {input_multiple}"},
        "outputs": {"logits": f"float32 [1, {len(classes)}, h', w'], h' >= ceil(h/4), w' >= ceil(w/4)"},
        "classes": list(classes),
        "regions": {region: list(members) for region, members in regions.items()},
        "input": {"pixels": input_pixels, "multiple": input_multiple},
        "licence": "MIT",
        "made": datetime.now(UTC).date().isoformat(),
        **facts,
    }
    check_parser_card(card, f"The face parser {name}")
    parser = Contract(net).eval()
    content = _export(parser, name, input_multiple)
    session = _session(content, name)
    check_session(session, KIND, card, f"The face parser {name}")
    for height, width in ((120, 196), (212, 132)):
        # A wide and a tall one, neither the traced size nor a multiple of 8 where the network has the choice.
        picture = _picture(_up(height, input_multiple), _up(width, input_multiple))
        _compare(parser, session, picture, name)
    return save_model(folder, content, card)


def _export(parser: Contract, name: str, multiple: int) -> bytes:
    """The graph, batch normalisation folded into convolutions, weights inside."""
    example = torch.from_numpy(_picture(_up(64, multiple), _up(96, multiple)))
    try:
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
            # Tracing warns of what could freeze a size; _compare finds what does. It is named legacy, but the newer
            # exporter needs one more package.
            warnings.simplefilter("ignore")
            path = Path(folder) / "parser.onnx"
            torch.onnx.export(
                parser,
                (example,),
                path,
                dynamo=False,
                opset_version=OPSET,
                input_names=["rgb"],
                output_names=["logits"],
                dynamic_axes={"rgb": {2: "h", 3: "w"}, "logits": {2: "rows", 3: "columns"}},
            )
            model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # torch and onnx raise many kinds
        raise SemcallError(f"The face parser {name} cannot be exported to ONNX: {first_line(error)}") from error
    model.graph.name = name
    return bytes(model.SerializeToString())


def _session(content: bytes, name: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # what matters is raised
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions have no common base
        raise SemcallError(f"ONNX Runtime does not open the face parser {name}: {first_line(error)}") from error


def _compare(parser: Contract, session: ort.InferenceSession, picture: NDArray[np.uint8], name: str) -> None:
    height, width = picture.shape[2:]
    with torch.inference_mode():
        expected = parser(torch.from_numpy(picture)).numpy()
    try:
        (found,) = session.run(["logits"], {"rgb": picture})
    except Exception as error:  # the runtime's exceptions have no common base
        raise SemcallError(
            f"The exported face parser {name} fails on a {width}x{height} picture: {first_line(error)}"
        ) from error
    if found.shape != expected.shape:
        raise SemcallError(
            f"The exported face parser {name} gives logits {list(found.shape)} of a {width}x{height} picture and the "
            f"network {list(expected.shape)}: a size is frozen in the network's code."
        )
    largest = float(np.abs(found - expected).max())
    # Written so that a NaN fails too.
    if not largest <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise SemcallError(
            f"The exported face parser {name} differs from the network by {largest:.3g} on a {width}x{height} "
            "picture: look for operations that depend on the size or on training mode."
        )


def _picture(height: int, width: int) -> NDArray[np.uint8]:
    """Gradients, a bright disc, noise: uint8 [1, 3, height, width]."""
    down, right = np.mgrid[:height, :width]
    disc = 70.0 * (np.hypot(down - height * 0.4, right - width * 0.5) < 0.3 * min(height, width))
    planes = [
        40 + 120 * down / height + disc,
        60 + 100 * right / width + 0.7 * disc,
        150 - 90 * down / height + 0.5 * disc,
    ]
    noise = np.random.default_rng(0).normal(0, 8, (3, height, width))
    return np.clip(np.stack(planes) + noise, 0, 255).astype(np.uint8)[None]


def _up(length: int, multiple: int) -> int:
    """`length` rounded up to a multiple."""
    return -(-length // multiple) * multiple
