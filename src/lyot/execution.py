"""Where the work runs: ordered maps over threads and clusters; results do not depend on them."""

from __future__ import annotations

import ctypes
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from threadpoolctl import ThreadpoolController

from lyot.errors import LyotError

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


class Device:
    """Where kernels compute: on NumPy arrays, or on another library's.

    Parameters
    ----------
    put : callable or None
        Takes a NumPy array to the device; None where arrays stay as they are.
    get : callable
        Takes an array of the device back.
    """

    def __init__(
        self,
        put: Callable[[np.ndarray], Any] | None = None,
        get: Callable[[Any], np.ndarray] | None = None,
    ) -> None:
        """Keep the two ways."""
        self._put, self._get = put, get

    @property
    def is_numpy(self) -> bool:
        """Whether arrays stay as they are."""
        return self._put is None

    def put(self, value: Any, /) -> Any:
        """Take an array to the device; a tuple or list item by item; other values as they are.

        Parameters
        ----------
        value : object
            Anything that a kernel takes.

        Returns
        -------
        object
            The same on the device.
        """
        import numpy as np

        if self._put is None:
            return value
        if isinstance(value, np.ndarray):
            return self._put(value)
        return _each(self.put, value)

    def get(self, value: Any, /) -> Any:
        """Take back what a kernel returned.

        Parameters
        ----------
        value : object
            An array, a tuple of arrays, or anything else.

        Returns
        -------
        object
            The same with NumPy arrays.
        """
        if self._get is None:
            return value
        if hasattr(value, "__dlpack__") and hasattr(value, "shape"):
            return self._get(value)
        return _each(self.get, value)

    def run(self, kernel: Callable[..., Any], /, *data: Any, **options: Any) -> Any:
        """Call a kernel with NumPy arrays and return NumPy arrays.

        Parameters
        ----------
        kernel : callable
            Of `lyot.algorithms`.
        *data, **options : object
            Its arguments; what is on the device already stays there.

        Returns
        -------
        object
            What it returns.
        """
        if self._put is None:
            return kernel(*data, **options)
        moved = {name: self.put(value) for name, value in options.items()}
        return self.get(kernel(*(self.put(value) for value in data), **moved))


def _each(function: Callable[[Any], Any], value: Any) -> Any:
    """Apply a function to the items of a tuple, named or not, or of a list."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(function(item) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(function(item) for item in value)
    return value


DEVICES = ("cpu", "cuda", "torch")


@cache
def device(name: str = "cpu", /) -> Device:
    """Return a device by its name.

    Parameters
    ----------
    name : {"cpu", "cuda", "torch"}
        NumPy; a GPU by PyTorch, else by CuPy; PyTorch without a GPU.

    Returns
    -------
    Device
        The device.

    Raises
    ------
    LyotError
        If no library for it is installed, or no such name is known.
    """
    if name not in DEVICES:
        raise LyotError(f"device is {name!r}; it must be one of {', '.join(DEVICES)}.")
    if name == "cpu":
        return Device()
    with suppress(ImportError):
        import torch

        if name == "torch" or torch.cuda.is_available():
            where = "cpu" if name == "torch" else "cuda"

            def _put(array: np.ndarray) -> Any:
                import numpy as np

                native = np.asarray(array, dtype=array.dtype.newbyteorder("="))
                if not native.flags.writeable:
                    native = native.copy()
                return torch.from_numpy(np.ascontiguousarray(native)).to(where)

            return Device(_put, lambda tensor: tensor.cpu().numpy())
    if name == "cuda":
        with suppress(ImportError):
            import cupy

            if cupy.cuda.runtime.getDeviceCount() > 0:
                return Device(cupy.asarray, cupy.asnumpy)
    raise LyotError(
        f"device is {name!r}, and neither PyTorch nor CuPy with such a device is installed; "
        "install one, or use device = cpu."
    )


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


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What became of a task.

    Attributes
    ----------
    number : int
        Its place among the items.
    value : object
        What it returned; None where it failed.
    error : Exception or None
        What it raised.
    """

    number: int
    value: Result | None
    error: Exception | None = None


class Tasks:
    """Runs large, independent pieces of work: here one after another, or on a Dask cluster.

    Parameters
    ----------
    client : distributed.Client, optional
        The cluster; None for this process.
    """

    def __init__(self, client: Any = None, /) -> None:
        """Keep the client."""
        self._client = client

    @property
    def is_here(self) -> bool:
        """Whether tasks run in this process, one after another."""
        return self._client is None

    @property
    def n_workers(self) -> int:
        """Number of tasks that run at once."""
        return 1 if self._client is None else max(len(self._client.nthreads()), 1)

    def completed(
        self, function: Callable[[Item], Result], items: Iterable[Item], /
    ) -> Iterator[Outcome[Result]]:
        """Apply a function to every item, and give each outcome as soon as it is there.

        Parameters
        ----------
        function : callable
            Of a module, so that it can be sent; called once per item, again where a worker died.
        items : iterable
            What it is called with.

        Yields
        ------
        Outcome
            In the order in which they end; a failed one carries its exception.

        Raises
        ------
        LyotError
            If the cluster was lost.
        """
        work = list(items)
        if self._client is None:
            for number, item in enumerate(work):
                try:
                    yield Outcome(number, function(item))
                except Exception as err:
                    yield Outcome(number, None, err)
            return
        from distributed import as_completed

        futures = self._client.map(_alone, [function] * len(work), work, pure=False)
        numbers = {future.key: number for number, future in enumerate(futures)}
        try:
            for future in as_completed(futures):
                number = numbers[future.key]
                error = future.exception() if future.status == "error" else None
                if error is not None:
                    yield Outcome(number, None, _readable(error))
                elif future.status == "finished":
                    yield Outcome(number, future.result())
                else:
                    raise LyotError("The connection to the scheduler was lost; run again.")
                future.release()
        finally:
            self._client.cancel(futures)

    def ordered(
        self, function: Callable[[Item], Result], items: Iterable[Item], /
    ) -> Iterator[Result]:
        """Apply a function to every item, and give the results in the order of the items.

        Parameters
        ----------
        function : callable
            Of a module, so that it can be sent; called once per item, again where a worker died.
        items : iterable
            What it is called with.

        Yields
        ------
        object
            What it returned; what a task raises is raised here.
        """
        waiting: dict[int, Result] = {}
        upcoming = 0
        for outcome in self.completed(function, items):
            if outcome.error is not None:
                raise outcome.error
            waiting[outcome.number] = outcome.value  # type: ignore[assignment]
            while upcoming in waiting:
                yield waiting.pop(upcoming)
                upcoming += 1


_turn = threading.Lock()


def _alone(function: Callable[[Item], Result], item: Item) -> Result:
    """Run a task on a worker; those of one process take turns, for each uses all its threads."""
    with _turn:
        return function(item)


def _readable(error: BaseException) -> Exception:
    """Say in one sentence that workers died, where the library says it in its own terms."""
    from distributed.scheduler import KilledWorker

    if isinstance(error, KilledWorker):
        return LyotError(
            "Its worker died each time that it was tried, most likely for want of memory; give "
            "the workers more, or fewer of them."
        )
    return error if isinstance(error, Exception) else LyotError(str(error))


@contextmanager
def tasks(where: Any = None, /) -> Iterator[Tasks]:
    """Open the place where tasks run.

    Parameters
    ----------
    where : str, distributed.Client or None
        Address of a Dask scheduler; ``local``, or ``local:N``, for N workers on this machine
        that live as long as the context; a client; None for this process.

    Yields
    ------
    Tasks
        To be used within the context.

    Raises
    ------
    LyotError
        If Dask is not installed, or the scheduler does not answer.
    """
    if where is None:
        yield Tasks()
        return
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise LyotError(
            "A scheduler is given and Dask is not installed; pip install 'lyot[cluster]'."
        ) from None
    if isinstance(where, Client):
        yield Tasks(where)
        return
    name, _, count = str(where).partition(":")
    if name == "local":
        if count and not (count.isdigit() and int(count) > 0):
            raise LyotError(
                f"The scheduler is {where!r}; give local, local:N with N workers, or an address."
            )
        n = int(count) if count else n_threads()
        share = str(max(n_threads() // n, 1))
        with (
            LocalCluster(
                n_workers=n,
                threads_per_worker=1,
                dashboard_address=None,
                env={"LYOT_THREADS": share},
            ) as cluster,
            Client(cluster) as client,
        ):
            yield Tasks(client)
        return
    try:
        client = Client(str(where), timeout="8s")
    except (OSError, ValueError) as err:
        raise LyotError(
            f"No Dask scheduler answers at {where} ({str(err).splitlines()[0]}); start one with "
            "`dask scheduler`, or give local."
        ) from None
    with client:
        yield Tasks(client)
