"""What a subtraction returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms.background import row_levels
from lyot.algorithms.geometry import radius_map
from lyot.algorithms.statistics import annulus_noise, block_scatter
from lyot.compute import threads
from lyot.files.star import StarPosition
from lyot.subtraction.fit import Fit
from lyot.subtraction.pixels import RefPixels
from lyot.types import Array

ROWS_AT_ONCE = 32


@dataclass(frozen=True, eq=False)
class Subtraction:
    """A subtracted exposure, for one number of modes; a zone counts once for each of its areas."""

    n_modes: int  # that were asked for
    n_kept: int  # that were used, at most the rank of the references
    sci: NDArray[np.float32]  # (n_int, n_y, n_x), NaN where the target is bad or every reference is
    err: NDArray[np.float32]
    # (n_zone, n_int, n_ref): factor of each reference in the model of each integration, zero for
    # one that was not chosen; of each component, or of the median, where those are subtracted.
    coefficients: NDArray[np.float64]
    eigenvalues: NDArray[np.float64]  # (n_zone, n_ref), of the last fit; zero beyond its rank
    # (n_y, n_x), part of the variance that comes from the references, and from a background that
    # all integrations lost, averaged.
    variance_refs: NDArray[np.float32]
    # That part in the variance of the mean of the integrations: they share references and
    # background, so it does not average down.
    variance_refs_coherent: NDArray[np.float32]
    rms_before: NDArray[np.float64]  # (n_int,), standard deviation of the good pixels
    rms_after: NDArray[np.float64]
    # (n_zone, n_kept + 1): over the pixels of the fit with 0, 1, ... modes, all integrations.
    residual_rms: NDArray[np.float64]

    def mean(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the mean of the good integrations and its variance; NaN where there are none.

        Integrations share the noise of the references, which is not averaged down.
        """

        def _rows(y: int) -> tuple[Array, Array]:
            rows = slice(y, y + ROWS_AT_ONCE)
            sci, err = self.sci[:, rows], self.err[:, rows]
            good = np.isfinite(sci)
            n_good = good.sum(axis=0)
            n_safe = np.maximum(n_good, 1)
            mean = np.where(good, sci, 0.0).sum(axis=0, dtype=np.float64) / n_safe
            own = np.where(good, np.square(err, dtype=np.float64), 0.0).sum(axis=0) / n_safe
            own = np.maximum(own - np.nan_to_num(self.variance_refs[rows]), 0.0) / n_safe
            total = own + np.nan_to_num(self.variance_refs_coherent[rows])
            return np.where(n_good > 0, mean, np.nan), np.where(n_good > 0, total, np.nan)

        parts = threads.map_ordered(_rows, range(0, self.sci.shape[1], ROWS_AT_ONCE))
        means, variances = zip(*parts, strict=True)
        return np.concatenate(means), np.concatenate(variances)

    def with_err_times(self, factor: float, /) -> Subtraction:
        """Return the same with all errors scaled."""
        return replace(
            self,
            err=self.err * np.float32(factor),
            variance_refs=self.variance_refs * np.float32(factor**2),
            variance_refs_coherent=self.variance_refs_coherent * np.float32(factor**2),
        )

    def record(self) -> dict[str, Any]:
        """Return what a product records of it beside its images."""
        return {name: value for name, value in vars(self).items() if name not in ("sci", "err")}


@dataclass(frozen=True, eq=False)
class Subtracted(Sequence[Subtraction]):
    """A subtracted exposure: a sequence of one result per number of modes, and the fits.

    Attributes
    ----------
    results : list of Subtraction
        In the order of the numbers of modes that were asked for.
    missing : ndarray of bool, shape (n_int, n_pix)
        Pixels that no fit uses: bad in the target, or in every reference.
    fits : list of Fit
        All that the response to a source needs but the pixels of the references; none of numbers of
        modes that were subtracted one by one.
    areas : list of int
        The number of the area that each fit is of.
    checks : list of int
        What tells the exposure and each set of references from others
        (`lyot.subtraction.recorded`).
    makes_frames : bool
        Whether the method makes frames of the references.
    frames : dict of int to RefPixels
        Where asked for, these by set of references.

    Examples
    --------
    >>> from lyot.files.exposure import read_cube
    >>> from lyot.files.aligned import AlignedArrays
    >>> from lyot.algorithms.zones import full_frame
    >>> from lyot.parameters import SubtractRecipe
    >>> from lyot.subtraction.subtract import subtract
    >>> target, refs = read_cube("science_calints.fits"), read_cube("reference_calints.fits")
    >>> aligned, zones = AlignedArrays(refs.sci, refs.err, refs.dq), full_frame(refs.frame_shape)
    >>> subtracted = subtract(target, aligned, zones, SubtractRecipe(n_modes=(1, 2)))
    >>> [result.n_modes for result in subtracted]
    [1, 2]
    """

    results: list[Subtraction]
    missing: NDArray[np.bool_]
    fits: list[Fit] = field(default_factory=list)
    areas: list[int] = field(default_factory=list)
    checks: list[int] = field(default_factory=list)
    makes_frames: bool = False
    frames: dict[int, RefPixels] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.results)

    @overload
    def __getitem__(self, number: int, /) -> Subtraction: ...
    @overload
    def __getitem__(self, number: slice, /) -> list[Subtraction]: ...
    def __getitem__(self, number: int | slice, /) -> Subtraction | list[Subtraction]:
        return self.results[number]


class SpeckleNoise(NamedTuple):
    """Scatter of the mean residual against separation, beside its propagated error."""

    separation_arcsec: Array  # middle of annuli two pixels wide
    scatter: Array  # standard deviation of the mean of the integrations
    propagated: Array  # rms of the propagated error of that mean
    speckle: Array  # what the error does not explain: residual speckles, and sources


def speckle_noise(
    mean: Array, variance: Array, star: StarPosition, pixel_scale_arcsec: float, /
) -> SpeckleNoise:
    """Compare the scatter of a mean residual ``(n_y, n_x)`` with its propagated error."""
    scatter = annulus_noise(mean, star.yx)
    ring = np.floor(radius_map(mean.shape, star.yx) / 2.0).astype(int)
    used = np.isfinite(mean) & (ring < len(scatter.sigma))
    n = len(scatter.sigma)
    with np.errstate(invalid="ignore", divide="ignore"):
        propagated = np.sqrt(
            np.bincount(ring[used], variance[used], minlength=n)
            / np.bincount(ring[used], minlength=n)
        )
        speckle = np.sqrt(np.maximum(scatter.sigma**2 - propagated**2, 0.0))
    return SpeckleNoise(scatter.radius_pix * pixel_scale_arcsec, scatter.sigma, propagated, speckle)


SKY_INNER_ARCSEC = 5.0
"""Separation beyond which a frame shows the sky, no speckles."""
MIN_SKY_BLOCKS = 8
MAX_ERR_RATIO = 1.3
"""Scatter of the sky over ERR, or the inverse, beyond which a warning is given."""


class SkyNoise(NamedTuple):
    """Scatter of the blank sky over the error that ERR states for it."""

    ratio: float  # NaN where there is no blank sky
    n_blocks: int  # blocks of 16 x 16 pixels that it rests on
    is_applied: bool = False  # whether ERR is multiplied by it

    @property
    def factor(self) -> float:
        """What ERR is multiplied with to be the scatter of the sky; 1 without a blank sky."""
        return self.ratio if np.isfinite(self.ratio) else 1.0

    def warning(self, name: str, /) -> str:
        """Say what is wrong with ERR of an exposure; nothing where it is right or not known."""
        if not (self.ratio > MAX_ERR_RATIO or self.ratio < 1.0 / MAX_ERR_RATIO):
            return ""
        text = f"The blank sky of {name} scatters {self.ratio:.2f} times what its ERR states."
        return f"{text} ERR is multiplied by that." if self.is_applied else text

    def __str__(self) -> str:
        """Say the ratio, or that there is no blank sky."""
        if np.isfinite(self.ratio):
            return f"{self.ratio:.2f}"
        return f"no blank sky beyond {SKY_INNER_ARCSEC:g} arcsec"


def sky_noise(mean: Array, variance: Array, separation_arcsec: Array, /) -> SkyNoise:
    """Compare the scatter of the blank sky of a mean residual ``(n_y, n_x)`` with its ERR.

    Robustly, so that neither sources nor gradients count: the median over blocks of the median
    absolute deviation in each.
    """
    sky = np.isfinite(mean) & np.isfinite(variance) & (separation_arcsec >= SKY_INNER_ARCSEC)
    found = block_scatter(np.where(sky, mean, np.nan), np.where(sky, variance, np.nan))
    if len(found) < MIN_SKY_BLOCKS:
        return SkyNoise(float("nan"), len(found))
    return SkyNoise(float(np.median(found)), len(found))


class RowNoise(NamedTuple):
    """Scatter of the levels of rows in a mean residual beyond the noise of their pixels."""

    rows: float  # along which the detector reads: 1/f noise; NaN where too few pixels count
    columns: float  # across them, where such noise is none

    def __str__(self) -> str:
        """Say both."""
        return f"{self.rows:.2g} along rows, {self.columns:.2g} along columns"


def row_noise(mean: Array, separation_arcsec: Array, fast_axis: int, /) -> RowNoise:
    """Measure the noise of the rows of a mean residual, 5 arcsec and farther from the star."""
    sky = np.isfinite(mean) & (separation_arcsec >= SKY_INNER_ARCSEC)
    both = ((mean, sky), (mean.T, sky.T))
    found = threads.map_ordered(lambda each: row_levels(*each).scatter, both)
    return RowNoise(*(found if fast_axis == 1 else found[::-1]))
