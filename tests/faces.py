"""What tests of the face mask share: scenes whose faces are bright squares, and parsers that find these."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from models.registry import find_model
from sender.parser import FaceOptions
from shared.astronaut import _FACE, AstronautClip
from shared.grid import Mask, grid_shape, row_runs
from shared.picture import I420, Picture, planes, shrunk

SIZE = 640, 360
Square = tuple[int, int, int]
"""Left, top, side in luma samples."""


def scene(*faces: Square, size: tuple[int, int] = SIZE, place: int = 0) -> I420:
    """Bright squares before a dark, textured wall; another `place` is another wall."""
    random = np.random.default_rng(place)
    width, height = size
    i420 = np.full((height * 3 // 2, width), 128, np.uint8)
    luma = planes(i420)[0]
    grain = cv2.GaussianBlur(random.normal(0, 1, (height, width)), (0, 0), 6)
    luma[:] = np.clip(60 + 40 * grain / grain.std(), 16, 120)
    skin = np.clip(225 + 9 * grain[: height // 2, : width // 2] / grain.std(), 210, 235)
    for left, top, side in faces:
        luma[top : top + side, left : left + side] = skin[:side, :side]
    return i420


def film(*pictures: I420, fps: float = 30) -> list[Picture]:
    return [Picture(i420, round(n * 90_000 / fps), n) for n, i420 in enumerate(pictures)]


def squares(*faces: Square, size: tuple[int, int] = SIZE) -> Mask:
    """The macroblocks at least half of which lie in the squares."""
    bright = np.zeros((size[1], size[0]), np.float32)
    for left, top, side in faces:
        bright[top : top + side, left : left + side] = 1
    rows, columns = grid_shape(*size)
    padded = np.zeros((rows * 16, columns * 16), np.float32)
    padded[: size[1], : size[0]] = bright
    return cv2.resize(padded, (columns, rows), interpolation=cv2.INTER_AREA) >= 0.5


def overlap(one: Mask, other: Mask) -> float:
    """Intersection over union."""
    return float((one & other).sum() / max(1, (one | other).sum()))


class BrightParser:
    """Finds what is bright, on 80x45 cells. `lies`: what it says instead, by call; `seen`: how often it was asked."""

    def __init__(self, lies: dict[int, Callable[[NDArray[np.float32]], NDArray[np.float32]]] | None = None) -> None:
        self.lies = lies or {}
        self.seen = 0

    def probabilities(self, i420: I420) -> NDArray[np.float32]:
        luma = planes(i420)[0]
        cells = (80, 45) if luma.shape[1] > luma.shape[0] else (45, 80)
        found = np.where(shrunk(luma, cells) > 170, 0.98, 0.02).astype(np.float32)
        found = self.lies.get(self.seen, lambda told: told)(found)
        self.seen += 1
        return found


class GatedParser(BrightParser):
    """Answers only while `gate` is open; `asked` is set when it is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.asked = threading.Event(), threading.Event()
        self.gate.set()

    def probabilities(self, i420: I420) -> NDArray[np.float32]:
        self.asked.set()
        assert self.gate.wait(20)
        return super().probabilities(i420)


CARD: dict[str, Any] = {
    "name": "bright",
    "kind": "face-parser",
    "contract": 1,
    "classes": ["background", "face", "hair"],
    "regions": {"face": ["face"], "face+hair": ["face", "hair"]},
    "input": {"pixels": 57600, "multiple": 4},
}


def bright_model(folder: Path, **change: Any) -> FaceOptions:
    """An ONNX file and its card: what is brighter than 170 of 255 is face, and what is brightest in red hair.

    `change`: `stride` instead of 4, `channels` instead of 3, `rename` of tensors, `element` instead of uint8,
    `fixed`: size of the input, `card`: facts of the card.
    """
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    stride, channels = change.get("stride", 4), change.get("channels", 3)
    rename = change.get("rename", {})
    rgb, logits = rename.get("rgb", "rgb"), rename.get("logits", "logits")
    weights = np.zeros((channels, 3, 1, 1), np.float32)
    bias = np.zeros(channels, np.float32)
    weights[1], bias[1] = 0.1, -51.0  # 0.3 per code value above 170
    if channels > 2:
        weights[2], bias[2] = np.array([[[0.6]], [[-0.3]], [[-0.3]]]), -30.0
    nodes = [
        helper.make_node("Cast", [rgb], ["float"], to=kinds.FLOAT),
        helper.make_node("AveragePool", ["float"], ["cells"], kernel_shape=[stride] * 2, strides=[stride] * 2),
        helper.make_node("Conv", ["cells", "weights", "bias"], [logits]),
    ]
    sides = change.get("fixed", ("h", "w"))
    graph = helper.make_graph(
        nodes,
        "bright",
        [helper.make_tensor_value_info(rgb, change.get("element", kinds.UINT8), [1, 3, *sides])],
        [helper.make_tensor_value_info(logits, kinds.FLOAT, [1, channels, "rows", "columns"])],
        [onnx.numpy_helper.from_array(weights, "weights"), onnx.numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "bright.onnx"
    path.write_bytes(model.SerializeToString())
    card = {**CARD, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), **change.get("card", {})}
    path.with_suffix(".json").write_text(json.dumps(card))
    return FaceOptions(path, card)


def shipped() -> FaceOptions:
    """The parser that comes with the project."""
    model = find_model("face", "face-parser")
    return FaceOptions(model.path, model.card)


def astronaut_face(clip: AstronautClip, index: int) -> tuple[float, float, float]:
    """Centre and height, chin to hairline, of the face in picture `index` of the demo source."""
    matrix = clip._view(index / clip.fps)
    x, y = np.linalg.solve(matrix[:, :2], np.array(_FACE) - matrix[:, 2])
    return float(x), float(y), 110 / float(np.hypot(matrix[0, 0], matrix[0, 1]))


def oval(x: float, y: float, tall: float, size: tuple[int, int]) -> Mask:
    """The macroblocks of an upright oval, three quarters as wide as tall."""
    canvas = np.zeros((size[1], size[0]), np.uint8)
    cv2.ellipse(canvas, (round(x), round(y)), (round(0.37 * tall), round(0.5 * tall)), 0, 0, 360, 1, -1)
    rows, columns = grid_shape(*size)
    padded = np.zeros((rows * 16, columns * 16), np.float32)
    padded[: size[1], : size[0]] = canvas
    return cv2.resize(padded, (columns, rows), interpolation=cv2.INTER_AREA) >= 0.5


def snapshot() -> dict[str, list[list[int]]]:
    """What the shipped parser says of one picture of the demo source: runs (`row_runs`) of cells, by region."""
    model = find_model("face", "face-parser")
    picture = AstronautClip().picture(40)
    regions = {}
    for region in model.card["regions"]:
        parser = FaceOptions(model.path, model.card, region).open()
        assert parser is not None
        regions[region] = row_runs(parser.probabilities(picture) > 0.5).tolist()
    return regions


if __name__ == "__main__":
    print(json.dumps(snapshot()))  # python tests/faces.py > tests/face_snapshot.json
