"""What the link does to a picture: x264 with a given quantiser map, as the sender runs it, and FFmpeg's decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from shared.grid import row_runs
from shared.picture import I420, i420_from_frame, planes
from shared.quantisers import SIDE_DATA, quantiser_map

# A constant quantiser that regions can bend: adaptive quantisation must be on, and weak enough to add nothing.
_BASE_QP = 30
_X264 = {
    "preset": "veryfast",
    "tune": "zerolatency",
    "crf": str(_BASE_QP),
    "qcomp": "1",
    "i_qfactor": "1",
    "aq-mode": "1",
    "aq-strength": "0.001",
    "x264-params": "scenecut=0:keyint=100000:ref=1",
}


@dataclass(frozen=True, slots=True)
class Coded:
    """One picture after the link: uint8 I420, uint8 [rows, columns] luma quantisers, and the bits it took."""

    i420: I420
    qp: NDArray[np.uint8]
    bits: int


def transcode(frames: Sequence[I420], qp: NDArray[np.uint8], fps: int = 30) -> list[Coded]:
    """Encode `frames` (equal sizes) in Constrained Baseline with the quantiser map `qp`, and decode them.

    `qp`: uint8 [rows, columns], 0..51, the same for every frame. The first frame is the only IDR. The quantisers
    returned are the decoder's: skipped macroblocks report what they inherit (ITU-T H.264 clause 7.4.5).
    """
    height, width = planes(frames[0])[0].shape
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.framerate, encoder.time_base = Fraction(fps, 1), Fraction(1, fps)
    encoder.thread_count = 1
    encoder.options = dict(_X264)
    encoder.profile = "Baseline"
    decoder = av.CodecContext.create("h264", "r")
    decoder.options = dict(SIDE_DATA)
    decoder.thread_count = 1
    regions = _region_filter(qp, width, height, fps)
    packets: list[av.Packet[Any]] = []
    for index, i420 in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(i420, "yuv420p")
        frame.pts, frame.time_base = index, Fraction(1, fps)
        regions.vpush(frame)
        packets += encoder.encode(regions.vpull())
    packets += encoder.encode(None)
    pictures: list[av.VideoFrame] = []
    for packet in [*(av.Packet(bytes(packet)) for packet in packets), None]:
        pictures += decoder.decode(packet)
    return [
        Coded(i420_from_frame(picture), quantiser_map(picture), packet.size * 8)
        for picture, packet in zip(pictures, packets, strict=True)
    ]


def rate(coded: Sequence[Coded], fps: int = 30) -> float:
    """kbit/s of the frames after the IDR."""
    rest = coded[1:] or coded
    return sum(picture.bits for picture in rest) * fps / len(rest) / 1000


def _region_filter(qp: NDArray[np.uint8], width: int, height: int, fps: int) -> av.filter.Graph:
    """A filter chain that hangs a region record per run of equal quantiser on a frame, the background last."""
    values, counts = np.unique(qp, return_counts=True)
    background = int(values[counts.argmax()])
    regions = [
        (int(first) * 16, int(row) * 16, int(end - first) * 16, 16, int(value))
        for value in values
        if value != background
        for row, first, end in row_runs(qp == value)
    ]
    graph = av.filter.Graph()
    last = graph.add_buffer(width=width, height=height, format=av.VideoFormat("yuv420p"), time_base=Fraction(1, fps))
    for x, y, w, h, value in [*regions, (0, 0, width, height, background)]:
        offset = Fraction(value - _BASE_QP, 51)
        node = graph.add("addroi", f"x={x}:y={y}:w={w}:h={h}:qoffset={offset.numerator}/{offset.denominator}")
        last.link_to(node)
        last = node
    sink = graph.add("buffersink")
    last.link_to(sink)
    graph.configure()
    return graph
