"""The Gram matrix of a library over any pixels, and whether the one that it keeps is right."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms import klip
from lyot.compute import cluster, threads
from lyot.errors import readable
from lyot.files.library_store import Library


class _Block(NamedTuple):
    """Pixels of all frames of a library, for one task."""

    path: str
    weight: NDArray[np.float64]
    at: NDArray[np.intp]


def gram_over(
    library: Library, weight: NDArray[np.floating], /, *, tasks: cluster.Tasks | None = None
) -> NDArray[np.float64]:
    """Form the Gram matrix of all centered frames over pixels of positive weight, out of core.

    The sum over blocks of pixels in their order; one block of all frames is held at a time.
    """
    at = np.flatnonzero(np.asarray(weight).ravel() > 0)
    w = np.asarray(weight, dtype=np.float64).ravel()[at]
    n, path = len(library), str(library.path.resolve())
    blocks = [_Block(path, w[b], at[b]) for b in threads.pixel_blocks(len(at), n)]
    # Two passes: the mean first, so that the pedestal is taken off the pixels themselves.
    total, gram, pedestal = np.zeros(n), np.zeros((n, n)), np.zeros(n)
    where = tasks or cluster.Tasks()
    for part in where.ordered(_block_sum, blocks):
        total += part
    mean = total / w.sum()
    for product, part in where.ordered(_block_products, [(b, mean) for b in blocks]):
        gram += product
        pedestal += part
    return np.asarray(klip.recenter(gram, pedestal, float(w.sum()))[0])


def _block_sum(block: _Block) -> NDArray[np.float64]:
    rows = Library(block.path).pixels(block.at)
    return np.asarray(rows @ block.weight)


def _block_products(job: tuple[_Block, NDArray[np.float64]]) -> tuple[Any, Any]:
    block, mean = job
    rows = Library(block.path).pixels(block.at) - mean[:, None]
    root = np.sqrt(block.weight)
    rows *= root
    return rows @ rows.T, rows @ root


@threads.calculation
def check(library: Library, /, *, tasks: cluster.Tasks | None = None) -> float:
    """Return how far the stored Gram matrix is from the right one, over its largest element."""
    with readable(f"A batch of {library.path}", "build the library again"):
        stored = library.gram()
        fresh = gram_over(library, library.weight, tasks=tasks)
    return float(np.abs(stored - fresh).max() / max(np.abs(fresh).max(), np.finfo(float).tiny))
