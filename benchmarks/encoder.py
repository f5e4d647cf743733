"""The semantic encoder against plain x264, on real clips: quality at equal rate, share and rate errors, CPU.

    python -m benchmarks.encoder [--data ../shared/data] [--seconds 8] [--out table.txt] [--clip FILE] [--rate 400e3]

Clips: the val clips under --data at their own rate, played forth and back to --seconds; the demo source where there
are none. Plain: x264's own constant bitrate (half a second of buffer) with the same preset, profile and latency
settings, its target corrected until its measured rate is within 1% of ours. Quality: luma PSNR and SSIM against the
source, of the face mask, the rest and the frame, from the third second on. CPU: both encoders run picture by picture
in turn on one thread, so that their ratio holds when the machine's speed drifts.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from models.evaluation.metrics import psnr, ssim_map
from models.evaluation.plain import encode_plain, open_plain
from models.registry import find_model
from sender.encoder import EncodeStats, SemanticEncoder, warm_up
from sender.face import SteadySegmenter
from sender.parser import FaceParser
from shared.astronaut import AstronautClip
from shared.clips import Clip
from shared.grid import Mask, mask_to_pixels
from shared.picture import CLOCK_RATE, I420, Picture, i420_from_frame, planes

SETTLED = 2.0  # seconds before figures count
RATES, SHARES = (400e3, 1000e3), (0.10, 0.15, 0.25, 0.35, 0.45)


@dataclass
class Sequence:
    """A clip in memory with its masks. `times`: seconds of each picture; played forth and back."""

    name: str
    fps: float
    pictures: list[I420]
    masks: list[Mask]
    times: list[float]


@dataclass
class Coded:
    stats: list[EncodeStats]
    pictures: list[I420]
    cpu: float
    """Seconds of this process's CPU time in the encoder, over plain x264's on the same pictures."""


def load(data: Path, seconds: float, files: list[Path] | None = None) -> Iterator[Sequence]:
    """The clips in memory, with their masks: `files`, else the val clips under `data`, else the demo source."""
    model = find_model("face", "face-parser")
    parser = FaceParser(model.path, model.card)
    clips: list[tuple[str, float, Iterator[tuple[I420, float]]]] = []
    for path in files or sorted((data / "clips" / "val").glob("*")):
        clip = Clip(path)
        clips.append((path.stem, clip.fps, iter(clip)))
    if not clips:
        demo = AstronautClip()
        clips.append(("demo", 30.0, ((demo.picture(i), i / 30) for i in range(round(seconds * 30)))))
    for name, fps, source in clips:
        pictures, masks, times, segmenter = [], [], [], SteadySegmenter(parser)
        for i420, when in source:
            if when > seconds:
                break
            masks.append(segmenter.mask(Picture(i420, round(when * CLOCK_RATE), len(pictures))))
            pictures.append(i420)
            times.append(when)
        yield _forth_and_back(Sequence(name, fps, pictures, masks, times), seconds)


def _forth_and_back(clip: Sequence, seconds: float) -> Sequence:
    steps = np.diff(clip.times, append=clip.times[-1] + 1 / clip.fps)
    out = Sequence(clip.name, clip.fps, [], [], [])
    index, direction, now = 0, 1, 0.0
    while now < seconds:
        out.pictures.append(clip.pictures[index])
        out.masks.append(clip.masks[index])
        out.times.append(now)
        now += float(steps[index if direction > 0 else max(index - 1, 0)])
        if not 0 <= index + direction < len(clip.pictures):
            direction = -direction
        index += direction
    return out


def code(clip: Sequence, bitrate: float, share: float) -> Coded:
    """Encode semantically, with plain x264 in turn as the CPU's yardstick."""
    height, width = clip.pictures[0].shape[0] * 2 // 3, clip.pictures[0].shape[1]
    encoder = SemanticEncoder(width, height, bitrate, share, fps=clip.fps, mode="exact")
    yardstick = open_plain(width, height, clip.fps, bitrate)
    decoder = av.CodecContext.create("h264", "r")
    stats, decoded, ours, plain = [], [], 0.0, 0.0
    for index, (i420, mask, when) in enumerate(zip(clip.pictures, clip.masks, clip.times, strict=True)):
        start = time.process_time()
        unit, coded = encoder.encode(Picture(i420, round(when * CLOCK_RATE), index), mask)
        middle = time.process_time()
        frame = av.VideoFrame.from_ndarray(i420, format="yuv420p")
        frame.pts = index
        yardstick.encode(frame)
        ours, plain = ours + middle - start, plain + time.process_time() - middle
        stats.append(coded)
        decoded += [i420_from_frame(f) for f in decoder.decode(av.Packet(unit))]
    decoded += [i420_from_frame(f) for f in decoder.decode(None)]
    return Coded(stats, decoded, ours / plain)


def windows(clip: Sequence, values: list[float], span: float) -> tuple[np.ndarray, np.ndarray]:
    """Sums of `values` and durations over windows of `span` seconds that slide by a quarter."""
    times, data = np.array(clip.times), np.array(values)
    lasting = np.diff(times, append=times[-1] + 1 / clip.fps)
    starts = np.arange(SETTLED, times[-1] - span + 1e-6, span / 4)
    inside = [(times >= a - 1e-9) & (times < a + span - 1e-9) for a in starts]
    return np.array([data[k].sum() for k in inside]), np.array([lasting[k].sum() for k in inside])


def errors(clip: Sequence, coded: Coded, bitrate: float, share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share error in 3-s windows (percentage points), rate error in 3-s and 1-s windows (percent).

    The share is of the pictures with a face in view; windows in which they are the lesser half do not count.
    """
    bits, face = [float(s.bits) for s in coded.stats], [s.face_bits for s in coded.stats]
    seen = [s.bits if mask.any() else 0.0 for s, mask in zip(coded.stats, clip.masks, strict=True)]
    bits3, long = windows(clip, bits, 3)
    bits1, short = windows(clip, bits, 1)
    seen3 = windows(clip, seen, 3)[0]  # nobody in view: no share to keep
    enough = seen3 > 0.5 * bits3
    shares = windows(clip, face, 3)[0][enough] / seen3[enough]
    return (shares - share) * 100, (bits3 / long / bitrate - 1) * 100, (bits1 / short / bitrate - 1) * 100


def quality(clip: Sequence, decoded: dict[int, I420]) -> dict[str, tuple[float, float]]:
    """Mean luma (PSNR in dB, SSIM) of face, rest and frame."""
    sums: dict[str, list[tuple[float, float]]] = {"face": [], "rest": [], "frame": []}
    for index, i420 in decoded.items():
        source, mask = clip.pictures[index], clip.masks[index]
        luma, other = planes(source)[0], planes(i420)[0]
        structure = ssim_map(luma, other)
        face = mask_to_pixels(mask, luma.shape[1], luma.shape[0])
        for name, where in (("face", face), ("rest", ~face), ("frame", np.ones_like(face))):
            if where.any():
                sums[name].append((psnr(luma, other, where), float(structure[where].mean())))
    return {name: tuple(np.mean(values, axis=0)) for name, values in sums.items() if values}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--clip", type=Path, action="append", help="instead of the val clips; may be repeated")
    parser.add_argument("--rate", type=float, action="append", help="bit/s, instead of 400e3 and 1000e3")
    options, _ = parser.parse_known_args()
    rates = options.rate or RATES
    cv2.setNumThreads(1)
    warm_up()
    if options.seconds < SETTLED + 3:
        parser.error(f"--seconds must be at least {SETTLED + 3:g}: figures are of windows of 3 s after {SETTLED:g} s")
    clips = list(load(options.data, options.seconds, options.clip))
    console = Console(width=150)
    control, gains = _control_table(), _gain_table()
    shares_all, long_all, short_all = [], [], []
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("encoder", total=len(clips) * len(rates) * (len(SHARES) + 1))
        for clip in clips:
            for bitrate in rates:
                for share in (0.0, *SHARES):
                    coded = code(clip, bitrate, share)
                    share_error, long, short = errors(clip, coded, bitrate, share)
                    if share:
                        shares_all.append(share_error)
                    long_all.append(long)
                    short_all.append(short)
                    _control_row(control, clip, coded, bitrate, share, share_error, long, short)
                    if share in (0.0, 0.25):
                        _gain_row(gains, clip, coded, bitrate, share)
                    progress.advance(task)
    shares, longs, shorts = (np.abs(np.concatenate(x)) for x in (shares_all, long_all, short_all))
    control.add_section()
    control.add_row(
        "all", "", "", f"{shares.mean():.2f}", f"{np.percentile(shares, 95):.2f}",
        f"{np.percentile(longs, 95):.1f}", f"{np.percentile(shorts, 95):.1f}", "", "", "", "",
    )  # fmt: skip
    console.print(control)
    console.print(gains)
    if options.out:
        with options.out.open("w") as file:
            for table in (control, gains):
                Console(file=file, width=150).print(table)


def _control_table() -> Table:
    table = Table(title=f"Share and rate, exact mode, one thread of {os.cpu_count()} cores")
    columns = ("clip", "kb/s", "share %", "|share error| mean pp", "p95 pp", "3-s rate p95 %", "1-s rate p95 %")
    for title in (*columns, "largest P, budgets", "IDR, s of rate", "QP face/rest", "CPU / plain"):
        table.add_column(title, justify="left" if title == "clip" else "right")
    return table


def _control_row(
    table: Table, clip: Sequence, coded: Coded, bitrate: float, share: float, error: np.ndarray, long: np.ndarray,
    short: np.ndarray,
) -> None:  # fmt: skip
    budget = bitrate / clip.fps
    later = [s for s, when in zip(coded.stats, clip.times, strict=True) if when >= SETTLED]
    table.add_row(
        clip.name,
        f"{bitrate / 1e3:.0f}",
        f"{share * 100:.0f}",
        f"{np.abs(error).mean():.2f}" if share and len(error) else "-",
        f"{np.percentile(np.abs(error), 95):.2f}" if share and len(error) else "-",
        f"{np.percentile(np.abs(long), 95):.1f}",
        f"{np.percentile(np.abs(short), 95):.1f}",
        f"{max(s.bits for s in later) / budget:.1f}",
        f"{coded.stats[0].bits / bitrate:.2f}",
        f"{np.mean([s.qp_face for s in later]):.1f}/{np.mean([s.qp_background for s in later]):.1f}",
        f"{coded.cpu:.2f}",
    )


def _gain_table() -> Table:
    table = Table(title="Quality at equal measured rate, minus plain x264's: luma PSNR in dB (SSIM)")
    for title in ("clip", "kb/s", "share %", "plain's own share %", "face", "rest", "frame"):
        table.add_column(title, justify="left" if title == "clip" else "right")
    return table


def _gain_row(table: Table, clip: Sequence, coded: Coded, bitrate: float, share: float) -> None:
    count = len(clip.pictures)
    settled = {i for i in range(0, count, 5) if clip.times[i] >= SETTLED}
    fps = count / (clip.times[-1] + 1 / clip.fps)
    measured = sum(s.bits for s in coded.stats) * fps / count
    plain, _ = encode_plain(lambda: clip.pictures, fps, measured, settled)
    ours = quality(clip, {i: coded.pictures[i] for i in settled})
    theirs = quality(clip, plain)
    cells = []
    for name in ("face", "rest", "frame"):
        gain, structure = (
            (a - b for a, b in zip(ours[name], theirs[name], strict=True)) if name in ours else (0.0, 0.0)
        )
        cells.append(f"{gain:+.2f} ({structure:+.4f})")
    own = sum(s.face_bits for s in coded.stats) / sum(s.bits for s in coded.stats)
    table.add_row(
        clip.name, f"{bitrate / 1e3:.0f}", f"{share * 100:.0f}", f"{own * 100:.0f}" if not share else "", *cells
    )


if __name__ == "__main__":
    main()
