"""The covariance of the residual about a companion."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lyot.algorithms.geometry import polar, radius_map
from lyot.algorithms.repair import MAD_TO_SIGMA
from lyot.analysis.exposure import SubtractedExposure
from lyot.analysis.whitening import autocovariance
from lyot.errors import LyotError
from lyot.types import Array, Box

ANNULUS_FWHM = 2.0
CLEAR_FWHM = 3.0
"""Radius about companions that is excluded from the noise estimate."""
MIN_PIXELS = 50
MAX_SIGMA = 6.0
MAX_LAG_FWHM = 6.0
TAPER_LAG_FWHM = 2.0
"""Lag beyond which a measured covariance is mostly chance, and fades."""
N_TERMS = {"none": 0, "constant": 1, "plane": 3, "quadratic": 6}
BACKGROUND_VARIANCE = 1e4
"""Prior variance of a background's coefficients, in mean variances of a pixel."""


def residual_covariance(
    exposure: SubtractedExposure,
    image: Array,
    place_yx: tuple[float, float],
    companions: Array,
    fwhm_pix: float,
    /,
) -> Callable[[Array, Array], Array]:
    """Measure how the residual covaries at the separation of a place [pixel].

    From an annulus of four FWHM, less three FWHM about companions (offsets to the east and north
    [pixel]). Returns a function of the lags along y and x, which depends on their length alone.
    """
    keep = _annulus(exposure, image, place_yx, companions, fwhm_pix)
    data = np.where(keep, image, 0.0)
    data = np.where(keep, data - data.sum() / keep.sum(), 0.0)
    # A few pixels that stand out are sources, not noise.
    sigma = MAD_TO_SIGMA * np.median(np.abs(data[keep]))
    keep &= np.abs(data) < MAX_SIGMA * max(sigma, 1e-30)
    lag, curve = autocovariance(np.where(keep, data, 0.0), keep, MAX_LAG_FWHM * fwhm_pix)
    taper = np.maximum(lag / (TAPER_LAG_FWHM * fwhm_pix) - 1.0, 0.0)
    curve = curve * np.exp(-(taper**2) * 4.0)

    return lambda dy, dx: np.interp(np.hypot(dy, dx), lag, curve, right=0.0)


def _annulus(
    exposure: SubtractedExposure,
    image: Array,
    place_yx: tuple[float, float],
    companions: Array,
    fwhm_pix: float,
) -> Array:
    """True where the noise is measured."""
    radius = radius_map(exposure.shape, exposure.star.yx)
    r0 = float(np.hypot(place_yx[0] - exposure.star.y, place_yx[1] - exposure.star.x))
    keep = (np.abs(radius - r0) <= ANNULUS_FWHM * fwhm_pix) & np.isfinite(image)
    for east, north in companions:
        y, x = exposure.position(*polar(east, north))
        keep &= radius_map(exposure.shape, (float(y), float(x))) > CLEAR_FWHM * fwhm_pix
    if keep.sum() < MIN_PIXELS:
        raise LyotError(
            f"Only {int(keep.sum())} pixels at this separation remain for the noise estimate; it "
            f"needs {MIN_PIXELS}."
        )
    return keep


def covariance_matrix(
    noise: Callable[[Array, Array], Array],
    box: Box,
    good: Array,
    propagated: float,
    background: str,
    /,
) -> Array:
    """Return the covariance of the good pixels of a box, with a smooth background of any height.

    No combination of pixels is less noisy than the propagated variance says: eigenvalues below it
    are chance. The background's coefficients are integrated out as part of the covariance.
    """
    rows, columns = (grid.ravel()[good] for grid in np.mgrid[box])
    matrix = noise(rows[:, None] - rows[None, :], columns[:, None] - columns[None, :])
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    total = float(np.mean(np.diag(matrix)))
    floor = float(np.clip(propagated, 0.02 * total, total))
    covariance = np.asarray((vectors * np.maximum(values, floor)) @ vectors.T)
    return covariance + _background_prior(rows, columns, background, covariance)


def _background_prior(rows: Array, columns: Array, kind: str, covariance: Array) -> Array:
    if kind not in N_TERMS:
        raise LyotError(
            f"background is {kind!r}; it must be one of {', '.join(N_TERMS)}.",
            parameter="background",
        )
    rows, columns = rows.astype(np.float64), columns.astype(np.float64)
    y = (rows - rows.mean()) / max(np.ptp(rows), 1.0)
    x = (columns - columns.mean()) / max(np.ptp(columns), 1.0)
    terms = [np.ones_like(y), y, x, y * y, y * x, x * x][: N_TERMS[kind]]
    if not terms:
        return np.zeros_like(covariance)
    design = np.stack(terms, axis=1)
    height = BACKGROUND_VARIANCE * float(np.mean(np.diag(covariance)))
    return height * design @ design.T
