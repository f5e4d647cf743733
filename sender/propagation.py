"""The face mask between looks of the network: carried along by optical flow, steadied against single slips.

Pure arithmetic on one thread, without a clock: the same pictures and parses give the same masks.
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.grid import Mask

Grid = NDArray[np.float32]
"""Values of equal cells over a whole picture: float32 [h', w'] (of a displacement [h', w', 2]: x, y in cells)."""

_CELL = 4  # samples of the small luma along a cell of the motion grid: what DIS resolves at its ultrafast preset
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


class MaskTracker:
    """Belief in a face per cell of the parser's grid, and the mask that follows from it.

    For every picture call `advance`. For a picture that the parser is to look at call `mark`, and with what it found,
    at once or some pictures later, `observe`. A parse that disagrees with the belief over more than the rim of a face
    puts these cells in dispute: they stay as they are, `urgent` asks for another parse at once, and what that
    confirms is taken in full. So one wrong parse changes nothing, and who comes or goes is settled by two.
    """

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._luma: NDArray[np.uint8] | None = None
        self._coarse: Grid = np.zeros((0, 0), np.float32)
        self._count = 0
        self._marked: int | None = None  # the picture that is being parsed
        self._since_mark: Grid | None = None
        # At the last parse: belief, the disputed parse, whether in dispute: float32 [h', w', 3]. Carried from there
        # in one step: a picture's belief from the one before would blur a little with every picture.
        self._parsed: Grid | None = None
        self._since_parse: Grid | None = None
        self._now: Grid | None = None
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
        return self._parsed is not None and bool(self._parsed[..., 2].any())

    @property
    def mask(self) -> Mask:
        """Bool [h', w'], the parser's grid; all False, of whatever size, while nothing is known."""
        return self._mask

    @property
    def belief(self) -> Grid:
        """How far cells are believed to be face, 0..1, in the mask and beside it; 0 elsewhere. Float32 [h', w']."""
        if self._now is None:
            return np.zeros(self._mask.shape, np.float32)
        near = cv2.dilate(self._mask.astype(np.uint8), _BESIDE).astype(np.bool_)
        return np.where(near, self._now[..., 0], np.float32(0))

    def advance(self, luma: NDArray[np.uint8]) -> None:
        """Go on to the next picture: uint8 [h, w], its luma at about 320x180, always the same size."""
        self._count += 1
        coarse = _coarse(luma)
        if self._luma is None:
            self._luma, self._coarse = luma, coarse
            return
        change = np.abs(coarse - self._coarse)
        if float(change.max()) < _STILL:
            return  # nor is the picture kept: what moves slowly adds up until it counts
        step = self._step(luma, coarse.shape)
        limit = max(_CUT_LEAST, _CUT * max(float(coarse.std()), float(self._coarse.std())))
        unexplained = float(change.mean())
        if unexplained > limit:
            unexplained = float(np.abs(coarse - _moved(self._coarse, step)).mean())
        self._luma, self._coarse = luma, coarse
        if unexplained > limit:
            self._forget()
            return
        if self._marked is not None:
            self._since_mark = _joined(step, self._since_mark)
        if self._parsed is not None:
            self._since_parse = _joined(step, self._since_parse)
            self._now = _moved(self._parsed, self._since_parse)
            self._renew(_moved(self._mask.astype(np.float32), step) > 0.5)

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
        self._marked = self._since_mark = self._since_parse = None
        if self._now is None or self._now.shape[:2] != found.shape:
            nothing = np.zeros_like(found)
            self._parsed = self._now = np.dstack([found, nothing, nothing])
            self._renew(np.zeros(found.shape, np.bool_))
            return True
        belief, before, disputed = np.moveaxis(self._now, 2, 0)
        confirmed = (disputed > 0.5) & (np.abs(found - before) < np.abs(found - belief))
        open_ = _dispute(found, belief) & ~confirmed
        blended = belief + _BLEND * (found - belief)
        settled = np.where(confirmed, found, np.where(open_, belief, blended))
        self._parsed = self._now = np.dstack([settled, found, open_.astype(np.float32)])
        self._renew(self._mask)
        return True

    def _step(self, luma: NDArray[np.uint8], shape: tuple[int, ...]) -> Grid:
        """Where every cell of the motion grid, of this `shape`, was in the last picture."""
        flow = self._dis.calc(luma, self._luma, None)  # type: ignore[call-overload]
        ratio = np.array([shape[1] / luma.shape[1], shape[0] / luma.shape[0]], np.float32)
        return cast(Grid, cv2.resize(flow, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)) * ratio

    def _forget(self) -> None:
        self._marked = self._since_mark = self._parsed = self._since_parse = self._now = None
        self._mask = np.zeros_like(self._mask)

    def _renew(self, before: Mask) -> None:
        """The mask from belief and the mask before, each face by itself."""
        assert self._now is not None
        belief = self._now[..., 0]
        cells = (belief > _ON) | (before & (belief >= _OFF))
        count, labels, figures, _ = cv2.connectedComponentsWithStats(cells.astype(np.uint8), connectivity=8)
        # A face that was let in stays until its cells have gone, however weak: else it would blink about _STRONG.
        kept = np.bincount(labels[before], minlength=count) > 0
        strong = np.bincount(labels[belief > _STRONG], minlength=count) > 0
        kept |= strong & (figures[:, cv2.CC_STAT_AREA] >= _FEWEST)
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


def _coarse(luma: NDArray[np.uint8]) -> Grid:
    """The means of the cells of the motion grid, in code values."""
    size = -(-luma.shape[1] // _CELL), -(-luma.shape[0] // _CELL)
    return cast(Grid, cv2.resize(luma, size, interpolation=cv2.INTER_AREA).astype(np.float32))


def _moved(values: Grid, displacement: Grid) -> Grid:
    """Values [h', w'] or [h', w', n] of an earlier picture where they are now; beyond its edge as at the edge."""
    rows, columns = values.shape[:2]
    height, width = displacement.shape[:2]
    if (height, width) != (rows, columns):
        ratio = np.array([columns / width, rows / height], np.float32)
        displacement = cast(Grid, cv2.resize(displacement, (columns, rows), interpolation=cv2.INTER_LINEAR)) * ratio
    across, down = np.meshgrid(np.arange(columns, dtype=np.float32), np.arange(rows, dtype=np.float32))
    places = displacement + np.dstack([across, down])
    nothing = np.empty(0, np.float32)  # OpenCV's "no second map"
    return cast(Grid, cv2.remap(values, places, nothing, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def _joined(step: Grid, earlier: Grid | None) -> Grid:
    """The displacement to a picture by way of the last one."""
    return step if earlier is None else step + _moved(earlier, step)
