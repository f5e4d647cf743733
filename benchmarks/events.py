"""What the rate controller does when something happens, and what feathering the mask's border would give.

    python -m benchmarks.events [--data ../shared/data]

Real pictures (two val clips, forth and back; the demo source where there are none) through the whole encoder at
400 kb/s, P = 25%. A budget is the bitrate over the picture rate.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import av
import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.encoder import Sequence, load
from models.evaluation.metrics import psnr, ssim_map
from sender.encoder import _BASE_QP, SemanticEncoder, warm_up
from sender.roi import rectangles
from shared.grid import Mask, grid_shape, mask_to_pixels
from shared.picture import CLOCK_RATE, I420, Picture, i420_from_frame, planes, size_of

BITRATE, SHARE, FPS = 400e3, 0.25, 30
Shot = tuple[I420, Mask]


def scenarios(one: list[Shot], other: list[Shot]) -> dict[str, list[Shot]]:
    """The event comes with picture 90 of 150."""
    random = np.random.default_rng(0)
    nobody = np.zeros_like(one[0][1])

    def noisy(i420: I420, sigma: float) -> I420:
        out = i420.copy()
        luma = planes(out)[0]
        luma[:] = np.clip(luma + random.normal(0, sigma, luma.shape), 0, 255)
        return out

    def dark(i420: I420) -> I420:
        out = i420.copy()
        luma, chroma = planes(out)
        luma[:] = 16 + (luma.astype(np.int16) - 16) // 8
        chroma[:] = 128 + (chroma.astype(np.int16) - 128) // 8
        return noisy(out, 2)

    before, after = one[:90], one[90:150]
    return {
        "nothing": one[:150],
        "scene cut": before + other[:60],
        "face leaves": before + [(i420, nobody) for i420, _ in after],
        "face enters": [(i420, nobody) for i420, _ in before] + after,
        "noise sets in": before + [(noisy(i420, 6), mask) for i420, mask in after],
        "lights go off": before + [(dark(i420), mask) for i420, mask in after],
        "moves after 3 s of a still": one[:1] * 90 + one[1:61],
        "mask covers everything": [(i420, ~nobody) for i420, _ in one[:150]],
    }


def sizes(shots: Iterable[Shot], mode: str) -> np.ndarray:
    """Budgets that each picture took."""
    encoder: SemanticEncoder | None = None
    out = []
    for index, (i420, mask) in enumerate(shots):
        encoder = encoder or SemanticEncoder(*size_of(i420), BITRATE, SHARE, mode=mode)
        _, stats = encoder.encode(Picture(i420, index * CLOCK_RATE // FPS, index), mask)
        out.append(stats.bits / (BITRATE / FPS))
    return np.array(out)


def steps(clip: Sequence) -> tuple[list[float], list[float]]:
    """kb/s by the second with 400 -> 1000 -> 250 kb/s at 3 and 6 s, then share by the second with 15 -> 35 -> 10%."""
    rates, shares = [], []
    for share_steps in (False, True):
        encoder = SemanticEncoder(*size_of(clip.pictures[0]), BITRATE, 0.15, fps=clip.fps, mode="exact")
        bits, face = np.zeros(9), np.zeros(9)
        for index, (i420, mask, when) in enumerate(zip(clip.pictures, clip.masks, clip.times, strict=True)):
            third = min(int(when / 3), 2)
            if share_steps:
                encoder.controller.share = (0.15, 0.35, 0.10)[third]
            else:
                encoder.controller.bitrate = (400e3, 1000e3, 250e3)[third]
            _, stats = encoder.encode(Picture(i420, round(when * CLOCK_RATE), index), mask)
            bits[int(when)] += stats.bits
            face[int(when)] += stats.face_bits
        if share_steps:
            shares = list(100 * face / bits)
        else:
            rates = list(bits / 1e3)
    return rates, shares


class FeatheredEncoder(SemanticEncoder):
    """A ring of macroblocks around the mask gets the mean of both quantisers."""

    def _load(self, picture, regions, qp_face, qp_background, keyframe):  # type: ignore[no-untyped-def]
        mask = np.zeros(grid_shape(*self.size), np.bool_)
        for top, bottom, first, end in regions:
            mask[top:bottom, first:end] = True
        ring = rectangles(_dilated(mask) & ~mask)
        frame = super()._load(picture, np.concatenate([regions, ring]), qp_face, qp_background, keyframe)
        middle = round((qp_face + qp_background) / 2)
        if abs(middle - qp_face) == 1 or abs(middle - qp_background) == 1:  # x264 joins neighbours one step apart
            middle = qp_face
        records = self._frame._records
        records["numerator"][len(regions) : len(regions) + len(ring)] = round((middle - _BASE_QP) * 100)
        return frame


def _dilated(mask: Mask) -> Mask:
    return cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.bool_)


def feathering(clip: Sequence, share: float) -> dict[str, tuple[float, float]]:
    """(PSNR, SSIM) with feathering minus without, of face, ring, rest and frame, at the same target rate."""
    results = []
    for kind in (SemanticEncoder, FeatheredEncoder):
        encoder = kind(*size_of(clip.pictures[0]), BITRATE, share, fps=clip.fps, mode="exact")
        decoder = av.CodecContext.create("h264", "r")
        sums: dict[str, list[tuple[float, float]]] = {name: [] for name in ("face", "ring", "rest", "frame")}
        for index, (i420, mask, when) in enumerate(zip(clip.pictures, clip.masks, clip.times, strict=True)):
            unit, _ = encoder.encode(Picture(i420, round(when * CLOCK_RATE), index), mask)
            (frame,) = decoder.decode(av.Packet(unit))
            if when < 2 or index % 4 or not mask.any():
                continue
            luma, other = planes(i420)[0], planes(i420_from_frame(frame))[0]
            structure, wide = ssim_map(luma, other), _dilated(mask)
            for name, where in (("face", mask), ("ring", wide & ~mask), ("rest", ~wide), ("frame", mask | ~mask)):
                pixels = mask_to_pixels(where, *size_of(i420))
                sums[name].append((psnr(luma, other, pixels), float(structure[pixels].mean())))
        results.append({name: np.mean(values, axis=0) for name, values in sums.items()})
    return {name: tuple(results[1][name] - results[0][name]) for name in results[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    options, _ = parser.parse_known_args()
    cv2.setNumThreads(1)
    warm_up()
    clips = [clip for clip in load(options.data, 9) if min(mask.any() for mask in clip.masks)]
    wide = [clip for clip in clips if size_of(clip.pictures[0]) == (1280, 720) and clip.fps > 20] or clips
    one, other = wide[0], wide[-1]
    console = Console(width=130)

    table = Table(title=f"Events, {one.name} (and {other.name} after the cut), 400 kb/s, P = 25%")
    for title in ("event", "mode", "largest after, budgets", "mean 0-0.5 s after", "0.5-1 s", "1-2 s"):
        table.add_column(title, justify="left" if title in ("event", "mode") else "right")
    shots = [list(zip(clip.pictures, clip.masks, strict=True)) for clip in (one, other)]
    for name, scenario in scenarios(*shots).items():
        for mode in ("exact", "floor"):
            took = sizes(scenario, mode)
            parts = (took[90:105], took[105:120], took[120:150])
            table.add_row(name, mode, f"{took[90:].max():.1f}", *(f"{part.mean():.2f}" for part in parts))
    console.print(table)

    table = Table(title="Steps: 400, 1000, 250 kb/s at P = 15%; 15, 35, 10% at 400 kb/s; one figure per second")
    for title in ("clip", "kb/s", "share %"):
        table.add_column(title)
    for clip in clips:
        rates, shares = steps(clip)
        table.add_row(clip.name, " ".join(f"{v:.0f}" for v in rates), " ".join(f"{v:.0f}" for v in shares))
    console.print(table)

    table = Table(title="Feathering minus none, exact mode, 400 kb/s: PSNR dB (SSIM)")
    for title in ("clip", "share %", "face", "ring", "rest", "frame"):
        table.add_column(title, justify="left" if title == "clip" else "right")
    for clip in clips:
        for share in (0.35, 0.5):
            cells = [f"{a:+.2f} ({b:+.4f})" for a, b in feathering(clip, share).values()]
            table.add_row(clip.name, f"{share * 100:.0f}", *cells)
    console.print(table)


if __name__ == "__main__":
    main()
