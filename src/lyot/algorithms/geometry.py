"""Separations, position angles and annuli on the pixel grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def radius_map(shape: tuple[int, int], center_yx: tuple[float, float], /) -> NDArray[np.float64]:
    """Return the distance [pixel] of every pixel ``(n_y, n_x)`` from a center [pixel, 0-based]."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    return np.hypot(y - center_yx[0], x - center_yx[1])


def angle_map(shape: tuple[int, int], center_yx: tuple[float, float], /) -> NDArray[np.float64]:
    """Return the angle of every pixel about a center, from +y towards -x [degree, 0 to 360]."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    return np.degrees(np.arctan2(-(x - center_yx[1]), y - center_yx[0])) % 360.0


def position_angle_of_y(roll_ref_deg: float, v3i_yangle_deg: float, vparity: int, /) -> float:
    """Return the position angle of the detector's y axis [degree east of north, 0 to 360].

    From ROLL_REF, V3I_YANG and VPARITY. With a parity of -1, as for all JWST imagers, they add.
    """
    return (roll_ref_deg - vparity * v3i_yangle_deg) % 360.0


def detector_offset(
    separation: NDArray[np.floating] | float,
    pa_deg: NDArray[np.floating] | float,
    pa_y_deg: float,
    /,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Turn separation and position angle into an offset (dy, dx), in the unit of the separation.

    `pa_y_deg` is the position angle of the y axis; east is towards negative x where north is up.
    """
    angle = np.radians(np.asarray(pa_deg, dtype=np.float64) - pa_y_deg)
    r = np.asarray(separation, dtype=np.float64)
    return r * np.cos(angle), -r * np.sin(angle)
