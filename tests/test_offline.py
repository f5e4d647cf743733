"""`semcall encode`: real files in, MP4 files out that FFmpeg reads, whole or not at all."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from command import call
from faces import shipped

from sender.cavlc import MacroblockParser
from sender.live import EncodeOptions
from sender.offline import OfflineOptions, Summary, encode_file
from shared.astronaut import AstronautClip
from shared.errors import SemcallError
from shared.grid import grid_shape
from shared.h264 import NAL_SEQUENCE_PARAMETERS, is_keyframe, nal_type, nal_units

ROOT = Path(__file__).resolve().parents[1]
SMALL = 320, 180
EXACT = EncodeOptions(bitrate=100e3, share=0.3, mode="exact")


def tone(seconds: float, start: float, rate: int = 48_000) -> Iterable[av.AudioFrame]:
    """A 440 Hz tone, 20 ms a frame."""
    step = rate // 50
    for n in range(round(seconds * 50)):
        wave = np.sin(2 * np.pi * 440 * (np.arange(step) + n * step) / rate) * 8000
        frame = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, n * step + round(start * rate), Fraction(1, rate)
        yield frame


def film(
    path: Path,
    times: list[float],
    *,
    size: tuple[int, int] = SMALL,
    sound: str = "",
    sound_start: float = 0.0,
    rotation: int = 0,
) -> Path:
    """The astronaut at the given times (milliseconds are kept), `sound` an audio codec beside."""
    clip = AstronautClip(size)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=30, options={"crf": "10", "preset": "ultrafast", "bf": "2"})
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            video.set_display_rotation(rotation)
        if sound:
            audio = container.add_stream(sound, rate=48_000, layout="mono")
            for frame in tone(times[-1] - times[0], sound_start):
                container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
        for index, seconds in enumerate(times):
            picture = av.VideoFrame.from_ndarray(clip.picture(index), format="yuv420p")
            picture.pts, picture.time_base = round(seconds * 1000), Fraction(1, 1000)
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
    return path


def steady(count: int) -> list[float]:
    return [round(n / 30, 3) for n in range(count)]


def shown(path: Path) -> tuple[list[float], list[av.VideoFrame]]:
    """Times and pictures as FFmpeg decodes them."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [frame.time or 0.0 for frame in frames], frames


def heard(path: Path) -> tuple[str, list[bytes], float, float]:
    """Codec, packets, and where the sound begins and ends, seconds."""
    with av.open(str(path)) as container:
        name = container.streams.audio[0].codec_context.codec.canonical_name
        packets = [p for p in container.demux(audio=0) if p.size]
        times = [float(p.pts * p.time_base) for p in packets]
        return name, [bytes(p) for p in packets], times[0], times[-1]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def psnr(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2)))


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds at 640x360 with sound."""
    return film(tmp_path_factory.mktemp("talk") / "talk.mp4", steady(90), size=(640, 360), sound="aac")


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film(tmp_path_factory.mktemp("short") / "short.mp4", steady(12))


@pytest.fixture(scope="module")
def result(talk: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Summary]:
    folder = tmp_path_factory.mktemp("result")
    options = EncodeOptions(bitrate=150e3, share=0.35, mode="exact", stats=folder / "s.jsonl")
    summary = encode_file(OfflineOptions(talk, folder / "out.mp4", options, shipped()))
    return folder / "out.mp4", folder / "s.jsonl", summary


# What comes out


def test_every_picture_at_its_time(talk: Path, result: tuple[Path, Path, Summary]) -> None:
    before, _ = shown(talk)
    after, frames = shown(result[0])
    assert len(after) == len(before) == 90
    assert after == pytest.approx(before, abs=1e-4)
    source = AstronautClip((640, 360))
    assert psnr(frames[-1].to_ndarray(), source.picture(89)) > 28
    assert (frames[0].colorspace, frames[0].color_range) == (6, 1)
    assert not any(frame.is_corrupt for frame in frames)


def test_rate_and_share(result: tuple[Path, Path, Summary]) -> None:
    _, stats, summary = result
    assert summary.kbps == pytest.approx(150, rel=0.1)
    assert summary.share is not None
    later = lines(stats)[45:]
    share = sum(line["face_bits"] for line in later) / sum(line["bits"] for line in later)
    assert share == pytest.approx(0.35, abs=0.05)
    assert (summary.frames, summary.keyframes, summary.with_face) == (90, 1, 90)
    assert summary.seconds == pytest.approx(3, abs=0.01)


def test_lines_are_those_of_the_stream(result: tuple[Path, Path, Summary]) -> None:
    """Bits and face bits of every line, measured again from the file."""
    out, stats, summary = result
    said = lines(stats)
    assert [line["frame"] for line in said] == list(range(90))
    assert sum(line["bits"] for line in said) == summary.bits
    parser = MacroblockParser()
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        annex_b = av.BitStreamFilterContext("h264_mp4toannexb", stream)
        units = [bytes(b) for packet in container.demux(stream) if packet.size for b in annex_b.filter(packet)]
    for line, unit in zip(said, units, strict=True):
        info = parser.parse(unit)
        rows, columns = grid_shape(line["width"], line["height"])
        packed = np.frombuffer(base64.b64decode(line["mask"]), np.uint8)
        mask = np.unpackbits(packed)[: rows * columns].reshape(rows, columns).astype(bool)
        assert line["face_bits"] == pytest.approx(float(info.bits[mask].sum()), abs=0.2)
        assert line["share"] == pytest.approx(line["face_bits"] / line["bits"], abs=1e-4)
        assert line["bits"] == pytest.approx(float(info.bits.sum()) + info.header_bits, abs=8 * 16)  # start codes
        assert line["keyframe"] == is_keyframe(unit) == (line["frame"] == 0)
        assert {line["qp_face"], line["qp_background"]} >= set(np.unique(info.qp[info.coded & (info.type != 3)]))
        assert set(line["ms"]) == {"read", "face", "shrink", "flow", "plan", "x264", "parse"} | (
            {"network"} if "network" in line["ms"] else set()
        )
        assert line["ticks"] == pytest.approx(line["frame"] * 3000, abs=60)


def test_an_mp4_as_players_want_it(result: tuple[Path, Path, Summary]) -> None:
    data = result[0].read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat"), "the index comes first"
    assert b"avc1" in data
    with av.open(str(result[0])) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.profile == "Constrained Baseline"
        assert (stream.width, stream.height, stream.frames) == (640, 360, 90)
        extradata = stream.codec_context.extradata
        assert extradata is not None
        assert (extradata[0], extradata[1]) == (1, 66)  # avcC: configurationVersion, AVCProfileIndication
        packets = [packet for packet in container.demux(stream) if packet.size]
    assert [packet.is_keyframe for packet in packets] == [True] + [False] * 89
    # Parameter sets are in avcC and, in an avc1 track, nowhere else.
    first = bytes(packets[0])
    kinds = []
    while first:
        size = int.from_bytes(first[:4], "big")
        kinds.append(first[4] & 31)
        first = first[4 + size :]
    assert NAL_SEQUENCE_PARAMETERS not in kinds
    assert kinds[-1] == 5


def test_twice_the_same(short: Path, tmp_path: Path) -> None:
    files = [tmp_path / "one.mp4", tmp_path / "two.mp4"]
    for file in files:
        encode_file(OfflineOptions(short, file, EXACT, shipped()))
    assert files[0].read_bytes() == files[1].read_bytes()


def test_variable_frame_rate(tmp_path: Path) -> None:
    times = [0.0, 0.033, 0.066, 0.5, 0.51, 0.9, 0.933, 1.7, 1.733, 1.766]
    source = film(tmp_path / "vfr.mkv", times)
    summary = encode_file(OfflineOptions(source, tmp_path / "out.mp4", EXACT))
    assert shown(tmp_path / "out.mp4")[0] == pytest.approx(times, abs=1e-4)
    assert summary.frames == len(times)


def test_rotated_and_small(tmp_path: Path) -> None:
    source = film(tmp_path / "phone.mp4", steady(4), rotation=90)
    summary = encode_file(OfflineOptions(source, tmp_path / "out.mp4", EXACT, size=(160, 160)))
    _, frames = shown(tmp_path / "out.mp4")
    assert summary.size == (90, 160)
    assert {(frame.width, frame.height, frame.rotation) for frame in frames} == {(90, 160, 0)}
    upright = AstronautClip(SMALL).picture(0)[:180]
    seen = frames[0].to_ndarray()[:160]
    turned = np.rot90(upright)[::2, ::2]
    assert np.corrcoef(seen[2:-2, 2:-2].ravel(), turned[2:-2, 2:-2].ravel())[0, 1] > 0.9


def test_fewer_pictures_a_second(short: Path, tmp_path: Path) -> None:
    options = EncodeOptions(bitrate=100e3, stats=tmp_path / "s.jsonl")
    summary = encode_file(OfflineOptions(short, tmp_path / "out.mp4", options, fps=15))
    assert summary.frames == 6
    assert [line["frame"] for line in lines(tmp_path / "s.jsonl")] == [0, 2, 4, 6, 8, 10]
    assert shown(tmp_path / "out.mp4")[0] == pytest.approx([n / 15 for n in range(6)], abs=1.5e-3)
    assert summary.sound == []


def test_keyframes_on_request(tmp_path: Path) -> None:
    source = film(tmp_path / "film.mkv", steady(75))
    options = OfflineOptions(source, tmp_path / "out.mp4", EXACT, keyframe_interval=1.0)
    assert encode_file(options).keyframes == 3
    _, frames = shown(tmp_path / "out.mp4")
    assert [n for n, frame in enumerate(frames) if frame.key_frame] == [0, 30, 60]
    assert b"ctts" not in (tmp_path / "out.mp4").read_bytes()  # nothing is reordered


def test_progress_ends_at_its_total(short: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    encode_file(OfflineOptions(short, tmp_path / "out.mp4", EXACT), lambda done, total: told.append((done, total)))
    assert told == [(n, 12) for n in range(1, 13)]


def test_input_that_breaks_off_is_told(talk: Path, tmp_path: Path) -> None:
    whole = film(tmp_path / "whole.mkv", steady(60))
    with (
        av.open(str(whole)) as source,
        av.open(str(tmp_path / "front.mp4"), "w", options={"movflags": "faststart"}) as out,
    ):
        video = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = video
                out.mux(packet)
    data = (tmp_path / "front.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    summary = encode_file(OfflineOptions(tmp_path / "cut.mp4", tmp_path / "out.mp4", EXACT))
    assert 10 < summary.frames < 50
    assert "breaks off after" in summary.broken[0]
    assert len(shown(tmp_path / "out.mp4")[0]) == summary.frames


# Sound


def test_sound_is_kept_as_it_is(talk: Path, result: tuple[Path, Path, Summary]) -> None:
    before, after = heard(talk), heard(result[0])
    assert after[:2] == before[:2], "the packets themselves"
    assert after[2:] == pytest.approx(before[2:], abs=1e-3)
    assert result[2].sound == ["aac"]


@pytest.mark.parametrize(
    ("codec", "suffix", "kept"),
    [
        ("aac", "ts", True),
        ("libopus", "mkv", True),
        ("libmp3lame", "avi", True),
        ("pcm_s16le", "mkv", False),
        ("pcm_u8", "avi", False),
        ("adpcm_ms", "avi", False),
    ],
)
def test_sound_of_other_files(codec: str, suffix: str, kept: bool, tmp_path: Path) -> None:
    """AVI keeps no times but its own; transport streams start anywhere and carry ADTS."""
    source = film(tmp_path / f"film.{suffix}", steady(30), sound=codec)
    summary = encode_file(OfflineOptions(source, tmp_path / "out.mp4", EXACT))
    name, _, begin, end = heard(tmp_path / "out.mp4")
    plain = codec.removeprefix("lib").replace("mp3lame", "mp3")
    assert name == (plain if kept else "aac")
    assert summary.sound == [plain if kept else f"{plain} as aac"]
    assert begin == pytest.approx(0, abs=0.06)
    assert end == pytest.approx(0.95, abs=0.12)
    with av.open(str(tmp_path / "out.mp4")) as container:
        samples = np.concatenate([frame.to_ndarray().astype(float)[0] for frame in container.decode(audio=0)])
    spectrum = np.abs(np.fft.rfft(samples[8000:32000]))
    assert abs(int(spectrum.argmax()) * 2 - 440) <= 4, "the tone"


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
@pytest.mark.parametrize("start", [0.4, -0.5])
def test_sound_stays_in_step(codec: str, start: float, tmp_path: Path) -> None:
    """It began later than the pictures, or half a second before them: then that half second has to go."""
    shift = max(0.0, -start)
    times = [round(second + shift, 3) for second in steady(30)]
    source = film(tmp_path / "film.mkv", times, sound=codec, sound_start=start + shift)
    encode_file(OfflineOptions(source, tmp_path / "out.mp4", EXACT))
    assert shown(tmp_path / "out.mp4")[0] == pytest.approx(steady(30), abs=2e-3)
    _, _, begin, end = heard(tmp_path / "out.mp4")
    assert begin == pytest.approx(max(start, 0.0), abs=0.05)
    assert end == pytest.approx(start + 0.95, abs=0.07)


def test_a_hole_in_the_sound_becomes_silence(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    clip = AstronautClip(SMALL)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = *SMALL, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=48_000, layout="mono")
        for n in range(30):
            container.mux(video.encode(av.VideoFrame.from_ndarray(clip.picture(n), format="yuv420p")))
        container.mux(video.encode(None))
        for n, frame in enumerate(tone(1, 0)):
            if not 15 <= n < 35:  # 0.3 s to 0.7 s
                container.mux(audio.encode(frame))
    encode_file(OfflineOptions(path, tmp_path / "out.mp4", EXACT))
    with av.open(str(tmp_path / "out.mp4")) as container:
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    loudness = [float(np.abs(samples[round(s * 48_000) :][:2400]).mean()) for s in (0.15, 0.4, 0.5, 0.8)]
    assert loudness[1] < 1e-3
    assert loudness[2] < 1e-3
    assert min(loudness[0], loudness[3]) > 0.05
    assert len(samples) == pytest.approx(48_000, abs=2400)


# Failures


def test_command_line(
    short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out, stats = tmp_path / "out.mp4", tmp_path / "s.jsonl"
    command = ("encode", short, out, "--bitrate", "100k", "--sal-mode", "exact", "--size", "160x90", "--stats", stats)
    assert call(monkeypatch, *command) == 0
    said = capfd.readouterr().out
    for word in ("bitrate", "100 kb/s asked", "face share", "15% asked", "160x90", "12"):
        assert word in said
    assert len(lines(stats)) == 12
    before = out.read_bytes()
    out.write_bytes(b"precious")
    assert call(monkeypatch, *command) == 2
    assert "--force" in capfd.readouterr().err
    assert out.read_bytes() == b"precious"
    assert call(monkeypatch, *command, "--force") == 0
    assert out.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"out.mp4", "s.jsonl"}
    if os.name == "posix":
        mask = os.umask(0)
        os.umask(mask)
        assert out.stat().st_mode & 0o777 == 0o666 & ~mask


def test_refusals(
    short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    there, notes, copy = tmp_path / "there.jsonl", tmp_path / "notes.mp4", tmp_path / "copy.mp4"
    there.write_text("precious")
    notes.write_text("no film at all\n" * 50)
    copy.write_bytes(short.read_bytes())
    (tmp_path / "link.mp4").symlink_to(copy)
    (tmp_path / "folder.mp4").mkdir()
    good = tmp_path / "new.mp4"
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    cases: list[tuple[tuple[object, ...], str]] = [
        ((tmp_path / "gone.mp4", good), "gone.mp4"),
        ((notes, good), "Cannot read"),
        ((tmp_path, good), "Cannot read"),
        ((short, tmp_path / "new.avi"), "has to end in .mp4"),
        ((short, tmp_path / "no" / "new.mp4"), "does not exist"),
        ((short, tmp_path / "folder.mp4"), "is a folder"),
        ((short, notes), "add --force"),
        ((copy, copy, "--force"), "the file to be read"),
        ((copy, tmp_path / "link.mp4", "--force"), "the file to be read"),
        ((short, good, "--stats", there), "add --force"),
        ((short, good, "--stats", tmp_path / "no" / "s.jsonl"), "does not exist"),
        ((short, good, "--stats", good), "choose two names"),
        ((copy, good, "--stats", copy, "--force"), "the file to be read"),
        ((short, good, "--bitrate", "x"), "write for example 400k"),
        ((short, good, "--sal", "99"), "between 0 and 95"),
        ((short, good, "--preset", "warp"), "veryfast"),
        ((short, good, "--keyframe-interval", "0"), "between 1 and 3600"),
        ((short, good, "--fps", "0"), "between 1 and 120"),
    ]
    if os.name == "posix" and os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o555)
        cases.append(((short, tmp_path / "locked" / "new.mp4"), "Cannot write"))
    for arguments, expected in cases:
        capfd.readouterr()
        assert call(monkeypatch, "encode", *arguments) == 2
        said = capfd.readouterr().err
        assert said.startswith("semcall: "), said
        assert said.count("\n") == 1
        assert expected in said
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("limit", [4_000, 20_000])
def test_a_full_disk_leaves_no_half_file(talk: Path, tmp_path: Path, limit: int) -> None:
    """The kernel refuses to let any file grow past the limit: the statistics first, or the video."""
    resource = pytest.importorskip("resource")
    (tmp_path / "out.mp4").write_bytes(b"precious")
    stats = ["--stats", str(tmp_path / "s.jsonl")] if limit == 4_000 else []
    arguments = [str(talk), str(tmp_path / "out.mp4"), "--force", "--bitrate", "300k", *stats]
    done = subprocess.run(
        [sys.executable, "-m", "semcall", "encode", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("semcall: Cannot write ")
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert (tmp_path / "out.mp4").read_bytes() == b"precious"


@pytest.mark.parametrize("blow", [KeyboardInterrupt(), RuntimeError("boom")])
def test_whatever_ends_it_nothing_is_left(short: Path, tmp_path: Path, blow: BaseException) -> None:
    def progressed(done: int, _total: int | None) -> None:
        if done == 8:
            assert len(list(tmp_path.iterdir())) == 2, "both are being written"
            raise blow

    options = EncodeOptions(bitrate=100e3, stats=tmp_path / "s.jsonl")
    with pytest.raises(type(blow)):
        encode_file(OfflineOptions(short, tmp_path / "out.mp4", options), progressed)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_leave_nothing(short: Path, tmp_path: Path, number: int) -> None:
    """Even two at once."""
    before = signal.getsignal(number)

    def progressed(done: int, _total: int | None) -> None:
        if done == 8:
            try:
                os.kill(os.getpid(), number)
            finally:
                os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        encode_file(OfflineOptions(short, tmp_path / "out.mp4", EXACT), progressed)
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(number) is before


def test_a_place_lost_at_the_end(short: Path, tmp_path: Path) -> None:
    """Somebody makes a folder of that name while we encode."""

    def progressed(done: int, _total: int | None) -> None:
        if done == 12:
            (tmp_path / "out.mp4").mkdir()

    with pytest.raises(SemcallError, match="Cannot write"):
        encode_file(OfflineOptions(short, tmp_path / "out.mp4", EXACT), progressed)
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_first_unit_carries_its_parameter_sets(short: Path, tmp_path: Path) -> None:
    """FFmpeg puts them in front again where a raw stream is wanted: what `inspect` relies on."""
    encode_file(OfflineOptions(short, tmp_path / "out.mp4", EXACT))
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        annex_b = av.BitStreamFilterContext("h264_mp4toannexb", stream)
        first = annex_b.filter(next(iter(container.demux(stream))))
    assert NAL_SEQUENCE_PARAMETERS in [nal_type(unit) for unit in nal_units(bytes(first[0]))]
