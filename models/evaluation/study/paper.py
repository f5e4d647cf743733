"""The paper's own numbers (Galteri et al., ACM MM 2020), measured on other videos: what is known of them.

The packaged file holds the claims and the headline figures. The other cells of the paper's tables are not at hand;
who has the paper can write them into a file of the same form and give that.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shared.errors import SemcallError

PACKAGED = Path(__file__).resolve().parents[1] / "paper.csv"
HEADER = ["table", "row", "column", "value", "note"]
CLAIMS = "claims"
FACTOR, SHARE_FROM, SHARE_TO, SIZES = (
    "bandwidth factor",
    "best share from (%)",
    "best share to (%)",
    "size difference (%)",
)

_TABLES = [str(number) for number in range(1, 8)]


@dataclass(frozen=True, slots=True)
class PaperCell:
    """A number of the paper. `table`: "1" to "7" or "claims"; `row`: a row of that table, e.g. a share in percent."""

    table: str
    row: str
    column: str
    value: float
    note: str


@dataclass(frozen=True, slots=True)
class Paper:
    """What is known of the paper's numbers."""

    cells: tuple[PaperCell, ...]

    def of_table(self, number: int) -> list[PaperCell]:
        """The cells of table 1 to 7, in the file's order."""
        return [cell for cell in self.cells if cell.table == str(number)]

    def claim(self, name: str) -> float:
        """The value of one of the claims (`FACTOR`, `SHARE_FROM`, `SHARE_TO`, `SIZES`)."""
        return next(cell.value for cell in self.cells if cell.table == CLAIMS and cell.column == name)


def read_paper(path: Path | None = None) -> Paper:
    """The packaged numbers, with what the CSV file at `path` adds or replaces.

    The file is UTF-8 with the header `table,row,column,value,note`: `table` is 1 to 7 or `claims`; `row` is a row of
    semcall's table (one that it lacks is added below); `column` any name, shown as it is; `value` a number. Raises
    SemcallError that names the line for anything else, and for a file that cannot be read.
    """
    cells = {(cell.table, cell.row, cell.column): cell for cell in _read(PACKAGED)}
    if path is not None:
        given: set[tuple[str, str, str]] = set()
        for cell in _read(path):
            key = (cell.table, cell.row, cell.column)
            if key in given:
                raise SemcallError(f"{path} has table {key[0]}, row {key[1]}, column {key[2]} twice; keep one.")
            given.add(key)
            if cell.table == CLAIMS:  # known by the column alone, whatever the row is called
                cells = {k: v for k, v in cells.items() if (k[0], k[2]) != (CLAIMS, cell.column)}
            cells[key] = cell
    return Paper(tuple(cells.values()))


def _read(path: Path) -> Iterator[PaperCell]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file)
            if next(lines, None) != HEADER:
                raise SemcallError(f"{path} must begin with the line {','.join(HEADER)}; write that above its rows.")
            for fields in lines:
                if fields:
                    yield _cell(path, lines.line_num, [field.strip() for field in fields])
    except OSError as error:
        raise SemcallError(f"{path} cannot be read ({error.strerror}); give a CSV file.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SemcallError(f"{path} is not a CSV file in UTF-8 ({error}); save it as one.") from error


def _cell(path: Path, line: int, fields: list[str]) -> PaperCell:
    where = f"{path}, line {line}"
    if len(fields) != len(HEADER):
        raise SemcallError(
            f"{where} has {len(fields)} fields instead of {len(HEADER)}; quote those that hold a comma."
        )
    table, row, column, text, note = fields
    if table not in [*_TABLES, CLAIMS]:
        raise SemcallError(f"{where} is of table {table!r}; write 1 to 7 or {CLAIMS}.")
    if not row or not column:
        raise SemcallError(f"{where} lacks its row or its column; name both.")
    if table == CLAIMS and column not in (FACTOR, SHARE_FROM, SHARE_TO, SIZES):
        raise SemcallError(
            f"{where} has the claim {column!r}; known are {FACTOR}, {SHARE_FROM}, {SHARE_TO}, {SIZES}."
        )
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SemcallError(f"{where} has {text!r} where a number belongs; leave out rows without one.")
    return PaperCell(table, row, column, value, note)
