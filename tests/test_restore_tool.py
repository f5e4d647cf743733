"""`semcall restore`: files in, restored MP4 files out, whole or not at all."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from command import call
from faces import shipped
from numpy.typing import NDArray
from test_offline import EXACT, film, heard, psnr, shown, steady

import semcall
from models.registry import WEIGHTS, Model, find_model
from receiver.offline import (
    UNTOLD,
    RestoredPicture,
    RestoreOptions,
    Summary,
    blended,
    restore_file,
    restored_pictures,
)
from sender.live import EncodeOptions
from sender.offline import OfflineOptions, encode_file
from shared.astronaut import AstronautClip
from shared.clips import Clip, FileFacts
from shared.errors import SemcallError
from shared.grid import grid_shape
from shared.mp4 import Sound
from shared.picture import I420, i420_from_frame, size_of
from shared.quantisers import SIDE_DATA, quantiser_map
from shared.restorer import Restorer
from shared.steady import Steadiness
from shared.x264 import writing_mp4

FRAMES = 24
SMALL = find_model("small")


class Witness:
    """Takes the place of a restorer: notes what it is given, makes every picture darker."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []
        self.maps: list[NDArray[np.uint8]] = []

    def restore(self, i420: I420, qp: NDArray[np.uint8]) -> I420:
        assert qp.dtype == np.uint8
        assert qp.shape == grid_shape(*size_of(i420))
        self.sizes.append(size_of(i420))
        self.maps.append(qp.copy())
        return i420 // 2


def undamaged() -> None:
    pytest.fail("no packet of this file is damaged")


def options_for(source: Path, out: Path, **more: Any) -> RestoreOptions:
    return RestoreOptions(source, out, SMALL.path, SMALL.name, **{"threads": 1, **more})


def restored(source: Path, strength: float = 1.0) -> list[RestoredPicture]:
    return list(restored_pictures(Clip(source), Restorer(SMALL.path).restore, strength, undamaged))


def seen(source: Path) -> tuple[Witness, list[RestoredPicture]]:
    witness = Witness()
    return witness, list(restored_pictures(Clip(source), witness.restore, 1.0, undamaged))


def write(
    path: Path,
    pictures: Iterable[I420],
    codec: str = "libx264",
    pixels: str = "yuv420p",
    *,
    ratio: Fraction = Fraction(1),
    rotation: int = 0,
    **options: str,
) -> Path:
    """One short file; `ratio`: its sample aspect ratio."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options)
        if rotation:
            stream.set_display_rotation(rotation)
        for index, i420 in enumerate(pictures):
            if index == 0:
                stream.width, stream.height, stream.pix_fmt = *size_of(i420), pixels
                stream.codec_context.sample_aspect_ratio = ratio
            container.mux(stream.encode(av.VideoFrame.from_ndarray(i420, format="yuv420p")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def received(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a poor link brings: 640x360 with sound, coded by our encoder at 60 kb/s."""
    folder = tmp_path_factory.mktemp("received")
    talk = film(folder / "talk.mp4", steady(FRAMES), size=(640, 360), sound="aac")
    coded = EncodeOptions(bitrate=60e3, share=0.3, mode="exact")
    encode_file(OfflineOptions(talk, folder / "received.mp4", coded, shipped()))
    return folder / "received.mp4"


@pytest.fixture(scope="module")
def result(received: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    out = tmp_path_factory.mktemp("result") / "out.mp4"
    return out, restore_file(options_for(received, out, crf=4.0))


# Pictures


def test_pictures_are_restored_with_the_quantisers_of_the_stream(received: Path) -> None:
    pictures = restored(received)
    with av.open(str(received)) as container:
        container.streams.video[0].codec_context.options = dict(SIDE_DATA)
        frames = list(container.decode(video=0))
    network, steadied = Restorer(SMALL.path), Steadiness()
    assert len(pictures) == len(frames) == FRAMES
    for picture, frame in zip(pictures, frames, strict=True):
        qp = quantiser_map(frame)
        assert (qp > 36).mean() > 0.2, "a poor link indeed"
        assert picture.told
        assert picture.ms > 0
        assert np.array_equal(picture.decoded, frame.to_ndarray())
        alone = network.restore(frame.to_ndarray(), qp)
        assert np.array_equal(picture.blended, steadied(frame.to_ndarray(), alone))
        coarse = np.kron(qp > 36, np.ones((16, 16), np.bool_))[:360]
        assert (picture.blended[:360] != picture.decoded[:360])[coarse].mean() > 0.02


def test_strengths(received: Path) -> None:
    whole, half, none = (restored(received, strength) for strength in (1.0, 0.5, 0.0))
    moved = 0
    for one, between, zero in zip(whole, half, none, strict=True):
        assert np.array_equal(zero.blended, zero.decoded)
        assert np.array_equal(zero.decoded, one.decoded)
        low, high = np.minimum(one.decoded, one.blended), np.maximum(one.decoded, one.blended)
        assert ((low <= between.blended) & (between.blended <= high)).all()
        middle = (one.decoded.astype(float) + one.blended) / 2
        assert np.abs(between.blended - middle).max() <= 0.5
        moved += int(((between.blended != one.decoded) & (between.blended != one.blended)).sum())
    assert moved > 1000


@pytest.mark.parametrize("strength", [0.0, 0.25, 0.3, 0.5, 1.0])
def test_blending_rounds_and_keeps_its_inputs(strength: float) -> None:
    decoded, other = np.random.default_rng(0).integers(0, 256, (2, 6, 4096), np.uint8)
    before = decoded.copy(), other.copy()
    mixed = blended(decoded, other, strength)
    exact = decoded + strength * (other.astype(float) - decoded)
    assert mixed.dtype == np.uint8
    assert np.abs(mixed - exact).max() <= 0.5 + 1e-4
    assert np.array_equal(decoded, before[0])
    assert np.array_equal(other, before[1])
    assert not np.shares_memory(mixed, decoded)


@pytest.mark.parametrize("codec", ["mpeg4", "ffv1", "mpeg2video"])
def test_a_codec_that_tells_no_quantisers(codec: str, tmp_path: Path) -> None:
    """MPEG-2 and MPEG-4 do export some, but on a scale of their own."""
    source = write(tmp_path / "in.mkv", map(AstronautClip((320, 176)).picture, range(4)), codec)
    witness, pictures = seen(source)
    assert len(pictures) == len(witness.maps) == 4
    assert all((qp == UNTOLD).all() for qp in witness.maps)
    assert not any(picture.told for picture in pictures)
    summary = restore_file(options_for(source, tmp_path / "out.mp4"))
    assert [sentence for sentence in summary.said if "quantiser" in sentence] == [
        f"{source} does not tell how finely its pictures were coded: the restorer was told a quantiser of 32."
    ]


def test_zeros_would_mend_less() -> None:
    """Why files without quantisers get a number."""
    network = Restorer(SMALL.path)
    random = np.random.default_rng(0)
    i420 = np.kron(random.integers(60, 180, (33, 40), np.uint8), np.ones((8, 8), np.uint8))
    shape = grid_shape(*size_of(i420))
    change = [np.abs(network.restore(i420, np.full(shape, qp, np.uint8)).astype(int) - i420) for qp in (0, UNTOLD)]
    assert change[0].mean() < change[1].mean() / 2


def test_ten_bits_have_quantisers_on_the_same_scale(tmp_path: Path) -> None:
    """FFmpeg's are 12 higher there, more than a restorer knows."""
    pictures = list(map(AstronautClip((320, 176)).picture, range(3)))
    source = write(tmp_path / "in.mkv", pictures, pixels="yuv420p10le", qp="60", bf="0")
    witness, _ = seen(source)
    assert {int(value) for qp in witness.maps for value in np.unique(qp)} <= {60 - 12, 60 - 12 - 3}  # P, I


def test_no_sentence_without_cause(result: tuple[Path, Summary]) -> None:
    assert result[1].said == []


# The file


def test_every_picture_at_its_time(received: Path, result: tuple[Path, Summary]) -> None:
    out, summary = result
    before, _ = shown(received)
    after, frames = shown(out)
    assert after == pytest.approx(before, abs=1e-4)
    assert {(f.width, f.height, f.colorspace, f.color_range) for f in frames} == {(640, 360, 6, 1)}
    for frame, picture in zip(frames, restored(received), strict=True):
        seen_now = frame.to_ndarray()
        assert psnr(seen_now, picture.blended) > 45
        assert psnr(seen_now, picture.blended) > psnr(seen_now, picture.decoded) + 1
    assert (summary.frames, summary.size, summary.restorer) == (FRAMES, (640, 360), "small")
    assert summary.device in ("CPU", "CUDA", "CoreML", "DirectML", "OpenVINO")
    assert summary.seconds == pytest.approx(FRAMES / 30, abs=0.01)
    assert summary.median_ms > 0
    with av.open(str(out)) as container:
        extradata = container.streams.video[0].codec_context.extradata
    assert extradata is not None
    assert extradata[3] <= 31, "a level that every player has"


def test_sound_is_kept_as_it_is(received: Path, result: tuple[Path, Summary]) -> None:
    before, after = heard(received), heard(result[0])
    assert after[:2] == before[:2], "the packets themselves"
    assert after[2:] == pytest.approx(before[2:], abs=1e-3)
    assert result[1].sound == ["aac"]


def test_sound_that_mp4_does_not_hold(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mkv", steady(20), sound="pcm_s16le")
    assert restore_file(options_for(source, tmp_path / "out.mp4")).sound == ["pcm_s16le as aac"]
    name, _, begin, end = heard(tmp_path / "out.mp4")
    assert name == "aac"
    assert begin == pytest.approx(0, abs=0.06)
    assert end == pytest.approx(19 / 30, abs=0.12)


def test_variable_frame_rate(tmp_path: Path) -> None:
    times = [0.0, 0.033, 0.066, 0.5, 0.51, 0.9, 0.933, 1.7]
    source = film(tmp_path / "in.mkv", times)
    assert restore_file(options_for(source, tmp_path / "out.mp4")).frames == len(times)
    assert shown(tmp_path / "out.mp4")[0] == pytest.approx(times, abs=1e-4)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_upright_with_the_same_shape_of_samples(rotation: int, tmp_path: Path) -> None:
    clip = AstronautClip((320, 176))
    source = write(
        tmp_path / "in.mp4", [clip.picture(0)] * 3, crf="10", bf="0", ratio=Fraction(4, 3), rotation=rotation
    )
    summary = restore_file(options_for(source, tmp_path / "out.mp4"))
    sideways = rotation % 180 != 0
    assert summary.size == ((176, 320) if sideways else (320, 176))
    _, frames = shown(tmp_path / "out.mp4")
    assert {(frame.width, frame.height, frame.rotation) for frame in frames} == {(*summary.size, 0)}
    with av.open(str(tmp_path / "out.mp4")) as container:
        ratio = container.streams.video[0].sample_aspect_ratio
    assert ratio == (Fraction(3, 4) if sideways else Fraction(4, 3))
    upright = np.rot90(clip.picture(0)[:176], rotation // 90)
    height, width = upright.shape
    assert psnr(frames[0].to_ndarray()[:height, :width], upright) > 30


def test_an_odd_size_becomes_even(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "in.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = 321, 179, "yuv444p"
        frame = av.VideoFrame.from_ndarray(AstronautClip((322, 180)).picture(0), format="yuv420p")
        container.mux(stream.encode(frame.reformat(321, 179, "yuv444p")))
        container.mux(stream.encode(None))
    assert restore_file(options_for(tmp_path / "in.mkv", tmp_path / "out.mp4")).size == (320, 178)


def test_a_size_that_changes(tmp_path: Path) -> None:
    """The restorer gets each picture as it was coded; the file has the first one's size, as `encode` does it."""
    large = AstronautClip((320, 176)).picture(0)
    small = i420_from_frame(av.VideoFrame.from_ndarray(large, format="yuv420p"), 160, 88)
    parts = [
        write(tmp_path / f"{name}.h264", [i420] * 3, crf="20", bf="0").read_bytes()
        for name, i420 in (("large", large), ("small", small))
    ]
    (tmp_path / "in.h264").write_bytes(b"".join(parts))
    witness, pictures = seen(tmp_path / "in.h264")
    assert witness.sizes == [(320, 176)] * 3 + [(160, 88)] * 3
    assert {size_of(picture.blended) for picture in pictures} == {(320, 176)}
    assert {size_of(picture.decoded) for picture in pictures} == {(320, 176)}
    assert np.corrcoef(pictures[3].decoded.ravel(), large.ravel())[0, 1] > 0.95


def test_progress_ends_at_its_total(received: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    restore_file(options_for(received, tmp_path / "out.mp4"), lambda done, total: told.append((done, total)))
    assert told == [(n, FRAMES) for n in range(1, FRAMES + 1)]


# Failures


def spoilt(source: Path, out: Path, numbers: set[int]) -> Path:
    """A copy of a film whose packets with these numbers are noise."""
    with av.open(str(source)) as before, av.open(str(out), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        for number, packet in enumerate(p for p in before.demux(video=0) if p.size):
            copy = av.Packet(b"\xff" * packet.size) if number in numbers else packet
            copy.pts, copy.dts, copy.time_base, copy.stream = packet.pts, packet.dts, packet.time_base, stream
            copy.is_keyframe = packet.is_keyframe
            after.mux(copy)
    return out


@pytest.mark.parametrize(("numbers", "said"), [({9}, "1 picture is"), ({9, 12}, "2 pictures are")])
def test_a_damaged_middle(
    numbers: set[int],
    said: str,
    received: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """What can be decoded is restored, at its time, and the rest is told of."""
    source = spoilt(received, tmp_path / "in.mp4", numbers)
    assert call(monkeypatch, "restore", source, tmp_path / "out.mp4") == 0
    assert f"in.mp4 is damaged: at least {said} left out where decoding failed.\n" in capfd.readouterr().out
    times, _ = shown(tmp_path / "out.mp4")
    assert times == pytest.approx([n / 30 for n in range(FRAMES) if n not in numbers], abs=2e-3)


@pytest.mark.parametrize(("bf", "lost"), [("0", 5), ("3", 5)])
def test_a_damaged_beginning(bf: str, lost: int, tmp_path: Path) -> None:
    """What cannot be decoded before the next keyframe is missing, and sound goes with the pictures that are there."""
    clip = AstronautClip((320, 176))
    whole = write(tmp_path / "whole.mp4", map(clip.picture, range(15)), crf="10", bf=bf, g="5")
    source = spoilt(whole, tmp_path / "in.mp4", {0})
    assert FileFacts(source).start == pytest.approx(lost / 30, abs=2e-3)
    summary = restore_file(options_for(source, tmp_path / "out.mp4"))
    assert summary.frames == 15 - lost
    assert any("is damaged: at least 1 picture is left out" in sentence for sentence in summary.said)
    times, frames = shown(tmp_path / "out.mp4")
    assert times == pytest.approx([n / 30 for n in range(15 - lost)], abs=2e-3)
    assert psnr(frames[0].to_ndarray(), clip.picture(lost)) > 30


def test_command_line(
    received: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.mp4"
    command = ("restore", received, out, "--restorer", SMALL.path, "--strength", "0.5", "--crf", "30")
    assert call(monkeypatch, *command, "--threads", "2") == 0
    said = capfd.readouterr().out
    for word in ("out.mp4", "24", "640x360", "crf 30", "small", "strength 0.5", " ms", "median", "aac"):
        assert word in said
    before = out.read_bytes()
    out.write_bytes(b"precious")
    assert call(monkeypatch, *command) == 2
    assert "--force" in capfd.readouterr().err
    assert out.read_bytes() == b"precious"
    assert call(monkeypatch, *command, "--threads", "2", "--force") == 0
    assert out.read_bytes() == before, "the same input gives the same output"
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_a_finer_quality_is_larger(received: Path, tmp_path: Path) -> None:
    sizes = []
    for crf in (16.0, 40.0):
        restore_file(options_for(received, tmp_path / "out.mp4", crf=crf, force=True))
        sizes.append((tmp_path / "out.mp4").stat().st_size)
    assert sizes[0] > 2 * sizes[1]


def test_the_largest_restorer_that_needs_no_gpu_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    def model(name: str, folder: Path = WEIGHTS, **card: object) -> Model:
        return Model(name, folder / f"{name}.onnx", {"kind": "restorer", **card})

    models = [
        model("small", parameters=10),
        model("large", parameters=30, needs_gpu=False),
        model("huge", parameters=99, needs_gpu=True),
        model("mine", Path("elsewhere"), parameters=50),
        model("untold"),
    ]
    monkeypatch.setattr("models.registry.list_models", lambda kind: models)
    assert semcall._largest_restorer() == "large"
    monkeypatch.setattr("models.registry.list_models", lambda kind: models[2:4])
    with pytest.raises(SemcallError, match="name one with --restorer"):
        semcall._largest_restorer()


def test_refusals(
    received: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    notes, copy, sound = tmp_path / "notes.mp4", tmp_path / "copy.mp4", tmp_path / "sound.m4a"
    notes.write_text("no film at all\n" * 50)
    copy.write_bytes(received.read_bytes())
    (tmp_path / "link.mp4").symlink_to(copy)
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    with av.open(str(sound), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=48_000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.int16), format="s16", layout="mono")
        silence.sample_rate = 48_000
        container.mux(stream.encode(silence))
        container.mux(stream.encode(None))
    all_noise = spoilt(received, tmp_path / "noise.mp4", set(range(FRAMES)))
    good = tmp_path / "new.mp4"
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    cases: list[tuple[tuple[object, ...], str]] = [
        ((tmp_path / "gone.mp4", good), "gone.mp4"),
        ((notes, good), "Cannot read"),
        ((sound, good), "has no video stream"),
        ((all_noise, good), "holds no picture that can be decoded"),
        ((received, tmp_path / "new.avi"), "has to end in .mp4"),
        ((received, tmp_path / "no" / "new.mp4"), "does not exist"),
        ((received, tmp_path / "folder.mp4"), "is a folder"),
        ((received, notes), "add --force"),
        ((copy, copy, "--force"), "the file to be read"),
        ((copy, tmp_path / "link.mp4", "--force"), "the file to be read"),
        ((received, good, "--restorer", "nobody"), "no restorer called 'nobody'; known are: "),
        ((received, good, "--restorer", "face"), "no restorer called 'face'"),
        ((received, good, "--restorer", tmp_path / "gone.onnx"), "cannot be read"),
        ((received, good, "--restorer", tmp_path / "bad.onnx"), "damaged or no ONNX model"),
        ((received, good, "--strength", "1.1"), "--strength 1.1 is not between 0 and 1"),
        ((received, good, "--strength", "nan"), "--strength nan is not between 0 and 1"),
        ((received, good, "--crf", "0"), "--crf 0 is not between 1 and 51"),
        ((received, good, "--threads", "0"), "--threads 0 is not between 1 and 256"),
    ]
    for arguments, expected in cases:
        capfd.readouterr()
        assert call(monkeypatch, "restore", *arguments) == 2
        said = capfd.readouterr().err
        assert said.startswith("semcall: "), said
        assert said.count("\n") == 1
        assert expected in said
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_leave_nothing(number: int, received: Path, tmp_path: Path) -> None:
    def progressed(done: int, _total: int | None) -> None:
        if done == 8:
            assert len(list(tmp_path.iterdir())) == 1
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        restore_file(options_for(received, tmp_path / "out.mp4"), progressed)
    assert list(tmp_path.iterdir()) == []


def test_a_restorer_that_fails_leaves_what_was_there(
    received: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, calls = Restorer.restore, []

    def fail(self: Restorer, i420: I420, qp: NDArray[np.uint8]) -> I420:
        calls.append(None)
        if len(calls) == 6:
            raise SemcallError("The restorer small failed: device lost.")
        return run(self, i420, qp)

    (tmp_path / "out.mp4").write_bytes(b"precious")
    monkeypatch.setattr(Restorer, "restore", fail)
    with pytest.raises(SemcallError, match="device lost"):
        restore_file(options_for(received, tmp_path / "out.mp4", force=True))
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert (tmp_path / "out.mp4").read_bytes() == b"precious"


def test_pictures_that_x264_cannot_code(received: Path, tmp_path: Path) -> None:
    size = 16_400, 16  # H.264 as x264 has it ends at 16384
    sound = Sound(received, 0.0)
    with (
        pytest.raises(SemcallError, match="x264 cannot code pictures of 16400x16"),
        writing_mp4(tmp_path / "out.mp4", size, 30, sound, {"crf": "20"}) as write_picture,
    ):
        write_picture(np.full((24, 16_400), 128, np.uint8), 0)
    sound.close()
    assert list(tmp_path.iterdir()) == []


def test_a_film_that_breaks_off_is_told(tmp_path: Path) -> None:
    whole = film(tmp_path / "whole.mkv", steady(60))
    cut = encode_file(OfflineOptions(whole, tmp_path / "front.mp4", EXACT))  # its index comes first
    data = (tmp_path / "front.mp4").read_bytes()
    (tmp_path / "in.mp4").write_bytes(data[: len(data) // 2])
    summary = restore_file(options_for(tmp_path / "in.mp4", tmp_path / "out.mp4"))
    assert 5 < summary.frames < cut.frames
    assert any("breaks off after" in sentence for sentence in summary.said)
    assert len(shown(tmp_path / "out.mp4")[0]) == summary.frames
