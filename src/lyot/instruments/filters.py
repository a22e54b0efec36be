"""Filters: wavelengths and zero points."""

from __future__ import annotations

from dataclasses import dataclass

from lyot.instruments.telescope import ARCSEC_PER_RADIAN


@dataclass(frozen=True)
class Filter:
    """One filter.

    Attributes
    ----------
    name : str
        Name of the filter.
    pivot_um, width_um : float
        Pivot wavelength and bandwidth [micrometre].
    channel : str
        Name of the channel that it belongs to.
    vega_jy : float or None
        Flux density of a star of magnitude zero in the Vega system [Jy]; None where it is not
        known.

    Examples
    --------
    >>> from lyot.instruments import NIRCAM
    >>> NIRCAM.filter("F444W").vega_jy
    184.102
    """

    name: str
    pivot_um: float
    width_um: float
    channel: str
    vega_jy: float | None = None

    def lambda_over_d_arcsec(self, diameter_m: float, /) -> float:
        """Return the pivot wavelength over a telescope's diameter [arcsec]."""
        return self.pivot_um * 1e-6 / diameter_m * ARCSEC_PER_RADIAN
