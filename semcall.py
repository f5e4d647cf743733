"""The command line: `semcall receive`, `send`, `encode`, `restore`, `evaluate`, `mask`, `inspect`, `demo` and more.

One thin file: each command imports its part only when it is asked for.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from models.commands import Minutes, check_minutes, models_app, train_app
from models.export_command import export_command
from shared.encode import ShareMode
from shared.errors import SemcallError
from shared.memory import keep_freed_memory
from shared.stdout import printing

if TYPE_CHECKING:
    from receiver.restorer_files import RestorerFile
    from sender.parser import FaceOptions

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="A video call for poor links: the bits go to the face, a network repairs the rest.",
)
app.add_typer(train_app, name="train")
app.add_typer(models_app, name="models")
app.command("export")(export_command)
console = Console()
_PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")


def _bitrate(text: str, option: str = "--bitrate") -> float:
    """`400k`, `1.2M` or plain bit/s, as FFmpeg writes it."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM]?)", text.strip())
    value = float(match[1]) * {"": 1, "k": 1e3, "m": 1e6}[match[2].lower()] if match else 0.0
    if not 50e3 <= value <= 20e6:
        raise SemcallError(f"{option} {text} is not a rate between 50k and 20M: write for example 400k or 1.2M.")
    return value


def _min_bitrate(text: str | None, bitrate: float) -> float:
    from sender.options import MIN_BITRATE

    if text is None:
        return MIN_BITRATE
    value = _bitrate(text, "--min-bitrate")
    if value > bitrate:
        raise SemcallError(f"--min-bitrate {text} is more than --bitrate {bitrate / 1e3:g}k: lower it or raise that.")
    return value


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)[xX](\d+)", text.strip())
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if not (64 <= size[0] <= 4096 and 64 <= size[1] <= 4096):
        raise SemcallError(f"--size {text} is not a size between 64x64 and 4096x4096: write for example 1280x720.")
    return size


def _share(percent: float) -> float:
    if not 0 <= percent <= 95:
        raise SemcallError(f"--sal {percent:g} is not a percentage between 0 and 95: write for example 15.")
    return percent / 100


def _fps(fps: float | None) -> float | None:
    if fps is not None and not 1 <= fps <= 120:
        raise SemcallError(f"--fps {fps:g} is not a rate between 1 and 120: write for example 30.")
    return fps


def _preset(name: str) -> str:
    if name not in _PRESETS:
        raise SemcallError(f"--preset {name} is none of x264's: choose one of {', '.join(_PRESETS)}.")
    return name


def _interval(seconds: float | None) -> float | None:
    if seconds is not None and not 1 <= seconds <= 3600:
        raise SemcallError(
            f"--keyframe-interval {seconds:g} is not between 1 and 3600 seconds: write for example 10."
        )
    return seconds


def _range(text: str | None) -> tuple[int, int | None]:
    """`A-B`, `A-` or `A`: first and last frame; None: to the end."""
    if text is None:
        return 0, None
    match = re.fullmatch(r"(\d{1,9})(-?)(\d{0,9})", text.strip())
    if not match or (match[3] and not match[2]) or (match[3] and int(match[3]) < int(match[1])):
        raise SemcallError(f"--frames {text} is no range of frame numbers: write for example 0-99, 100- or 42.")
    first = int(match[1])
    return first, int(match[3]) if match[3] else None if match[2] else first


def _seconds(option: str, seconds: float | None) -> float | None:
    if seconds is not None and not 0.5 <= seconds <= 86_400:
        raise SemcallError(f"{option} {seconds:g} is not a time between 0.5 s and a day: write for example 10.")
    return seconds


def _face(name: str, region: str) -> FaceOptions:
    from models.registry import find_model
    from sender.parser import FaceOptions
    from shared.contracts import REGIONS, check_choice, check_region

    if name == "off":
        check_region(region, REGIONS, "This release")
        return FaceOptions()
    model = find_model(name, "face-parser")
    check_choice(model.path, model.card, region)
    return FaceOptions(model.path, model.card, region)


def _largest_restorer() -> str:
    from models.registry import shipped_restorers

    for model in shipped_restorers():
        if model.card.get("needs_gpu") is not True:
            return model.name
    raise SemcallError("No restorer for CPUs came with this release: name one with --restorer.")


def _restorers(choice: str) -> tuple[RestorerFile, ...]:
    """The receiver's restorers, largest first: all that are shipped for `auto`, the one named, none for `off`."""
    from models.registry import find_model, shipped_restorers
    from receiver.restorer_files import RestorerFile, left_to_gpus

    if choice == "off":
        return ()
    if choice != "auto":
        model = find_model(choice)
        return (RestorerFile(model.path, model.name),)
    shipped = [find_model(model.name) for model in shipped_restorers()]
    return tuple(RestorerFile(model.path, model.name, left_to_gpus(model.card), optional=True) for model in shipped)


def _token(host: str, token: str | None) -> str | None:
    """The token that callers must show: the one given, or where other machines can call, a new one."""
    from shared.signalling_listen import is_loopback
    from shared.token import new_token

    return new_token() if token is None and not is_loopback(host) else token


def _require(when: str, allowed: bool, **options: object) -> None:
    """Refuse options that were given and mean nothing `when` ("with --from")."""
    for name, value in options.items():
        if value and not allowed:
            raise SemcallError(f"--{name} means nothing {when}: leave it out.")


def _ice(servers: list[str] | None) -> tuple[str, ...]:
    return tuple(servers or ())


Size = Annotated[str, typer.Option(help="Largest picture.")]
Fps = Annotated[float | None, typer.Option(help="Default: 30, or the file's own rate.")]
Bitrate = Annotated[str, typer.Option(help="Video: 400k, 1.2M.")]
Sal = Annotated[float, typer.Option(help="Face's %; 0: plain.")]
SalMode = Annotated[
    ShareMode,
    typer.Option(help="floor: at least --sal; exact: just it."),
]
Preset = Annotated[str, typer.Option(help="x264's; superfast for slow machines.")]
Face = Annotated[str, typer.Option(help="Parser, file or off.")]
FaceRegion = Annotated[str, typer.Option(help="face, face+hair or person.")]
SentStats = Annotated[Path | None, typer.Option(help="A JSON line per coded picture.")]
Replace = Annotated[bool, typer.Option("--replace", help="A new call ends the one that is on.")]
Cert = Annotated[Path | None, typer.Option(help="Certificate (PEM) for https.")]
Key = Annotated[Path | None, typer.Option(help="Its private key, if not in there too.")]
_HOST, _PORT = "127.0.0.1", 8787  # where a receiver waits and a sender calls unless told
Metrics = Annotated[str | None, typer.Option(metavar="[HOST:]PORT", help="Serve figures to Prometheus.")]
Ice = Annotated[list[str] | None, typer.Option("--ice-server", help="stun:HOST or turn:USER:PASSWORD@HOST.")]


@app.command()
def receive(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets others in.")] = _HOST,
    port: Annotated[int, typer.Option(help="TCP port of the endpoint.")] = _PORT,
    token: Annotated[str | None, typer.Option(help="Token that callers must show; made up where needed.")] = None,
    restore: Annotated[
        str, typer.Option(help="Restorer: auto (the best there is time for), a name, an ONNX file, or off.")
    ] = "auto",
    headless: Annotated[bool, typer.Option("--headless", help="No window: figures in the terminal.")] = False,
    once: Annotated[bool, typer.Option("--once", help="End with the first call.")] = False,
    record: Annotated[Path | None, typer.Option(help="Save what is seen as MP4.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the recording if it exists.")] = False,
    stats: Annotated[Path | None, typer.Option(help="A JSON line per picture shown.")] = None,
    snapshots: Annotated[Path | None, typer.Option(help="Save a picture per second, decoded and restored.")] = None,
    ice_server: Ice = None,
    watch: Annotated[
        str | None, typer.Option("--from", metavar="URL", help="Watch this WHEP endpoint instead of waiting.")
    ] = None,
    replace: Replace = False,
    cert: Cert = None,
    key: Key = None,
    metrics: Metrics = None,
    on_loss: Annotated[
        Literal["freeze", "show"],
        typer.Option(help="After a loss: hold the last clean picture, a second at most, or show damaged ones."),
    ] = "freeze",
) -> None:
    """Wait for a call and show it, or watch one who waits.

    Example: [bold]semcall receive[/] here and [bold]semcall send[/] in another terminal.
    """
    from receiver.app import ReceiveOptions
    from receiver.app import receive as run

    elsewhere = {"host": host != _HOST, "port": port != _PORT}
    _require("with --from", watch is None, replace=replace, cert=cert, key=key, **elsewhere)
    _require("without --record", record is not None, force=force)
    if watch is None:
        token = _token(host, token)
    restorers = _restorers(restore)

    def ready(url: str) -> None:
        _say(f"Waiting for a caller at {url}")
        default = host in (_HOST, "localhost") and port == _PORT and cert is None
        hint = "semcall send" if default else f"semcall send --to {url}"
        hint += f" --token {token}" if token else ""
        _say(f"Call it with:  {hint}")

    options = ReceiveOptions(
        host=host,
        port=port,
        token=token,
        restorers=restorers,
        headless=headless,
        once=once,
        record=record,
        overwrite=force,
        stats=stats,
        snapshots=snapshots,
        ice_servers=_ice(ice_server),
        watch=watch,
        replace=replace,
        cert=cert,
        key=key,
        metrics=metrics,
        on_loss=on_loss,
    )
    run(options, _say, ready)


@app.command()
def send(
    bitrate: Bitrate = "400k",
    sal: Sal = 15,
    min_bitrate: Annotated[
        str | None, typer.Option(help="What a poor link must carry at least; default: 100k.")
    ] = None,
    sal_mode: SalMode = "floor",
    to: Annotated[str | None, typer.Option(help="Receiver's URL; default: this machine.")] = None,
    token: Annotated[str | None, typer.Option(help="The receiver's token, or for viewers.")] = None,
    source: Annotated[str, typer.Option(help="Camera (0, camera:NAME), file or demo.")] = "0",
    size: Size = "1280x720",
    fps: Fps = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for it.")] = 60,
    seconds: Annotated[float | None, typer.Option(help="End the call after so many seconds.")] = None,
    preset: Preset = "veryfast",
    face: Face = "face",
    face_region: FaceRegion = "face",
    stats: SentStats = None,
    ice_server: Ice = None,
    listen: Annotated[
        str | None, typer.Option(metavar="[HOST:]PORT", help="Wait here for WHEP viewers instead.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="With --listen: one viewer only.")] = False,
    replace: Replace = False,
    cert: Cert = None,
    key: Key = None,
    metrics: Metrics = None,
) -> None:
    """Call a receiver and send camera, file or demo, or wait for who comes to watch.

    Example: [bold]semcall send --bitrate 400k --sal 15[/]
    """
    from sender.app import send as run
    from sender.live import EncodeOptions
    from sender.options import SendOptions
    from shared.signalling_listen import parse_listen
    from shared.terminal import Board

    _require("with --listen", listen is None, to=to, timeout=timeout != 60)
    _require("without --listen", listen is not None, once=once, replace=replace, cert=cert, key=key)
    place = parse_listen(listen) if listen is not None else None
    if place is not None:
        token = _token(place[0], token)
    encode = EncodeOptions(
        bitrate=_bitrate(bitrate), share=_share(sal), mode=sal_mode, preset=_preset(preset), stats=stats
    )

    def ready(url: str) -> None:
        _say(f"Waiting for a viewer at {url}")
        _say(f"Watch it with:  semcall receive --from {url}" + (f" --token {token}" if token else ""))

    options = SendOptions(
        to=to if to is not None else f"http://{_HOST}:{_PORT}/whip",
        token=token,
        source=source,
        size=_size(size),
        fps=_fps(fps),
        timeout=_seconds("--timeout", timeout) or 0.0,
        seconds=_seconds("--seconds", seconds),
        ice_servers=_ice(ice_server),
        look=to is None and place is None,
        listen=place,
        once=once,
        replace=replace,
        cert=cert,
        key=key,
        metrics=metrics,
        min_bitrate=_min_bitrate(min_bitrate, encode.bitrate),
        encode=encode,
        face=_face(face, face_region),
    )
    with Board(console) as board:
        run(options, _say, board.show, ready)


@app.command()
def encode(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Any video file.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.mp4", help="The result; IN's sound is kept.")],
    bitrate: Bitrate = "400k",
    sal: Sal = 15,
    sal_mode: SalMode = "floor",
    size: Size = "1280x720",
    fps: Annotated[float | None, typer.Option(help="Leave out pictures beyond this rate; default: none.")] = None,
    preset: Preset = "veryfast",
    keyframe_interval: Annotated[
        float | None,
        typer.Option(help="Seconds between keyframes; default: one only."),
    ] = None,
    face: Face = "face",
    face_region: FaceRegion = "face",
    seconds: Annotated[float | None, typer.Option(help="Stop after so many.")] = None,
    stats: SentStats = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT and the statistics.")] = False,
) -> None:
    """Encode a file as a call would send it.

    Example: [bold]semcall encode talk.mov talk.mp4 --bitrate 400k --sal 15 --sal-mode exact[/]
    """
    from sender.live import EncodeOptions
    from sender.offline import OfflineOptions
    from sender.offline import encode as run

    options = OfflineOptions(
        source=source,
        out=out,
        encode=EncodeOptions(
            bitrate=_bitrate(bitrate), share=_share(sal), mode=sal_mode, preset=_preset(preset), stats=stats
        ),
        face=_face(face, face_region),
        size=_size(size),
        fps=_fps(fps),
        keyframe_interval=_interval(keyframe_interval),
        seconds=_seconds("--seconds", seconds),
        force=force,
    )
    run(options, console)


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Any video file; best the H.264 that was received.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.mp4", help="The result; IN's sound is kept.")],
    restorer: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="A name or an ONNX file; default: the largest that needs no GPU."),
    ] = None,
    strength: Annotated[float, typer.Option(help="0: as decoded, 1: as restored, or between.")] = 1.0,
    crf: Annotated[float, typer.Option(help="x264's quality of the result, 1 to 51; lower is finer.")] = 16.0,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: all.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT.")] = False,
) -> None:
    """Restore a file as a receiver with time for the largest network would show it.

    Example: [bold]semcall restore talk.mp4 mended.mp4 --strength 0.8[/]
    """
    import os

    from models.registry import find_model
    from receiver.offline import RestoreOptions
    from receiver.offline import restore as run

    threads = os.cpu_count() or 1 if threads is None else threads
    ranges = ("--strength", strength, 0, 1), ("--crf", crf, 1, 51), ("--threads", threads, 1, 256)
    for option, value, least, most in ranges:
        if not least <= value <= most:
            raise SemcallError(f"{option} {value:g} is not between {least} and {most}.")
    model = find_model(restorer or _largest_restorer())
    options = RestoreOptions(
        source=source,
        out=out,
        model=model.path,
        model_name=model.name,
        strength=strength,
        crf=crf,
        threads=threads,
        force=force,
    )
    run(options, console)


@app.command()
def evaluate(
    out: Annotated[Path, typer.Option(help="Directory for the report.")],
    clips: Annotated[Path | None, typer.Option(help="Directory of video files.")] = None,
    dataset: Annotated[
        tuple[str, Path] | None,
        typer.Option(help="ffpp ROOT: FaceForensics++ or DeepFakeDetection, the paper's split."),
    ] = None,
    data: Annotated[
        Path, typer.Option(help="Directory with the metrics' weights (docs/metrics.md); those missing are left out.")
    ] = Path("../shared/data"),
    restore: Annotated[
        list[str] | None, typer.Option(help="Restorer's name or ONNX file, off for none; default: every shipped one.")
    ] = None,
    face: Face = "face",
    face_region: FaceRegion = "face",
    boxes: Annotated[Path | None, typer.Option(help="CSV of faces; default: where the parser sees them.")] = None,
    seconds: Annotated[float, typer.Option(help="Of each clip, from its start.")] = 10.0,
    curves: Annotated[
        bool, typer.Option(help="Also the rates between the tables': BD-rate, bandwidth factor.")
    ] = True,
    workers: Annotated[int, typer.Option(help="Cells at a time on this machine.")] = 1,
    cluster: Annotated[str | None, typer.Option(help="tcp://HOST:PORT of a Dask scheduler.")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="What was coded and measured; default: OUT/cache. Keep it to go on.")
    ] = None,
    sheet: Annotated[list[str] | None, typer.Option(help="Clip to draw a contact sheet of; default: all.")] = None,
    paper: Annotated[Path | None, typer.Option(help="CSV of the paper's figures to set beside these.")] = None,
) -> None:
    """Measure what semcall gains on clips, in the tables of the paper and beyond.

    Example: [bold]semcall evaluate --clips talks --out report --workers 2[/]
    """
    import functools
    from importlib.metadata import version

    from models.evaluation.study.ffpp import find_videos, paper_split
    from models.evaluation.study.sources import find_clips
    from models.evaluation.study.study import StudyOptions
    from models.evaluation.study.study import evaluate as run
    from models.registry import find_model, list_models
    from sender.offline import encode_at

    if (clips is None) == (dataset is None):
        raise SemcallError("Say what to evaluate: --clips DIR, or --dataset ffpp ROOT.")
    if dataset is not None and dataset[0] != "ffpp":
        raise SemcallError(f"--dataset {dataset[0]} is not known: the one that is, is ffpp.")
    parser = _face(face, face_region)
    names = [model.name for model in list_models("restorer") if model.shipped] if restore is None else restore
    options = StudyOptions(
        clips=[video.path for video in paper_split(find_videos(dataset[1]))]
        if dataset
        else find_clips(clips or Path()),
        out=out,
        cache=cache or out / "cache",
        restorers=[find_model(name) for name in names if name != "off"],
        data=data,
        face={"sha256": parser.card.get("sha256"), "region": face_region},
        command=" ".join(["semcall", *sys.argv[1:]]),
        seconds=_seconds("--seconds", seconds) or 10.0,
        curves=curves,
        workers=workers,
        cluster=cluster,
        boxes=boxes,
        paper=paper,
        sheets=sheet,
        version=version("semcall"),
    )
    if not run(options, functools.partial(encode_at, face=parser), console):
        raise typer.Exit(1)


@train_app.command("restorer")
def train_restorer_command(
    config: Annotated[Path, typer.Argument(help="TOML file, e.g. configs/restorer-fast.toml.")],
    data: Annotated[Path, typer.Option(help="Directory with clips/manifest.tsv and weights/.")] = Path(
        "../shared/data"
    ),
    out: Annotated[Path, typer.Option(help="Directory of the run; an interrupted one continues.")] = Path(
        "runs/restorer"
    ),
    minutes: Minutes = None,
) -> None:
    """Train a restorer on what the encoder makes of clips, and export it to ONNX with its card."""
    import functools

    try:
        from models.training.restoration.train import train_restorer
    except ModuleNotFoundError as error:
        raise SemcallError(f"Training needs {error.name}: pip install 'semcall[train]'.") from None
    from sender.offline import encode_at

    encode = functools.partial(encode_at, face=_face("face", "face"))
    if (model := train_restorer(config, data, out, encode, check_minutes(minutes))) is not None:
        _say(f"The restorer is {model}; its card lies beside it.")


@app.command()
def mask(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Any video file.")],
    out: Annotated[
        Path | None, typer.Argument(metavar="OUT.mp4", help="The pictures with their masks; IN's sound is kept.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A JSON line per picture; - writes them to the terminal.")
    ] = None,
    size: Size = "1280x720",
    face: Face = "face",
    face_region: FaceRegion = "face",
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT and the lines.")] = False,
) -> None:
    """Show which macroblocks of a file count as face.

    --json: {"frame", "seconds", "rows", "columns", "runs": \\[\\[row, first column, column after the last], ...],
    "ms": {"shrink", "flow", "network"}}; the network looks at every fourth picture.

    Example: [bold]semcall mask talk.mp4 mask.mp4 --json mask.jsonl[/]
    """
    from sender.overlay import MaskOptions
    from sender.overlay import mask as run

    options = MaskOptions(
        source=source, out=out, lines=json, size=_size(size), face=_face(face, face_region), force=force
    )
    run(options, Console(stderr=True))


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="H.264 coded with CAVLC: MP4, MKV, raw, ...")],
    json: Annotated[bool, typer.Option("--json", help="One JSON object instead of the table.")] = False,
    png: Annotated[
        Path | None, typer.Option(help="Folder for heat maps of bits and QP; 8 frames, or those of --frames.")
    ] = None,
    frames: Annotated[
        str | None, typer.Option(metavar="A-B", help="Only these frames, in decoding order from 0.")
    ] = None,
) -> None:
    """Show what the macroblocks of an H.264 file cost: bits, types, quantisers.

    Example: [bold]semcall inspect talk.mp4 --png maps[/]
    """
    from sender.inspect import draw_maps, inspect_file, print_report

    report = inspect_file(file, _range(frames))
    maps = [] if png is None else draw_maps(file, png, report, every=frames is not None)
    with printing():
        if json:
            print(report.as_json())
            return
        print_report(report, console)
    if png is not None:
        _say(f"{len(maps)} heat maps are in {png}.")


@app.command()
def demo(
    source: Annotated[str, typer.Option(help="demo or a video file.")] = "demo",
    out: Annotated[Path, typer.Option(help="Directory for what comes out.")] = Path("demo-out"),
    seconds: Annotated[float, typer.Option(help="Length of the call.")] = 10,
    bitrate: Bitrate = "400k",
    sal: Sal = 35,
    restore: Annotated[str, typer.Option(help="Restorer: auto, a name or an ONNX file.")] = "auto",
    headless: Annotated[bool, typer.Option("--headless", help="No window even where there is a display.")] = False,
    size: Size = "1280x720",
    fps: Fps = None,
    face: Face = "face",
    face_region: FaceRegion = "face",
) -> None:
    """Hold a call with yourself, measure it, and draw what it gains: video, contact sheet, figures.

    Example: [bold]semcall demo --out demo-out[/]
    """
    _bitrate(bitrate), _share(sal), _size(size), _fps(fps), _seconds("--seconds", seconds), _face(face, face_region)
    from models.evaluation.demo import DemoOptions, hold_demo

    options = DemoOptions(
        source=source, out=out, seconds=seconds, bitrate=bitrate, sal=sal, restore=restore, headless=headless,
        size=size, fps=fps, face=face, face_region=face_region,
    )  # fmt: skip
    if not hold_demo(options, console):
        raise typer.Exit(1)


def _say(text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def main() -> None:
    """Entry point: SemcallError becomes one sentence on stderr and exit code 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files need not be text, nor each terminal know all signs
        sys.stdout.reconfigure(errors="backslashreplace")
    keep_freed_memory()
    try:
        app(prog_name="semcall")  # also as python -m semcall
    except SemcallError as error:
        print("semcall:", " ".join(str(error).splitlines()), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
