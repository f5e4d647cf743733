"""The jitter buffer: RTP packets in, access units out, as soon as their marker bit is there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from receiver.nack import irreparable
from receiver.sequence import RESTART_DISTANCE, distance
from shared.h264 import NAL_IDR_SLICE, NAL_SEQUENCE_PARAMETERS, is_keyframe, nal_type, nal_units

HOLE_PATIENCE = 0.25  # seconds, before a round trip has been measured
_REORDERED = 16  # packets; so far before the first that came others of its picture may lie
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
    what follows a wholly lost picture, so everything up to the next IDR is marked `tainted` here, and an IDR that
    comes whole meanwhile waits for no hole before it. A gap that is not worth repairing (`nack.irreparable`: the link
    was down) is given up at once. At most 2048 packets are held. `deliver` is called on the asyncio thread.
    """

    def __init__(
        self,
        deliver: Callable[[AccessUnit], None],
        patience: float = HOLE_PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deliver, self._clock = deliver, clock
        self.patience = patience
        """Seconds that a hole may hold up what came after it."""
        self._packets: dict[int, RtpFragment] = {}
        self._came: dict[int, float] = {}  # when, by the clock, for each of them
        self._keys: dict[int, bool] = {}  # those with a part of an IDR: whether one begins there
        self._next: int | None = None
        self._highest, self._highest_timestamp = 0, 0
        self._tainted = True  # nothing can be decoded before the first IDR
        self._fresh = True  # nothing was taken out since the stream began
        self._partial = False  # what comes up to the next marker lacks its beginning
        self._parameters = False  # a sequence parameter set has come
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

    @property
    def keyframe_coming(self) -> bool:
        """Whether packets of an IDR are here, but not yet all."""
        return bool(self._keys)

    @property
    def wanted(self) -> int | None:
        """The sequence number that is waited for; what lies before it is out or given up. None before the first."""
        return self._next

    def add(self, packet: RtpFragment) -> tuple[bool, None]:
        """Take one packet; complete pictures go to `deliver`. To aiortc: send no PLI, decode no picture."""
        number = packet.sequence_number
        restarted = packet.ssrc != self.ssrc  # RFC 3550 section 8.2: numbers and timestamps begin anew
        self.ssrc = packet.ssrc
        self.bytes_received += len(packet._data)
        if self._next is None or restarted or distance(number, self._next) > RESTART_DISTANCE:
            self._restart(packet)
        elif 0 < distance(number, self._next) <= _REORDERED and self._fresh:
            self._next = number
            self._partial = self._partial and not _begins_keyframe(packet._data)
        elif distance(number, self._next) > 0:
            return False, None  # late: its picture is gone or already out
        elif len(self._packets) >= _CAPACITY or self._is_cut_off(packet):
            self._restart(packet)
            self._partial = not _begins_keyframe(packet._data)
            self.skipped += 1
        self._packets[number] = packet
        self._came.setdefault(number, self._clock())
        if _is_of_keyframe(packet._data):
            self._keys[number] = _begins_keyframe(packet._data)
        if distance(self._highest, number) > 0:
            self._highest, self._highest_timestamp = number, packet.timestamp
        self._release()
        return False, None

    def expire(self) -> None:
        """Give up the holes that waited too long; call this every few milliseconds."""
        while (since := self._hole_since()) is not None and self._clock() - since > self.patience:
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
        return min((when for number, when in self._came.items() if distance(hole, number) > 0), default=None)

    def _is_cut_off(self, packet: RtpFragment) -> bool:
        """Whether more is missing before `packet` than is worth repairing."""
        ticks = (packet.timestamp - self._highest_timestamp) & 0xFFFFFFFF
        count = distance(self._highest, packet.sequence_number) - 1
        return irreparable(count, ticks if ticks < 1 << 31 else 0)

    def _restart(self, packet: RtpFragment) -> None:
        self._packets.clear()
        self._came.clear()
        self._keys.clear()
        self._next = self._highest = packet.sequence_number
        self._highest_timestamp = packet.timestamp
        self._tainted, self._fresh, self._partial = True, True, False

    def _release(self) -> None:
        while (picture := self._complete_picture()) is not None:
            if self._partial:
                self._partial = False
                continue
            data = b"".join(packet._data for packet in picture)
            if not data:
                continue  # padding alone (RFC 3550 section 5.1): FFmpeg would take it for the end of the stream
            keyframe = is_keyframe(data)
            self._parameters = self._parameters or _begins_keyframe(data)
            if keyframe and not self._parameters:
                continue  # the stream's first packet is lost, and the parameter sets with it
            self._tainted = self._tainted and not keyframe
            # The marker's: padding in front may still bear the timestamp of the picture before.
            ticks = self._unwrap(picture[-1].timestamp)
            self._deliver(AccessUnit(data, ticks, time.time(), keyframe, self._tainted))

    def _complete_picture(self) -> list[RtpFragment] | None:
        """The packets up to the next marker, taken out; None when one is missing."""
        assert self._next is not None
        picture = self._up_to_marker(self._next)
        if picture is None and self._tainted:
            picture = self._later_keyframe()
        if picture is not None:
            self._take_out((picture[-1].sequence_number + 1) & 0xFFFF)
        return picture

    def _up_to_marker(self, number: int) -> list[RtpFragment] | None:
        """The packets from `number` to the next marker; None when one is missing."""
        picture: list[RtpFragment] = []
        while (packet := self._packets.get(number)) is not None:
            picture.append(packet)
            number = (number + 1) & 0xFFFF
            if packet.marker:
                return picture
        return None

    def _later_keyframe(self) -> list[RtpFragment] | None:
        """A whole IDR from behind a hole; nothing before it can be decoded cleanly."""
        walked: set[int] = set()  # or parameter sets in every packet would be walked again for each of them
        for number, begins in self._keys.items():
            if not begins or number in walked:
                continue
            picture = self._up_to_marker(number)
            if picture is None:
                while number in self._packets:
                    walked.add(number)
                    number = (number + 1) & 0xFFFF
            elif is_keyframe(b"".join(packet._data for packet in picture)):
                self._partial = False
                self.skipped += 1
                return picture
        return None

    def _skip_picture(self) -> bool:
        """Drop everything up to the first marker after the hole, or to the IDR that begins there.

        False when neither has come yet.
        """
        number = self._next
        assert number is not None
        behind = False
        while distance(number, self._highest) >= 0:
            packet = self._packets.get(number)
            if behind and self._keys.get(number):
                break
            behind = behind or packet is None
            number = (number + 1) & 0xFFFF
            if packet is not None and packet.marker:
                break
        else:
            return False
        self._take_out(number)
        self._tainted, self._partial = True, False
        self.skipped += 1
        return True

    def _take_out(self, end: int) -> None:
        """Forget everything before `end`, which is wanted next."""
        self._fresh = False
        while self._next != end:
            assert self._next is not None
            self._packets.pop(self._next, None)
            self._came.pop(self._next, None)
            self._keys.pop(self._next, None)
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


def _is_of_keyframe(data: bytes) -> bool:
    return any(nal_type(unit) in (NAL_IDR_SLICE, NAL_SEQUENCE_PARAMETERS) for unit in nal_units(data))


def _begins_keyframe(data: bytes) -> bool:
    """Whether parameter sets are here: they come before the slices (ITU-T H.264 clause 7.4.1.2.3)."""
    return any(nal_type(unit) == NAL_SEQUENCE_PARAMETERS for unit in nal_units(data))
