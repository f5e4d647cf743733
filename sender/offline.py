"""`semcall encode`: a file through the encoder of the call, as fast as it goes, into an MP4 file.

Same parser, tracker, controller and encoder as `semcall send`, but one after the other on one thread: the same
input gives the same output, to the byte.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
from rich.console import Console
from rich.table import Table

from sender.encoder import EncodeStats, SemanticEncoder, warm_up
from sender.face import SteadySegmenter
from sender.live import EncodeOptions, record
from sender.parser import FaceOptions, FaceParser
from shared.clips import MAX_FPS, Clip, FileFacts
from shared.encode import ShareMode
from shared.grid import Mask
from shared.mp4 import Mp4Writer, Sound
from shared.outfile import replacing, require_outputs, writing_lines
from shared.picture import CLOCK_RATE, I420, Picture
from shared.progress import Progressed, progress_bar
from shared.signals import interruptible


@dataclass(frozen=True, slots=True)
class OfflineOptions:
    """What `semcall encode` was asked for. `size`: bound of the coded picture; `fps`: None keeps every picture.

    `keyframe_interval`: seconds between IDRs, None for the first alone; `seconds`: encode only so many, None for all;
    `force`: replace what is there.
    `encode.fps` is ignored: the file says it.
    """

    source: Path
    out: Path
    encode: EncodeOptions = field(default_factory=EncodeOptions)
    face: FaceOptions = field(default_factory=FaceOptions)
    size: tuple[int, int] = (1280, 720)
    fps: float | None = None
    keyframe_interval: float | None = None
    seconds: float | None = None
    force: bool = False


@dataclass(slots=True)
class Summary:
    """What came out. Bits are those of the access units; `elapsed`: seconds the encoding took."""

    size: tuple[int, int]
    frames: int = 0
    with_face: int = 0
    keyframes: int = 0
    bits: int = 0
    face_bits: float = 0.0
    bits_with_face: int = 0
    """Of the pictures with a face in view."""
    seconds: float = 0.0
    elapsed: float = 0.0
    sound: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """Sentences on what the input did not yield."""

    @property
    def kbps(self) -> float:
        """Measured rate, kbit/s."""
        return self.bits / self.seconds / 1e3 if self.seconds else 0.0

    @property
    def share(self) -> float | None:
        """Measured part of the bits on the face while one is in view, 0..1; None where none ever is."""
        return self.face_bits / self.bits_with_face if self.bits_with_face else None

    def count(self, stats: EncodeStats, face: bool) -> None:
        """Add one picture."""
        self.frames += 1
        self.with_face += face
        self.keyframes += stats.keyframe
        self.bits += stats.bits
        self.face_bits += stats.face_bits
        self.bits_with_face += stats.bits if face else 0


def encode(options: OfflineOptions, console: Console) -> Summary:
    """`encode_file` with a progress bar and a table at the end."""
    with progress_bar(console) as progressed:
        summary = encode_file(options, progressed)
    console.print(_table(options, summary))
    for sentence in summary.broken:
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    return summary


def encode_file(options: OfflineOptions, progressed: Progressed | None = None) -> Summary:
    """Encode `options.source` into `options.out` (and the statistics, where asked for).

    Raises SemcallError for everything the user can mend. Whatever ends the work early, Ctrl-C and SIGTERM
    included (KeyboardInterrupt): files that were there stay as they were and no unfinished one is left.
    """
    with interruptible():
        return _encode_file(options, progressed)


def _encode_file(options: OfflineOptions, progressed: Progressed | None) -> Summary:
    cv2.setNumThreads(1)  # its threads would fight x264's for the cores
    require_outputs(options.source, options.out, options.encode.stats, "--stats", options.force)
    parser = options.face.open()
    clip = Clip(options.source, options.size)
    source = FileFacts(options.source)
    fps = min(options.fps or clip.fps, clip.fps, MAX_FPS)
    summary = Summary(clip.size)
    warm_up()
    start = time.monotonic()
    sound = Sound(options.source, source.start)
    with (
        contextlib.closing(sound),
        replacing(options.out) as part,
        writing_lines(options.encode.stats) as write_line,
        Mp4Writer(part, fps, sound, options.out, cut=options.seconds is not None) as writer,
    ):
        total = None if source.frames is None else round(source.frames * fps / clip.fps)
        if options.seconds is not None:
            most = round(options.seconds * fps)
            total = most if total is None else min(total, most)
        last = 0.0
        for picture, mask, access_unit, stats in _coded(clip, fps, options, parser):
            writer.write(access_unit, picture.ticks)
            write_line(json.dumps(record(picture, mask, stats)))
            summary.count(stats, bool(mask.any()))
            last = picture.ticks / CLOCK_RATE
            if progressed is not None:
                progressed(summary.frames, total and max(total, summary.frames))
    summary.seconds, summary.elapsed, summary.sound = last + 1 / fps, time.monotonic() - start, sound.described
    if options.seconds is None or (source.seconds or 0.0) < options.seconds:  # else its end was not asked for
        summary.broken += source.missing(summary.seconds)
    summary.broken += sound.missing
    return summary


def _coded(
    clip: Clip, fps: float, options: OfflineOptions, parser: FaceParser | None
) -> Iterator[tuple[Picture, Mask, bytes, EncodeStats]]:
    o = options.encode
    encoder = SemanticEncoder(*clip.size, o.bitrate, o.share, fps=fps, mode=o.mode, preset=o.preset)
    segmenter = SteadySegmenter(parser)
    interval = float("inf") if options.keyframe_interval is None else options.keyframe_interval
    keyframe_at = 0.0
    begun = time.perf_counter()
    for index, seconds, i420 in _thinned(clip, options.fps):
        if options.seconds is not None and seconds >= options.seconds - 1e-3:
            return
        read = time.perf_counter()
        picture = Picture(i420, round(seconds * CLOCK_RATE), index)
        mask = segmenter.mask(picture)
        found = time.perf_counter()
        keyframe = seconds >= keyframe_at - 1e-3
        access_unit, stats = encoder.encode(picture, mask, keyframe)
        if keyframe:
            keyframe_at = seconds + interval
        times = {"read": (read - begun) * 1e3, "face": (found - read) * 1e3}
        times |= {**segmenter.milliseconds, **stats.milliseconds}
        yield picture, mask, access_unit, replace(stats, milliseconds=times)
        begun = time.perf_counter()


def encode_at(
    source: Path,
    out: Path,
    stats: Path,
    bitrate: float,
    share: float,
    seconds: float,
    face: FaceOptions,
    mode: ShareMode = "exact",
    size: tuple[int, int] = (1280, 720),
    keyframe_interval: float | None = None,
) -> None:
    """One file of a comparison or a training: `semcall encode`, in place of what is there.

    `bitrate`: bit/s; `share`: 0..1; `seconds`: no more than so many; `stats`: gets a JSON line per coded picture;
    `mode`, `size`, `keyframe_interval`: as in EncodeOptions and OfflineOptions. Raises SemcallError as `encode_file`
    does.
    """
    coded = EncodeOptions(bitrate=bitrate, share=share, mode=mode, stats=stats)
    encode_file(
        OfflineOptions(
            source, out, coded, face, size=size, seconds=seconds, keyframe_interval=keyframe_interval, force=True
        )
    )


def _thinned(clip: Clip, fps: float | None) -> Iterator[tuple[int, float, I420]]:
    """Index in the file, seconds since its first picture, picture; at most `fps` a second, by leaving some out."""
    interval, due = 1 / fps if fps else 0.0, 0.0
    for index, (i420, seconds) in enumerate(clip):
        if seconds + 1e-3 >= due:
            due = max(due + interval, seconds - interval)
            yield index, seconds, i420


def _table(options: OfflineOptions, summary: Summary) -> Table:
    asked = options.encode
    share = "no face seen" if summary.share is None else f"{summary.share * 100:.1f}%"
    wanted = f"{asked.mode} {asked.share * 100:g}% asked, while a face is in view" if asked.share else "plain coding"
    table = Table("", "measured", "", title=str(options.out), title_style="bold", title_justify="left")
    table.add_row("bitrate", f"{summary.kbps:.1f} kb/s", f"{asked.bitrate / 1e3:g} kb/s asked")
    table.add_row("face share", share, wanted)
    keyframes = f"{summary.keyframes} keyframe{'s' if summary.keyframes > 1 else ''}"
    table.add_row("frames", str(summary.frames), f"{summary.with_face} with a face, {keyframes}")
    table.add_row("picture", f"{summary.size[0]}x{summary.size[1]}", f"{summary.seconds:.2f} s")
    table.add_row("encoding", f"{summary.frames / max(summary.elapsed, 1e-3):.1f} fps", f"{summary.elapsed:.1f} s")
    table.add_row("sound", ", ".join(summary.sound) or "none", "")
    return table
