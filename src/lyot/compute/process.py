"""Memory and garbage collection of the process: tuned where the package owns it, else left alone.

A library does not change its host, so nothing here takes effect until `own` has been called: by
the command line, in its process and on the workers of its cluster. A script may call it too.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from lyot.compute import late
from lyot.errors import LyotError

MAX_KEPT_BYTES = 32 * 2**20
MAX_FREE_BYTES = 64 * 2**20
COLLECT_AFTER = 200_000
"""New objects after which garbage is collected: a run imports as many, and stpipe collects too."""
MIN_ADDRESS_SPACE = 700 * 2**20
"""Bytes that the system must grant: with less, OpenBLAS asks for its buffers for ever."""
LIBRARIES = ("stdatamodels", "asdf", "asdf_astropy", "astropy", "gwcs", "stcal", "drizzle")

_owned, _n_frozen = False, 0
_began_with_one = False
"""Whether libraries were told to make one thread before they were loaded."""


def own() -> None:
    """Declare that this process runs the package alone, and tune its memory for it.

    By default glibc returns freed arrays of a megabyte to the system at once, and the next one is
    handed out page by page: half of the time of an alignment. From now on arrays below 32 MiB are
    kept for the next one, whichever thread makes it: with a store for each thread a run takes a
    fifth more memory. Elsewhere than on glibc this does nothing. What other packages import for
    purposes of their own is executed when it is used. OpenBLAS makes no threads: calculations hold
    it at one (`lyot.compute.threads`), and those that it makes wait busily at first.
    """
    global _owned, _began_with_one
    if _owned:
        return
    _owned = True
    late.defer()
    wanted = os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read where NumPy is imported
    _began_with_one = wanted == "1" and "numpy" not in sys.modules
    gc.set_threshold(COLLECT_AFTER)
    atexit.register(gc.freeze)  # what is left at the end goes with the process
    # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_ARENA_MAX of malloc.h.
    mmap_threshold, trim_threshold, arena_max = -3, -1, -8
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(mmap_threshold, MAX_KEPT_BYTES)
    mallopt(trim_threshold, MAX_FREE_BYTES)
    mallopt(arena_max, 1)


def check_address_space() -> None:
    """Refuse to begin where the shell limits the memory of its commands too far."""
    try:
        import resource
    except ImportError:  # not a Unix
        return
    granted = resource.getrlimit(resource.RLIMIT_AS)[0]
    if 0 <= granted < MIN_ADDRESS_SPACE:
        raise LyotError(
            f"Commands of this shell may have {granted / 2**20:.0f} MB of address space (`ulimit "
            f"-v`), and {MIN_ADDRESS_SPACE / 2**20:.0f} MB are needed; raise that limit."
        )


@cache
def has_single_blas() -> bool:
    """Tell whether the linear algebra has had one thread since it was loaded, and need not be held.

    To hold it takes longer than to import a library: it is searched for among all that are loaded.
    """
    if not _began_with_one:
        return False
    import numpy as np

    parts: Any = np.show_config(mode="dicts")
    names = parts.get("Build Dependencies", {}).get("blas", {}).get("name", "")
    return "openblas" in str(names)


def is_owned() -> bool:
    """Tell whether this process has been declared the package's own."""
    return _owned


def freeze_imports(*, collect: bool = False) -> None:
    """Leave all objects of now out of garbage collections: stpipe collects before each step.

    Where modules have come since the last time; by `collect` garbage goes first, or it would stay.
    """
    global _n_frozen
    if _owned and len(sys.modules) > _n_frozen:
        _n_frozen = len(sys.modules)
        if collect:
            gc.collect()
        gc.freeze()


@contextmanager
def calm_libraries() -> Iterator[None]:
    """Ignore what other packages warn of while several threads use them.

    `warnings.catch_warnings` is not thread-safe: two threads may each restore what the other set.
    What was set before is set again at the end, when one thread is left.
    """
    with warnings.catch_warnings():
        for name in LIBRARIES:
            warnings.filterwarnings("ignore", module=rf"{name}\b")
        yield
