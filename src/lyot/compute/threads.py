"""Threads: ordered maps over blocks of pixels, and the linear algebra held at one thread."""

from __future__ import annotations

import inspect
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from threadpoolctl import ThreadpoolController

from lyot.compute import memory, process

if TYPE_CHECKING:
    import numpy as np

PIXEL_BLOCK, BLOCK_NUMBERS = 8192, 2**22
"""Pixels in a block; fixed, so that sums come out the same on any number of threads."""

Item = TypeVar("Item")
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def n_threads() -> int:
    """Return the number of threads to use: ``LYOT_THREADS``, else the cores of this process."""
    wanted = os.environ.get("LYOT_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _BlasHold:
    """The linear algebra libraries of this process, held at one thread while anyone asks for it.

    The number of threads belongs to the process, so holds of several Python threads are counted:
    the first sets it, the last restores it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_holders = 0
        self._controller: ThreadpoolController | None = None
        self._limits: list[Any] = []

    def acquire(self) -> None:
        """Hold them."""
        with self._lock:
            controller = self._find()
            self._n_holders += 1
            if not self._limits:
                self._disown()
                self._limits.append(controller.limit(limits=1, user_api="blas"))
                self._disown()

    def find(self) -> None:
        """Look for the libraries, before another thread imports modules."""
        with self._lock:
            self._find()

    def _find(self) -> ThreadpoolController:
        """Look for the libraries once.

        The search holds the loader of the system and waits for the interpreter; a thread that
        imports an extension holds the interpreter and waits for the loader: both for ever.
        """
        if self._controller is None:
            import scipy.linalg  # noqa: F401 - brings a library of its own: to be found now

            self._controller = ThreadpoolController()
        return self._controller

    def release(self) -> None:
        """Restore the numbers of threads, if nobody else holds them."""
        with self._lock:
            self._n_holders -= 1
            if self._n_holders:
                return
            self._disown()
            while self._limits:
                self._limits.pop().restore_original_limits()
            self._disown()

    def _disown(self) -> None:
        """Let any thread set the number: threadpoolctl >= 3.8 heeds only the first that did."""
        for library in self._controller.lib_controllers if self._controller else ():
            if hasattr(library, "clear_controlling_thread"):
                library.clear_controlling_thread(force=True)


_blas = _BlasHold()


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Hold the linear algebra libraries at one thread: the blocks are what runs in parallel.

    How a product is divided among their threads changes its last bits. And it is to be held over
    all of a calculation, not its parallel parts alone: a thread that a library wakes for a product
    in between waits busily for the next one, in the way of the blocks.
    """
    if process.has_single_blas():
        yield
        return
    _blas.acquire()
    try:
        yield
    finally:
        _blas.release()


def calculation(function: Callable[Parameters, Result], /) -> Callable[Parameters, Result]:
    """Mark a public entry point that computes: the linear algebra is held at one thread in it."""
    if inspect.isgeneratorfunction(function):
        raise TypeError(f"{function.__name__} is a generator: it computes after it has returned.")

    @wraps(function)
    def _held(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        with single_threaded_blas():
            return function(*args, **kwargs)

    return _held


_inside = threading.local()
"""Whether this thread is inside `map_ordered`."""


def map_ordered(
    function: Callable[[Item], Result], items: Iterable[Item], /, *, item_bytes: int = 0
) -> list[Result]:
    """Apply a function to independent items on threads, in order; a map within a map is serial.

    As many are worked on at once as fit the limit of the memory, where one takes `item_bytes`.
    """
    work = list(items)
    threads = min(n_threads(), len(work))
    if getattr(_inside, "map", False):
        return [function(item) for item in work]
    with single_threaded_blas():
        if threads <= 1:
            return [_relieved(function, item) for item in work]

        done = list[Result]()
        while len(done) < len(work):
            n = memory.at_once(item_bytes, threads) if item_bytes else len(work)
            done += _shared(function, work[len(done) : len(done) + n])
        return done


def _shared(function: Callable[[Item], Result], work: list[Item]) -> list[Result]:
    """Do work on this thread and on others: each takes the next item when it has done one.

    So fewer threads wait for the interpreter, and are woken, than with a task for each item. At the
    end nothing holds what the function refers to, though a thread may not have dropped its task.
    """
    held, left = [function], deque(enumerate(work))
    done, failed = dict[int, Result](), dict[int, BaseException]()

    def _take() -> None:
        _inside.map = True
        try:
            while left:
                try:
                    i, item = left.popleft()
                except IndexError:  # another was quicker
                    return
                try:
                    done[i] = _relieved(held[0], item)
                except BaseException as err:
                    failed[i] = err
                    left.clear()
        finally:
            _inside.map = False

    pool = _pool(n_threads(), os.getpid())
    others = [pool.submit(_take) for _ in range(min(n_threads(), len(work)) - 1)]
    try:
        _take()
        for other in others:
            if not other.cancel():
                other.result()
    finally:
        left.clear()  # of an interrupt, too
        held.clear()
    if failed:
        raise failed[min(failed)]
    return [done.pop(i) for i in range(len(work))]


def _relieved(function: Callable[[Item], Result], item: Item) -> Result:
    result = function(item)
    memory.relieve()
    return result


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Return the threads of this process; they are kept, and with them their working memory."""
    del process  # a fork has no threads of its parent's
    return ThreadPoolExecutor(threads, thread_name_prefix="lyot")


class SecondThread:
    """A thread for work that takes turns with the caller's: opening and writing files, in order.

    With one thread in all (`n_threads`), work is done when it is submitted. At the end of a
    ``with`` block all work has been done, or after an error what has not begun never is.
    """

    def __init__(self) -> None:
        if not process.has_single_blas():
            _blas.find()
        self._pool = ThreadPoolExecutor(1, "lyot-second") if n_threads() > 1 else None
        self._pending: list[Future[Any]] = []

    def submit(
        self,
        function: Callable[Parameters, Result],
        /,
        *args: Parameters.args,
        **kw: Parameters.kwargs,
    ) -> Future[Result]:
        """Do work after all that was submitted before."""
        if self._pool is None:
            done: Future[Result] = Future()
            done.set_result(function(*args, **kw))
            return done
        future = self._pool.submit(function, *args, **kw)
        self._pending.append(future)
        return future

    def wait(self) -> None:
        """Wait for all work; raise the first error in it."""
        while self._pending:
            self._pending.pop(0).result()

    def __enter__(self) -> SecondThread:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)


_held = threading.local()
"""Arrays that each thread makes once and uses again for every block."""


def workspace(name: str, shape: tuple[int, ...], /) -> np.ndarray:
    """Return an undefined float64 array, valid until this thread asks for the name again.

    A block's temporaries are large enough for the system to hand out, clear and take back their
    pages each time, which costs more than the arithmetic and does not go in parallel.
    """
    import numpy as np

    size = math.prod(shape)
    held = vars(_held).get(name)
    if held is None or held.size < size:
        held = vars(_held)[name] = np.empty(size)
    return held[:size].reshape(shape)


def block_bytes(n_rows: int, /) -> int:
    """Return what the temporaries of a block of pixels of so many frames take."""
    return 24 * n_rows * _block_size(n_rows)


def pixel_blocks(n_pix: int, n_rows: int = 1, /) -> list[slice]:
    """Divide `n_pix` pixels of `n_rows` frames into consecutive blocks of fixed size."""
    size = _block_size(n_rows)
    return [slice(i, min(i + size, n_pix)) for i in range(0, n_pix, size)]


def _block_size(n_rows: int) -> int:
    """Pixels of a block: fewer of many frames, whatever the threads and the memory."""
    return max(min(PIXEL_BLOCK, BLOCK_NUMBERS // n_rows), 256)
