"""The center of a point-symmetric pattern."""

from __future__ import annotations

from typing import Any, NamedTuple

from array_api_compat import array_namespace

from lyot.algorithms import fourier
from lyot.algorithms.registration.refine import refine


class Center(NamedTuple):
    """The center of point symmetry of an image."""

    center_yx: Any  # (2,) [pixel, 0-based]
    covariance: Any  # (2, 2) [pixel^2], from the noise variance alone
    contrast: Any  # (), symmetric fraction of the weighted power, from 0.5 (none) to 1
    converged: bool


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
    xp = array_namespace(image, variance, bad)
    shape = image.shape
    n_y, n_x = shape
    pivot = (round(guess_yx[0]), round(guess_yx[1]))
    # Turning the frame sends pixel p to n - 1 - p; this shift brings the pivot back to itself.
    to_pivot = xp.asarray(
        [2.0 * pivot[0] - (n_y - 1), 2.0 * pivot[1] - (n_x - 1)], dtype=xp.float64
    )
    y = xp.arange(n_y, dtype=xp.float64)[:, None] - pivot[0]
    x = xp.arange(n_x, dtype=xp.float64)[None, :] - pivot[1]
    radius = xp.sqrt(y * y + x * x)
    limit = min(outer_pix, pivot[0], pivot[1], n_y - 1 - pivot[0], n_x - 1 - pivot[1])
    keep = (radius >= inner_pix) & (radius <= limit) & ~bad & ~_turned(bad, to_pivot)
    inside = xp.astype(keep, xp.float64)
    weight = inside if weight is None else inside * weight
    start = xp.asarray(
        [[2.0 * (guess_yx[0] - pivot[0]), 2.0 * (guess_yx[1] - pivot[1])]], dtype=xp.float64
    )
    bound = (start - 2.0 * max_offset, start + 2.0 * max_offset)
    fit, _ = refine(
        xp.astype(image, xp.float64),
        weight,
        variance,
        fourier.spectrum(_turned(image, to_pivot))[None, ...],
        _turned(variance, to_pivot)[None, ...],
        start,
        bound_yx=bound,
    )
    d = fit.shift_yx[0, :]
    # |s - r|^2 is twice the power of the antisymmetric part of s, for r its turned copy.
    power = xp.sum(weight * image * image) / xp.sum(weight)
    contrast = 1.0 - 0.5 * fit.rms[0] ** 2 / power
    center = xp.asarray([float(pivot[0]), float(pivot[1])], dtype=xp.float64) + 0.5 * d
    # Each pixel pair enters twice, as (s, turned) and as (turned, s): half the information.
    covariance = fit.covariance[0, ...] * 0.25 * 2.0
    return Center(center, covariance, contrast, bool(fit.converged[0]))


def _turned(image: Any, to_pivot: Any) -> Any:
    xp = array_namespace(image)
    turned = xp.flip(xp.flip(image, axis=0), axis=1)
    return xp.roll(turned, (int(to_pivot[0]), int(to_pivot[1])), axis=(0, 1))
