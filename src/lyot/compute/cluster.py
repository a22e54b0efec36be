"""Large, independent pieces of work: here, in processes of this machine, or on a Dask cluster."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from lyot.compute import process
from lyot.compute.threads import n_threads, single_threaded_blas
from lyot.errors import LyotError

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_DEATHS = 3
"""Times that a worker may die of one task."""
DIED = (
    "Its worker died each time that it was tried, most likely for want of memory; give the workers "
    "more, or fewer of them."
)


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """The outcome of one task: its number among the items, and its value or the error it raised."""

    number: int
    value: Result | None
    error: Exception | None = None


class Tasks:
    """Runs large, independent pieces of work: here one after another, or as a subclass does."""

    is_here = True
    """Whether tasks run in this process, one after another."""
    n_workers = 1
    """Number of tasks that run at once."""

    def completed(
        self, function: Callable[[Item], Result], items: Iterable[Item], /
    ) -> Iterator[Outcome[Result]]:
        """Apply a module's function to every item, and yield each outcome as soon as it is there.

        Where a worker dies, it is called again for the item. `LyotError` if the cluster is lost.
        """
        for number, item in enumerate(items):
            try:
                value = _run_alone(function, item)
            except Exception as err:
                yield Outcome(number, None, err)
            else:
                yield Outcome(number, value)

    def ordered(
        self, function: Callable[[Item], Result], items: Iterable[Item], /
    ) -> Iterator[Result]:
        """Yield the results of `completed` in the order of the items; the first error is raised."""
        waiting: dict[int, Result] = {}
        upcoming = 0
        for outcome in self.completed(function, items):
            if outcome.error is not None:
                raise outcome.error
            waiting[outcome.number] = outcome.value  # type: ignore[assignment]
            while upcoming in waiting:
                yield waiting.pop(upcoming)
                upcoming += 1


class ProcessTasks(Tasks):
    """Runs tasks in processes of this machine, by pipes: there is no port that others can reach."""

    is_here = False

    def __init__(self, n_workers: int) -> None:
        self.n_workers = n_workers
        self._pools: dict[int, ProcessPoolExecutor] = {}
        self._pids: dict[int, Future[int]] = {}

    def completed(
        self, function: Callable[[Item], Result], items: Iterable[Item], /
    ) -> Iterator[Outcome[Result]]:
        """Yield each outcome as soon as it is there (see `Tasks.completed`)."""
        waiting, deaths = deque(enumerate(items)), Counter[int]()
        running: dict[Future[Result], tuple[int, int, Item]] = {}
        free = list(range(self.n_workers))
        while waiting or running:
            while waiting and free:
                (number, item), worker = waiting.popleft(), free.pop()
                future = self._pool(worker).submit(_run_alone, function, item)
                running[future] = (worker, number, item)
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                worker, number, item = running.pop(future)
                free.append(worker)
                error = future.exception()
                if isinstance(error, BrokenExecutor):
                    self._pools.pop(worker).shutdown()
                    deaths[number] += 1
                    if deaths[number] < MAX_DEATHS:
                        waiting.append((number, item))
                        continue
                    error = LyotError(DIED)
                if error is None:
                    yield Outcome(number, future.result())
                elif isinstance(error, Exception):
                    yield Outcome(number, None, error)
                else:
                    raise error

    def _pool(self, worker: int) -> ProcessPoolExecutor:
        """A pool of one process, so that it is known whose task a death ended."""
        if worker not in self._pools:
            from concurrent.futures import ProcessPoolExecutor
            from multiprocessing import get_context

            share = str(max(n_threads() // self.n_workers, 1))
            self._pools[worker] = ProcessPoolExecutor(
                1, get_context("spawn"), _start_worker, (share, process.is_owned())
            )
            self._pids[worker] = self._pools[worker].submit(os.getpid)
        return self._pools[worker]

    def close(self) -> None:
        """End the processes, whatever they do."""
        for worker, pool in self._pools.items():
            pool.shutdown(wait=False, cancel_futures=True)
            pid = self._pids[worker]
            if pid.done() and not pid.cancelled() and pid.exception() is None:
                with suppress(ProcessLookupError):
                    os.kill(pid.result(), signal.SIGTERM)


def _start_worker(share: str, owned: bool) -> None:
    """Prepare a process for its tasks; an interrupt is for the process that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["LYOT_THREADS"] = share
    if owned:
        process.own()


class DaskTasks(Tasks):
    """Runs tasks on the workers of a `distributed.Client`."""

    is_here = False

    def __init__(self, client: Any) -> None:
        self._client = client
        if process.is_owned():
            client.run(process.own)

    @property
    def n_workers(self) -> int:  # type: ignore[override]
        """Number of tasks that run at once."""
        return max(len(self._client.nthreads()), 1)

    def completed(
        self, function: Callable[[Item], Result], items: Iterable[Item], /
    ) -> Iterator[Outcome[Result]]:
        """Yield each outcome as soon as it is there (see `Tasks.completed`)."""
        from distributed import as_completed

        work = list(items)
        futures = self._client.map(_run_alone, [function] * len(work), work, pure=False)
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


_turn = threading.RLock()


def _run_alone(function: Callable[[Item], Result], item: Item) -> Result:
    """Run a task; those of one process take turns, for each uses all its threads."""
    with _turn, single_threaded_blas():
        return function(item)


def _readable(error: BaseException) -> Exception:
    """Say in one sentence that workers died; other errors are returned as they are."""
    from distributed.scheduler import KilledWorker

    if isinstance(error, KilledWorker):
        return LyotError(DIED)
    return error if isinstance(error, Exception) else LyotError(str(error))


@contextmanager
def tasks(where: Any = None, /) -> Iterator[Tasks]:
    """Open the place where tasks run: this process, processes of this machine, or a Dask cluster.

    `where` is None; ``local``, ``local:N`` for N workers on this machine that live as long as the
    context; the address of a scheduler; or a `distributed.Client`.
    """
    if where is None:
        yield Tasks()
        return
    name, _, count = str(where).partition(":")
    if name == "local":
        if count and not (count.isdigit() and int(count) > 0):
            raise LyotError(
                f"The scheduler is {where!r}; give local, local:N with N workers, or an address."
            )
        local = ProcessTasks(int(count) if count else n_threads())
        try:
            yield local
        finally:
            local.close()
        return
    try:
        from distributed import Client
    except ImportError:
        raise LyotError(
            "A scheduler is given and Dask is not installed; pip install 'lyot[cluster]'."
        ) from None
    if isinstance(where, Client):
        yield DaskTasks(where)
        return
    try:
        client = Client(str(where), timeout="8s")
    except (OSError, ValueError) as err:
        raise LyotError(
            f"No Dask scheduler answers at {where} ({str(err).splitlines()[0]}); start one with "
            "`dask scheduler`, or give local."
        ) from None
    with client:
        yield DaskTasks(client)
