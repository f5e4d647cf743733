"""A one-slot mailbox between two threads: the newest item wins, so latency cannot grow."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """Holds at most one item. `put` replaces an unread item and counts it in `dropped`.

    A reader that took an item and did nothing with it says so with `drop`: it counts as unread too.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._item: T | None = None
        self._closed = False
        self.dropped = 0

    def put(self, item: T) -> None:
        """Leave `item` for the reader; an unread one is dropped. Ignored once closed."""
        with self._condition:
            if self._closed:
                return
            self.dropped += self._item is not None
            self._item = item
            self._condition.notify()

    def get(self, timeout: float | None = None) -> T | None:
        """Take the item, waiting at most `timeout` seconds (None: until one comes).

        Returns None on time-out, and at once when the mailbox is closed and empty.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._item is not None or self._closed, timeout)
            item, self._item = self._item, None
            return item

    def drop(self) -> None:
        """Count an item that was taken out in vain."""
        with self._condition:
            self.dropped += 1

    def close(self) -> None:
        """Wake the reader; what is inside can still be taken."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed
