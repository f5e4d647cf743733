"""RTP sequence numbers: 16 bits that wrap (RFC 3550 section 5.1)."""

from __future__ import annotations

RESTART_DISTANCE = 3000  # packets; further back than this is another stream, not a late packet


def distance(one: int, other: int) -> int:
    """How far sequence number `other` lies after `one`, in -32768..32767 (RFC 1982 arithmetic)."""
    return ((other - one + 0x8000) & 0xFFFF) - 0x8000
