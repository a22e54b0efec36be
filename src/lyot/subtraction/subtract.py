"""The stellar image, modelled from the aligned references and subtracted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lyot.algorithms import background, klip
from lyot.algorithms.geometry import radius_map
from lyot.algorithms.zones import Zone
from lyot.compute import devices, threads
from lyot.errors import LyotError
from lyot.files.exposure import Cube
from lyot.files.headers import ExposureInfo
from lyot.parameters import PROPAGATED, SubtractRecipe
from lyot.references.aligner import AlignedReferences
from lyot.subtraction.fit import AreaFits, Fit, choose, fit_each, fit_shared
from lyot.subtraction.methods import fits_each, method_of
from lyot.subtraction.pixels import RefPixels, Targets
from lyot.subtraction.products import Run, TargetSet, ZoneProducts, zone_products
from lyot.subtraction.recorded import check_of, checked_rows
from lyot.subtraction.result import Subtracted, Subtraction
from lyot.subtraction.variance import (
    CoherentNoise,
    FitVariance,
    LeverageSums,
    Propagated,
    error_from_scatter,
    leverage_of_blocks,
    scatter_of_blocks,
    variance_of_fits,
    variance_of_later_fits,
)
from lyot.subtraction.zones import Area, divide_by_rotation, level_terms
from lyot.types import Array, Mask

log = logging.getLogger(__name__)


@threads.calculation
def subtract(
    target: Cube,
    aligned: AlignedReferences,
    zones: list[Zone],
    recipe: SubtractRecipe,
    /,
    *,
    device: devices.Device | None = None,
    dtype: DTypeLike = np.float32,
    keep_fits: bool = False,
) -> Subtracted:
    """Subtract the star from every integration of an exposure.

    Parameters
    ----------
    target : Cube
        The science exposure.
    aligned : AlignedReferences
        Its references; asked for one set at a time, in order.
    zones : list of Zone
        Search areas.
    recipe : SubtractRecipe
        How to subtract.
    device : lyot.compute.devices.Device, optional
        Where the products over pixels are computed.
    dtype : dtype, optional
        Type of the residuals: float32, as products have it, or float64.
    keep_fits : bool, optional
        Whether frames that the method makes of the references are kept, so that the response to a
        source follows from what is returned.

    Returns
    -------
    Subtracted
        A sequence of one `Subtraction` per number of modes, in the order of the recipe.

    Raises
    ------
    LyotError
        If the references have another shape, none meets the choice of the recipe, or fits are to
        be kept of several numbers of modes which a method cannot truncate from one another.

    Notes
    -----
    One set of aligned references is held at a time. Where every integration has its own, they
    differ by a fraction of a pixel: the leverage of the pixels, and the noise of a target in its
    own coefficients, are those of the first set.

    Examples
    --------
    >>> from lyot.algorithms.zones import full_frame
    >>> from lyot.files.aligned import AlignedArrays
    >>> from lyot.files.headers import ExposureInfo
    >>> star = np.random.default_rng(0).normal(size=(1, 16, 16)).astype(np.float32)
    >>> err, dq = np.ones_like(star), np.zeros(star.shape, np.uint32)
    >>> target = Cube(3 * star, err, dq, ExposureInfo("star", star.shape))
    >>> refs = AlignedArrays(star, err, dq)
    >>> [result] = subtract(target, refs, full_frame((16, 16)), SubtractRecipe())
    >>> round(float(result.coefficients[0, 0, 0]), 3), bool(np.abs(result.sci).max() < 1e-5)
    (3.0, True)
    """
    method = method_of(recipe)
    if not method.truncations_nest and len(recipe.n_modes) > 1:
        if keep_fits:
            raise LyotError(
                f"The fits of method = {recipe.method} are kept for one number of modes at a "
                f"time; n_modes is {', '.join(map(str, recipe.n_modes))}."
            )
        once = partial(subtract, target, aligned, zones, device=device, dtype=dtype)
        alone = [once(replace(recipe, n_modes=(n,))) for n in recipe.n_modes]
        return Subtracted([each[0] for each in alone], alone[0].missing)
    run = Run(zones, recipe, method, device or devices.device("cpu"), np.dtype(dtype))
    return _subtract(target, aligned, run, keep_fits)


def _subtract(target: Cube, aligned: AlignedReferences, run: Run, keep_fits: bool) -> Subtracted:
    """Go through the sets of references; all results are added up here."""
    n_int, shape = len(target.sci), target.frame_shape
    all_targets = Targets(
        target.sci.reshape(n_int, -1),
        target.bad(run.recipe.bad_bits).reshape(n_int, -1),
        target.variance().reshape(n_int, -1),
    )
    ref_info = aligned.ref_info
    areas = divide_by_rotation(run.zones, run.recipe, target.info, ref_info, aligned.star)
    days = None if ref_info is None else np.abs(ref_info.mjd - target.info.mjd)
    covered = np.sum([zone.share for zone in run.zones], axis=0).ravel() > 0
    missing = all_targets.bad.copy()
    unreferenced = np.zeros(missing.shape, bool)
    totals: list[_Total] = []
    fits: list[Fit] = []
    of_areas: list[int] = []
    checks, checked = [check_of(target.sci)], checked_rows(shape)
    frames: dict[int, RefPixels] = {}
    effects: dict[int, list[FitVariance]] = {}
    pixels, makes_frames = None, False
    # What holds the references goes before the next ones are read: one set is held, not two.
    for rows in [range(n_int)] if aligned.shared else [range(i, i + 1) for i in range(n_int)]:
        pixels = None
        refs = RefPixels.from_frames(aligned.frames(rows[0]))
        if refs.sci.shape[1] != all_targets.sci.shape[1]:
            raise LyotError(
                f"References of {refs.sci.shape[1]} pixels do not fit frames of {shape}."
            )
        some = [refs.at(slice(y * shape[1], (y + 1) * shape[1])).copy() for y in checked]
        checks.append(check_of(np.stack(some, axis=1)))
        pixels = run.method.init(refs, max(run.recipe.n_modes))
        makes_frames = pixels is not refs
        if keep_fits and makes_frames:
            frames[rows[0]] = pixels
        pixels = pixels.on(run.device)
        del refs
        missing[rows.start : rows.stop] |= pixels.all_bad
        if not totals:
            counts = (len(areas), n_int, len(pixels))
            totals = [_Total(counts, covered.size, n, run.dtype) for n in run.recipe.n_modes]
        targets = all_targets.rows(slice(rows.start, rows.stop))
        brightness = targets.variance.mean(axis=1, dtype=np.float64)
        noise_scale = brightness / max(brightness.mean(), np.finfo(float).tiny)
        target_set = TargetSet(rows[0], targets, pixels, noise_scale, days)
        for result in _areas_of_set(run, target_set, areas, effects):
            if result.fits.without.size:
                where = np.flatnonzero(areas[result.number].share.ravel() > 0)
                unreferenced[np.ix_(result.fits.without, where)] = True
            for k, total in enumerate(totals):
                total.add(result, k, pixels)
            if not result.fits.one_by_one and run.recipe.error == PROPAGATED:
                effects.setdefault(result.number, [each.effect for each in result.errors])
            fits += result.fits.fits
            of_areas += [result.number] * len(result.fits.fits)
            del result
        del target_set
    if pixels is None:
        raise LyotError(f"{target.info.name} has no integrations.")
    _check_modes(totals, target.info.name)
    no_result = missing | unreferenced | ~covered
    before = _rms(all_targets.sci, all_targets.bad)
    of_level, level = level_terms(run.recipe, target.info, aligned.star, shape), run.zones[0].level
    if len(of_level.terms) and level.any():
        for total in totals:
            frames_of = total.sci.reshape(n_int, *shape)
            _take_level(frames_of, no_result, of_level.terms, level | of_level.arms)
    if run.recipe.rows_inner_arcsec:
        of_rows = _row_area(target, aligned, run.recipe)
        for total in totals:
            _take_rows(total, no_result, of_rows, target.info)
    shared = np.zeros(shape) if target.shared_variance is None else target.shared_variance
    results = [
        total.finish(pixels, no_result, covered, before, np.asarray(shared)) for total in totals
    ]
    return Subtracted(results, missing, fits, of_areas, checks, makes_frames, frames)


def _take_level(frames: Array, bad: Array, terms: Array, level: NDArray[np.bool_]) -> None:
    """Subtract from residuals, in place, terms fitted to each where the level is taken."""

    def _one(k: int) -> None:
        good = level & ~bad[k].reshape(level.shape)
        fitted = background.fit_terms(frames[k].astype(np.float64), terms, good)
        frames[k] -= np.tensordot(fitted.coefficients, terms, axes=1).astype(frames.dtype)

    threads.map_ordered(_one, range(len(frames)))


def _row_area(target: Cube, aligned: AlignedReferences, recipe: SubtractRecipe) -> Mask:
    """Where the levels of rows are measured."""
    if aligned.star is None:
        raise LyotError(
            f"rows_inner_arcsec is {recipe.rows_inner_arcsec:g}, and the references of "
            f"{target.info.name} record no star; set it to 0.",
            parameter="rows_inner_arcsec",
        )
    radius = radius_map(target.frame_shape, aligned.star.yx) * target.info.pixel_scale_arcsec
    return np.asarray(radius >= recipe.rows_inner_arcsec)


def _take_rows(total: _Total, bad: Array, area: Mask, info: ExposureInfo) -> None:
    """Subtract the level of each row that is read from residuals, in place; its error to theirs."""

    def _one(k: int) -> None:
        sci, variance, good = (
            each.reshape(area.shape).T if info.fast_axis == 2 else each.reshape(area.shape)
            for each in (total.sci[k], total.variance[k], area.ravel() & ~bad[k])
        )
        rows = background.row_levels(sci, good)
        sci -= rows.level[:, None].astype(sci.dtype)
        variance += (rows.err[:, None] ** 2).astype(variance.dtype)

    threads.map_ordered(_one, range(len(total.sci)))


class _AreaResult(NamedTuple):
    """The residuals of one area and one set of references; lists are by number of modes."""

    number: int  # of the area
    fits: AreaFits
    pixels: ZoneProducts
    coefs: list[Array]  # (n_t, n_ref), of the references in use
    sci: list[Array]  # (n_t, n_zone_pix), times the share of each pixel
    errors: list[Propagated]
    power: Array  # (n_t, n_kept + 1): squared residual with 0, 1, ... modes


def _areas_of_set(
    run: Run, target_set: TargetSet, areas: list[Area], effects: dict[int, list[FitVariance]]
) -> Iterator[_AreaResult]:
    """Yield the result of each area; as many zones are worked on at once as there are threads."""
    fit_zone = partial(_areas_of_zone, run, target_set, areas, effects)
    at_once = threads.n_threads() if run.device.is_numpy else 1
    for start in range(0, len(run.zones), at_once):
        numbers = range(start, min(start + at_once, len(run.zones)))
        batch = threads.map_ordered(fit_zone, numbers)
        while batch:
            yield from batch.pop(0)


def _areas_of_zone(
    run: Run,
    target_set: TargetSet,
    areas: list[Area],
    effects: dict[int, list[FitVariance]],
    zone: int,
) -> list[_AreaResult]:
    """Fit the areas of one zone to one set of references, and apply the fits."""
    of_zone, first = zone_products(run, target_set, run.zones[zone]), target_set.first
    results = []
    for number, area in enumerate(areas):
        if area.zone != zone:
            continue
        products = replace(of_zone, zone=of_zone.zone._replace(share=area.share))
        if fits_each(run.recipe):
            chosen = choose(run, target_set, products, area.allowed)
            fits = fit_each(run, first, products, chosen)
        else:
            fits = fit_shared(run, first, products)
        used = products.of(fits.rows - first, fits.refs)
        results.append(_apply(run, number, used, fits, effects.get(number, [])))
    return results


def _apply(
    run: Run,
    number: int,
    area: ZoneProducts,
    fits: AreaFits,
    earlier: list[FitVariance],
) -> _AreaResult:
    """Subtract the models and propagate the errors; `earlier` are effects of an earlier set."""
    if not fits.fits:
        return _AreaResult(number, fits, area, [], [], [], np.empty((0, 1)))
    n_modes = run.recipe.n_modes
    coefs = [fits.coefs(n) for n in n_modes]
    by_pixel = np.zeros((len(n_modes), len(area.share)))
    if run.recipe.error != PROPAGATED:
        scatter = scatter_of_blocks(run, area, by_pixel)
        sci, _ = _residuals(run, area, fits, coefs, scatter)
        errors = [error_from_scatter(area, variance) for variance in by_pixel]
    elif earlier:
        sci, _ = _residuals(run, area, fits, coefs)
        errors = variance_of_later_fits(area, coefs, earlier)
    else:
        leverage = leverage_of_blocks(run, area, fits, by_pixel)
        sci, parts = _residuals(run, area, fits, coefs, leverage)
        sums = LeverageSums(*(sum(p) for p in zip(*parts, strict=True)))
        errors = variance_of_fits(run, area, fits, coefs, by_pixel, sums)
    power = fits.residual_power(fits.n_kept)
    return _AreaResult(number, fits, area, coefs, sci, errors, power)


def _residuals(
    run: Run,
    area: ZoneProducts,
    fits: AreaFits,
    coefs: list[Array],
    of_block: Callable[[slice, Any, Any], Any] | None = None,
) -> tuple[list[Array], list[Any]]:
    """Subtract the models with several numbers of modes in one pass over the pixels.

    Returns the residuals times the share of each pixel, and what `of_block` returned for each
    block, its centered references and the modes there.
    """
    # The model is coefficients times references. Where one fit serves all targets, and modes are
    # made anyway, coordinates times modes is shorter: C_K R = (B W_K^T) (W_K R).
    by_modes = of_block is not None and len(fits.fits) == 1 and not fits.one_by_one
    used = [min(n, fits.n_kept) for n in run.recipe.n_modes]
    offset = fits.stack(lambda fit: fit.level_offset)
    level_target = np.empty(len(fits.rows))
    for fit in fits.fits:
        level_target[np.searchsorted(fits.rows, fit.rows)] = fit.level_target
    level = [(c * offset).sum(axis=1) - level_target for c in coefs]
    factors = coefs
    if by_modes:
        factors = [fits.fits[0].cross @ fits.lead.matrix[:n].T for n in used]
    sci = [np.empty(area.targets.sci.shape, run.dtype) for _ in used]
    full_share = bool((area.share == 1.0).all())
    factors, level, matrix = run.device.put((factors, level, fits.lead.matrix))

    def _block(inside: slice) -> Any:
        rows = area.refs.centered(inside, area.mean_ref)
        modes = rows
        if of_block is not None:
            modes = _product(matrix, rows)
        data = run.device.put(area.targets.centered(inside, area.mean_target))
        for k, n in enumerate(used):
            basis = modes[:n, :] if by_modes else rows
            out = run.device.get(klip.residual(data, basis, factors[k], level[k]))
            sci[k][:, inside] = out if full_share else area.share[inside] * out
        return None if of_block is None else of_block(inside, rows, modes)

    n_ref = len(area.refs)
    blocks = run.device.pixel_blocks(len(area.share), n_ref)
    return sci, run.device.map(_block, blocks, item_bytes=threads.block_bytes(n_ref))


def _product(matrix: Any, rows: Any) -> Any:
    """Return the modes at some pixels, in NumPy in memory that this thread uses again."""
    if not isinstance(rows, np.ndarray):
        return matrix @ rows
    modes = threads.workspace("modes", (matrix.shape[0], rows.shape[1]))
    return np.matmul(matrix, rows, out=modes)


class _Total:
    """Residuals and variances for one number of modes, added up over areas and sets."""

    def __init__(
        self, counts: tuple[int, int, int], n_pix: int, n_modes: int, dtype: np.dtype[Any]
    ) -> None:
        n_area, n_int, n_ref = counts
        self.n_modes, self.n_kept, self.n_dropped = n_modes, 0, 0
        self.sci = np.zeros((n_int, n_pix), dtype)
        self.variance = np.zeros((n_int, n_pix), np.float32)
        self.variance_refs = np.zeros(n_pix)
        self.coefs = np.zeros((n_area, n_int, n_ref))
        self.eigenvalues = np.zeros((n_area, n_ref))
        self.power = np.zeros((n_area, n_modes + 1))
        self.weight = np.zeros(n_area)
        self.coherent: dict[int, CoherentNoise] = {}

    def add(self, area: _AreaResult, k: int, pixels: RefPixels) -> None:
        """Add the results of one area, those of the k-th number of modes."""
        fits, number, index = area.fits, area.number, area.pixels.where
        if not fits.fits:
            return
        variance, variance_refs, effect = area.errors[k]
        if area.sci[k].shape == self.sci.shape and not self.coherent:
            # The first part, if it is all there is, takes the place of zeros: no memory is added.
            self.sci, self.variance = area.sci[k], np.require(variance, requirements="W")
        else:
            at = _at(fits.rows, index)
            self.sci[at] += area.sci[k]
            self.variance[at] += variance
        self.coefs[number, fits.rows[:, None], fits.refs] = area.coefs[k]
        self.variance_refs[index] += variance_refs
        if number not in self.coherent:
            self.coherent[number] = CoherentNoise(area.pixels, pixels.variance.shape[0])
        self.coherent[number].add(area.pixels, fits, effect)
        n_used = min(self.n_modes, fits.n_kept)
        power = area.power[:, : self.n_modes + 1].sum(axis=0)
        self.power[number] += np.pad(power, (0, self.n_modes + 1 - len(power)), mode="edge")
        self.weight[number] += len(fits.rows) * float(area.pixels.weight.sum())
        self.eigenvalues[number] = 0.0
        self.eigenvalues[number, : len(fits.lead.values)] = fits.lead.values
        self.n_kept = max(self.n_kept, n_used)
        self.n_dropped = max(self.n_dropped, fits.lead.n_dropped)

    def finish(
        self,
        pixels: RefPixels,
        no_result: NDArray[np.bool_],
        covered: NDArray[np.bool_],
        before: Array,
        shared: Array,
    ) -> Subtraction:
        """Make the result; the references of the last set stand for those of all.

        What integrations share besides, (n_y, n_x), is as little averaged down as the references.
        """
        n_int, shape = len(self.sci), (int(shared.shape[0]), int(shared.shape[1]))
        coherent = np.zeros(len(covered))
        for number, noise in self.coherent.items():
            part = noise.variance(pixels, self.coefs[number].mean(axis=0), n_int)
            coherent[noise.where] += part
        self.sci[no_result] = np.nan
        err = np.sqrt(self.variance, out=self.variance)
        err[no_result] = np.nan
        return Subtraction(
            n_modes=self.n_modes,
            n_kept=self.n_kept,
            sci=self.sci.reshape(-1, *shape),
            err=err.reshape(-1, *shape),
            coefficients=self.coefs,
            eigenvalues=self.eigenvalues,
            variance_refs=_plane(self.variance_refs / n_int + shared.ravel(), covered, shape),
            variance_refs_coherent=_plane(coherent + shared.ravel(), covered, shape),
            rms_before=before,
            rms_after=_rms(self.sci, no_result),
            residual_rms=np.sqrt(
                self.power[:, : self.n_kept + 1] / np.maximum(self.weight, 1e-300)[:, None]
            ),
        )


def _check_modes(totals: list[_Total], name: str) -> None:
    """Refuse a result without a fit; say where there are fewer modes than asked for."""
    if not totals[0].coherent:
        raise LyotError(
            f"No reference meets the choice for {name}; lower min_correlation or "
            "min_rotation_fwhm, or add references."
        )
    asked, most = max(t.n_modes for t in totals), max(t.n_kept for t in totals)
    if asked > most:
        log.info("%d modes were asked for; the references have %d and all are used.", asked, most)
    dropped = max(t.n_dropped for t in totals)
    if dropped:
        log.info("%d modes were dropped: their eigenvalues are rounding error.", dropped)


def _at(rows: NDArray[np.intp], index: Array | slice) -> Any:
    """Index of some pixels of some rows, without a copy where that is possible."""
    if rows[-1] - rows[0] + 1 == len(rows):
        return slice(rows[0], rows[-1] + 1), index
    return (rows, index) if isinstance(index, slice) else np.ix_(rows, index)


def _plane(values: Array, covered: Array, shape: tuple[int, int]) -> NDArray[np.float32]:
    return np.where(covered, values, np.nan).astype(np.float32).reshape(shape)


def _rms(frames: Array, bad: Array) -> Array:
    """Standard deviation of the good pixels of each frame, NaN where there are none."""

    def _one(frame: tuple[Array, Array]) -> float:
        good = frame[0][~frame[1]]
        return float(np.std(good, dtype=np.float64)) if good.size else float("nan")

    return np.array(threads.map_ordered(_one, zip(frames, bad, strict=True)))
