"""Memory: large arrays lie on disk where together they would not fit a limit that the user sets.

An array on disk is a file without a name, mapped into memory: the system holds as much of it as is
in use. `relieve` hands its pages back where the process has grown near to its limit, and what is
read of them again comes from the file; no value depends on it. The same is done with files that
are mapped to be read, limit or not: their pages stay with the system, which counts them to the
process as long as it has them.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import DTypeLike, NDArray

LARGE, NEAR = 1 / 32, 0.7
"""Shares of the limit: that from which an array lies on disk, and that at which pages go back."""
MAPPED_BYTES = 8 * 10**8
"""Size of the process at which the pages of mapped files go back where no limit is nearer."""
LARGE_PROCESS_BYTES = 4 * 10**8
ROWS_AT_ONCE = 64


class _Limit:
    n_bytes = 0  # 0 for none
    folder = ""


_limit = _Limit()
_on_disk: WeakSet[mmap.mmap] = WeakSet()
_files: WeakSet[mmap.mmap] = WeakSet()


@contextmanager
def limited(n_bytes: int, folder: str | Path, /) -> Iterator[None]:
    """Keep the process below `n_bytes`, 0 for no limit, with arrays in files in a folder."""
    before = _limit.n_bytes, _limit.folder
    _limit.n_bytes, _limit.folder = n_bytes, str(folder)
    try:
        yield
    finally:
        _limit.n_bytes, _limit.folder = before


def of_computer() -> int:
    """Return the memory of this computer, or of the group of processes that holds this one."""
    try:
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            return min(found, int(file.read()))
    except (OSError, ValueError):
        return found


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return an array of undefined values, on disk where it is large for the limit."""
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if not _limit.n_bytes or n_bytes < LARGE * _limit.n_bytes:
        return np.empty(shape, dtype)
    os.makedirs(_limit.folder, exist_ok=True)
    with tempfile.TemporaryFile(dir=_limit.folder) as file:
        file.truncate(n_bytes)
        mapped = mmap.mmap(file.fileno(), n_bytes)
    _on_disk.add(mapped)
    return np.ndarray(shape, dtype, mapped)


class Store:
    """Arrays whose memory is used again once nobody holds them, nor a view of them.

    What is handed out by the system has to be cleared, which takes as long as to fill it.
    """

    def __init__(self) -> None:
        self._free: list[NDArray[Any]] = []

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array as `empty` does."""
        for k, array in enumerate(self._free):
            if array.shape == shape and array.dtype == dtype:
                return np.asarray(_Loan(self._free.pop(k), self._free))
        return np.asarray(_Loan(empty(shape, dtype), self._free))

    def clear(self) -> None:
        """Let go of the memory that nobody holds, now and later."""
        self._free = []


class _Loan:
    """What an array of a store refers to, as do its views: it ends with the last of them."""

    def __init__(self, array: NDArray[Any], free: list[NDArray[Any]]) -> None:
        self.base, self._free = array, free
        self.__array_interface__ = array.__array_interface__

    def __del__(self) -> None:
        self._free.append(self.base)


def is_read(array: Any, /) -> None:
    """Note an array that is mapped from a file and only read: its pages may go back at any time."""
    if (mapped := _map_of(array)) is not None:
        _files.add(mapped)


def relieve() -> None:
    """Hand back the pages of arrays on disk where the process has grown near to its limit."""
    if _limit.n_bytes and len(_on_disk) and _resident() > NEAR * _limit.n_bytes:
        _hand_back(_on_disk)
        _trim()
    if len(_files) and _resident() > min(NEAR * (_limit.n_bytes or math.inf), MAPPED_BYTES):
        _hand_back(_files)


def let_go() -> None:
    """Hand back what has been freed, where the process is large: after a stage of the work.

    Freed arrays leave gaps between those that stay, which count to the process.
    """
    if _resident() > LARGE_PROCESS_BYTES:
        _trim()


def _trim() -> None:
    if trim := _malloc_trim():
        trim(0)


def _hand_back(maps: WeakSet[mmap.mmap]) -> None:
    for mapped in list(maps):
        if hasattr(mmap, "MADV_DONTNEED") and not mapped.closed:
            mapped.madvise(mmap.MADV_DONTNEED)


def set_columns(array: NDArray[Any], at: Any, values: NDArray[Any], /) -> None:
    """Set some columns of a matrix, in place; see `columns`."""
    if _map_of(array) is None:
        array[:, at] = values
        return
    for first in range(0, len(array), ROWS_AT_ONCE):
        rows = slice(first, first + ROWS_AT_ONCE)
        array[rows, at] = values[rows]
        relieve()


def _map_of(array: Any) -> mmap.mmap | None:
    """Return the map that an array is a view of; None where it is in memory."""
    while isinstance(array, np.ndarray | _Loan):
        array = array.base
    return array if isinstance(array, mmap.mmap) else None


@cache
def _malloc_trim() -> Any:
    """Return the function of glibc that hands free memory back to the system; None elsewhere."""
    try:
        return getattr(ctypes.CDLL(None), "malloc_trim", None)
    except (OSError, TypeError):
        return None


def not_finite(frames: NDArray[Any], /) -> NDArray[np.bool_]:
    """Return where frames have no value."""
    out = empty(frames.shape, bool)
    for row, frame in zip(out, frames, strict=True):
        np.logical_not(np.isfinite(frame), out=row)
        relieve()
    return out


def columns(array: NDArray[Any], at: Any, /) -> NDArray[Any]:
    """Return some columns of a matrix; of one on disk a copy, and pages go back between its rows.

    The system maps what lies about each number that is read: without that, all of the matrix.
    """
    if _map_of(array) is None:
        return array[:, at]
    parts = []
    for first in range(0, len(array), ROWS_AT_ONCE):
        parts.append(np.array(array[first : first + ROWS_AT_ONCE, at]))
        relieve()
    return np.concatenate(parts)


def at_once(item_bytes: int, most: int, /) -> int:
    """Return how many pieces of work that take so much each fit the limit: one at least."""
    if not (_limit.n_bytes and item_bytes):
        return most
    relieve()
    return min(max((_limit.n_bytes - _resident()) // item_bytes, 1), most)


def _resident() -> int:
    try:
        return int(os.pread(_statm(os.getpid()), 256, 0).split()[1]) * mmap.PAGESIZE
    except (OSError, AttributeError):
        return sys.maxsize  # not known: pages go back each time


@cache
def _statm(process: int) -> int:
    """Open what the system says of the memory of this process; it is read at each small step."""
    del process  # a fork opens its own
    return os.open("/proc/self/statm", os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))


def peak_bytes() -> int:
    """Return the largest resident memory that this process has had; 0 where that is not known."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:  # ru_maxrss counts the parent's
            [line] = [line for line in file if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) * (1 if sys.platform == "darwin" else 1024)
