"""A table: its cells, and how they are written as Markdown and as rows of CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from models.evaluation.study.results import Metric

DASH = "–"


@dataclass(frozen=True, slots=True)
class Cell:
    """A mean over `n` clips with its standard deviation, its `change` against another cell with that one's.

    `rank` 1 is the best of its metric, 2 the second, 0 any other. `shown` stands in for the number where there is
    none ("> 4.00"), `note` says why.
    """

    value: float | None = None
    n: int = 0
    spread: float | None = None
    change: float | None = None
    change_spread: float | None = None
    rank: int = 0
    shown: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A metric, in a group of columns ("" where it needs no name)."""

    group: str
    metric: Metric

    @property
    def name(self) -> str:
        """The group and the metric, for CSV."""
        return f"{self.group}: {self.metric.label}" if self.group else self.metric.label


@dataclass(frozen=True, slots=True)
class Table:
    """A table: cells [rows][columns], `corner` above the rows' names, the clips that it averages, notes below."""

    number: int
    title: str
    corner: str
    rows: list[str]
    columns: list[Column] = field(default_factory=list)
    cells: list[list[Cell]] = field(default_factory=list)
    clips: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """The table as Markdown: best in bold, second underlined, changes in parentheses, reasons as footnotes."""
        reasons: list[str] = []

        def text(cell: Cell, column: Column) -> str:
            shown = _marked(cell, column.metric)
            if not cell.note:
                return shown
            if cell.note not in reasons:
                reasons.append(cell.note)
            return f"{shown} <sup>{reasons.index(cell.note) + 1}</sup>"

        lines = self._grid(text) if self.cells else []
        notes = [*self.notes, *(f"<sup>{k}</sup> {_sentence(reason)}" for k, reason in enumerate(reasons, 1))]
        return "\n".join([*lines, "", *(f"- {note}" for note in notes)]).strip() + "\n"

    def spread_markdown(self) -> str:
        """The same table of standard deviations over clips; "" where no cell has one."""
        if not any(cell.spread is not None for row in self.cells for cell in row):
            return ""

        def text(cell: Cell, column: Column) -> str:
            digits = column.metric.digits
            change = "" if cell.change_spread is None else f" ({cell.change_spread:.{digits}f})"
            return DASH if cell.spread is None else f"{cell.spread:.{digits}f}{change}"

        return "\n".join(self._grid(text)) + "\n"

    def lines(self) -> Iterator[tuple[int, str, str, str, int | str]]:
        """Table, row, column, value, n: a line per figure, changes and deviations as columns of their own."""
        for row, cells in zip(self.rows, self.cells, strict=False):
            for column, cell in zip(self.columns, cells, strict=True):
                yield self.number, row, column.name, cell.shown or _plain(cell.value), cell.n or ""
                extras = (
                    ("change", cell.change),
                    ("standard deviation", cell.spread),
                    ("standard deviation of change", cell.change_spread),
                )
                for name, value in extras:
                    if value is not None:
                        yield self.number, row, f"{column.name}, {name}", _plain(value), cell.n

    def _grid(self, text: Callable[[Cell, Column], str]) -> list[str]:
        heads = [
            escape(c.group) + "<br>" * bool(c.group) + escape(c.metric.label) + c.metric.arrow for c in self.columns
        ]
        lines = [_line([self.corner, *heads]), "|" + "---|" * (len(heads) + 1)]
        for row, cells in zip(self.rows, self.cells, strict=True):
            lines.append(_line([escape(row), *map(text, cells, self.columns)]))
        return lines


def escape(text: str) -> str:
    """Text that Markdown shows as it is inside a table.

    >>> escape("a|b_c*")
    'a\\\\|b\\\\_c\\\\*'
    """
    for sign in "\\|_*[]":
        text = text.replace(sign, "\\" + sign)
    return text.replace("<", "&lt;")


def signed(value: float, digits: int) -> str:
    """With its sign, unless nothing is left of the value at these digits.

    >>> signed(0.5, 2), signed(-0.001, 2)
    ('+0.50', '0.00')
    """
    return f"{value:+.{digits}f}" if round(value, digits) else f"{0:.{digits}f}"


def _marked(cell: Cell, metric: Metric) -> str:
    if cell.shown or cell.value is None:
        return cell.shown or DASH
    text = f"{cell.value:.{metric.digits}f}"
    text = {0: text, 1: f"**{text}**", 2: f"<u>{text}</u>"}[cell.rank]
    return text if cell.change is None else f"{text} ({signed(cell.change, metric.digits)})"


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _sentence(text: str) -> str:
    start = text if text.startswith("semcall") else text[:1].upper() + text[1:]
    return start + ("" if text.endswith(".") else ".")
