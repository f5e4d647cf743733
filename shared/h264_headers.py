"""H.264 parameter sets and slice headers (ITU-T H.264 clauses 7.3.2.1, 7.3.2.2 and 7.3.3).

Progressive 4:2:0 video of 8 bits with I and P slices: Constrained Baseline, and what x264 writes as Main or High
without B pictures. Everything else raises H264Error, which says what is not supported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from shared.h264 import NAL_IDR_SLICE, BitReader, H264Error, nal_type

_WITH_CHROMA_FORMAT = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
_MAX_MACROBLOCKS = 139_264  # MaxFS of level 6.2, Table A-1
_MAX_SIDE = 1055  # macroblocks: Sqrt(MaxFS * 8), clause A.3.1


class SliceType(IntEnum):
    """slice_type modulo 5 (Table 7-6)."""

    P = 0
    B = 1
    I = 2  # noqa: E741  (the name of the standard)
    SP = 3
    SI = 4


@dataclass(frozen=True, slots=True)
class SequenceParameters:
    """A sequence parameter set. `columns`, `rows`: macroblocks; `width`, `height`: luma samples after cropping."""

    id: int
    profile_idc: int
    constraint_flags: int
    """The byte after profile_idc: constraint_set0_flag is its highest bit."""
    level_idc: int
    frame_num_bits: int
    order_type: int
    """pic_order_cnt_type."""
    order_bits: int
    """Bits of pic_order_cnt_lsb; 0 unless `order_type` is 0."""
    order_delta_zero: bool
    """delta_pic_order_always_zero_flag."""
    reference_frames: int
    """max_num_ref_frames."""
    columns: int
    rows: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class PictureParameters:
    """A picture parameter set."""

    id: int
    sequence_id: int
    cabac: bool
    order_present: bool
    """bottom_field_pic_order_in_frame_present_flag."""
    references: int
    """num_ref_idx_l0_default_active_minus1 + 1."""
    weighted: bool
    """weighted_pred_flag."""
    qp: int
    """26 + pic_init_qp_minus26, 0..51."""
    deblocking_present: bool
    constrained_intra: bool
    redundant_present: bool
    transform_8x8: bool


@dataclass(frozen=True, slots=True)
class SliceHeader:
    """A slice header, as far as the slice data behind it needs it."""

    sequence: SequenceParameters
    picture: PictureParameters
    first_macroblock: int
    slice_type: SliceType
    """P or I."""
    frame_num: int
    references: int
    """Entries of reference list 0 in use, 1..16; 0 in I slices."""
    qp: int
    """SliceQP_Y, 0..51 (equation 7-30)."""
    data_position: int
    """First bit of slice_data() in the unescaped NAL unit."""
    data_end: int
    """The bit after its last."""


def parse_sequence_parameters(unit: bytes) -> SequenceParameters:
    """Parse an unescaped SPS NAL unit (clause 7.3.2.1.1), up to its cropping. Raises H264Error."""
    reader = BitReader(unit)
    profile_idc, constraint_flags, level_idc = reader.u(8), reader.u(8), reader.u(8)
    identifier = reader.ue(31)
    if profile_idc in _WITH_CHROMA_FORMAT:
        if reader.ue(3) != 1:
            raise H264Error("only 4:2:0 video is supported")
        if reader.ue(6) or reader.ue(6):
            raise H264Error("only video of 8 bits is supported")
        reader.flag()  # qpprime_y_zero_transform_bypass_flag
        if reader.flag():
            raise H264Error("scaling matrices are not supported")
    frame_num_bits = reader.ue(12) + 4
    order_type = reader.ue(2)
    order_bits, order_delta_zero = 0, False
    if order_type == 0:
        order_bits = reader.ue(12) + 4
    elif order_type == 1:
        order_delta_zero = reader.flag()
        reader.se()  # offset_for_non_ref_pic
        reader.se()  # offset_for_top_to_bottom_field
        for _ in range(reader.ue(255)):
            reader.se()  # offset_for_ref_frame
    reference_frames = reader.ue(16)
    reader.flag()  # gaps_in_frame_num_value_allowed_flag
    columns, rows = reader.ue(_MAX_SIDE - 1) + 1, reader.ue(_MAX_SIDE - 1) + 1
    if columns * rows > _MAX_MACROBLOCKS:
        raise H264Error(f"a picture of {columns} x {rows} macroblocks is larger than any level allows")
    if not reader.flag():
        raise H264Error("interlaced video is not supported")
    reader.flag()  # direct_8x8_inference_flag
    width, height = columns * 16, rows * 16
    if reader.flag():  # in units of 2 luma samples: Table 6-1, equations 7-19 to 7-22
        width -= 2 * (reader.ue() + reader.ue())
        height -= 2 * (reader.ue() + reader.ue())
        if width <= 0 or height <= 0:
            raise H264Error("cropping leaves nothing of the picture")
    return SequenceParameters(
        identifier,
        profile_idc,
        constraint_flags,
        level_idc,
        frame_num_bits,
        order_type,
        order_bits,
        order_delta_zero,
        reference_frames,
        columns,
        rows,
        width,
        height,
    )


def parse_picture_parameters(unit: bytes) -> PictureParameters:
    """Parse an unescaped PPS NAL unit (clause 7.3.2.2). Raises H264Error."""
    reader = BitReader(unit)
    identifier, sequence_id = reader.ue(255), reader.ue(31)
    cabac, order_present = reader.flag(), reader.flag()
    if reader.ue():
        raise H264Error("slice groups (flexible macroblock ordering) are not supported")
    references = reader.ue(31) + 1
    reader.ue(31)  # num_ref_idx_l1_default_active_minus1
    weighted = reader.flag()
    reader.u(2)  # weighted_bipred_idc
    qp = 26 + reader.se(-26, 25)
    reader.se(-26, 25)  # pic_init_qs_minus26
    reader.se(-12, 12)  # chroma_qp_index_offset
    deblocking_present, constrained_intra, redundant_present = reader.flag(), reader.flag(), reader.flag()
    transform_8x8 = False
    if reader.more:
        transform_8x8 = reader.flag()
        if reader.flag():
            raise H264Error("scaling matrices are not supported")
        reader.se(-12, 12)  # second_chroma_qp_index_offset
    return PictureParameters(
        identifier,
        sequence_id,
        cabac,
        order_present,
        references,
        weighted,
        qp,
        deblocking_present,
        constrained_intra,
        redundant_present,
        transform_8x8,
    )


def parse_slice_header(
    unit: bytes, pictures: Mapping[int, PictureParameters], sequences: Mapping[int, SequenceParameters]
) -> SliceHeader:
    """Parse the header of an unescaped slice NAL unit, type 1 or 5 (clause 7.3.3).

    `pictures`, `sequences`: the parameter sets by id. Raises H264Error, also for slices other than P and I.
    """
    reader = BitReader(unit)
    first_macroblock = reader.ue()
    slice_type = SliceType(reader.ue(9) % 5)
    if slice_type not in (SliceType.P, SliceType.I):
        raise H264Error(f"{slice_type.name} slices are not supported")
    picture = pictures.get(reader.ue(255))
    sequence = sequences.get(picture.sequence_id) if picture else None
    if picture is None or sequence is None:
        raise H264Error("a slice refers to a parameter set that was not received")
    frame_num = reader.u(sequence.frame_num_bits)
    if nal_type(unit) == NAL_IDR_SLICE:
        reader.ue(65535)  # idr_pic_id
    if sequence.order_type == 0:
        reader.u(sequence.order_bits)
        if picture.order_present:
            reader.se()  # delta_pic_order_cnt_bottom
    elif sequence.order_type == 1 and not sequence.order_delta_zero:
        reader.se()  # delta_pic_order_cnt[0]
        if picture.order_present:
            reader.se()
    if picture.redundant_present and reader.ue(127):
        raise H264Error("redundant pictures are not supported")
    references = 0
    if slice_type == SliceType.P:
        references = reader.ue(15) + 1 if reader.flag() else picture.references
        if references > 16:
            raise H264Error(f"a slice uses {references} references where at most 16 are allowed")
        _skip_list_modification(reader)
        if picture.weighted:
            _skip_weights(reader, references)
    if unit[0] & 0x60:  # nal_ref_idc
        _skip_reference_marking(reader, nal_type(unit) == NAL_IDR_SLICE)
    if picture.cabac and slice_type == SliceType.P:
        reader.ue(2)  # cabac_init_idc
    qp = picture.qp + reader.se()
    if not 0 <= qp <= 51:
        raise H264Error(f"a slice has the quantiser {qp}, outside 0..51")
    if picture.deblocking_present and reader.ue(2) != 1:
        reader.se(-6, 6)  # slice_alpha_c0_offset_div2
        reader.se(-6, 6)  # slice_beta_offset_div2
    return SliceHeader(
        sequence,
        picture,
        first_macroblock,
        slice_type,
        frame_num,
        references,
        qp,
        reader.position,
        reader.end,
    )


def _skip_list_modification(reader: BitReader) -> None:
    """ref_pic_list_modification() of a P slice (clause 7.3.3.1)."""
    if reader.flag():
        while reader.ue(3) != 3:
            reader.ue()  # abs_diff_pic_num_minus1 or long_term_pic_num


def _skip_weights(reader: BitReader, references: int) -> None:
    """pred_weight_table() of a P slice in 4:2:0 (clause 7.3.3.2)."""
    reader.ue(7)  # luma_log2_weight_denom
    reader.ue(7)  # chroma_log2_weight_denom
    for _ in range(references):
        for numbers in (2, 4):  # weight and offset of luma, then of Cb and Cr
            if reader.flag():
                for _ in range(numbers):
                    reader.se(-128, 127)


def _skip_reference_marking(reader: BitReader, idr: bool) -> None:
    """dec_ref_pic_marking() (clause 7.3.3.3)."""
    if idr:
        reader.u(2)  # no_output_of_prior_pics_flag, long_term_reference_flag
    elif reader.flag():
        while operation := reader.ue(6):  # memory_management_control_operation, Table 7-9
            for _ in range({3: 2, 5: 0}.get(operation, 1)):
                reader.ue()
