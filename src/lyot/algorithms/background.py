"""Light that is not the star's: templates of the background, fitted beside low-order surfaces."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lyot.algorithms.repair import MAD_TO_SIGMA, finite_median, middle_of
from lyot.types import Array, Mask

MIN_SOURCE_SIGMA = 5.0
"""Excess of one background over the mean of the others that is a source in it."""
MIN_ROW_PIXELS, ROWS_ABOUT, SURROUNDINGS = 20, 15, 5
"""Pixels that the level of a row needs; rows that it is compared with, itself among them; and width
of what is smoothed to see faint sources [pixel]."""


class FittedTerms(NamedTuple):
    """Coefficients of terms that were fitted to an image."""

    coefficients: NDArray[np.float64]  # (n_terms,)
    scatter: float  # standard deviation about the fit
    n_pixels: int


def surface_terms(shape: tuple[int, int], /, *, order: int) -> NDArray[np.float64]:
    """Return the polynomials up to an order ``(n_terms, n_y, n_x)`` over -1 to 1; none below 0."""
    y, x = (np.linspace(-1.0, 1.0, n) for n in shape)
    powers = [(i, k - i) for k in range(order + 1) for i in range(k + 1)]
    return np.array([np.outer(y**i, x**j) for i, j in powers]).reshape(-1, *shape)


def fit_terms(
    image: Array,
    terms: Array,
    good: Mask,
    /,
    *,
    n_sigma: float = 3.0,
    n_rounds: int = 6,
) -> FittedTerms:
    """Fit terms to an image by least squares, without the pixels that stand out from the fit.

    Parameters
    ----------
    image : ndarray, shape (n_y, n_x)
        The image.
    terms : ndarray, shape (n_terms, n_y, n_x)
        What is fitted; finite where `good`.
    good : ndarray of bool, shape (n_y, n_x)
        Pixels that count.
    n_sigma : float, optional
        Pixels farther from the fit, in standard deviations, do not count: stars, speckles.
    n_rounds : int, optional
        Number of fits.

    Returns
    -------
    FittedTerms

    Examples
    --------
    >>> terms = surface_terms((20, 20), order=1)
    >>> image = 3.0 + 2.0 * terms[1]
    >>> image[4, 5] = 1e3
    >>> fit_terms(image, terms, np.ones(image.shape, bool)).coefficients.round(6).tolist()
    [3.0, 2.0, 0.0]
    """
    data, rows = image[good], terms[:, good]
    counts, values, scatter = np.ones(data.size, bool), np.zeros(len(terms)), 0.0
    for _ in range(n_rounds):
        used = rows[:, counts]
        values = np.linalg.pinv(used @ used.T, hermitian=True) @ (used @ data[counts])
        residual = data - values @ rows
        scatter = MAD_TO_SIGMA * float(np.median(np.abs(residual[counts]))) if counts.any() else 0.0
        within = np.abs(residual) <= n_sigma * scatter
        if not scatter or within.sum() <= len(terms) or np.array_equal(within, counts):
            break
        counts = within
    return FittedTerms(values, scatter, int(counts.sum()))


class RowLevels(NamedTuple):
    """The levels of rows above those about them, and their scatter beyond that of the pixels."""

    level: NDArray[np.float64]  # (n_y,); zero where too few pixels count
    err: NDArray[np.float64]  # (n_y,), by the scatter of the pixels
    scatter: float  # standard deviation of the levels without their errors; NaN where none is known


def row_levels(
    image: Array, good: Mask, /, *, n_sigma: float = 3.0, n_rounds: int = 3
) -> RowLevels:
    """Measure the level of each row above the 14 about it, such as 1/f noise of a detector leaves.

    Parameters
    ----------
    image : ndarray, shape (n_y, n_x)
        A residual.
    good : ndarray of bool, shape (n_y, n_x)
        Pixels that count: finite, and beyond the star.
    n_sigma : float, optional
        Pixels that stand out from their rows, or whose surroundings do, do not count in the next
        round: companions, discs.
    n_rounds : int, optional
        Number of rounds.

    Returns
    -------
    RowLevels

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> image = rng.normal(size=(120, 200)) + 0.5 * rng.normal(size=(120, 1))
    >>> rows = row_levels(image, np.ones(image.shape, bool))
    >>> round(rows.scatter, 1), round(float(rows.err[0]), 2)
    (0.5, 0.09)
    """
    data, counts = np.ascontiguousarray(image, dtype=np.float64), np.ascontiguousarray(good)
    unknown = RowLevels(np.zeros(len(data)), np.zeros(len(data)), float("nan"))
    for k in range(n_rounds):
        enough = counts.sum(axis=1) >= MIN_ROW_PIXELS
        if enough.sum() < ROWS_ABOUT:
            return unknown
        counts = counts & enough[:, None]
        level = np.nan_to_num(finite_median(np.where(counts, data, np.nan).T))
        apart = np.where(counts, data - level[:, None], 0.0)
        sigma = MAD_TO_SIGMA * float(middle_of(np.abs(apart[counts])))
        if k + 1 < n_rounds:
            share = ndimage.uniform_filter(counts.astype(np.float64), SURROUNDINGS)
            smooth = ndimage.uniform_filter(apart, SURROUNDINGS) / np.maximum(share, 0.1)
            width = MAD_TO_SIGMA * float(middle_of(np.abs(smooth[counts])))
            counts = counts & (np.abs(apart) <= n_sigma * sigma)
            counts &= np.abs(smooth) <= n_sigma * width
    level[enough] -= ndimage.median_filter(level[enough], ROWS_ABOUT, mode="nearest")
    err = np.where(enough, sigma * np.sqrt(0.5 * np.pi / np.maximum(counts.sum(axis=1), 1)), 0.0)
    of_levels = MAD_TO_SIGMA * float(middle_of(np.abs(level[enough])))
    of_pixels = float(middle_of(err[enough]))
    return RowLevels(level, err, float(np.sqrt(max(of_levels**2 - of_pixels**2, 0.0))))


class CombinedBackground(NamedTuple):
    """The mean of backgrounds, each without the sources that it alone shows."""

    mean: NDArray[np.float64]  # (n_y, n_x); NaN where no frame has a value
    variance: NDArray[np.float64]


def combine_backgrounds(
    frames: Array, variance: Array, bad: Mask, /, *, smoothing_pix: float
) -> CombinedBackground:
    """Average backgrounds ``(n, n_y, n_x)`` taken at several places of the sky.

    A source lies in one of them: smoothed by `smoothing_pix`, that frame exceeds the mean of the
    others by 5 standard deviations there, and does not count within twice as far.
    """
    sci = np.where(bad, np.nan, frames).astype(np.float64)
    level = np.nanmedian(sci, axis=(1, 2), keepdims=True)
    weight = (~bad).astype(np.float64)
    if len(sci) > 1:
        even = np.where(bad, 0.0, sci - level)
        for k in range(len(sci)):
            others = np.delete(np.arange(len(sci)), k)
            n = weight[others].sum(axis=0)
            excess = np.where(
                (n > 0) & ~bad[k], even[k] - even[others].sum(axis=0) / np.maximum(n, 1), 0.0
            )
            smooth = ndimage.gaussian_filter(excess, smoothing_pix)
            sigma = MAD_TO_SIGMA * np.median(np.abs(smooth - np.median(smooth)))
            source = smooth - np.median(smooth) > MIN_SOURCE_SIGMA * sigma
            if source.any():
                weight[k] *= ndimage.distance_transform_edt(~source) > 2.0 * smoothing_pix
    total = weight.sum(axis=0)
    some = total > 0
    total = np.where(some, total, 1.0)
    values = np.where(weight > 0, sci - level, 0.0)
    mean = np.where(some, (weight * values).sum(axis=0) / total + level.mean(), np.nan)
    spread = np.where(weight > 0, variance, 0.0).sum(axis=0) / total**2
    return CombinedBackground(mean, np.where(some, spread, np.nan))


def level_beside(image: Array, beside: Mask, /, *, smoothing_pix: float) -> NDArray[np.float64]:
    """Smooth an image by a Gaussian over some of its pixels, which continues them over others."""
    values, share = (
        ndimage.gaussian_filter(np.where(beside, each, 0.0), smoothing_pix)
        for each in (image, np.ones_like(image))
    )
    return np.where(share > 0, values / np.maximum(share, 1e-30), 0.0)
