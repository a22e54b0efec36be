"""Threads: ordered maps over blocks of pixels, and the linear algebra held at one thread."""

from __future__ import annotations

import ctypes
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from threadpoolctl import ThreadpoolController

if TYPE_CHECKING:
    import numpy as np

PIXEL_BLOCK = 8192
"""Pixels in a block; fixed, so that sums come out the same on any number of threads."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def n_threads() -> int:
    """Return the number of threads to use.

    Returns
    -------
    int
        ``LYOT_THREADS`` where it is set, else the number of cores this process may use.
    """
    wanted = os.environ.get("LYOT_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Hold the linear algebra library at one thread: the blocks are what runs in parallel.

    To be held over all of a calculation, not its parallel parts alone: a thread that the library
    wakes for a product in between waits busily for the next one, in the way of the blocks.
    """
    _keep_pages()
    with _libraries().limit(limits=1, user_api="blas"):
        yield


@cache
def _keep_pages() -> None:
    """Have the C library keep the memory of short-lived arrays instead of giving it back.

    By default glibc returns freed arrays of a megabyte to the system at once, and the next one is
    handed out page by page: half of the time of an alignment. Arrays of 32 megabytes and more
    are still returned. Elsewhere than on glibc nothing is done.
    """
    mmap_threshold, trim_threshold = -3, -1
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(mmap_threshold, 32 * 2**20)
    mallopt(trim_threshold, 64 * 2**20)


@cache
def _libraries() -> ThreadpoolController:
    import numpy as np  # noqa: F401 - the library must be loaded to be found

    return ThreadpoolController()


def map_ordered(function: Callable[[Item], Result], items: Iterable[Item], /) -> list[Result]:
    """Apply a function to every item on threads and return the results in order.

    Parameters
    ----------
    function : callable
        Called once per item; must not depend on the others. Where it calls this function itself,
        the inner items go one after another on its thread.
    items : iterable
        What it is called with.

    Returns
    -------
    list
        Results in the order of the items.
    """
    work = list(items)
    threads = min(n_threads(), len(work))
    if _inside.map:
        return [function(item) for item in work]
    with single_threaded_blas():
        if threads <= 1:
            return [function(item) for item in work]

        def _within(item: Item) -> Result:
            _inside.map = True
            try:
                return function(item)
            finally:
                _inside.map = False

        return list(_pool(n_threads(), os.getpid()).map(_within, work))


class _Inside(threading.local):
    """Whether this thread is at work for `map_ordered`."""

    map = False


_inside = _Inside()


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """The threads of this process; kept, and with them the memory that they work in."""
    del process  # a fork has no threads of its parent's
    return ThreadPoolExecutor(threads, thread_name_prefix="lyot")


class _Workspace(threading.local):
    """Arrays that each thread makes once and uses again for every block.

    A block's temporaries are large enough for the system to hand out, clear and take back their
    pages each time, which costs more than the arithmetic and does not go in parallel.
    """

    def __init__(self) -> None:
        """Start without arrays."""
        self._arrays: dict[str, np.ndarray] = {}

    def array(self, name: str, shape: tuple[int, ...], /) -> np.ndarray:
        """Return a float64 array of undefined content, the same memory for the same name.

        Parameters
        ----------
        name : str
            What it is for.
        shape : tuple of int
            Shape that is wanted.

        Returns
        -------
        ndarray
            Contiguous; valid until the name is asked for again on the same thread.
        """
        import numpy as np

        size = math.prod(shape)
        held = self._arrays.get(name)
        if held is None or held.size < size:
            held = self._arrays[name] = np.empty(size)
        return held[:size].reshape(shape)


workspace = _Workspace()


def pixel_blocks(n_pix: int, /) -> list[slice]:
    """Divide pixels into blocks of fixed size.

    Parameters
    ----------
    n_pix : int
        Number of pixels.

    Returns
    -------
    list of slice
        Consecutive blocks that cover all pixels.
    """
    return [slice(i, min(i + PIXEL_BLOCK, n_pix)) for i in range(0, n_pix, PIXEL_BLOCK)]
