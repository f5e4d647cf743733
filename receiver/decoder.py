"""H.264 access units to pictures with their quantiser map, through FFmpeg."""

from __future__ import annotations

import time
from fractions import Fraction

import av
from av.codec.context import Flags

from receiver.jitter import AccessUnit
from receiver.picture import DecodedPicture
from shared.grid import grid_shape
from shared.memory import FrameCollector
from shared.picture import CLOCK_RATE, i420_from_frame, size_of
from shared.quantisers import SIDE_DATA, quantiser_map
from shared.stamp import CaptureClock, read_stamp

_SQUARE = Fraction(1)
_USUAL, _LONGEST = 1 / 30, 0.1  # seconds from picture to picture: at first; more is a pause
_SMOOTHING = 0.03  # weight of the newest: cameras do not keep time


class Decoder:
    """One stream's decoder. `face_share` is the sender's last word on it, 0..1, or None."""

    def __init__(self) -> None:
        self._codec = av.CodecContext.create("h264", "r")
        self._codec.thread_count = 1
        self._codec.thread_type = "SLICE"  # FRAME threads would add a picture of delay each
        self._codec.flags |= Flags.low_delay | Flags.output_corrupt
        self._codec.options = dict(SIDE_DATA)
        self._clock = CaptureClock()
        self._frames = FrameCollector()
        self._period = _USUAL
        self._last_ticks: int | None = None
        self._started = False
        self._broken = False  # a unit was damaged since the last IDR
        self.face_share: float | None = None

    def decode(self, unit: AccessUnit) -> list[DecodedPicture]:
        """The pictures of one access unit (one, or none before the first IDR).

        Raises av.FFmpegError on a damaged unit; the decoder stays usable and the next IDR mends the picture.
        """
        self._started = self._started or unit.keyframe
        self._broken = self._broken and not unit.keyframe
        if not self._started or not unit.data:  # an empty packet would end FFmpeg's stream for good
            return []
        stamp = read_stamp(unit.data)
        if stamp is not None:
            self._clock.observe(stamp, unit.rtp_ticks)
            self.face_share = stamp.face_share
        self._pace(unit.rtp_ticks)
        self._frames.read()
        packet = av.Packet(unit.data)
        packet.pts, packet.time_base = unit.rtp_ticks, Fraction(1, CLOCK_RATE)
        try:
            frames = self._codec.decode(packet)
        except av.FFmpegError:
            self._broken = True
            raise
        aspect = self._codec.sample_aspect_ratio or _SQUARE  # the newest SPS's; None or 0 where it says nothing
        pictures = []
        for frame in frames:
            self._broken = self._broken or frame.is_corrupt
            i420 = i420_from_frame(frame)
            rows, columns = grid_shape(*size_of(i420))  # an odd size lost a row or column
            pictures.append(
                DecodedPicture(
                    i420=i420,
                    qp=quantiser_map(frame)[:rows, :columns],
                    rtp_ticks=unit.rtp_ticks,
                    keyframe=unit.keyframe,
                    captured=self._clock.captured(unit.rtp_ticks),
                    arrived=unit.arrived,
                    decoded=time.time(),
                    stamped=stamp is not None,
                    damaged=unit.tainted or self._broken,
                    period=self._period,
                    aspect=aspect if 1 / 4 <= aspect <= 4 else _SQUARE,  # anything else is a mistake
                )
            )
        return pictures

    def _pace(self, ticks: int) -> None:
        """Learn from an access unit's time how fast pictures follow each other."""
        last, self._last_ticks = self._last_ticks, ticks
        if last is not None and ticks > last:
            self._period += _SMOOTHING * (min((ticks - last) / CLOCK_RATE, _LONGEST) - self._period)
