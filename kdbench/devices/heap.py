"""The C library's heap during training on a CPU: what one step frees, the next asks for again."""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""What ``mallopt`` calls the two settings (``malloc.h``)."""
KEPT_BYTES = 2**31 - 1
"""Free bytes at the heap's end that stay with the process; the largest number that fits."""
LARGEST_BYTES = 2**30
"""A larger block is mapped for itself, and given back when it is freed."""


def keep_freed() -> bool:
    """Freed memory stays with the process until it ends; values and their order do not depend on it.

    glibc gives large blocks back at once, those over 32 MiB always: every step would then have the pages of its maps
    faulted in and zeroed anew, which is a third of a step's time where batches hold several views. Peak residence
    rises instead, by as much as the heap is fragmented.

    Returns:
        Whether both settings were taken; a C library without them is left as it is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return all([mallopt(MMAP_THRESHOLD, LARGEST_BYTES), mallopt(TRIM_THRESHOLD, KEPT_BYTES)])
