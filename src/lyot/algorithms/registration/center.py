"""The center of a point-symmetric pattern."""

from __future__ import annotations

from typing import Any, NamedTuple

from array_api_compat import array_namespace, device

from lyot.algorithms import fourier
from lyot.algorithms.registration.refine import refine
from lyot.algorithms.registration.zone import TOLERANCE_PIX


class Center(NamedTuple):
    """The center of point symmetry of an image, or over any leading axes those of several."""

    center_yx: Any  # (2,) [pixel, 0-based]
    covariance: Any  # (2, 2) [pixel^2], from the noise variance alone
    contrast: Any  # (), symmetric fraction of the weighted power, from 0.5 (none) to 1
    converged: Any  # ()


def symmetry_center(
    image: Any,
    variance: Any,
    bad: Any,
    guess_yx: tuple[float, float],
    /,
    *,
    inner_pix: float,
    outer_pix: float,
    max_offset: float = 3.0,
    weight: Any = None,
    tolerance: float = TOLERANCE_PIX,
) -> Center:
    r"""Measure the point about which an image is symmetric under rotation by 180 degrees.

    Minimizes :math:`\sum w\,(s - T_d \tilde s)^2`, where :math:`\tilde s` is the image turned
    about a pixel: the center lies at half the shift.

    Parameters
    ----------
    image, variance : array, shape (n_y, n_x)
        Finite image and its noise variance.
    bad : array of bool, shape (n_y, n_x)
        True where the pixel is left out.
    guess_yx : tuple of float
        First guess [pixel, 0-based].
    inner_pix, outer_pix : float
        Radii of the annulus about the guess that is used [pixel].
    max_offset : float, optional
        Distance from the guess beyond which the fit counts as failed [pixel].
    weight : array, shape (n_y, n_x), optional
        Weight of each pixel of the annulus, alike on both sides of the guess; 1 by default.
    tolerance : float, optional
        Size of the last step of the fit [pixel].

    Returns
    -------
    Center

    Notes
    -----
    Speckles are point-symmetric only to first order in the wavefront error (Bloemhof et al.
    2001, doi:10.1086/324270), which is what limits the accuracy, not the noise.

    Examples
    --------
    >>> import numpy as np
    >>> y, x = np.mgrid[:41, :41]
    >>> image = np.exp(-((y - 20.2) ** 2 + (x - 19.9) ** 2) / 60.0)
    >>> one, none = np.ones(image.shape), np.zeros(image.shape, bool)
    >>> found = symmetry_center(image, one, none, (20.0, 20.0), inner_pix=2.0, outer_pix=15.0)
    >>> found.center_yx.round(2).tolist()
    [20.2, 19.9]
    """
    xp, there = array_namespace(image, variance, bad), device(image)
    guess = [[float(guess_yx[0]), float(guess_yx[1])]]
    guesses = xp.asarray(guess, dtype=xp.float64, device=there)
    options = {"inner_pix": inner_pix, "outer_pix": outer_pix, "max_offset": max_offset}
    found = symmetry_centers(
        image[None, ...], variance, bad, guesses, weight=weight, tolerance=tolerance, **options
    )
    center, covariance, contrast, converged = (part[0, ...] for part in found)
    return Center(center, covariance, contrast, bool(converged))


def symmetry_centers(
    images: Any,
    variance: Any,
    bad: Any,
    guesses_yx: Any,
    /,
    *,
    inner_pix: float,
    outer_pix: float,
    max_offset: float = 3.0,
    weight: Any = None,
    tolerance: float = TOLERANCE_PIX,
) -> Center:
    """Measure the centers of images ``(n, n_y, n_x)`` of one variance and one set of bad pixels.

    The guesses ``(n, 2)`` lie on the same whole pixel; for the rest see `symmetry_center`.
    """
    xp, there = array_namespace(images, variance, bad, guesses_yx), device(images)
    n_y, n_x = images.shape[-2:]
    pivot = round(float(guesses_yx[0, 0])), round(float(guesses_yx[0, 1]))
    # Turning the frame sends pixel p to n - 1 - p; this shift brings the pivot back to itself.
    to_pivot = (2 * pivot[0] - (n_y - 1), 2 * pivot[1] - (n_x - 1))
    middle = xp.asarray([float(p) for p in pivot], dtype=xp.float64, device=there)
    y = xp.arange(n_y, dtype=xp.float64, device=there)[:, None] - pivot[0]
    x = xp.arange(n_x, dtype=xp.float64, device=there)[None, :] - pivot[1]
    radius = xp.sqrt(y * y + x * x)
    limit = min(outer_pix, pivot[0], pivot[1], n_y - 1 - pivot[0], n_x - 1 - pivot[1])
    keep = (radius >= inner_pix) & (radius <= limit) & ~bad & ~_turned(bad, to_pivot)
    inside = xp.astype(keep, xp.float64)
    weight = inside if weight is None else inside * weight
    start = 2.0 * (guesses_yx - middle)
    fit = refine(
        xp.astype(images, xp.float64),
        weight,
        variance,
        fourier.spectrum(_turned(images, to_pivot)),
        _turned(variance, to_pivot)[None, ...],
        start,
        bound_yx=(start - 2.0 * max_offset, start + 2.0 * max_offset),
        tolerance=tolerance,
    )
    # |s - r|^2 is twice the power of the antisymmetric part of s, for r its turned copy.
    power = xp.sum(weight * images * images, axis=(-2, -1)) / xp.sum(weight)
    contrast = 1.0 - 0.5 * fit.rms**2 / power
    # Each pixel pair enters twice, as (s, turned) and as (turned, s): half the information.
    covariance = fit.covariance * 0.25 * 2.0
    return Center(middle + 0.5 * fit.shift_yx, covariance, contrast, fit.converged)


def _turned(images: Any, to_pivot: tuple[int, int]) -> Any:
    xp = array_namespace(images)
    return xp.roll(xp.flip(images, axis=(-2, -1)), to_pivot, axis=(-2, -1))
