"""Whether a restorer helps: figures and pictures on clips of people it has never seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from models.networks.features import VGG, Vgg, rgb
from models.training.coding import Coded
from models.training.pairs import MAX_PIXELS, FaceFinder, at_rate, read_segment
from shared.grid import Mask
from shared.picture import I420, bgr_from_i420, planes

Restore = Callable[[I420, NDArray[np.uint8]], I420]
"""I420 and quantisers to I420."""

_JUDGED = (10, 20, 30)
_FRAMES = 36


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
    """Before and after, means over frames: PSNR and SSIM of luma, distance on VGG-19 to conv3_4 of RGB."""

    psnr: tuple[float, float]
    ssim: tuple[float, float]
    vgg: tuple[float, float] | None
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
    """Compare a scene before and after `restore`; `vgg` is None without that network in `data`.

    Flicker is the mean absolute difference, in code values, between the change from a frame to the next and the
    original's change.
    """
    restored = [restore(coded.i420, coded.qp) for coded in scene.coded]
    before = [coded.i420 for coded in scene.coded]
    weights = data / "weights" / VGG
    net = Vgg(weights) if weights.exists() else None
    vgg = None
    if net is not None:
        vgg = (distance(net, before, scene.original), distance(net, restored, scene.original))
    both = (before, restored)
    return Figures(
        cast(tuple[float, float], tuple(np.mean([psnr(*pair) for pair in _luma(side, scene)]) for side in both)),
        cast(tuple[float, float], tuple(np.mean([ssim(*pair) for pair in _luma(side, scene)]) for side in both)),
        vgg,
        (flicker(before, scene.original), flicker(restored, scene.original)),
    )


def psnr(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of two planes, peak 255, in dB."""
    error = np.mean((first.astype(np.float32) - second.astype(np.float32)) ** 2)
    return float(10 * np.log10(255**2 / max(float(error), 1e-9)))


def ssim(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Structural similarity of two planes: Gaussian window 11, sigma 1.5, K1 0.01, K2 0.03 (Wang et al. 2004)."""
    a, b = first.astype(np.float32), second.astype(np.float32)
    blur = lambda x: cv2.GaussianBlur(x, (11, 11), 1.5)[5:-5, 5:-5]  # noqa: E731
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float((top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean())


def distance(net: Vgg, images: list[I420], truths: list[I420]) -> float:
    """Mean distance on `net` between pictures of RGB clipped to 0..1."""
    values = []
    with torch.no_grad():
        for image, truth in zip(images[::2], truths[::2], strict=True):
            values.append(float(net.distance(net(_rgb(image)), net(_rgb(truth)))))
    return float(np.mean(values))


def flicker(images: list[I420], truths: list[I420]) -> float:
    """Wrong change between consecutive frames (pairs 0-1, 2-3, ...), mean absolute code values of luma."""
    values = []
    for index in range(0, len(images), 2):
        change = [_plane(side[index + 1]) - _plane(side[index]) for side in (images, truths)]
        values.append(float(np.abs(change[0] - change[1]).mean()))
    return float(np.mean(values))


def contact_sheet(scenes: list[Scene], restore: Restore, path: Path, size: int = 144, zoom: int = 3) -> None:
    """A PNG: per scene a row of the face and a row beside it; columns decoded, restored, original, the change x8."""
    rows = []
    for shown in scenes:
        coded = shown.coded[2]
        restored = restore(coded.i420, coded.qp)
        height, width = planes(coded.i420)[0].shape
        y, x = np.argwhere(shown.face).mean(0) * 16 if shown.face.any() else (height / 2, width / 2)
        for dy, dx in ((0.0, 0.0), (0.9, 1.1)):
            top = int(np.clip(y - size / 2 + dy * size, 0, height - size)) & ~1
            left = int(np.clip(x - size / 2 + dx * size, 0, width - size)) & ~1
            cells = [
                bgr_from_i420(image)[top : top + size, left : left + size]
                for image in (coded.i420, restored, shown.original[2])
            ]
            change = cells[1].astype(np.int32) - cells[0]
            cells.append(np.clip(128 + 8 * change, 0, 255).astype(np.uint8))
            row = [cv2.resize(cell, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC) for cell in cells]
            rows.append(np.hstack(row))
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.vstack(rows))


def _luma(images: list[I420], scene: Scene) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    return [(planes(a)[0], planes(b)[0]) for a, b in zip(images, scene.original, strict=True)]


def _plane(i420: I420) -> NDArray[np.float32]:
    return planes(i420)[0].astype(np.float32)


def _rgb(i420: I420) -> torch.Tensor:
    y, uv = planes(i420)
    parts = (torch.from_numpy(np.ascontiguousarray(part)).float()[None] for part in (y[None], uv))
    return rgb(*parts).clamp(0, 1)
