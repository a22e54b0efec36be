"""Classical subtraction: the median of the references, scaled to the target."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms.statistics import median_variance
from lyot.compute import threads
from lyot.compute.devices import NUMPY
from lyot.subtraction.methods.base import Method, SourceFrames
from lyot.subtraction.pixels import RefPixels
from lyot.types import Array


@dataclass(frozen=True, eq=False, kw_only=True)
class MedianFrame(RefPixels):
    """The median of references as one frame, with the level and factor that each was given."""

    level: Array
    factor: Array


class Median(Method):
    """One frame: the median of references brought to one level and brightness."""

    takes_choice = False

    def init(self, refs: RefPixels, _n_modes: int, /) -> MedianFrame:
        """Take the median of the references, and its variance."""
        refs = refs.on(NUMPY)
        level, factor = _scaling(refs)
        median = np.empty(refs.sci.shape[1], refs.sci.dtype)
        variance = np.empty(median.shape, np.float32)

        def _block(at: slice) -> None:
            scaled = _scaled(np.where(refs.all_bad[at], 0.0, refs.sci[:, at]), level, factor)
            median[at] = np.median(scaled, axis=0)
            variance[at] = median_variance(scaled, refs.variance_at(at) * factor[:, None] ** 2)

        threads.map_ordered(_block, threads.pixel_blocks(len(median), len(refs)))
        return MedianFrame(median[None], variance[None], refs.all_bad, level=level, factor=factor)

    def with_source(
        self, frames: RefPixels, at: Array, refs: Array, sources: Array, flux: float, /
    ) -> SourceFrames:
        """Take the median with and without the source; level and factor are frozen."""
        assert isinstance(frames, MedianFrame)
        median = frames.sci[:, at].astype(np.float64)
        if flux == 0.0:
            return SourceFrames(median, np.zeros_like(median))
        plain = np.where(np.isfinite(refs), refs, 0.0)
        before, after = (
            np.median(_scaled(plain + a * sources, frames.level, frames.factor), axis=0)
            for a in (0.0, flux)
        )
        return SourceFrames(median, ((after - before) / flux)[None])


def _scaled(sci: Array, level: Array, factor: Array) -> NDArray[np.float64]:
    """Return references ``(n_ref, n_pix)`` less a level each, times a factor each."""
    return np.subtract(sci, level[:, None], dtype=np.float64) * factor[:, None]


def _scaling(refs: RefPixels) -> tuple[Array, Array]:
    """Level of each reference, and what brings it to the mean brightness of all."""
    good = refs.sci[:, ~refs.all_bad]
    size = np.sqrt(np.var(good, axis=1, dtype=np.float64))
    factor = np.divide(size.mean(), size, out=np.zeros_like(size), where=size > 0)
    return good.mean(axis=1, dtype=np.float64), factor
