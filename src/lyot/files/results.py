"""Results of an analysis as files: tables in ECSV, maps in FITS."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot._version import __version__
from lyot.errors import readable
from lyot.files.atomic import atomic_write
from lyot.files.headers import open_fits
from lyot.types import Array

SURVEY_SUMMARY, SURVEY_COLORS = "survey.json", "survey_colors.ecsv"
"""Files of a survey: what became of each association, and companions at one place in all modes."""


def write_table(table: Any, path: str | Path, /) -> str:
    """Write a table as ECSV, with its units and metadata; return the path."""
    with atomic_write(path) as temporary:
        table.write(str(temporary), format="ascii.ecsv")
    return str(path)


def write_latex(
    columns: dict[str, list[str]],
    path: str | Path,
    /,
    *,
    caption: str,
    notes: list[str],
    alignment: str,
) -> str:
    """Write columns of LaTeX cells as a table as wide as a page, notes below; return the path."""
    from astropy.table import Table

    below = [r"\par", r"{\footnotesize", *(f"{note} \\par" for note in notes), "}"]
    layout = {
        "tabletype": "table",
        "caption": caption,
        "tablefoot": "\n".join(below),
        "preamble": "\\footnotesize\n\\setlength{\\tabcolsep}{3pt}\n\\centering",
        "col_align": alignment,
        "header_start": r"\hline",
        "header_end": r"\hline",
        "data_end": r"\hline",
    }
    with atomic_write(path) as temporary:
        Table(columns).write(str(temporary), format="ascii.latex", latexdict=layout)
    return str(path)


def read_table(path: str | Path, /) -> Any:
    """Read a table in any format that astropy knows; None where there is no such file."""
    from astropy.table import Table

    if not Path(path).is_file():
        return None
    with readable(path, "give a table"):
        table = Table.read(str(path))
    for name in table.colnames:  # an empty text is not a missing one
        if table[name].dtype.kind in "US" and hasattr(table[name], "filled"):
            table[name] = table[name].filled("")
    return table


class SkyMaps(NamedTuple):
    """Maps of the sky about the star: by extension name, with what the primary header says."""

    maps: dict[str, NDArray[np.float64]]
    pixel_scale_arcsec: float
    keywords: dict[str, Any]


def read_maps(path: str | Path, /) -> SkyMaps:
    """Read maps that `write_maps` wrote."""
    with readable(path), open_fits(path, memmap=False) as hdus:
        maps = {hdu.name: np.asarray(hdu.data, dtype=np.float64) for hdu in hdus[1:]}
        return SkyMaps(maps, float(hdus[1].header["CDELT2"]), dict(hdus[0].header))


def write_maps(
    maps: dict[str, Array],
    path: str | Path,
    /,
    *,
    pixel_scale_arcsec: float,
    keywords: dict[str, Any],
) -> str:
    """Write maps of the sky as FITS, an extension each, north up, the star on the middle pixel."""
    from astropy.io import fits

    hdus = []
    for name, image in maps.items():
        hdu = fits.ImageHDU(np.asarray(image, dtype=np.float32), name=name)
        n_y, n_x = image.shape
        for axis, n, step, what in (
            (1, n_x, -pixel_scale_arcsec, "east"),
            (2, n_y, pixel_scale_arcsec, "north"),
        ):
            hdu.header[f"CRPIX{axis}"] = 0.5 * (n + 1)
            hdu.header[f"CRVAL{axis}"] = 0.0
            hdu.header[f"CDELT{axis}"] = step
            hdu.header[f"CUNIT{axis}"] = "arcsec"
            hdu.header[f"CNAME{axis}"] = f"offset to the {what} of the star"
        hdus.append(hdu)
    return _write(path, keywords, hdus)


def write_image(image: Array, path: str | Path, /, *, keywords: dict[str, Any]) -> str:
    """Write one image, in float64, as the primary array; return the path."""
    return _write(path, keywords, [], np.asarray(image, dtype=np.float64))


def _write(
    path: str | Path, keywords: dict[str, Any], images: list[Any], image: Array | None = None
) -> str:
    from astropy.io import fits

    primary = fits.PrimaryHDU(image)
    primary.header["LYOTVER"] = (__version__, "Version of lyot")
    primary.header.update(keywords)
    with atomic_write(path) as temporary:
        fits.HDUList([primary, *images]).writeto(temporary)
    return str(path)


def write_grid(
    image: Array,
    path: str | Path,
    /,
    *,
    name: str,
    axes: dict[str, Array],
    keywords: dict[str, Any],
) -> str:
    """Write an image on uneven axes, each an extension of its name, x first; return the path."""
    from astropy.io import fits

    hdus = [fits.ImageHDU(np.asarray(image, dtype=np.float32), name=name)]
    hdus += [fits.ImageHDU(np.asarray(v, dtype=np.float64), name=n) for n, v in axes.items()]
    return _write(path, keywords, hdus)


def read_grid(path: str | Path, /) -> tuple[Array, dict[str, Array]]:
    """Read what `write_grid` wrote: the image, and its axes by name, x first."""
    with readable(path), open_fits(path, memmap=False) as hdus:
        image, *axes = (np.asarray(hdu.data, dtype=np.float64) for hdu in hdus[1:])
        return image, dict(zip((hdu.name for hdu in hdus[2:]), axes, strict=True))


class FitImages(NamedTuple):
    """A fit of companions, for looking at."""

    boxes: list[tuple[str, Array, Array]]
    """Name of the exposure, data and model, for each exposure and companion."""
    samples: Array
    """Posterior ``(n_companion, 3, n_sample)``: east and north [arcsec], flux [MJy/sr pixel]."""


def write_fit(fit: FitImages, path: str | Path, /) -> str:
    """Write data, models and posterior of a fit as FITS, an extension each; return the path."""
    from astropy.io import fits

    hdus = []
    for version, (exposure, *images) in enumerate(fit.boxes, start=1):
        for name, image in zip(("DATA", "MODEL"), images, strict=True):
            hdu = fits.ImageHDU(np.asarray(image, dtype=np.float32), name=name, ver=version)
            hdu.header["EXPOSURE"] = exposure
            hdus.append(hdu)
    samples = np.asarray(fit.samples, dtype=np.float64)
    return _write(path, {}, [*hdus, fits.ImageHDU(samples, name="POSTERIOR")])


def read_fit(path: str | Path, /) -> FitImages:
    """Read what `write_fit` wrote."""
    with readable(path), open_fits(path, memmap=False) as hdus:
        numbers = range(1, 1 + sum(hdu.name == "DATA" for hdu in hdus))
        boxes = []
        for number in numbers:
            data, model = (
                np.asarray(hdus[name, number].data, dtype=np.float64) for name in ("DATA", "MODEL")
            )
            boxes.append((str(hdus["DATA", number].header["EXPOSURE"]), data, model))
        return FitImages(boxes, np.asarray(hdus["POSTERIOR"].data, dtype=np.float64))
