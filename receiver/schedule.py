"""How much restoring there is time for. Pure policy, on times that the caller gives.

The rungs are ways to restore a picture, the best first, mostly slower than the next; below the last of them pictures
are shown as they are. Down it goes at once, on what pictures really took and how fast they follow each
other; up only after a while of calm, one at a time, and only to a rung whose known time leaves a margin. Such times
age: where an old one would fit by now, the rung is `due` to be measured again, on one of the call's own pictures, or
beside the call where it is far too slow or pictures come late. After a step up in vain the next one waits twice as
long, and goes past that rung where one above it fits; a rung measured in vain waits twice as long, the others do not.
"""

from __future__ import annotations

import math

DEFAULT_BUDGET = 1 / 30  # seconds that restoring may add to a picture: one picture of 30 a second
_SMOOTHING = 0.2  # weight of the newest picture in the estimates
_OUTLIER = 3.0  # budgets; a picture that took longer says no more than that
_MARGIN = 0.85  # of the budget and of the period: a rung above has to fit into it
_CALM = 1.0  # seconds without a change before the next step up, at first
_CALMEST = 60.0  # seconds
_HOPELESS = 8.0  # seconds in which the time of a rung that never fitted counts for half; of others, at first _CALM
_MISS, _MOST_MISSES = 0.02, 0.06  # weight of the newest picture among those not ready in time, and their limit
_REGRET = 10.0  # seconds; a step down within them takes a step up back
_LEISURE = 20.0  # measuring a rung anew takes one in so many of the seconds that pass


class RestoreSchedule:
    """Decides per picture. `now` is the caller's clock in seconds, the same for all calls, and never runs back."""

    def __init__(self, rungs: int, budget: float = DEFAULT_BUDGET) -> None:
        """`rungs`: how many there are, 0 or more; `budget`: seconds that may pass from decoded to restored."""
        self._budget = budget
        self.off = rungs
        """The rung on which nothing is restored."""
        self.reset()

    def reset(self) -> None:
        """Forget all times: pictures have another size now."""
        self.rung = self.off
        """Where it stands: 0 is the best; `off` where nothing is restored."""
        self.due: int | None = None
        """A rung of which nobody knows any more how long it takes: to be measured."""
        self.probing = False
        """Whether `choose` gives `due` a picture for that; else it is to be measured beside the call."""
        self._known: list[float | None] = [None] * self.off
        self._since = [-math.inf] * self.off
        self._patience = [_CALM] * self.off  # seconds in which a known time counts for half
        self._age = self._misses = 0.0
        self._period = math.inf  # seconds from one picture to the next
        self._changed = self._rose = -math.inf
        self._calm = _CALM
        self._vain = self.off  # the rung stepped up to in vain, not long ago

    @property
    def measured_any(self) -> bool:
        """Whether the time of any rung is known."""
        return any(seconds is not None for seconds in self._known)

    def measured(self, rung: int, seconds: float, now: float) -> None:
        """`rung` was tried, beside the call or on a picture. The first time, it is stepped up to where it fits."""
        first = self._known[rung] is None
        self._learn(rung, seconds, now)
        fits = self._fits(seconds)
        if first:
            if rung < self.rung and fits:
                self.rung = rung
            self._patience[rung] = _HOPELESS
        elif rung == self.due:
            self._patience[rung] = min(2 * self._patience[rung], _CALMEST)
        if fits:
            self._patience[rung] = _CALM
        if rung == self.due:
            self._forget_due()

    def lost(self, rung: int, now: float) -> None:
        """`rung` cannot be used any more."""
        self._known[rung] = None
        if self.due == rung:
            self._forget_due()
        if self.rung == rung:
            self._step_down(now)

    def choose(self, age: float, now: float, typical: bool = True, period: float = math.inf) -> int | None:
        """The rung for a picture decoded `age` seconds ago; None shows it as it is.

        `typical`: whether that age says anything of the next ones; `period`: seconds from one to the next. On a rung
        that takes longer, though it keep the budget, pictures would wait for each other and some be left out.
        """
        self._period = period
        if typical:
            self._age += _SMOOTHING * (min(age, _OUTLIER * self._budget) - self._age)
        if self.rung != self.off and not self._keeps_up(self.rung):
            self._step_down(now)
        self._consider_better(now)
        if self.due is not None:
            young = self._budget / 2
            self.probing = self._age <= young and self._time(self.due) <= _OUTLIER * self._budget
            if self.probing and typical and age <= young:
                return self.due
        if self.rung == self.off or age + self._time(self.rung) > self._budget:
            return None
        return self.rung

    def took(self, rung: int, seconds: float, now: float) -> None:
        """A picture was restored on `rung` in `seconds`."""
        if self.probing and rung == self.due:
            self.measured(rung, seconds, now)
            return
        before = self._known[rung]
        if before is not None:
            seconds = before + _SMOOTHING * (min(seconds, _OUTLIER * self._budget) - before)
        self._learn(rung, seconds, now)

    def shown(self, in_time: bool, now: float) -> None:
        """A picture that was to be restored was shown: restored, or as it is because that was not ready.

        Nothing is learnt while a rung is tried: what is late then is so because of that.
        """
        if self.probing:
            return
        self._misses += _MISS * (float(not in_time) - self._misses)
        if self._misses > _MOST_MISSES and self.rung != self.off:
            self._step_down(now)

    def _step_down(self, now: float) -> None:
        self._misses = 0.0
        if now - self._rose < _REGRET:
            self._calm, self._vain = min(2 * self._calm, _CALMEST), self.rung
        elif now - self._changed >= _REGRET:
            self._calm, self._vain = _CALM, self.off
        self._rose = -math.inf  # one step up is regretted once
        self._changed = now
        too_slow = self._time(self.rung)
        self.rung += 1
        while self.rung != self.off and not self._is_relief(self.rung, too_slow):
            self.rung += 1

    def _is_relief(self, rung: int, too_slow: float) -> bool:
        return self._time(rung) < too_slow and self._keeps_up(rung)

    def _keeps_up(self, rung: int) -> bool:
        return self._fits(self._time(rung), 1.0)

    def _consider_better(self, now: float) -> None:
        better = [rung for rung in range(self.rung) if self._known[rung] is not None]
        fitting = [rung for rung in better if self._fits(self._time(rung))]
        if fitting and now - self._changed >= self._calm:
            others = [rung for rung in fitting if rung < self._vain]
            self.rung, self._rose, self._changed = (others or fitting)[-1], now, now
            self._forget_due()
        elif self.due is None:
            worth = [rung for rung in better if rung not in fitting and self._may_fit_by_now(rung, now)]
            self.due = max(worth, default=None)

    def _forget_due(self) -> None:
        self.due, self.probing = None, False

    def _time(self, rung: int) -> float:
        seconds = self._known[rung]
        return math.inf if seconds is None else seconds

    def _fits(self, seconds: float, part: float = _MARGIN) -> bool:
        return self._age + seconds <= part * self._budget and seconds <= part * self._period

    def _may_fit_by_now(self, rung: int, now: float) -> bool:
        seconds, passed = self._time(rung), now - self._since[rung]
        return passed >= _LEISURE * seconds and self._fits(seconds * 0.5 ** (passed / self._patience[rung]))

    def _learn(self, rung: int, seconds: float, now: float) -> None:
        self._known[rung], self._since[rung] = seconds, now
