"""The H.264 access units of a file in any container, each with what our parser measures in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import av

from sender.cavlc import MacroblockInfo, MacroblockParser
from shared.errors import SemcallError
from shared.h264 import (
    NAL_IDR_SLICE,
    NAL_PICTURE_PARAMETERS,
    NAL_SEQUENCE_PARAMETERS,
    H264Error,
    nal_type,
    nal_units,
    unescape,
)
from shared.h264_headers import parse_picture_parameters, parse_sequence_parameters

_ASSUMED_FPS = 25.0  # FFmpeg's own assumption for a bare stream that tells no rate


@dataclass(frozen=True, slots=True)
class MeasuredUnit:
    """One access unit. `index` counts from 0 in decoding order; `seconds`: presentation time, None if unknown."""

    index: int
    seconds: float | None
    bits: int
    """Of its NAL units, without start codes or length fields."""
    keyframe: bool
    """Whether it holds an IDR slice."""
    decodable: bytes
    """Annex B, behind the parameter sets that damaged units before it took with them; empty where hopeless."""
    info: MacroblockInfo | None
    """None where it cannot be measured."""
    error: str | None
    """Why not."""


class H264File:
    """A video file whose first video stream is H.264, coded with CAVLC. A context manager.

    `size`: width and height in luma samples; `fps`: nominal pictures per second; `profile`: its name.
    Raises SemcallError where the file cannot be read, holds another codec, or is coded with CABAC.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._container = av.open(str(path), metadata_errors="replace")
        except (av.FFmpegError, OSError) as error:
            raise SemcallError(
                f"Cannot read {path} as video ({error.strerror or error}): give an H.264 file."
            ) from None
        try:
            self._stream = self._checked()
        except SemcallError:
            self._container.close()
            raise
        stream = self._stream
        self.size = stream.width, stream.height
        self.fps = float(stream.average_rate or stream.guessed_rate or _ASSUMED_FPS)
        self.profile = str(stream.codec_context.profile or "unknown")
        self._parser = MacroblockParser()
        self._sets = _parameter_sets(stream.codec_context.extradata or b"")
        self._refuse_cabac(self._sets)

    def units(self) -> Iterator[MeasuredUnit]:
        """Every access unit, once. What is damaged comes with its `error`; a file that breaks off ends early.

        Raises SemcallError where the file's avcC is damaged, or CABAC shows up.
        """
        try:
            annex_b = av.BitStreamFilterContext("h264_mp4toannexb", self._stream)
        except av.FFmpegError:
            raise SemcallError(f"{self._path} is damaged where it describes its H.264: repair it first.") from None
        index = 0
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                return
            if packet is None or not packet.size:
                return
            seconds = float(packet.pts * packet.time_base) if packet.pts is not None else None
            size = packet.size  # the filter takes the packet's content
            try:
                data = b"".join(bytes(part) for part in annex_b.filter(packet))
            except av.FFmpegError:
                yield MeasuredUnit(index, seconds, size * 8, False, b"", None, "its NAL units are damaged")
            else:
                yield self._measured(index, seconds, data)
            index += 1

    def __enter__(self) -> H264File:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

    def _checked(self) -> av.VideoStream:
        if not self._container.streams.video:
            raise SemcallError(f"{self._path} has no video stream: give an H.264 file.")
        stream = self._container.streams.video[0]
        if stream.codec_context is None or stream.codec_context.codec.id != av.Codec("h264").id:
            name = "an unknown codec" if stream.codec_context is None else stream.codec_context.codec.long_name
            raise SemcallError(f"{self._path} is coded with {name}: only H.264 can be inspected.")
        return stream

    def _measured(self, index: int, seconds: float | None, data: bytes) -> MeasuredUnit:
        units = nal_units(data)
        own = [unit for unit in units if _is_set(unit)]
        bits = 8 * sum(map(len, units))
        keyframe = any(nal_type(unit) == NAL_IDR_SLICE for unit in units)
        self._refuse_cabac(own)
        decodable = b"".join(b"\0\0\0\1" + unit for unit in self._sets) + data
        try:
            info = self._parser.parse(decodable)
        except H264Error as error:
            self._sets += [unit for unit in own if _is_sound(unit)]
            return MeasuredUnit(index, seconds, bits, keyframe, decodable, None, str(error))
        info = _without(info, self._sets)
        self._sets = []
        return MeasuredUnit(index, seconds, bits, keyframe, decodable, info, None)

    def _refuse_cabac(self, units: list[bytes]) -> None:
        for unit in units:
            if nal_type(unit) == NAL_PICTURE_PARAMETERS:
                with contextlib.suppress(H264Error):
                    if parse_picture_parameters(unescape(unit)).cabac:
                        raise SemcallError(
                            f"{self._path} is coded with CABAC, and only CAVLC can be measured: encode it with "
                            "x264's option cabac=0 or as Baseline."
                        )


def _without(info: MacroblockInfo, units: list[bytes]) -> MacroblockInfo:
    """The figures without the parameter sets that were put in front."""
    header_bits = info.header_bits - 8 * sum(len(unit) for unit in units)
    return MacroblockInfo(info.bits, info.qp, info.type, info.coded, header_bits, info.slice_types)


def _is_set(unit: bytes) -> bool:
    return nal_type(unit) in (NAL_SEQUENCE_PARAMETERS, NAL_PICTURE_PARAMETERS)


def _is_sound(unit: bytes) -> bool:
    parse = parse_sequence_parameters if nal_type(unit) == NAL_SEQUENCE_PARAMETERS else parse_picture_parameters
    try:
        parse(unescape(unit))
    except H264Error:
        return False
    return True


def _parameter_sets(extradata: bytes) -> list[bytes]:
    """SPS and PPS from what a container keeps: Annex B, or avcC (ISO/IEC 14496-15 clause 5.3.3.1)."""
    if extradata[:1] != b"\1":
        return [unit for unit in nal_units(extradata) if _is_set(unit) and _is_sound(unit)]
    units: list[bytes] = []
    position = 5
    for mask in (31, 255):  # numOfSequenceParameterSets has five bits
        count = extradata[position] & mask if position < len(extradata) else 0
        position += 1
        for _ in range(count):
            size = int.from_bytes(extradata[position : position + 2], "big")
            units.append(extradata[position + 2 : position + 2 + size])
            position += 2 + size
    return [unit for unit in units if unit and _is_set(unit) and _is_sound(unit)]
