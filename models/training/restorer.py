"""Trains a restorer and exports it: what `semcall train restorer` does."""

from __future__ import annotations

from pathlib import Path

from models.training.export import export_restorer
from models.training.loop import train


def train_restorer(config: Path, data: Path, out: Path, minutes: float | None = None) -> Path:
    """Train what `config` describes and write the model, its card and a contact sheet to `out`.

    `data`: directory with clips/manifest.tsv (training and validation clips) and, if there, weights/ of the feature
    networks. `minutes`: time for the training proper, without making pairs and judging, which take some minutes more;
    without it, as many steps as the recipe says. An interrupted run goes on where it stopped. Returns the .onnx file;
    copied with its card to models/weights it has a name. Raises SemcallError for missing or unreadable data, recipes
    and checkpoints.
    """
    checkpoint = train(config, data, out, minutes)
    command = f"semcall train restorer {config} --data {data} --out {out}"
    return export_restorer(checkpoint, data, out, command + (f" --minutes {minutes:g}" if minutes else ""))
