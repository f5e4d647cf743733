"""Whether there is time to restore a picture: restoring never delays the call."""

from __future__ import annotations

DEFAULT_BUDGET = 1 / 30  # seconds that restoring may add to a picture: one picture period
_SMOOTHING = 0.2  # weight of the newest restoration in the estimate
_FORGETTING = 0.97  # per picture passed by: a machine that was busy gets another try after a second or two


class RestoreSchedule:
    """Decides per picture, from how long restorations took lately and how old the picture already is."""

    def __init__(self, budget: float = DEFAULT_BUDGET) -> None:
        """`budget`: seconds from decoded to restored that may pass at most."""
        self._budget = budget
        self._estimate = 0.0

    def admits(self, age: float) -> bool:
        """Whether a picture decoded `age` seconds ago should be restored; False shows it as it is."""
        if age + self._estimate <= self._budget:
            return True
        self._estimate *= _FORGETTING
        return False

    def took(self, seconds: float) -> None:
        """A restoration was done."""
        weight = _SMOOTHING if self._estimate else 1.0
        self._estimate += weight * (seconds - self._estimate)
