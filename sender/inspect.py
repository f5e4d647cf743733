"""`semcall inspect`: what the macroblocks of an H.264 file cost, as a table, as JSON, or drawn over its pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import av
import cv2
import numpy as np
from av.codec.context import Flags
from av.stream import Stream
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from sender.access_units import H264File, MeasuredUnit
from sender.cavlc import INTER, INTRA4, INTRA16, PCM, SKIP, MacroblockInfo, warm_up
from sender.heatmap import heat_map
from shared.errors import SemcallError
from shared.h264_headers import SliceType
from shared.picture import I420, i420_from_frame

_DRAWN = 8  # pictures, unless told which
_TYPES = {"skip": SKIP, "inter": INTER, "intra4": INTRA4, "intra16": INTRA16, "pcm": PCM}
_BAR = 40  # characters of the longest bar of the histogram


@dataclass(frozen=True, slots=True)
class FrameFigures:
    """One access unit. Bits are those of its NAL units, without start codes or length fields.

    `type`: IDR, I, P or ? (not measured); `macroblocks`: number by type; `qp_*`: over macroblocks with a residual,
    None where there is none; `error`: why it could not be measured, None where it was.
    """

    frame: int
    seconds: float | None
    type: str
    bits: int
    header_bits: int | None = None
    macroblocks: dict[str, int] | None = None
    qp_mean: float | None = None
    qp_min: int | None = None
    qp_max: int | None = None
    error: str | None = None


@dataclass(slots=True)
class Report:
    """A file, or the frames chosen from it. `qp_histogram`: int64 [52], macroblocks with a residual by QP."""

    file: str
    profile: str
    width: int
    height: int
    fps: float
    frames: list[FrameFigures] = field(default_factory=list)
    qp_histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(52, np.int64))

    @property
    def bits(self) -> int:
        """Of all frames, damaged ones included."""
        return sum(frame.bits for frame in self.frames)

    @property
    def seconds(self) -> float:
        """From the first picture's time to the end of the last; by the nominal rate where times are missing."""
        times = [frame.seconds for frame in self.frames if frame.seconds is not None]
        if not times or len(times) < len(self.frames):
            return len(self.frames) / self.fps
        return max(times) - min(times) + 1 / self.fps

    @property
    def kbps(self) -> float:
        """kbit/s."""
        return self.bits / self.seconds / 1e3

    @property
    def damaged(self) -> int:
        """Frames that could not be measured."""
        return sum(frame.error is not None for frame in self.frames)

    @property
    def qp_mean(self) -> float | None:
        """Over all macroblocks with a residual."""
        count = int(self.qp_histogram.sum())
        return float(self.qp_histogram @ np.arange(52)) / count if count else None

    @property
    def macroblocks(self) -> dict[str, int]:
        """Number by type."""
        return {name: sum(frame.macroblocks[name] for frame in self.frames if frame.macroblocks) for name in _TYPES}

    def as_json(self) -> str:
        """One JSON object: the file's facts, `totals`, and `frames` with the fields of FrameFigures."""
        totals = {
            "frames": len(self.frames),
            "damaged": self.damaged,
            "seconds": round(self.seconds, 6),
            "bits": self.bits,
            "header_bits": sum(frame.header_bits or 0 for frame in self.frames),
            "kbps": round(self.kbps, 3),
            "macroblocks": self.macroblocks,
            "qp_mean": self.qp_mean,
            "qp_histogram": {str(qp): int(count) for qp, count in enumerate(self.qp_histogram) if count},
        }
        facts = {name: getattr(self, name) for name in ("file", "profile", "width", "height", "fps")}
        return json.dumps({**facts, "totals": totals, "frames": [asdict(frame) for frame in self.frames]}, indent=1)


def inspect_file(path: Path, chosen: tuple[int, int | None] = (0, None)) -> Report:
    """Measure the frames from `chosen[0]` to `chosen[1]` (in decoding order, both included; None: to the end).

    Raises SemcallError where the file is no H.264 coded with CAVLC, or not one frame of it can be measured.
    """
    warm_up()
    first, last = chosen
    error: str | None = None
    measured = seen = 0
    with H264File(path) as file:
        report = Report(str(path), file.profile, *file.size, file.fps)
        for unit in file.units():
            if last is not None and unit.index > last:
                break
            seen += 1
            error = error or unit.error
            measured += unit.info is not None
            if unit.index >= first:
                report.frames.append(_figures(unit))
                if unit.info is not None:
                    report.qp_histogram += np.bincount(unit.info.qp[unit.info.coded], minlength=52)
    if not measured:
        reason = f": {error}" if error else ""
        raise SemcallError(f"No frame of {path} can be measured{reason}; give H.264 with I and P slices in CAVLC.")
    if not report.frames:
        raise SemcallError(f"{path} has {seen} frames, the first is number 0: choose some of them with --frames.")
    return report


def draw_maps(path: Path, directory: Path, report: Report, every: bool = False) -> list[Path]:
    """Heat maps as DIRECTORY/frame-000012.png: of `every` frame in the report, or of 8 spread over it.

    Frames that could not be measured or decoded have none. Returns the files written; replaces older ones.
    Raises SemcallError where they cannot be written.
    """
    frames = [frame for frame in report.frames if frame.error is None]
    if not every:
        spread = np.linspace(0, len(frames) - 1, min(_DRAWN, len(frames)))
        frames = [frames[round(place)] for place in spread]
    wanted = {frame.frame: frame for frame in frames}
    written = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with H264File(path) as file:
            for index, i420, info in _pictures(file, set(wanted)):
                target = directory / f"frame-{index:06d}.png"
                _, png = cv2.imencode(".png", heat_map(i420, info, _caption(wanted[index])))
                target.write_bytes(png.tobytes())
                written.append(target)
    except OSError as error:
        raise SemcallError(
            f"Cannot write heat maps to {directory} ({error.strerror or error}): choose another --png folder."
        ) from None
    return written


def print_report(report: Report, console: Console) -> None:
    """The table of frames, the totals and the histogram of quantisers."""
    errors = report.damaged > 0
    table = Table(title=report.file, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("frame", "type", "bits", "header", "skip", "inter", "intra", "pcm", "QP", "min", "max"):
        table.add_column(name, justify="left" if name == "type" else "right")
    if errors:
        table.add_column("error", overflow="fold", min_width=20)
    for f in report.frames:
        counts = _four(f.macroblocks) if f.macroblocks else ("",) * 4
        mean = "" if f.qp_mean is None else f"{f.qp_mean:.1f}"
        cells = [str(f.frame), f.type, str(f.bits), _text(f.header_bits), *counts, mean, _text(f.qp_min)]
        table.add_row(*cells, _text(f.qp_max), *([f.error or ""] if errors else []))
    console.print(table)
    say = f"{report.width}x{report.height}, {report.profile}: {len(report.frames)} frames in {report.seconds:.2f} s, "
    say += f"{report.kbps:.1f} kb/s"
    if report.qp_mean is not None:
        say += f", mean QP {report.qp_mean:.1f}"
    if errors:
        say += f"; {report.damaged} could not be measured"
    console.print(say + ".", highlight=False, markup=False, soft_wrap=True)
    total = int(report.qp_histogram.sum())
    if total:
        console.print("QP of the macroblocks with a residual:", highlight=False)
    for qp, count in enumerate(report.qp_histogram):
        if count:
            bar = "█" * max(1, round(_BAR * count / int(report.qp_histogram.max())))
            console.print(f"{qp:4d} {count / total:6.1%} {bar}", highlight=False, soft_wrap=True)


def _figures(unit: MeasuredUnit) -> FrameFigures:
    info = unit.info
    if info is None:
        return FrameFigures(unit.index, unit.seconds, "?", unit.bits, error=unit.error)
    intra = all(kind == SliceType.I for kind in info.slice_types)
    kind = "IDR" if unit.keyframe else "I" if intra else "P"
    counts = {name: int((info.type == value).sum()) for name, value in _TYPES.items()}
    qp = info.qp[info.coded]
    spread = (round(float(qp.mean()), 3), int(qp.min()), int(qp.max())) if qp.size else (None, None, None)
    return FrameFigures(unit.index, unit.seconds, kind, unit.bits, info.header_bits, counts, *spread)


def _pictures(file: H264File, wanted: set[int]) -> Iterator[tuple[int, I420, MacroblockInfo]]:
    """The `wanted` frames, decoded and measured."""
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    decoder.flags |= Flags.low_delay | Flags.output_corrupt
    waiting: dict[int, MacroblockInfo] = {}
    for unit in file.units():
        if unit.index > max(wanted):
            break
        if unit.index in wanted and unit.info is not None:
            waiting[unit.index] = unit.info
        if unit.decodable:  # an empty packet would end FFmpeg's stream
            packet = av.Packet(unit.decodable)
            packet.pts = unit.index  # comes back with its picture
            yield from _decoded(decoder, packet, waiting)
    yield from _decoded(decoder, None, waiting)


def _decoded(
    decoder: av.VideoCodecContext, packet: av.Packet[Stream] | None, waiting: dict[int, MacroblockInfo]
) -> Iterator[tuple[int, I420, MacroblockInfo]]:
    try:
        frames = decoder.decode(packet)
    except av.FFmpegError:  # a damaged unit
        return
    for frame in frames:
        if frame.pts in waiting:
            yield frame.pts, i420_from_frame(frame), waiting.pop(frame.pts)


def _caption(frame: FrameFigures) -> str:
    text = f"frame {frame.frame}  {frame.type}  {frame.bits} bits"
    return text if frame.qp_mean is None else f"{text}  QP {frame.qp_mean:.1f} ({frame.qp_min} to {frame.qp_max})"


def _four(counts: dict[str, int]) -> tuple[str, ...]:
    intra = counts["intra4"] + counts["intra16"]
    return str(counts["skip"]), str(counts["inter"]), str(intra), str(counts["pcm"])


def _text(number: int | None) -> str:
    return "" if number is None else str(number)
