"""The jitter buffer: RTP packets in, access units out, as soon as their marker bit is there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from shared.h264 import is_keyframe

HOLE_PATIENCE = 0.25  # seconds; a retransmission that takes longer comes too late for a conversation
_RESTART_DISTANCE = 3000  # packets; further back than this is another stream, not a late packet
_CAPACITY = 2048  # packets held at most: several seconds of a call


class RtpFragment(Protocol):
    """What aiortc hands over: an RTP packet with its depayloaded bytes (RFC 6184) in `_data`."""

    sequence_number: int
    timestamp: int
    marker: int
    ssrc: int
    _data: bytes


@dataclass(frozen=True, slots=True)
class AccessUnit:
    """One coded picture as it arrived.

    `data`: Annex B bytes; `rtp_ticks`: RTP timestamp unwrapped to 64 bit, 90 kHz; `arrived`: Unix seconds of the last
    packet; `keyframe`: holds an IDR; `tainted`: a picture before it was lost since the last IDR.
    """

    data: bytes
    rtp_ticks: int
    arrived: float
    keyframe: bool
    tainted: bool


class MarkerJitterBuffer:
    """Takes the place of aiortc's jitter buffer on one receiver.

    Stock aiortc releases a picture when the next one begins (a picture late) and waits for 512 packets on a hole.
    This one releases on the marker bit (RFC 6184 section 5.1) and, when `expire` finds a hole older than `patience`
    seconds, skips the picture it is in. A hole is as old as the first packet that came from behind it, wherever in
    the buffer it is: however many there are, none delays a picture by more than `patience`. FFmpeg does not flag
    what follows a wholly lost picture, so everything up to the next IDR is marked `tainted` here. `deliver` is
    called on the asyncio thread.
    """

    def __init__(
        self,
        deliver: Callable[[AccessUnit], None],
        patience: float = HOLE_PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deliver, self._patience, self._clock = deliver, patience, clock
        self._packets: dict[int, RtpFragment] = {}
        self._came: dict[int, float] = {}  # when, by the clock, for each of them
        self._next: int | None = None
        self._highest = 0
        self._tainted = True  # nothing can be decoded before the first IDR
        self._last_timestamp: int | None = None
        self._ticks = 0
        self.ssrc: int | None = None
        self.bytes_received = 0
        self.skipped = 0
        """Holes given up, each with its picture."""

    @property
    def needs_keyframe(self) -> bool:
        """Whether what comes now cannot be decoded cleanly: ask the sender for an IDR."""
        return self._tainted and self._next is not None

    def add(self, packet: RtpFragment) -> tuple[bool, None]:
        """Take one packet; complete pictures go to `deliver`. To aiortc: send no PLI, decode no picture."""
        number = packet.sequence_number
        restarted = packet.ssrc != self.ssrc  # RFC 3550 section 8.2: numbers and timestamps begin anew
        self.ssrc = packet.ssrc
        self.bytes_received += len(packet._data)
        if self._next is None or restarted or self._behind(number) > _RESTART_DISTANCE:
            self._restart(number)
        elif self._behind(number) > 0:
            return False, None  # late: its picture is gone or already out
        elif len(self._packets) >= _CAPACITY:
            self._restart(number)
        self._packets[number] = packet
        self._came.setdefault(number, self._clock())
        if _distance(self._highest, number) > 0:
            self._highest = number
        self._release()
        return False, None

    def expire(self) -> None:
        """Give up the holes that waited too long; call this every few milliseconds."""
        while (since := self._hole_since()) is not None and self._clock() - since > self._patience:
            if not self._skip_picture():
                return
            self._release()

    def _hole_since(self) -> float | None:
        """When the first packet came from behind the first hole; None without a hole."""
        hole = self._next
        if hole is None:
            return None
        while hole in self._packets:
            hole = (hole + 1) & 0xFFFF
        return min((when for number, when in self._came.items() if _distance(hole, number) > 0), default=None)

    def _behind(self, number: int) -> int:
        """How many packets `number` lies before the next one wanted; negative ahead of it."""
        assert self._next is not None
        return _distance(number, self._next)

    def _restart(self, number: int) -> None:
        self._packets.clear()
        self._came.clear()
        self._next = self._highest = number
        self._tainted = True

    def _release(self) -> None:
        while (picture := self._complete_picture()) is not None:
            data = b"".join(packet._data for packet in picture)
            if not data:
                continue  # padding alone (RFC 3550 section 5.1): FFmpeg would take it for the end of the stream
            keyframe = is_keyframe(data)
            self._tainted = self._tainted and not keyframe
            # The marker's: padding in front may still bear the timestamp of the picture before.
            ticks = self._unwrap(picture[-1].timestamp)
            self._deliver(AccessUnit(data, ticks, time.time(), keyframe, self._tainted))

    def _complete_picture(self) -> list[RtpFragment] | None:
        """The packets up to the next marker, taken out; None when one is missing."""
        number = self._next
        assert number is not None
        picture: list[RtpFragment] = []
        while (packet := self._packets.get(number)) is not None:
            picture.append(packet)
            number = (number + 1) & 0xFFFF
            if packet.marker:
                self._take_out(number)
                return picture
        return None

    def _skip_picture(self) -> bool:
        """Drop everything up to the first marker after the hole. False when no marker has come yet."""
        number = self._next
        assert number is not None
        while _distance(number, self._highest) >= 0:
            packet = self._packets.get(number)
            if packet is not None and packet.marker:
                break
            number = (number + 1) & 0xFFFF
        else:
            return False
        self._take_out((number + 1) & 0xFFFF)
        self._tainted = True
        self.skipped += 1
        return True

    def _take_out(self, end: int) -> None:
        """Forget everything before `end`, which is wanted next."""
        while self._next != end:
            assert self._next is not None
            self._packets.pop(self._next, None)
            self._came.pop(self._next, None)
            self._next = (self._next + 1) & 0xFFFF

    def _unwrap(self, timestamp: int) -> int:
        """RTP timestamps wrap every 13 hours (RFC 3550 section 5.1)."""
        if self._last_timestamp is None:
            self._ticks = timestamp
        else:
            step = (timestamp - self._last_timestamp) & 0xFFFFFFFF
            self._ticks += step - (1 << 32) if step >> 31 else step
        self._last_timestamp = timestamp
        return self._ticks


def _distance(one: int, other: int) -> int:
    """How far sequence number `other` lies after `one`, in -32768..32767 (RFC 1982 arithmetic)."""
    return ((other - one + 0x8000) & 0xFFFF) - 0x8000
