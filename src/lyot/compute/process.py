"""Memory and garbage collection of the process: tuned where the package owns it, else left alone.

A library does not change its host, so nothing here takes effect until `own` has been called: by
the command line, in its process and on the workers of its cluster. A script may call it too.
"""

from __future__ import annotations

import ctypes
import gc

MAX_KEPT_BYTES = 32 * 2**20
MAX_FREE_BYTES = 64 * 2**20

_owned = False


def own() -> None:
    """Declare that this process runs the package alone, and tune its memory for it.

    By default glibc returns freed arrays of a megabyte to the system at once, and the next one is
    handed out page by page: half of the time of an alignment. From now on arrays below 32 MiB are
    kept for the next one. Elsewhere than on glibc this does nothing.
    """
    global _owned
    if _owned:
        return
    _owned = True
    mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(mmap_threshold, MAX_KEPT_BYTES)
    mallopt(trim_threshold, MAX_FREE_BYTES)


def is_owned() -> bool:
    """Tell whether this process has been declared the package's own."""
    return _owned


def freeze_imports() -> None:
    """Leave all objects of now out of garbage collections: stpipe collects before each step."""
    if _owned:
        gc.freeze()
