"""The encode thread: newest picture in, its face mask, access units out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from sender.adaptation import FrameLimit, Ladder, scaled, scaled_size
from sender.encoder import EncodeStats, SemanticEncoder
from sender.face import Segmenter
from sender.rate import KeyframeGate
from shared.encode import ShareMode
from shared.grid import Mask, pack_mask
from shared.lines import JsonLines
from shared.mailbox import Latest
from shared.picture import CLOCK_RATE, Picture
from shared.stamp import Stamp, write_stamp
from shared.stats import Stats, WindowedRate

_SHARE_WINDOW = 3.0  # seconds over which the face's share is told and shown
_LOOK = 0.1  # seconds between looks at what a source that pauses leaves to be done
_STILL = 1.0  # seconds without a picture after which the last is sent again: a receiver that hears nothing hangs up


@dataclass(frozen=True, slots=True)
class EncodeOptions:
    """`bitrate`: bit/s; `share`: 0..1; `fps`: nominal; `preset`: x264's; `stats`: JSON lines, one per access unit.

    `append`: after those that are in the file already.
    """

    bitrate: float = 400e3
    share: float = 0.15
    mode: ShareMode = "floor"
    fps: float = 30.0
    preset: str = "veryfast"
    stats: Path | None = None
    append: bool = False


class EncodeThread(threading.Thread):
    """Owns x264. `deliver(access_unit, ticks)` is called here for every coded picture; none is dropped after coding.

    While `congested()` pictures are skipped before coding, which leaves the reference chain whole. Where the source
    pauses, its last picture is sent again about once a second, and at once where a keyframe is asked for. Ticks only
    ever rise. `target`: bit/s that may be spent now, by default the bitrate of the options; where it is too low for
    all pictures at their size, fewer and smaller ones are coded; `usable`: what that is judged by, by default the
    target. While `even()` pictures vary less in size: a large
    one holds up what follows it on a link that has no rate to spare. `clock`: monotonic seconds.
    """

    def __init__(
        self,
        pictures: Latest[Picture],
        segmenter: Segmenter,
        gate: KeyframeGate,
        deliver: Callable[[bytes, int], None],
        congested: Callable[[], bool],
        options: EncodeOptions,
        size: tuple[int, int],
        clock: Callable[[], float] = time.monotonic,
        target: Callable[[], float] | None = None,
        even: Callable[[], bool] = lambda: False,
        usable: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(name="encode", daemon=True)
        self._pictures, self._segmenter, self._gate = pictures, segmenter, gate
        self._deliver, self._congested, self._options = deliver, congested, options
        self._lines = JsonLines(options.stats, options.append)
        self._target, self._even = target or (lambda: options.bitrate), even
        self._usable = usable or self._target
        self._ladder = Ladder(options.bitrate, size[0] * size[1], clock)
        self._limit = FrameLimit()
        self._encoder = self._open(size)  # before the first picture, which would wait for it
        self._clock = clock
        # On the pictures' clock:
        self._bits, self._face_bits = WindowedRate(_SHARE_WINDOW), WindowedRate(_SHARE_WINDOW)
        # On `clock`:
        self._sent, self._pictures_coded = WindowedRate(_SHARE_WINDOW), WindowedRate(_SHARE_WINDOW)
        self._last_stamp = self._last_call = 0
        self._share_told = False
        self._coded_pictures = self._keyframes = 0
        self._now = 0.0
        self._newest: Picture | None = None
        self._came = self._went = 0.0  # when it did, and when something last left, on `clock`
        self._source: Picture | None = None  # of what was coded last, before it was scaled
        self._coded: Picture | None = None
        self.skipped = 0
        self.error: Exception | None = None
        self.last: EncodeStats | None = None
        self.figures = self.stats
        """What the statistics say of the call about once a second; replace it by something that knows more."""

    def run(self) -> None:
        """Until the mailbox is closed."""
        try:
            while True:
                picture = self._pictures.get(_LOOK)
                if picture is not None:
                    self._newest, self._came = picture, self._clock()
                    if self._congested() or not self._wanted(picture):
                        self.skipped += 1
                    else:
                        self._code(picture)
                elif self._pictures.closed:
                    break
                elif self._newest is not None and self._late() and not self._congested():
                    # On the source's own clock, which its next picture goes on with.
                    ticks = self._newest.ticks + round((self._clock() - self._came) * CLOCK_RATE)
                    self._code(replace(self._newest, ticks=ticks))
        except Exception as error:
            self.error = error
            self._pictures.close()
        finally:
            self._lines.close()

    def stats(self) -> Stats:
        """What is being coded; nothing of the link. From any thread."""
        if self.last is None:
            return Stats(role="send", state="starting")
        width, height = self._encoder.size
        now = self._clock()
        return Stats(
            role="send",
            state="live",
            width=width,
            height=height,
            fps=self._pictures_coded.per_second(now),
            kbps=self._sent.per_second(now) / 1e3,
            face_share=self.face_share,
            qp_face=self.last.qp_face,
            qp_background=self.last.qp_background,
            pictures=self._coded_pictures,
            keyframes=self._keyframes,
            dropped=self.dropped,
            skipped=self.skipped,
            trouble="" if self.log_error is None else "log stopped",
        )

    @property
    def dropped(self) -> int:
        """Captured pictures that were not coded so far."""
        return self._pictures.dropped + self.skipped

    @property
    def level(self) -> int:
        """Rung of the ladder: 0 for all pictures at their size, see `sender.adaptation.RUNGS`."""
        return self._ladder.level

    @property
    def size(self) -> tuple[int, int]:
        """Width and height that are coded."""
        return self._encoder.size

    @property
    def log_error(self) -> OSError | None:
        """Why the statistics broke off, if they did."""
        return self._lines.error

    @property
    def face_share(self) -> float | None:
        """Measured share of the bits on the face over the last seconds, 0..1; None when nobody is seen.

        While the source pauses it stays what it was.
        """
        bits, face_bits = self._bits.total(self._now), self._face_bits.total(self._now)
        return face_bits / bits if bits and face_bits else None

    def _open(self, size: tuple[int, int]) -> SemanticEncoder:
        o = self._options
        return SemanticEncoder(*size, self._target(), o.share, fps=o.fps, mode=o.mode, preset=o.preset)

    def _late(self) -> bool:
        return self._gate.pending or self._clock() - self._went >= _STILL

    def _wanted(self, picture: Picture) -> bool:
        """Whether the rate is enough for this picture, too."""
        fps = self._ladder.update(self._usable()).fps
        return self._limit.due(picture.ticks, fps) or self._gate.pending

    def _code(self, picture: Picture) -> None:
        last, source = self._coded, self._source
        size = scaled_size(picture.width, picture.height, self._ladder.rung.scale)
        again = last is not None and source is not None and picture.i420 is source.i420 and size == self._encoder.size
        self._source = picture
        picture = replace(picture, i420=last.i420 if last is not None and again else scaled(picture.i420, size))
        # A late source may be overtaken by its own repeated picture. More than that is a clock that was set back.
        if last is not None and 0 <= last.ticks - picture.ticks < CLOCK_RATE:
            picture = replace(picture, ticks=last.ticks + 1)
        self._coded, self._went = picture, self._clock()
        if self._encoder.size != size:
            self._encoder = self._open(size)
        self._encoder.controller.retarget(self._target())
        self._encoder.controller.even = self._even()
        mask = self._segmenter.mask(picture)
        asked = self._gate.due()

        def coded(access_unit: bytes, keyframe: bool) -> None:
            first = self.face_share is not None and not self._share_told
            if keyframe or first or picture.ticks - self._last_stamp >= CLOCK_RATE:
                self._last_stamp, self._share_told = picture.ticks, self.face_share is not None
                access_unit = write_stamp(Stamp(picture.ticks, self.face_share)) + access_unit
            self._deliver(access_unit, picture.ticks)

        _, stats = self._encoder.encode(picture, mask, asked, again, coded)
        stats = replace(stats, milliseconds={**self._segmenter.milliseconds, **stats.milliseconds})
        if stats.keyframe and not asked:  # the first picture, or a new size: it answers who asks meanwhile
            self._gate.sent()
        if stats.keyframe or not again:
            self._now = picture.ticks / CLOCK_RATE
            self._bits.add(self._now, stats.bits)
            self._face_bits.add(self._now, stats.face_bits)
        self._sent.add(self._went, stats.bits)
        self._pictures_coded.add(self._went)
        self.last = stats
        self._coded_pictures += 1
        self._keyframes += stats.keyframe
        line = record(picture, mask, stats, self.dropped)
        if picture.ticks - self._last_call >= CLOCK_RATE:
            self._last_call = picture.ticks
            line["call"] = self.figures().known()
        self._lines.write(line)


def record(picture: Picture, mask: Mask, stats: EncodeStats, dropped: int = 0) -> dict[str, object]:
    """A coded picture as one line of `--stats`, ready for JSON; live call and offline encoder write the same.

    `ticks`: the picture's time, 90 kHz; `frame`: its index in the source; `dropped`: pictures left out so far;
    `ms`: milliseconds per stage, of the face `shrink`, `flow` and, where a parse came in, `network`;
    `mask`: see `pack_mask`.
    """
    return {
        "ticks": picture.ticks,
        "frame": picture.index,
        "width": picture.width,
        "height": picture.height,
        "bits": stats.bits,
        "face_bits": round(stats.face_bits, 1),
        "share": round(stats.share, 5),
        "qp_face": round(stats.qp_face, 2),
        "qp_background": round(stats.qp_background, 2),
        "keyframe": stats.keyframe,
        "dropped": dropped,
        "ms": {name: round(value, 3) for name, value in stats.milliseconds.items()},
        "mask": pack_mask(mask),
    }
