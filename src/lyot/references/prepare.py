"""References: outliers flagged, then repaired and transformed once for any number of targets."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms import fourier, repair, spikes
from lyot.compute import memory, threads
from lyot.errors import LyotError
from lyot.files.aligned import ReferenceInfo
from lyot.files.exposure import Cube
from lyot.parameters import AUTO, AlignRecipe, OutlierRecipe
from lyot.references.flags import Flags
from lyot.types import Mask

log = logging.getLogger(__name__)

ROWS_AT_ONCE = 32
MIN_COMPARED = 3
"""References that can tell a spike in one of them."""


@dataclass(frozen=True, eq=False)
class PreparedRefs:
    """References, repaired and transformed."""

    cube: Cube  # the stack without its arrays: what is needed of them follows
    flags: Flags
    bad_pixels: list[tuple[NDArray[np.intp], NDArray[np.intp]]]  # rows and columns, of each
    variance: NDArray[np.float32]
    spectra: NDArray[np.complex64]  # (n_ref, m_y, m_x // 2 + 1), of the repaired frames

    def __len__(self) -> int:
        return len(self.cube.sci)

    @property
    def info(self) -> ReferenceInfo | None:
        """Target, roll and time of each reference, where they are recorded."""
        return ReferenceInfo.of(self.cube.targets, self.cube.pa_y_deg, self.cube.mjd)


@threads.calculation
def prepare_refs(refs: Cube, recipe: AlignRecipe, /) -> PreparedRefs:
    """Repair and transform the references; refuse one that has no good pixel or is zero."""
    bad = refs.bad(recipe.bad_bits)
    for k in range(len(refs.sci)):
        memory.relieve()
        if bad[k].all():
            raise LyotError(f"Reference {k + 1} of the stack has no good pixel; leave it out.")
        if not np.any(refs.sci[k][~bad[k]]):
            raise LyotError(f"Reference {k + 1} of the stack is zero everywhere; leave it out.")

    m_y, m_x = (fourier.odd_grid_length(n) for n in refs.frame_shape)
    spectra = memory.empty((len(refs.sci), m_y, m_x // 2 + 1), np.complex64)

    def _transform(k: int) -> None:
        frame = repair.median_fill(
            refs.sci[k : k + 1], bad[k : k + 1], box=recipe.median_box_length
        )
        spectra[k] = fourier.spectrum(frame[0])

    threads.map_ordered(_transform, range(len(refs.sci)))
    variance = refs.variance()
    # A stack is large enough not to be held twice.
    no_pixels = np.broadcast_to(np.float32(np.nan), refs.sci.shape)
    cube = replace(refs, sci=no_pixels, err=variance[:0], dq=refs.dq[:0].copy())
    at = [np.nonzero(plane) for plane in bad]
    return PreparedRefs(cube, Flags(refs.dq), [(y, x) for y, x in at], variance, spectra)


class Outliers(NamedTuple):
    """DQ with outliers flagged OUTLIER and DO_NOT_USE, and the number of outliers.

    Pixels beside saturated ones are DO_NOT_USE alone.
    """

    dq: NDArray[np.uint32]
    n_found: int


@threads.calculation
def outlier_dq(cube: Cube, recipe: OutlierRecipe, /) -> Outliers:
    """Flag the outliers of an exposure: among its integrations, and by their sharpness."""
    flag = cube.info.instrument_value.flag_value
    do_not_use, saturated = (np.uint32(flag(name)) for name in ("DO_NOT_USE", "SATURATED"))
    dq = cube.dq.copy()
    for plane in dq:
        full = (plane & do_not_use > 0) & (plane & saturated > 0)
        plane[spikes.grown(full, recipe.grow_saturated)] |= do_not_use
    bad = ~np.isfinite(cube.sci) | (dq & do_not_use > 0)
    few = len(cube.sci) < repair.MIN_INTEGRATIONS
    found = np.zeros(bad.shape, bool) if few else _among_integrations(cube, bad, recipe)
    if recipe.spikes == "always" or (few and recipe.spikes == AUTO):
        options = {"lambda_over_d_pix": cube.info.lambda_over_d_pix, "n_sigma": recipe.spike_sigma}

        def _spikes(k: int) -> Mask:
            image = cube.sci[k].astype(np.float64)
            return spikes.spike_flags(image, cube.err[k], bad[k] | found[k], **options)

        found |= np.array(threads.map_ordered(_spikes, range(len(cube.sci))))
    dq[found] |= np.uint32(flag("OUTLIER+DO_NOT_USE"))
    return Outliers(dq, int(found.sum()))


@threads.calculation
def flag_across(refs: Cube, n_int: Sequence[int], recipe: OutlierRecipe, /) -> Cube:
    """Flag spikes in a stack by comparing its frames, near the star too.

    `n_int` are the numbers of integrations of the exposures that it begins with: those that are too
    few to be compared with one another are looked at.
    """
    few = np.repeat(
        [n < repair.MIN_INTEGRATIONS or recipe.spikes == "always" for n in n_int], n_int
    )
    rows = np.flatnonzero(few)
    if recipe.skip or recipe.spikes == "never" or not rows.size or few.size < MIN_COMPARED:
        return refs
    own, flag = slice(few.size), refs.info.instrument_value.flag_value
    found = spikes.spikes_across(
        refs.sci[own],
        refs.err[own],
        replace(refs, sci=refs.sci[own], dq=refs.dq[own]).bad("DO_NOT_USE"),
        rows.tolist(),
        lambda_over_d_pix=refs.info.lambda_over_d_pix,
        n_sigma=recipe.spike_sigma,
    )
    dq = refs.dq.copy()
    dq[rows] |= np.where(found, np.uint32(flag("OUTLIER+DO_NOT_USE")), np.uint32(0))
    log.info("%d spikes in %d references by comparison with the others.", found.sum(), rows.size)
    return replace(refs, dq=dq)


def _among_integrations(cube: Cube, bad: Mask, recipe: OutlierRecipe) -> Mask:
    found = np.empty(bad.shape, bool)

    def _rows(first: int) -> None:
        """Flag some rows, with as many beyond them as their pixels look at."""
        above = min(first, repair.HALF_WINDOW)
        rows, beyond = slice(first, first + ROWS_AT_ONCE), first + ROWS_AT_ONCE + repair.HALF_WINDOW
        at = slice(None), slice(first - above, beyond)
        flags = repair.outlier_flags(cube.sci[at], cube.err[at], bad[at], n_sigma=recipe.n_sigma)
        found[:, rows] = flags[:, above : above + ROWS_AT_ONCE]

    threads.map_ordered(_rows, range(0, cube.frame_shape[0], ROWS_AT_ONCE))
    return found


def flag_outliers(cube: Cube, recipe: OutlierRecipe, /) -> Cube:
    """Return an exposure with its outliers flagged; the exposure itself where that is skipped."""
    if recipe.skip:
        return cube
    return replace(cube, dq=outlier_dq(cube, recipe).dq)
