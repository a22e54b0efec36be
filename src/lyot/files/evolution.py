"""Evolutionary models of planets and brown dwarfs: a table of magnitudes by age and mass."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lyot.errors import LyotError
from lyot.files.results import read_table
from lyot.instruments.filters import Filter
from lyot.types import Array

MAX_SOLAR_MASSES = 0.3
"""Masses without a unit that all lie below are taken for solar masses, and refused."""


@dataclass(frozen=True, eq=False)
class Evolution:
    """Absolute magnitudes of bodies of a mass at an age, in one filter.

    Attributes
    ----------
    age_myr, mass_mjup, magnitude : ndarray, shape (n,)
        Age [million years], mass [Jupiter masses], absolute Vega magnitude.
    origin : str
        The table that they come from.

    Examples
    --------
    >>> ages, masses = np.array([10.0, 10.0, 100.0, 100.0]), np.array([1.0, 10.0, 1.0, 10.0])
    >>> models = Evolution(ages, masses, np.array([15.0, 10.0, 18.0, 13.0]), "an example")
    >>> mass, magnitude = models.at_age(31.6227766)
    >>> mass.tolist(), magnitude.round(6).tolist()
    ([1.0, 10.0], [16.5, 11.5])
    """

    age_myr: Array
    mass_mjup: Array
    magnitude: Array
    origin: str

    def at_age(self, age_myr: float, /) -> tuple[Array, Array]:
        """Return masses, rising, and their magnitudes at an age.

        Linear in the logarithm of the age between the two ages of the table about it, for the
        masses that both have.
        """
        ages = np.unique(self.age_myr)
        if not ages[0] <= age_myr <= ages[-1]:
            raise LyotError(
                f"{self.origin} holds ages from {ages[0]:g} to {ages[-1]:g} Myr; {age_myr:g} Myr "
                "lies outside.",
                parameter="age",
            )
        above = min(int(np.searchsorted(ages, age_myr)), len(ages) - 1)
        if ages[above] == age_myr:
            return self._isochrone(float(age_myr))
        young, old = float(ages[above - 1]), float(ages[above])
        (mass_1, magnitude_1), (mass_2, magnitude_2) = self._isochrone(young), self._isochrone(old)
        mass = np.union1d(mass_1, mass_2)
        mass = mass[(mass >= max(mass_1[0], mass_2[0])) & (mass <= min(mass_1[-1], mass_2[-1]))]
        if len(mass) < 2:
            raise LyotError(
                f"{self.origin} has fewer than two masses in common at {young:g} and {old:g} Myr, "
                f"between which {age_myr:g} Myr lies.",
                parameter="mass_table",
            )
        u = np.log(age_myr / young) / np.log(old / young)
        at_1, at_2 = (
            np.interp(np.log(mass), np.log(m), magnitude)
            for m, magnitude in ((mass_1, magnitude_1), (mass_2, magnitude_2))
        )
        return mass, (1.0 - u) * at_1 + u * at_2

    def _isochrone(self, age_myr: float) -> tuple[Array, Array]:
        own = self.age_myr == age_myr
        mass, first = np.unique(self.mass_mjup[own], return_index=True)
        return mass, self.magnitude[own][first]


def read_evolution(path: str | Path, filter: Filter, /) -> Evolution:
    """Read a table of age, mass and brightness in a filter, in any format that astropy knows.

    Parameters
    ----------
    path : path
        Columns ``age`` [Myr unless it has a unit], ``mass`` [Jupiter masses unless it has a unit],
        and one whose name is that of the filter, or ends with it: the absolute Vega magnitude, or
        the flux density at 10 pc where its unit is one of flux density.
    filter : Filter
        The filter.

    Returns
    -------
    Evolution
        What the table holds of that filter; rows with missing values are left out.

    Raises
    ------
    LyotError
        If the file or a column is missing, or a unit is not one of age, mass and brightness.

    Examples
    --------
    >>> from lyot.instruments import NIRCAM
    >>> lines = ["age,mass,NIRCAM-F444W", "20,1,14.1", "20,5,11.2"]
    >>> _ = Path("models.csv").write_text("\\n".join(lines))
    >>> read_evolution("models.csv", NIRCAM.filter("F444W")).magnitude.tolist()
    [14.1, 11.2]
    """
    table = read_table(path)
    if table is None:
        raise LyotError(f"The mass table {path} does not exist.", parameter="mass_table")
    names = {name.lower(): name for name in table.colnames}
    endings = {re.split(r"[^0-9A-Za-z]+", name)[-1].lower(): name for name in table.colnames}
    of_filter = names.get(filter.name.lower()) or endings.get(filter.name.lower())
    missing = [name for name in ("age", "mass") if name not in names]
    if missing or of_filter is None:
        wanted = [*missing, *([filter.name] if of_filter is None else [])]
        raise LyotError(
            f"The mass table {path} has no column {' and '.join(wanted)}; it has "
            f"{', '.join(table.colnames)}.",
            parameter="mass_table",
        )
    age, mass, brightness = (
        _in_unit(table[name], unit, path, filter)
        for name, unit in ((names["age"], "Myr"), (names["mass"], "jupiterMass"), (of_filter, ""))
    )
    good = np.isfinite(age) & np.isfinite(mass) & np.isfinite(brightness) & (age > 0) & (mass > 0)
    if good.sum() < 2:
        raise LyotError(
            f"The mass table {path} has {good.sum()} rows with age, mass and {filter.name}; give "
            "two or more.",
            parameter="mass_table",
        )
    if table[names["mass"]].unit is None and mass[good].max() < MAX_SOLAR_MASSES:
        raise LyotError(
            f"The masses in {path} have no unit and reach {mass[good].max():g}, as solar masses "
            "do; state their unit in the table, or give Jupiter masses.",
            parameter="mass_table",
        )
    return Evolution(age[good], mass[good], brightness[good], Path(path).name)


def _in_unit(column: Any, unit: str, path: str | Path, filter: Filter) -> Array:
    """The numbers of a column in a unit; absolute magnitudes where the unit is empty."""
    from astropy import units as u

    try:
        values = np.ma.filled(np.ma.asarray(column, dtype=np.float64), np.nan)
    except ValueError:
        raise LyotError(
            f"The column {column.name} of the mass table {path} does not hold numbers.",
            parameter="mass_table",
        ) from None
    if column.unit is None or (not unit and column.unit == u.mag):
        return np.asarray(values)
    try:
        if unit:
            return np.asarray((values * column.unit).to_value(u.Unit(unit)))
        at = u.spectral_density(filter.pivot_um * u.um)
        with np.errstate(divide="ignore", invalid="ignore"):
            jy = (values * column.unit).to_value(u.Jy, equivalencies=at)
            return np.asarray(-2.5 * np.log10(jy / (filter.vega_jy or np.nan)))
    except u.UnitsError:
        raise LyotError(
            f"The unit of the column {column.name} of the mass table {path} is {column.unit}; give "
            f"{unit or 'magnitudes, or flux densities at 10 pc'}.",
            parameter="mass_table",
        ) from None
