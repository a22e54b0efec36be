"""Measured companions, with the parts of their errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lyot.types import Array


@dataclass(frozen=True)
class Measured:
    """A value and its 1-sigma error, in the same unit.

    Attributes
    ----------
    value, err : float
        Both.

    Examples
    --------
    >>> print(Measured(1.1, 0.02))
    1.1 +- 0.02
    """

    value: float
    err: float

    def __str__(self) -> str:
        """Say both."""
        return f"{self.value:g} +- {self.err:g}"


@dataclass(frozen=True)
class ErrorBudget:
    """The parts of the error of a position, along one axis [arcsec].

    Attributes
    ----------
    fit_arcsec : float
        Of the fit, or the scatter of injected companions where that is larger.
    star_arcsec, roll_arcsec, scale_arcsec : float
        Of the star's position, of the roll, and of the pixel scale.

    Examples
    --------
    >>> round(ErrorBudget(0.003, 0.004, 0.0, 0.0).total_arcsec, 4)
    0.005
    """

    fit_arcsec: float
    star_arcsec: float
    roll_arcsec: float
    scale_arcsec: float

    @property
    def total_arcsec(self) -> float:
        """All parts in quadrature; the roll acts across and the scale along the separation."""
        parts = (self.fit_arcsec, self.star_arcsec, self.roll_arcsec, self.scale_arcsec)
        return float(np.sqrt(np.sum(np.square(parts))))


@dataclass(frozen=True)
class Bias:
    """Mean error of companions of the same flux injected at the same separation.

    It is not corrected for; NaN where fewer than four were injected.

    Attributes
    ----------
    flux : float
        [MJy/sr times pixel].
    separation_arcsec, pa_deg : float
        [arcsec], [degree].
    n_injected : int
        How many companions.

    Examples
    --------
    >>> bias = Bias(flux=-0.2, separation_arcsec=0.001, pa_deg=0.01, n_injected=12)
    >>> bias.n_injected
    12
    """

    flux: float
    separation_arcsec: float
    pa_deg: float
    n_injected: int


@dataclass(frozen=True)
class Companion:
    """A measured companion.

    Attributes
    ----------
    separation_arcsec, pa_deg : Measured
        Separation [arcsec] and position angle [degree east of north], with all errors.
    d_ra_arcsec, d_dec_arcsec : Measured
        Offset to the east and to the north [arcsec].
    flux : Measured
        Flux [MJy/sr times pixel].
    contrast : Measured
        Flux over that of the star; NaN where its brightness is unknown.
    jy : float
        Flux density [Jy].
    magnitude : float
        Vega magnitude; NaN where it is unknown.
    snr : float
        Flux over its error.
    fpf : float
        Probability of that S/N by noise alone among the independent positions at its separation.
    errors : ErrorBudget
        The parts of the error of the position.
    bias : Bias
        From injected companions.
    chi2, n_data : float, int
        Chi-square of the best fit, and number of pixels.

    Examples
    --------
    >>> from lyot.analysis.companion import fit_companions
    >>> fit = fit_companions(observation, [(1.1, 205.0)], n_likelihoods=0, n_injections=0)
    >>> companion = fit.companions[0]
    >>> companion.flux.value / companion.flux.err == companion.snr
    True
    """

    separation_arcsec: Measured
    pa_deg: Measured
    d_ra_arcsec: Measured
    d_dec_arcsec: Measured
    flux: Measured
    contrast: Measured
    jy: float
    magnitude: float
    snr: float
    fpf: float
    errors: ErrorBudget
    bias: Bias
    chi2: float
    n_data: int


_UNIT_OF_FLUX = "MJy pix / sr"
_COLUMNS: dict[str, tuple[str, Callable[[Companion], float]]] = {
    "separation": ("arcsec", lambda c: c.separation_arcsec.value),
    "separation_err": ("arcsec", lambda c: c.separation_arcsec.err),
    "pa": ("deg", lambda c: c.pa_deg.value),
    "pa_err": ("deg", lambda c: c.pa_deg.err),
    "d_ra": ("arcsec", lambda c: c.d_ra_arcsec.value),
    "d_ra_err": ("arcsec", lambda c: c.d_ra_arcsec.err),
    "d_dec": ("arcsec", lambda c: c.d_dec_arcsec.value),
    "d_dec_err": ("arcsec", lambda c: c.d_dec_arcsec.err),
    "flux": (_UNIT_OF_FLUX, lambda c: c.flux.value),
    "flux_err": (_UNIT_OF_FLUX, lambda c: c.flux.err),
    "contrast": ("", lambda c: c.contrast.value),
    "contrast_err": ("", lambda c: c.contrast.err),
    "flux_density": ("Jy", lambda c: c.jy),
    "magnitude": ("mag", lambda c: c.magnitude),
    "snr": ("", lambda c: c.snr),
    "false_positive_fraction": ("", lambda c: c.fpf),
    "fit_err": ("arcsec", lambda c: c.errors.fit_arcsec),
    "star_err": ("arcsec", lambda c: c.errors.star_arcsec),
    "roll_err": ("arcsec", lambda c: c.errors.roll_arcsec),
    "scale_err": ("arcsec", lambda c: c.errors.scale_arcsec),
    "bias_flux": (_UNIT_OF_FLUX, lambda c: c.bias.flux),
    "bias_separation": ("arcsec", lambda c: c.bias.separation_arcsec),
    "bias_pa": ("deg", lambda c: c.bias.pa_deg),
    "n_injected": ("", lambda c: c.bias.n_injected),
    "chi2": ("", lambda c: c.chi2),
    "n_data": ("", lambda c: c.n_data),
}
"""Columns of the table: unit, and where the value is."""


@dataclass(frozen=True, eq=False)
class CompanionFit:
    """Companions that were fitted together.

    Attributes
    ----------
    companions : tuple of Companion
        In the order of the guesses.
    samples : ndarray, shape (n_sample, n_companion, 3)
        Posterior: offset to the east and to the north [arcsec], and flux.
    n_likelihoods : int
        How many times the likelihood was computed.
    n_modes : int
        Number of modes.
    settings : dict
        Parameters of the fit, and where PSF, transmission and star come from.
    boxes : list of tuple
        For each exposure and companion, for looking at: the name of the exposure, data and best
        model, ``(n_y, n_x)``.

    Examples
    --------
    >>> from lyot.analysis.companion import fit_companions
    >>> fit = fit_companions(observation, [(1.1, 205.0)], n_likelihoods=0, n_injections=0)
    >>> fit.to_table().colnames[:4]
    ['separation', 'separation_err', 'pa', 'pa_err']
    """

    companions: tuple[Companion, ...]
    samples: Array
    n_likelihoods: int
    n_modes: int
    settings: dict[str, Any]
    boxes: list[tuple[str, Array, Array]]

    def to_table(self) -> Any:
        """Return one astropy row per companion, with units; settings in its ``meta``."""
        from astropy import units as u
        from astropy.table import QTable

        table = QTable(meta={"lyot": self.settings})
        for name, (unit, value) in _COLUMNS.items():
            values = np.array([value(c) for c in self.companions])
            table[name] = values * u.Unit(unit) if unit else values
        return table

    def _repr_html_(self) -> str:
        """Return the table, for a notebook."""
        return str(self.to_table()._repr_html_())
