"""An event loop for a link's model: what leaves a link at a time leaves at that time, however busy the machine is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_punctual(main: Coroutine[Any, Any, T]) -> T:
    """As asyncio.run, with timers exact to some 0.1 ms and, where the system allows, before all other work.

    epoll waits for whole milliseconds, rounded up; select for microseconds. A real link does not wait for a core of
    the machine at its end, so the loop's thread is scheduled in real time (needs root on Linux; elsewhere it is
    not). Programs that it starts are not.
    """
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        return runner.run(_first(main))


async def _first(main: Coroutine[Any, Any, T]) -> T:
    if not hasattr(os, "SCHED_RESET_ON_FORK"):  # Linux
        return await main
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    try:
        return await main
    finally:
        os.sched_setscheduler(0, *before)
