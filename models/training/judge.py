"""Whether a restorer helps: figures and pictures on clips of people it has never seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from models.evaluation.flicker import flicker
from models.evaluation.metrics import psnr, ssim_map
from models.networks.features import VGG, Vgg, rgb
from models.networks.restorer import SmallRestorer
from models.training.coding import Coded
from models.training.pairs import MAX_PIXELS, FaceFinder, at_rate, read_segment
from shared.grid import Mask
from shared.picture import I420, bgr_from_i420, planes

Restore = Callable[[I420, NDArray[np.uint8]], I420]
"""I420 and quantisers to I420."""

_JUDGED = (10, 20, 30)
_FRAMES = 36
WINDOW = 256
"""Samples, across and down, of the windows that the feature network looks at: whole frames take it minutes."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A piece of a clip after the link. `kbps`: of the P frames; lists are of the judged frames."""

    name: str
    kbps: float
    share: int
    original: list[I420]
    coded: list[Coded]
    face: Mask


@dataclass(frozen=True, slots=True)
class Figures:
    """Before and after, means over frames.

    PSNR (dB) and SSIM of whole luma planes; distance on VGG-19 to conv3_4 of RGB, in a window on the face and in the
    corner farthest from it (NaN without that network); flicker: wrong change to the next frame, luma code values.
    """

    psnr: tuple[float, float]
    ssim: tuple[float, float]
    vgg_face: tuple[float, float]
    vgg_rest: tuple[float, float]
    flicker: tuple[float, float]


def scene(data: Path, clip: Path, kbps: float, offset: int, start: float = 1.0) -> Scene:
    """A second of `clip` at `kbps` (meant for 1280x720 at 30 fps, scaled to its size), face `offset` finer."""
    frames = read_segment(clip, start, _FRAMES)
    face = FaceFinder(data, np.random.default_rng(0)).mask(frames[len(frames) // 2])
    scaled = kbps * frames[0].size / (MAX_PIXELS * 1.5)
    coded = at_rate(frames, face, offset, scaled)
    bits = sum(picture.bits for picture in coded[1:])
    chosen = [index + step for index in _JUDGED for step in (0, 1)]
    return Scene(
        clip.stem,
        bits * 30 / (len(coded) - 1) / 1000,
        offset,
        [frames[index] for index in chosen],
        [coded[index] for index in chosen],
        face,
    )


def judge(scene: Scene, restore: Restore, data: Path) -> Figures:
    """Compare a scene before and after `restore`."""
    sides = ([coded.i420 for coded in scene.coded], [restore(coded.i420, coded.qp) for coded in scene.coded])
    weights = data / "weights" / VGG
    net = Vgg(weights) if weights.exists() else None

    def both(measure: Callable[[list[I420]], float]) -> tuple[float, float]:
        return measure(sides[0]), measure(sides[1])

    def luma(measure: Callable[[NDArray[np.uint8], NDArray[np.uint8]], float]) -> tuple[float, float]:
        return both(
            lambda side: float(
                np.mean([measure(planes(a)[0], planes(b)[0]) for a, b in zip(side, scene.original, strict=True)])
            )
        )

    def vgg(corner: tuple[int, int]) -> tuple[float, float]:
        return both(lambda side: distance(net, side, scene.original, corner) if net else float("nan"))

    on_face, elsewhere = windows(scene)
    return Figures(
        luma(psnr),
        luma(cropped_ssim),
        vgg(on_face),
        vgg(elsewhere),
        both(lambda side: _flicker(side, scene.original)),
    )


def windows(scene: Scene, size: int = WINDOW) -> tuple[tuple[int, int], tuple[int, int]]:
    """Top and left of a window on the face and of one in the corner farthest from it; even numbers."""
    height, width = planes(scene.original[0])[0].shape
    y, x = np.argwhere(scene.face).mean(0) * 16 + 8
    last = max(0, height - size) & ~1, max(0, width - size) & ~1
    face = int(np.clip(y - size / 2, 0, last[0])) & ~1, int(np.clip(x - size / 2, 0, last[1])) & ~1
    return face, (0 if y > height / 2 else last[0], 0 if x > width / 2 else last[1])


def cropped_ssim(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Mean SSIM without the border that the window reaches over."""
    return float(ssim_map(first, second)[5:-5, 5:-5].mean())


def distance(net: Vgg, images: list[I420], truths: list[I420], corner: tuple[int, int]) -> float:
    """Mean distance on `net` between windows at `corner` of every second picture, in RGB clipped to 0..1."""
    values = []
    with torch.no_grad():
        for image, truth in zip(images[::2], truths[::2], strict=True):
            values.append(float(net.distance(net(_rgb(image, corner)), net(_rgb(truth, corner)))))
    return float(np.mean(values))


def _flicker(images: list[I420], truths: list[I420]) -> float:
    """Flicker of luma over the pairs of judged frames, 0-1, 2-3, ..."""
    sides = [[planes(i420)[0] for i420 in side] for side in (truths, images)]
    pairs = [slice(start, start + 2) for start in range(0, len(images), 2)]
    return float(np.mean([flicker(sides[0][pair], sides[1][pair]) for pair in pairs]))


def contact_sheet(scenes: list[Scene], restore: Restore, path: Path, size: int = 160, zoom: int = 3) -> None:
    """A PNG: per scene a row of the face and a row beside it; columns decoded, restored, original, the change x8."""
    rows = []
    for shown in scenes:
        coded = shown.coded[2]
        images = (coded.i420, restore(coded.i420, coded.qp), shown.original[2])
        for top, left in windows(shown, size):
            cells = [bgr_from_i420(image)[top : top + size, left : left + size] for image in images]
            change = cells[1].astype(np.int32) - cells[0]
            cells.append(np.clip(128 + 8 * change, 0, 255).astype(np.uint8))
            row = [cv2.resize(cell, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC) for cell in cells]
            rows.append(np.hstack(row))
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.vstack(rows))


def _rgb(i420: I420, corner: tuple[int, int]) -> torch.Tensor:
    top, left = corner
    luma, chroma = planes(i420)
    y = luma[None, top : top + WINDOW, left : left + WINDOW]
    uv = chroma[:, top // 2 : (top + WINDOW) // 2, left // 2 : (left + WINDOW) // 2]
    return rgb(*(torch.from_numpy(part.astype(np.float32))[None] for part in (y, uv))).clamp(0, 1)


def network_restore(net: SmallRestorer) -> Restore:
    """A network under training as a function on pictures."""

    def restore(i420: I420, qp: NDArray[np.uint8]) -> I420:
        restored = i420.copy()
        luma = planes(restored)[0]
        with torch.no_grad():
            y, quantiser = (torch.from_numpy(part.astype(np.float32))[None, None] for part in (luma, qp))
            luma[:] = net(y, quantiser)[0, 0].numpy().astype(np.uint8)
        return restored

    return restore


def onnx_restore(path: Path) -> Restore:
    """An exported model as a function on pictures, on one CPU thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])

    def restore(i420: I420, qp: NDArray[np.uint8]) -> I420:
        y, uv = planes(i420)
        out = session.run(["y_out", "uv_out"], {"y": y[None, None], "uv": uv[None], "qp": qp[None, None]})
        return np.concatenate([out[0][0, 0], out[1].reshape(-1, i420.shape[1])])

    return restore
