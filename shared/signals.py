"""Ctrl-C and SIGTERM, once and in peace."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

_WAY_OUT = 5.0  # seconds in which cleaning up is not to be cut short; one that hangs can be ended after that


@contextlib.contextmanager
def interruptible(clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """SIGINT and SIGTERM raise KeyboardInterrupt in the block; for some seconds after one, further ones are ignored.

    A process group hears Ctrl-C twice, and so does who is impatient: the second must not end the cleaning up that
    the first began. A SIGINT that was ignored before (a background job) stays so. Only the main thread can arrange
    all that: in another, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    last = float("-inf")

    def handle(_number: int, _frame: FrameType | None) -> None:
        nonlocal last
        now = clock()
        if now - last >= _WAY_OUT:
            last = now
            raise KeyboardInterrupt

    kinds = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        kinds.append(signal.SIGINT)
    with handling(kinds, handle):
        yield


@contextlib.contextmanager
def handling(kinds: Sequence[signal.Signals], handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """`handle` hears these signals in the block; afterwards who heard them before does again."""
    before = [signal.signal(kind, handle) for kind in kinds]
    try:
        yield
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)
