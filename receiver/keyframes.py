"""When to ask the sender for an IDR (PLI, RFC 4585 section 6.3.1). Pure policy."""

from __future__ import annotations

import time
from collections.abc import Callable

_LEAST = 0.4  # seconds until the second request, at least
_SENDING = 0.2  # seconds that an IDR takes on the way, besides the round trip: a fifth of a second's bits
_LONGEST = 4.0  # seconds between two requests
_APART = 0.3  # seconds between two requests, even with an IDR in between
_QUIET = 0.25  # seconds without a packet after which the link counts as down


class KeyframeRequests:
    """The first request goes out at once, the next when its IDR could have come, then after twice that and so on.

    Every IDR more is bits that pictures lack: none is asked for while packets of one arrive, nor while nothing
    arrives at all (on a link that is down the request would be lost, and after it one is enough). `want` may be
    called from any thread, the rest from one.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds, never running back."""
        self._clock = clock
        self._wanted = False
        self._since_keyframe = 0  # requests
        self._last: float | None = None
        self.sent = 0
        """Requests so far."""

    def want(self) -> None:
        """Something cannot be decoded; only an IDR that comes from now on will help."""
        self._wanted = True

    def came(self) -> None:
        """A whole IDR is here."""
        self._wanted = False
        self._since_keyframe = 0

    def due(self, tainted: bool, heard: float, coming: bool, rtt: float | None) -> bool:
        """Whether to ask now; the request then counts as sent.

        `tainted`: what arrives cannot be decoded cleanly; `heard`: when the last packet came, by the clock;
        `coming`: an IDR's first packets are here; `rtt`: round trip in seconds, None where not known.
        """
        if not (tainted or self._wanted) or coming:
            return False
        now = self._clock()
        if now - heard > _QUIET:
            return False
        if self._last is not None:
            wait = _APART
            if self._since_keyframe:
                first = max(_LEAST, 2 * (rtt or 0.0) + _SENDING)
                wait = min(first * 2 ** (self._since_keyframe - 1), _LONGEST)
            if now - self._last < wait:
                return False
        self._last = now
        self._since_keyframe = min(self._since_keyframe + 1, 10)
        self.sent += 1
        return True
