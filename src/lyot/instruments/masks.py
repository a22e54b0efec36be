"""How much of an off-axis source the focal-plane masks let through.

Round masks: Krist et al. 2007, doi:10.1117/12.734873. Bars: JWST User Documentation, "NIRCam
Coronagraphic Occulting Masks and Lyot Stops": half width at half maximum from two to six
lambda/D over fifteen arcseconds. Four-quadrant phase masks: Boccaletti et al. 2015,
doi:10.1086/682256.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lyot.errors import LyotError
from lyot.instruments.tables import (
    ARCSEC_PER_RADIAN,
    BAR,
    CORONAGRAPHS,
    FOUR_QUADRANT,
    LYOT_SPOT,
    ROUND,
    TELESCOPE_DIAMETER_M,
    Coronagraph,
    coronagraph,
)

MASK_SIGMA = {"MASK210R": 5.253, "MASK335R": 3.2927866, "MASK430R": 2.5652}
"""Scale of the round masks [1/arcsec]."""

BAR_HALF_POINT = 1.79960
"""Where ``(1 - sinc(u)^2)^2`` is one half."""

BAR_LAMBDA_D_ARCSEC = {"MASKSWB": 0.06664, "MASKLWB": -0.14597}
"""lambda/D at the middle of the bar; negative where the bar narrows towards larger x."""

BAR_HALF_LENGTH_ARCSEC = 7.5
QUADRANT_TILT_DEG = -4.80
"""Angle from the detector's axes to those of the phase masks, from x towards y."""

QUADRANT_FLOOR, QUADRANT_SCALE_LAMBDA_D, QUADRANT_POWER = 0.200, 0.923, 1.153
"""What is left of a source on one axis, and how the loss ends beside it: fitted to the published
transmission of F1140C, which it follows to 0.04 rms."""


def bar_half_width(name: str, x_arcsec: NDArray[Any] | float, /) -> NDArray[Any]:
    """Return the half width at half maximum of a bar.

    Parameters
    ----------
    name : {"MASKSWB", "MASKLWB"}
        The bar.
    x_arcsec : ndarray or float
        Position along it from its middle [arcsec].

    Returns
    -------
    ndarray
        Half width of the transmission [arcsec].
    """
    unit = BAR_LAMBDA_D_ARCSEC[name]
    u = np.clip(x_arcsec, -BAR_HALF_LENGTH_ARCSEC, BAR_HALF_LENGTH_ARCSEC) / BAR_HALF_LENGTH_ARCSEC
    return np.asarray(abs(unit) * (4.0 + 2.0 * np.sign(unit) * u))


def quadrant_axes(x: NDArray[Any], y: NDArray[Any], /) -> tuple[NDArray[Any], NDArray[Any]]:
    """Turn detector coordinates to those along the axes of a four-quadrant phase mask.

    Parameters
    ----------
    x, y : ndarray
        Position with respect to the middle of the mask, along the detector.

    Returns
    -------
    tuple of ndarray
        The same position along the mask's axes.
    """
    cos, sin = np.cos(np.radians(QUADRANT_TILT_DEG)), np.sin(np.radians(QUADRANT_TILT_DEG))
    return np.asarray(cos * x + sin * y), np.asarray(cos * y - sin * x)


def mask_amplitude(mask: str, x_arcsec: NDArray[Any], y_arcsec: NDArray[Any], /) -> NDArray[Any]:
    """Return the amplitude transmission of a focal-plane mask.

    Parameters
    ----------
    mask : str
        Name of the coronagraph, for example MASK335R, MASKLWB, 4QPM_1140 or LYOT_2300.
    x_arcsec, y_arcsec : ndarray
        Position with respect to the center of the mask along the detector's axes [arcsec].

    Returns
    -------
    ndarray
        Amplitude transmission: 0 where the mask is opaque, -1 where it turns the phase. The
        square is what a faint source loses, but behind a phase mask, which lets all light pass.

    Raises
    ------
    LyotError
        If the coronagraph is not in the table.
    """
    from scipy.special import j1

    found = known_coronagraph(mask)
    if found.kind == ROUND:
        r = np.maximum(np.hypot(x_arcsec, y_arcsec) * MASK_SIGMA[found.name], 1e-8)
        return 1.0 - (2.0 * j1(r) / r) ** 2
    if found.kind == BAR:
        u = y_arcsec * BAR_HALF_POINT / bar_half_width(found.name, x_arcsec)
        return 1.0 - np.sinc(u / np.pi) ** 2
    if found.kind == FOUR_QUADRANT:
        along, across = quadrant_axes(x_arcsec, y_arcsec)
        return np.sign(along) * np.sign(across)
    return np.asarray(np.hypot(x_arcsec, y_arcsec) >= found.radius_arcsec, dtype=np.float64)


def transmission(
    mask: str,
    x_arcsec: NDArray[Any],
    y_arcsec: NDArray[Any],
    /,
    *,
    lambda_over_d_arcsec: float,
    bar_x_arcsec: float = 0.0,
) -> NDArray[np.float64]:
    """Return the fraction of the light of an off-axis source that a mask lets through.

    Parameters
    ----------
    mask : str
        Name of the coronagraph.
    x_arcsec, y_arcsec : ndarray
        Position with respect to the star along the detector's axes [arcsec].
    lambda_over_d_arcsec : float
        Wavelength over telescope diameter, which scales the phase masks [arcsec].
    bar_x_arcsec : float, optional
        Where on a bar the star lies [arcsec from its middle].

    Returns
    -------
    ndarray
        From 0 to 1.

    Raises
    ------
    LyotError
        If the coronagraph is not in the table.
    """
    found = known_coronagraph(mask)
    if found.kind == FOUR_QUADRANT:
        along, across = quadrant_axes(x_arcsec, y_arcsec)
        scale = QUADRANT_SCALE_LAMBDA_D * lambda_over_d_arcsec
        return _beside_axis(along / scale) * _beside_axis(across / scale)
    if found.kind == LYOT_SPOT:
        # The edge is as soft as the image of the source is wide.
        edge = np.hypot(x_arcsec, y_arcsec) - found.radius_arcsec
        return np.asarray(0.5 * (1.0 + np.tanh(2.0 * edge / lambda_over_d_arcsec)))
    x = np.asarray(x_arcsec) + (bar_x_arcsec if found.kind == BAR else 0.0)
    return np.asarray(mask_amplitude(mask, x, np.asarray(y_arcsec)) ** 2)


def _beside_axis(distance: NDArray[Any]) -> NDArray[np.float64]:
    """Transmission of a source beside one axis of a phase mask."""
    return 1.0 - (1.0 - QUADRANT_FLOOR) * np.exp(-(np.abs(distance) ** QUADRANT_POWER))


def bar_position(mask: str, pivot_um: float, /) -> float:
    """Return where on a bar a target is put: where the bar is four lambda/D of its filter wide.

    Parameters
    ----------
    mask : {"MASKSWB", "MASKLWB"}
        The bar.
    pivot_um : float
        Pivot wavelength of the filter [micrometre].

    Returns
    -------
    float
        Position along the detector's x from the middle of the bar [arcsec]; zero for other masks.
    """
    found = coronagraph(mask)
    if found is None or found.kind != BAR:
        return 0.0
    unit = BAR_LAMBDA_D_ARCSEC[found.name]
    design_um = abs(unit) / ARCSEC_PER_RADIAN * TELESCOPE_DIAMETER_M * 1e6
    at = 2.0 * np.sign(unit) * BAR_HALF_LENGTH_ARCSEC * (pivot_um / design_um - 1.0)
    return float(np.clip(at, -BAR_HALF_LENGTH_ARCSEC, BAR_HALF_LENGTH_ARCSEC))


def known_coronagraph(mask: str, /) -> Coronagraph:
    """Look up a coronagraph of which there is a model.

    Parameters
    ----------
    mask : str
        Its name, for example MASKA335R.

    Returns
    -------
    Coronagraph
        Its entry in the table.

    Raises
    ------
    LyotError
        If it is not in the table.
    """
    found = coronagraph(mask)
    if found is None:
        raise LyotError(
            f"Coronagraph {mask!r} is not in the table; known are {', '.join(CORONAGRAPHS)}."
        )
    return found
