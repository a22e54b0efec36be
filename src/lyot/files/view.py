"""Products read for display: quickly, through `astropy.io.fits` and plain YAML."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from lyot.algorithms.geometry import TangentPlane
from lyot.errors import readable
from lyot.files.headers import (
    ACQUISITION,
    BACKGROUND,
    CONFIRMATION,
    PSF,
    SCIENCE,
    ExposureInfo,
    info_from_headers,
    number_of,
    open_fits,
)
from lyot.files.provenance import PROVENANCE_KEY, check_branches
from lyot.files.star import StarPosition, recorded_star
from lyot.files.trees import read_branch
from lyot.types import Array


@dataclass(frozen=True, eq=False)
class View:
    """The arrays of a product and what it records.

    Attributes
    ----------
    path : Path
        The file.
    data, err : ndarray or None
        SCI and ERR.
    info : ExposureInfo
        What the headers say.
    star : StarPosition or None
        The star, where the product records it.
    provenance : dict
        What the product records beyond the schemas (see `lyot.files.provenance`).
    pa_y_deg : float or None
        Position angle of the y axis [degree].
    table : dict
        Columns of the contrast table, where the product is one.
    target_radec : (float, float) or None
        Right ascension and declination of the target (TARG_RA, TARG_DEC) [degree].

    Examples
    --------
    >>> view = read_view("science_calints.fits")
    >>> view.info.target, view.star, view.table
    ('DEMO', None, {})
    """

    path: Path
    data: Array | None
    err: Array | None
    info: ExposureInfo
    star: StarPosition | None
    provenance: dict[str, Any]
    pa_y_deg: float | None
    table: dict[str, Array]
    target_radec: tuple[float, float] | None


def read_view(path: str | Path, /) -> View:
    """Read a product for display, without stdatamodels.

    Parameters
    ----------
    path : path
        A product of this package.

    Returns
    -------
    View

    Raises
    ------
    LyotError
        If the file cannot be read.

    Examples
    --------
    >>> view = read_view("science_calints.fits")
    >>> view.data.shape, view.info.is_psf, round(view.pa_y_deg, 1)
    ((2, 48, 52), False, 10.1)
    """
    path = Path(path)
    with readable(path), open_fits(path, memmap=False) as hdus:
        sci = hdus["SCI"].header if "SCI" in hdus else {}
        data = hdus["SCI"].data if "SCI" in hdus else None
        shape = () if data is None else data.shape
        info = info_from_headers(hdus[0].header, sci, name=path.name, shape=shape)
        err = hdus["ERR"].data if "ERR" in hdus else None
        provenance = _provenance(hdus["ASDF"].data, path) if "ASDF" in hdus else {}
        table = {}
        if "CONTRAST" in hdus:
            rows = hdus["CONTRAST"].data
            table = {str(n): np.asarray(rows[n], dtype=float) for n in rows.names}
        ra, dec = (number_of(hdus[0].header.get(key)) for key in ("TARG_RA", "TARG_DEC"))
        return View(
            path,
            data,
            err,
            info,
            recorded_star(provenance.get("star")),
            provenance,
            info.pa_y_deg if np.isfinite(info.pa_y_deg) else None,
            table,
            (ra, dec) if np.isfinite([ra, dec]).all() else None,
        )


def recorded_plane(record: dict[str, Any], /) -> TangentPlane:
    """Return the sky about a star as a product records it; an error where it records none."""
    y, x = (float(value) for value in record["star_yx"])
    ways = [np.asarray(record[name], dtype=np.float64) for name in ("to_pixel", "to_sky")]
    if any(way.ndim != 2 or len(way) != 2 for way in ways):
        raise ValueError("the sky about the star has no two axes")
    return TangentPlane((y, x), *ways)


def _provenance(data: Any, path: Path) -> dict[str, Any]:
    """Return what a tree records; that of a product which is read again is parsed once."""
    return deepcopy(_parsed(np.asarray(data).tobytes(), path))


@lru_cache(maxsize=16)
def _parsed(stored: bytes, path: Path) -> dict[str, Any]:
    return check_branches(read_branch(stored, PROVENANCE_KEY, path), path)


_PRODUCTS = {
    "calints": "exposure",
    "cal": "exposure",
    "crfints": "flagged exposure",
    "psfstack": "stacked references",
    "psfalign": "aligned references",
    "psfsub": "subtracted exposure",
    "i2d": "combined image",
    "snr": "signal-to-noise image",
    "contrast": "contrast curve",
}
_STEPS = {
    "S_BKDSUB": "background",
    "S_OUTLIR": "outlier_detection",
    "S_PSFSTK": "stack_refs",
    "S_PSFALI": "align_refs",
    "S_KLIP": "klip",
    "S_RESAMP": "resample",
    "S_HLSP": "hlsp",
}
_EXPOSURES = {
    SCIENCE: "science exposure",
    PSF: "reference exposure",
    BACKGROUND: "background exposure",
    ACQUISITION: "target acquisition",
    CONFIRMATION: "astrometric confirmation image",
}


def describe(path: str | Path, /) -> dict[str, Any]:
    """Describe an exposure or product in a few words, by the names of what they say."""
    path = Path(path)
    with readable(path), open_fits(path, tiled_dq=True) as hdus:
        primary = hdus[0].header
        sci = hdus["SCI"].header if "SCI" in hdus else {}
        n_axes = int(sci.get("NAXIS", 0))
        shape = tuple(sci[f"NAXIS{i}"] for i in range(n_axes, 0, -1))
        info = info_from_headers(primary, sci, name=path.name, shape=shape)
    kind = _PRODUCTS.get(
        path.name.partition(".fits")[0].rpartition("_")[2], str(primary.get("DATAMODL") or "file")
    )
    if kind == "exposure":
        kind = _EXPOSURES[info.role]
    steps = [name for key, name in _STEPS.items() if primary.get(key) == "COMPLETE"]
    star = info.star_xy
    roll = info.roll_ref_deg
    return {
        "file": path.name,
        "what": kind,
        "shape": " x ".join(str(n) for n in shape),
        "target": info.target,
        "mode": info.mode_text,
        "roll": f"{roll:.2f}" if np.isfinite(roll) else "",
        "star": f"{star[0]:.2f}, {star[1]:.2f}" if star else "",
        "steps": ", ".join(steps),
    }
