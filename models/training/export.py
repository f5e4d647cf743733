"""From trained weights to an 8-bit ONNX graph and its card.

The graph is written node by node in ONNX's quantise-dequantise form, so that ONNX Runtime fuses every convolution and
sum into its integer kernels and no full-resolution float tensor exists. docs/restorer.md has the figures.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto
from rich.progress import track

from models.networks.quantised import QuantConv
from models.networks.restorer import (
    GATE_STEP,
    LUMA_STEP,
    LUMA_ZERO,
    QP_STEP,
    QP_ZERO,
    SCALE,
    SmallRestorer,
    gate_codes,
)
from models.training.graph import OPSET, GraphWriter
from models.training.judge import Figures, Scene, contact_sheet, judge, onnx_restore, scene
from models.training.loop import load_network
from models.training.pairs import permissive_clips

CONTRACT = 1
JUDGED_AT = ((400.0, 0), (400.0, 8), (200.0, 8))
"""kbit/s at 1280x720 (scaled to a clip's size), and how many quantiser steps the face is finer."""
_DEFINITION = (
    "[before, after]; frames 10, 11, 20, 21, 30, 31 of a second from 1.0 s on, x264 Constrained Baseline veryfast at "
    "`kbps`, 30 fps. psnr_db, ssim (Gaussian 11x11, sigma 1.5): luma of whole frames, higher is better. vgg_face, "
    "vgg_elsewhere: squared distance of channel-normalised VGG-19 features (conv1_2, conv2_2, conv3_4; ImageNet, "
    "fine-tuned on CUB; not LPIPS) in a 256x256 window on the face and in the corner farthest from it, lower is "
    "better. flicker: mean absolute error of the change to the next frame, luma code values, lower is better."
)


def spread(g: GraphWriter, blocks: str, grid: str, name: str) -> str:
    """One value per macroblock as one per feature position; `grid` is as large as the result."""
    scales = g.constant(np.array([1, 1, 16 // SCALE, 16 // SCALE], np.float32), "spread_scales")
    wide = g.node(
        "Resize",
        [blocks, "", scales],
        f"{name}_spread",
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    return g.like(wide, grid, f"{name}_grid")


def build(net: SmallRestorer, name: str) -> onnx.ModelProto:
    """The restorer contract's graph for a trained network: what SmallRestorer.forward computes, on codes."""
    g = GraphWriter()
    entry = g.feature(g.dequantise("y", LUMA_STEP, LUMA_ZERO, "luma"), net.entry, "entry")
    hardness = g.dequantise(spread(g, "qp", f"{entry}_codes", "qp"), QP_STEP, QP_ZERO, "qp_values")
    table = g.constant(gate_codes().numpy().astype(np.uint8), "gate_table")
    limits = [g.constant(np.int32(value), f"qp_limit_{value}") for value in (0, 51)]
    position = g.node("Clip", [g.node("Cast", ["qp"], "qp_whole", to=TensorProto.INT32), *limits], "qp_index")
    gate = spread(g, g.node("Gather", [table, position], "gate_codes"), f"{entry}_codes", "gate")
    x = start = g.add(entry, g.feature(hardness, net.hardness, "hardness"), "start")
    for index, layer in enumerate(net.body):
        assert isinstance(layer, QuantConv)
        x = g.feature(x, layer, f"body{index}")
    x = g.add(x, start, "inner")
    change = g.feature(x, net.exit, "exit")
    residual = g.node("Mul", [change, g.dequantise(gate, GATE_STEP, 0, "gate_values")], "gated")
    residual = g.quantise(residual, 1.0, 128, "residual_codes")
    residual = g.node("DepthToSpace", [residual], "residual_spread", blocksize=SCALE, mode="CRD")
    residual = g.dequantise(g.like(residual, "y", "residual_grid"), 1.0, 128, "residual")
    total = g.node("Add", [g.dequantise("y", 1.0, 0, "luma_whole"), residual], "total")
    g.quantise(total, 1.0, 0, "y_out")
    g.node("Identity", ["uv"], "uv_out")
    return g.model(name)


def export_restorer(checkpoint: Path, data: Path, folder: Path, command: str) -> Path:
    """Write the model and card of a checkpoint to `folder`, judged on the permissive validation clips of `data`.

    A contact sheet of those clips goes beside the checkpoint. `command`: what made it, for the card. Raises
    SemcallError when the checkpoint or the clips cannot be read.
    """
    net, recipe, facts = load_network(checkpoint)
    clips = permissive_clips(data, "val")
    path = write(net, recipe.name, folder, {})
    restore = onnx_restore(path)
    scenes, results = [], []
    pieces = [(clip, *rate) for clip in clips for rate in JUDGED_AT]
    for clip, kbps, finer in track(pieces, description=f"judging {recipe.name}"):
        scenes.append(scene(data, clip.path, kbps, finer))
        results.append(_result(scenes[-1], judge(scenes[-1], restore, data)))
    contact_sheet(scenes[1 :: len(JUDGED_AT)] or scenes, restore, checkpoint.with_name("contact-sheet.png"))
    licences = {clip.name: clip.licence for clip in permissive_clips(data, "train")}
    card = {
        "training_data": {
            "source": "talking-head clips under MIT, Apache-2.0 or CC-BY; never a validation identity",
            "clips": {name: licences.get(name, "unknown") for name in facts["clips"]},
        },
        "training": {"steps": facts["step"], "minutes": round(facts["seconds"] / 60, 1), "recipe": asdict(recipe)},
        "command": command,
        "metrics": {"definition": _DEFINITION, "results": results},
    }
    return write(net, recipe.name, folder, card)


def _result(piece: Scene, figures: Figures) -> dict[str, Any]:
    pairs = {
        "psnr_db": (figures.psnr, 2),
        "ssim": (figures.ssim, 4),
        "vgg_face": (figures.vgg_face, 4),
        "vgg_elsewhere": (figures.vgg_rest, 4),
        "flicker": (figures.flicker, 3),
    }
    before_after = {
        name: [None if math.isnan(value) else round(value, digits) for value in pair]
        for name, (pair, digits) in pairs.items()
    }
    return {"clip": piece.name, "kbps": round(piece.kbps), "face_finer_by": piece.share, **before_after}


def write(net: SmallRestorer, name: str, folder: Path, facts: dict[str, Any]) -> Path:
    """Write `name`.onnx and `name`.json to `folder`; `facts` (data, metrics, command) go into the card."""
    folder.mkdir(parents=True, exist_ok=True)
    content = build(net.eval(), name).SerializeToString()
    path = folder / f"{name}.onnx"
    path.write_bytes(content)
    card = {
        "name": name,
        "kind": "restorer",
        "contract": CONTRACT,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "opset": OPSET,
        "precision": "uint8 features, 7-bit weights, int32 sums",
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "inputs": {
            "y": "uint8 [1, 1, H, W], H and W even",
            "uv": "uint8 [1, 2, H/2, W/2]",
            "qp": "uint8 [1, 1, ceil(H/16), ceil(W/16)], luma quantiser 0..51",
        },
        "outputs": {"y_out": "uint8 [1, 1, H, W]", "uv_out": "uint8 [1, 2, H/2, W/2], equal to uv"},
        "licence": "MIT",
        "made": datetime.now(UTC).date().isoformat(),
        **facts,
    }
    path.with_suffix(".json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    return path
