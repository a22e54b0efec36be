"""Reference libraries: frames made ready for them, and chosen from them for a target."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms import fourier, klip, repair, selection
from lyot.algorithms.geometry import radius_map
from lyot.compute import cluster, threads
from lyot.errors import LyotError
from lyot.files.atomic import checksum
from lyot.files.exposure import Cube, read_cube
from lyot.files.library_store import Batch, FrameInfo, Library
from lyot.files.results import read_table
from lyot.parameters import AlignRecipe, LibraryRecipe, OutlierRecipe
from lyot.progress import Progress, no_progress
from lyot.references.aligner import Aligner
from lyot.references.prepare import prepare_refs
from lyot.references.stack import flag_outliers
from lyot.references.star import guess_star

log = logging.getLogger(__name__)

ZONE_ARCSEC = 3.0
CLASSES = "OBAFGKMLTY"


@threads.calculation
def build(
    path: str | Path, files: Iterable[str | Path], /, *, zone_arcsec: float = ZONE_ARCSEC
) -> Library:
    """Make an empty library of the mode of an exposure.

    Parameters
    ----------
    path : path
        The library's folder.
    files : iterable of path
        Exposures; the first says the mode and where the star is.
    zone_arcsec : float, optional
        Frames are compared within this separation of the star [arcsec].

    Returns
    -------
    Library
        To be added to.

    Raises
    ------
    LyotError
        If there is no exposure, or the folder is not empty.
    """
    first = next(iter(files), None)
    if first is None:
        raise LyotError("No exposures were given; name at least one _calints.fits file.")
    info = read_cube(first).info
    star = guess_star(info, None)
    radius = radius_map((info.shape[-2], info.shape[-1]), star.yx) * info.pixel_scale_arcsec
    return Library.create(path, info, (radius <= zone_arcsec).astype(np.float64))


def spectral_number(text: str, /) -> float | None:
    """Turn a spectral type into a number.

    Parameters
    ----------
    text : str
        For example ``M1V``; luminosity classes are not looked at.

    Returns
    -------
    float or None
        Ten per class from O = 0: B0 is 10, M4.5 is 64.5; None for no text.

    Raises
    ------
    LyotError
        If it does not begin with a class and a subclass.
    """
    text = text.strip().upper()
    if not text:
        return None
    digits = ""
    for letter in text[1:]:
        if not (letter.isdigit() or letter == "."):
            break
        digits += letter
    if text[0] not in CLASSES or not digits.strip("."):
        raise LyotError(f"Spectral type {text!r} is not like M1V; give a class and a subclass.")
    return 10.0 * CLASSES.index(text[0]) + float(digits)


def read_wavefronts(path: str | Path, /) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read the history of the telescope's wavefront.

    Parameters
    ----------
    path : path
        A table (ECSV, CSV, FITS) with columns ``mjd`` [day] and ``rms_nm`` [nm].

    Returns
    -------
    mjd, rms_nm : ndarray, shape (n,)
        In order of time.

    Raises
    ------
    LyotError
        If the table cannot be read, or has no such columns.
    """
    table = read_table(path)
    try:
        mjd, rms = (np.asarray(table[name], dtype=np.float64) for name in ("mjd", "rms_nm"))
    except (KeyError, ValueError, TypeError):
        raise LyotError(f"{path} is not a table with numbers in columns mjd and rms_nm.") from None
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
    """Add exposures to a library; those that it holds are passed over.

    Parameters
    ----------
    library : Library
        The library.
    files : iterable of path
        Exposures of its mode.
    spectral_type : str, optional
        Spectral type of their stars, where it is known.
    wavefronts : tuple of ndarray, optional
        From `read_wavefronts`; the value nearest in time is noted.
    outliers : OutlierRecipe, optional
        How outliers are flagged.
    align : AlignRecipe, optional
        How frames are aligned to the library's first.
    report : callable, optional
        Told the stage, the number of exposures done, and their total.

    Returns
    -------
    int
        Number of frames that were added.

    Raises
    ------
    LyotError
        If an exposure cannot be read or is of another mode; those before it stay added.
    """
    names, number = list(files), spectral_number(spectral_type)
    n_added = 0
    for done, path in enumerate(names):
        report("add exposures", done, len(names))
        digest = checksum(path)
        if library.holds(digest):
            log.info("%s is in the library already.", path)
            continue
        cube = flag_outliers(read_cube(path), outliers or OutlierRecipe())
        batch = _prepare(library, cube, digest, align or AlignRecipe())
        known: dict[str, Any] = {"spectral_type": spectral_type.strip(), "spectral_number": number}
        if wavefronts is not None and np.isfinite(cube.info.mjd):
            nearest = int(np.argmin(np.abs(wavefronts[0] - cube.info.mjd)))
            known["wavefront_nm"] = float(wavefronts[1][nearest])
        batch = replace(batch, ref_info=[replace(f, **known) for f in batch.ref_info])
        n_added += library.add(batch)
    report("add exposures", len(names), len(names))
    return n_added


def _prepare(library: Library, cube: Cube, digest: str, align: AlignRecipe) -> Batch:
    """Align the frames of an exposure to the library's first, repair and scale them."""
    bad = cube.bad(align.bad_bits)
    flag_value = cube.info.instrument_value.flag_value
    saturated = (cube.dq & np.uint32(flag_value("SATURATED"))) != 0
    template = library.frames([0]) if len(library) else _first_of(cube, bad)
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
        gone = ~np.isfinite(frames.sci[k])
        whole = repair.median_fill(frames.sci[k : k + 1], gone[None])[0]
        sci[k] = scale[k] * whole
        whole_shift = tuple(round(float(s)) for s in fit.shift_yx[k])
        moved = np.roll(bad[k], whole_shift, axis=(0, 1)) | gone
        dq[k] = np.where(moved, frames.dq[k] | unusable, frames.dq[k])
    err = scale[:, None, None] * np.sqrt(frames.variance)
    ready = Cube(sci, err.astype(np.float32), dq, cube.info)
    info = cube.info
    ref_info = [
        FrameInfo(
            file=info.name,
            sha256=digest,
            integration=k + 1,
            target=info.target,
            program=info.program,
            spectral_type="",
            spectral_number=None,
            mjd=_finite(info.mjd),
            pa_y_deg=_finite(info.pa_y_deg),
            x_offset=info.dither_arcsec[0],
            y_offset=info.dither_arcsec[1],
            wavefront_nm=None,
            scale=float(scale[k]),
            shift_y=float(fit.shift_yx[k, 0]),
            shift_x=float(fit.shift_yx[k, 1]),
            n_repaired=int(bad[k].sum()),
            n_saturated=int(saturated[k].sum()),
        )
        for k in range(len(sci))
    ]
    return Batch(ready, zone_pixels(sci, library.weight), ref_info)


def _first_of(cube: Cube, bad: NDArray[np.bool_]) -> Cube:
    """The first integration of an exposure, repaired: what an empty library begins with."""
    sci = repair.median_fill(cube.sci[:1], bad[:1])
    return replace(cube, sci=sci.astype(np.float32), err=cube.err[:1], dq=0 * cube.dq[:1])


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def zone_pixels(
    frames: NDArray[np.floating], weight: NDArray[np.floating], /
) -> NDArray[np.float64]:
    """Return what frames are compared by.

    Parameters
    ----------
    frames : ndarray, shape (n, n_y, n_x)
        Frames without a missing pixel.
    weight : ndarray, shape (n_y, n_x)
        Weight of the pixels.

    Returns
    -------
    ndarray, shape (n, n_zone)
        Pixels of positive weight less their weighted mean, times the root of the weight: their
        products are those of the Gram matrix.
    """
    at = np.flatnonzero(weight.ravel() > 0)
    w = weight.ravel()[at]
    pixels = frames.reshape(len(frames), -1)[:, at].astype(np.float64)
    pixels -= (pixels @ w / w.sum())[:, None]
    return np.asarray(pixels * np.sqrt(w))


@threads.calculation
def select(
    library: Library,
    target: Cube,
    recipe: LibraryRecipe,
    /,
    *,
    align: AlignRecipe | None = None,
    leave_out: Iterable[str] = (),
) -> tuple[list[dict[str, Any]], NDArray[np.float64]]:
    """Choose references for an exposure.

    Parameters
    ----------
    library : Library
        The library.
    target : Cube
        The science exposure; it is compared by the mean of its integrations.
    recipe : LibraryRecipe
        How to choose.
    align : AlignRecipe, optional
        How the exposure is put on the library's pixels for the comparison.
    leave_out : iterable of str
        Checksums of files whose frames are not taken: those that are references already.

    Returns
    -------
    rows : list of dict
        What is known of the frames chosen, in the order of their numbers.
    correlation : ndarray, shape (n,)
        Correlation of each with the exposure, in the library's zone.

    Raises
    ------
    LyotError
        If the mode differs, nothing is left, or what the recipe asks for is not known.
    """
    if target.info.mode != library.mode:
        raise LyotError(
            f"{target.info.name} is {target.info.mode_text} and the library {library.path} holds "
            f"{library.mode_text}; take the library of its mode."
        )
    rows = library.query(recipe.where)
    name, gone = target.info.target.casefold(), set(leave_out)
    rows = [
        r for r in rows if r["sha256"] not in gone and not (name and r["target"].casefold() == name)
    ]
    if not rows:
        raise LyotError(
            f"No frame of {library.path} is left for {target.info.name}: its own star is left out"
            + (f", and so is what does not meet {recipe.where!r}." if recipe.where else ".")
        )
    correlation, cross = _compare(library, target, align or AlignRecipe())
    allowed = np.zeros(len(cross), bool)
    allowed[[r["number"] for r in rows]] = True
    if recipe.by == "residual":
        taken = selection.stepwise(library.gram(), cross, allowed, recipe.n or int(allowed.sum()))
    else:
        taken = selection.highest(_score(recipe, target, rows, correlation), allowed, recipe.n)
    chosen = [r for r in rows if taken[r["number"]]]
    return chosen, correlation[[r["number"] for r in chosen]]


def _score(
    recipe: LibraryRecipe,
    target: Cube,
    rows: list[dict[str, Any]],
    correlation: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Higher for frames that are nearer to the target in what the recipe names."""
    if recipe.by == "correlation":
        return correlation
    column = {"time": "mjd", "wavefront": "wavefront_nm", "spectral_type": "spectral_number"}
    wanted = {
        "time": target.info.mjd,
        "wavefront": recipe.wavefront_nm,
        "spectral_type": spectral_number(recipe.spectral_type),
    }[recipe.by]
    if wanted is None or not np.isfinite(wanted):
        raise LyotError(
            f"References are chosen by {recipe.by}, and that of {target.info.name} is not known; "
            "give it, or choose by correlation."
        )
    score = np.full(len(correlation), -np.inf)
    for row in rows:
        value = row[column[recipe.by]]
        if value is not None:
            score[row["number"]] = -abs(value - wanted)
    if not np.isfinite(score).any():
        raise LyotError(
            f"References are chosen by {recipe.by}, which is known of no frame of the library; "
            "choose by correlation."
        )
    return score


def _compare(
    library: Library, target: Cube, align: AlignRecipe
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Correlation with all frames, and products; the target is put on the library's pixels.

    It is moved for the comparison alone; what is subtracted later is aligned to the target.
    """
    bad = target.bad(align.bad_bits)
    n_good = np.maximum((~bad).sum(axis=0), 1)
    mean = np.where(bad, 0.0, target.sci).sum(axis=0) / n_good
    nowhere = np.asarray(bad.all(axis=0))
    mean = repair.median_fill(mean[None], nowhere[None])
    aligner = Aligner(
        replace(
            target,
            sci=mean.astype(np.float32),
            err=target.err[:1],
            dq=np.zeros(mean.shape, np.uint32),
        ),
        prepare_refs(library.frames([0]), align),
        replace(align, align_to="first"),
    )
    back = -aligner.align(0).fit.shift_yx[0]
    moved = fourier.shift(fourier.spectrum(mean[0]), back, shape=library.shape)
    pixels = zone_pixels(np.asarray(moved)[None], library.weight)[0]
    found = [(zone @ pixels, np.einsum("ij,ij->i", zone, zone)) for zone in library.zones()]
    cross, square = (np.concatenate(parts) for parts in zip(*found, strict=True))
    size = np.sqrt(square * (pixels @ pixels))
    return np.divide(cross, size, out=np.zeros_like(size), where=size > 0), cross


class _Block(NamedTuple):
    """Pixels of all frames of a library, for one task."""

    path: str
    weight: NDArray[np.float64]
    at: NDArray[np.intp]


def gram_over(
    library: Library, weight: NDArray[np.floating], /, *, tasks: cluster.Tasks | None = None
) -> NDArray[np.float64]:
    """Form the Gram matrix of all frames over any pixels, out of core.

    Parameters
    ----------
    library : Library
        The library.
    weight : ndarray, shape (n_y, n_x)
        Weight of the pixels.
    tasks : lyot.compute.cluster.Tasks, optional
        Where the blocks are computed; here by default.

    Returns
    -------
    ndarray, shape (n, n)
        Products of the centered frames: the sum over blocks of 8,192 pixels in their order,
        wherever they were computed.

    Notes
    -----
    One block of pixels of all frames is held at a time, ``8 n 8192`` bytes, and two matrices.
    """
    at = np.flatnonzero(np.asarray(weight).ravel() > 0)
    w = np.asarray(weight, dtype=np.float64).ravel()[at]
    blocks = [
        _Block(str(library.path.resolve()), w[b], at[b]) for b in threads.pixel_blocks(len(at))
    ]
    # Two passes: the mean first, so that the pedestal is taken off the pixels themselves.
    n = len(library)
    total, gram, rest = np.zeros(n), np.zeros((n, n)), np.zeros(n)
    where = tasks or cluster.Tasks()
    for part in where.ordered(_block_sum, blocks):
        total += part
    mean = total / w.sum()
    for product, left in where.ordered(_block_products, [(b, mean) for b in blocks]):
        gram += product
        rest += left
    return np.asarray(klip.recenter(gram, rest, float(w.sum()))[0])


def _block_sum(block: _Block) -> NDArray[np.float64]:
    rows = Library(block.path).pixels(block.at)
    return np.asarray(rows @ block.weight)


def _block_products(job: tuple[_Block, NDArray[np.float64]]) -> tuple[Any, Any]:
    block, mean = job
    rows = Library(block.path).pixels(block.at) - mean[:, None]
    root = np.sqrt(block.weight)
    rows *= root
    return rows @ rows.T, rows @ root


@threads.calculation
def check(library: Library, /, *, tasks: cluster.Tasks | None = None) -> float:
    """Compare the Gram matrix that a library keeps with that of its frames.

    Parameters
    ----------
    library : Library
        The library.
    tasks : lyot.compute.cluster.Tasks, optional
        Where the blocks are computed; here by default.

    Returns
    -------
    float
        The largest difference over the largest element; rounding leaves some 1e-15.

    Raises
    ------
    LyotError
        If an array is missing or cannot be read.
    """
    try:
        kept = library.gram()
        fresh = gram_over(library, library.weight, tasks=tasks)
    except (OSError, KeyError, ValueError) as err:
        raise LyotError(f"A batch of {library.path} cannot be read ({err}).") from None
    return float(np.abs(kept - fresh).max() / max(np.abs(fresh).max(), np.finfo(float).tiny))
