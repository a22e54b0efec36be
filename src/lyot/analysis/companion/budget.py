"""The errors of a companion, cause by cause."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np

from lyot.algorithms.geometry import east_north
from lyot.analysis.companion.mismatch import wavefront_mismatch
from lyot.analysis.observation import Observation
from lyot.analysis.table import column
from lyot.types import Array

PSF_ERR = 0.03
"""Relative error of the flux by the model of the PSF: the growth curves of HD 141569 B and C in
F300M and of HD 106906 b in F1140C agree with it within 3 % (tests/realdata/test_true_psf.py)."""
SLOPE_STEP_PIX = 0.5

ERROR_CAUSES = {
    "photon": "noise that ERR states",
    "residual": "noise of the residual beyond ERR, and scatter of injected companions",
    "star": "position of the star",
    "scale": "pixel scale",
    "roll": "position angle of the detector",
    "skew": "skew of the pixels",
    "wavefront": "unknown wavefront",
    "psf": "model of the PSF",
    "transmission": "transmission and position of the mask",
    "calibration": "flux calibration",
    "brightness": "brightness of the star, for the contrast alone",
}
"""Terms of the error budget in words."""


@dataclass(frozen=True)
class ErrorTerm:
    """What one cause, or several together, add to the errors of a companion: 1 sigma.

    Attributes
    ----------
    separation_arcsec, pa_deg : float
        Of the separation [arcsec] and of the position angle [degree].
    flux : float
        Of the flux, as a fraction of it.

    Examples
    --------
    >>> ErrorTerm(separation_arcsec=0.003).flux
    0.0
    """

    separation_arcsec: float = column("_separation_err", "arcsec", default=0.0)
    pa_deg: float = column("_pa_err", "deg", default=0.0)
    flux: float = column("_flux_err", default=0.0)


@dataclass(frozen=True, kw_only=True)
class ErrorBudget:
    """The errors of a companion, cause by cause.

    All but the first two are common to all exposures: more of them do not make them smaller.

    Attributes
    ----------
    photon : ErrorTerm
        Noise that ERR states: of photons, read-out and references.
    residual : ErrorTerm
        What the residual, and companions that are injected into it, scatter beyond that.
    star : ErrorTerm
        Position of the star.
    scale, roll, skew : ErrorTerm
        Geometry: pixel scale, position angle of the detector, and stretching of one axis.
    wavefront : ErrorTerm
        Wavefront of the exposures, of which the model of the PSF knows the size only.
    psf : ErrorTerm
        Other faults of the model of the PSF, as real stars show them; nothing for the user's PSF.
    transmission : ErrorTerm
        Transmission of the mask, and where the mask lies.
    calibration : ErrorTerm
        Flux calibration of the instrument.
    brightness : ErrorTerm
        Brightness of the star; of the contrast alone.

    Examples
    --------
    >>> budget = ErrorBudget(photon=ErrorTerm(0.003), star=ErrorTerm(0.004))
    >>> round(budget.total.separation_arcsec, 4), budget.without("star").separation_arcsec
    (0.005, 0.003)
    """

    photon: ErrorTerm = column("photon", default=ErrorTerm())
    residual: ErrorTerm = column("residual", default=ErrorTerm())
    star: ErrorTerm = column("star", default=ErrorTerm())
    scale: ErrorTerm = column("scale", default=ErrorTerm())
    roll: ErrorTerm = column("roll", default=ErrorTerm())
    skew: ErrorTerm = column("skew", default=ErrorTerm())
    wavefront: ErrorTerm = column("wavefront", default=ErrorTerm())
    psf: ErrorTerm = column("psf", default=ErrorTerm())
    transmission: ErrorTerm = column("transmission", default=ErrorTerm())
    calibration: ErrorTerm = column("calibration", default=ErrorTerm())
    brightness: ErrorTerm = column("brightness", default=ErrorTerm())

    independent: ClassVar[tuple[str, ...]] = ("photon", "residual")
    """The terms that are independent in each exposure."""

    def __iter__(self) -> Iterator[tuple[str, ErrorTerm]]:
        """Go through the terms by name."""
        return ((each.name, getattr(self, each.name)) for each in fields(self))

    @property
    def total(self) -> ErrorTerm:
        """All terms in quadrature; the flux relative to the star's."""
        return self.without()

    @property
    def noise(self) -> ErrorTerm:
        """The terms that are independent in each exposure, in quadrature."""
        return self.without(*(name for name, _ in self if name not in self.independent))

    def without(self, *names: str) -> ErrorTerm:
        """Return all terms but some in quadrature."""
        kept = [term for name, term in self if name not in names]
        squares = ((t.separation_arcsec**2, t.pa_deg**2, t.flux**2) for t in kept)
        return ErrorTerm(*(float(np.sqrt(sum(each))) for each in zip(*squares, strict=True)))


def error_budget(
    observation: Observation, place: tuple[float, float, float], noise: Array, photon: Array, /
) -> ErrorBudget:
    """Return the errors of a companion at a separation [pixel], position angle and flux.

    `noise` and `photon` are the errors by all noise and by that of ERR: along the radius, along the
    angle [pixel] and of the flux.
    """
    r, pa, flux = place
    scale = observation.pixel_scale_arcsec
    accuracy = observation.exposures[0].target.info.instrument_value.accuracy

    def _term(radial_pix: float, tangential_pix: float, of_flux: float = 0.0) -> ErrorTerm:
        return ErrorTerm(
            float(radial_pix) * scale, float(np.degrees(tangential_pix / r)), float(of_flux)
        )

    photon = np.minimum(photon, noise)
    rest = np.sqrt(noise**2 - photon**2)
    unit = np.array([1.0, 1.0, 1.0 / abs(flux)])
    wavefront = wavefront_mismatch(observation.psf)
    is_model = observation.psf.near_mask is not None
    star, exposures = observation.star, observation.exposures
    star_yx = [np.array([e.star.y_err, e.star.x_err]) for e in exposures]
    return ErrorBudget(
        photon=_term(*(photon * unit)),
        residual=_term(*(rest * unit)),
        star=_term(*_on_sky(observation, pa, star_yx)),
        scale=_term(accuracy.scale * r, 0.0),
        roll=_term(0.0, np.radians(accuracy.roll_deg) * r),
        skew=_term(accuracy.skew * r, accuracy.skew * r),
        wavefront=_term(
            *_on_sky(observation, pa, [wavefront.shift_yx] * len(exposures)), wavefront.flux
        ),
        psf=_term(0.0, 0.0, np.sqrt(max(PSF_ERR**2 - wavefront.flux**2, 0.0)) if is_model else 0.0),
        transmission=_term(0.0, 0.0, _transmission_err(observation, r, pa)),
        calibration=_term(0.0, 0.0, accuracy.flux),
        brightness=_term(0.0, 0.0, star.err if star is not None else 0.0),
    )


def _on_sky(observation: Observation, pa: float, sigma_yx: list[Array]) -> tuple[float, float]:
    """What errors along the detector's y and x, alike in all exposures, do on the sky [pixel].

    Along the radius and along the angle of a companion: the mean of the exposures' shifts, each
    turned by its roll.
    """
    turned = [
        e.plane.to_sky[:, :2] * sigma
        for e, sigma in zip(observation.exposures, sigma_yx, strict=True)
    ]
    mean = np.mean(turned, axis=0) / observation.pixel_scale_arcsec  # east and north, by y and x
    along = np.array(east_north(1.0, pa))
    across = np.array([along[1], -along[0]])
    return float(np.linalg.norm(along @ mean)), float(np.linalg.norm(across @ mean))


def _transmission_err(observation: Observation, r: float, pa: float) -> float:
    """Relative error of the transmission: that of its model, and where the mask lies."""
    transmission, errors, shares = observation.transmission, [], []
    for exposure in observation.exposures:
        info, (y, x) = exposure.target.info, exposure.position(r, pa)
        move = (
            SLOPE_STEP_PIX * np.array([0, 1, -1, 0, 0]),
            SLOPE_STEP_PIX * np.array([0, 0, 0, 1, -1]),
        )
        at = transmission.at(y + move[0], x + move[1], mask_yx=exposure.mask_yx)
        slope = np.hypot(at[1] - at[2], at[3] - at[4]) / (2.0 * SLOPE_STEP_PIX)
        away = info.instrument_value.accuracy.mask_arcsec / info.pixel_scale_arcsec
        errors.append(np.hypot(info.coronagraph_value.transmission_err, away * slope))
        shares.append(at[0])
    return float(np.mean(errors) / max(np.mean(shares), 1e-9))
