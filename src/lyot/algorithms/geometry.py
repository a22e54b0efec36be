"""Separations, position angles and offsets: on the sky, and on the pixels of a frame."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lyot.types import Array, Box


def radius_map(shape: tuple[int, int], center_yx: tuple[float, float], /) -> NDArray[np.float64]:
    """Return the distance [pixel] of every pixel ``(n_y, n_x)`` from a center [pixel, 0-based]."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    return np.hypot(y - center_yx[0], x - center_yx[1])


def box_about(yx: tuple[float, float], reach: int, shape: tuple[int, int], /) -> Box:
    """Return the pixels of a frame up to so many from the one that is nearest to a place."""
    row, column = (
        slice(max(round(v) - reach, 0), min(round(v) + reach + 1, n))
        for v, n in zip(yx, shape, strict=True)
    )
    return row, column


def angle_map(shape: tuple[int, int], center_yx: tuple[float, float], /) -> NDArray[np.float64]:
    """Return the angle of every pixel about a center, from +y towards -x [degree, 0 to 360]."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    return np.degrees(np.arctan2(-(x - center_yx[1]), y - center_yx[0])) % 360.0


def position_angle_of_y(roll_ref_deg: float, v3i_yangle_deg: float, vparity: int, /) -> float:
    """Return the position angle of the detector's y axis [degree east of north, 0 to 360].

    From ROLL_REF, V3I_YANG and VPARITY. With a parity of -1, as for all JWST imagers, they add.
    """
    return (roll_ref_deg - vparity * v3i_yangle_deg) % 360.0


def polar(
    east: Array | float, north: Array | float, /
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Turn an offset to the east and north into separation and position angle [degree]."""
    return np.hypot(east, north), np.degrees(np.arctan2(east, north)) % 360.0


def east_north(
    separation: Array | float, pa_deg: Array | float, /
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Turn separation and position angle [degree] into an offset to the east and north."""
    r, angle = np.asarray(separation, dtype=np.float64), np.radians(pa_deg)
    return r * np.sin(angle), r * np.cos(angle)


def tangent_offset(
    ra_deg: Array | float, dec_deg: Array | float, center_deg: tuple[float, ...], /
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Project the sky onto the plane that touches it at a center: east, north [arcsec]."""
    turn, dec = np.radians(np.subtract(ra_deg, center_deg[0])), np.radians(dec_deg)
    sin_0, cos_0 = np.sin(np.radians(center_deg[1])), np.cos(np.radians(center_deg[1]))
    depth = sin_0 * np.sin(dec) + cos_0 * np.cos(dec) * np.cos(turn)
    east = np.cos(dec) * np.sin(turn) / depth
    north = (cos_0 * np.sin(dec) - sin_0 * np.cos(dec) * np.cos(turn)) / depth
    return 3600.0 * np.degrees(east), 3600.0 * np.degrees(north)


DEGREE = 4
"""Of the polynomials that stand for a WCS: over a subarray of JWST good to 1e-5 pixel."""


class TangentPlane(NamedTuple):
    """The pixels of a frame and the sky about its star: offsets to the east and north [arcsec].

    Both ways by polynomials without a constant, so that the star is exactly at no offset.
    """

    star_yx: tuple[float, float]  # [pixel, 0-based]
    to_pixel: NDArray[np.float64]  # (2, n_terms): y and x over (east, north)
    to_sky: NDArray[np.float64]  # (2, n_terms): east and north over (y, x)

    @classmethod
    def linear(
        cls, star_yx: tuple[float, float], pa_y_deg: float, pixel_scale_arcsec: float, /
    ) -> TangentPlane:
        """Return that of square pixels, from the position angle of the y axis."""
        axes = np.array([pa_y_deg, pa_y_deg - 90.0])
        to_sky = np.array(east_north(pixel_scale_arcsec, axes))
        rest = np.zeros((2, _N_TERMS - 2))
        return cls(star_yx, np.hstack([np.linalg.inv(to_sky), rest]), np.hstack([to_sky, rest]))

    @classmethod
    def through(
        cls, star_yx: tuple[float, float], y: Array, x: Array, east: Array, north: Array, /
    ) -> TangentPlane:
        """Fit it to pixels ``(n,)`` and the offsets from the star that they see."""
        pixels = np.array([y - star_yx[0], x - star_yx[1]])
        offsets = np.array([east, north])
        return cls(star_yx, _fit(offsets, pixels), _fit(pixels, offsets))

    @property
    def pixel_scale_arcsec(self) -> float:
        """Square root of the area of a pixel at the star [arcsec]."""
        return float(np.sqrt(abs(np.linalg.det(self.to_sky[:, :2]))))

    def pixel(self, east: Array | float, north: Array | float, /) -> NDArray[np.float64]:
        """Return ``(y, x)`` [pixel, 0-based] of offsets from the star [arcsec]."""
        return _evaluate(self.to_pixel, self.star_yx, east, north)

    def offset(self, y: ArrayLike, x: ArrayLike, /) -> NDArray[np.float64]:
        """Return the offsets ``(east, north)`` from the star [arcsec] of pixels."""
        places = np.subtract(y, self.star_yx[0]), np.subtract(x, self.star_yx[1])
        return _evaluate(self.to_sky, (0.0, 0.0), *places)

    def separations(self, shape: tuple[int, int], /) -> NDArray[np.float64]:
        """Return the separation of every pixel ``(n_y, n_x)`` of a frame from the star [arcsec]."""
        return np.hypot(*self.offset(*np.indices(shape)))


_POWERS = [(k - j, j) for k in range(1, DEGREE + 1) for j in range(k + 1)]
_N_TERMS = len(_POWERS)


def _evaluate(
    coefs: NDArray[np.float64], constants: tuple[float, float], u: ArrayLike, v: ArrayLike
) -> NDArray[np.float64]:
    """Two polynomials of two coordinates, by Horner's scheme in place."""
    u, v = np.broadcast_arrays(np.asarray(u, np.float64), np.asarray(v, np.float64))
    out = np.zeros((2, *u.shape))
    for k, constant in enumerate(constants):
        factor = dict(zip(_POWERS, coefs[k].tolist(), strict=True)) | {(0, 0): constant}
        total = out[k, ...]
        of_v = np.empty(u.shape)
        for i in range(DEGREE, -1, -1):
            of_v[...] = factor[i, DEGREE - i]
            for j in range(DEGREE - i - 1, -1, -1):
                of_v *= v
                of_v += factor[i, j]
            total *= u
            total += of_v
    return out


def _fit(given: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients ``(2, n_terms)`` of polynomials by least squares."""
    unit = float(np.abs(given).max())
    u, v = given / unit
    terms = np.stack([u**i * v**j for i, j in _POWERS], axis=1)
    found = np.linalg.lstsq(terms, wanted.T, rcond=None)[0]
    return np.asarray(found.T / [unit ** (i + j) for i, j in _POWERS])
