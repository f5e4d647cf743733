"""When a picture was taken and how its sender shares the bits: a note inside the H.264 stream.

The note is a "user data unregistered" SEI message (ITU-T H.264 clauses D.1.7 and D.2.7), which any other decoder
skips. A sender writes one about once a second; with the RTP timestamps, which run on the same 90 kHz clock, that
fixes the capture time of every picture in between (`CaptureClock`).
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.picture import CLOCK_RATE

# Every byte after the UUID carries 7 bits under a set top bit, so no start code can arise and the message needs
# no emulation prevention (clause 7.4.1).
_UUID = bytes.fromhex("73656d63 616c6c2e 8d5ba14e f0c7932d")
_TICK_BYTES, _SHARE_BYTES = 10, 2
_NAL_SEI, _USER_DATA_UNREGISTERED = 6, 5
_HEADER = bytes([_NAL_SEI, _USER_DATA_UNREGISTERED, len(_UUID) + _TICK_BYTES + _SHARE_BYTES]) + _UUID
_UNKNOWN_SHARE = (1 << 7 * _SHARE_BYTES) - 1


@dataclass(frozen=True, slots=True)
class Stamp:
    """`ticks`: capture time, 90 kHz ticks since the Unix epoch; `face_share`: bits on the face, 0..1, or None."""

    ticks: int
    face_share: float | None


def write_stamp(stamp: Stamp) -> bytes:
    """The SEI NAL unit with its start code, to be put in front of an access unit."""
    share = _UNKNOWN_SHARE if stamp.face_share is None else round(min(max(stamp.face_share, 0.0), 1.0) * 10_000)
    body = _pack(stamp.ticks, _TICK_BYTES) + _pack(share, _SHARE_BYTES)
    return b"\0\0\0\1" + _HEADER + body + b"\x80"


def read_stamp(access_unit: bytes) -> Stamp | None:
    """The stamp in an Annex B access unit, or None where there is none (or it was cut short)."""
    start = access_unit.find(_HEADER)
    body = access_unit[start + len(_HEADER) :][: _TICK_BYTES + _SHARE_BYTES] if start >= 0 else b""
    if len(body) < _TICK_BYTES + _SHARE_BYTES:
        return None
    share = _unpack(body[_TICK_BYTES:])
    return Stamp(_unpack(body[:_TICK_BYTES]), None if share == _UNKNOWN_SHARE else share / 10_000)


def _pack(value: int, count: int) -> bytes:
    return bytes(0x80 | (value >> 7 * shift & 0x7F) for shift in reversed(range(count)))


def _unpack(data: bytes) -> int:
    value = 0
    for byte in data:
        value = value << 7 | byte & 0x7F
    return value


class CaptureClock:
    """Capture times from RTP timestamps, once a stamp was seen."""

    def __init__(self) -> None:
        self._offset: int | None = None

    def observe(self, stamp: Stamp, rtp_ticks: int) -> None:
        """The picture with unwrapped RTP timestamp `rtp_ticks` carried `stamp`."""
        self._offset = stamp.ticks - rtp_ticks

    def captured_ticks(self, rtp_ticks: int) -> int | None:
        """90 kHz ticks since the Unix epoch at which a picture was taken; None before the first stamp."""
        return None if self._offset is None else rtp_ticks + self._offset

    def captured(self, rtp_ticks: int) -> float:
        """The same in Unix seconds, 0.0 before the first stamp."""
        return 0.0 if self._offset is None else (rtp_ticks + self._offset) / CLOCK_RATE
