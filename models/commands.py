"""The commands `semcall models` and `semcall train`: the networks that there are, and how they are made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from shared.errors import SemcallError
from shared.stdout import printing

models_app = typer.Typer(no_args_is_help=True, help="List, check, add and remove networks.")
train_app = typer.Typer(no_args_is_help=True, help="Train the networks (needs the \\[train] extra).")
console = Console()
Minutes = Annotated[
    float | None, typer.Option(help="Stop cleanly after so many of training; making ready is not counted.")
]


def check_minutes(minutes: float | None) -> float | None:
    """`--minutes` as it is. Raises SemcallError for what is no time."""
    if minutes is not None and not 0 < minutes <= 100_000:
        raise SemcallError(f"--minutes {minutes:g} is no time to train for: write for example 30.")
    return minutes


@train_app.command("face")
def train_face_command(
    config: Annotated[Path, typer.Argument(help="TOML file, e.g. configs/face.toml.")],
    data: Annotated[Path, typer.Option(help="Directory with clips/, images/, faceparts/ and weights/.")] = Path(
        "../shared/data"
    ),
    out: Annotated[Path, typer.Option(help="Directory of the run; an interrupted one continues.")] = Path(
        "runs/face"
    ),
    minutes: Minutes = None,
) -> None:
    """Train a face parser and export it to ONNX with its card."""
    try:
        from models.training.face.train import train_face
    except ModuleNotFoundError as error:
        raise SemcallError(f"Training needs {error.name}: pip install 'semcall[train]'.") from None

    if (model := train_face(config, data, out, check_minutes(minutes))) is not None:
        _say(f"The parser is {model}; its card lies beside it.")


@models_app.command("list")
def models_list(
    json: Annotated[bool, typer.Option("--json", help="A JSON list instead of the table.")] = False,
) -> None:
    """Show the networks that come with semcall and yours."""
    from models.listing import print_list

    print_list(console, json)


@models_app.command("info")
def models_info(
    name: Annotated[str, typer.Argument(help="A name from the list.")],
    json: Annotated[bool, typer.Option("--json", help="The card as it is.")] = False,
) -> None:
    """Show a network's card: data, licence, metrics, the command that made it."""
    from models.catalogue import named
    from models.listing import print_info

    print_info(console, named(name), json)


@models_app.command("verify")
def models_verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Default: all.")] = None,
) -> None:
    """Check networks against their cards (SHA-256) and contracts."""
    from models.catalogue import check

    checks = check(names or [])
    with printing():
        for found in checks:
            _say(f"{found.name}: {found.problem or 'ok'}")
    failed = [found.name for found in checks if found.problem]
    if failed:
        raise SemcallError(
            f"{len(failed)} of {len(checks)} models failed ({', '.join(failed)}): get them again or remove them."
        )


@models_app.command("add")
def models_add(
    what: Annotated[str, typer.Argument(metavar="FILE.onnx|bisenet", help="With its card FILE.json; or bisenet.")],
    checkpoint: Annotated[
        Path | None,
        typer.Argument(metavar="CHECKPOINT", help="For bisenet: a face-parsing.PyTorch checkpoint, 19 classes."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a network of yours of that name.")] = False,
) -> None:
    """Add a network to yours: an ONNX file, or a BiSeNet checkpoint (needs the \\[train] extra).

    Example: [bold]semcall models add bisenet 79999_iter.pth[/]
    """
    from models.catalogue import add_bisenet, add_file

    if (what == "bisenet") != (checkpoint is not None):
        raise SemcallError("Say `semcall models add bisenet CHECKPOINT` or `semcall models add FILE.onnx`.")
    if checkpoint is not None:
        model = add_bisenet(checkpoint, force, f"semcall models add bisenet {checkpoint.name}")
    else:
        model = add_file(Path(what), force)
    use = "receive --restore" if model.card["kind"] == "restorer" else "send --face"
    _say(f"{model.name} is in {model.path}. Use it with:  semcall {use} {model.name}")


@models_app.command("remove")
def models_remove(name: Annotated[str, typer.Argument(help="One of yours.")]) -> None:
    """Delete a network that you added."""
    from models.catalogue import remove

    _say(f"Removed {remove(name)}.")


def _say(text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
