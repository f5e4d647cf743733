"""What every macroblock of an H.264 access unit cost: bits, quantiser and type, read back from the CAVLC stream.

x264 tells none of this to its caller, and the control of the face's share needs it after every picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

from sender.cavlc_slice import (
    FAULTS,
    INTER,
    INTRA4,
    INTRA16,
    PADDING_BYTES,
    PCM,
    SKIP,
    read_slice_data,
)
from shared.h264 import (
    NAL_IDR_SLICE,
    NAL_PARTITION_A,
    NAL_PARTITION_C,
    NAL_PICTURE_PARAMETERS,
    NAL_SEQUENCE_PARAMETERS,
    NAL_SLICE,
    H264Error,
    nal_type,
    nal_units,
    unescape,
)
from shared.h264_headers import (
    PictureParameters,
    SequenceParameters,
    SliceHeader,
    SliceType,
    parse_picture_parameters,
    parse_sequence_parameters,
    parse_slice_header,
)

__all__ = ["INTER", "INTRA4", "INTRA16", "PCM", "SKIP", "MacroblockInfo", "MacroblockParser", "warm_up"]


@dataclass(frozen=True, slots=True, eq=False)
class MacroblockInfo:
    """One picture's macroblocks; every array is [rows, columns] and belongs to the caller."""

    bits: NDArray[np.float32]
    """Bits of each macroblock. Those of mb_skip_run are spread evenly over the run."""
    qp: NDArray[np.uint8]
    """QP_Y, 0..51. Where nothing is coded, the one in force; 0 in I_PCM, as deblocking has it."""
    type: NDArray[np.uint8]
    """SKIP, INTER, INTRA4 (also Intra_8x8), INTRA16 or PCM."""
    coded: NDArray[np.bool_]
    """Whether there is a residual, so that `qp` matters."""
    header_bits: int
    """All other bits of the NAL units: headers, parameter sets, SEI, stop bits, emulation prevention. With the sum
    of `bits` this makes the size of the access unit without its start codes."""
    slice_types: tuple[SliceType, ...]


class MacroblockParser:
    """Reads access units of one stream in turn, keeping its parameter sets. Not for two threads at a time."""

    def __init__(self) -> None:
        self._sequences: dict[int, SequenceParameters] = {}
        self._pictures: dict[int, PictureParameters] = {}

    def parse(self, access_unit: bytes) -> MacroblockInfo:
        """Measure every macroblock of one access unit (Annex B byte stream: one picture, all its slices in order).

        Raises H264Error where the stream is damaged, not progressive 4:2:0 CAVLC of 8 bits with I and P slices, or
        does not cover the picture exactly once. The parser is then as before the call.
        """
        sequences, pictures = self._sequences.copy(), self._pictures.copy()
        total_bits = 0
        canvas: _Canvas | None = None
        for escaped in nal_units(access_unit):
            if escaped[0] & 0x80:
                raise H264Error("a NAL unit has forbidden_zero_bit set")
            kind = nal_type(escaped)
            total_bits += len(escaped) * 8
            if kind in (NAL_SLICE, NAL_IDR_SLICE):
                unit = unescape(escaped)
                header = parse_slice_header(unit, pictures, sequences)
                if canvas is None:
                    canvas = _Canvas(header.sequence)
                canvas.add(unit, header)
            elif kind == NAL_SEQUENCE_PARAMETERS:
                sequence = parse_sequence_parameters(unescape(escaped))
                sequences[sequence.id] = sequence
            elif kind == NAL_PICTURE_PARAMETERS:
                picture = parse_picture_parameters(unescape(escaped))
                pictures[picture.id] = picture
            elif NAL_PARTITION_A <= kind <= NAL_PARTITION_C:
                raise H264Error("data partitioning is not supported")
        if canvas is None:
            raise H264Error("the access unit has no slice")
        info = canvas.finish(total_bits)
        self._sequences, self._pictures = sequences, pictures
        return info


class _Canvas:
    """The picture of one access unit while its slices come in."""

    def __init__(self, sequence: SequenceParameters) -> None:
        self._sequence = sequence
        shape = rows, columns = sequence.rows, sequence.columns
        self._bits = np.zeros(shape, np.float32)
        self._qp = np.zeros(shape, np.uint8)
        self._type = np.zeros(shape, np.uint8)
        self._coded = np.zeros(shape, np.bool_)
        self._luma_counts = np.zeros((rows * 4, columns * 4), np.int8)
        self._chroma_counts = np.zeros((2 * rows * 2, columns * 2), np.int8)
        self._next = 0
        self._data_bits = 0
        self._slice_types: list[SliceType] = []

    def add(self, unit: bytes, header: SliceHeader) -> None:
        """Walk through an unescaped slice NAL unit. Raises H264Error."""
        if header.picture.cabac:
            raise H264Error("the stream is coded with CABAC; only CAVLC can be measured")
        if header.sequence != self._sequence:
            raise H264Error("the slices of a picture refer to different sequence parameter sets")
        if header.first_macroblock != self._next:
            raise H264Error(f"a slice begins at macroblock {header.first_macroblock} instead of {self._next}")
        padded = unit + bytes(PADDING_BYTES + -len(unit) % 4)
        reached, position = read_slice_data(
            np.frombuffer(padded, ">u4").astype(np.int64),
            header.data_position,
            header.data_end,
            self._next,
            header.slice_type == SliceType.P,
            header.qp,
            header.references,
            header.picture.transform_8x8,
            self._luma_counts,
            self._chroma_counts,
            self._bits,
            self._qp,
            self._type,
            self._coded,
        )
        if reached < 0:
            raise H264Error(f"slice data near bit {position} of {header.data_end}: {FAULTS[-reached]}")
        if position != header.data_end:
            raise H264Error(f"slice data ends at bit {position} instead of {header.data_end}")
        self._next = reached
        self._data_bits += position - header.data_position
        self._slice_types.append(header.slice_type)

    def finish(self, total_bits: int) -> MacroblockInfo:
        """The result; `total_bits`: size of all NAL units. Raises H264Error where macroblocks are missing."""
        if self._next != self._bits.size:
            raise H264Error(f"the picture has {self._next} macroblocks instead of {self._bits.size}")
        return MacroblockInfo(
            self._bits,
            self._qp,
            self._type,
            self._coded,
            total_bits - self._data_bits,
            tuple(self._slice_types),
        )


def warm_up() -> None:
    """Compile the reader, or load it from Numba's cache, on a small stream of its own: seconds, or a part of one."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width = encoder.height = 64
    encoder.pix_fmt = "yuv420p"
    encoder.time_base = Fraction(1, 30)
    encoder.thread_count = 1
    encoder.profile = "Baseline"
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "20"}
    frame = av.VideoFrame.from_ndarray(
        np.random.default_rng(1).integers(0, 256, (96, 64), np.uint8), format="yuv420p"
    )
    frame.pts = 0
    parser = MacroblockParser()
    for packet in [*encoder.encode(frame), *encoder.encode(None)]:
        parser.parse(bytes(packet))
