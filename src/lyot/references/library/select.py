"""Frames of a library chosen for a science exposure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms import fourier, repair, selection
from lyot.compute import threads
from lyot.errors import LyotError
from lyot.files.exposure import Cube
from lyot.files.library_store import Library
from lyot.parameters import AlignRecipe, LibraryRecipe
from lyot.references.aligner import Aligner
from lyot.references.library.build import spectral_number, zone_pixels
from lyot.references.prepare import prepare_refs


@threads.calculation
def select(
    library: Library,
    target: Cube,
    recipe: LibraryRecipe,
    /,
    *,
    align: AlignRecipe | None = None,
    exclude: Iterable[str] = (),
) -> tuple[list[dict[str, Any]], NDArray[np.float64]]:
    """Choose references for the mean of an exposure: rows of the index, correlations with it.

    Files whose checksums are in `exclude`, and frames of its own star, are never taken.
    """
    if target.info.mode != library.mode:
        raise LyotError(
            f"{target.info.name} is {target.info.mode_text} and the library {library.path} holds "
            f"{library.mode_text}; take the library of its mode."
        )
    rows = library.query(recipe.where)
    name, excluded = target.info.target.casefold(), set(exclude)
    rows = [
        r
        for r in rows
        if r["sha256"] not in excluded and not (name and r["target"].casefold() == name)
    ]
    if not rows:
        raise LyotError(
            f"No frame of {library.path} can serve {target.info.name}: frames of its own star are "
            "excluded"
            + (f", and those that do not meet {recipe.where!r}." if recipe.where else ".")
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
    column, wanted = {
        "time": ("mjd", target.info.mjd),
        "wavefront": ("wavefront_nm", recipe.wavefront_nm),
        "spectral_type": ("spectral_number", spectral_number(recipe.spectral_type)),
    }[recipe.by]
    if wanted is None or not np.isfinite(wanted):
        raise LyotError(
            f"References are chosen by {recipe.by}, which is not recorded for {target.info.name}; "
            "state it, or choose by correlation."
        )
    score = np.full(len(correlation), -np.inf)
    for row in rows:
        value = row[column]
        if value is not None:
            score[row["number"]] = -abs(value - wanted)
    if not np.isfinite(score).any():
        raise LyotError(
            f"References are chosen by {recipe.by}, which no frame of the library records; choose "
            "by correlation."
        )
    return score


def _compare(
    library: Library, target: Cube, align: AlignRecipe
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Correlation with all frames, and products; the target is moved onto the library's pixels."""
    bad = target.bad(align.bad_bits)
    n_good = np.maximum((~bad).sum(axis=0), 1)
    mean = np.where(bad, 0.0, target.sci).sum(axis=0) / n_good
    all_bad = np.asarray(bad.all(axis=0))
    mean = repair.median_fill(mean[None], all_bad[None])
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
    products = [(zone @ pixels, np.einsum("ij,ij->i", zone, zone)) for zone in library.zones()]
    cross, square = (np.concatenate(parts) for parts in zip(*products, strict=True))
    size = np.sqrt(square * (pixels @ pixels))
    return np.divide(cross, size, out=np.zeros_like(size), where=size > 0), cross
