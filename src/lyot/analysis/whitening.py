r"""Filters that weight pixels with the inverse covariance of the residual, by separation.

Residuals are not white: the disc, the halo and speckles covary over many pixels. With the image p
of a source and the covariance C of the pixels about it, :math:`q = C^{-1} p` measures its flux with
the least scatter. C is measured in annuli, of the residual over its scatter at each separation, and
holds a level of any height. It is a mean of two covariances: that of pixels at each offset, and
that of pixels at each distance, which has fewer terms and thus less chance. Of the first no more
than half is taken, and less where an annulus has few pixels for each pixel of the filter.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms.geometry import radius_map
from lyot.algorithms.repair import MAD_TO_SIGMA, middle_of
from lyot.analysis.exposure import SubtractedExposure
from lyot.types import Array

NODE_RATIO, ANNULUS_RATIO = 2.0, 2.0
"""Ratio of the separations of two filters, and of the edges of an annulus to its separation."""
FIRST_FWHM = 2.0
MAX_SIGMA = 6.0
"""Pixels that stand out more are sources, not noise."""
BIN_PIX = 2.0
MIN_EIGENVALUE = 0.1
"""Least variance of a combination of pixels, over that of a pixel: what is less is chance."""
LEVEL_VARIANCE = 1e4
"""Prior variance of the level, over that of a pixel."""
MAX_LIGHT = 0.15
"""Light of a source in a pixel, over the scatter there, that is taken for noise."""
PIXELS_PER_TERM = 25.0
"""Pixels of an annulus, for each of the filter, that take a third of the covariance by offset."""


def node_radii(fwhm_pix: float, reach_pix: float, /) -> Array:
    """Return the separations [pixel] for which filters are made."""
    first = FIRST_FWHM * fwhm_pix
    n = max(int(np.ceil(np.log(reach_pix / first) / np.log(NODE_RATIO))), 1)
    return np.geomspace(first, max(reach_pix, first * NODE_RATIO), n + 1)


def inverse_covariances(
    exposure: SubtractedExposure,
    radii_pix: Array,
    half_pix: int,
    fwhm_pix: float,
    /,
    *,
    light: Array | None = None,
) -> Array:
    """Measure the covariance of the pixels of a box of ``2 half_pix + 1``, by separation.

    Pixels on which sources have `light` ``(n_trunc, n_y, n_x)`` are no noise: a source in its own
    covariance lowers its S/N. At most half of an annulus is left out. Returns the
    inverse at each separation and number of modes, ``(n_node, n_trunc, n_pix, n_pix)``.
    """
    radius = radius_map(exposure.shape, exposure.star.yx)
    finite = np.isfinite(exposure.residual[0])
    y, x = (part.ravel() for part in np.mgrid[: 2 * half_pix + 1, : 2 * half_pix + 1])
    rows, columns = y[:, None] - y, x[:, None] - x
    distance, reach = np.hypot(rows, columns), int(2 * half_pix * np.sqrt(2.0)) + 1
    inverse = []
    for r in radii_pix:
        low, high = min(r / ANNULUS_RATIO, r - fwhm_pix), max(r * ANNULUS_RATIO, r + fwhm_pix)
        rings = _Rings.of(finite & (radius >= low) & (radius <= high), radius)
        for t, residual in enumerate(exposure.residual):
            data, keep = rings.of_unit_scatter(residual, None if light is None else light[t])
            products, pairs = lag_products(data, keep, reach)
            by_distance = np.interp(distance, *by_length(products, pairs), right=0.0)
            offset = (rows + reach, columns + reach)
            measured = pairs[offset] > 0.5
            by_offset = np.where(measured, products[offset], 0.0) / np.maximum(pairs[offset], 0.5)
            share = 1.0 / (2.0 + PIXELS_PER_TERM * y.size / max(keep.sum(), 1))
            inverse.append(_inverse(by_distance + share * measured * (by_offset - by_distance)))
    return np.array(inverse).reshape(len(radii_pix), -1, *distance.shape)


class _Rings(NamedTuple):
    """The pixels of an annulus in rings about the star."""

    shape: tuple[int, ...]  # of the image
    at: NDArray[np.intp]  # the pixels, flattened, ring by ring
    radius: Array  # their separations [pixel]
    middles: Array  # separations of the rings [pixel]
    ends: NDArray[np.intp]  # where each ring but the last ends

    @classmethod
    def of(cls, within: Array, radius: Array) -> _Rings:
        at = np.flatnonzero(within)
        values = radius.ravel()[at]
        first = values.min(initial=np.inf) if at.size else 0.0
        which = ((values - first) / BIN_PIX).astype(int)
        order = np.argsort(which, kind="stable")
        number = np.bincount(which)
        middles = first + BIN_PIX * (np.arange(len(number)) + 0.5)
        return cls(within.shape, at[order], values[order], middles, np.cumsum(number)[:-1])

    def of_unit_scatter(self, image: Array, light: Array | None) -> tuple[Array, Array]:
        """The part of an image less its median, over its scatter by ring; which is noise."""
        out, keep = np.zeros(self.shape), np.zeros(self.shape, bool)
        if not self.at.size:
            return out, keep
        values = image.ravel()[self.at]
        values = values - np.median(values)
        parts = np.split(np.abs(values), self.ends)
        sigma = np.array([middle_of(part) for part in parts])
        known = sigma > 0
        if not known.any():
            return out, keep
        scatter = np.interp(self.radius, self.middles[known], sigma[known])
        values = values / (MAD_TO_SIGMA * scatter)
        noise = np.abs(values) < MAX_SIGMA
        if light is not None:
            share = light.ravel()[self.at] / (MAD_TO_SIGMA * scatter)
            noise &= share <= max(MAX_LIGHT, float(np.median(share)))
        out.ravel()[self.at[noise]] = values[noise] - values[noise].mean()
        keep.ravel()[self.at[noise]] = True
        return out, keep


def lag_products(
    data: Array, keep: Array, reach: int, /, other: tuple[Array, Array] | None = None
) -> tuple[Array, Array]:
    """Return the sum of products of pixels at each offset, and of pairs, ``(2 reach + 1, ...)``.

    Images are zero where `keep` is False; products are with the pixels of another image, where one
    is given.
    """
    from scipy import fft

    lags = np.arange(-reach, reach + 1)
    used = keep if other is None else keep | other[1]
    if not used.any():
        return np.ones((lags.size, lags.size)), np.ones((lags.size, lags.size))
    rows, columns = np.flatnonzero(used.any(axis=1)), np.flatnonzero(used.any(axis=0))
    cut = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    # Wide enough that no lag wraps around.
    shape = [fft.next_fast_len(n + len(lags), real=True) for n in data[cut].shape]

    def _products(part: Array, other_part: Array | None) -> Array:
        spectrum = fft.rfft2(part[cut].astype(np.float64), shape)
        other_spectrum = spectrum
        if other_part is not None:
            other_spectrum = fft.rfft2(other_part[cut].astype(np.float64), shape)
        power = spectrum * other_spectrum.conj()
        return np.asarray(fft.irfft2(power, shape)[np.ix_(lags, lags)])

    data_2, keep_2 = other or (None, None)
    return _products(data, data_2), _products(keep, keep_2)


def by_length(products: Array, pairs: Array, /) -> tuple[Array, Array]:
    """Return lags [pixel] and the mean product of pixels at each, whatever the direction."""
    reach = len(pairs) // 2
    lags = np.arange(-reach, reach + 1)
    bins = np.rint(2.0 * np.hypot(lags[:, None], lags)).astype(int)
    used = (bins < 2 * (reach + 1)) & (pairs > 0.5)
    total, count = np.bincount(bins[used], products[used]), np.bincount(bins[used], pairs[used])
    measured = count > 0
    return 0.5 * np.flatnonzero(measured), total[measured] / count[measured]


def _inverse(covariance: Array) -> Array:
    """Invert a covariance, with chance and a level of any height reckoned with."""
    variance = float(covariance[0, 0])
    values, vectors = np.linalg.eigh(covariance)
    values = np.maximum(values, MIN_EIGENVALUE * variance)
    inverse = (vectors / values) @ vectors.T
    # A level of any height adds the same to all elements (Sherman and Morrison).
    sums = inverse.sum(axis=0)
    level = 1.0 / (LEVEL_VARIANCE * variance) + sums.sum()
    return np.asarray(inverse - np.outer(sums, sums) / level)
