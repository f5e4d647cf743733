"""Code tables of CAVLC (ITU-T H.264 clauses 9.1.2 and 9.2) and their lookup form.

After its leading zeros and the first one bit, no code has more than three bits. So one array serves all tables:
`CODES[table, leading zeros, next three bits]` holds value << 8 | length in bits, or 0 where no code matches.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

# Table 9-5, coeff_token: a line for each TotalCoeff from 0, a column for each TrailingOnes from 0.
_COEFF_TOKEN = (
    # 0 <= nC < 2
    """
    1
    000101 01
    00000111 000100 001
    000000111 00000110 0000101 00011
    0000000111 000000110 00000101 000011
    00000000111 0000000110 000000101 0000100
    0000000001111 00000000110 0000000101 00000100
    0000000001011 0000000001110 00000000101 000000100
    0000000001000 0000000001010 0000000001101 0000000100
    00000000001111 00000000001110 0000000001001 00000000100
    00000000001011 00000000001010 00000000001101 0000000001100
    000000000001111 000000000001110 00000000001001 00000000001100
    000000000001011 000000000001010 000000000001101 00000000001000
    0000000000001111 000000000000001 000000000001001 000000000001100
    0000000000001011 0000000000001110 0000000000001101 000000000001000
    0000000000000111 0000000000001010 0000000000001001 0000000000001100
    0000000000000100 0000000000000110 0000000000000101 0000000000001000
    """,
    # 2 <= nC < 4
    """
    11
    001011 10
    000111 00111 011
    0000111 001010 001001 0101
    00000111 000110 000101 0100
    00000100 0000110 0000101 00110
    000000111 00000110 00000101 001000
    00000001111 000000110 000000101 000100
    00000001011 00000001110 00000001101 0000100
    000000001111 00000001010 00000001001 000000100
    000000001011 000000001110 000000001101 00000001100
    000000001000 000000001010 000000001001 00000001000
    0000000001111 0000000001110 0000000001101 000000001100
    0000000001011 0000000001010 0000000001001 0000000001100
    0000000000111 00000000001011 0000000000110 0000000001000
    00000000001001 00000000001000 00000000001010 0000000000001
    00000000000111 00000000000110 00000000000101 00000000000100
    """,
    # 4 <= nC < 8
    """
    1111
    001111 1110
    001011 01111 1101
    001000 01100 01110 1100
    0001111 01010 01011 1011
    0001011 01000 01001 1010
    0001001 001110 001101 1001
    0001000 001010 001001 1000
    00001111 0001110 0001101 01101
    00001011 00001110 0001010 001100
    000001111 00001010 00001101 0001100
    000001011 000001110 00001001 00001100
    000001000 000001010 000001101 00001000
    0000001101 000000111 000001001 000001100
    0000001001 0000001100 0000001011 0000001010
    0000000101 0000001000 0000000111 0000000110
    0000000001 0000000100 0000000011 0000000010
    """,
    # nC == -1, the chroma DC coefficients of 4:2:0
    """
    01
    000111 1
    000100 000110 001
    000011 0000011 0000010 000101
    000010 00000011 00000010 0000000
    """,
)

# Tables 9-7 and 9-8: total_zeros from 0, a line for each tzVlcIndex from 1.
_TOTAL_ZEROS = """
    1 011 010 0011 0010 00011 00010 000011 000010 0000011 0000010 00000011 00000010 000000011 000000010 000000001
    111 110 101 100 011 0101 0100 0011 0010 00011 00010 000011 000010 000001 000000
    0101 111 110 101 0100 0011 100 011 0010 00011 00010 000001 00001 000000
    00011 111 0101 0100 110 101 100 0011 011 0010 00010 00001 00000
    0101 0100 0011 111 110 101 100 011 0010 00001 0001 00000
    000001 00001 111 110 101 100 011 010 0001 001 000000
    000001 00001 101 100 011 11 010 0001 001 000000
    000001 0001 00001 011 11 10 010 001 000000
    000001 000000 0001 11 10 001 01 00001
    00001 00000 001 11 10 01 0001
    0000 0001 001 010 1 011
    0000 0001 01 1 001
    000 001 1 01
    00 01 1
    0 1
"""

# Table 9-9 (a): the same for chroma DC of 4:2:0.
_TOTAL_ZEROS_CHROMA_DC = """
    1 01 001 000
    1 01 00
    1 0
"""

# Table 9-10: run_before from 0, a line for each zerosLeft from 1; the last is for all above 6.
_RUN_BEFORE = """
    1 0
    1 01 00
    11 10 01 00
    11 10 01 001 000
    11 10 011 010 001 000
    11 000 001 011 010 101 100
    111 110 101 100 011 010 001 0001 00001 000001 0000001 00000001 000000001 0000000001 00000000001
"""

# Table 9-4 for ChromaArrayType 1: coded_block_pattern for codeNum 0..47.
_INTRA_PATTERN = """
    47 31 15 0 23 27 29 30 7 11 13 14 39 43 45 46
    16 3 5 10 12 19 21 26 28 35 37 42 44 1 2 4
    8 17 18 20 24 6 9 22 25 32 33 34 36 40 38 41
"""
_INTER_PATTERN = """
    0 16 1 2 4 8 32 3 5 10 12 15 47 7 11 13
    14 6 9 31 35 37 42 44 33 34 36 40 39 43 45 46
    17 18 20 24 19 21 26 28 23 27 29 30 22 25 38 41
"""

COEFF_TOKEN = 0
"""First of four tables of coeff_token: nC 0..1, 2..3, 4..7, chroma DC. Value: TotalCoeff << 2 | TrailingOnes."""
CHROMA_DC_TOKEN = COEFF_TOKEN + 3
TOTAL_ZEROS = CHROMA_DC_TOKEN
"""Table TOTAL_ZEROS + TotalCoeff, for TotalCoeff 1..15."""
TOTAL_ZEROS_CHROMA_DC = TOTAL_ZEROS + 15
"""Table TOTAL_ZEROS_CHROMA_DC + TotalCoeff, for TotalCoeff 1..3."""
RUN_BEFORE = TOTAL_ZEROS_CHROMA_DC + 3
"""Table RUN_BEFORE + min(zerosLeft, 7)."""


def _rows(text: str) -> list[list[str]]:
    """The words of each line that is not empty."""
    return [line.split() for line in text.split("\n") if line.strip()]


def _lookup(codes: Iterable[tuple[int, str]]) -> NDArray[np.int16]:
    """Pairs of value and code as one table of `CODES`: int16 [16, 8]."""
    table = np.zeros((16, 8), np.int16)
    for value, code in codes:
        for zeros in range(16):
            for suffix in range(8):
                if f"{'0' * zeros}1{suffix:03b}".startswith(code):
                    if table[zeros, suffix]:
                        raise ValueError(f"code {code} is not free of prefixes")
                    table[zeros, suffix] = value << 8 | len(code)
    return table


def _codes() -> NDArray[np.int16]:
    """All tables, in the order of the constants above."""
    tables = [
        _lookup((total << 2 | ones, code) for total, row in enumerate(_rows(text)) for ones, code in enumerate(row))
        for text in _COEFF_TOKEN
    ]
    for text in (_TOTAL_ZEROS, _TOTAL_ZEROS_CHROMA_DC, _RUN_BEFORE):
        tables += [_lookup(enumerate(row)) for row in _rows(text)]
    return np.stack(tables)


CODES = _codes()
"""int16 [29, 16, 8]: every code table, see the head of this file."""

CODED_BLOCK_PATTERN = np.array([_INTRA_PATTERN.split(), _INTER_PATTERN.split()]).astype(np.int8)
"""int8 [2, 48]: codeNum to coded_block_pattern, Intra_4x4 and Intra_8x8 first, then Inter (Table 9-4)."""

LEADING_ZEROS = np.array([8 - number.bit_length() for number in range(256)], np.int8)
"""int8 [256]: zero bits before the first one bit of a byte."""
