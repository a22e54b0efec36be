"""Separations, position angles and annuli on the pixel grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def radius_map(shape: tuple[int, int], center_yx: tuple[float, float], /) -> NDArray[np.float64]:
    """Return the distance of every pixel from a center.

    Parameters
    ----------
    shape : tuple of int
        ``(n_y, n_x)``.
    center_yx : tuple of float
        Center [pixel, 0-based].

    Returns
    -------
    ndarray, shape (n_y, n_x)
        Distance [pixel].
    """
    y, x = np.ogrid[: shape[0], : shape[1]]
    return np.hypot(y - center_yx[0], x - center_yx[1])


def angle_map(shape: tuple[int, int], center_yx: tuple[float, float], /) -> NDArray[np.float64]:
    """Return the angle of every pixel about a center.

    Parameters
    ----------
    shape : tuple of int
        ``(n_y, n_x)``.
    center_yx : tuple of float
        Center [pixel, 0-based].

    Returns
    -------
    ndarray, shape (n_y, n_x)
        Angle from the y axis towards negative x [degree], 0 to 360.
    """
    y, x = np.ogrid[: shape[0], : shape[1]]
    return np.degrees(np.arctan2(-(x - center_yx[1]), y - center_yx[0])) % 360.0


def position_angle_of_y(roll_ref_deg: float, v3i_yangle_deg: float, vparity: int, /) -> float:
    """Return the position angle of the detector's y axis.

    Parameters
    ----------
    roll_ref_deg : float
        Position angle of the V3 axis at the reference point [degree], ROLL_REF.
    v3i_yangle_deg : float
        Angle from V3 to the ideal y axis [degree], V3I_YANG.
    vparity : int
        1 or -1, VPARITY. With -1, as for all JWST imagers, the angle adds.

    Returns
    -------
    float
        Degrees east of north, 0 to 360.
    """
    return (roll_ref_deg - vparity * v3i_yangle_deg) % 360.0


def detector_offset(
    separation: NDArray[np.floating] | float,
    pa_deg: NDArray[np.floating] | float,
    pa_y_deg: float,
    /,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Turn separation and position angle into an offset on the detector.

    Parameters
    ----------
    separation : ndarray or float
        Separation from the star, in any unit.
    pa_deg : ndarray or float
        Position angle [degree east of north].
    pa_y_deg : float
        Position angle of the detector's y axis [degree].

    Returns
    -------
    dy, dx : ndarray
        Offset along y and x, in the unit of the separation. East lies towards negative x where
        north is up.
    """
    angle = np.radians(np.asarray(pa_deg, dtype=np.float64) - pa_y_deg)
    r = np.asarray(separation, dtype=np.float64)
    return r * np.cos(angle), -r * np.sin(angle)
