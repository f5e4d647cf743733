"""The walk through the macroblocks of a CAVLC slice, compiled by Numba (ITU-T H.264 clauses 7.3.4, 7.3.5 and 9.2).

Nothing is reconstructed: the walk only finds where each macroblock ends, and what it says of its type and
quantiser. Functions return what they read and the bit position after it; a negative result is minus an index of
`FAULTS`. Reads are not checked against the end one by one: the zeros behind the slice (`PADDING_BYTES`) outlast the
longest part of a macroblock between two checks.

One file, because Numba's cache notices changes of this file only; it also keeps a copy of `cavlc_tables`' tables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sender.cavlc_tables import (
    CHROMA_DC_TOKEN,
    CODED_BLOCK_PATTERN,
    CODES,
    COEFF_TOKEN,
    LEADING_ZEROS,
    RUN_BEFORE,
    TOTAL_ZEROS,
    TOTAL_ZEROS_CHROMA_DC,
)

F = TypeVar("F", bound=Callable[..., object])
Words = NDArray[np.int64]
Counts = NDArray[np.int8]

PADDING_BYTES = 1024
"""Zero bytes to put behind the slice. The longest unchecked parts: I_PCM, 384; 45 ue(v) and two blocks, 600."""

SKIP, INTER, INTRA4, INTRA16, PCM = range(5)

FAULTS = (
    "",
    "a number is too long",
    "a skip run leads past the picture",
    "there are more macroblocks than the picture has",
    "a macroblock type is out of range",
    "a sub-macroblock type is out of range",
    "a reference index is out of range",
    "a chroma prediction mode is out of range",
    "a coded block pattern is out of range",
    "a quantiser step is out of range",
    "a block of coefficients has no valid code",
    "a macroblock runs past the end",
)
_NUMBER, _SKIP_RUN, _ADDRESS, _TYPE, _SUB_TYPE, _REFERENCE, _CHROMA_MODE, _PATTERN, _QP, _BLOCK, _END = range(1, 12)


def _compiled(function: F) -> F:
    """Numba's `njit` with a type: compiled on the first call, cached on disk, without the interpreter lock."""
    return cast(F, njit(cache=True, nogil=True)(function))


@_compiled
def _peek(words: Words, position: int, count: int) -> int:
    """The `count` bits at `position`, 1..32."""
    index = position >> 5
    window = (words[index] << 32) | words[index + 1]
    return int((window >> (64 - count - (position & 31))) & ((1 << count) - 1))


@_compiled
def _leading_zeros(window: int) -> int:
    """Zero bits before the first one bit of 32."""
    for zeros in range(0, 32, 8):
        byte = (window >> (24 - zeros)) & 255
        if byte:
            return zeros + int(LEADING_ZEROS[byte])
    return 32


@_compiled
def _ue(words: Words, position: int) -> tuple[int, int]:
    """ue(v), clause 9.1."""
    window = _peek(words, position, 32)
    if window >> 31:
        return 0, position + 1
    zeros = _leading_zeros(window)
    if zeros == 32:
        return -_NUMBER, position
    return _peek(words, position + zeros, zeros + 1) - 1, position + 2 * zeros + 1


@_compiled
def _code(words: Words, position: int, table: int) -> tuple[int, int]:
    """The value of the next code by one of the tables in CODES."""
    window = _peek(words, position, 32)
    zeros = min(_leading_zeros(window), 15)
    entry = int(CODES[table, zeros, (window >> (28 - zeros)) & 7])
    if entry == 0:
        return -_BLOCK, position
    return entry >> 8, position + (entry & 255)


@_compiled
def _levels(words: Words, position: int, total: int, ones: int) -> tuple[int, int]:
    """Signs of the trailing ones, then level_prefix and level_suffix of the other levels (clause 9.2.2.1)."""
    position += ones
    suffix_length = 1 if total > 10 and ones < 3 else 0
    for index in range(ones, total):
        prefix = _leading_zeros(_peek(words, position, 32))
        if prefix > 25:  # longer than any 8-bit level needs
            return -_BLOCK, position
        position += prefix + 1
        code = min(15, prefix) << suffix_length
        length = suffix_length
        if prefix == 14 and suffix_length == 0:
            length = 4
        elif prefix >= 15:
            length = prefix - 3
        if length:
            code += _peek(words, position, length)
            position += length
        if prefix >= 15 and suffix_length == 0:
            code += 15
        if prefix >= 16:
            code += (1 << (prefix - 3)) - 4096
        if index == ones and ones < 3:
            code += 2
        if suffix_length == 0:
            suffix_length = 1
        if (code + 2) >> 1 > 3 << (suffix_length - 1) and suffix_length < 6:
            suffix_length += 1
    return 0, position


@_compiled
def _block(words: Words, position: int, context: int, maximum: int) -> tuple[int, int]:
    """residual_block_cavlc() of `maximum` coefficients (clause 7.3.5.3.3). Returns TotalCoeff.

    `context`: nC, not used for chroma DC, which is known by its maximum of 4.
    """
    if maximum == 4:
        token, position = _code(words, position, CHROMA_DC_TOKEN)
    elif context >= 8:  # the last column of Table 9-5
        token = _peek(words, position, 6)
        token = 0 if token == 3 else token + 4
        position += 6
    else:
        token, position = _code(words, position, COEFF_TOKEN + (0 if context < 2 else 1 if context < 4 else 2))
    if token <= 0:
        return token, position
    total, ones = token >> 2, token & 3
    if total > maximum or ones > total:
        return -_BLOCK, position
    fault, position = _levels(words, position, total, ones)
    if fault:
        return fault, position
    if total < maximum:
        table = total + (TOTAL_ZEROS_CHROMA_DC if maximum == 4 else TOTAL_ZEROS)
        zeros, position = _code(words, position, table)
        if zeros < 0 or zeros + total > maximum:
            return -_BLOCK, position
        for _ in range(total - 1):
            if zeros == 0:
                break
            run, position = _code(words, position, RUN_BEFORE + min(zeros, 7))
            if run < 0 or run > zeros:
                return -_BLOCK, position
            zeros -= run
    return total, position


@_compiled
def _context(counts: Counts, row: int, column: int, left: bool, above: bool) -> int:
    """nC of the block at `row`, `column` from those to its left and above, where available (clause 9.2.1)."""
    if left and above:
        return (int(counts[row, column - 1]) + int(counts[row - 1, column]) + 1) >> 1
    if left:
        return int(counts[row, column - 1])
    if above:
        return int(counts[row - 1, column])
    return 0


@_compiled
def _residual(
    words: Words,
    position: int,
    end: int,
    row: int,
    column: int,
    left: bool,
    above: bool,
    intra16: bool,
    pattern: int,
    luma: Counts,
    chroma: Counts,
) -> tuple[int, int]:
    """residual() of the macroblock at `row`, `column`, with its coded_block_pattern (clause 7.3.5.3).

    Leaves TotalCoeff of each block in `luma` and `chroma`. The DC levels of Intra_16x16 count for no block.
    """
    plane_rows = chroma.shape[0] >> 1
    for index in range(0 if intra16 else 1, 27):
        x, y, context = 0, 0, 0
        if index == 0:  # Intra16x16DCLevel
            maximum = 16
            context = _context(luma, row * 4, column * 4, left, above)
        elif index < 17:
            if not pattern >> (index - 1 >> 2) & 1:
                continue
            maximum = 15 if intra16 else 16
            inner = index - 1  # inverse 4x4 luma block scan, clause 6.4.3
            x = inner & 1 | inner >> 1 & 2
            y = inner >> 1 & 1 | inner >> 2 & 2
            context = _context(luma, row * 4 + y, column * 4 + x, left or x > 0, above or y > 0)
        elif index < 19:  # ChromaDCLevel
            if not pattern >> 4:
                break
            maximum = 4
        else:  # ChromaACLevel, four blocks of Cb and then of Cr
            if not pattern >> 5:
                break
            maximum = 15
            inner = index - 19
            x = inner & 1
            y = inner >> 1 & 1
            plane = (inner >> 2) * plane_rows
            context = _context(chroma, plane + row * 2 + y, column * 2 + x, left or x > 0, above or y > 0)
            y += plane
        total, position = _block(words, position, context, maximum)
        if total < 0:
            return total, position
        if position > end:
            return -_END, position
        if 0 < index < 17:
            luma[row * 4 + y, column * 4 + x] = total
        elif index >= 19:
            chroma[row * 2 + y, column * 2 + x] = total
    return 0, position


@_compiled
def _inter_prediction(words: Words, position: int, mb_type: int, references: int) -> tuple[int, int]:
    """mb_pred() or sub_mb_pred() of mb_type 0..4 in a P slice (clauses 7.3.5.1, 7.3.5.2; Tables 7-13, 7-17).

    Returns 1 where no partition is smaller than 8x8 samples, else 0.
    """
    partitions = 1 if mb_type == 0 else 2 if mb_type < 3 else 4
    vectors = partitions
    large = 1
    if partitions == 4:
        vectors = 0
        for _ in range(4):
            sub_type, position = _ue(words, position)
            if sub_type < 0 or sub_type > 3:
                return -_SUB_TYPE, position
            vectors += 1 if sub_type == 0 else 4 if sub_type == 3 else 2
            if sub_type:
                large = 0
    if references == 2 and mb_type != 4:  # te(v) of one bit, clause 9.1
        position += partitions
    elif references > 2 and mb_type != 4:
        for _ in range(partitions):
            reference, position = _ue(words, position)
            if reference < 0 or reference >= references:
                return -_REFERENCE, position
    for _ in range(2 * vectors):
        difference, position = _ue(words, position)  # mvd_l0, as long as se(v)
        if difference < 0:
            return difference, position
    return large, position


@_compiled
def _intra_prediction(words: Words, position: int, mb_type: int, transform_8x8: bool) -> tuple[int, int]:
    """mb_pred() of an intra macroblock other than I_PCM, and transform_size_8x8_flag before it. Returns 0."""
    if mb_type == 0:
        modes = 16
        if transform_8x8:
            modes = 4 if _peek(words, position, 1) else 16
            position += 1
        for _ in range(modes):
            position += 1 if _peek(words, position, 1) else 4
    mode, position = _ue(words, position)  # intra_chroma_pred_mode
    if mode < 0 or mode > 3:
        return -_CHROMA_MODE, position
    return 0, position


@_compiled
def _fill(counts: Counts, row: int, column: int, side: int) -> None:
    """All blocks of an I_PCM macroblock count as full (clause 9.2.1)."""
    for index in range(side * side):
        counts[row + index // side, column + index % side] = 16


@_compiled
def read_slice_data(
    words: Words,
    position: int,
    end: int,
    first: int,
    predicted: bool,
    qp: int,
    references: int,
    transform_8x8: bool,
    luma: Counts,
    chroma: Counts,
    bits: NDArray[np.float32],
    qps: NDArray[np.uint8],
    types: NDArray[np.uint8],
    coded: NDArray[np.bool_],
) -> tuple[int, int]:
    """slice_data() of a CAVLC slice (clause 7.3.4).

    `words`: the unescaped NAL unit as 32-bit big-endian numbers, `PADDING_BYTES` of zeros behind it; `position` and
    `end`: where the slice data begins and ends in it, in bits; `first`: address of the first macroblock;
    `predicted`: a P slice, with `references` entries in its list; `luma` [4 * rows, 4 * columns] and `chroma`
    [2 * 2 * rows, 2 * columns], Cb above Cr: coefficient counts of the picture's blocks so far, 0 where not yet
    known. Filled in: `bits`, `qps`, `types`, `coded` [rows, columns].
    Returns the address after the last macroblock, or a fault, and the position after it.
    """
    rows, columns = bits.shape
    address = first
    while True:
        start = position
        if predicted:
            run, position = _ue(words, position)
            if run < 0 or address + run > rows * columns:
                return -_SKIP_RUN, position
            if run:
                for skipped in range(address, address + run):
                    bits[skipped // columns, skipped % columns] = (position - start) / run
                    qps[skipped // columns, skipped % columns] = qp
                    types[skipped // columns, skipped % columns] = SKIP
                address += run
                start = position
                if position >= end:
                    return address, position
        if address >= rows * columns:
            return -_ADDRESS, position
        row, column = address // columns, address % columns
        left = column > 0 and address - 1 >= first
        above = address - columns >= first

        mb_type, position = _ue(words, position)
        if mb_type < 0 or mb_type > (30 if predicted else 25):
            return -_TYPE, position
        inter = predicted and mb_type < 5
        if predicted and not inter:
            mb_type -= 5
        pattern, choice = 0, 0
        if inter:
            types[row, column] = INTER
            choice, position = _inter_prediction(words, position, mb_type, references)
        elif mb_type == 25:
            types[row, column] = PCM
            position = ((position + 7) & ~7) + 384 * 8  # pcm_alignment_zero_bit, pcm_sample_luma and _chroma
            _fill(luma, row * 4, column * 4, 4)
            _fill(chroma, row * 2, column * 2, 2)
            _fill(chroma, row * 2 + (chroma.shape[0] >> 1), column * 2, 2)
        else:
            types[row, column] = INTRA16 if mb_type else INTRA4
            choice, position = _intra_prediction(words, position, mb_type, transform_8x8)
        if choice < 0:
            return choice, position
        intra16 = types[row, column] == INTRA16
        if intra16:  # Table 7-11
            pattern = (mb_type - 1) // 4 % 3 << 4 | (15 if mb_type > 12 else 0)
        elif types[row, column] != PCM:
            number, position = _ue(words, position)
            if number < 0 or number > 47:
                return -_PATTERN, position
            pattern = int(CODED_BLOCK_PATTERN[1 if inter else 0, number])
            if transform_8x8 and choice == 1 and pattern & 15:
                position += 1  # transform_size_8x8_flag
        if pattern or intra16:
            step, position = _ue(words, position)  # mb_qp_delta, -26..25
            if step < 0 or step > 52 or step == 51:
                return -_QP, position
            qp = (qp + ((step + 1) >> 1 if step & 1 else -(step >> 1)) + 52) % 52  # equation 7-37
            fault, position = _residual(
                words, position, end, row, column, left, above, intra16, pattern, luma, chroma
            )
            if fault:
                return fault, position
        if position > end:
            return -_END, position
        bits[row, column] = position - start
        qps[row, column] = 0 if types[row, column] == PCM else qp
        coded[row, column] = pattern != 0 or intra16 or types[row, column] == PCM
        address += 1
        if position == end:
            return address, position
