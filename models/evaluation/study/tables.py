"""Tables 1 to 7 of the paper, and three that it lacks (8 and 9 are built in `curves`)."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from models.evaluation.study import curves
from models.evaluation.study.paper import Paper, PaperCell
from models.evaluation.study.protocol import TABLES
from models.evaluation.study.results import (
    METRICS,
    NONE,
    OF_FRAME,
    OF_PAPER,
    Metric,
    Results,
    Setting,
    average,
    deviation,
)
from models.evaluation.study.sheet import Cell, Column, Table

BEYOND = "beyond the paper"
OTHER_VIDEOS = "paper (other videos)"

_RATE, _SHARE = Metric("rate", "rate, kb/s", 1, None), Metric("share", "share, %", 1, None)


@dataclass(frozen=True, slots=True)
class _Block:
    """Columns of one kind: per row what is shown, and what its change is taken against."""

    name: str
    settings: list[Setting]
    against: list[Setting]


def build_tables(results: Results, paper: Paper) -> list[Table]:
    """Tables 1 to 10, in order. A table without measured cells has notes that say so."""
    made = [_coded(results, number, kbps, area) for number, kbps, area in _CODED]
    made += [_restored(results, number, area) for number, area in ((5, "face"), (6, "frame"))]
    made.append(_against_plain(results))
    made = [_with_paper(table, paper.of_table(table.number)) for table in made]
    return [*made, curves.rate_table(results), curves.factor_table(results, paper), _time(results)]


_CODED = ((1, 1000, "face"), (2, 1000, "frame"), (3, 400, "face"), (4, 400, "frame"))
_AREAS = {"face": "face patches", "frame": "whole frames"}


def _coded(results: Results, number: int, kbps: int, area: str) -> Table:
    settings = [Setting(kbps, share) for share in TABLES[kbps]]
    block = _Block("", settings, [settings[0]] * len(settings))
    title = f"{kbps} kb/s, {_AREAS[area]}, no restoration"
    rows = [str(share) for share in TABLES[kbps]]
    note = "Changes in parentheses are against share 0, plain x264."
    return _table(results, Table(number, title, "share, %", rows, notes=[note]), [block], area)


def _restored(results: Results, number: int, area: str) -> Table:
    plain = [Setting(400, share) for share in TABLES[400]]
    blocks = [_Block(name, [s._replace(restorer=name) for s in plain], plain) for name in results.restorers]
    title = f"400 kb/s, {_AREAS[area]}, restored"
    rows = [str(share) for share in TABLES[400]]
    note = "Changes in parentheses are against the same share unrestored. Best and second of all restorers."
    table = Table(number, title, "share, %", rows, notes=[note])
    return _table(results, table, blocks, area) if blocks else replace(table, notes=["No restorer was measured."])


def _against_plain(results: Results) -> Table:
    names = [NONE, *results.restorers]
    first = Setting(1000, 0)
    settings = [first, *(Setting(400, share, name) for name in names for share in TABLES[400])]
    rows = [setting_label(setting) for setting in settings]
    title = "400 kb/s, restored and not, against plain 1000 kb/s, face patches"
    notes = ["Changes in parentheses are against plain x264 at 1000 kb/s."]
    if not results.restorers:
        notes.append("No restorer was measured.")
    block = _Block("", settings, [first] * len(settings))
    return _table(results, Table(7, title, "coding", rows, notes=notes), [block], "face")


def setting_label(setting: Setting) -> str:
    """What a setting is called in tables and texts.

    >>> setting_label(Setting(400, 0)), setting_label(Setting(400, 15, "small"))
    ('400k, plain', '400k, 15%, small')
    """
    share = f"{setting.share}%" if setting.share or setting.restorer != NONE else "plain"
    return f"{setting.kbps:g}k, {share}" + ("" if setting.restorer == NONE else f", {setting.restorer}")


def _table(results: Results, table: Table, blocks: Sequence[_Block], area: str) -> Table:
    settings = [setting for block in blocks for setting in block.settings + block.against]
    clips = results.complete(settings)
    if not clips:
        return replace(table, notes=[*table.notes, "No clip has every cell of this table."])
    keys = [*OF_PAPER, *(key for key in _keys(results, area) if key not in OF_PAPER)]
    columns: list[tuple[Column, list[Cell]]] = []
    for block in blocks:
        for key in keys:
            group = " · ".join(part for part in (block.name, "" if key in OF_PAPER else BEYOND) if part)
            columns.append((Column(group, METRICS[key]), _cells(results, clips, settings, block, f"{area}.{key}")))
    columns = _ranked(columns)
    for metric in (_RATE, _SHARE):
        columns.append((Column(BEYOND, metric), _cells(results, clips, settings, blocks[0], metric.key)))
    rows = [[cells[row] for _, cells in columns] for row in range(len(table.rows))]
    notes = list(table.notes)
    for column, cells in columns:
        counts = {cell.n for cell in cells} - {0}
        if counts and max(counts) < len(clips):
            notes.append(f"{column.name}: over the {max(counts)} of {len(clips)} clips that have it in every row.")
    return replace(table, columns=[column for column, _ in columns], cells=rows, clips=clips, notes=notes)


def _keys(results: Results, area: str) -> list[str]:
    """The metrics beyond the paper's that any cell has."""
    keys = METRICS if area == "face" else OF_FRAME
    return [key for key in keys if results.measured(f"{area}.{key}")]


def _cells(
    results: Results, clips: Sequence[str], settings: Sequence[Setting], block: _Block, field: str
) -> list[Cell]:
    _, values = results.sample(clips, settings, field)
    cells = []
    for setting, base in zip(block.settings, block.against, strict=True):
        shown, reference = values[setting], values[base]
        cell = Cell(average(shown), len(shown), deviation(shown))
        if shown and reference and setting != base and field not in (_RATE.key, _SHARE.key):
            changes = [value - other for value, other in zip(shown, reference, strict=True)]
            cell = replace(cell, change=average(changes), change_spread=deviation(changes))
        cells.append(cell)
    return cells


def _ranked(columns: Iterable[tuple[Column, list[Cell]]]) -> list[tuple[Column, list[Cell]]]:
    """Best and second marked per metric over all groups, as shown: what reads the same ranks the same."""
    columns = list(columns)
    ranks: dict[str, list[float]] = {}
    for metric in {column.metric for column, _ in columns}:
        cells = [cell for column, cells in columns if column.metric == metric for cell in cells]
        distinct = {round(cell.value, metric.digits) for cell in cells if cell.value is not None}
        ranks[metric.key] = sorted(distinct, reverse=metric.higher is True)[:2] if len(distinct) > 1 else []

    def marked(cell: Cell, metric: Metric) -> Cell:
        value = None if cell.value is None else round(cell.value, metric.digits)
        places = ranks[metric.key]
        return replace(cell, rank=places.index(value) + 1 if value in places else 0)

    return [(column, [marked(cell, column.metric) for cell in cells]) for column, cells in columns]


def _with_paper(table: Table, known: Sequence[PaperCell]) -> Table:
    """The paper's numbers beside ours, where there are any; its rows that ours lack go below."""
    if not table.clips:
        return table
    if not known:
        note = f"The paper's numbers for its Table {table.number} are not at hand, so none stand beside ours."
        return replace(table, notes=[*table.notes, note])
    names = list(dict.fromkeys(cell.column for cell in known))
    rows = [*table.rows, *dict.fromkeys(cell.row for cell in known if cell.row not in table.rows)]
    values = {(cell.row, cell.column): f"{cell.value:g}" for cell in known}
    cells = []
    for k, row in enumerate(rows):
        ours = table.cells[k] if k < len(table.cells) else [Cell()] * len(table.columns)
        cells.append([*ours, *(Cell(shown=values.get((row, name), "")) for name in names)])
    columns = [*table.columns, *(Column(OTHER_VIDEOS, Metric(name, name, 0, None)) for name in names)]
    notes = [*table.notes, f'Columns "{OTHER_VIDEOS}" were measured by its authors: compare changes, not levels.']
    notes += [f"{OTHER_VIDEOS}, {cell.row}, {cell.column}: {cell.note}." for cell in known if cell.note]
    return replace(table, rows=rows, columns=columns, cells=cells, notes=notes)


def _time(results: Results) -> Table:
    """Milliseconds that a restorer took, per clip (median over its cells)."""
    table = Table(10, "restorer, milliseconds per frame", "clip", [])
    if not results.restorers:
        return replace(table, notes=["No restorer was measured."])
    per_clip: list[list[list[float]]] = []
    for clip in results.clips:
        cells = [(Setting(r["kbps"], r["share"], r["restorer"]), r["restorer"]) for r in results.of_clip(clip)]
        times = [(name, results.value(clip, setting, "restorer_ms")) for setting, name in cells]
        per_clip.append([[ms for name, ms in times if name == wanted and ms] for wanted in results.restorers])
    rows = [[_median(values) for values in row] for row in per_clip]
    middle = [[cell.value for cell in column if cell.value is not None] for column in zip(*rows, strict=True)]
    sizes = [results.of_clip(clip)[0]["size"] for clip in results.clips]
    labels = [f"{clip} ({width}x{height})" for clip, (width, height) in zip(results.clips, sizes, strict=True)]
    columns = [Column(name, Metric("ms", "ms", 1, False)) for name in results.restorers]
    note = (
        "Medians over the frames and then the cells of a clip; last row over clips. One machine, maybe busy with "
        "other cells (see the method): python -m benchmarks.restorer times restorers on a quiet one."
    )
    cells_of_table = [*rows, [_median(values) for values in middle]]
    return replace(
        table, rows=[*labels, "median"], columns=columns, cells=cells_of_table, clips=results.clips, notes=[note]
    )


def _median(values: Sequence[float]) -> Cell:
    return Cell(statistics.median(values), len(values)) if values else Cell()
