"""The semantic encoder on real pictures: the quantisers asked for, bits as measured, rate and share reached."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
import pytest
from av.codec.context import Flags
from faces import astronaut_face, oval
from numpy.typing import NDArray

from sender.cavlc import INTRA16, MacroblockParser
from sender.encoder import EncodeStats, SemanticEncoder
from sender.roi import RegionFrame, rectangles
from sender.share import ShareController
from shared.astronaut import AstronautClip
from shared.grid import Mask, grid_shape, row_runs
from shared.h264 import NAL_SEQUENCE_PARAMETERS, is_keyframe, nal_type, nal_units
from shared.h264_headers import parse_sequence_parameters
from shared.picture import Picture
from shared.quantisers import quantiser_map

SMALL = 320, 184  # the last row of macroblocks is half outside


def pictures(size: tuple[int, int], count: int, fps: float = 30.0) -> list[Picture]:
    clip = AstronautClip(size, fps)
    return [Picture(clip.picture(n), round(n * 90_000 / fps), n) for n in range(count)]


def face_mask(size: tuple[int, int]) -> Mask:
    """The face of the first picture."""
    return oval(*astronaut_face(AstronautClip(size), 0), size)


def blobs(random: np.random.Generator, size: tuple[int, int]) -> Mask:
    """A few rectangles of macroblocks, some reaching the border, with holes."""
    rows, columns = grid_shape(*size)
    mask = np.zeros((rows, columns), np.bool_)
    for _ in range(4):
        top, left = random.integers(0, rows - 1), random.integers(0, columns - 1)
        mask[top : top + random.integers(1, 6), left : left + random.integers(1, 7)] ^= True
    return mask


class Reference:
    """FFmpeg's decoder with its quantiser map, independent of our parser."""

    def __init__(self) -> None:
        self._codec = av.CodecContext.create("h264", "r")
        self._codec.thread_count = 1
        self._codec.flags |= Flags.low_delay
        self._codec.options = {"export_side_data": "venc_params"}

    def decode(self, unit: bytes) -> tuple[av.VideoFrame, NDArray[np.uint8]]:
        (frame,) = self._codec.decode(av.Packet(unit))
        return frame, quantiser_map(frame)


def off_plan(
    unit: bytes, parser: MacroblockParser, coded_with: NDArray[np.uint8], mask: Mask, stats: EncodeStats
) -> tuple[int, int]:
    """How many macroblocks have a residual, and how many of them FFmpeg decodes with another quantiser than planned.

    An Intra16x16 macroblock always counts as coded; without coefficients x264 lets it keep the quantiser of the
    macroblock before it where that is finer (x264 cavlc.c, cavlc_qp_delta). Nothing is quantised by it.
    """
    info = parser.parse(unit)
    planned = np.where(mask, stats.qp_face, stats.qp_background)
    wrong = info.coded & (coded_with != planned)
    before = np.concatenate([[coded_with.flat[0]], coded_with.reshape(-1)[:-1]]).reshape(mask.shape)
    carried = (info.type == INTRA16) & (coded_with == before) & (coded_with < planned)
    return int(info.coded.sum()), int((wrong & ~carried).sum())


@pytest.mark.parametrize("preset", ["superfast", "veryfast", "faster", "medium"])
def test_every_macroblock_has_its_regions_quantiser(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random, empty and full masks; random plans of the whole range."""
    random = np.random.default_rng(11)
    encoder = SemanticEncoder(*SMALL, 300e3, 0.3, preset=preset)
    reference, parser = Reference(), MacroblockParser()
    plan: tuple[float, float] = (30.0, 30.0)
    monkeypatch.setattr(ShareController, "plan", lambda *_: plan)
    monkeypatch.setattr(ShareController, "replan_keyframe", lambda *_: plan)
    coded = 0
    for index, picture in enumerate(pictures(SMALL, 30)):
        face = int(random.integers(14, 45))
        plan = (float(face), float(min(51, face + random.choice([-9, -2, 0, 2, 3, 7]))))
        if abs(plan[1] - plan[0]) == 1 or plan[1] < 14:
            plan = (20.0, 36.0)
        mask = blobs(random, SMALL)
        mask = np.zeros_like(mask) if index % 7 == 3 else np.ones_like(mask) if index % 7 == 5 else mask
        unit, stats = encoder.encode(picture, mask, keyframe=index == 15)
        assert (stats.qp_face, stats.qp_background) == plan
        _, decoded = reference.decode(unit)
        residuals, wrong = off_plan(unit, parser, decoded, mask, stats)
        assert wrong == 0
        coded += residuals
    assert coded > 1000


def test_live_plans_are_coded_exactly() -> None:
    """The controller's own plans, on the astronaut: what the statistics say is what was coded."""
    frames = pictures(SMALL, 60)
    mask = face_mask((640, 360))[: grid_shape(*SMALL)[0], : grid_shape(*SMALL)[1]]
    mask = np.roll(mask, (-4, -8), axis=(0, 1))
    encoder, reference, parser = SemanticEncoder(*SMALL, 80e3, 0.35, mode="exact"), Reference(), MacroblockParser()
    pairs = set()
    for picture in frames:
        unit, stats = encoder.encode(picture, mask)
        assert off_plan(unit, parser, reference.decode(unit)[1], mask, stats)[1] == 0
        assert abs(stats.qp_face - stats.qp_background) != 1
        pairs.add((stats.qp_face, stats.qp_background))
    assert len(pairs) > 5


def test_x264_joins_regions_one_step_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why ShareController never plans a difference of one. Should this fail, it may."""
    for name in ("plan", "replan_keyframe"):
        monkeypatch.setattr(ShareController, name, lambda *_: (32.0, 33.0))
    encoder, reference = SemanticEncoder(*SMALL, 300e3, 0.3), Reference()
    mask = np.zeros(grid_shape(*SMALL), np.bool_)
    mask[3:7, 6:12] = True
    unit, _ = encoder.encode(pictures(SMALL, 1)[0], mask)
    assert set(np.unique(reference.decode(unit)[1][mask])) == {33}


@pytest.mark.parametrize(
    ("size", "fps", "level"), [((1280, 720), 30, 31), ((640, 360), 30, 30), ((1920, 1080), 30, 40)]
)
def test_stream_is_constrained_baseline(size: tuple[int, int], fps: float, level: int) -> None:
    encoder = SemanticEncoder(*size, 400e3, 0.2, fps=fps)
    picture = pictures(size, 1)[0]
    unit, stats = encoder.encode(picture, np.zeros(grid_shape(*size), np.bool_))
    sequence = next(parse_sequence_parameters(u) for u in nal_units(unit) if nal_type(u) == NAL_SEQUENCE_PARAMETERS)
    assert sequence.profile_idc == 66
    assert sequence.constraint_flags & 0b0100_0000  # constraint_set1: Constrained Baseline (clause A.2.1.1)
    assert sequence.level_idc == level
    assert (sequence.width, sequence.height) == size
    frame, _ = Reference().decode(unit)
    assert (frame.colorspace, frame.color_range) == (6, 1)  # tagged BT.601, limited
    error = frame.to_ndarray().astype(float) - picture.i420
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 27
    assert stats.keyframe


def test_idr_first_and_then_only_when_asked() -> None:
    encoder = SemanticEncoder(*SMALL, 100e3, 0.3)
    mask = np.zeros(grid_shape(*SMALL), np.bool_)
    cut = Picture(np.ascontiguousarray(AstronautClip(SMALL).picture(0)[::-1, ::-1]), 0, 0)  # a scene cut is no reason
    frames = pictures(SMALL, 12)
    keys = []
    for index, picture in enumerate(frames):
        if index == 5:
            picture = Picture(cut.i420, picture.ticks, index)
        unit, stats = encoder.encode(picture, mask, keyframe=index == 9)
        assert is_keyframe(unit) == stats.keyframe
        keys.append(stats.keyframe)
    assert [index for index, key in enumerate(keys) if key] == [0, 9]


def test_face_bits_are_those_of_the_stream() -> None:
    random = np.random.default_rng(3)
    encoder, parser = SemanticEncoder(*SMALL, 200e3, 0.3), MacroblockParser()
    for index, picture in enumerate(pictures(SMALL, 12)):
        mask = blobs(random, SMALL)
        unit, stats = encoder.encode(picture, mask, keyframe=index == 6)
        info = parser.parse(unit)
        by_hand = 0.0
        for row, column in zip(*np.nonzero(mask), strict=True):
            by_hand += float(info.bits[row, column])
        assert stats.bits == len(unit) * 8
        assert stats.face_bits == pytest.approx(by_hand, rel=1e-5)
        assert stats.share == pytest.approx(by_hand / (len(unit) * 8), rel=1e-5)
        # an account that closes: macroblocks, headers and start codes make up the access unit
        start_codes = len(unit) - sum(map(len, nal_units(unit)))
        assert float(info.bits.sum()) + info.header_bits + start_codes * 8 == pytest.approx(stats.bits, abs=1)
        assert set(stats.milliseconds) == {"plan", "x264", "parse"}


@pytest.mark.parametrize("seed", range(8))
def test_rectangles_are_the_mask(seed: int) -> None:
    random = np.random.default_rng(seed)
    mask = blobs(random, (640, 360)) if seed % 2 else random.random((9, 14)) < 0.5
    painted = np.zeros(mask.shape, np.int64)
    found = rectangles(mask)
    for top, bottom, first, end in found:
        painted[top:bottom, first:end] += 1
    assert np.array_equal(painted, mask.astype(int))  # all of it, nothing twice
    areas = (found[:, 1] - found[:, 0]) * (found[:, 3] - found[:, 2])
    assert (np.diff(areas) <= 0).all()
    assert len(found) <= len(row_runs(mask))


def test_equal_runs_below_each_other_take_one_record() -> None:
    mask = np.zeros((12, 20), np.bool_)
    assert len(rectangles(mask)) == 0
    mask[2:11, 3:8] = True
    mask[4:7, 12:15] = True
    mask[8:9, 12:15] = True
    assert rectangles(mask).tolist() == [[2, 11, 3, 8], [4, 7, 12, 15], [8, 9, 12, 15]]
    heads = [oval(x, y, 360, (1920, 1080)) for x in (250, 850, 1450) for y in (190, 550, 890)]
    wall = np.logical_or.reduce(heads)
    assert len(rectangles(wall)) < 0.7 * len(row_runs(wall))


def test_more_regions_than_records() -> None:
    """What has no record left is coded and counted as background; the call goes on."""
    frame = RegionFrame(320, 184, records=5)
    regions = np.array([[row, row + 1, 2, 4] for row in range(7)], np.int32)
    with pytest.raises(ValueError, match="7 regions, but 4 records"):
        frame.set_offsets(regions, -4, 4)
    frame.set_offsets(regions[:4], -4, 4)
    frame.set_offsets(regions[:0], 0, 4)
    size = 1280, 720
    rows, columns = np.indices(grid_shape(*size))
    checkers = (rows + columns) % 2 == 0
    assert len(rectangles(checkers)) > 192
    encoder, reference = SemanticEncoder(*size, 400e3, 0.5, mode="exact"), Reference()
    unit, stats = encoder.encode(pictures(size, 1)[0], checkers)
    _, decoded = reference.decode(unit)
    assert set(np.unique(decoded[rows[:, 0] > 10])) <= {stats.qp_background}
    assert (decoded[:3][checkers[:3]] <= stats.qp_background).all()
    assert (decoded[:3][checkers[:3]] == stats.qp_face).any()
    told = checkers & (np.cumsum(checkers).reshape(checkers.shape) <= 191)
    assert stats.face_bits == pytest.approx(float(MacroblockParser().parse(unit).bits[told].sum()), rel=1e-5)


def test_mask_of_another_size_is_refused() -> None:
    encoder = SemanticEncoder(*SMALL, 100e3, 0.3)
    with pytest.raises(ValueError, match="macroblocks"):
        encoder.encode(pictures(SMALL, 1)[0], np.zeros((3, 3), np.bool_))


def test_share_of_nothing_is_one_quantiser() -> None:
    encoder, reference, parser = SemanticEncoder(*SMALL, 150e3, 0.0), Reference(), MacroblockParser()
    mask = np.zeros(grid_shape(*SMALL), np.bool_)
    mask[2:9, 5:13] = True
    for picture in pictures(SMALL, 20):
        unit, stats = encoder.encode(picture, mask)
        info, decoded = parser.parse(unit), reference.decode(unit)[1]
        assert stats.qp_face == stats.qp_background
        assert set(np.unique(decoded[info.coded])) <= {stats.qp_face}
        assert stats.face_bits > 0  # still measured


@pytest.fixture(scope="module")
def talking_head() -> tuple[list[Picture], Mask]:
    frames = pictures((640, 360), 150)
    return frames, face_mask((640, 360))


def code(encoder: SemanticEncoder, frames: list[Picture], mask: Mask) -> list[EncodeStats]:
    return [encoder.encode(picture, mask)[1] for picture in frames]


def summed(stats: list[EncodeStats]) -> tuple[float, float]:
    """Bit/s at 30 pictures a second, and the face's share."""
    bits = sum(s.bits for s in stats)
    return bits * 30 / len(stats), sum(s.face_bits for s in stats) / bits


@pytest.mark.parametrize("wanted", [0.15, 0.35])
def test_rate_and_share_are_reached(talking_head: tuple[list[Picture], Mask], wanted: float) -> None:
    """What 400 kb/s are to 720p, at a quarter of the pixels and a little more for their detail."""
    frames, mask = talking_head
    assert 0.03 < mask.mean() < 0.3
    rate, share = summed(code(SemanticEncoder(640, 360, 150e3, wanted, mode="exact"), frames, mask)[60:])
    assert rate == pytest.approx(150e3, rel=0.1)
    assert share == pytest.approx(wanted, abs=0.05)


def test_floor_spends_at_least_the_share(talking_head: tuple[list[Picture], Mask]) -> None:
    frames, mask = talking_head
    stats = code(SemanticEncoder(640, 360, 150e3, 0.3), frames, mask)
    rate, share = summed(stats[60:])
    assert rate == pytest.approx(150e3, rel=0.1)
    assert share > 0.27
    assert all(s.qp_face <= s.qp_background for s in stats)


def test_new_bitrate_is_followed_without_an_idr(talking_head: tuple[list[Picture], Mask]) -> None:
    frames, mask = talking_head
    encoder = SemanticEncoder(640, 360, 120e3, 0.3)
    before = code(encoder, frames[:60], mask)
    encoder.controller.bitrate = 300e3
    after = code(encoder, frames[60:], mask)
    assert summed(before[30:])[0] == pytest.approx(120e3, rel=0.15)
    assert summed(after[30:])[0] == pytest.approx(300e3, rel=0.15)
    assert not any(s.keyframe for s in [*before[1:], *after])


def test_region_records_are_what_ffmpeg_reads() -> None:
    frame = RegionFrame(320, 184, records=4)
    frame.set_offsets(np.array([[1, 2, 2, 5]], np.int32), -3.25, 6)
    side: Any = frame.frame.side_data
    raw = np.frombuffer(side["REGIONS_OF_INTEREST"], np.int32).reshape(4, 7)
    assert raw[:, 0].tolist() == [28] * 4
    top, bottom, left, right, numerator, denominator = raw[0, 1:].tolist()
    assert (top, bottom, left, right) == (16, 32, 32, 80)
    assert 51 * numerator / denominator == pytest.approx(-3.25)
    assert raw[1, 1:5].tolist() == [0, 184, 0, 320]
    assert 51 * raw[1, 5] / raw[1, 6] == pytest.approx(6)


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("bitrate", [150e3, 400e3])
def test_keyframes_keep_their_budget_even_the_first(bitrate: float, share: float) -> None:
    """A trial fits an IDR of which nothing is known yet to a quarter of a second's bits."""
    encoder = SemanticEncoder(*SMALL, bitrate, share)
    mask = np.zeros(grid_shape(*SMALL), np.bool_)
    mask[3:12, 14:24] = True
    sizes = []
    for index, picture in enumerate(pictures(SMALL, 45)):
        _, stats = encoder.encode(picture, mask, keyframe=index == 40)
        sizes += [stats.bits] if stats.keyframe else []
    assert len(sizes) == 2
    assert max(sizes) <= 0.26 * bitrate
