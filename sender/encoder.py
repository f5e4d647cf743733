"""The semantic encoder: libx264 through PyAV, a quantiser for every macroblock, bits measured and fed back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

import av
import cv2
import numpy as np
from av.video.frame import PictureType
from numpy.typing import NDArray

from sender.cavlc import MacroblockParser
from sender.roi import RegionFrame, rectangles
from sender.share import ShareController
from shared.encode import ShareMode
from shared.grid import MACROBLOCK, Mask, grid_shape
from shared.picture import CLOCK_RATE, Picture, planes, shrunk

# With qcomp=1 and no adaptive quantisation worth the name, crf is a constant quantiser for every macroblock that
# the region records then shift. aq-mode=0, aq-strength=0 or qp= would make libx264 ignore the regions.
# x264 rounds base plus offset to the nearest whole quantiser, and that strength leaves +-0.02 on top, so a planned
# half may fall either way: ShareController plans whole quantisers, never one apart. The slice quantiser is that of
# the first macroblock, so the base itself shows nowhere. The one macroblock coded off its plan is an Intra16x16
# without coefficients, which keeps a finer quantiser of the macroblock before it (nothing is quantised by it).
_BASE_QP = 30
_OPTIONS = {
    "tune": "zerolatency",
    "crf": str(_BASE_QP),
    "qcomp": "1",
    "sc_threshold": "0",
    "aq-mode": "1",
    "aq-strength": "0.001",
    "i_qfactor": "1",
    "forced-idr": "1",
}
_NO_GOP = 1 << 20  # IDRs only when asked for
_MOTION_SCALE = 4  # motion is measured on a quarter-size luma


@dataclass(frozen=True, slots=True)
class EncodeStats:
    """What one access unit took. Bits are measured on the stream; `share` is face_bits / bits."""

    bits: int
    face_bits: float
    qp_face: float
    qp_background: float
    keyframe: bool
    milliseconds: dict[str, float] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Part of the bits on the face, 0..1."""
        return self.face_bits / self.bits if self.bits else 0.0


class SemanticEncoder:
    """H.264 Constrained Baseline at a bitrate of which the face gets its share.

    `width`, `height`: even luma size; `bitrate`: bit/s; `share`: 0..1; `fps`: nominal, for the level in the SPS.
    `controller` takes changes of bitrate and share between pictures, without an IDR.
    """

    def __init__(
        self,
        width: int,
        height: int,
        bitrate: float,
        share: float,
        *,
        fps: float = 30.0,
        mode: ShareMode = "floor",
        preset: str = "veryfast",
    ) -> None:
        self.size = width, height
        self.controller = ShareController(bitrate, share, mode, width * height)
        self._codec = _open_x264(width, height, fps, preset)
        self._trial_codec = _open_x264(width, height, fps, preset)
        self._frame = RegionFrame(width, height)
        self._parser = MacroblockParser()
        self._count = 0
        self._last_ticks: int | None = None
        self._last_luma: np.ndarray[tuple[int, int], np.dtype[np.uint8]] | None = None
        self._nominal = 1 / fps
        self._planned = 0.0, 0.0

    def encode(
        self,
        picture: Picture,
        mask: Mask,
        keyframe: bool = False,
        again: bool = False,
        coded: Callable[[bytes, bool], None] = lambda _unit, _keyframe: None,
    ) -> tuple[bytes, EncodeStats]:
        """One picture as an access unit (Annex B). `mask`: bool [rows, columns] of macroblocks on the face.

        The first picture is an IDR; later ones only where `keyframe` asks for it. `again`: the picture is the last
        one with a later time. It is coded with the last quantisers, costs next to nothing and teaches the controller
        nothing. `coded` hears the access unit, and whether it is an IDR, before its bits are measured: in a call it
        leaves meanwhile. Of a mask that is too ragged for x264 (see `RegionFrame.capacity`), the smallest parts are
        background, and are counted as such.
        """
        start = time.perf_counter()
        if mask.shape != grid_shape(*self.size):
            raise ValueError(f"mask is {mask.shape}, the picture has {grid_shape(*self.size)} macroblocks")
        keyframe = keyframe or self._count == 0
        elapsed = self._nominal
        if self._last_ticks is not None:
            elapsed = (picture.ticks - self._last_ticks) / CLOCK_RATE
        self._last_ticks = picture.ticks
        regions, mask = self._regions(mask)
        again = again and not keyframe
        qp_face, qp_background = self._planned
        if not again:
            area = float(mask.mean())
            motion, typical = self._motion(picture, mask)
            qp_face, qp_background = self.controller.plan(area, motion, keyframe, elapsed, typical)
        frame = self._load(picture, regions, qp_face, qp_background, keyframe)
        if keyframe:  # its size depends on a picture of which nothing is known yet: try it out, then fit the budget
            trial = b"".join(bytes(packet) for packet in self._trial_codec.encode(frame))
            qp_face, qp_background = self.controller.replan_keyframe(self._measure(trial, mask), len(trial) * 8)
            frame = self._load(picture, regions, qp_face, qp_background, keyframe)
        self._planned = qp_face, qp_background
        self._count += 1
        planned = time.perf_counter()
        access_unit = b"".join(bytes(packet) for packet in self._codec.encode(frame))
        through = time.perf_counter()
        coded(access_unit, keyframe)
        bits = len(access_unit) * 8
        face_bits = self._measure(access_unit, mask)
        if not again:
            self.controller.feedback(face_bits, bits)
        parsed = time.perf_counter()
        times = {"plan": planned - start, "x264": through - planned, "parse": parsed - through}
        milliseconds = {name: seconds * 1e3 for name, seconds in times.items()}
        return access_unit, EncodeStats(bits, face_bits, qp_face, qp_background, keyframe, milliseconds)

    def _load(
        self,
        picture: Picture,
        regions: NDArray[np.int32],
        qp_face: float,
        qp_background: float,
        keyframe: bool,
    ) -> av.VideoFrame:
        self._frame.set_offsets(regions, qp_face - _BASE_QP, qp_background - _BASE_QP)
        frame = self._frame.load(picture.i420, self._count)
        frame.pict_type = PictureType.I if keyframe else PictureType.NONE
        return frame

    def _regions(self, mask: Mask) -> tuple[NDArray[np.int32], Mask]:
        """The mask as rectangles, as many as x264 can be told, and what of it they cover."""
        regions = rectangles(mask)
        left_out = regions[self._frame.capacity :]
        if len(left_out):
            mask = mask.copy()
            for top, bottom, first, end in left_out:
                mask[top:bottom, first:end] = False
        return regions[: self._frame.capacity], mask

    def _measure(self, access_unit: bytes, mask: Mask) -> float:
        return float(self._parser.parse(access_unit).bits[mask].sum())

    def _motion(self, picture: Picture, mask: Mask) -> tuple[tuple[float, float], tuple[float, float]]:
        """Absolute difference of the luma to the last picture, in the mask and outside it.

        First the means over the samples, then the medians over the macroblocks (whole ones only).
        """
        width, height = self.size
        small = (width // _MOTION_SCALE, height // _MOTION_SCALE)
        luma = shrunk(planes(picture.i420)[0], small)
        last, self._last_luma = self._last_luma, luma
        if last is None:
            return (1.0, 1.0), (1.0, 1.0)
        difference = cv2.absdiff(luma, last)
        block = MACROBLOCK // _MOTION_SCALE
        inside = np.repeat(np.repeat(mask.view(np.uint8), block, axis=0), block, axis=1)[: small[1], : small[0]]
        means = float(cv2.mean(difference, inside)[0]), float(cv2.mean(difference, 1 - inside)[0])
        rows, columns = height // MACROBLOCK, width // MACROBLOCK
        whole = difference[: rows * block, : columns * block].astype(np.float32)
        blocks = np.asarray(cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA), np.float32)
        face = mask[:rows, :columns]
        return means, (_median(blocks[face]), _median(blocks[~face]))


def _median(values: NDArray[np.float32]) -> float:
    return float(np.median(values)) if values.size else 0.0


def warm_up() -> None:
    """Compile what a call needs, so that its first picture does not wait (seconds, once per installation)."""
    from sender.cavlc import warm_up as warm_up_parser

    warm_up_parser()


def _open_x264(width: int, height: int, fps: float, preset: str) -> av.VideoCodecContext:
    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt = width, height, "yuv420p"
    rate = Fraction(fps).limit_denominator(1001)
    codec.framerate, codec.time_base = rate, 1 / rate
    codec.gop_size, codec.thread_count = _NO_GOP, 1
    codec.color_range, codec.colorspace = 1, 6  # H.273: limited range, SMPTE 170M (BT.601)
    codec.options = {"preset": preset, **_OPTIONS}
    codec.profile = "Baseline"
    codec.open()
    return codec
