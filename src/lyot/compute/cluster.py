"""Large, independent pieces of work, here or on a Dask cluster."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from lyot.compute import process
from lyot.compute.threads import n_threads, single_threaded_blas
from lyot.errors import LyotError

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """The outcome of one task: its number among the items, and its value or the error it raised."""

    number: int
    value: Result | None
    error: Exception | None = None


class Tasks:
    """Runs large, independent pieces of work: here one after another, or on a Dask cluster."""

    def __init__(self, client: Any = None, /) -> None:
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
        """Apply a function to every item, and yield each outcome as soon as it is there.

        The function must be a module's, so that it can be sent to workers; where a worker dies, it
        is called again for the same item. Raises `LyotError` if the cluster is lost.
        """
        work = list(items)
        if self._client is None:
            for number, item in enumerate(work):
                try:
                    value = _run_alone(function, item)
                except Exception as err:
                    yield Outcome(number, None, err)
                else:
                    yield Outcome(number, value)
            return
        from distributed import as_completed

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


_turn = threading.RLock()


def _run_alone(function: Callable[[Item], Result], item: Item) -> Result:
    """Run a task; those of one process take turns, for each uses all its threads."""
    with _turn, single_threaded_blas():
        return function(item)


def _readable(error: BaseException) -> Exception:
    """Say in one sentence that workers died; other errors are returned as they are."""
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

    `where` is the address of a Dask scheduler; ``local``, or ``local:N``, for N workers on this
    machine that live as long as the context; a client; or None for this process. Raises `LyotError`
    if Dask is not installed, or the scheduler does not answer.
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
                dashboard_address=":0",
                env={"LYOT_THREADS": share},
            ) as cluster,
            Client(cluster) as client,
        ):
            yield _on_workers(client)
        return
    try:
        client = Client(str(where), timeout="8s")
    except (OSError, ValueError) as err:
        raise LyotError(
            f"No Dask scheduler answers at {where} ({str(err).splitlines()[0]}); start one with "
            "`dask scheduler`, or give local."
        ) from None
    with client:
        yield _on_workers(client)


def _on_workers(client: Any) -> Tasks:
    """Tasks on the workers of a client, which are tuned where this process is."""
    if process.is_owned():
        client.run(process.own)
    return Tasks(client)
