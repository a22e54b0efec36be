"""The covariance of the residuals about a companion, within and between exposures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lyot.algorithms.geometry import polar
from lyot.algorithms.repair import MAD_TO_SIGMA
from lyot.analysis.exposure import SubtractedExposure
from lyot.analysis.noise import KnownSources
from lyot.analysis.whitening import by_length, lag_products
from lyot.errors import LyotError
from lyot.types import Array, Box

ANNULUS_FWHM = 2.0
CLEAR_FWHM = 3.0
"""Radius about companions that is excluded from the noise estimate."""
MIN_PIXELS, MIN_RING_PIXELS = 50, 8
MAX_SIGMA = 6.0
MAX_LAG_FWHM = 6.0
TAPER_LAG_FWHM = 2.0
"""Lag beyond which a measured covariance is mostly chance, and fades."""
MIN_SLOPE, MAX_SLOPE = -6.0, 0.0
"""Powers of the separation with which noise may fall."""
N_TERMS = {"none": 0, "constant": 1, "plane": 3, "quadratic": 6}
BACKGROUND_VARIANCE = 1e4
"""Prior variance of a background's coefficients, in mean variances of a pixel."""


@dataclass(frozen=True, eq=False)
class Annulus:
    """The residual of an exposure at the separation of a place, without its trend with separation.

    On pixels about the star, ``(n, n)``, which are the same for all exposures.
    """

    star_yx: tuple[float, float]
    radius_pix: float
    slope: float  # the noise falls with the separation to this power
    data: Array  # zero where there is none
    keep: Array

    def trend(self, radius_pix: Array) -> Array:
        """Return the noise at separations over that in the middle."""
        inner = max(self.radius_pix - 1.0, 1.0)
        return np.asarray((np.maximum(radius_pix, inner * 0.5) / self.radius_pix) ** self.slope)

    def covariance(self, other: Annulus, box: Box, other_box: Box, fwhm_pix: float, /) -> Array:
        """Return the covariance of the pixels of two boxes, each of an exposure, ``(n, n_other)``.

        It depends on the distance of two pixels as seen from the star, and on their separations.
        """
        mixed = None if other is self else (other.data, other.keep)
        lag, curve = by_length(
            *lag_products(self.data, self.keep, int(MAX_LAG_FWHM * fwhm_pix), mixed)
        )
        taper = np.maximum(lag / (TAPER_LAG_FWHM * fwhm_pix) - 1.0, 0.0)
        curve = curve * np.exp(-(taper**2) * 4.0)
        (y, x), (other_y, other_x) = self._places(box), other._places(other_box)
        distance = np.hypot(np.subtract.outer(y, other_y), np.subtract.outer(x, other_x))
        scale = np.outer(self.trend(np.hypot(y, x)), other.trend(np.hypot(other_y, other_x)))
        return np.asarray(scale * np.interp(distance, lag, curve, right=0.0))

    def _places(self, box: Box) -> tuple[Array, Array]:
        rows, columns = (grid.ravel() for grid in np.mgrid[box])
        return rows - self.star_yx[0], columns - self.star_yx[1]


def annulus(
    exposure: SubtractedExposure,
    image: Array,
    radius_pix: float,
    companions: Array,
    known_sources: KnownSources,
    fwhm_pix: float,
    /,
) -> Annulus:
    """Take the residual at a separation [pixel], where it is noise.

    An annulus of four FWHM, less three FWHM about companions (offsets to the east and north
    [pixel]), less known sources.
    """
    star, r0 = exposure.star, radius_pix
    half = int(np.ceil(r0 + ANNULUS_FWHM * fwhm_pix))
    y, x = (round(v) + np.arange(-half, half + 1) for v in (star.y, star.x))
    on_frame = np.outer((y >= 0) & (y < exposure.shape[0]), (x >= 0) & (x < exposure.shape[1]))
    values = image[
        np.ix_(*(np.clip(v, 0, n - 1) for v, n in zip((y, x), image.shape, strict=True)))
    ]
    radius = np.hypot(y[:, None] - star.y, x - star.x)
    keep = on_frame & (np.abs(radius - r0) <= ANNULUS_FWHM * fwhm_pix) & np.isfinite(values)
    for east, north in companions:
        at_y, at_x = exposure.position(*polar(east, north))
        keep &= np.hypot(y[:, None] - at_y, x - at_x) > CLEAR_FWHM * fwhm_pix
    if known_sources:
        rows, columns = np.nonzero(keep)
        separation, pa = polar(*exposure.plane.offset(y[rows], x[columns]))
        fwhm_arcsec = fwhm_pix * exposure.target.info.pixel_scale_arcsec
        for source in known_sources:
            hit = source.covers(separation, pa, fwhm_arcsec)
            keep[rows[hit], columns[hit]] = False
    if keep.sum() < MIN_PIXELS:
        raise LyotError(
            f"Only {int(keep.sum())} pixels at this separation remain for the noise estimate; it "
            f"needs {MIN_PIXELS}."
        )
    data = np.where(keep, values - values[keep].mean(), 0.0)
    found = Annulus(star.yx, r0, _slope(data[keep], radius[keep]), data, keep)
    data = data / found.trend(radius)
    # A few pixels that stand out are sources, not noise.
    sigma = MAD_TO_SIGMA * np.median(np.abs(data[keep]))
    keep = keep & (np.abs(data) < MAX_SIGMA * max(sigma, 1e-30))
    return Annulus(star.yx, r0, found.slope, np.where(keep, data, 0.0), keep)


def _slope(values: Array, radius: Array) -> float:
    """Power of the separation with which the scatter falls."""
    ring = np.round(radius).astype(int)
    found = []
    for r in np.unique(ring):
        here = np.abs(values[ring == r])
        if len(here) >= MIN_RING_PIXELS and np.median(here) > 0:
            found.append((np.log(r), np.log(np.median(here)), np.sqrt(len(here))))
    if len(found) < 3:
        return 0.0
    at, spread, weight = np.transpose(found)
    slope = np.polyfit(at, spread, 1, w=weight)[0]
    return float(np.clip(slope, MIN_SLOPE, MAX_SLOPE))


def covariance_matrix(
    noise: Annulus, box: Box, good: Array, propagated: float, background: str, fwhm_pix: float, /
) -> Array:
    """Return the covariance of the good pixels of a box, with a smooth background of any height.

    No combination of pixels is less noisy than the propagated variance says: eigenvalues below it
    are chance. The background's coefficients are integrated out as part of the covariance.
    """
    matrix = noise.covariance(noise, box, box, fwhm_pix)[np.ix_(good, good)]
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    total = float(np.mean(np.diag(matrix)))
    floor = float(np.clip(propagated, 0.02 * total, total))
    covariance = np.asarray((vectors * np.maximum(values, floor)) @ vectors.T)
    return covariance + _background_prior(box, good, background, covariance)


def _background_prior(box: Box, good: Array, kind: str, covariance: Array) -> Array:
    if kind not in N_TERMS:
        raise LyotError(
            f"background is {kind!r}; it must be one of {', '.join(N_TERMS)}.",
            parameter="background",
        )
    rows, columns = (grid.ravel()[good].astype(np.float64) for grid in np.mgrid[box])
    y = (rows - rows.mean()) / max(np.ptp(rows), 1.0)
    x = (columns - columns.mean()) / max(np.ptp(columns), 1.0)
    terms = [np.ones_like(y), y, x, y * y, y * x, x * x][: N_TERMS[kind]]
    if not terms:
        return np.zeros_like(covariance)
    design = np.stack(terms, axis=1)
    height = BACKGROUND_VARIANCE * float(np.mean(np.diag(covariance)))
    return np.asarray(height * design @ design.T)
