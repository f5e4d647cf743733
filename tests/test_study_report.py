"""The study's report: tables, plots, claims and files, from cells whose figures are functions of rate and share."""

from __future__ import annotations

import copy
import csv
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from models.evaluation.bd_rate import Reading
from models.evaluation.study.claims import Claim, check_claims
from models.evaluation.study.curves import interval_text, median_factor
from models.evaluation.study.figures import draw_plots
from models.evaluation.study.paper import FACTOR, SHARE_FROM, SHARE_TO, SIZES, read_paper
from models.evaluation.study.protocol import codings
from models.evaluation.study.report import headlines, write_report
from models.evaluation.study.results import Results
from models.evaluation.study.sheet import Cell, Table
from models.evaluation.study.tables import build_tables
from shared.errors import SemcallError

Record = dict[str, Any]
CLIPS = {"anna-1": 0.0, "ben_2": 0.6, "cleo-3": -0.4}
STAND_IN = "VGG-19 distance (conv1_2, conv2_2, conv3_4; not LPIPS)"
FACTS: dict[str, Any] = {
    "distance": STAND_IN,
    "brisque": "BRISQUE (OpenCV's variant and LIVE model)",
    "identity": None,
    "missing": {"identity": "There is no embedder."},
    "restorers": {"small": "00"},
    "machine": "x86_64, 2 cores",
    "command": "semcall evaluate --clips clips --out out",
    "skipped": {"broken.mp4": "broken.mp4 is no video; give another."},
    "seconds": 1234.0,
    "version": "0.1.0",
}


def cell(clip: str, kbps: int, share: int, restorer: str) -> Record:
    """One cell: the face has the share of the bits, or plain's 12%; every doubling of bits is worth 2.4 dB."""
    shift, part = CLIPS[clip], share / 100 or 0.12
    restored = restorer != "none"
    target = kbps * (0.25 if clip == "ben_2" else 1.0)
    measured = target * (1 + 0.002 * math.sin(kbps + 7 * share + 3 * shift))

    def area(psnr: float) -> dict[str, float | None]:
        psnr += 0.1 * restored
        return {
            "ssim": 1 - 10 ** (-psnr / 20 + 0.3) - 0.001 * restored,
            "psnr": psnr,
            "brisque": 90 - 1.5 * psnr - 3 * restored,
            "distance": (6 - psnr / 10) * (0.6 if restored else 1),
            "identity": None,
            "flicker": 12 - psnr / 5 + 0.1 * restored,
        }

    face = 38 + 2.4 * math.log2(kbps * part / 48) + shift
    frame = 34 + 2.4 * math.log2(kbps * (1 - part) / 352) + shift
    return {
        "clip": clip, "size": [640, 360] if clip == "ben_2" else [1280, 720], "fps": 30.0, "frames": 300,
        "judged": 10, "scaled": clip == "ben_2", "kbps": kbps, "share": share, "restorer": restorer,
        "target_kbps": target,
        "measured_kbps": measured, "bytes": round(measured * 1250), "reached": True, "measured_share": part,
        "qp_face": 60 - face, "qp_background": 70 - frame, "face": area(face), "frame": area(frame),
        "restorer_ms": 12.5 + shift if restored else None,
    }  # fmt: skip


@pytest.fixture
def records() -> list[Record]:
    return study()


def study() -> list[Record]:
    return [
        cell(clip, coding.kbps, coding.share, restorer)
        for clip in CLIPS
        for coding in codings()
        for restorer in ("none", "small")
        if restorer == "none" or coding.tabulated
    ]


def put(records: list[Record], figures: dict[str, Any], **where: Any) -> list[Record]:
    """A copy with other figures ("face.ssim": a value, or what to make of the old one) in the cells that match."""
    copies = copy.deepcopy(records)
    matching = [r for r in copies if all(r[k] in v if isinstance(v, tuple) else r[k] == v for k, v in where.items())]
    assert matching
    for record in matching:
        for field, new in figures.items():
            area, _, key = field.rpartition(".")
            place = record[area] if area else record
            place[key] = new(place[key]) if callable(new) else new
    return copies


def built(records: list[Record], paper: Path | None = None) -> dict[int, Table]:
    return {table.number: table for table in build_tables(Results(records), read_paper(paper))}


def claim(letter: str, records: list[Record], distance: str = STAND_IN) -> Claim:
    return next(claim for claim in check_claims(Results(records), read_paper(), distance) if claim.letter == letter)


def column(table: Table, name: str) -> list[Cell]:
    k = [column.name for column in table.columns].index(name)
    return [row[k] for row in table.cells]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    # A figure that is no number must not get into any file.
    records = put(study(), {"face.flicker": math.nan, "frame.flicker": None}, clip="anna-1")
    write_report(records, FACTS, out, {"anna-1": out / "sheets" / "anna 1.jpg"})
    return out


def test_all_tables_are_filled(records: list[Record]) -> None:
    tables = built(records)
    assert sorted(tables) == list(range(1, 11))
    for table in tables.values():
        assert len(table.cells) == len(table.rows) > 2
        assert all(len(row) == len(table.columns) > 0 for row in table.cells)
        assert table.clips == list(CLIPS)
        if table.number != 9:  # there restored curves have no cell at 200 kb/s
            own = [k for k, one in enumerate(table.columns) if not one.group.startswith("paper")]
            assert own
            rows = [row for name, row in zip(table.rows, table.cells, strict=True) if "paper" not in name]
            assert all(row[k].value is not None for row in rows for k in own)
    assert tables[1].rows == ["0", "10", "15", "25"]
    assert tables[4].rows == tables[6].rows == ["0", "10", "15", "25", "35", "45"]
    assert tables[7].rows[:2] == ["1000k, plain", "400k, plain"]
    assert len(tables[7].rows) == 14  # the last: the paper's GAN
    assert [c.name for c in tables[3].columns][:4] == ["distance", "BRISQUE", "SSIM", "beyond the paper: PSNR, dB"]


def test_cells_are_means_with_changes_and_deviations(records: list[Record]) -> None:
    values = {
        share: [r["face"]["psnr"] for r in records if (r["kbps"], r["share"], r["restorer"]) == (400, share, "none")]
        for share in (0, 25)
    }
    ours = column(built(records)[3], "beyond the paper: PSNR, dB")
    assert ours[0].change is None
    assert ours[3].value == pytest.approx(np.mean(values[25]))
    assert ours[3].spread == pytest.approx(np.std(values[25], ddof=1))
    assert ours[3].change == pytest.approx(np.mean(values[25]) - np.mean(values[0]))
    assert ours[3].n == 3
    restored = column(built(records)[5], "small · beyond the paper: PSNR, dB")
    assert [cell.change for cell in restored] == pytest.approx([0.1] * 6)
    against = column(built(records)[7], "beyond the paper: PSNR, dB")
    assert against[1].change == pytest.approx(2.4 * math.log2(0.4))  # plain 400k under plain 1000k
    rates = column(built(records)[4], "beyond the paper: rate, kb/s")
    assert all(cell.value == pytest.approx(400, rel=0.003) for cell in rates)  # the scaled clip's too


def test_best_and_second_follow_the_direction(records: list[Record]) -> None:
    table = built(records)[3]
    assert [cell.rank for cell in column(table, "distance")] == [0, 0, 0, 0, 2, 1]
    assert [cell.rank for cell in column(table, "SSIM")] == [0, 0, 0, 0, 2, 1]
    assert [cell.rank for cell in column(table, "beyond the paper: rate, kb/s")] == [0] * 6
    lines = table.markdown().splitlines()
    assert lines[0].startswith("| share, % | distance ↓ | BRISQUE ↓ | SSIM ↑ |")
    assert re.match(r"\| 35 \| <u>1\.\d{3}</u> \(-0\.\d{3}\) ", lines[6])
    assert re.match(r"\| 45 \| \*\*1\.\d{3}\*\* \(-0\.\d{3}\) \| \*\*", lines[7])
    raised = put(records, {"face.distance": 9.0, "face.ssim": 0.999}, kbps=400, share=45)
    table = built(raised)[3]
    assert [cell.rank for cell in column(table, "distance")] == [0, 0, 0, 2, 1, 0]
    assert column(table, "SSIM")[5].rank == 1


def test_what_reads_the_same_ranks_the_same(records: list[Record]) -> None:
    near = put(records, {"face.ssim": 0.99001}, kbps=1000, share=15)
    near = put(near, {"face.ssim": 0.99002}, kbps=1000, share=25)
    assert [cell.rank for cell in column(built(near)[1], "SSIM")] == [2, 0, 1, 1]
    level = put(records, {"face.ssim": 0.99}, kbps=1000)
    assert [cell.rank for cell in column(built(level)[1], "SSIM")] == [0] * 4


def test_restorers_are_ranked_together(records: list[Record]) -> None:
    other = put([r for r in records if r["restorer"] == "small"], {"restorer": "gan", "face.distance": 0.5})
    table = built([*records, *other])[5]
    assert [cell.rank for cell in column(table, "gan: distance")] == [1] * 6
    assert [cell.rank for cell in column(table, "small: distance")] == [0, 0, 0, 0, 0, 2]
    assert len(built([*records, *other])[10].columns) == 2


def test_a_missing_cell_takes_its_clip_out_of_that_table_only(records: list[Record]) -> None:
    fewer = [r for r in records if (r["clip"], r["kbps"], r["share"]) != ("ben_2", 400, 35)]
    tables = built(fewer)
    assert tables[3].clips == ["anna-1", "cleo-3"]
    assert tables[1].clips == list(CLIPS)
    none = [r for r in records if r["share"] != 10]
    assert built(none)[3].cells == []
    assert "No clip has every cell" in built(none)[3].markdown()


def test_null_metrics(records: list[Record]) -> None:
    assert not any("identity" in column.name for column in built(records)[1].columns)
    known = put(records, {"face.identity": 0.9}, clip=("anna-1", "ben_2"))
    table = built(known)[1]
    assert [cell.n for cell in column(table, "beyond the paper: identity")] == [2] * 4
    assert "identity: over the 2 of 3 clips" in table.markdown()
    one = [r for r in put(records, {"face.brisque": None}, share=10) if r["clip"] == "anna-1"]
    table = built(one)[1]
    assert [cell.value is None for cell in column(table, "BRISQUE")] == [False, True, False, False]
    assert "| – |" in table.markdown().splitlines()[3]
    assert table.spread_markdown() == ""
    nobody = put(records, {"measured_share": None, "qp_face": None, **dict.fromkeys(FACE, None)})
    assert built(nobody)[1].markdown().count("–") == 16 + 3  # of the paper's four shares one is known
    assert {claim(letter, nobody).verdict for letter in "abcde"} == {"not measured"}


def test_without_restorers(records: list[Record]) -> None:
    plain = [r for r in records if r["restorer"] == "none"]
    tables = built(plain)
    assert [tables[n].markdown().startswith("- No restorer was measured.") for n in (5, 6, 10)] == [True] * 3
    assert len(tables[7].cells) == 8
    assert claim("c", plain).verdict == claim("d", plain).verdict == "not measured"
    assert claim("e", plain).verdict == "reproduced"


def test_bounds_and_reasons_of_factors(records: list[Record]) -> None:
    capped = put(records, {"face.psnr": 50.0}, kbps=200, share=45, clip=("anna-1", "ben_2"))
    table = built(capped)[9]
    psnr = column(table, "200 kb/s: PSNR")
    rows = dict(zip(table.rows, psnr, strict=True))
    assert rows["anna-1, 45%"].shown == "> 7.49"
    assert rows["median, 45%"].shown.startswith("> 7.4")
    assert rows["cleo-3, 45%"].value == pytest.approx(45 / 12, rel=0.01)
    assert "semcall is better than plain at its highest rate." in table.markdown()
    assert headlines(Results(capped))[0].startswith("**> 7.4")
    bumpy = put(records, {"face.psnr": 30.0}, kbps=600, share=0, clip="anna-1")
    assert dict(zip(table.rows, column(built(bumpy)[9], "200 kb/s: PSNR"), strict=True))["anna-1, 45%"] == Cell(
        note="plain's curve does not improve with every step of the rate"
    )
    rate = built(bumpy)[8]
    assert column(rate, "face: PSNR")[0].value is None
    assert column(rate, "face: PSNR")[3].n == 2  # the median over the others
    assert "| – <sup>1</sup> |" in rate.markdown()


def test_rate_table_knows_the_answer(records: list[Record]) -> None:
    table = built(records)[8]
    psnr = dict(zip(table.rows, column(table, "face: PSNR"), strict=True))
    assert psnr["median, 25%"].value == pytest.approx(100 * (0.12 / 0.25 - 1), abs=0.3)
    assert psnr["median, 45%"].value == pytest.approx(100 * (0.12 / 0.45 - 1), abs=0.3)


def test_medians_of_bounds() -> None:
    def reading(text: str) -> Reading:
        return Reading(math.nan, f"the factor is {text}") if " " in text else Reading(float(text))

    def median(*texts: str) -> str:
        return interval_text(median_factor([reading(text) for text in texts]))

    assert median("2", "3", "above 4.00") == "3.00"
    assert median("2", "above 4.00", "above 5.00") == "> 4.00"
    assert median("below 0.50", "below 0.70", "3") == "< 0.70"
    assert median("above 2.00", "3", "4") == "3.00 to 4.00"
    assert median("below 0.50", "above 2.00") == "> 1.00"  # half of 0 and 2
    assert median("below 0.50", "below 0.50", "above 2.00", "above 2.00") == "> 1.00"
    assert median("of no kind") == median() == "–"


def test_headlines(records: list[Record]) -> None:
    factor, gain, ssim = headlines(Results(records))
    assert float(factor.split("**")[1]) == pytest.approx(45 / 12, rel=0.01)
    assert gain.startswith(f"**+{2.4 * math.log2(25 / 12):.2f} dB**")
    assert re.match(r"\*\*0\.98\d\d against 0\.98\d\d\*\*", ssim)
    bare = headlines(Results([cell("anna-1", 150, 0, "none")]))
    assert [line.split("**")[1] for line in bare] == ["–", "– dB", "– against –"]


FACE = ("face.distance", "face.brisque", "face.ssim", "face.psnr", "face.flicker")
WORSE = {"face.distance": 5.0, "face.brisque": 80.0, "face.ssim": 0.5}
BETTER = {"face.distance": 0.1, "face.brisque": 5.0, "face.ssim": 0.9999}


@pytest.mark.parametrize(
    ("letter", "changes", "verdict", "reason"),
    [
        ("a", [], "partly", "plain x264 gives the face 12.0% of the bits"),
        ("a", [(WORSE, {"share": 0})], "reproduced", ""),
        ("a", [(BETTER, {"share": 0}), (WORSE, {"share": (25, 45)})], "not reproduced", "quantised more finely"),
        ("a", [(WORSE, {"share": 0}), ({"face.brisque": 60.0}, {"share": 25})], "partly", "BRISQUE alone steps back"),
        (
            "a",
            [
                (BETTER, {"share": 0, "clip": ("ben_2", "cleo-3")}),
                ({"face.distance": 9.0, "face.brisque": 100.0, "face.ssim": 0.5}, {"share": 0, "clip": "anna-1"}),
            ],
            "partly",
            "improves in the mean, but not in ben_2, cleo-3",
        ),
        ("b", [], "not reproduced", "falls beyond 25%"),
        ("b", [({"face.distance": 4.0}, {"share": (35, 45)})], "reproduced", ""),
        ("b", [({"face.distance": 0.1}, {"share": 0})], "not reproduced", "a share of 0% is best"),
        ("c", [], "reproduced", ""),
        ("c", [({"face.distance": 6.0}, {"restorer": "small"})], "partly", "does lower the distance"),
        (
            "c",
            [({"face.distance": 6.0, "face.brisque": 90.0}, {"restorer": "small"})],
            "not reproduced",
            "distance and",
        ),
        ("c", [({"face.ssim": 0.8}, {"restorer": "small"})], "partly", "SSIM falls by"),
        ("d", [], "reproduced", ""),
        ("d", [({"face.brisque": 5.0}, {"kbps": 1000, "share": 0})], "partly", "quantised as finely"),
        (
            "d",
            [(BETTER, {"kbps": 1000, "share": 0}), ({"qp_face": 35.0}, {"kbps": 400})],
            "not reproduced",
            "quantised more coarsely, QP 35.0",
        ),
        ("e", [], "reproduced", ""),
        ("e", [({"face.ssim": 0.966, "face.psnr": 35.8}, {"share": 45})], "partly", "The factor falls"),
        ("e", [({"face.ssim": 0.97, "face.psnr": 36, "face.distance": 2.4}, {"share": 45})], "not reproduced", ""),
        ("f", [], "reproduced", ""),
        ("f", [({"bytes": 1}, {"share": 15, "clip": "anna-1"})], "partly", "the rate control did not settle"),
        (
            "f",
            [
                (
                    {"bytes": lambda b: b * 1.05, "measured_kbps": lambda r: r * 1.05, "qp_background": 50},
                    {"share": 15},
                )
            ],
            "not reproduced",
            "coarsest quantiser (QP 50.0",
        ),
    ],
)
def test_claims_follow_the_data(
    records: list[Record], letter: str, changes: list[tuple[Record, Record]], verdict: str, reason: str
) -> None:
    for figures, where in changes:
        records = put(records, figures, **where)
    found = claim(letter, records)
    assert found.verdict == verdict
    assert reason in found.reason
    assert bool(found.reason) == (verdict in ("partly", "not reproduced"))
    assert found.figures


def test_the_stand_in_is_blamed_only_where_it_was_used(records: list[Record]) -> None:
    assert "stand-in" in claim("b", records).reason
    assert "stand-in" not in claim("b", records, "LPIPS v0.1 (AlexNet)").reason


def test_files(report: Path) -> None:
    names = sorted(path.relative_to(report).as_posix() for path in report.rglob("*") if path.is_file())
    assert names == ["README.md", "claims.md", "plots/face.png", "plots/frame.png", "records.json", "tables.csv"]
    for name in names:
        if not name.endswith(".png"):
            assert not re.search(r"\bnan\b", (report / name).read_text("utf-8"), re.I)
    readme = (report / "README.md").read_text("utf-8")
    assert readme.index("**3.7") < readme.index("## The paper's claims") < readme.index("## Tables")
    assert [f"### Table {n}:" in readme for n in range(1, 11)] == [True] * 10
    assert "![anna-1](sheets/anna%201.jpg)" in readme
    assert "- broken.mp4: broken.mp4 is no video; give another." in readme
    assert "| ben\\_2 | 640x360, rates scaled |" in readme
    assert "There is no embedder." in readme
    claims = (report / "claims.md").read_text("utf-8")
    assert "4 reproduced" in claims
    assert claims.count("\n## ") == 6


def test_data_files(report: Path) -> None:
    data = json.loads((report / "records.json").read_text("utf-8"))
    assert data["facts"]["seconds"] == 1234.0
    assert len(data["records"]) == 3 * (26 + 10)
    assert data["records"][0]["face"]["flicker"] is None
    with (report / "tables.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["table", "row", "column", "value", "n"]
    assert {row["table"] for row in rows} == {str(n) for n in range(1, 11)}
    found = [
        r for r in rows if (r["table"], r["row"], r["column"]) == ("3", "25", "beyond the paper: PSNR, dB, change")
    ]
    assert [(float(row["value"]), row["n"]) for row in found] == [(pytest.approx(2.5413, abs=1e-4), "3")]


def test_plots_show_every_line(report: Path) -> None:
    for name in ("face", "frame"):
        picture = cv2.imread(str(report / "plots" / f"{name}.png"))
        assert picture is not None
        assert picture.shape == (880, 1210, 3)
        for red, green, blue in ((0x55,) * 3, (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
            assert (picture == (blue, green, red)).all(axis=2).sum() > 1000
        assert (picture == 255).all(axis=2).mean() > 0.7


def test_the_same_input_gives_the_same_bytes(report: Path, tmp_path: Path) -> None:
    records = put(study(), {"face.flicker": math.nan, "frame.flicker": None}, clip="anna-1")
    write_report(records[::-1], FACTS, tmp_path, {"anna-1": tmp_path / "sheets" / "anna 1.jpg"})
    for path in report.rglob("*.*"):
        assert path.read_bytes() == (tmp_path / path.relative_to(report)).read_bytes()


def test_the_papers_numbers_stand_beside_ours(records: list[Record], tmp_path: Path) -> None:
    path = tmp_path / "paper.csv"
    path.write_text(
        "table,row,column,value,note\n3,15,LPIPS,0.5,made up\n3,20,LPIPS,0.25,\nclaims,all,bandwidth factor,4,\n"
    )
    tables = built(records, path)
    text = tables[3].markdown()
    assert "paper (other videos)<br>LPIPS |" in text
    assert [cell.shown for cell in column(tables[3], "paper (other videos): LPIPS")] == [
        "0.078",
        "",
        "0.5",
        "",
        "",
        "",
        "0.25",
    ]
    assert text.splitlines()[8].startswith("| 20 | – | – |")
    assert "not at hand" not in text
    assert "not at hand" in tables[4].markdown()
    paper = read_paper(path)
    assert paper.claim(FACTOR) == 4
    assert "needs 4 times" in next(c.text for c in check_claims(Results(records), paper, STAND_IN) if c.letter == "e")


def test_the_packaged_numbers_are_the_claims_and_the_headline() -> None:
    paper = read_paper()
    claims = {cell.column: cell.value for cell in paper.cells if cell.table == "claims"}
    assert claims == {FACTOR: 3, SHARE_FROM: 15, SHARE_TO: 25, SIZES: 11}
    assert [cell.value for cell in paper.of_table(7)] == [0.052, 0.078, 0.063, 0.039]
    assert paper.of_table(2) == paper.of_table(4) == paper.of_table(6) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must begin with"),
        ("a,b\n", "must begin with"),
        ("table,row,column,value,note\n8,0,SSIM,1,\n", "line 2 is of table '8'"),
        ("table,row,column,value,note\n1,,SSIM,1,\n", "lacks its row"),
        ("table,row,column,value,note\n1,0,SSIM,nan,\n", "'nan' where a number"),
        ("table,row,column,value,note\n1,0,SSIM,high,\n", "'high' where a number"),
        ("table,row,column,value,note\n1,0,SSIM,1\n", "4 fields"),
        ("table,row,column,value,note\n1,0,SSIM,1,\n1,0,SSIM,2,\n", "twice"),
        ("table,row,column,value,note\nclaims,x,speed,1,\n", "claim 'speed'"),
        (b"\xff\xfe", "UTF-8"),
        (None, "cannot be read"),
    ],
)
def test_wrong_paper_files(tmp_path: Path, text: str | bytes | None, message: str) -> None:
    path = tmp_path / "paper.csv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SemcallError, match=re.escape(message)):
        read_paper(path)


def test_what_cannot_be_reported(records: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SemcallError, match="No cell was measured"):
        write_report([], FACTS, tmp_path)
    with pytest.raises(SemcallError, match="twice"):
        write_report([*records, records[0]], FACTS, tmp_path)
    few = [r for r in records if r["kbps"] == 400 and r["share"] in (0, 15)]  # no plots, so that this is quick
    (tmp_path / "file").write_text("")
    with pytest.raises(SemcallError, match="Cannot write"):
        write_report(few, {}, tmp_path / "file")
    write_report(few, {}, tmp_path / "few")
    assert not (tmp_path / "few" / "plots").exists()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SemcallError, match=re.escape("pip install 'semcall[evaluate]'")):
        draw_plots(Results(records), STAND_IN)
