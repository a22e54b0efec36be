"""Spectra of sources: two columns of text, or a table with units."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lyot.errors import LyotError, readable
from lyot.files.results import read_table
from lyot.instruments.filters import RAYLEIGH_JEANS, Spectrum
from lyot.parameters import SourceParameters
from lyot.types import Array

if TYPE_CHECKING:
    from astropy.table import Table


def read_spectrum(path: str | Path, /) -> Spectrum:
    """Read a spectrum: wavelength and flux density, the first two columns.

    From a table with units (ECSV, FITS, VOTable), per frequency or per wavelength, or from text
    without: micrometer and Jy. Points of no flux, and lines that begin with ``#``, are left out;
    of several at one wavelength the median is taken. In the photometry that VizieR collects of a
    star the columns are those that it names so, ``sed_freq`` and ``sed_flux``.

    Examples
    --------
    >>> Path("flat.txt").write_text("# um Jy\\n1 2.5\\n30 2.5\\n")
    21
    >>> read_spectrum("flat.txt")
    Spectrum(um=(1.0, 30.0), jy=(2.5, 2.5), name='flat.txt')
    """
    path = Path(path)
    if not path.is_file():
        raise LyotError(f"The spectrum {path} does not exist.")
    um, jy = _with_units(path) if path.suffix in _TABLES else _as_text(path)
    good = np.isfinite(um) & np.isfinite(jy) & (um > 0) & (jy > 0)
    order = np.argsort(um[good], kind="stable")
    um, first = np.unique(um[good][order], return_index=True)
    if len(um) < 2:
        raise LyotError(f"The spectrum {path} has {len(um)} points of positive flux; give more.")
    of_one = np.split(jy[good][order], first[1:])
    return Spectrum(tuple(um.tolist()), tuple(float(np.median(v)) for v in of_one), path.name)


def source_spectrum(parameters: SourceParameters, /) -> Spectrum:
    """Return the spectrum of a source that parameters give; that of a hot star by default."""
    path, kelvin = parameters.source_spectrum, parameters.source_temperature
    if path is not None and kelvin is not None:
        raise LyotError(
            "Give one of the spectrum and the temperature of the source.",
            parameter="source_spectrum",
        )
    if path is not None:
        return read_spectrum(path)
    return RAYLEIGH_JEANS if kelvin is None else Spectrum.blackbody(kelvin)


_VIZIER = ["sed_freq", "sed_flux"]
_TABLES = {".ecsv", ".fits", ".vot", ".xml"}


def _as_text(path: Path) -> tuple[Array, Array]:
    remedy = "give two columns of numbers, wavelength [micrometer] and flux density [Jy]"
    with readable(f"The spectrum {path}", remedy):
        columns = np.loadtxt(path, usecols=(0, 1), ndmin=2)
    return columns[:, 0], columns[:, 1]


def _with_units(path: Path) -> tuple[Array, Array]:
    from astropy import units as u

    table: Table = read_table(path)
    if len(table.colnames) < 2:
        raise LyotError(f"The spectrum {path} has one column; give wavelength and flux density.")
    of_vizier = set(_VIZIER) <= set(table.colnames)
    names = _VIZIER if of_vizier else table.colnames[:2]
    wavelength, flux = (_quantity(table[name]) for name in names)
    try:
        um = wavelength.to(u.um, equivalencies=u.spectral())
        return um.value, flux.to(u.Jy, equivalencies=u.spectral_density(um)).value
    except u.UnitsError:
        raise LyotError(
            f"The units of the spectrum {path} are {wavelength.unit.to_string() or 'none'} and "
            f"{flux.unit.to_string() or 'none'}; give a wavelength and a flux density."
        ) from None


def _quantity(column: Any) -> Any:
    from astropy import units as u

    return u.Quantity(np.ma.filled(np.asarray(column, dtype=np.float64), np.nan), column.unit)
