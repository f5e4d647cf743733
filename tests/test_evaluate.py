"""`semcall evaluate` end to end on two tiny clips: tables filled, cells kept, interruptions survived, faults told."""

from __future__ import annotations

import csv
import functools
import json
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from command import call

from benchmarks.parts import restores
from models.evaluation.study import cells, coding, measure, protocol, store, study
from models.evaluation.study.coding import code, stats_path
from models.evaluation.study.metrics import open_metrics
from models.evaluation.study.protocol import Coding, codings, target_kbps
from models.evaluation.study.sources import find_clips, read_boxes
from models.registry import find_model, list_models
from sender.offline import encode_at
from sender.parser import FaceOptions
from shared.astronaut import AstronautClip
from shared.errors import SemcallError

DATA = Path(__file__).parents[2] / "shared" / "data"
FRAMES = 16


def write_clip(path: Path, size: tuple[int, int], first: int, frames: int = FRAMES) -> None:
    source = AstronautClip(size)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(30), options={"crf": "12", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(source.picture(first + 3 * number), "yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "one.mp4", (320, 240), 0)
    write_clip(folder / "two.mp4", (384, 240), 90)
    (folder / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(200))
    (folder / "notes.txt").write_text("no clip")
    return folder


@pytest.fixture(scope="module")
def patched() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in ((measure, "JUDGED", 2), (measure, "WINDOW", 64), (coding, "_PASSES", 2)):
            patch.setattr(module, name, value)
        patch.setattr(protocol, "CURVE_RATES", (200, 400, 600, 1000))
        yield patch


@pytest.fixture(scope="module")
def evaluated(clips: Path, patched: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    assert call(patched, "evaluate", "--clips", clips, "--out", out, "--data", DATA) == 1  # one clip is broken
    return out


def records(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((out / "records.json").read_text())["records"]
    return found


def test_every_cell_is_measured(evaluated: Path) -> None:
    found = records(evaluated)
    wanted = {(one.kbps, one.share, "none") for one in codings()}
    shipped = [model.name for model in list_models("restorer") if model.shipped]
    assert len(shipped) > 1
    wanted |= {(one.kbps, one.share, name) for one in codings(curves=False) for name in shipped}
    for clip in ("one", "two"):
        assert {(r["kbps"], r["share"], r["restorer"]) for r in found if r["clip"] == clip} == wanted
    assert len(found) == 2 * len(wanted)
    assert all(record["scaled"] and record["frames"] == FRAMES for record in found)


def test_files_that_are_compared_have_one_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coding, "_PASSES", 6)
    write_clip(tmp_path / "clip.mp4", (320, 240), 0, 75)
    model = find_model("face", "face-parser")
    encode = functools.partial(encode_at, face=FaceOptions(model.path, model.card))
    coded = [
        code(tmp_path / "clip.mp4", tmp_path / f"{share}.mp4", 90.0, share, 10.0, encode) for share in (0.0, 0.25)
    ]
    assert all(one.reached and one.frames == 75 for one in coded)
    assert abs(coded[0].bytes - coded[1].bytes) <= 0.01 * coded[0].bytes
    assert coded[1].share == pytest.approx(0.25, abs=0.05)


def test_more_bits_look_better_and_shares_are_kept(evaluated: Path) -> None:
    plain = {r["kbps"]: r["face"]["psnr"] for r in records(evaluated) if r["share"] == 0 and r["restorer"] == "none"}
    assert sorted(plain.values()) == [plain[kbps] for kbps in sorted(plain)]
    for clip in ("one", "two"):
        shares = {
            r["share"]: r["measured_share"] for r in records(evaluated) if r["clip"] == clip and r["kbps"] == 400
        }
        assert shares[10] < shares[25] < shares[45]


def test_all_tables_are_filled(evaluated: Path) -> None:
    with (evaluated / "tables.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["table"] for row in rows} == {str(number) for number in range(1, 11)}
    for number in range(1, 8):
        ours = [
            row
            for row in rows
            if row["table"] == str(number) and "SSIM" in row["column"] and "paper" not in row["row"]
        ]
        assert ours
        assert all(math.isfinite(float(row["value"])) for row in ours)
    for page in ("README.md", "claims.md", "tables.csv", "records.json"):
        assert "nan" not in (evaluated / page).read_text().lower().replace("nanosecond", "")
    assert "broken.mp4" in (evaluated / "README.md").read_text()
    for sheet in ("one", "two"):
        picture = cv2.imread(str(evaluated / "sheets" / f"{sheet}.jpg"))
        assert picture is not None
        assert picture.std() > 30


def test_a_second_run_codes_and_measures_nothing(
    clips: Path, evaluated: Path, patched: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    before = {path.name: path.read_bytes() for path in evaluated.iterdir() if path.is_file()}
    monkeypatch.setattr(study, "work", never)
    assert call(patched, "evaluate", "--clips", clips, "--out", evaluated, "--data", DATA) == 1
    assert {path.name: path.read_bytes() for path in evaluated.iterdir() if path.is_file()} == before


def test_another_copy_of_a_clip_is_known(
    clips: Path, evaluated: Path, patched: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "renamed.mp4").write_bytes((clips / "one.mp4").read_bytes())
    monkeypatch.setattr(study, "work", lambda job: pytest.fail(f"{job!r} is known"))
    arguments = ["--clips", tmp_path / "again", "--out", tmp_path / "out", "--cache", evaluated / "cache"]
    assert call(patched, "evaluate", *arguments, "--data", DATA) == 0
    assert {record["clip"] for record in records(tmp_path / "out")} == {"renamed"}


def test_an_interrupted_run_goes_on(
    clips: Path, patched: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    only = tmp_path / "clips"
    only.mkdir()
    (only / "one.mp4").write_bytes((clips / "one.mp4").read_bytes())
    arguments = ["evaluate", "--clips", only, "--out", tmp_path / "out", "--data", tmp_path, "--no-curves"]
    arguments += ["--restore", "off"]
    real, done = cells.work, []

    def stopping(job: cells.Job) -> dict[str, dict[str, Any]]:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(repr(job))
        return real(job)

    monkeypatch.setattr(study, "work", stopping)
    assert call(patched, *arguments) == 130
    assert not (tmp_path / "out" / "README.md").exists()
    after: list[str] = []
    monkeypatch.setattr(study, "work", lambda job: (after.append(repr(job)), real(job))[1])
    assert call(patched, *arguments) == 0
    assert len(after) == len(codings(curves=False)) - 3
    assert not set(after) & set(done)
    assert len(records(tmp_path / "out")) == len(codings(curves=False))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--out", "out"], "Say what to evaluate"),
        (["--clips", "nowhere", "--out", "out"], "is no directory"),
        (["--clips", ".", "--out", "out"], "There is no video file"),
        (["--dataset", "kinetics", ".", "--out", "out"], "--dataset kinetics is not known"),
        (["--dataset", "ffpp", ".", "--out", "out"], "."),
    ],
)
def test_what_cannot_be_evaluated(
    arguments: list[str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "evaluate", *arguments) == 2
    said = capsys.readouterr()
    assert sentence in said.out + said.err
    assert "Traceback" not in said.out + said.err


def test_a_folder_of_broken_clips(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    assert call(monkeypatch, "evaluate", "--clips", tmp_path, "--out", tmp_path / "out") == 2
    assert not (tmp_path / "out" / "README.md").exists()


def test_rates_go_with_pixels_below_720p() -> None:
    assert target_kbps(400, (1920, 1080)) == 400
    assert target_kbps(400, (720, 1280)) == 400
    assert target_kbps(400, (640, 360)) == 100
    assert Coding(400, 15).tabulated
    assert not Coding(200, 25).tabulated


def test_a_rate_is_corrected_until_it_is_met(tmp_path: Path) -> None:
    asked = []

    def encode(source: Path, out: Path, stats: Path, bitrate: float, share: float, seconds: float) -> None:
        """An encoder that spends a fifth more than it is told."""
        asked.append(bitrate)
        out.write_bytes(b"coded")
        line = {"width": 16, "height": 16, "face_bits": 0.0, "qp_face": 30.0, "qp_background": 40.0, "mask": "AA=="}
        each = 1.2 * bitrate / 30
        stats.write_text(
            "".join(json.dumps({**line, "ticks": 3000 * n, "bits": int(each)}) + "\n" for n in range(30))
        )

    coded = code(Path("in.mp4"), tmp_path / "out.mp4", 100.0, 0.2, 1.0, encode)
    assert asked == pytest.approx([100e3, 100e3 / 1.2], rel=0.001)
    assert coded.reached
    assert coded.kbps == pytest.approx(100, rel=0.004)
    assert coded.share is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "out.mp4"]
    assert stats_path(tmp_path / "out.mp4").exists()


def test_a_rate_that_cannot_be_met_is_marked(tmp_path: Path) -> None:
    asked = []

    def encode(source: Path, out: Path, stats: Path, bitrate: float, share: float, seconds: float) -> None:
        asked.append(bitrate)
        out.write_bytes(b"coded")
        stats.write_text(
            json.dumps(
                {"width": 16, "height": 16, "face_bits": 0.0, "qp_face": 1.0, "qp_background": 1.0, "mask": "AA==",
                 "ticks": 0, "bits": 1000}
            )
        )  # fmt: skip

    coded = code(Path("in.mp4"), tmp_path / "out.mp4", 1500.0, 0.0, 1.0, encode)
    assert not coded.reached
    assert len(asked) == coding._PASSES
    assert asked == sorted(asked)


def test_the_box_is_of_the_largest_part() -> None:
    mask = np.zeros((20, 30), np.bool_)
    mask[2:4, 2:4] = True
    mask[8:14, 10:15] = True
    assert measure.face_box(mask, 480, 320) == (144, 112, 256, 240)
    mask[8:14, 10:15] = False
    assert measure.face_box(mask, 480, 320) == (16, 16, 80, 80)
    assert measure.face_box(np.zeros((20, 30), np.bool_), 480, 320) is None


def test_boxes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text("clip,frame,left,top,width,height\none,10,33,40,64,65\none,0,8,8,32,32\n")
    assert read_boxes(path) == {"one": ((0, (8, 8, 40, 40)), (10, (32, 40, 96, 104)))}
    for wrong in ("clip,frame\none,1\n", "clip,frame,left,top,width,height\none,0,1,1,4,4\n", "x"):
        path.write_text(wrong)
        if wrong == "x":
            assert read_boxes(path) == {}
            continue
        with pytest.raises(SemcallError):
            read_boxes(path)
    with pytest.raises(SemcallError, match="Cannot read"):
        read_boxes(tmp_path / "none.csv")


def test_half_written_cells_are_measured_again(tmp_path: Path) -> None:
    kept = store.Store(tmp_path)
    kept.put("a", {"x": 1})
    assert kept.get("a") == {"x": 1}
    (tmp_path / "a.json").write_text('{"x":')
    assert kept.get("a") is None
    assert kept.get("b") is None
    with pytest.raises(ValueError, match="not JSON compliant"):
        kept.put("c", {"x": math.nan})


def test_what_restores_may_be_a_function(clips: Path, patched: object, tmp_path: Path) -> None:
    """And the face alone is a rung that mends the face as the whole does, and leaves more of the frame as it is."""
    coded, parser = tmp_path / "coded.mp4", find_model("face", "face-parser")
    encode = functools.partial(encode_at, face=FaceOptions(parser.path, parser.card, "face"))
    code(clips / "one.mp4", coded, 60.0, 0.15, 1.0, encode)
    restorers = {"file": find_model("small").path, "decoded": None, **restores(["small"], 1)}
    found = measure.measure(clips / "one.mp4", coded, open_metrics(DATA), restorers)
    whole, face = (found[f"small, {part}"] for part in ("whole picture", "face only"))
    for part in ("face", "frame"):
        assert whole[part] == found["file"][part]
        assert whole[part]["psnr"] != found["decoded"][part]["psnr"]
    assert face["face"]["psnr"] == pytest.approx(whole["face"]["psnr"], abs=0.1)
    assert face["frame"]["psnr"] != whole["frame"]["psnr"]
    assert found["decoded"]["restorer_ms"] is None
    assert face["restorer_ms"] > 0


def test_digests_follow_the_content(tmp_path: Path) -> None:
    digests, file = store.Digests(tmp_path / "kept"), tmp_path / "clip"
    file.write_bytes(b"one")
    first = digests.of(file)
    assert digests.of(file) == first
    file.write_bytes(b"another")
    assert digests.of(file) != first


def test_clips_are_found_by_their_suffix(clips: Path) -> None:
    assert [path.name for path in find_clips(clips)] == ["broken.mp4", "one.mp4", "two.mp4"]


def test_a_sheet_of_no_clip_is_refused_before_measuring(
    clips: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(study, "work", lambda job: pytest.fail(f"{job!r} was measured"))
    assert call(monkeypatch, "evaluate", "--clips", clips, "--out", tmp_path / "out", "--sheet", "three") == 2
    said = capsys.readouterr()
    assert "--sheet three names none of the clips: one, two." in " ".join((said.out + said.err).split())
