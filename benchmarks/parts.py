"""What a restorer gains on the whole picture and on the face alone, and in what time: the order of the rungs.

    python -m benchmarks.parts --data DIR [--model fine ...] [--threads 2] [--mode floor] [--share 15]

On the validation clips, 4 s each, at 400 kb/s (for 1280x720) with just 15% for the face (or, as calls have it, at
least that), every restorer as the receiver's ladder runs it (receiver/rung.py): changes against the decoded picture
of the judge's perceptual distance and of flicker, on faces and frames, and the milliseconds that a picture takes,
steadiness included (clips' medians).
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from models.evaluation.study.coding import code
from models.evaluation.study.measure import measure
from models.evaluation.study.metrics import open_metrics
from models.evaluation.study.protocol import target_kbps
from models.evaluation.study.results import changed
from models.registry import find_model, shipped_restorers
from receiver.rung import rungs
from sender.offline import encode_at
from sender.parser import FaceOptions
from shared.clips import Clip
from shared.encode import Encode, ShareMode
from shared.restorer import Restore, Restorer

KBPS, SHARE, SECONDS = 400, 15, 4.0
COLUMNS = (("face", "distance"), ("frame", "distance"), ("face", "flicker"), ("frame", "flicker"))


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="directory with clips/ and weights/"
    )
    arguments.add_argument("--model", action="append", help="name or file of a restorer (all that ship)")
    arguments.add_argument("--threads", type=int, default=2, help="of a restoration (%(default)s)")
    arguments.add_argument("--clip", action="append", help="only this one; may be given again")
    arguments.add_argument("--mode", choices=get_args(ShareMode), default="exact", help="of the share (%(default)s)")
    arguments.add_argument("--share", type=float, default=SHARE, help="percent (%(default)s)")
    told = arguments.parse_args()
    metrics, encode = open_metrics(told.data), encoder(told.mode)
    clips = sorted(
        path for path in (told.data / "clips" / "val").iterdir() if not told.clip or path.stem in told.clip
    )
    if not clips:
        raise SystemExit(f"{told.data / 'clips' / 'val'} has none of these clips: give other names to --clip.")
    restorers = restores(told.model or [model.name for model in shipped_restorers()], told.threads)
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for clip in track(clips, "measuring", console=Console(stderr=True)):
            coded = Path(folder) / f"{clip.stem}.mp4"
            code(clip, coded, target_kbps(KBPS, Clip(clip).size), told.share / 100, SECONDS, encode)
            for name, figures in measure(clip, coded, metrics, {"": None, **restorers}).items():
                found[name].append(figures)
    decoded = found.pop("")
    table = Table(title=f"Change by restoring, mean over {len(clips)} clips (lowest to highest), %")
    for column in ("", *(" ".join(column) for column in COLUMNS), f"ms, {told.threads} threads"):
        table.add_column(column, justify="right" if column else "left")
    for name, rows in found.items():
        cells = [
            spread(
                changed(before[part].get(metric), row[part].get(metric))
                for before, row in zip(decoded, rows, strict=True)
            )
            for part, metric in COLUMNS
        ]
        times = [row["restorer_ms"] for row in rows]
        table.add_row(name, *cells, f"{np.mean(times):.1f} ({min(times):.1f} to {max(times):.1f})")
    Console(width=150).print(table)


def encoder(mode: ShareMode = "exact") -> Encode:
    """The sender's, with the shipped face parser."""
    parser = find_model("face", "face-parser")
    return functools.partial(encode_at, face=FaceOptions(parser.path, parser.card, "face"), mode=mode)


def spread(changes: Iterable[float | None]) -> str:
    """The mean of those that are known, the lowest and the highest."""
    known = [change for change in changes if change is not None]
    return f"{np.mean(known):+.1f} ({min(known):+.1f} to {max(known):+.1f})" if known else "–"


def restores(models: Sequence[str], threads: int) -> dict[str, Restore]:
    """What restores a picture, by the name of the rung."""
    networks = [Restorer(find_model(model).path, model, threads) for model in models]
    return {str(rung): rung.restore for rung in rungs(networks)}


if __name__ == "__main__":
    main()
