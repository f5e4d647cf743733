"""Memory that a picture has left: the next one uses it again, and soon."""

from __future__ import annotations

import ctypes
import gc
import sys

# malloc.h of the GNU C library
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST = 32 << 20
"""Bytes; the most that the library takes for a threshold of mmap, and more than a picture of 3840x2160 has."""
_SPARE = 64 << 20
"""Bytes at a heap's end that stay."""
_FRAMES = 16
"""Frames that may wait for the garbage collector."""


def keep_freed_memory() -> bool:
    """Let the GNU C library keep freed blocks of a picture's size; returns whether it does.

    It gives large blocks back to the system at once, and a thread's heap as soon as its end is free; then every page
    of the next picture is a fault, some 2 us each: more than a thousand a picture in the receiver's restorer alone.
    Other libraries are left as they are.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, _SPARE))


def settle() -> None:
    """Tell the garbage collector that what is there now stays: its full runs then look at what came since.

    For when a program stands, and before there is anything of a call, which would stay for good.
    """
    gc.collect()
    gc.freeze()


class FrameCollector:
    """Frees decoded frames whose side data was read.

    PyAV's frame and its side data refer to each other, so that only the garbage collector finds them, and it counts
    objects, not megabytes: some two hundred frames of 1280x720, 200 MB, wait for it.
    """

    def __init__(self) -> None:
        self._read = 0
        if not gc.get_freeze_count():
            settle()

    def read(self) -> None:
        """Another frame's side data was read, or is about to be."""
        self._read += 1
        if self._read % _FRAMES == 0:
            gc.collect()
