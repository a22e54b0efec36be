"""Pixels that are sharper than any image the optics form."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms.repair import (
    MAD_TO_SIGMA,
    fit_cross_prediction,
    median_fill,
    median_of_neighbors,
)
from lyot.types import Array, Mask

HALF_WIDTH = 6
MAX_STAR_SIGMA = 10.0
"""Amplitude of the images of stars, in standard deviations of a pixel, that the kernel expects."""
SHORTEST = 0.9
"""Shortest wavelength of a filter over its pivot wavelength."""
MODEL_ERROR, WELL_SAMPLED = 0.1, 2.2
"""Part of the smooth light about a pixel that the kernel may let through, and the wavelength over
diameter [pixel] below which it is more, by the fourth power."""
STRIDE = 3
N_ROUNDS = 4
MIN_SHARE = 0.8
"""Of the largest residual of all frames at a pixel, below which it is that of another frame."""


@lru_cache(maxsize=16)
def spike_kernel(lambda_over_d_pix: float, /) -> NDArray[np.float64]:
    r"""Return the filter, ``(13, 13)``, that passes single pixels and stops images of the optics.

    It is the minimum-variance estimate of the amplitude of a single pixel beside white noise and
    images of stars: :math:`W(f) = 1 / (1 + A^2 M(f)^2)` with the modulation transfer M of a round
    pupil and a square pixel, zero beyond D over the shortest wavelength, and A = 10.
    """
    n = 64
    y, x = np.meshgrid(np.fft.fftfreq(n), np.fft.fftfreq(n), indexing="ij")
    nu = np.clip(np.hypot(y, x) * lambda_over_d_pix * SHORTEST, 0.0, 1.0)
    transfer = 2.0 / np.pi * (np.arccos(nu) - nu * np.sqrt(1.0 - nu**2)) * np.sinc(y) * np.sinc(x)
    weight = 1.0 / (1.0 + (MAX_STAR_SIGMA * transfer) ** 2)
    inside = slice(n // 2 - HALF_WIDTH, n // 2 + HALF_WIDTH + 1)
    kernel = np.fft.fftshift(np.fft.ifft2(weight).real)[inside, inside]
    return np.asarray(kernel / kernel[HALF_WIDTH, HALF_WIDTH])


def spike_flags(
    image: Array, err: Array, bad: Mask, /, *, lambda_over_d_pix: float, n_sigma: float = 4.5
) -> Mask:
    """Flag pixels, alone or in pairs, that are sharper than an image of the optics.

    The noise of the filtered image is that of the errors or its own scatter within seven pixels,
    whichever is larger, and a part of the smooth light about the pixel: neither speckles nor
    stars are flagged.

    Parameters
    ----------
    image, err : ndarray, shape (n_y, n_x)
        An integration and its errors.
    bad : ndarray of bool, shape (n_y, n_x)
        True where the pixel is bad already; its values are not read.
    lambda_over_d_pix : float
        Wavelength over the diameter of the telescope [pixel].
    n_sigma : float, optional
        Threshold in standard deviations.

    Returns
    -------
    ndarray of bool, shape (n_y, n_x)
        True where the pixel is an outlier.

    Examples
    --------
    >>> image = np.random.default_rng(0).normal(size=(64, 64))
    >>> image[30, 40] += 12.0
    >>> flags = spike_flags(image, np.ones(image.shape), image > 99, lambda_over_d_pix=2.2)
    >>> np.argwhere(flags).tolist()
    [[30, 40]]
    """
    found = np.zeros(image.shape, bool)
    # The filter swings about a spike: the brightest go first, and what is left is seen again.
    for _ in range(N_ROUNDS):
        missing = bad | found
        if missing.all():
            break
        more = _brightest(image, err, missing, lambda_over_d_pix, n_sigma)
        if not more.any():
            break
        found |= more
    return found | _between(found, image, err, bad)


def spikes_across(
    frames: Array,
    err: Array,
    bad: Mask,
    rows: Sequence[int],
    /,
    *,
    lambda_over_d_pix: float,
    n_sigma: float = 4.5,
) -> Mask:
    """Flag spikes in what the other frames of a stack do not tell of some of them.

    Each frame is predicted from the others and the slopes of their mean, which align them to first
    order: most of the star's light goes, and with it the part of it that the spatial test allows
    for. What a spike leaves in the predictions of others is smaller, and is not flagged.

    Parameters
    ----------
    frames, err : ndarray, shape (n, n_y, n_x)
        Frames of one mode with the star within a pixel of one place, and their errors.
    bad : ndarray of bool, shape (n, n_y, n_x)
        True where the frame is bad already; its values are not read.
    rows : sequence of int
        Numbers of the frames that are looked at.
    lambda_over_d_pix : float
        Wavelength over the diameter of the telescope [pixel].
    n_sigma : float, optional
        Threshold in standard deviations.

    Returns
    -------
    ndarray of bool, shape (n_rows, n_y, n_x)
        True where the pixel is an outlier.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> frames = 100.0 * rng.normal(size=(48, 48)) + rng.normal(size=(5, 48, 48))
    >>> frames[2, 20, 30] += 12.0
    >>> none = np.zeros(frames.shape, bool)
    >>> found = spikes_across(frames, np.ones(frames.shape), none, [2], lambda_over_d_pix=2.2)
    >>> np.argwhere(found).tolist()
    [[0, 20, 30]]
    """
    n, *shape = frames.shape
    filled = median_fill(frames, bad)
    slopes = np.gradient(filled.mean(axis=0))
    every = np.concatenate([filled, slopes]).reshape(n + 2, -1)
    variance = np.zeros_like(every)
    variance[:n] = np.nan_to_num(err).reshape(n, -1) ** 2
    good = ~bad.any(axis=0).ravel()
    prediction = fit_cross_prediction(every[:, good], variance[:, good])
    centered = every - prediction.mean[:, None]
    residual = centered[:n] - prediction.matrix[:n] @ centered
    noise = np.sqrt(variance[:n] + prediction.matrix[:n] ** 2 @ variance)
    largest = np.where(bad.reshape(n, -1), 0.0, np.abs(residual)).max(axis=0)
    found = np.zeros((len(rows), *shape), bool)
    for flags, k in zip(found, rows, strict=True):
        own, of_noise = (each[k].reshape(shape) for each in (residual, noise))
        flags[:] = spike_flags(
            own, of_noise, bad[k], lambda_over_d_pix=lambda_over_d_pix, n_sigma=n_sigma
        )
        flags &= np.abs(own) >= MIN_SHARE * largest.reshape(shape)
    return found


def _between(found: Mask, image: Array, err: Array, bad: Mask) -> NDArray[np.bool_]:
    """Return pixels with two spikes or more about them that stand out too: one hit of four pixels.

    They exceed their surroundings by twice what smooth light there does.
    """
    from scipy import ndimage

    if found.sum() < 2:
        return np.zeros_like(found)
    [filled] = median_fill(image[None], bad[None])
    beside = ndimage.convolve(found.astype(int), np.ones((3, 3), int), mode="constant") >= 2
    level = _local_median(filled)
    middle = np.abs(median_of_neighbors(filled, half_window=1) - level)
    with np.errstate(invalid="ignore"):
        return beside & ~bad & (np.abs(filled - level) > np.maximum(5.0 * err, 2.0 * middle))


def _brightest(
    image: Array, err: Array, bad: Mask, lambda_over_d_pix: float, n_sigma: float
) -> NDArray[np.bool_]:
    """Return the spikes that exceed all others within a pixel."""
    from scipy import ndimage

    kernel = spike_kernel(round(lambda_over_d_pix, 3))
    [filled] = median_fill(image[None], bad[None])
    known = ~bad & np.isfinite(err) & (err > 0)
    typical = float(np.median(err[known])) if known.any() else 0.0
    error = np.where(known, err, typical)
    filtered = np.abs(ndimage.convolve(filled, kernel, mode="nearest"))
    variance = ndimage.convolve(error**2.0, kernel**2, mode="nearest")
    scatter = MAD_TO_SIGMA * _local_median(filtered)
    level = _local_median(filled)
    middle = median_of_neighbors(filled, half_window=1)
    light = ndimage.maximum_filter(np.abs(middle - level), size=3, mode="nearest")
    passed = MODEL_ERROR * max(1.0, WELL_SAMPLED / lambda_over_d_pix) ** 4
    noise = np.sqrt(np.maximum(variance, scatter**2) + (passed * light) ** 2)
    ratio = np.where(bad | (noise <= 0), 0.0, filtered / np.where(noise > 0, noise, 1.0))
    return np.asarray((ratio > n_sigma) & (ratio >= ndimage.maximum_filter(ratio, size=3)))


def _local_median(image: Array) -> NDArray[np.float64]:
    """Return the median about each pixel, within seven pixels, by every third row and column."""
    sparse = median_of_neighbors(image[::STRIDE, ::STRIDE])
    full = sparse.repeat(STRIDE, axis=0).repeat(STRIDE, axis=1)
    return np.asarray(full[: image.shape[0], : image.shape[1]])


def grown(mask: Mask, n_pixels: int, /) -> Mask:
    """Return a mask with the pixels within a distance of it, along rows, columns and diagonals."""
    from scipy import ndimage

    if not n_pixels or not mask.any():
        return mask
    return np.asarray(ndimage.binary_dilation(mask, np.ones((2 * n_pixels + 1,) * 2, bool)))
