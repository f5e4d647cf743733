"""Memory that a picture has left stays with the process, for the next picture."""

from __future__ import annotations

import ctypes
import sys

# malloc.h of the GNU C library
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST = 32 << 20
"""Bytes; the most that the library takes for a threshold of mmap, and more than a picture of 3840x2160 has."""
_SPARE = 64 << 20
"""Bytes at a heap's end that stay."""


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
