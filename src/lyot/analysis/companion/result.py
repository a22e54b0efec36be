"""Measured companions, with the parts of their errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lyot.analysis.companion.budget import ErrorBudget
from lyot.analysis.statistic import state_chances
from lyot.analysis.table import FLUX_UNIT, Tabled, column, table_of
from lyot.types import Array


@dataclass(frozen=True)
class Measured:
    """A value and its 1-sigma error, in the same unit.

    Examples
    --------
    >>> print(Measured(1.1, 0.02))
    1.1 +- 0.02
    """

    value: float = column("")
    err: float = column("_err")

    def __str__(self) -> str:
        """Say both."""
        return f"{self.value:g} +- {self.err:g}"


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

    flux: float = column("bias_flux", FLUX_UNIT)
    separation_arcsec: float = column("bias_separation", "arcsec")
    pa_deg: float = column("bias_pa", "deg")
    n_injected: int = column("n_injected")


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
    jy : Measured
        Flux density [Jy].
    magnitude : Measured
        Vega magnitude; NaN where it is unknown.
    snr : float
        Flux over its error by noise alone: the first two terms of the budget.
    fpf : float
        Probability of that S/N by noise alone among the independent positions at its separation.
    budget : ErrorBudget
        The errors, cause by cause.
    bias : Bias
        From injected companions.
    chi2, n_data : float, int
        Chi-square of the best fit about the companion, and number of pixels.

    Examples
    --------
    >>> from lyot.analysis.companion import fit_companions
    >>> fit = fit_companions(observation, [(1.1, 205.0)], n_likelihoods=0, n_injections=0)
    >>> companion = fit.companions[0]
    >>> companion.flux.value / companion.flux.err <= companion.snr
    True
    """

    separation_arcsec: Measured = column("separation", "arcsec")
    pa_deg: Measured = column("pa", "deg")
    d_ra_arcsec: Measured = column("d_ra", "arcsec")
    d_dec_arcsec: Measured = column("d_dec", "arcsec")
    flux: Measured = column("flux", FLUX_UNIT)
    contrast: Measured = column("contrast")
    jy: Measured = column("flux_density", "Jy")
    magnitude: Measured = column("magnitude", "mag")
    snr: float = column("snr")
    fpf: float = column("false_positive_fraction")
    budget: ErrorBudget = column("")
    bias: Bias = column("")
    chi2: float = column("chi2")
    n_data: int = column("n_data")

    @property
    def is_described(self) -> bool:
        """Whether the PSF describes the source: chi-square is at most 2 per pixel."""
        return self.chi2 <= MAX_CHI2_PER_PIXEL * self.n_data


MAX_CHI2_PER_PIXEL = 2.0
"""Of a fit, beyond which the PSF does not describe the source."""


@dataclass(frozen=True, eq=False)
class CompanionFit(Tabled):
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

    @property
    def warnings(self) -> list[str]:
        """What must be known of the fit besides its errors, one sentence each."""
        return [
            f"The PSF does not describe companion {number}: chi-square is "
            f"{c.chi2 / c.n_data:.1f} per pixel, so that flux and position are worse than their "
            f"errors say (PSF: {self.settings['psf']})."
            for number, c in enumerate(self.companions, start=1)
            if not c.is_described
        ]

    def to_table(self) -> Any:
        """Return one astropy row per companion, with units; settings in its ``meta``."""
        settings = self.settings | {"warnings": self.warnings}
        table = table_of(Companion, self.companions, settings)
        state_chances(table, "false_positive_fraction")
        table["described_by_psf"] = [c.is_described for c in self.companions]
        return table
