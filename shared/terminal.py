"""A call's figures in the terminal, the same at both ends: a live table, or plain lines into a file or pipe."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from shared.stats import Stats


class Board:
    """Shows the `Stats` handed to it as a live table; where the output is no terminal, as a plain line now and then.

    Plain lines come at once when the state changes, and every `plain_period` seconds where there is news. Calls must
    not overlap. `clock`: monotonic seconds.
    """

    def __init__(
        self,
        console: Console | None = None,
        plain_period: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console or Console()
        self._plain_period, self._clock = plain_period, clock
        self._live: Live | None = None
        self._kind = self._said = ""
        self._since = 0.0

    def show(self, stats: Stats, last: bool = False) -> None:
        """These are the figures now. `last`: say them in a plain line too, unless that was just done."""
        if self._console.is_terminal:
            self._draw(stats)
        elif last or _kind(stats) != self._kind or self._clock() - self._since >= self._plain_period:
            self._print(stats)

    def close(self) -> None:
        """Leave the terminal as it was, the table in it. May be repeated."""
        if self._live is not None:
            self._live.stop()

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _draw(self, stats: Stats) -> None:
        if self._live is None:
            self._live = Live(table(stats), console=self._console, auto_refresh=False)
            self._live.start(refresh=True)
        else:
            self._live.update(table(stats), refresh=True)

    def _print(self, stats: Stats) -> None:
        self._since = self._clock()
        if stats.state == self._said:
            return
        self._kind, self._said = _kind(stats), "" if stats.state == "live" else stats.state
        self._console.print(plain_line(stats), markup=False, highlight=False, soft_wrap=True)


class TerminalView:
    """A `Board` with a thread of its own that asks `stats()` twice a second, between `start` and `stop`.

    Use it as a context manager or call both. `period`: seconds.
    """

    def __init__(
        self,
        stats: Callable[[], Stats],
        console: Console | None = None,
        period: float = 0.5,
    ) -> None:
        self._stats, self._period = stats, period
        self._board = Board(console)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to show."""
        self._thread = threading.Thread(target=self._run, name="terminal", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Show the figures a last time and leave the terminal as it was. May be repeated."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> TerminalView:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        with self._board as board:
            board.show(self._stats())
            while not self._stop.wait(self._period):
                board.show(self._stats())
            board.show(self._stats(), last=True)


def _kind(stats: Stats) -> str:
    """The state without its numbers: "No media for 3 s" is no news after "No media for 2 s"."""
    return "".join(letter for letter in stats.state if not letter.isdigit())


def plain_line(stats: Stats) -> str:
    """One line, with the counts that `Stats.line` has no room for."""
    if stats.state != "live":
        return stats.line()
    restored = "" if stats.restored_percent is None else f" · restored {stats.restored_percent:.0f}%"
    return stats.line() + restored + ("" if stats.dropped is None else f" · dropped {stats.dropped}")


def table(stats: Stats) -> Table:
    """The figures as two columns; a dash where a figure is not known yet."""
    result = Table(title=f"semcall {stats.role}", title_justify="left", show_header=False, min_width=44)
    result.add_column(style="dim", no_wrap=True)
    result.add_column(overflow="fold")
    for name, value in stats.rows():
        # No markup: addresses such as http://[::1]:8787 hold brackets, and lines said during a call switch it off.
        result.add_row(name, Text(value, "bold green" if value == "live" else ""))
    return result
