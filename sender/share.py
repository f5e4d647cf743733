"""The controller of rate and face share: pure arithmetic on measured bits, no I/O, no clock.

x264 runs as a constant quantiser; this module gives it the quantiser of the face and of the background for every
picture and hears how many bits each took ("allot a predetermined percentage P of a given bitrate to an input mask",
Galteri et al. 2020, section 3.1, which estimates the sizes that are measured here).

The law, per region: ln bits = c + ln area + 0.5 ln(motion + 0.1) - k QP, with c learnt from every P picture.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from shared.encode import ShareMode

QP_MIN, QP_MAX = 14, 51  # below 14 a call's camera noise is coded, not its picture
SLOPE_FACE, SLOPE_BACKGROUND = 0.15, 0.18  # d ln(bits) / d QP, measured over talking heads at 200-1000 kb/s
# Beyond this quantiser the rest falls apart into blocks: then the face yields, as long as it keeps two fifths.
BACKGROUND_COARSEST, BACKGROUND_CLAIM = 46.0, 0.6
KEYFRAME_SLOPE = 0.12  # intra pictures fall more slowly with QP
KEYFRAME_SECONDS = 0.21  # an IDR may take this much of a second's bits: a quarter, less what the trial misses
# Pictures over which a missed budget is made good; nothing is forgotten, so no bias remains. The second: of even
# pictures.
DEBT_PICTURES = 3, 8
# Of an even picture. The ceiling lets a 15 fps source in a 30 fps file, every picture twice, still use its rate.
BUDGET_FLOOR, BUDGET_CEILING = 0.55, 2.5
FACE_DEBT_PICTURES = 10  # the same for the face's part
FACE_DEBT_SECONDS = 1.0  # of the face's rate: what a saturated quantiser leaves undone is not owed for ever
DOWN_FACE, DOWN_BACKGROUND, UP = 2.0, 1.2, 14.0  # QP steps per picture: coarsen at once, sharpen gently
# Weight of the newest picture in c. Sources repeat pictures, which then cost nothing: unlearn slowly, or the next
# real one costs a multiple of its budget. The second pair: even pictures.
LEARNING_UP, LEARNING_DOWN = (0.5, 0.25), (0.25, 0.15)
MOTION_POWER, MOTION_FLOOR = 0.5, 0.1  # bits grow with the root of what moves; a still picture still has noise
# The root holds for motion as usual. What sets in suddenly (noise, a cut, motion after stillness) falls on quantisers
# that were fine for stillness: where the median macroblock moves more than twice as much as in the last pictures,
# expect bits to grow faster.
SURPRISE, SURPRISE_PICTURES, CAUTION = math.log(2), 8, 1.0
MIN_BITS = 60.0  # a region of skipped macroblocks still has a logarithm


@dataclass(slots=True)
class _Region:
    slope: float
    down: float
    qp: float  # of the last P picture
    planned: float = 0.0  # of the picture being coded
    level: float | None = None  # c of the law
    keyframe_level: float | None = None
    load: float = 0.0  # ln area + 0.5 ln(motion + 0.1) of the picture being planned
    log_area: float = 0.0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=SURPRISE_PICTURES))
    caution: float = 0.0  # added to the law while something unheard of happens

    def bits_at(self, qp: float) -> float:
        assert self.level is not None
        return math.exp(self.level + self.load + self.caution - self.slope * qp)


@dataclass(slots=True)
class ShareController:
    """Plans one picture (`plan`), then hears what it took (`feedback`).

    `bitrate`: bit/s; `share`: 0..1 of the bits for the face; `mode`: "exact" gives the face just that share,
    "floor" at least that and never a coarser quantiser than the background's; 0 is plain coding in either.
    All may be changed between pictures. `pixels`: luma samples of a picture, for the opening guess. `even`: make good
    and learn more slowly: sizes vary less from picture to picture, and more from second to second.
    """

    bitrate: float
    share: float
    mode: ShareMode = "floor"
    pixels: int = 1280 * 720
    even: bool = False
    _face: _Region = field(init=False)
    _background: _Region = field(init=False)
    _debt: float = field(init=False, default=0.0)
    _budget: float = field(init=False, default=0.0)
    _period: float = field(init=False, default=1 / 30)
    _elapsed: float = field(init=False, default=1 / 30)
    _keyframe: bool = field(init=False, default=False)
    _area: float = field(init=False, default=0.0)
    _face_debt: float = field(init=False, default=0.0)
    _debt_share: float = field(init=False, default=-1.0)

    def __post_init__(self) -> None:
        # 35 fits a talking head at 400 kb/s, 720p; four steps for every doubling of the bits per sample.
        opening = 35 - 4 * math.log2(self.bitrate / 400e3 * (1280 * 720) / self.pixels)
        opening = min(max(opening, 24.0), 44.0)
        self._face = _Region(SLOPE_FACE, DOWN_FACE, opening - 2)
        self._background = _Region(SLOPE_BACKGROUND, DOWN_BACKGROUND, opening)

    def retarget(self, bitrate: float) -> None:
        """Another bit/s from the next picture on. Where it is lower, what was saved so far is not spent any more."""
        if bitrate < self.bitrate:
            self._debt = min(self._debt, 0.0)
        self._debt = max(self._debt, -0.8 * bitrate)
        self.bitrate = bitrate

    def plan(
        self,
        area: float,
        motion: tuple[float, float],
        keyframe: bool,
        elapsed: float = 1 / 30,
        typical: tuple[float, float] | None = None,
    ) -> tuple[float, float]:
        """Quantisers (face, background) of the next picture: whole numbers, equal or at least two apart.

        `area`: part of the macroblocks in the mask, 0..1; `motion`: mean absolute luma difference to the last
        picture in face and background, code values; `elapsed`: seconds since the last picture; `typical`: the same
        difference of the median macroblock instead of the mean (default: as `motion`).
        """
        self._elapsed = min(max(elapsed, 1 / 240), 0.5)
        self._period += 0.1 * (self._elapsed - self._period)
        self._keyframe, self._area = keyframe, area
        self._observe(area, motion, typical or motion)
        if keyframe:
            self._plan_keyframe()
        else:
            self._plan_inter()
            self._face.qp, self._background.qp = self._face.planned, self._background.planned
        return self._rounded()

    def replan_keyframe(self, face_bits: float, total_bits: float) -> tuple[float, float]:
        """Quantisers of the keyframe just planned, now that a trial with the first plan took these bits."""
        self._learn_keyframe(face_bits, total_bits)
        self._plan_keyframe()
        planned = self._rounded()
        if self._background.level is None:  # the call's first picture: go on from here
            self._face.qp, self._background.qp = planned
        return planned

    def _rounded(self) -> tuple[float, float]:
        self._face.planned, self._background.planned = _whole(
            self._face.planned, self._background.planned, ordered=self.mode == "floor"
        )
        return self._face.planned, self._background.planned

    def _plan_inter(self) -> None:
        face, background = self._face, self._background
        share = self.share if self._area > 0 else 0.0
        even = self.bitrate * self._period
        self._budget = min(
            max(even + self._debt / DEBT_PICTURES[self.even], BUDGET_FLOOR * even), BUDGET_CEILING * even
        )
        if share <= 0:
            face.planned = background.planned = self._common_quantiser()
            return
        face_budget = self._face_budget(share)
        face.planned = self._quantiser(face, face_budget)
        if face.level is not None and face.planned <= QP_MIN:  # the face needs no more: the rest may have it
            face_budget = min(face_budget, face.bits_at(face.planned))
        rest = self._budget - face_budget
        if background.level is not None and rest < background.bits_at(BACKGROUND_COARSEST):
            rest = max(rest, min(background.bits_at(BACKGROUND_COARSEST), BACKGROUND_CLAIM * self._budget))
            face.planned = self._quantiser(face, self._budget - rest)
        background.planned = self._quantiser(background, rest)
        if background.level is not None and background.planned <= QP_MIN:  # nor does the rest: see what it leaves
            left = self._budget - background.bits_at(background.planned)
            face.planned = self._quantiser(face, max(face_budget, left))
        if self.mode == "floor" and face.planned > background.planned:
            face.planned = background.planned = self._common_quantiser()

    def feedback(self, face_bits: float, total_bits: float) -> None:
        """What the planned picture took: bits of the macroblocks in the mask, and of the whole access unit."""
        if self._keyframe:
            self._learn_keyframe(face_bits, total_bits)
        else:
            self._learn_inter(face_bits, total_bits)
        debt = self._debt + self.bitrate * self._elapsed - total_bits
        self._debt = min(max(debt, -0.8 * self.bitrate), 0.5 * self.bitrate)

    def _learn_inter(self, face_bits: float, total_bits: float) -> None:
        for region, bits in self._parts(face_bits, total_bits):
            seen = _log(bits) + region.slope * region.planned - region.load
            if region.level is None:
                region.level = seen
            else:
                weight = (LEARNING_UP if seen > region.level else LEARNING_DOWN)[self.even]
                region.level += weight * (seen - region.level)
        if self._area > 0:
            limit = FACE_DEBT_SECONDS * self.share * self.bitrate
            owed = self._face_debt + self.share * total_bits - face_bits
            self._face_debt = min(max(owed, -limit), limit)

    def _parts(self, face_bits: float, total_bits: float) -> list[tuple[_Region, float]]:
        parts = [(self._background, total_bits - face_bits)]
        return [*parts, (self._face, face_bits)] if self._area > 0 else parts

    def _learn_keyframe(self, face_bits: float, total_bits: float) -> None:
        for region, bits in self._parts(face_bits, total_bits):
            region.keyframe_level = _log(bits) + KEYFRAME_SLOPE * region.planned - region.log_area

    def _observe(self, area: float, motion: tuple[float, float], typical: tuple[float, float]) -> None:
        regions = self._face, self._background
        for region, part, moved, usual in zip(regions, (area, 1 - area), motion, typical, strict=True):
            region.log_area = math.log(max(part, 1e-4))
            region.load = region.log_area + MOTION_POWER * math.log(moved + MOTION_FLOOR)
            load = math.log(usual + MOTION_FLOOR)
            jump = load - max(region.recent, default=load) - SURPRISE
            region.caution = CAUTION * max(0.0, jump)
            region.recent.append(load)

    def _plan_keyframe(self) -> None:
        """An IDR within its own budget, at most one step finer than the P pictures around it."""
        face, background = self._face, self._background
        budget = KEYFRAME_SECONDS * self.bitrate
        share = self.share if self._area > 0 else 0.0
        for region, target in ((face, share * budget), (background, (1 - share) * budget)):
            region.planned = region.qp
            if region.keyframe_level is None or target <= 0:
                continue
            fitting = (region.keyframe_level + region.log_area - math.log(target)) / KEYFRAME_SLOPE
            region.planned = min(max(fitting, region.qp - 1, QP_MIN), QP_MAX)
        if share <= 0 or (self.mode == "floor" and face.planned > background.planned):
            face.planned = background.planned = self._common_keyframe_quantiser(budget)

    def _common_keyframe_quantiser(self, budget: float) -> float:
        """One quantiser for both regions that fits a keyframe to `budget` bits, as far as keyframes are known."""
        background = self._background
        regions = (r for r in (self._face, background) if r.log_area > -9)
        levels = [r.keyframe_level + r.log_area for r in regions if r.keyframe_level is not None]
        if not levels:
            return background.qp
        fitting = (math.log(sum(map(math.exp, levels))) - math.log(budget)) / KEYFRAME_SLOPE
        return min(max(fitting, background.qp - 1, QP_MIN), QP_MAX)

    def _face_budget(self, share: float) -> float:
        if share != self._debt_share:  # pictures coded for another share owe nothing
            self._face_debt, self._debt_share = 0.0, share
        even = share * self._budget
        ceiling = min(2.5 * even, (0.5 + 0.5 * share) * self._budget)
        return min(max(even + self._face_debt / FACE_DEBT_PICTURES, 0.35 * even), ceiling)

    def _quantiser(self, region: _Region, target: float) -> float:
        if region.level is None:
            return region.qp
        slope = region.slope + 0.02 * max(0.0, 30 - region.qp)  # fine quantisers code noise: bits rise faster
        wanted = region.qp + (math.log(region.bits_at(region.qp)) - _log(target)) / slope
        return min(max(wanted, region.qp - region.down, QP_MIN), region.qp + UP, QP_MAX)

    def _common_quantiser(self) -> float:
        """One quantiser for both regions that meets the frame budget (bisection on the law)."""
        regions = [r for r in (self._face, self._background) if r.level is not None]
        before = max(self._face.qp, self._background.qp) if self._area > 0 else self._background.qp
        if not regions:
            return before
        low, high = float(QP_MIN), float(QP_MAX)
        for _ in range(16):
            middle = (low + high) / 2
            if sum(region.bits_at(middle) for region in regions if region.log_area > -9) > self._budget:
                low = middle
            else:
                high = middle
        return min(max(high, before - DOWN_BACKGROUND, QP_MIN), before + UP, QP_MAX)


def _whole(face: float, background: float, *, ordered: bool) -> tuple[float, float]:
    """The nearest pair of whole quantisers that x264 codes as asked; `ordered`: the face no coarser.

    x264 rounds what it is given, and a macroblock one step from the macroblock before it takes that one's
    quantiser to save the delta (macroblock_analyse, subme < 10): regions one step apart would become one.
    """
    near = [
        (math.hypot(f - face, b - background), float(f), float(b))
        for f in range(math.floor(face) - 1, math.floor(face) + 3)
        for b in range(math.floor(background) - 1, math.floor(background) + 3)
        if abs(f - b) != 1 and min(f, b) >= QP_MIN and max(f, b) <= QP_MAX and not (ordered and f > b)
    ]
    _, whole_face, whole_background = min(near)
    return whole_face, whole_background


def _log(bits: float) -> float:
    return math.log(max(bits, MIN_BITS))
