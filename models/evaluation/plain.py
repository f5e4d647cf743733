"""The yardstick: plain x264 at the same measured bitrate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction

import av

from shared.picture import I420, i420_from_frame

_TOLERANCE = 0.01  # files that are compared differ by no more than this in size
_PASSES = 4


def encode_plain(
    pictures: Callable[[], Iterable[I420]], fps: float, bitrate: float, wanted: set[int], preset: str = "veryfast"
) -> tuple[dict[int, I420], float]:
    """Encode with x264's own rate control until the measured rate is within 1% of `bitrate` bit/s.

    `pictures()` starts the sequence anew for every pass. Same profile, preset and latency settings as the call;
    the rate control is x264's constant bitrate with a buffer of half a second. Returns the decoded pictures at the
    positions in `wanted` and the measured rate, bit/s.
    """
    target = bitrate
    best: tuple[float, dict[int, I420], float] | None = None
    for _ in range(_PASSES):
        packets, count = _encode(pictures(), fps, target, preset)
        measured = sum(len(packet) for packet in packets) * 8 * fps / max(count, 1)
        error = abs(measured / bitrate - 1)
        if best is None or error < best[0]:
            best = error, dict(_decoded(packets, wanted)), measured
        if error <= _TOLERANCE:
            break
        target *= bitrate / measured
    assert best is not None
    return best[1], best[2]


def _encode(pictures: Iterable[I420], fps: float, bitrate: float, preset: str) -> tuple[list[bytes], int]:
    codec: av.VideoCodecContext | None = None
    packets: list[bytes] = []
    count = 0
    for i420 in pictures:
        frame = av.VideoFrame.from_ndarray(i420, format="yuv420p")
        if codec is None:
            codec = open_plain(frame.width, frame.height, fps, bitrate, preset)
        frame.pts, frame.time_base = count, codec.time_base
        count += 1
        packets += [bytes(packet) for packet in codec.encode(frame)]
    if codec is not None:
        packets += [bytes(packet) for packet in codec.encode(None)]
    return packets, count


def open_plain(width: int, height: int, fps: float, bitrate: float, preset: str = "veryfast") -> av.VideoCodecContext:
    """Plain x264 with the call's preset, profile and latency settings and its own constant bitrate, bit/s."""
    codec = av.CodecContext.create("libx264", "w")
    rate = Fraction(fps).limit_denominator(1001)
    codec.width, codec.height, codec.pix_fmt = width, height, "yuv420p"
    codec.framerate, codec.time_base = rate, 1 / rate
    codec.bit_rate, codec.gop_size, codec.thread_count = round(bitrate), 1 << 20, 1
    buffer = {"maxrate": str(round(bitrate)), "bufsize": str(round(bitrate / 2))}
    codec.options = {"preset": preset, "tune": "zerolatency", "sc_threshold": "0", **buffer}
    codec.profile = "Baseline"
    return codec


def _decoded(packets: list[bytes], wanted: set[int]) -> Iterator[tuple[int, I420]]:
    codec = av.CodecContext.create("h264", "r")
    index = 0
    for data in [*packets, None]:
        for frame in codec.decode(av.Packet(data) if data is not None else None):
            if index in wanted:
                yield index, i420_from_frame(frame)
            index += 1
