"""Progress of long work, with a time estimate: on a terminal, in a notebook, or as plain lines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Progress = Callable[[str, int, int], None]
"""Called with the name of a stage, the number of its parts that are done, and their number."""


def no_progress(stage: str, done: int, total: int) -> None:
    """Show nothing."""
    del stage, done, total


@contextmanager
def show_progress(*, quiet: bool = False) -> Iterator[Progress]:
    """Show the progress of work on standard error while the context is open, unless `quiet`."""
    if quiet:
        yield no_progress
        return
    if not (sys.stderr.isatty() or _in_notebook()):
        yield _plain_lines()
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as display:
        tasks: dict[str, Any] = {}

        def _update(stage: str, done: int, total: int) -> None:
            """Move the bar of a stage."""
            if stage not in tasks:
                tasks[stage] = display.add_task(stage, total=total)
            display.update(tasks[stage], completed=done)

        yield _update


def _in_notebook() -> bool:
    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return type(shell).__name__ == "ZMQInteractiveShell"


def _plain_lines() -> Progress:
    seen: set[str] = set()

    def _line(stage: str, done: int, total: int) -> None:
        """Name a stage once."""
        del done
        if stage not in seen:
            seen.add(stage)
            print(f"{stage} ({total})" if total > 1 else stage, file=sys.stderr, flush=True)

    return _line
