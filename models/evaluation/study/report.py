"""The report of a study: README.md with its headline, tables, plots and method, claims.md, the data."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from models.evaluation.study.claims import Claim, check_claims
from models.evaluation.study.curves import factor, interval_text, known_factors, median_factor
from models.evaluation.study.figures import AREAS, draw_plots
from models.evaluation.study.paper import SIZES, Paper, read_paper
from models.evaluation.study.protocol import CURVE_RATES, CURVE_SHARES, TABLES
from models.evaluation.study.results import METRICS, Record, Results, Setting, average, deviation
from models.evaluation.study.sheet import DASH, Table, escape, signed
from models.evaluation.study.tables import build_tables
from shared.errors import SemcallError


def write_report(
    records: Sequence[Record],
    facts: Mapping[str, Any],
    out: Path,
    sheets: Mapping[str, Path] | None = None,
    paper: Path | None = None,
) -> None:
    """Write README.md, claims.md, tables.csv, records.json and plots/*.png to the directory `out`.

    `records`: one per measured cell. `facts` of the study: "distance", "brisque", "identity" (names of what measured
    them, or None), "missing" (why a metric is, by name), "restorers" (SHA-256 by name), "machine", "command",
    "skipped" (sentences by file), "seconds", "version"; all may be left out. `sheets`: contact sheets by clip.
    `paper`: CSV of the paper's numbers (`read_paper`). Every file is written whole, and the same input gives the same
    bytes. Raises SemcallError without records, for a wrong CSV, where matplotlib is missing, and where `out` cannot
    be written.
    """
    known, results = read_paper(paper), Results(records)
    distance = facts.get("distance") or ""
    tables = build_tables(results, known)
    claims = check_claims(results, known, distance or "of no known name")
    plots = draw_plots(results, distance)
    readme = _readme(results, facts, tables, claims, sorted(plots), _links(sheets or {}, out), known)
    data = {"facts": dict(facts), "records": results.records()}
    files = {f"plots/{name}": plot for name, plot in plots.items()} | {
        "records.json": (json.dumps(_clean(data), indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode(),
        "tables.csv": _csv(tables).encode(),
        "claims.md": _claims_page(claims, facts).encode(),
        "README.md": readme.encode(),
    }
    try:
        for name, content in files.items():
            _write(out / name, content)
    except OSError as error:
        raise SemcallError(
            f"Cannot write the report to {out} ({error.strerror}); choose another directory."
        ) from error


def headlines(results: Results) -> list[str]:
    """The three headline numbers, a sentence each."""
    first, second, plain, rich = Setting(200, 45), Setting(400, 25), Setting(400, 0), Setting(1000, 0)
    clips = results.complete([first])
    readings = [factor(results, clip, first, "face.psnr") for clip in clips]
    lines = [
        f"**{interval_text(median_factor(readings))}** is the bandwidth factor in face PSNR at 200 kb/s with a share "
        f"of 45%: how many times the rate plain x264 needs "
        f"(median; {known_factors(readings)} of {len(clips)} clips can be read)."
    ]
    clips = results.complete([second, plain])
    clips, values = results.sample(clips, [second, plain], "face.psnr")
    gains = [ours - theirs for ours, theirs in zip(values[second], values[plain], strict=False)]
    gain = average(gains) if clips else None
    lines.append(
        f"**{DASH if gain is None else signed(gain, 2)} dB** of face PSNR at 400 kb/s with a share of 25% over plain "
        f"x264 at the same rate ({_spread(gains, 2)}{len(gains)} clips)."
    )
    clips, values = results.sample(results.complete([second, rich]), [second, rich], "face.ssim")
    show = METRICS["ssim"].show
    ours, theirs = (average(values[setting]) for setting in (second, rich))
    differences = [one - other for one, other in zip(values[second], values[rich], strict=False)]
    change = f"{signed(sum(differences) / len(differences), 4)}, " if differences else ""
    lines.append(
        f"**{show(ours)} against {show(theirs)}** is face SSIM at 400 kb/s with a share of 25% against "
        f"plain x264 at 1000 kb/s ({change}{_spread(differences, 4)}{len(differences)} clips)."
    )
    return lines


def _readme(
    results: Results,
    facts: Mapping[str, Any],
    tables: Sequence[Table],
    claims: Sequence[Claim],
    plots: Sequence[str],
    sheets: Mapping[str, str],
    paper: Paper,
) -> str:
    parts = [
        "# What semcall gains",
        "",
        *(f"- {line}" for line in headlines(results)),
        "",
        "## The paper's claims",
        "",
    ]
    parts += ["| claim | verdict |", "|---|---|"]
    parts += [f"| {claim.letter}. {escape(claim.text)} | {claim.verdict} |" for claim in claims]
    parts += ["", "[claims.md](claims.md) has the figures and the likely reasons.", "", "## Tables", ""]
    parts += [
        "Means over the clips that have every cell of a table; best in bold, second underlined. 1 to 7 are laid out "
        "as the paper's; their groups *beyond the paper* and Tables 8 to 10 are semcall's. [tables.csv](tables.csv) "
        "has every figure, [records.json](records.json) every cell.",
        "",
    ]
    for table in tables:
        size = f" ({len(table.clips)} clip{'s' * (len(table.clips) != 1)})" if table.clips else ""
        parts += [f"### Table {table.number}: {table.title}{size}", "", table.markdown()]
        spread = table.spread_markdown() if table.number <= 7 else ""
        if spread:
            summary = "Standard deviations over clips (of the change in parentheses)"
            parts += ["<details>", f"<summary>{summary}</summary>", "", spread, "</details>", ""]
    if plots:
        parts += ["## Plots", ""]
        for name in plots:
            parts += [f"![Quality over rate, {AREAS[name.removesuffix('.png')]}](plots/{name})", ""]
    if sheets:
        parts += ["## Contact sheets", ""]
        for clip, link in sorted(sheets.items()):
            parts += [f"![{escape(clip)}]({link})", "", f"*{escape(clip)}*", ""]
    return "\n".join([*parts, *_method(results, facts, paper), *_clips(results), *_skipped(facts)]).rstrip() + "\n"


def _method(results: Results, facts: Mapping[str, Any], paper: Paper) -> list[str]:
    rates = "; ".join(f"{kbps} kb/s with shares {', '.join(map(str, shares))}" for kbps, shares in TABLES.items())
    beyond = {record["kbps"] for record in results.records()} - set(TABLES)
    curves = (
        f"; for plots and Tables 8 and 9 also {', '.join(map(str, CURVE_RATES))} kb/s with "
        f"{', '.join(map(str, CURVE_SHARES))}"
    )
    lines = [
        f"Codings: {rates} percent{curves if beyond else '; no other rates, so that Tables 8 and 9 want curves'}. "
        "Share 0 is plain x264, the others are exact shares of the face.",
        f"Restorers: {', '.join(map(escape, results.restorers)) or 'none'}.",
        "Rates are for 1280x720 and more; smaller clips get them in proportion to their pixels and are marked. Rates "
        "in the tables are on the scale of 1280x720, and are those measured.",
        "Files that are compared differ by 1% at most, or claim f says which do not (the paper's: "
        f"{paper.claim(SIZES):g}%).",
        "Metrics compare with the decoded source, on patches around the face and on whole frames, of pictures spread "
        "over the clip. Higher is better for SSIM, PSNR and identity; lower for distance, BRISQUE and flicker. "
        "Definitions: `docs/metrics.md`.",
    ]
    names = [facts[key] for key in ("distance", "brisque", "identity") if facts.get(key)]
    lines += ["Measured with: " + "; ".join(names) + "."] if names else []
    lines += (facts.get("missing") or {}).values()
    for label, key in (("Machine", "machine"), ("semcall", "version")):
        if facts.get(key):
            lines.append(f"{label}: {facts[key]}.")
    if facts.get("seconds") is not None:
        lines.append(f"Time of all runs that measured something: {facts['seconds']:.0f} s.")
    command = ["", f"    {facts['command']}"] if facts.get("command") else []
    return ["## Method", "", *(f"- {line}" for line in lines), *command, ""]


def _clips(results: Results) -> list[str]:
    lines = [
        "## Clips",
        "",
        "| clip | size | frames/s | frames | judged | cells | off target | mean miss of the rate |",
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    for clip in results.clips:
        cells = results.of_clip(clip)
        first = cells[0]
        misses = [abs(cell["measured_kbps"] / cell["target_kbps"] - 1) for cell in cells]
        size = "x".join(map(str, first["size"])) + (", rates scaled" if first["scaled"] else "")
        off = sum(not cell["reached"] for cell in cells)
        lines.append(
            f"| {escape(clip)} | {size} | {first['fps']:g} | {first['frames']} | {min(c['judged'] for c in cells)} | "
            f"{len(cells)} | {off} | {100 * statistics.mean(misses):.2f}% |"
        )
    return [*lines, ""]


def _skipped(facts: Mapping[str, Any]) -> list[str]:
    skipped = facts.get("skipped") or {}
    lines = [f"- {escape(name)}: {escape(sentence)}" for name, sentence in sorted(skipped.items())]
    return ["## Skipped", "", *(lines or ["Nothing was skipped."]), ""]


def _claims_page(claims: Sequence[Claim], facts: Mapping[str, Any]) -> str:
    counts = Counter(claim.verdict for claim in claims)
    parts = ["# What reproduces, what does not, and why", ""]
    parts += [
        "Of the paper's claims: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) + ".",
        "",
    ]
    parts += [f"The perceptual distance is {facts.get('distance') or 'not measured'}.", ""]
    for claim in claims:
        parts += [f"## {claim.letter}. {escape(claim.text)}", "", f"**{claim.verdict.capitalize()}.**", ""]
        parts += [*(f"- {escape(figure)}" for figure in claim.figures), ""] if claim.figures else []
        parts += [f"Likely reason: {escape(claim.reason)}", ""] if claim.reason else []
    return "\n".join(parts).rstrip() + "\n"


def _csv(tables: Sequence[Table]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["table", "row", "column", "value", "n"])
    for table in tables:
        writer.writerows(table.lines())
    return file.getvalue()


def _links(sheets: Mapping[str, Path], out: Path) -> dict[str, str]:
    """Links from the report to the contact sheets."""
    return {clip: quote(Path(os.path.relpath(path, out)).as_posix()) for clip, path in sheets.items()}


def _clean(value: Any) -> Any:
    """What JSON can say: None for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): _clean(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _spread(values: Sequence[float], digits: int) -> str:
    spread = deviation(values)
    return "" if spread is None else f"standard deviation {spread:.{digits}f}, "


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.replace(path)
