"""What the focal-plane masks do to a wave: amplitudes, not transmissions.

Coordinates are arcseconds from the middle of the mask, along its own axes. Round masks and bars:
Krist et al. 2007, doi:10.1117/12.734873, cut off after the first side lobe as the hardware is.
Phase masks and the Lyot spot with its support: Boccaletti et al. 2015, doi:10.1086/682256; sizes
of the spot, its support and the field stops, and the directions of the bars, as in `stpsf`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lyot.types import Array

_CUT_OFF = 2.0 * np.pi
"""Where the patterns of round masks and bars end: sigma times the distance."""

_BAR_HALF_POINT = 1.79960
"""Where ``(1 - sinc(u)^2)^2`` is one half."""

_BAR_FLAT_FROM_ARCSEC, _BAR_END_ARCSEC = 7.5, 10.0


@dataclass(frozen=True)
class RoundMask:
    """A mask of amplitude ``1 - (2 J1(sigma r) / (sigma r))^2``."""

    sigma_per_arcsec: float

    def amplitude(self, x: Array, y: Array) -> Array:
        """Amplitude transmission at some places [arcsec]."""
        from scipy.special import j1

        r = np.clip(self.sigma_per_arcsec * np.hypot(x, y), 1e-8, _CUT_OFF)
        return np.asarray(1.0 - (2.0 * j1(r) / r) ** 2)

    @property
    def background(self) -> float:
        """Amplitude transmission away from the pattern."""
        return float(self.amplitude(np.array(1e3), np.array(0.0)))

    @property
    def radius_arcsec(self) -> float:
        """Where the amplitude is near its first maximum [arcsec]."""
        return _CUT_OFF / self.sigma_per_arcsec


@dataclass(frozen=True)
class BarMask:
    """A bar of amplitude ``1 - sinc(sigma y)^2``, its width from two to six lambda/D along x.

    `lambda_d_arcsec` is lambda/D in the middle, negative where the bar narrows towards larger x.
    """

    lambda_d_arcsec: float
    background: float = 1.0

    def half_width_arcsec(self, x: Array) -> Array:
        """Half width at half maximum of the transmission at some places along the bar [arcsec]."""
        u = np.clip(x / _BAR_FLAT_FROM_ARCSEC, -1.0, 1.0) * np.sign(self.lambda_d_arcsec)
        return np.asarray(abs(self.lambda_d_arcsec) * (4.0 + 2.0 * u))

    def amplitude(self, x: Array, y: Array) -> Array:
        """Amplitude transmission at some places [arcsec]."""
        u = np.minimum(np.abs(y) * _BAR_HALF_POINT / self.half_width_arcsec(x), _CUT_OFF)
        inside = 1.0 - np.sinc(u / np.pi) ** 2
        return np.where(np.abs(x) > _BAR_END_ARCSEC, 1.0, inside)


@dataclass(frozen=True)
class LyotSpot:
    """An opaque disc on an opaque straight support that runs along y through all of the field."""

    radius_arcsec: float
    support_width_arcsec: float
    background: float = 1.0

    def amplitude(self, x: Array, y: Array) -> Array:
        """Amplitude transmission, grey where an edge crosses a sample [arcsec]."""
        step = abs(float(np.ravel(x)[1] - np.ravel(x)[0])) if np.size(x) > 1 else 1e-9
        spot = np.clip(0.5 + (np.hypot(x, y) - self.radius_arcsec) / step, 0.0, 1.0)
        support = np.clip(0.5 + (np.abs(x) - 0.5 * self.support_width_arcsec) / step, 0.0, 1.0)
        return np.asarray(np.minimum(spot, support))


@dataclass(frozen=True)
class PhaseQuadrants:
    """Four quadrants, two of which retard the wave by half of the design wavelength."""

    design_wavelength_m: float

    def coefficients(self, wavelength_m: float) -> tuple[complex, complex]:
        """Write the mask as ``a + b sign(x) sign(y)`` at a wavelength."""
        turned = np.exp(1j * np.pi * self.design_wavelength_m / wavelength_m)
        return complex(0.5 * (1.0 + turned)), complex(0.5 * (1.0 - turned))


FocalMask = RoundMask | BarMask | LyotSpot | PhaseQuadrants

FOCAL_MASKS: dict[str, FocalMask] = {
    "MASK210R": RoundMask(5.253),
    "MASK335R": RoundMask(3.2927866),
    "MASK430R": RoundMask(2.58832),
    "MASKSWB": BarMask(0.06664),
    "MASKLWB": BarMask(-0.14597),
    "4QPM_1065": PhaseQuadrants(10.65e-6),
    "4QPM_1140": PhaseQuadrants(11.40e-6),
    "4QPM_1550": PhaseQuadrants(15.50e-6),
    "LYOT_2300": LyotSpot(radius_arcsec=2.125, support_width_arcsec=0.722),
}
"""Each coronagraph's mask, by the name of the CORONMSK keyword without its module."""

BAR_POSITION_ARCSEC = {
    "MASKSWB": {
        "F182M": 1.856,
        "F187N": 1.571,
        "F200W": -0.232,
        "F210M": 0.071,
        "F212N": -0.143,
    },
    "MASKLWB": {
        "F250M": 6.846,
        "F277W": 5.078,
        "F300M": 5.249,
        "F335M": 4.075,
        "F356W": 2.455,
        "F360M": 3.195,
        "F410M": 1.663,
        "F430M": 1.043,
        "F444W": -0.768,
        "F460M": -0.098,
        "F480M": -0.619,
    },
}
"""Where on a bar a star is put, by filter [arcsec from its middle along x] (Stansberry, in stpsf);
the exposure's own mask position goes before it."""
