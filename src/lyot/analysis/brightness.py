"""How bright the star would be without the mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lyot.analysis.psf import OffAxisPSF
from lyot.errors import LyotError
from lyot.instruments.filters import Filter
from lyot.types import Array


@dataclass(frozen=True)
class StarBrightness:
    """How bright the star would be without the mask."""

    jy: float
    magnitude: float | None  # Vega; None where the filter has no zero point
    origin: str  # where it comes from, in words
    err: float = 0.0  # relative; 0 where it is not given
    is_measured: bool = False  # in an image of the same flux calibration


def star_brightness(
    filter: Filter, /, *, jy: float | None = None, magnitude: float | None = None, origin: str = ""
) -> StarBrightness:
    """Return the brightness of the star from a flux density or a Vega magnitude.

    Parameters
    ----------
    filter : Filter
        Its zero point.
    jy, magnitude : float, optional
        Flux density [Jy] or Vega magnitude: one of them.
    origin : str, optional
        Where it comes from, in words; the value itself by default.

    Returns
    -------
    StarBrightness
        With both, where the filter has a zero point.

    Raises
    ------
    LyotError
        If not exactly one is given, the flux is not positive, or the filter has no zero point.

    Examples
    --------
    >>> from lyot.instruments import NIRCAM
    >>> round(star_brightness(NIRCAM.filter("F444W"), magnitude=4.0).jy, 2)
    4.67
    """
    if (jy is None) == (magnitude is None):
        raise LyotError(
            "Contrast needs the star's brightness: give one of its flux and magnitude.",
            parameter="star_magnitude",
        )
    zero = filter.vega_jy
    if magnitude is not None:
        if zero is None:
            raise LyotError(f"{filter.name} has no zero point in the table; give the flux in Jy.")
        text = origin or f"{filter.name} = {magnitude:g} mag"
        return StarBrightness(zero * 10 ** (-0.4 * magnitude), magnitude, text)
    if jy is None or not jy > 0:
        raise LyotError(f"The flux of the star is {jy} Jy; it must be positive.")
    mag = None if zero is None else float(-2.5 * np.log10(jy / zero))
    return StarBrightness(float(jy), mag, origin or f"{jy:g} Jy")


def star_flux_in(frame: Array, psf: OffAxisPSF, /) -> float:
    """Measure the flux of a star in an image without the mask, by fitting the PSF."""
    from scipy.optimize import minimize

    good = np.isfinite(frame)
    if not good.any() or not np.nanmax(frame) > 0:
        raise LyotError("The frame of the star has no positive pixel.")
    peak = np.unravel_index(int(np.nanargmax(np.where(good, frame, -np.inf))), frame.shape)
    half = int(np.ceil(2.0 * psf.fwhm_pix))

    def _fit(yx: Array) -> tuple[float, float]:
        box, image = psf.place(float(yx[0]), float(yx[1]), frame.shape, half_pix=half)
        data, ok = frame[box], good[box]
        flux = float((data * image)[ok].sum() / (image[ok] ** 2).sum())
        return float(((data - flux * image)[ok] ** 2).sum()), flux

    def _cost(yx: NDArray[np.float64]) -> float:
        return _fit(yx)[0]

    start = np.asarray(peak, dtype=np.float64)
    best = minimize(_cost, start, method="Nelder-Mead")
    return _fit(best.x)[1]
