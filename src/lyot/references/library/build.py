"""Reference libraries: created, and filled with frames that are aligned, repaired and scaled."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms import repair
from lyot.algorithms.geometry import radius_map
from lyot.algorithms.registration import ShiftFit
from lyot.compute import threads
from lyot.errors import LyotError
from lyot.files.atomic import checksum
from lyot.files.exposure import Cube, read_cube
from lyot.files.library_store import Batch, FrameInfo, Library
from lyot.files.results import read_table
from lyot.parameters import AlignRecipe, OutlierRecipe
from lyot.progress import Progress, no_progress
from lyot.references.aligner import Aligner
from lyot.references.prepare import flag_outliers, prepare_refs
from lyot.references.star import guess_star
from lyot.types import Mask

log = logging.getLogger(__name__)

ZONE_ARCSEC = 3.0
SPECTRAL_CLASSES = "OBAFGKMLTY"


@threads.calculation
def build(
    path: str | Path, files: Iterable[str | Path], /, *, zone_arcsec: float = ZONE_ARCSEC
) -> Library:
    """Make an empty library of the mode of the first exposure, in a folder that is empty."""
    first = next(iter(files), None)
    if first is None:
        raise LyotError("No exposures were given; name at least one _calints.fits file.")
    info = read_cube(first).info
    star = guess_star(info, None)
    radius = radius_map((info.shape[-2], info.shape[-1]), star.yx) * info.pixel_scale_arcsec
    return Library.create(path, info, (radius <= zone_arcsec).astype(np.float64))


def spectral_number(text: str, /) -> float | None:
    """Return a spectral type as a number: ten per class from O = 0; None for no text.

    The luminosity class does not count.

    Examples
    --------
    >>> spectral_number("B0"), spectral_number("M4.5V")
    (10.0, 64.5)
    """
    text = text.strip().upper()
    if not text:
        return None
    match = re.match(rf"([{SPECTRAL_CLASSES}])(\d+\.?\d*|\.\d+)", text)
    if match is None:
        raise LyotError(f"Spectral type {text!r} is not like M1V; give a class and a subclass.")
    return 10.0 * SPECTRAL_CLASSES.index(match[1]) + float(match[2])


def read_wavefronts(path: str | Path, /) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read times [day] and wavefront errors [nm]: a table with columns ``mjd`` and ``rms_nm``."""
    table = read_table(path)
    if table is None:
        raise LyotError(f"The table of wavefronts {path} does not exist; check the path.")
    try:
        mjd, rms = (np.asarray(table[name], dtype=np.float64) for name in ("mjd", "rms_nm"))
    except (KeyError, ValueError, TypeError):
        mjd = rms = np.empty(0)
    if not mjd.size:
        raise LyotError(f"{path} is not a table with numbers in columns mjd and rms_nm.")
    order = np.argsort(mjd)
    return mjd[order], rms[order]


@threads.calculation
def add(
    library: Library,
    files: Iterable[str | Path],
    /,
    *,
    spectral_type: str = "",
    wavefronts: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
    outliers: OutlierRecipe | None = None,
    align: AlignRecipe | None = None,
    report: Progress = no_progress,
) -> int:
    """Add exposures to a library; those that it holds already are skipped."""
    names, number = list(files), spectral_number(spectral_type)
    n_added = 0
    library.remove_leftovers()
    for done, path in enumerate(names):
        report("add exposures", done, len(names))
        digest = checksum(path)
        if library.holds(digest):
            log.info("%s is in the library already.", path)
            continue
        cube = flag_outliers(read_cube(path), outliers or OutlierRecipe())
        known: dict[str, Any] = {
            "sha256": digest,
            "spectral_type": spectral_type.strip(),
            "spectral_number": number,
            "wavefront_nm": None,
        }
        if wavefronts is not None and np.isfinite(cube.info.mjd):
            nearest = int(np.argmin(np.abs(wavefronts[0] - cube.info.mjd)))
            known["wavefront_nm"] = float(wavefronts[1][nearest])
        n_added += library.add(_prepare(library, cube, align or AlignRecipe(), known))
    report("add exposures", len(names), len(names))
    return n_added


def _prepare(library: Library, cube: Cube, align: AlignRecipe, known: dict[str, Any]) -> Batch:
    """Align the frames of an exposure to the library's first, repair and scale them."""
    bad = cube.bad(align.bad_bits)
    flag_value = cube.info.instrument_value.flag_value
    if len(library):
        template = library.frames([0])
    else:
        first = repair.median_fill(cube.sci[:1], bad[:1]).astype(np.float32)
        template = replace(cube, sci=first, err=cube.err[:1], dq=0 * cube.dq[:1])
    refs = prepare_refs(cube, align)
    frames, fit = Aligner(template, refs, replace(align, align_to="first")).align(0)
    scale = fit.scale
    if not np.all(scale > 0):
        raise LyotError(
            f"Integration {int(np.argmin(scale)) + 1} of {cube.info.name} does not look like the "
            "library's first frame; is it behind the mask?"
        )
    unusable = np.uint32(flag_value("DO_NOT_USE"))
    sci = np.empty_like(frames.sci)
    dq = np.empty(sci.shape, np.uint32)
    for k in range(len(sci)):
        missing = ~np.isfinite(frames.sci[k])
        sci[k] = scale[k] * repair.median_fill(frames.sci[k : k + 1], missing[None])[0]
        pixels = tuple(round(float(s)) for s in fit.shift_yx[k])
        moved = np.roll(bad[k], pixels, axis=(0, 1)) | missing
        dq[k] = np.where(moved, frames.dq[k] | unusable, frames.dq[k])
    err = scale[:, None, None] * np.sqrt(frames.variance)
    ready = Cube(sci, err.astype(np.float32), dq, cube.info)
    rows = _rows(cube, fit, bad, known)
    return Batch(ready, zone_pixels(sci, library.weight), rows)


def _rows(cube: Cube, fit: ShiftFit, bad: Mask, known: dict[str, Any]) -> list[FrameInfo]:
    """Return what the index of a library says of the frames of an exposure."""
    info = cube.info
    saturated = (cube.dq & np.uint32(info.instrument_value.flag_value("SATURATED"))) != 0
    return [
        FrameInfo(
            file=info.name,
            integration=k + 1,
            target=info.target,
            program=info.program,
            mjd=info.mjd if np.isfinite(info.mjd) else None,
            pa_y_deg=info.pa_y_deg if np.isfinite(info.pa_y_deg) else None,
            x_offset=info.dither_arcsec[0],
            y_offset=info.dither_arcsec[1],
            scale=float(fit.scale[k]),
            shift_y=float(fit.shift_yx[k, 0]),
            shift_x=float(fit.shift_yx[k, 1]),
            n_repaired=int(bad[k].sum()),
            n_saturated=int(saturated[k].sum()),
            **known,
        )
        for k in range(len(cube.sci))
    ]


def zone_pixels(
    frames: NDArray[np.floating], weight: NDArray[np.floating], /
) -> NDArray[np.float64]:
    """Return pixels ``(n, n_zone)``, centered, times root w: products as in the Gram matrix."""
    at = np.flatnonzero(weight.ravel() > 0)
    w = weight.ravel()[at]
    pixels = frames.reshape(len(frames), -1)[:, at].astype(np.float64)
    pixels -= (pixels @ w / w.sum())[:, None]
    return np.asarray(pixels * np.sqrt(w))
