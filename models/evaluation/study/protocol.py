"""What a study compares: the paper's rates and shares, and the curves that it lacks.

The paper's section 4 codes at 1000 and 400 kb/s with shares of the bits for the face from 0 (plain) to 45 percent.
"""

from __future__ import annotations

from dataclasses import dataclass

TABLES = {1000: (0, 10, 15, 25), 400: (0, 10, 15, 25, 35, 45)}
"""Shares in percent by nominal rate in kbit/s, as in the paper's tables."""
CURVE_RATES = (150, 200, 300, 400, 600, 1000, 1500)
CURVE_SHARES = (0, 25, 45)
FULL_PIXELS = 1280 * 720
"""Rates are meant for pictures of this size; those of smaller ones go with their pixels."""
TOLERANCE = 0.004
"""Part of the wanted rate by which a coded file may differ from it: two files then differ by less than 1%."""


@dataclass(frozen=True, slots=True, order=True)
class Coding:
    """`kbps`: nominal rate; `share`: percent of the bits for the face, 0 is plain coding."""

    kbps: int
    share: int

    @property
    def tabulated(self) -> bool:
        """Whether one of the tables has it (or else the curves alone)."""
        return self.share in TABLES.get(self.kbps, ())


def codings(curves: bool = True) -> list[Coding]:
    """Every coding of a clip: those of the tables and, with `curves`, those between.

    >>> len(codings(curves=False)), len(codings())
    (10, 26)
    """
    wanted = {Coding(kbps, share) for kbps, shares in TABLES.items() for share in shares}
    if curves:
        wanted |= {Coding(kbps, share) for kbps in CURVE_RATES for share in CURVE_SHARES}
    return sorted(wanted)


def target_kbps(kbps: float, size: tuple[int, int]) -> float:
    """The rate for pictures of `size` (width, height), kbit/s: in proportion to the pixels below 1280x720.

    >>> target_kbps(400, (1280, 720)), target_kbps(400, (640, 360))
    (400.0, 100.0)
    """
    return kbps * min(1.0, size[0] * size[1] / FULL_PIXELS)
