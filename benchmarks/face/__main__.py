"""Quality and speed of face masks: the shipped parser, BiSeNet, and the cascade that they replaced.

    python -m benchmarks.face [--data ../shared/data] [--face NAME|FILE.onnx] [--frames 400] [--sheets DIR] [--card]

Quality: the val clips under --data, frame by frame against the reference detector's boxes, as they are and made
worse; labelled heads of faceparts/test pasted on held-out photographs (composites.tsv); photographs without people.
Without --data only the speed is measured. --sheets draws contact sheets of the val clips and of 20 people of the
training clips; --card writes the shipped parser's figures into its card.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.face import speed
from benchmarks.face.candidates import Candidate, bisenet, cascade, shipped
from benchmarks.face.material import Footage, draw_composites, footage
from benchmarks.face.quality import Quality, figures, judge, steps
from benchmarks.face.sheets import sheet
from models.registry import WEIGHTS, read_card, save_model
from models.training.manifest import permissive_clips

_GOALS = {
    "IoU, heads alone, faces from 10%": ">= 0.85",
    "clips_false_percent": "<= 1",
    "clips_missed_frames_percent": "< 1",
    "clips_unsteady_percent": "< 2",
    "photographs_flagged_percent": "<= 0.5",
    "recall, as it is": ">= 0.95",
    "recall, grayscale": ">= 0.95",
    "recall, dark, noisy": ">= 0.95",
    "recall, JPEG quality 12": ">= 0.95",
    "recall, faces 70 px high, on black": ">= 0.9",
    "recall, faces 70 px high, in a photograph": ">= 0.9",
}
_DEFINITION = (
    "by macroblock (16x16), python -m benchmarks.face: recall = part of the macroblocks inside the ellipses of the "
    "reference detector's boxes (YuNet, score 0.75) that is in the mask, false = part of those outside 1.8 times "
    "every box (score 0.5), in frames with a box, missed = frames with a sure box and an empty mask; unsteady = "
    "changes back within five frames per macroblock of mask; {clips} val clips, at most {frames} frames each, of "
    "people who were never trained on; IoU = mean over faceparts/test heads on held-out photographs, 1280x720, "
    "alone or with drawn shoulders, by height of the face's box over the picture's; flagged = mean over held-out "
    "photographs without people"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--face", default="face")
    parser.add_argument("--frames", type=int, default=400, help="of each clip at most; 400 are all of the val clips")
    parser.add_argument("--sheets", type=Path)
    parser.add_argument("--card", action="store_true")
    parser.add_argument("--quick", action="store_true", help="the parser alone, no speed")
    parser.add_argument("--draw-composites", action="store_true", help="make composites.tsv anew")
    asked = parser.parse_args([] if __name__ != "__main__" else None)
    cv2.setNumThreads(1)
    console = Console()
    if asked.draw_composites:
        draw_composites(asked.data)
    ours = shipped(asked.face)
    if asked.card and ours.path.parent != WEIGHTS:
        parser.error("--card is for the parser that comes with the project: leave --face out")
    if asked.sheets is not None:
        _sheets(ours, asked.data, asked.sheets)
    with contextlib.ExitStack() as stack:
        others = [] if asked.quick else [stack.enter_context(bisenet()), *filter(None, [cascade()])]
        candidates = [ours, *others]
        if asked.data.exists():
            judged = [candidate for candidate in candidates if candidate.judged]
            qualities = _judged(judged, asked.data, asked.frames, console)
            if asked.card:
                _write_card(ours.path, figures(qualities[ours.name]), len(_val(asked.data)), asked.frames)
        else:
            console.print(f"No data in {asked.data}: only the speed is measured.")
        if not asked.quick:
            console.print(f"{platform.machine()}, {os.cpu_count()} cores")
            console.print(speed.table(speed.measure(candidates)))


def _judged(candidates: list[Candidate], data: Path, frames: int, console: Console) -> dict[str, Quality]:
    files = _val(data)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("reading", total=len(files))
        clips: list[Footage] = []
        for file in files:
            clips.append(footage(file, data, frames))
            bar.advance(task)
        task = bar.add_task("judging", total=len(candidates) * steps(clips, data))
        qualities = {
            candidate.name: judge(candidate, clips, data, lambda: bar.advance(task)) for candidate in candidates
        }
    _print(qualities, console)
    return qualities


def _print(qualities: dict[str, Quality], console: Console) -> None:
    table = Table("", *qualities, "goal", title="Face masks")
    rows = {name: figures(quality) for name, quality in qualities.items()}
    for figure in next(iter(rows.values())):
        table.add_row(figure, *(f"{row[figure]:.4g}" for row in rows.values()), _GOALS.get(figure, ""))
    console.print(table)
    table = Table(
        "clip", "variant", *[f"{name}: recall, worst frame, false %, missed %, unsteady %" for name in rows]
    )
    first = next(iter(qualities.values()))
    for variant, clips in first.clips.items():
        for clip in clips:
            cells = []
            for quality in qualities.values():
                t = quality.clips[variant][clip]
                percent = "  ".join(f"{100 * part:.2f}" for part in (t.false, t.missed, t.unsteady))
                cells.append(f"{t.recall:.3f}  {t.worst:.2f}  {percent}")
            table.add_row(clip, variant, *cells)
    console.print(table)
    table = Table("IoU on composites", "face of the picture's height", *qualities)
    for kind, bands in first.overlaps.items():
        for band in bands:
            values = [quality.overlaps[kind][band] for quality in qualities.values()]
            table.add_row(kind, band, *(f"{np.mean(some):.3f} (n={len(some)})" for some in values))
    console.print(table)
    for name, quality in qualities.items():
        worst = sorted(quality.flagged.items(), key=lambda item: -item[1])[:5]
        told = ", ".join(f"{photograph} {100 * part:.1f}%" for photograph, part in worst)
        flagged = sum(part > 0 for part in quality.flagged.values())
        console.print(f"{name}: {flagged} of {len(quality.flagged)} photographs without people flagged; worst {told}")


def _sheets(candidate: Candidate, data: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    clips = [footage(path, data, 150) for path in _val(data)]
    sheet(candidate, clips, folder / "val.png")
    people = {clip.identity: clip for clip in permissive_clips(data, "train")}
    chosen = [people[name] for name in sorted(people)][:: max(1, len(people) // 20)][:20]
    sheet(candidate, [footage(clip.path, data, 90) for clip in chosen], folder / "train.png")


def _write_card(model: Path, metrics: dict[str, float], clips: int, frames: int) -> None:
    card = dict(read_card(model.with_suffix(".json"), required=True))
    card["metrics"] = {"definition": _DEFINITION.format(clips=clips, frames=frames), **metrics}
    save_model(WEIGHTS, model.read_bytes(), card)


def _val(data: Path) -> list[Path]:
    return sorted((data / "clips" / "val").glob("*"))


if __name__ == "__main__":
    main()
