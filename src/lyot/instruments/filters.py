"""Filters: their response to photons, wavelengths and zero points, and spectra of sources.

One definition of a flux density, that of the calibration (Bohlin et al. 2014,
doi:10.1086/677655; Gordon et al. 2022, doi:10.3847/1538-3881/ac66dc): the mean of a spectrum over
the photons that a flat one would leave in the filter,
``sum(F_nu R dlambda / lambda) / sum(R dlambda / lambda)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.errors import LyotError
from lyot.instruments.telescope import ARCSEC_PER_RADIAN
from lyot.types import Array

N_FINE = 2001
"""Least number of points of an integral over a filter."""


class Band(NamedTuple):
    """The light of an image: wavelengths [m] and their shares of the detected photons."""

    wavelengths_m: NDArray[np.float64]
    weights: NDArray[np.float64]


@dataclass(frozen=True)
class Spectrum:
    """A spectrum, power laws between its points; for the image of a source only ratios matter.

    Examples
    --------
    >>> round(float(Spectrum.blackbody(1000.0).at(3.0) / Spectrum.blackbody(1000.0).at(5.0)), 3)
    0.647
    """

    um: tuple[float, ...]  # wavelengths, rising [micrometer]
    jy: tuple[float, ...]  # flux densities, positive [Jy]
    name: str = ""  # what it is, in words

    def at(self, um: Array | float, /) -> NDArray[np.float64]:
        """Return the flux density at wavelengths [Jy]."""
        return np.asarray(np.exp(np.interp(np.log(um), np.log(self.um), np.log(self.jy))))

    @classmethod
    def blackbody(cls, kelvin: float, /) -> Spectrum:
        """Return the shape of Planck's law at a temperature [K], from 0.3 to 300 micrometer."""
        um = np.geomspace(0.3, 300.0, 700)
        # hc / k [um K]; logarithms, as a cold body has no light at the shortest wavelengths.
        x = 14387.769 / (um * kelvin)
        log = -3.0 * np.log(um) - x - np.log1p(-np.exp(-x))
        jy = np.exp(np.maximum(log - log.max(), -600.0))
        return cls(tuple(um.tolist()), tuple(jy.tolist()), f"blackbody of {kelvin:g} K")


RAYLEIGH_JEANS = Spectrum((0.1, 1000.0), (1.0, 1e-8), "hot star")
"""The shape of a hot star: the square of the frequency."""


@dataclass(frozen=True)
class Curve:
    """A relative response to photons: straight lines between knots, nothing outside.

    Examples
    --------
    >>> round(Curve.box(3.5, 0.4).mean_um(RAYLEIGH_JEANS), 2)
    3.49
    """

    um: tuple[float, ...]  # wavelengths, rising [micrometer]
    response: tuple[float, ...]  # electrons per photon, in any unit

    @classmethod
    def box(cls, pivot_um: float, width_um: float, /) -> Curve:
        """Return a response that is the same over a width, of a pivot wavelength."""
        middle = pivot_um + width_um**2 / (24.0 * pivot_um)
        return cls((middle - 0.5 * width_um, middle + 0.5 * width_um), (1.0, 1.0))

    def times(self, other: Curve, /) -> Curve:
        """Return the response through another optical element besides."""
        um = np.unique([*self.um, *(w for w in other.um if self.um[0] < w < self.um[-1])])
        both = self.at(um) * other.at(um)
        return Curve(tuple(um.tolist()), tuple(both.tolist()))

    def at(self, um: Array, /) -> NDArray[np.float64]:
        """Return the response at wavelengths."""
        return np.interp(um, self.um, self.response, left=0.0, right=0.0)

    def photons(self, spectrum: Spectrum, /) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return wavelengths and the detected photons of a spectrum in a step about each."""
        first, last = self.um[0], self.um[-1]
        lines = [w for w in spectrum.um if first < w < last]
        um = np.unique(np.concatenate([np.linspace(first, last, N_FINE), self.um, lines]))
        edges = np.concatenate([um[:1], 0.5 * (um[1:] + um[:-1]), um[-1:]])
        return um, self.at(um) * spectrum.at(um) / um * np.diff(edges)

    def mean_um(self, spectrum: Spectrum, /) -> float:
        """Return the mean wavelength of the detected photons of a spectrum [micrometer]."""
        um, photons = self.photons(spectrum)
        return float(um @ photons / photons.sum())

    def band(self, spectrum: Spectrum, /, *, n_wavelengths: int | None = None) -> Band:
        """Sample the detected photons of a spectrum.

        Equal steps hold all but a fiftieth of the photons; the outer ones take the wings too.
        Each stands for its photons at their mean wavelength. By default there are as many as the
        lobes of an image 36 lambda/D away need to overlap.
        """
        um, photons = self.photons(spectrum)
        share = np.cumsum(photons) / photons.sum()
        first, last = np.interp([0.01, 0.99], share, um)
        n = n_wavelengths or max(3, int(np.ceil(36.0 * (last - first) / first)) | 1)
        part = np.digitize(um, np.linspace(first, last, n + 1)[1:-1])
        weights = np.bincount(part, photons, minlength=n)
        return Band(1e-6 * np.bincount(part, photons * um, n) / weights, weights / weights.sum())


@dataclass(frozen=True)
class Filter:
    """One filter.

    Attributes
    ----------
    name : str
        Name of the filter.
    channel : str
        Name of the channel that it belongs to.
    curve : Curve
        Response to photons of telescope, camera, filter and detector.
    vega_jy : float or None
        Flux density of a star of magnitude zero in the Vega system [Jy]; None where it is not
        known.

    Examples
    --------
    >>> from lyot.instruments import NIRCAM
    >>> band = NIRCAM.filter("F444W")
    >>> band.vega_jy, round(band.pivot_um, 3)
    (185.8, 4.381)
    """

    name: str
    channel: str
    curve: Curve = field(repr=False)
    vega_jy: float | None = None

    @cached_property
    def pivot_um(self) -> float:
        """Pivot wavelength, at which the mean flux densities per frequency and per wavelength
        agree [micrometer]."""
        um, photons = self.curve.photons(Spectrum((1.0, 100.0), (1.0, 1.0)))
        return float(np.sqrt((photons * um**2).sum() / photons.sum()))

    @cached_property
    def width_um(self) -> float:
        """Width of a box of the same height and area as the response [micrometer]."""
        return float(np.trapezoid(self.curve.response, self.curve.um) / max(self.curve.response))

    def flux_density(self, spectrum: Spectrum, /) -> float:
        """Return the mean flux density of a spectrum as the calibration defines it [Jy].

        That of a flat spectrum is its value. A `LyotError` if the spectrum ends within the filter.

        Examples
        --------
        >>> from lyot.instruments import MIRI
        >>> round(MIRI.filter("F1140C").flux_density(Spectrum((5.0, 20.0), (3.0, 3.0))), 6)
        3.0
        """
        self.check_covered(spectrum)
        um, photons = self.curve.photons(spectrum)
        return float(photons.sum() / (photons / spectrum.at(um)).sum())

    def check_covered(self, spectrum: Spectrum, /) -> None:
        """Refuse a spectrum that ends within the filter."""
        first, last = self.curve.um[0], self.curve.um[-1]
        if spectrum.um[0] > first or spectrum.um[-1] < last:
            raise LyotError(
                f"The spectrum covers {spectrum.um[0]:g} to {spectrum.um[-1]:g} micrometer, and "
                f"{self.name} {first:g} to {last:g}; give one that covers the filter."
            )

    def lambda_over_d_arcsec(self, diameter_m: float, /) -> float:
        """Return the pivot wavelength over a telescope's diameter [arcsec]."""
        return self.pivot_um * 1e-6 / diameter_m * ARCSEC_PER_RADIAN


def _rows(instrument: str) -> Iterator[tuple[str, str, str, Curve]]:
    """The table's rows of an instrument: name, channel, zero point, curve."""
    for line in Path(__file__).with_name("filters.txt").read_text("utf-8").splitlines():
        words = line.split()
        if words and words[0] == instrument:
            knots = (tuple(map(float, word.split(":"))) for word in words[4:])
            um, response = zip(*knots, strict=True)
            yield words[1], words[2], words[3], Curve(um, response)


def filters_of(instrument: str, /) -> tuple[Filter, ...]:
    """Return the filters of an instrument, from the table beside this file."""
    return tuple(
        Filter(name, channel, curve, float(zero_point))
        for name, channel, zero_point, curve in _rows(instrument)
        if zero_point != "-"
    )


def coronagraph_response(instrument: str, channel: str, /) -> Curve:
    """Return the response of what stands in the beam of a channel with coronagraphs only."""
    [curve] = (row[3] for row in _rows(instrument) if row[1:3] == (channel, "-"))
    return curve
