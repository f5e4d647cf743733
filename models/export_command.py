"""The command `semcall export`: from a training's checkpoint to a model that a receiver runs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from shared.errors import SemcallError


def export_command(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="What `semcall train restorer` saved.")],
    out: Annotated[Path, typer.Option(help="Folder for the model and its card.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Directory with clips/manifest.tsv, for the int8 variant; default: the demo source."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's; default: the recipe's.")] = None,
    int8: Annotated[
        bool, typer.Option("--int8/--no-int8", help="Add an 8-bit variant where it is faster and not worse.")
    ] = True,
) -> None:
    """Write the ONNX model of a restorer's checkpoint, with its card (needs the \\[train] extra).

    Example: [bold]semcall export runs/fast/features.pt --out models[/]
    """
    try:
        from models.training.checkpoints import ExportOptions, export_checkpoint
    except ModuleNotFoundError as error:
        raise SemcallError(f"Exporting needs {error.name}: pip install 'semcall[train]'.") from None

    command = shlex.join(["semcall", *sys.argv[1:]])
    written = export_checkpoint(ExportOptions(checkpoint, out, name, int8, data, command))
    say = Console().print
    for path in filter(None, (written.path, written.int8)):
        say(f"The restorer is {path}; its card lies beside it.", highlight=False, markup=False, soft_wrap=True)
    if written.sentence:
        say(written.sentence, highlight=False, markup=False, soft_wrap=True)
