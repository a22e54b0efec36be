r"""Filters that weight pixels with the inverse covariance of the residual, by separation.

Residuals are not white: the disc, the halo and speckles covary over many pixels. With the image p
of a source and the covariance C of the pixels about it, :math:`q = C^{-1} p` measures its flux with
the least scatter. C depends on the distance of two pixels alone; it is measured in annuli, of the
residual over its scatter at each separation, and holds a level of any height.
"""

from __future__ import annotations

import numpy as np

from lyot.algorithms.geometry import radius_map
from lyot.algorithms.repair import MAD_TO_SIGMA
from lyot.analysis.exposure import SubtractedExposure
from lyot.types import Array

NODE_RATIO, ANNULUS_RATIO = np.sqrt(2.0), 2.0
"""Ratio of the separations of two filters, and of the edges of an annulus to its separation."""
FIRST_FWHM = 2.0
MAX_SIGMA = 6.0
"""Pixels that stand out more are sources, not noise."""
BIN_PIX = 2.0
MIN_EIGENVALUE = 0.1
"""Least variance of a combination of pixels, over that of a pixel: what is less is chance."""
LEVEL_VARIANCE = 1e4
"""Prior variance of the level, over that of a pixel."""


def node_radii(fwhm_pix: float, reach_pix: float, /) -> Array:
    """Return the separations [pixel] for which filters are made."""
    first = FIRST_FWHM * fwhm_pix
    n = max(int(np.ceil(np.log(reach_pix / first) / np.log(NODE_RATIO))), 1)
    return np.geomspace(first, max(reach_pix, first * NODE_RATIO), n + 1)


def inverse_covariances(
    exposure: SubtractedExposure, radii_pix: Array, half_pix: int, fwhm_pix: float, /
) -> Array:
    """Measure the covariance of the pixels of a box of ``2 half_pix + 1``, by separation.

    Returns the inverse at each separation and number of modes, ``(n_node, n_trunc, n_pix, n_pix)``.
    """
    radius = radius_map(exposure.shape, exposure.star.yx)
    finite = np.isfinite(exposure.residual[0])
    y, x = (part.ravel() for part in np.mgrid[: 2 * half_pix + 1, : 2 * half_pix + 1])
    distance = np.hypot(y[:, None] - y, x[:, None] - x)
    inverse = []
    for r in radii_pix:
        low, high = min(r / ANNULUS_RATIO, r - fwhm_pix), max(r * ANNULUS_RATIO, r + fwhm_pix)
        within = finite & (radius >= low) & (radius <= high)
        for residual in exposure.residual:
            data, keep = _of_unit_scatter(residual, within, radius)
            lag, curve = autocovariance(data, keep, 2 * half_pix * np.sqrt(2.0) + 1.0)
            inverse.append(_inverse(np.interp(distance, lag, curve, right=0.0)))
    return np.array(inverse).reshape(len(radii_pix), -1, *distance.shape)


def _of_unit_scatter(image: Array, within: Array, radius: Array) -> tuple[Array, Array]:
    """The part of an image less its median, over its scatter with separation; which is noise."""
    values, at = image[within], radius[within]
    if not values.size:
        return np.zeros_like(image), within
    values = values - np.median(values)
    which = ((at - at.min()) / BIN_PIX).astype(int)
    order = np.argsort(which, kind="stable")
    ends = np.cumsum(np.bincount(which))[:-1]
    parts = np.split(np.abs(values)[order], ends)
    sigma = np.array([np.median(p) if p.size else np.nan for p in parts])
    known = sigma > 0
    if not known.any():
        return np.zeros_like(image), within
    middles = at.min() + BIN_PIX * (np.arange(len(sigma)) + 0.5)
    values = values / (MAD_TO_SIGMA * np.interp(at, middles[known], sigma[known]))
    noise = np.abs(values) < MAX_SIGMA
    out, keep = np.zeros_like(image), np.zeros_like(within)
    keep[within] = noise
    out[keep] = values[noise] - values[noise].mean()
    return out, keep


def autocovariance(data: Array, keep: Array, reach_pix: float, /) -> tuple[Array, Array]:
    """Return lags [pixel] and the mean product of pixels at each, in bins of half a pixel.

    `data` is zero where `keep` is False.
    """
    from scipy import fft

    if not keep.any():
        return np.zeros(1), np.ones(1)
    rows, columns = np.nonzero(keep)
    cut = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    lags = np.arange(-int(reach_pix), int(reach_pix) + 1)
    # Wide enough that no lag wraps around.
    shape = [fft.next_fast_len(n + len(lags), real=True) for n in data[cut].shape]

    def _products(part: Array) -> Array:
        power = np.abs(fft.rfft2(part, shape)) ** 2
        return np.asarray(fft.irfft2(power, shape)[np.ix_(lags, lags)])

    products, pairs = _products(data[cut]), _products(keep[cut].astype(np.float64))
    bins = np.rint(2.0 * np.hypot(lags[:, None], lags)).astype(int)
    used = (bins < 2.0 * reach_pix) & (pairs > 0.5)
    total = np.bincount(bins[used], products[used])
    count = np.bincount(bins[used], pairs[used])
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
