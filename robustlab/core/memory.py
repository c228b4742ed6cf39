"""Memory that a process has once had, it keeps."""

import ctypes
import sys
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


@cache
def keep_memory() -> bool:
    """Ask the C library not to give freed memory back to the system; whether it will.

    The graph of a step of an attack or a training is some hundred megabytes, which are otherwise
    fetched again in every step, page by page. No number changes. Only glibc can be asked;
    elsewhere nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_MMAP_THRESHOLD, 1 << 30) and mallopt(_TRIM_THRESHOLD, (1 << 31) - 1))
