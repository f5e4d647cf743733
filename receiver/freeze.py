"""What is shown after a loss: the last clean picture, or the damaged ones (`--on-loss`). Pure policy."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

OnLoss = Literal["freeze", "show"]

LONGEST_FREEZE = 1.0  # seconds; the next IDR takes less on any link that carries a call


class Freeze:
    """`freeze` holds damaged pictures back, `show` none. A face that smears looks worse than one that stands still.

    For a second: with no clean picture by then the IDR is late or lost, and what moves says more than a still,
    until the next clean one. For one thread.
    """

    def __init__(self, on_loss: OnLoss, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds, never running back."""
        self._on_loss, self._clock = on_loss, clock
        self._since: float | None = None  # when the first damaged picture came after a clean one
        self.held = 0
        """Damaged pictures held back."""

    def shows(self, damaged: bool) -> bool:
        """Whether to show the next picture."""
        if not damaged:
            self._since = None
            return True
        if self._on_loss == "show":
            return True
        now = self._clock()
        self._since = now if self._since is None else self._since
        if now - self._since >= LONGEST_FREEZE:
            return True
        self.held += 1
        return False
