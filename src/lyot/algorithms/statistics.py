r"""Noise in annuli, and the statistic of a source among few resolution elements.

At separation r (in FWHM) there are :math:`n = \lfloor 2 \pi r \rfloor` independent positions. One
is tested against the mean and the scatter s of the n - 1 others by
:math:`t = (F - \bar F)\,/\,(s \sqrt{1 + 1/(n-1)})`, which for Gaussian noise follows Student's
distribution with n - 2 degrees of freedom (Mawet et al. 2014, doi:10.1088/0004-637X/792/2/97).
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms.geometry import radius_map
from lyot.algorithms.repair import MAD_TO_SIGMA, finite_median, middle_of
from lyot.types import Array


class NoiseCurve(NamedTuple):
    """Scatter of the pixels against separation, ``(n,)`` each."""

    radius_pix: NDArray[np.float64]  # mid-radius of each annulus
    sigma: NDArray[np.float64]  # standard deviation of its finite pixels; NaN where there are none
    n_pix: NDArray[np.int64]  # number of its finite pixels


def finite_mean(values: Array, /, *, axis: int) -> Array:
    """Average the finite values along an axis; NaN where there are none."""
    good = np.isfinite(values)
    count = good.sum(axis=axis)
    return np.where(good, values, 0.0).sum(axis=axis) / np.where(count > 0, count, np.nan)


def annulus_noise(
    image: NDArray[np.floating], center_yx: tuple[float, float], /, *, width: float = 2.0
) -> NoiseCurve:
    """Measure the 1-sigma scatter in concentric annuli of whole pixels.

    Parameters
    ----------
    image : ndarray, shape (n_y, n_x)
        Image; NaN is left out.
    center_yx : tuple of float
        Center of the annuli [pixel, 0-based].
    width : float, optional
        Width of each annulus [pixel].

    Returns
    -------
    NoiseCurve
        From the center out to the nearest edge. A pixel belongs to the annulus that its center
        lies in; pixels are not divided.

    Examples
    --------
    >>> image = np.random.default_rng(1).normal(0.0, 3.0, size=(65, 65))
    >>> curve = annulus_noise(image, (32.0, 32.0), width=8.0)
    >>> [round(float(sigma)) for sigma in curve.sigma]
    [3, 3, 3, 3]
    """
    n_y, n_x = image.shape
    reach = min(center_yx[0], center_yx[1], n_y - 1 - center_yx[0], n_x - 1 - center_yx[1])
    n = max(int(np.ceil(reach / width)), 0)
    label = np.floor(radius_map((n_y, n_x), center_yx) / width).astype(np.int64)
    use = np.isfinite(image) & (label < n)
    label, value = label[use], np.asarray(image[use], dtype=np.float64)
    count = np.bincount(label, minlength=n)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(label, value, minlength=n) / count
        sigma = np.sqrt(np.bincount(label, (value - mean[label]) ** 2, minlength=n) / count)
    radius = (np.arange(n, dtype=np.float64) + 0.5) * width
    return NoiseCurve(np.asarray(radius, dtype=np.float64), sigma, count)


class RingLevels(NamedTuple):
    """Median and scatter of values in rings, neither moved by few that stand out."""

    radius_pix: Array  # (n_ring,), middles of the rings
    middle: Array
    sigma: Array  # as that of a Gaussian, from the median absolute deviation

    def sigma_at(self, radius_pix: Array, /) -> Array:
        """Return the scatter at radii; NaN where no ring has one."""
        if not self.radius_pix.size:
            return np.full(np.shape(radius_pix), np.nan)
        return np.interp(radius_pix, self.radius_pix, self.sigma)

    def over(self, values: Array, radius_pix: Array, /) -> Array:
        """Return how many times the scatter values are above the median; NaN for no scatter."""
        if not self.radius_pix.size:
            return np.full(np.shape(values), np.nan)
        middle = np.interp(radius_pix, self.radius_pix, self.middle)
        return (values - middle) / self.sigma_at(radius_pix)


def ring_levels(values: Array, radius_pix: Array, /, *, width: float) -> RingLevels:
    """Measure median and scatter of the finite values in rings of a width [pixel]."""
    good = np.isfinite(values)
    if not good.any():
        return RingLevels(*(np.zeros(0),) * 3)
    which = (radius_pix[good] / width).astype(int)
    order = np.argsort(which, kind="stable")
    rings, first = np.unique(which[order], return_index=True)
    parts = np.split(values[good][order], first[1:])
    middle = np.array([middle_of(part) for part in parts])
    off = (np.abs(part - m) for part, m in zip(parts, middle, strict=True))
    sigma = MAD_TO_SIGMA * np.array([middle_of(part) for part in off])
    known = sigma > 0
    return RingLevels(width * (rings + 0.5)[known], middle[known], sigma[known])


BLOCK_PIX, MIN_BLOCK_SHARE = 16, 0.5


def block_scatter(image: Array, variance: Array, /) -> NDArray[np.float64]:
    """Return the scatter of the pixels in blocks over the error that a variance states there.

    For each block of 16 x 16 pixels of which half are good (finite in both) the median absolute
    deviation, as that of a Gaussian, over the root of the median variance, ``(n_block,)``.
    """
    n_y, n_x = (n - n % BLOCK_PIX for n in image.shape)
    parts = [
        a[:n_y, :n_x].reshape(n_y // BLOCK_PIX, BLOCK_PIX, -1, BLOCK_PIX).swapaxes(1, 2)
        for a in (image, variance)
    ]
    values, squares = (p.reshape(-1, BLOCK_PIX**2).T.astype(np.float64) for p in parts)
    good = np.isfinite(values) & np.isfinite(squares)
    enough = good.sum(axis=0) >= MIN_BLOCK_SHARE * len(good)
    values, squares = (np.where(good, a, np.nan)[:, enough] for a in (values, squares))
    stated, spread = finite_median(squares), finite_median(np.abs(values - finite_median(values)))
    known = stated > 0.0
    return MAD_TO_SIGMA * spread[known] / np.sqrt(stated[known])


GAUSSIAN, LAPLACE = "gaussian", "laplace"
N_DRAWS, DRAWS_AT_ONCE = 100_000, 10_000


def n_positions(radius_fwhm: float, /) -> int:
    """Return the number of independent positions at a separation [FWHM]: its circumference."""
    return int(np.floor(2.0 * np.pi * radius_fwhm + 1e-9))


def critical_t(n_others: int, fpf: float, /, *, distribution: str = GAUSSIAN) -> float:
    r"""Return the value of t that noise alone exceeds with a given probability.

    :math:`t = (F - \bar F)\,/\,(s \sqrt{1 + 1/m})` compares a position with the mean and the
    standard deviation s of m others.

    Parameters
    ----------
    n_others : int
        The number m of other positions.
    fpf : float
        False-positive fraction of one test.
    distribution : {"gaussian", "laplace"}, optional
        Of the noise at a position; residual speckles have the heavier tail of the second
        (Bonse et al. 2023, doi:10.3847/1538-3881/acc93c).

    Returns
    -------
    float
        NaN for fewer than two others.

    Examples
    --------
    >>> five_sigma_fpf = 2.866515719235352e-7
    >>> round(critical_t(5, five_sigma_fpf), 1)
    56.8
    """
    from scipy.special import stdtrit

    if n_others < 2:
        return float("nan")
    if distribution == LAPLACE:
        return _critical_t_laplace(n_others, fpf)
    return float(-stdtrit(n_others - 1, fpf))


def tail_probability(t_value: float, n_others: int, /, *, distribution: str = GAUSSIAN) -> float:
    """Return the probability that noise alone exceeds t: the inverse of `critical_t`.

    Parameters
    ----------
    t_value, n_others, distribution : float, int, str
        As defined there.

    Returns
    -------
    float
        NaN for fewer than two others.

    Examples
    --------
    >>> round(tail_probability(critical_t(12, 1e-3), 12), 6)
    0.001
    """
    from scipy.special import stdtr

    if n_others < 2 or not np.isfinite(t_value):
        return float("nan")
    if distribution == LAPLACE:
        return _laplace_tail(t_value, n_others)
    return float(stdtr(n_others - 1, -t_value))


@cache
def _laplace_block(level: int) -> tuple[Array, Array]:
    """Draw ``2**level`` Laplacian positions of unit variance: mean, and sum of squares about it."""
    rng, shape = np.random.default_rng(level), (DRAWS_AT_ONCE, 1 << level)
    mean, square = np.empty(N_DRAWS), np.empty(N_DRAWS)
    for first in range(0, N_DRAWS, DRAWS_AT_ONCE):
        # The difference of two exponential variables is Laplacian, of variance 2.
        draws = rng.standard_exponential(shape) - rng.standard_exponential(shape)
        part = slice(first, first + DRAWS_AT_ONCE)
        mean[part] = draws.mean(axis=1) / np.sqrt(2.0)
        square[part] = draws.var(axis=1) * (shape[1] / 2.0)
    return mean, square


@lru_cache(maxsize=64)
def _others_of_laplace(m: int) -> tuple[Array, Array]:
    """Mean, and scatter times sqrt(1 + 1/m), of m Laplacian positions of unit variance, drawn.

    Blocks of 1, 2, 4, ... positions are drawn once; those in the binary digits of m are united
    (Chan, Golub and LeVeque 1983, doi:10.1080/00031305.1983.10483115).
    """
    n, mean, square = 0, np.zeros(N_DRAWS), np.zeros(N_DRAWS)
    for level in range(m.bit_length()):
        size = m & (1 << level)
        if size:
            block_mean, block_square = _laplace_block(level)
            apart = block_mean - mean
            square = square + block_square + apart**2 * (n * size / (n + size))
            mean = mean + apart * (size / (n + size))
            n += size
    return mean, np.sqrt(square / (m - 1) * (1.0 + 1.0 / m))


def _laplace_tail(t_value: float, m: int) -> float:
    """Tail of t for Laplacian noise: known exactly given the others, which are drawn."""
    mean, scatter = _others_of_laplace(m)
    level = np.sqrt(2.0) * (mean + t_value * scatter)
    half = 0.5 * np.exp(-np.abs(level))
    return float(np.mean(np.where(level > 0, half, 1.0 - half)))


@lru_cache(maxsize=512)
def _critical_t_laplace(m: int, fpf: float) -> float:
    from scipy.optimize import brentq

    def _excess(log_t: float) -> float:
        return float(np.log(max(_laplace_tail(np.exp(log_t), m), 1e-300)) - np.log(fpf))

    return float(np.exp(brentq(_excess, np.log(1e-3), np.log(1e9))))


MEDIAN_EFFICIENCY = 0.70
"""Between 2/pi, where one frame is the median whatever the noise, and 3/4, where noise decides."""


def median_variance(values: Any, variance: Any, /) -> Any:
    r"""Return the variance of the median of frames that differ by more than their noise, or less.

    With :math:`F_k` the chance that frame k, drawn again about its value, lies below the median,
    and :math:`f_k` its density there, the variance is :math:`\sum F (1 - F) / (\sum f)^2`, times
    `MEDIAN_EFFICIENCY` because the values hold noise already: within 4 % in error at both ends (Sen
    1968, doi:10.1214/aoms/1177698154, for the quantiles of draws that are not alike). Values and
    variance are ``(n, n_pix)``; the result is zero where a variance is zero.
    """
    from scipy.special import ndtr

    if len(values) <= 2:  # their mean
        return np.sum(variance, axis=0) / len(values) ** 2
    sigma = np.sqrt(np.maximum(variance, np.finfo(np.float32).tiny))
    z = (np.median(values, axis=0) - values) / sigma
    below = ndtr(z)
    spread = (below * (1.0 - below)).sum(axis=0)
    density = (np.exp(-0.5 * z**2) / (np.sqrt(2.0 * np.pi) * sigma)).sum(axis=0)
    wide = np.full(spread.shape, np.inf)
    found = np.divide(spread, density**2, out=wide, where=density**2 > 0)
    if len(values) % 2 == 0:
        # The mean of the two middle frames, which may lie far apart.
        middle = np.argsort(np.abs(z * sigma), axis=0)[:2]
        apart = 0.25 * np.take_along_axis(sigma**2, middle, axis=0).sum(axis=0)
        found = np.minimum(found, apart * np.pi / 2.0)
    return np.where((variance > 0).all(axis=0), MEDIAN_EFFICIENCY * found, 0.0)
