"""H.264 byte streams: NAL units and the bit syntax inside them (ITU-T H.264 clauses 7.2, 7.3.1, 9.1 and Annex B)."""

from __future__ import annotations

NAL_SLICE = 1
NAL_PARTITION_A = 2
NAL_PARTITION_C = 4
NAL_IDR_SLICE = 5
NAL_SEI = 6
NAL_SEQUENCE_PARAMETERS = 7
NAL_PICTURE_PARAMETERS = 8
NAL_DELIMITER = 9

_START_CODE = b"\0\0\1"


class H264Error(Exception):
    """A stream that is damaged, or uses a part of H.264 that is not supported. The message says which."""


def nal_units(data: bytes) -> list[bytes]:
    """Split an Annex B byte stream at its start codes of 3 or 4 bytes.

    Returns the NAL units, header byte first, without start codes and without trailing zero bytes (a NAL unit never
    ends in one, clause 7.4.1). What precedes the first start code is ignored, and so are empty units.
    """
    units = []
    start = data.find(_START_CODE)
    while start >= 0:
        following = data.find(_START_CODE, start + 3)
        unit = data[start + 3 : following if following >= 0 else None].rstrip(b"\0")
        if unit:
            units.append(unit)
        start = following
    return units


def nal_type(unit: bytes) -> int:
    """nal_unit_type of a non-empty NAL unit, 0..31 (Table 7-1)."""
    return unit[0] & 31


def is_keyframe(access_unit: bytes) -> bool:
    """Whether an access unit (Annex B) holds an IDR slice: decoding can start there."""
    return any(nal_type(unit) == NAL_IDR_SLICE for unit in nal_units(access_unit))


def unescape(unit: bytes) -> bytes:
    """A NAL unit, header byte included, without its emulation prevention bytes (clause 7.3.1)."""
    return unit.replace(b"\0\0\3", b"\0\0")


def payload_end(unit: bytes) -> int:
    """Bit position of rbsp_stop_one_bit in an unescaped NAL unit: where its syntax ends (clause 7.3.2.11).

    Raises H264Error where there is none.
    """
    if len(unit) < 2 or not unit[-1]:
        raise H264Error("a NAL unit has no stop bit")
    last = unit[-1]
    return len(unit) * 8 - (last & -last).bit_length()


class BitReader:
    """Reads syntax elements (clause 7.2) from an unescaped NAL unit, after its header byte.

    `position`: the next bit, counted from the header byte; `end`: where the syntax ends. Every method raises
    H264Error rather than reading past the end.
    """

    def __init__(self, unit: bytes) -> None:
        self.position = 8
        self.end = payload_end(unit)
        self._unit = unit

    @property
    def more(self) -> bool:
        """more_rbsp_data()."""
        return self.position < self.end

    def u(self, count: int) -> int:
        """An unsigned number of `count` bits."""
        if self.position + count > self.end:
            raise H264Error("a NAL unit ends in the middle of its syntax")
        start, self.position = self.position, self.position + count
        chunk = int.from_bytes(self._unit[start >> 3 : (self.position + 7) >> 3], "big")
        return (chunk >> (-self.position & 7)) & ((1 << count) - 1)

    def flag(self) -> bool:
        """One bit."""
        return self.u(1) == 1

    def ue(self, maximum: int = 0xFFFF_FFFE) -> int:
        """An unsigned Exp-Golomb number (clause 9.1); H264Error where it is over `maximum`."""
        chunk = self._unit[self.position >> 3 : (self.position >> 3) + 5]
        ahead = len(chunk) * 8 - (self.position & 7)
        zeros = ahead - (int.from_bytes(chunk, "big") & ((1 << ahead) - 1)).bit_length()
        if zeros > 31:
            raise H264Error("an Exp-Golomb number has more than 32 bits")
        number = self.u(2 * zeros + 1) - 1
        if number > maximum:
            raise H264Error(f"a header field is {number} where at most {maximum} is allowed")
        return number

    def se(self, minimum: int = -(1 << 31) + 1, maximum: int = (1 << 31) - 1) -> int:
        """A signed Exp-Golomb number (clause 9.1.1); H264Error where it is not in `minimum`..`maximum`."""
        number = self.ue()
        number = (number + 1) >> 1 if number & 1 else -(number >> 1)
        if not minimum <= number <= maximum:
            raise H264Error(f"a header field is {number}, outside {minimum}..{maximum}")
        return number
