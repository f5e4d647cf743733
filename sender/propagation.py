"""The face mask between looks of the network: carried along by optical flow, steadied against single slips.

Pure arithmetic on one thread, without a clock: the same pictures and parses give the same masks.
"""

from __future__ import annotations

import functools
from typing import TypeVar, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from sender.geometry import small_size
from shared.grid import Mask

Grid = NDArray[np.float32]
"""Values of equal cells over a whole picture: float32 [h', w'] (of a displacement [h', w', 2]: x, y in cells)."""
_Values = TypeVar("_Values", Grid, NDArray[np.uint8])

_MOTION_CELLS = 2304  # of 20x20 samples at 1280x720: finer ones carry a mask no better over four pictures
_ON, _OFF = 0.5, 0.3  # a cell joins the mask above one and leaves below the other: what lies between does not toggle
_STRONG, _FEWEST = 0.9, 3  # a new face needs one cell as sure as this, and so many cells: lamps and knots seldom do
_BLEND = 0.5  # weight of a new parse: halves what a network trembles, and settles within three parses
_DISPUTED = 0.5  # a cell that a parse says this differently is in dispute...
_CHANGED = 0.15  # ...and so are cells beside it that it says this differently
_STILL = 2.0  # mean difference of a cell in code values below which nothing moved there: four times a camera's noise
# Mean difference that motion does not explain, over the contrast (standard deviation): clips reach 0.16, and 0.20 at
# a fifth of their light; cuts between them begin at 0.28 and 0.31.
_CUT, _CUT_LEAST = 0.24, 2.0  # ... and in code values, lest noise in the dark looks like a cut
_PAIR, _BESIDE, _AROUND = np.ones((2, 2), np.uint8), np.ones((3, 3), np.uint8), np.ones((5, 5), np.uint8)


def motion_grid(width: int, height: int) -> tuple[int, int]:
    """Columns and rows of the motion grid of pictures of `width` x `height`: 64 x 36 for 1280x720."""
    return small_size(width, height, _MOTION_CELLS, 1, 8)


class MaskTracker:
    """Belief in a face per cell of the parser's grid, and the mask that follows from it.

    For every picture call `advance`. For a picture that the parser is to look at call `mark`, and with what it found,
    at once or some pictures later, `observe`. A parse that disagrees with the belief over more than the rim of a face
    puts these cells in dispute: they stay as they are, `urgent` asks for another parse at once, and what that
    confirms is taken in full. So one wrong parse changes nothing, and who comes or goes is settled by two.
    """

    def __init__(self) -> None:
        # By itself, ultrafast stops at a quarter of the size that it is given, and has a patch of 8 cells every 4 of
        # them; every 5 cost two thirds of the time and leave about 4% more unexplained.
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._dis.setFinestScale(0)
        self._dis.setPatchStride(5)
        self._luma: NDArray[np.uint8] | None = None
        self._contrast = 0.0
        self._count = 0
        self._marked: int | None = None  # the picture that is being parsed
        self._since_mark: Grid | None = None
        # At the last parse: belief, the disputed parse, whether in dispute: float32 [h', w'] each. Carried from there
        # in one step: a picture's belief from the one before would blur a little with every picture.
        self._parsed: tuple[Grid, Grid, Grid] | None = None
        self._since_parse: Grid | None = None
        self._held: Grid | None = None  # belief and mask as the last parse left them: float32 [h', w', 2]
        self._now: Grid | None = None  # the belief alone
        self._mask: Mask = np.zeros((1, 1), np.bool_)

    @property
    def lost(self) -> bool:
        """Whether nothing is known: no parse since the start or the last scene cut. The next one counts in full."""
        return self._parsed is None

    @property
    def marked(self) -> bool:
        """Whether a parse of this scene is awaited."""
        return self._marked is not None

    @property
    def urgent(self) -> bool:
        """Whether the last parse needs another one to be believed."""
        return self._parsed is not None and bool(self._parsed[2].any())

    @property
    def mask(self) -> Mask:
        """Bool [h', w'], the parser's grid; all False, of whatever size, while nothing is known."""
        return self._mask

    @property
    def belief(self) -> Grid:
        """How far cells are believed to be face, 0..1, in the mask and beside it; 0 elsewhere. Float32 [h', w']."""
        if self._now is None:
            return np.zeros(self._mask.shape, np.float32)
        near = cv2.dilate(self._mask.view(np.uint8), _BESIDE).view(np.bool_)
        return np.where(near, self._now, np.float32(0))

    def advance(self, luma: NDArray[np.uint8]) -> None:
        """Go on to the next picture: uint8 [h, w], the mean luma of the cells of its motion grid (`motion_grid`)."""
        self._count += 1
        if self._luma is None:
            self._luma, self._contrast = luma, _contrast(luma)
            return
        last = self._luma
        if cv2.norm(luma, last, cv2.NORM_INF) < _STILL:
            return  # nor is the picture kept: what moves slowly adds up until it counts
        step = cast(Grid, self._dis.calc(luma, last, None))  # type: ignore[call-overload]
        contrast = _contrast(luma)
        limit = max(_CUT_LEAST, _CUT * max(contrast, self._contrast)) * luma.size
        unexplained = cv2.norm(luma, last, cv2.NORM_L1)
        if unexplained > limit:
            unexplained = cv2.norm(luma, _moved(last, step), cv2.NORM_L1)
        self._luma, self._contrast = luma, contrast
        if unexplained > limit:
            self._forget()
            return
        if self._marked is not None:
            self._since_mark = _joined(step, self._since_mark)
        if self._held is not None:
            self._since_parse = _joined(step, self._since_parse)
            self._now, before = cast("tuple[Grid, Grid]", cv2.split(_moved(self._held, self._since_parse)))
            self._renew(before > 0.5)

    def mark(self) -> int:
        """The newest picture goes to the parser: returns what `observe` needs. Only the last mark counts."""
        self._marked, self._since_mark = self._count, None
        return self._count

    def observe(self, found: Grid, at: int) -> bool:
        """What the parser says of the picture marked `at`: probabilities float32 [h', w'].

        Returns False where that has been overtaken, by a scene cut or a later mark: then nothing changes.
        """
        if at != self._marked:
            return False
        if self._since_mark is not None:
            found = _moved(found, self._since_mark)
        parsed, since = self._parsed, self._since_parse
        self._marked = self._since_mark = self._since_parse = None
        if parsed is None or parsed[0].shape != found.shape:
            nothing = np.zeros_like(found)
            self._parsed, self._now = (found, nothing, nothing), found
            self._renew(np.zeros(found.shape, np.bool_))
            self._hold()
            return True
        belief, before, disputed = parsed
        if since is not None:
            places = _sources(since, *found.shape)
            # Nothing is in dispute nearly always.
            belief, before, disputed = (_sampled(plane, places) if plane.any() else plane for plane in parsed)
        confirmed = (disputed > 0.5) & (np.abs(found - before) < np.abs(found - belief))
        open_ = _dispute(found, belief) & ~confirmed
        blended = belief + _BLEND * (found - belief)
        settled = np.where(confirmed, found, np.where(open_, belief, blended))
        self._parsed, self._now = (settled, found, open_.astype(np.float32)), settled
        self._renew(self._mask)
        self._hold()
        return True

    def _hold(self) -> None:
        assert self._now is not None
        self._held = cast(Grid, cv2.merge([self._now, self._mask.astype(np.float32)]))

    def _forget(self) -> None:
        self._marked = self._since_mark = self._parsed = self._since_parse = self._held = self._now = None
        self._mask = np.zeros_like(self._mask)

    def _renew(self, before: Mask) -> None:
        """The mask from belief and the mask before, each face by itself."""
        assert self._now is not None
        belief = self._now
        cells = (belief > _ON) | (before & (belief >= _OFF))
        count, labels = cv2.connectedComponents(cells.view(np.uint8), connectivity=8)
        if count <= 2:  # nobody or one face, nearly always: the same without the bookkeeping of many
            new = np.count_nonzero(cells) >= _FEWEST and belief.max() > _STRONG
            self._mask = cells if new or (cells & before).any() else np.zeros_like(cells)
            return
        # A face that was let in stays until its cells have gone, however weak: else it would blink about _STRONG.
        kept = np.bincount(labels[before], minlength=count) > 0
        strong = np.bincount(labels[belief > _STRONG], minlength=count) > 0
        kept |= strong & (np.bincount(labels.ravel(), minlength=count) >= _FEWEST)
        kept[0] = False
        self._mask = kept[labels]


def _dispute(found: Grid, belief: Grid) -> Mask:
    """Cells that a parse says so differently that a rim, or a tremble, does not explain it."""
    change = np.abs(found - belief)
    core = cv2.morphologyEx((change > _DISPUTED).astype(np.uint8), cv2.MORPH_OPEN, _PAIR)
    if not core.any():
        return np.zeros(found.shape, np.bool_)
    disputed: Mask = cv2.dilate(core, _AROUND).astype(np.bool_) & (change > _CHANGED)
    return disputed


def _contrast(luma: NDArray[np.uint8]) -> float:
    """The standard deviation, in code values."""
    return float(cv2.meanStdDev(luma)[1][0, 0])


def _moved(values: _Values, displacement: Grid) -> _Values:
    """Values [h', w'], or [h', w', 2], of an earlier picture where they are now; beyond its edge as at the edge."""
    return _sampled(values, _sources(displacement, *values.shape[:2]))


def _sources(displacement: Grid, rows: int, columns: int) -> Grid:
    """Where the values of a grid [rows, columns] were: x, y, in its cells."""
    height, width = displacement.shape[:2]
    if (height, width) != (rows, columns):
        larger = cast(Grid, cv2.resize(displacement, (columns, rows), interpolation=cv2.INTER_LINEAR))
        displacement = larger * _ratio(rows, columns, rows / height, columns / width)
    return displacement + _places(rows, columns)


def _sampled(values: _Values, places: Grid) -> _Values:
    """The values at these places, interpolated."""
    nothing = np.empty(0, np.float32)  # OpenCV's "no second map"
    return cast(_Values, cv2.remap(values, places, nothing, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


@functools.lru_cache(maxsize=8)
def _places(rows: int, columns: int) -> Grid:
    """Where the cells of a grid are: x, y."""
    across, down = np.meshgrid(np.arange(columns, dtype=np.float32), np.arange(rows, dtype=np.float32))
    return np.dstack([across, down])


@functools.lru_cache(maxsize=8)
def _ratio(rows: int, columns: int, down: float, across: float) -> Grid:
    """By how much a displacement grows, once for every cell: NumPy is slow at broadcasting a pair."""
    return np.tile(np.array([across, down], np.float32), (rows, columns, 1))


def _joined(step: Grid, earlier: Grid | None) -> Grid:
    """The displacement to a picture by way of the last one."""
    return step if earlier is None else step + _moved(earlier, step)
