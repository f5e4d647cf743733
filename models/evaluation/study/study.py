"""`semcall evaluate`: every clip at every rate and share, restored or not, measured, kept and reported."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from models.evaluation.study.cells import CODING_CODE, MEASURING_CODE, Job, Source, work
from models.evaluation.study.engine import Failure, run
from models.evaluation.study.metrics import Metrics, open_metrics
from models.evaluation.study.paper import read_paper
from models.evaluation.study.pictures import KBPS, draw_sheets
from models.evaluation.study.protocol import Coding, codings
from models.evaluation.study.report import write_report
from models.evaluation.study.results import NONE
from models.evaluation.study.sources import read_sources
from models.evaluation.study.store import Digests, Store, code_digest, key_of
from models.registry import Model
from shared.encode import Encode
from shared.errors import SemcallError
from shared.outfile import make_folder


@dataclass(frozen=True, slots=True)
class StudyOptions:
    """What `semcall evaluate` was asked for.

    `clips`: video files; `restorers`: models besides none; `data`: where the metrics' weights are; `seconds`: of each
    clip; `curves`: also between the tables' rates; `cache`: directory of what was coded and measured; `boxes`,
    `paper`: CSV files of faces and of the paper's figures; `sheets`: clips that may be shown, None for all; `face`:
    what the encoder's parser is, for keys; `command`: for the report.
    """

    clips: Sequence[Path]
    out: Path
    cache: Path
    restorers: Sequence[Model]
    data: Path
    face: Mapping[str, Any]
    command: str
    seconds: float = 10.0
    curves: bool = True
    workers: int = 1
    cluster: str | None = None
    boxes: Path | None = None
    paper: Path | None = None
    sheets: Sequence[str] | None = None
    version: str = ""


def evaluate(options: StudyOptions, encode: Encode, console: Console) -> bool:
    """Measure what is not yet measured, and write the report to `options.out`. `encode`: the sender's encoder.

    Returns whether every clip could be read and every cell measured; what could not be is named in the report. Raises
    SemcallError for what leaves nothing to report.
    """
    started = time.monotonic()
    read_paper(options.paper)  # a wrong file is told before hours of measuring, not after
    for folder in (options.out, options.cache):
        make_folder(folder, "another one")
    digests = Digests(options.cache / "digests")
    sources, skipped = read_sources(options.clips, digests, options.boxes)
    if unknown := sorted(set(options.sheets or ()) - {source.name for source in sources}):
        raise SemcallError(f"--sheet {unknown[0]} names none of the clips: {', '.join(one.name for one in sources)}.")
    metrics = open_metrics(options.data)
    store = Store(options.cache / "cells")
    cells = _cells(options, sources, metrics, digests)
    found = {key: record for key in cells if (record := store.get(key)) is not None}
    jobs = _jobs(options, cells, found, encode)
    _tell(console, options, sources, skipped, metrics, len(cells), len(found))
    failed = _measure(options, jobs, cells, store, found, console)
    records = [{**found[key], "clip": cell.source.name} for key, cell in cells.items() if key in found]
    if not records:
        raise SemcallError(f"Nothing could be measured: {next(iter(failed.values()), 'there are no cells')}")
    spent = _spent(options.cache, time.monotonic() - started if jobs else 0.0)
    facts = _facts(options, metrics, digests, skipped | failed, spent)
    sheets = _sheets(options, sources, cells)
    write_report(records, facts, options.out, sheets, options.paper)
    console.print(f"Written to {options.out}: README.md, claims.md, tables.csv, records.json", highlight=False)
    return not skipped and not failed


@dataclass(frozen=True, slots=True)
class Cell:
    """A source, its coding with the coding's key, and a restorer (None: the pictures as they are decoded)."""

    source: Source
    coding: Coding
    coding_key: str
    restorer: Model | None

    @property
    def shown(self) -> str:
        """The restorer's name in records."""
        return NONE if self.restorer is None else self.restorer.name


def _cells(options: StudyOptions, sources: Sequence[Source], metrics: Metrics, digests: Digests) -> dict[str, Cell]:
    """Every cell of the study by its key, in the order of clips. Curves are of pictures as they are decoded."""
    coding_code, measuring_code = code_digest(CODING_CODE), code_digest(MEASURING_CODE)
    cells = {}
    for source in sources:
        for coding in codings(options.curves):
            coding_key = key_of(
                {
                    "clip": source.sha256,
                    "kbps": coding.kbps,
                    "share": coding.share,
                    "seconds": options.seconds,
                    "face": dict(options.face),
                    "code": coding_code,
                }
            )
            for restorer in (None, *(options.restorers if coding.tabulated else ())):
                cell = Cell(source, coding, coding_key, restorer)
                facts = {
                    "coding": coding_key,
                    "restorer": None if restorer is None else digests.of(restorer.path),
                    "name": cell.shown,
                    "boxes": source.boxes,
                    "metrics": metrics.names,
                    "code": measuring_code,
                }
                cells[key_of(facts)] = cell
    return cells


def _jobs(
    options: StudyOptions, cells: Mapping[str, Cell], found: Mapping[str, object], encode: Encode
) -> list[tuple[Job, list[str]]]:
    """What is left to do, one job for each coding, with the keys of its cells."""
    left: dict[str, list[str]] = {}
    for key, cell in cells.items():
        if key not in found:
            left.setdefault(cell.coding_key, []).append(key)
    jobs = []
    for coding_key, keys in left.items():
        first = cells[keys[0]]
        restorers = tuple(
            (cell.shown, None if cell.restorer is None else cell.restorer.path)
            for cell in (cells[key] for key in keys)
        )
        job = Job(
            first.source, first.coding, coding_key, restorers, options.cache, options.data, options.seconds, encode
        )
        jobs.append((job, keys))
    return jobs


def _measure(
    options: StudyOptions,
    jobs: Sequence[tuple[Job, list[str]]],
    cells: Mapping[str, Cell],
    store: Store,
    found: dict[str, dict[str, Any]],
    console: Console,
) -> dict[str, str]:
    """Run the jobs; what each one finds is kept at once and put into `found`. Returns failures, by cell's name."""
    failed: dict[str, str] = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("cells", total=len(cells), completed=len(found))

        def done(index: int, result: dict[str, dict[str, Any]] | Failure) -> None:
            job, keys = jobs[index]
            if isinstance(result, Failure):
                failed[repr(job)] = result.sentence
            else:
                for key in keys:
                    found[key] = result[cells[key].shown]
                    store.put(key, found[key])
            progress.advance(task, len(keys))

        run([job for job, _ in jobs], work, done, options.workers, options.cluster)
    return failed


def _sheets(options: StudyOptions, sources: Sequence[Source], cells: Mapping[str, Cell]) -> dict[str, Path]:
    shown = {one.name: one.path for one in sources if options.sheets is None or one.name in options.sheets}
    keys = {
        (cell.source.name, cell.coding.share): cell.coding_key for cell in cells.values() if cell.coding.kbps == KBPS
    }
    restorer = options.restorers[0].path if options.restorers else None
    return draw_sheets(shown, keys, restorer, options.cache, options.data, options.out / "sheets")


def _spent(cache: Path, seconds: float) -> float:
    """Seconds that all runs took that measured anything, this one included."""
    store = Store(cache)
    total = float((store.get("spent") or {}).get("seconds", 0.0)) + seconds
    store.put("spent", {"seconds": round(total, 1)})
    return total


def _tell(
    console: Console,
    options: StudyOptions,
    sources: Sequence[Source],
    skipped: Mapping[str, str],
    metrics: Metrics,
    cells: int,
    found: int,
) -> None:
    for sentence in (*skipped.values(), *metrics.missing.values()):
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    where = f"cluster {options.cluster}" if options.cluster else f"{options.workers} at a time"
    console.print(f"{len(sources)} clips, {cells} cells, {found} of them known; {where}", highlight=False)


def _facts(
    options: StudyOptions, metrics: Metrics, digests: Digests, skipped: Mapping[str, str], seconds: float
) -> dict[str, Any]:
    return {
        "distance": metrics.names.get("distance"),
        "brisque": metrics.names.get("brisque"),
        "identity": metrics.names.get("identity"),
        "missing": dict(metrics.missing),
        "restorers": {model.name: digests.of(model.path) for model in options.restorers},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "command": options.command,
        "skipped": dict(skipped),
        "seconds": round(seconds, 1),
        "version": options.version,
    }
