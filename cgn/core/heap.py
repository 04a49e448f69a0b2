"""Freed memory stays with the process, so that the next tensor of the size finds it at hand.

Decided here: glibc gives large blocks back to the system as soon as they are freed and takes fresh ones, which the
system fills with zeros a page at a time. For maps of tens of megabytes that takes longer than what is computed with
them, and the more so the more images are in a batch. Where there is no glibc, nothing is done.
"""

import ctypes

M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
"""glibc's names and numbers (malloc.h)."""
NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """For the rest of the process: no block is mapped on its own, and the heap is not trimmed.

    The process holds on to the most that it ever had; it does not take more than that.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(ctypes.c_int(M_MMAP_MAX), ctypes.c_int(0))
    mallopt(ctypes.c_int(M_TRIM_THRESHOLD), ctypes.c_int(NEVER))
