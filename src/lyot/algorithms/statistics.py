r"""Noise in annuli, and the statistic of a source among few resolution elements.

At separation r (in FWHM) there are :math:`n = \lfloor 2 \pi r \rfloor` independent positions. One
is tested against the mean and the scatter s of the n - 1 others by
:math:`t = (F - \bar F)\,/\,(s \sqrt{1 + 1/(n-1)})`, which for Gaussian noise follows Student's
distribution with n - 2 degrees of freedom (Mawet et al. 2014, doi:10.1088/0004-637X/792/2/97).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms.geometry import radius_map
from lyot.types import Array


class NoiseCurve(NamedTuple):
    """Scatter of the pixels against separation.

    Attributes
    ----------
    radius_pix : ndarray, shape (n,)
        Mid-radius of each annulus [pixel].
    sigma : ndarray, shape (n,)
        Standard deviation of the finite pixels of the annulus; NaN where there are none.
    n_pix : ndarray of int, shape (n,)
        Number of finite pixels.
    """

    radius_pix: NDArray[np.float64]
    sigma: NDArray[np.float64]
    n_pix: NDArray[np.int64]


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


FIVE_SIGMA_FPF = 2.866515719235352e-7
"""False-positive fraction of five sigma of a Gaussian."""

MAWET, PYKLIP = "n-1", "n"
GAUSSIAN, LAPLACE = "gaussian", "laplace"


def n_positions(radius_fwhm: float, /) -> int:
    """Return the number of independent positions at a separation.

    Parameters
    ----------
    radius_fwhm : float
        Separation [FWHM].

    Returns
    -------
    int
        The floor of its circumference.
    """
    return int(np.floor(2.0 * np.pi * radius_fwhm + 1e-9))


def threshold(
    n: int,
    /,
    *,
    fpf: float = FIVE_SIGMA_FPF,
    others: str = MAWET,
    distribution: str = GAUSSIAN,
) -> float:
    """Return by how many standard deviations of the others a position must stand out.

    Parameters
    ----------
    n : int
        Number of positions, the tested one included.
    fpf : float, optional
        False-positive fraction of one test.
    others : {"n-1", "n"}, optional
        Whether the tested position counts among the n (this package's detection), or n others
        are meant, as pyKLIP and VIP print.
    distribution : {"gaussian", "laplace"}, optional
        Distribution of the noise; residual speckles have the heavier tail of the second
        (Bonse et al. 2023, doi:10.3847/1538-3881/acc93c).

    Returns
    -------
    float
        The factor on the standard deviation; NaN where fewer than three positions remain.

    Raises
    ------
    ValueError
        If an option is not known.
    """
    from scipy.stats import t

    if others not in (MAWET, PYKLIP) or distribution not in (GAUSSIAN, LAPLACE):
        raise ValueError(f"others is {others!r} and distribution {distribution!r}.")
    m = n - 1 if others == MAWET else n
    if m < 2:
        return float("nan")
    spread = np.sqrt(1.0 + 1.0 / m)
    if distribution == LAPLACE:
        return float(_laplace_factor(m, fpf) * spread)
    return float(t.isf(fpf, m - 1) * spread)


@lru_cache(maxsize=512)
def _laplace_factor(m: int, fpf: float) -> float:
    """Threshold of t for Laplacian noise.

    The others are drawn; the tail of the tested one, given them, is known exactly.
    """
    from scipy.optimize import brentq

    rng = np.random.default_rng(m)
    draws = rng.laplace(size=(100_000, m)) / np.sqrt(2.0)
    mean, scatter = draws.mean(axis=1), draws.std(axis=1, ddof=1) * np.sqrt(1.0 + 1.0 / m)

    def _excess(log_factor: float) -> float:
        level = np.sqrt(2.0) * (mean + np.exp(log_factor) * scatter)
        half = 0.5 * np.exp(-np.abs(level))
        tail = float(np.mean(np.where(level > 0, half, 1.0 - half)))
        return float(np.log(max(tail, 1e-300)) - np.log(fpf))

    return float(np.exp(brentq(_excess, np.log(1e-3), np.log(1e9))))


def false_positive_fraction(t_value: NDArray[np.floating], n: NDArray[np.floating], /) -> Any:
    """Return the probability that noise alone stands out as much.

    Parameters
    ----------
    t_value : ndarray
        The statistic t.
    n : ndarray
        Number of positions, the tested one included.

    Returns
    -------
    ndarray
        False-positive fraction for Gaussian noise.
    """
    from scipy.stats import t

    return t.sf(t_value, np.maximum(np.asarray(n) - 2, 1))


MEDIAN_EFFICIENCY = 0.70
"""Between 2/pi, where one frame is the median whatever the noise, and 3/4, where noise decides."""


def median_variance(values: Any, variance: Any, /) -> Any:
    r"""Return the variance of the median of frames that differ by more than their noise, or less.

    With :math:`F_k` the chance that frame k, drawn again about its value, lies below the median,
    and :math:`f_k` its density there, the variance is :math:`\sum F (1 - F) / (\sum f)^2`, times
    `MEDIAN_EFFICIENCY` because the values hold noise already: within 4 % in error at both ends.

    Parameters
    ----------
    values : ndarray, shape (n, n_pix)
        The frames.
    variance : ndarray, shape (n, n_pix)
        Their variance.

    Returns
    -------
    ndarray, shape (n_pix,)
        Zero where a variance is zero.

    Notes
    -----
    For the quantiles of draws that are not alike: Sen 1968, doi:10.1214/aoms/1177698154.
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
