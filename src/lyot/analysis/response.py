"""A source put into a reduction: its exact response, without touching the pixels again.

Shifts, bad pixels, what fills them, and the choice of references are frozen.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lyot.algorithms import injection
from lyot.algorithms.geometry import detector_offset
from lyot.analysis.psf import OffAxisPSF
from lyot.compute import threads
from lyot.errors import LyotError
from lyot.files.aligned import AlignedArrays, SomeRefs
from lyot.files.exposure import Cube
from lyot.files.run import ExposureProducts
from lyot.files.star import StarPosition
from lyot.parameters import SubtractRecipe
from lyot.subtraction.disc import on_detector
from lyot.subtraction.fit import Fit
from lyot.subtraction.methods import METHODS
from lyot.subtraction.pixels import RefPixels
from lyot.subtraction.subtract import subtract
from lyot.subtraction.zones import make_zones
from lyot.types import Array, Box


@dataclass(frozen=True, eq=False)
class SourceInRefs:
    """Which references hold the source, and where.

    Attributes
    ----------
    holds : ndarray of bool, shape (n_ref,)
        Whether a reference shows the science target.
    pa_y_deg : ndarray, shape (n_ref,)
        Position angle of the y axis of each reference [degree].
    """

    holds: NDArray[np.bool_]
    pa_y_deg: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SubtractedExposure:
    """A subtracted exposure, ready for sources to be put into it.

    Attributes
    ----------
    name : str
        Name of its psfsub product.
    target : Cube
        The exposure as it was subtracted.
    bad : ndarray of bool, shape (n_int, n_y, n_x)
        True where a science pixel is left out.
    aligned : AlignedArrays
        Its references.
    star : StarPosition
        The star on its pixels.
    pa_y_deg : float
        Position angle of its y axis [degree].
    n_modes : tuple of int
        Numbers of modes.
    fits : list of Fit
        The fits.
    frames : dict of int to RefPixels
        What a method made of each set of references, where it combines other frames than they.
    missing : ndarray of bool, shape (n_int, n_pix)
        Pixels that no fit uses.
    residual : ndarray, shape (n_trunc, n_y, n_x)
        Mean of the integrations for each number of modes; NaN where there is none.
    variance : ndarray, shape (n_trunc, n_y, n_x)
        Propagated variance of that mean.
    integrations : list of ndarray, shape (n_int, n_y, n_x)
        The integrations, for each number of modes.
    in_refs : SourceInRefs or None
        References that hold the source; None where none does.
    method : str
        How the references model the star, as in `lyot.parameters.SubtractRecipe`.
    maps : dict
        The maps and the model of a disc that it was made with.
    """

    name: str
    target: Cube
    bad: NDArray[np.bool_]
    aligned: AlignedArrays | SomeRefs
    star: StarPosition
    pa_y_deg: float
    n_modes: tuple[int, ...]
    fits: list[Fit]
    frames: dict[int, RefPixels]
    missing: NDArray[np.bool_]
    residual: NDArray[np.float64]
    variance: NDArray[np.float64]
    integrations: list[NDArray[np.float32]]
    in_refs: SourceInRefs | None = None
    method: str = "klip"
    maps: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_y, n_x)`` of the frames."""
        return self.target.frame_shape

    @cached_property
    def n_good(self) -> NDArray[np.int64]:
        """Number of good integrations of each pixel."""
        return np.asarray(np.sum(~self.bad, axis=0))

    def position(self, separation_pix: Array | float, pa_deg: Array | float, /) -> Any:
        """Return where a separation and position angle fall on the detector.

        Parameters
        ----------
        separation_pix : ndarray or float
            Separation [pixel].
        pa_deg : ndarray or float
            Position angle [degree].

        Returns
        -------
        tuple of ndarray
            ``(y, x)`` [pixel, 0-based].
        """
        dy, dx = detector_offset(separation_pix, pa_deg, self.pa_y_deg)
        return self.star.y + dy, self.star.x + dx


@threads.calculation
def make_exposure(
    target: Cube,
    aligned: AlignedArrays | SomeRefs,
    star: StarPosition,
    recipe: SubtractRecipe,
    /,
    *,
    pa_y_deg: float,
    name: str = "",
    in_refs: SourceInRefs | None = None,
    fit_weight: NDArray[np.floating] | None = None,
    zone_map: NDArray[np.floating] | None = None,
    disc: NDArray[np.floating] | None = None,
    dtype: DTypeLike = np.float32,
) -> SubtractedExposure:
    """Subtract an exposure and keep what sources need.

    Parameters
    ----------
    target : Cube
        The science exposure.
    aligned : AlignedArrays
        Its references.
    star : StarPosition
        The star on its pixels.
    recipe : SubtractRecipe
        How to subtract.
    pa_y_deg : float
        Position angle of the y axis [degree].
    name : str, optional
        What to call it.
    in_refs : SourceInRefs, optional
        Which references hold the source.
    fit_weight, zone_map : ndarray, shape (n_y, n_x), optional
        Weight in the fits, and labels of the zones, as klip was given them.
    disc : ndarray, shape (n_y, n_x), optional
        A model of a disc, without which the coefficients are fitted [unit of the exposure].
    dtype : dtype, optional
        Type of the residuals.

    Returns
    -------
    SubtractedExposure
        For every number of modes of the recipe.
    """
    zones = make_zones(
        recipe,
        target.frame_shape,
        star,
        target.info.pixel_scale_arcsec,
        labels=None if zone_map is None else zone_map.astype(int),
        fit_weight=fit_weight,
    )
    if disc is not None:
        target = replace(target, sci=target.sci - disc.astype(np.float32))
    subtracted = subtract(target, aligned, zones, recipe, keep_fits=True, dtype=dtype)
    results = subtracted.results
    if disc is not None:
        results = [replace(r, sci=r.sci + disc.astype(np.float32)) for r in results]
    bad = target.bad(recipe.bad_bits) | ~np.isfinite(results[0].sci)
    n_good = np.sum(~bad, axis=0)
    some = np.maximum(n_good, 1)
    residual, variance = [], []
    for result in results:
        mean = np.where(bad, 0.0, result.sci).sum(axis=0, dtype=np.float64) / some
        own = np.where(bad, 0.0, np.square(result.err, dtype=np.float64)).sum(axis=0) / some
        own = np.maximum(own - np.nan_to_num(result.variance_refs), 0.0) / some
        residual.append(np.where(n_good > 0, mean, np.nan))
        total = own + np.nan_to_num(result.variance_refs_coherent)
        variance.append(np.where(n_good > 0, total, np.nan))
    return SubtractedExposure(
        name,
        target,
        bad,
        aligned,
        star,
        pa_y_deg,
        recipe.n_modes,
        subtracted.fits,
        subtracted.frames,
        subtracted.missing,
        np.array(residual),
        np.array(variance),
        [r.sci for r in results],
        in_refs,
        recipe.method,
        {"fit_weight": fit_weight, "zone_map": zone_map, "disc": disc},
    )


def exposure_of_run(run: ExposureProducts, recipe: SubtractRecipe, /) -> SubtractedExposure:
    """Subtract an exposure of a finished run again, from its products.

    Parameters
    ----------
    run : ExposureProducts
        The exposure.
    recipe : SubtractRecipe
        How to subtract.

    Returns
    -------
    SubtractedExposure
        For every number of modes of the recipe.
    """
    in_refs, ref_info = None, run.aligned.ref_info
    if ref_info is not None:
        holds = ref_info.show(run.target.info.target)
        in_refs = SourceInRefs(holds, ref_info.pa_y_deg) if holds.any() else None
    disc = None
    if run.disc_model is not None:
        shape = run.target.frame_shape
        disc = run.disc_scale * on_detector(run.disc_model, run.star, run.pa_y_deg, shape)
    return make_exposure(
        run.target,
        run.aligned,
        run.star,
        recipe,
        pa_y_deg=run.pa_y_deg,
        name=run.name,
        in_refs=in_refs,
        fit_weight=run.fit_weight,
        zone_map=run.zone_map,
        disc=disc,
    )


def without_refs(
    exposure: SubtractedExposure, left_out: NDArray[np.bool_], recipe: SubtractRecipe, /
) -> SubtractedExposure:
    """Subtract an exposure again without some of its references.

    Parameters
    ----------
    exposure : SubtractedExposure
        The exposure.
    left_out : ndarray of bool, shape (n_ref,)
        The references that are left out.
    recipe : SubtractRecipe
        How it was subtracted.

    Returns
    -------
    SubtractedExposure
        Made like the first, shifts and fills included.
    """
    if isinstance(exposure.aligned, SomeRefs):
        raise LyotError("References have been left out of this exposure already.")
    keep, in_refs = np.flatnonzero(~left_out), exposure.in_refs
    if in_refs is not None:
        in_refs = SourceInRefs(in_refs.holds[keep], in_refs.pa_y_deg[keep])
        in_refs = in_refs if in_refs.holds.any() else None
    target, maps = exposure.target, exposure.maps
    if maps.get("disc") is not None:
        target = replace(target, sci=target.sci + maps["disc"].astype(np.float32))
    return make_exposure(
        target,
        SomeRefs(exposure.aligned, keep),
        exposure.star,
        recipe,
        pa_y_deg=exposure.pa_y_deg,
        name=exposure.name,
        in_refs=in_refs,
        **maps,
    )


def respond(
    exposure: SubtractedExposure,
    box: Box,
    sources: NDArray[np.float64] | None,
    wanted: Box,
    /,
    *,
    truncation: int | None = None,
) -> NDArray[np.float64]:
    r"""Return the mean response to sources of unit flux which the references do not hold.

    Parameters
    ----------
    exposure : SubtractedExposure
        The exposure.
    box : tuple of slice
        Rows and columns where the sources have light.
    sources : ndarray, shape (n_s, n_rows, n_columns), or None
        Their images there; None for one in each pixel, which gives the operator on any.
    wanted : tuple of slice
        Rows and columns where the response is wanted.
    truncation : int, optional
        Which number of modes; all by default.

    Returns
    -------
    ndarray, shape (n_trunc, n_s, n_rows_wanted, n_columns_wanted)
        What the sources add to `SubtractedExposure.residual`, exactly; NaN where that is NaN.

    Notes
    -----
    The pixels of the references in both boxes are read once for each set of references; nothing
    else is.
    """
    size = (box[0].stop - box[0].start, box[1].stop - box[1].start)
    n_s = size[0] * size[1] if sources is None else len(sources)
    flat = None if sources is None else sources.reshape(n_s, -1)
    n_modes_wanted = exposure.n_modes if truncation is None else exposure.n_modes[truncation:][:1]
    shape = (wanted[0].stop - wanted[0].start, wanted[1].stop - wanted[1].start)
    total = np.zeros((len(n_modes_wanted), n_s, shape[0] * shape[1]))
    good_out = ~exposure.bad[:, wanted[0], wanted[1]].reshape(len(exposure.bad), -1)
    unit = np.eye(n_s) if flat is None else flat
    direct = onto_box(unit.reshape(n_s, *size), box, wanted).reshape(n_s, -1)
    refs_of: dict[int, tuple[Array, Array]] = {}
    for fit in exposure.fits:
        share = fit.zone.share[wanted].ravel()
        if not share.any():
            continue
        inside, out_of = _sections(exposure, fit, box, wanted, refs_of)
        refs_in = _centered(inside, fit.mean_ref)
        refs_out = refs_in if out_of is inside else _centered(out_of, fit.mean_ref)
        weight = fit.zone.weight[box].ravel()
        for members in _alike(fit, exposure, good_out, box):
            row = fit.rows[members[0]]
            good_in = ~exposure.missing[row].reshape(exposure.shape)[box].ravel()
            w = weight * good_in
            mean = (w if flat is None else flat @ w) / fit.weight_sum
            cross = injection.source_products(flat, w, refs_in, fit.offset)
            for t, n_modes in enumerate(n_modes_wanted):
                model = injection.linear_response(
                    cross, refs_out, fit.offset, fit.operator.matrix, n_modes=n_modes
                )
                constant = mean
                if fit.n_level.any():
                    far = float(np.mean(1.0 / fit.n_level[members]))
                    level_offset = fit.level_offset[members].mean(axis=0) - fit.offset
                    seen = (fit.zone.level[box].ravel() & good_in).astype(np.float64)
                    total_far = seen if flat is None else flat @ seen
                    constant = total_far * far - model.coefs @ level_offset
                out = direct - model.pixels - constant[:, None]
                total[t] += len(members) * share * good_out[row] * out
    n_good = good_out.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = np.where(n_good > 0, total / n_good, np.nan)
    return total.reshape(len(n_modes_wanted), n_s, *shape)


def _sections(
    exposure: SubtractedExposure,
    fit: Fit,
    box: Box,
    wanted: Box,
    known: dict[int, tuple[Array, Array]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The references of a fit in two boxes; all of its set's are read once, and kept in `known`."""

    def _read(part: Box) -> Array:
        if fit.reference_set in exposure.frames:
            frames = exposure.frames[fit.reference_set].sci.reshape(-1, *exposure.shape)
            pixels = frames[:, part[0], part[1]].astype(np.float64)
        else:
            pixels = exposure.aligned.section(fit.reference_set, *part)
        return pixels.reshape(len(pixels), -1)

    if fit.reference_set not in known:
        known.clear()
        inside = _read(box)
        known[fit.reference_set] = (inside, inside if wanted == box else _read(wanted))
    inside, out = known[fit.reference_set]
    if len(fit.refs) == len(inside):
        return inside, out
    chosen = inside[fit.refs]
    return chosen, chosen if out is inside else out[fit.refs]


def _centered(refs: Array, mean: Array) -> NDArray[np.float64]:
    """Take the means off; a pixel that is bad in every reference has no weight."""
    centered = refs - mean[:, None]
    if not np.isfinite(centered.sum()):
        centered[~np.isfinite(centered)] = 0.0
    return centered


def _alike(
    fit: Fit, exposure: SubtractedExposure, good_out: NDArray[np.bool_], box: Box
) -> list[list[int]]:
    """Group the targets of a fit that answer alike: the same gaps in the boxes."""
    groups: dict[tuple[bytes, bytes], list[int]] = {}
    for number, i in enumerate(fit.rows):
        inside = exposure.missing[i].reshape(exposure.shape)[box]
        key = (inside.tobytes(), good_out[i].tobytes())
        groups.setdefault(key, []).append(number)
    return list(groups.values())


def onto_box(images: Array, box: Box, wanted: Box, /) -> NDArray[np.float64]:
    """Cut images from one part of the frame to another, zero where they have no pixel.

    Parameters
    ----------
    images : ndarray, shape (n, n_rows, n_columns)
        Images on `box`.
    box, wanted : tuple of slice
        Rows and columns that they have, and that are wanted.

    Returns
    -------
    ndarray, shape (n, n_rows_wanted, n_columns_wanted)
        The same images there.
    """
    out = np.zeros((len(images), *(s.stop - s.start for s in wanted)))
    rows, columns = (
        slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(box, wanted, strict=True)
    )
    if rows.start < rows.stop and columns.start < columns.stop:
        out[:, _within(rows, wanted[0]), _within(columns, wanted[1])] = images[
            :, _within(rows, box[0]), _within(columns, box[1])
        ]
    return out


def _within(part: slice, whole: slice) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)


def respond_with_refs(
    exposure: SubtractedExposure,
    psf: OffAxisPSF,
    separation_pix: float,
    pa_deg: float,
    /,
    *,
    flux: float,
    transmission: float = 1.0,
) -> tuple[Box, NDArray[np.float64]]:
    """Return what a source adds that the references hold too, by the update of the Gram matrix.

    Parameters
    ----------
    exposure : SubtractedExposure
        The exposure, with its `in_refs`.
    psf : OffAxisPSF
        Image of a source.
    separation_pix : float
        Separation [pixel].
    pa_deg : float
        Position angle [degree].
    flux : float
        Flux of the source.
    transmission : float, optional
        Fraction of its light that the mask lets through.

    Returns
    -------
    box : tuple of slice
        Rows and columns.
    added : ndarray, shape (n_trunc, n_rows, n_columns)
        The residual with the source less that without it; exactly zero at flux zero.
    """
    if exposure.in_refs is None:
        raise LyotError("No reference of this exposure is said to hold the source.")
    method = METHODS[exposure.method]
    if not method.follows_source:
        raise LyotError(
            f"Sources in references that hold them too cannot be followed through method = "
            f"{exposure.method}; analyse a run with strategy = rdi, or with method = klip."
        )
    y, x = exposure.position(separation_pix, pa_deg)
    box, image = psf.place(float(y), float(x), exposure.shape)
    frame = np.zeros(exposure.shape)
    frame[box] = transmission * image
    in_refs = np.zeros((len(exposure.in_refs.holds), *exposure.shape))
    for k in np.flatnonzero(exposure.in_refs.holds):
        dy, dx = detector_offset(separation_pix, pa_deg, float(exposure.in_refs.pa_y_deg[k]))
        there, view = psf.place(
            exposure.star.y + float(dy), exposure.star.x + float(dx), exposure.shape
        )
        in_refs[k][there] = transmission * view
    wanted = np.zeros(exposure.shape, bool)
    wanted[box] = True
    at = np.flatnonzero((wanted | (frame != 0) | (in_refs != 0).any(axis=0)).ravel())
    in_box = np.flatnonzero(wanted.ravel()[at])
    source, sources = frame.ravel()[at], in_refs.reshape(len(in_refs), -1)[:, at]
    rows, columns = np.unravel_index(at, exposure.shape)
    cut = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    total = np.zeros((len(exposure.n_modes), in_box.size))
    good_out = ~exposure.bad.reshape(len(exposure.bad), -1)[:, at[in_box]]
    refs_of: dict[int, Array] = {}
    for fit in exposure.fits:
        share = fit.zone.share.ravel()[at[in_box]]
        if not share.any():
            continue
        if fit.reference_set not in refs_of:
            pixels = exposure.aligned.section(fit.reference_set, *cut)
            refs_of = {fit.reference_set: pixels[:, rows - cut[0].start, columns - cut[1].start]}
        refs, held = refs_of[fit.reference_set], sources
        if fit.reference_set in exposure.frames:
            frames = exposure.frames[fit.reference_set]
            refs, held = method.with_source(frames, at, refs, sources, flux)
        refs, held = refs[fit.refs], held[fit.refs]
        for number, i in enumerate(fit.rows):
            missing = exposure.missing[i]
            center = (fit.mean_ref + fit.offset)[:, None]
            science = exposure.target.sci[i].ravel()[at] - fit.mean_target[number]
            frozen = injection.FrozenFit(
                fit.gram,
                fit.cross[number],
                np.where(missing[at], 0.0, science).astype(np.float64),
                np.where(np.isfinite(refs), refs - center, 0.0),
                np.where(missing[at], 0.0, fit.zone.weight.ravel()[at]),
                fit.weight_sum,
            )
            for t, n_modes in enumerate(exposure.n_modes):
                before, after = (
                    injection.update(
                        frozen, source, held, a, n_modes=n_modes, matrix_of=method.matrix
                    )
                    for a in (0.0, flux)
                )
                change = after.residual - before.residual
                if fit.n_level.any():
                    sums = (source, held, at, missing)
                    change = change - (
                        _level(fit, number, after, flux, *sums)
                        - _level(fit, number, before, 0.0, *sums)
                    )
                total[t] += share * good_out[i] * change[in_box]
    n_good = good_out.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = np.where(n_good > 0, total / n_good, np.nan)
    shape = (box[0].stop - box[0].start, box[1].stop - box[1].start)
    return box, total.reshape(len(total), *shape)


def _level(
    fit: Fit,
    number: int,
    update: injection.Updated,
    flux: float,
    source: Array,
    sources: Array,
    at: Array,
    missing: NDArray[np.bool_],
) -> float:
    """Mean of a residual with a source in target and references where the level is taken."""
    here = fit.zone.level.ravel()[at] & ~missing[at]
    n = fit.n_level[number]
    target = fit.level_target[number] + flux * source[here].sum() / n - update.target_mean
    refs = fit.level_offset[number] - fit.offset - update.ref_means
    refs = refs + flux * sources[:, here].sum(axis=1) / n
    return float(target - update.coefs @ refs)


@threads.calculation
def inject(
    exposure: SubtractedExposure,
    psf: OffAxisPSF,
    separation_pix: float,
    pa_deg: float,
    /,
    *,
    flux: float = 1.0,
    transmission: float = 1.0,
) -> tuple[Box, NDArray[np.float64]]:
    """Return what a source adds to an exposure, on the pixels of its own image.

    Parameters
    ----------
    exposure : SubtractedExposure
        The exposure.
    psf : OffAxisPSF
        Image of a source.
    separation_pix : float
        Separation [pixel].
    pa_deg : float
        Position angle [degree].
    flux : float, optional
        Its flux [unit of the image times pixel].
    transmission : float, optional
        Fraction of its light that the mask lets through.

    Returns
    -------
    box : tuple of slice
        Rows and columns.
    added : ndarray, shape (n_trunc, n_rows, n_columns)
        What it adds to `SubtractedExposure.residual`; linear in the flux where no reference
        holds it.

    Raises
    ------
    LyotError
        If the source lies outside the frame.
    """
    if exposure.in_refs is not None:
        return respond_with_refs(
            exposure, psf, separation_pix, pa_deg, flux=flux, transmission=transmission
        )
    y, x = exposure.position(separation_pix, pa_deg)
    box, image = psf.place(float(y), float(x), exposure.shape)
    unit = respond(exposure, box, transmission * image[None], box)[:, 0]
    return box, flux * unit
