"""The stellar image, modelled from the aligned references and subtracted."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms import klip, propagation
from lyot.algorithms.geometry import radius_map
from lyot.algorithms.statistics import annulus_noise
from lyot.algorithms.zones import Zone
from lyot.compute import devices, threads
from lyot.errors import LyotError
from lyot.files.aligned import AlignedRefs, ReferenceInfo
from lyot.files.exposure import Cube
from lyot.files.star import StarPosition
from lyot.parameters import NMF, PROPAGATED, SubtractRecipe
from lyot.subtraction.fit import (
    KeptFit,
    RefPixels,
    Rows,
    Targets,
    ZoneFit,
    ZoneProducts,
    choose,
    keep,
    solve,
    solve_each,
    stand_in,
    zone_products,
)
from lyot.subtraction.zones import Area, divide_by_rotation
from lyot.types import Array

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Subtraction:
    """A subtracted exposure, for one number of modes.

    Attributes
    ----------
    n_modes : int
        Number of modes that were asked for.
    n_kept : int
        Number that were used, at most the rank of the references.
    sci, err : ndarray, shape (n_int, n_y, n_x), float32
        Residual and its error; NaN where the target is bad, or every reference is.
    coefs : ndarray, shape (n_zone, n_int, n_ref)
        Factor of each reference in the model of each integration, zero for one that was not
        chosen; of each component, or of the median, where those are subtracted instead. A zone
        that rotation divides counts once for each part.
    eigenvalues : ndarray, shape (n_zone, n_ref)
        Of the Gram matrix of the last fit; zero beyond its rank.
    variance_refs : ndarray, shape (n_y, n_x), float32
        The references' part of the variance, averaged over the integrations.
    variance_refs_coherent : ndarray, shape (n_y, n_x), float32
        The references' part of the variance of the mean of the integrations: they share the
        references, so it does not average down.
    rms_before, rms_after : ndarray, shape (n_int,)
        Standard deviation of the good pixels of each integration.
    residual_rms : ndarray, shape (n_zone, n_kept + 1)
        Rms of the residual over the pixels of the fit with 0, 1, ... modes, all integrations
        together.
    """

    n_modes: int
    n_kept: int
    sci: NDArray[np.float32]
    err: NDArray[np.float32]
    coefs: NDArray[np.float64]
    eigenvalues: NDArray[np.float64]
    variance_refs: NDArray[np.float32]
    variance_refs_coherent: NDArray[np.float32]
    rms_before: NDArray[np.float64]
    rms_after: NDArray[np.float64]
    residual_rms: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))


class SpeckleNoise(NamedTuple):
    """Scatter of the mean residual against separation, beside its propagated error.

    Attributes
    ----------
    separation_arcsec : ndarray, shape (n,)
        Mid-radius of annuli two pixels wide [arcsec].
    scatter : ndarray, shape (n,)
        Standard deviation of the pixels of the mean of the integrations.
    propagated : ndarray, shape (n,)
        Rms of the propagated error of that mean.
    speckle : ndarray, shape (n,)
        What is left of the scatter without it: residual speckles, and sources.
    """

    separation_arcsec: Array
    scatter: Array
    propagated: Array
    speckle: Array


def speckle_noise(
    result: Subtraction, star: StarPosition, pixel_scale_arcsec: float, /
) -> SpeckleNoise:
    """Compare the scatter of the residual with its propagated error.

    Parameters
    ----------
    result : Subtraction
        A subtracted exposure.
    star : StarPosition
        Center of the annuli.
    pixel_scale_arcsec : float
        Pixel scale [arcsec].

    Returns
    -------
    SpeckleNoise
        NaN in annuli without a good pixel.
    """
    n_good = np.isfinite(result.sci).sum(axis=0)
    at_least = np.maximum(n_good, 1)
    mean = np.nansum(result.sci, axis=0, dtype=np.float64) / at_least
    variance = np.nansum(np.square(result.err, dtype=np.float64), axis=0) / at_least
    shared = np.nan_to_num(result.variance_refs_coherent)
    own = np.maximum(variance - np.nan_to_num(result.variance_refs), 0.0)
    variance = own / at_least + shared
    nowhere = n_good == 0
    mean[nowhere], variance[nowhere] = np.nan, np.nan
    scatter = annulus_noise(mean, star.yx)
    ring = np.floor(radius_map(mean.shape, star.yx) / 2.0).astype(int)
    used = ~nowhere & (ring < len(scatter.sigma))
    n = len(scatter.sigma)
    with np.errstate(invalid="ignore", divide="ignore"):
        propagated = np.sqrt(
            np.bincount(ring[used], variance[used], minlength=n)
            / np.bincount(ring[used], minlength=n)
        )
        speckle = np.sqrt(np.maximum(scatter.sigma**2 - propagated**2, 0.0))
    return SpeckleNoise(scatter.radius_pix * pixel_scale_arcsec, scatter.sigma, propagated, speckle)


@threads.calculation
def subtract(
    target: Cube,
    aligned: AlignedRefs,
    zones: list[Zone],
    recipe: SubtractRecipe,
    /,
    *,
    device: devices.Device | None = None,
) -> list[Subtraction]:
    """Subtract the star from every integration of an exposure.

    Parameters
    ----------
    target : Cube
        The science exposure.
    aligned : AlignedRefs
        Its references; asked for one set at a time, in order.
    zones : list of Zone
        Search areas.
    recipe : SubtractRecipe
        How to subtract.
    device : lyot.compute.devices.Device, optional
        Where the products over pixels are computed.

    Returns
    -------
    list of Subtraction
        One per number of modes, in the order of the recipe.

    Notes
    -----
    One set of aligned references is held at a time. Where every integration has its own, they
    differ by a fraction of a pixel: the leverage of the pixels, and the noise of a target in its
    own coefficients, are those of the first set.
    """
    return _subtract(target, aligned, zones, recipe, device or devices.device("cpu"), None)


@threads.calculation
def subtract_and_keep(
    target: Cube, aligned: AlignedRefs, zones: list[Zone], recipe: SubtractRecipe, /
) -> tuple[list[Subtraction], list[KeptFit]]:
    """Do as `subtract`, and keep what a source added to the targets would need.

    Parameters
    ----------
    target : Cube
        The science exposure.
    aligned : AlignedRefs
        Its references.
    zones : list of Zone
        Search areas.
    recipe : SubtractRecipe
        How to subtract.

    Returns
    -------
    results : list of Subtraction
        As from `subtract`.
    kept : list of KeptFit
        One per set of references, zone, and choice of references.

    Raises
    ------
    LyotError
        If several numbers of components are asked for, whose fits are not truncations of one.
    """
    if recipe.method == NMF and len(recipe.n_modes) > 1:
        raise LyotError(
            "The analysis of non-negative components takes one number of them at a time; give "
            "one with --truncate."
        )
    kept: list[KeptFit] = []
    return _subtract(target, aligned, zones, recipe, devices.device("cpu"), kept), kept


def _subtract(
    target: Cube,
    aligned: AlignedRefs,
    zones: list[Zone],
    recipe: SubtractRecipe,
    device: devices.Device,
    kept: list[KeptFit] | None,
) -> list[Subtraction]:
    if recipe.method == NMF and len(recipe.n_modes) > 1:
        each = [replace(recipe, n_modes=(n,)) for n in recipe.n_modes]
        return [_subtract(target, aligned, zones, one, device, None)[0] for one in each]
    n_int, shape = len(target.sci), target.frame_shape
    bad = target.bad(recipe.bad_bits).reshape(n_int, -1)
    images, variance = target.sci.reshape(n_int, -1), target.variance().reshape(n_int, -1)
    areas = divide_by_rotation(zones, recipe, target.info, aligned.ref_info, aligned.star)
    covered = np.sum([zone.share for zone in zones], axis=0).ravel() > 0
    results: list[_Result] = []
    groups = [range(n_int)] if aligned.shared else [range(i, i + 1) for i in range(n_int)]
    pixels = None
    for own in groups:
        pixels = None  # so that one set is held, not two
        refs = RefPixels.from_frames(aligned.frames(own[0]))
        if refs.sci.shape[1] != images.shape[1]:
            raise LyotError(
                f"References of {refs.sci.shape[1]} pixels do not fit frames of {shape}."
            )
        pixels = stand_in(refs, recipe)
        instead = None if pixels is refs else pixels
        del refs
        if not results:
            counts = (len(areas), n_int, len(pixels))
            results = [_Result(counts, images.shape[1], n) for n in recipe.n_modes]
        pick = slice(own.start, own.stop)
        targets = Targets(images[pick], bad[pick], variance[pick])
        of_set = _Set(own[0], targets, pixels, instead, aligned.ref_info, target.info.mjd)
        _do_set(of_set, zones, areas, recipe, device, results, kept)
        del of_set, instead
    if pixels is None:
        raise LyotError(f"{target.info.name} has no integrations.")
    asked, most = max(recipe.n_modes), max(result.n_kept for result in results)
    if not results[0].means:
        raise LyotError(
            f"No reference is left for {target.info.name}; lower min_correlation or "
            "min_rotation_fwhm, or add references."
        )
    if asked > most:
        log.info("%d modes were asked for; the references have %d and all are used.", asked, most)
    dropped = max(result.n_dropped for result in results)
    if dropped:
        log.info("%d modes were dropped: their eigenvalues are rounding error.", dropped)
    before = _rms(images, bad)
    return [result.finish(pixels, covered, shape, before) for result in results]


class _Set(NamedTuple):
    """Targets that share a set of references, and what is known of them."""

    first: int
    targets: Targets
    refs: RefPixels
    stand_in: RefPixels | None
    ref_info: ReferenceInfo | None
    mjd: float


class _Done(NamedTuple):
    """A fit that has been applied; without references for some targets, which are `without`."""

    place: _Place
    area: Area
    products: ZoneProducts
    fit: ZoneFit | None
    rows: NDArray[np.intp]
    without: NDArray[np.intp]
    applied: list[_Applied | None]

    def kept(self, of_set: _Set) -> list[KeptFit]:
        """What sources put into the targets need."""
        fit, share, first = self.fit, self.area.share, of_set.first
        if fit is None:
            return []
        missing = of_set.targets.bad | of_set.refs.nowhere
        if fit.each is None:
            matrices = fit.own_matrices or [fit.mode_matrix] * len(self.rows)
            whole = (self.products, matrices, share, self.rows, self.place.refs)
            return [keep(*whole, missing, first, of_set.stand_in)]
        return [
            keep(
                self.products,
                [matrix],
                share,
                np.array([row]),
                used,
                missing[[row]],
                first,
                of_set.stand_in,
            )
            for row, used, matrix in zip(self.rows, fit.each.picks, fit.each.matrices, strict=True)
        ]


def _do_set(
    of_set: _Set,
    zones: list[Zone],
    areas: list[Area],
    recipe: SubtractRecipe,
    device: devices.Device,
    results: list[_Result],
    kept: list[KeptFit] | None,
) -> None:
    """Do the zones of a set, in parallel; as many as there are threads are held at once."""
    do = partial(_do_zone, of_set, zones, areas, recipe, device, results)
    at_once = threads.n_threads() if device.is_numpy else 1
    for start in range(0, len(zones), at_once):
        numbers = range(start, min(start + at_once, len(zones)))
        for done in (d for part in threads.map_ordered(do, numbers) for d in part):
            for result, applied in zip(results, done.applied, strict=True):
                result.note(done, of_set.refs, applied)
            if kept is not None:
                kept += done.kept(of_set)


def _do_zone(
    of_set: _Set,
    zones: list[Zone],
    areas: list[Area],
    recipe: SubtractRecipe,
    device: devices.Device,
    results: list[_Result],
    zone: int,
) -> list[_Done]:
    """Fit the areas of one zone to one set, and apply the fits; the results are only read."""
    products = zone_products(of_set.targets, of_set.refs, zones[zone], recipe, device)
    n_t = len(of_set.targets.sci)
    done = []
    for number, area in enumerate(areas):
        if area.zone != zone:
            continue
        rows, which = np.arange(n_t), np.arange(len(of_set.refs))
        without, fit = rows[:0], None
        targets, refs = products.targets, products.refs
        if recipe.fits_each:
            chosen = choose(products, area.allowed, recipe, of_set.ref_info, of_set.mjd)
            some = chosen.any(axis=1)
            rows, without = np.flatnonzero(some), np.flatnonzero(~some)
            if rows.size:
                part = products.of(rows)
                made_of = of_set.refs.made_of
                fit, which = solve_each(part, area.share, chosen[rows], recipe, made_of)
                targets, refs = part.targets, refs.of(which)
        else:
            fit = solve(products, area.share, slice(None), which, recipe, device)
        at: Rows = rows + of_set.first
        if len(rows) == n_t:
            at = slice(of_set.first, of_set.first + n_t)
        place = _Place(number, at, len(rows), which)
        applied: list[_Applied | None] = [None] * len(results)
        if fit is not None:
            planes = [result.planes(place, fit) for result in results]
            known = [result.levers.get(place.key) for result in results]
            if fit.each is None and recipe.error == PROPAGATED and known[0] is not None:
                levers = [lever for lever in known if lever is not None]
                applied = [*_apply_again(planes, levers, fit, targets, refs, device)]
            else:
                applied = [*_apply(planes, fit, targets, refs, recipe, device)]
        done.append(_Done(place, area, products, fit, rows, without + of_set.first, applied))
    return done


def _at(rows: Rows, at: Any) -> Any:
    """Index of some pixels of some rows."""
    return (rows, at) if isinstance(rows, slice) or isinstance(at, slice) else np.ix_(rows, at)


class _Planes(NamedTuple):
    """Residuals and variances of the pixels of a zone, for one number of modes.

    Attributes
    ----------
    n_modes : int
        That number.
    sci, variance : ndarray, shape (n_t, n_zone_pix)
        What is added to the results; the results themselves, where the zone is the frame.
    bad : ndarray of bool, shape (n_t, n_zone_pix)
        True where there is no result.
    """

    n_modes: int
    sci: Array
    variance: Array
    bad: Array


class _Place(NamedTuple):
    """Where a fit belongs: the area, the integrations and their number, the references."""

    area: int
    rows: Rows
    n_rows: int
    refs: NDArray[np.intp]

    @property
    def key(self) -> tuple[int, bytes]:
        """Area and references: fits that share these share their levers."""
        return self.area, self.refs.tobytes()


class _Lever(NamedTuple):
    """How the fit of a zone with one number of modes acts on variances."""

    pixels: Array
    mean: Array
    own_noise: Array
    variance: float


class _Result:
    """Residuals and variances of one number of modes, summed over areas and sets."""

    def __init__(self, counts: tuple[int, int, int], n_pix: int, n_modes: int) -> None:
        n_int = counts[1]
        self.n_modes, self.n_kept, self.n_dropped = n_modes, 0, 0
        self.sci = np.zeros((n_int, n_pix), np.float32)
        self.variance = np.zeros((n_int, n_pix), np.float32)
        self.variance_refs = np.zeros(n_pix)
        self.bad = np.zeros((n_int, n_pix), bool)
        self.coefs = np.zeros(counts)
        self.eigenvalues = np.zeros((counts[0], counts[2]))
        self.left = np.zeros((counts[0], n_modes + 1))
        self.weight = np.zeros(counts[0])
        self.levers: dict[tuple[int, bytes], _Lever] = {}
        self.means: dict[int, _MeanLever] = {}

    def planes(self, place: _Place, fit: ZoneFit) -> _Planes:
        """Where a fit is applied: on the frames themselves, if the zone is all of them."""
        if isinstance(fit.index, slice) and isinstance(place.rows, slice):
            at = place.rows
            return _Planes(self.n_modes, self.sci[at], self.variance[at], self.bad[at])
        shape = (place.n_rows, len(fit.share))
        sci, variance = (np.zeros(shape, a.dtype) for a in (self.sci, self.variance))
        return _Planes(self.n_modes, sci, variance, np.zeros(shape, bool))

    def note(self, done: _Done, refs: RefPixels, applied: _Applied | None) -> None:
        """Take over what applying a fit left."""
        place, fit = done.place, done.fit
        if done.without.size:
            nothing = np.flatnonzero(done.area.share.ravel() > 0)
            self.bad[np.ix_(done.without, nothing)] = True
        if applied is None or fit is None:
            return
        coefs, lever, shared, planes = applied
        if not np.shares_memory(planes.sci, self.sci):
            at = _at(place.rows, fit.index)
            self.sci[at] += planes.sci
            self.variance[at] += planes.variance
            self.bad[at] |= planes.bad
        index = np.arange(len(self.coefs[0]))[place.rows]
        if shared is not None:
            self.variance_refs[fit.index] += shared
        self.coefs[place.area, index[:, None], place.refs] = coefs
        self.levers[place.key] = lever
        if place.area not in self.means:
            self.means[place.area] = _MeanLever.none(fit, len(refs.variance))
        self.means[place.area].add(place, fit, refs, lever)
        power = fit.residual_power[:, : self.n_modes + 1].sum(axis=0)
        self.left[place.area] += np.pad(power, (0, self.n_modes + 1 - len(power)), mode="edge")
        self.weight[place.area] += place.n_rows * float(fit.weight.sum())
        values = fit.common.values
        self.eigenvalues[place.area] = 0.0
        self.eigenvalues[place.area, : len(values)] = values
        self.n_kept = max(self.n_kept, min(self.n_modes, fit.n_kept))
        self.n_dropped = max(self.n_dropped, fit.common.n_dropped)

    def finish(
        self, refs: RefPixels, covered: Array, shape: tuple[int, int], before: Array
    ) -> Subtraction:
        """Make the result; the references of the last set stand for those of all."""
        n_int = len(self.sci)
        coherent = np.zeros(len(covered))
        for area, mean in self.means.items():
            fit = mean.fit
            average = refs.in_references(self.coefs[area].mean(axis=0))
            squared = average**2 - mean.own_noise / n_int**2
            typical = squared[None] @ (mean.of_refs / np.maximum(mean.n_rows, 1))
            for inside, at in fit.blocks():
                plane = (squared.astype(np.float32) @ refs.variance_at(at))[None]
                pixels = mean.pixels[inside] / max(mean.n_applied, 1)
                after = propagation.after_fit(plane, pixels, fit.weight[inside], typical)
                coherent[at] += fit.share[inside] * after[0]
        nothing = self.bad | ~covered
        self.sci[nothing] = np.nan
        err = np.sqrt(self.variance, out=self.variance)
        err[nothing] = np.nan
        return Subtraction(
            n_modes=self.n_modes,
            n_kept=self.n_kept,
            sci=self.sci.reshape(-1, *shape),
            err=err.reshape(-1, *shape),
            coefs=self.coefs,
            eigenvalues=self.eigenvalues,
            variance_refs=_plane(self.variance_refs / n_int, covered, shape),
            variance_refs_coherent=_plane(coherent, covered, shape),
            rms_before=before,
            rms_after=_rms(self.sci, nothing),
            residual_rms=np.sqrt(
                self.left[:, : self.n_kept + 1] / np.maximum(self.weight, 1e-300)[:, None]
            ),
        )


@dataclass(eq=False)
class _MeanLever:
    """Sums over the fits of one area, for the noise that all integrations share."""

    fit: ZoneFit
    pixels: Array
    of_refs: Array
    own_noise: Array
    n_rows: Array
    n_applied: int = 0

    @classmethod
    def none(cls, fit: ZoneFit, n_ref: int) -> _MeanLever:
        zero = np.zeros(n_ref)
        return cls(fit, np.zeros(len(fit.share)), zero, zero.copy(), zero.copy())

    def add(self, place: _Place, fit: ZoneFit, refs: RefPixels, lever: _Lever) -> None:
        self.fit = fit
        self.pixels += place.n_rows * lever.pixels
        self.n_applied += place.n_rows
        which = place.refs if refs.made_of is None else slice(None)
        self.of_refs[which] += place.n_rows * lever.mean
        self.own_noise[which] += place.n_rows * lever.own_noise
        self.n_rows[which] += place.n_rows


def _plane(values: Array, covered: Array, shape: tuple[int, int]) -> NDArray[np.float32]:
    return np.where(covered, values, np.nan).astype(np.float32).reshape(shape)


def _rms(frames: Array, bad: Array) -> Array:
    """Standard deviation of the good pixels of each frame, NaN where there are none."""
    return np.array(
        [
            np.std(frame[~b], dtype=np.float64) if not b.all() else np.nan
            for frame, b in zip(frames, bad, strict=True)
        ]
    )


class _Applied(NamedTuple):
    """What applying a fit left, for one number of modes.

    Attributes
    ----------
    coefs : ndarray, shape (n_t, n_ref)
        Factors of the references.
    lever : _Lever
        How the fit acts on variances.
    shared : ndarray, shape (n_zone_pix,), or None
        The references' part of the variances, summed over the targets.
    planes : _Planes
        The residuals and variances.
    """

    coefs: Array
    lever: _Lever
    shared: Array | None
    planes: _Planes


def _apply(
    results: list[_Planes],
    fit: ZoneFit,
    targets: Targets,
    refs: RefPixels,
    recipe: SubtractRecipe,
    device: devices.Device,
) -> list[_Applied]:
    """Add the residuals and variances of one zone to the results of all numbers of modes."""
    propagated = recipe.error == PROPAGATED
    used = [min(result.n_modes, fit.n_kept) for result in results]
    coefs = [fit.coefs(result.n_modes) for result in results]
    level = [(c * fit.offset).sum(axis=1) - fit.level_target for c in coefs]
    # The model is coefficients times references; where one decomposition serves all targets
    # it is also their coordinates times the modes, which is shorter.
    one_basis = fit.own_matrices is None and fit.each is None
    left = [
        fit.cross @ fit.mode_matrix[:n].T if one_basis else c
        for n, c in zip(used, coefs, strict=True)
    ]
    levers = np.zeros((len(results), len(fit.share)))
    whole = bool((fit.share == 1.0).all())

    def _subtract(inside: slice) -> tuple[Array, Array, Array, Array]:
        rows = refs.centered(inside, fit.mean_ref)
        modes = rows
        if one_basis or propagated:
            modes = threads.workspace.array("modes", (fit.n_kept, rows.shape[1]))
            np.matmul(fit.mode_matrix, rows, out=modes)
        data = targets.centered(inside, fit.mean_target)
        w = fit.weight[inside]
        for k, result in enumerate(results):
            basis = modes[: used[k]] if one_basis else rows
            out = device.run(klip.residual, data, basis, left[k], level[k])
            result.sci[:, inside] += out if whole else fit.share[inside] * out
            if propagated:
                levers[k, inside] = device.run(
                    propagation.leverage, modes[: used[k]], 1.0 / fit.weight_sum
                )
            else:
                scatter = klip.reference_scatter(rows, fit.common, n_modes=used[k])
                result.variance[:, inside] += fit.share[inside] * scatter**2
        if not propagated:
            return np.zeros(1), np.zeros(1), np.zeros(1), np.zeros(1)
        h = levers[:, inside] * w
        noise = np.zeros(1)
        if fit.each is None:
            noise = device.run(
                propagation.coefficient_noise, modes, fit.typical_variance[inside], w
            )
        return (
            noise,
            h.sum(axis=1),
            targets.variance[:, inside] @ (h * w).T,
            refs.variance_at(inside) @ ((h * w).T.astype(np.float32)),
        )

    parts = threads.map_ordered(_subtract, threads.pixel_blocks(len(fit.share)))
    noise, h_sum, from_target, from_refs = (sum(p) for p in zip(*parts, strict=True))
    applied = []
    for k, result in enumerate(results):
        none = np.zeros(refs.in_references(coefs[k]).shape[1])
        lever, shared = _Lever(levers[k], none, none, 1.0), None
        if propagated:
            per_h = 1.0 / h_sum[k] if h_sum[k] > 0 else 0.0
            own = _own_noise(fit, refs, noise, result.n_modes)
            typical = float(fit.typical_variance.mean())
            lever = _Lever(levers[k], per_h * from_refs[:, k], own.mean(axis=0), typical)
            squared = refs.in_references(coefs[k]) ** 2 - fit.noise_scale[:, None] * own
            effect = _effect(squared, per_h * from_target[:, k] + squared @ lever.mean, lever)
            shared = np.zeros(len(fit.share))
            add = partial(
                _add_variance,
                result,
                shared,
                fit=fit,
                targets=targets,
                refs=refs,
                effect=effect,
            )
            threads.map_ordered(add, threads.pixel_blocks(len(fit.share)))
        result.bad[:] |= targets.bad | refs.nowhere
        applied.append(_Applied(coefs[k], lever, shared, result))
    return applied


def _own_noise(fit: ZoneFit, refs: RefPixels, noise: Array, n_modes: int) -> Array:
    """Variance of the coefficients by a typical target's own noise, of each target or of all."""
    if fit.each is not None:
        return fit.each.own_noise[n_modes]
    matrix = refs.in_references(fit.mode_matrix)
    return np.asarray(propagation.own_noise(matrix, noise, n_modes=n_modes))[None]


def _apply_again(
    results: list[_Planes],
    levers: list[_Lever],
    fit: ZoneFit,
    targets: Targets,
    refs: RefPixels,
    device: devices.Device,
) -> list[_Applied]:
    """Do as `_apply` for a later set of references, whose levers are known, in one pass."""
    coefs = [fit.coefs(result.n_modes) for result in results]
    level = [(c * fit.offset).sum(axis=1) - fit.level_target for c in coefs]
    effects = []
    for lever, c in zip(levers, coefs, strict=True):
        brighter = fit.typical_variance.mean() / max(lever.variance, np.finfo(float).tiny)
        squared = refs.in_references(c) ** 2 - brighter * lever.own_noise
        h = lever.pixels * fit.weight
        total = float(h.sum())
        own = (targets.variance * h).sum(axis=1) / total if total > 0 else 0.0
        effects.append(_effect(squared, own + squared @ lever.mean, lever))
    shared = np.zeros((len(results), len(fit.share)))

    def _subtract(inside: slice) -> None:
        rows = refs.centered(inside, fit.mean_ref)
        data = targets.centered(inside, fit.mean_target)
        share = fit.share[inside]
        for k, result in enumerate(results):
            left = device.run(klip.residual, data, rows, coefs[k], level[k])
            result.sci[:, inside] += share * left
            _add_variance(result, shared[k], inside, fit, targets, refs, effects[k])

    threads.map_ordered(_subtract, threads.pixel_blocks(len(fit.share)))
    for result in results:
        result.bad[:] |= targets.bad | refs.nowhere
    return [
        _Applied(c, lever, part, result)
        for c, lever, part, result in zip(coefs, levers, shared, results, strict=True)
    ]


class _Effect(NamedTuple):
    """What turns variances into those of the residuals; the last row is the references alone."""

    factors: Array
    means: Array
    lever: _Lever


def _effect(squared: Array, mean: Array, lever: _Lever) -> _Effect:
    average = squared.mean(axis=0, keepdims=True)
    factors = np.concatenate([squared, average]).astype(np.float32)
    return _Effect(factors, np.concatenate([mean, average @ lever.mean]), lever)


def _add_variance(
    result: _Planes,
    shared: Array,
    inside: slice,
    fit: ZoneFit,
    targets: Targets,
    refs: RefPixels,
    effect: _Effect,
) -> None:
    """Add ``var_T + squared @ var_R`` of a block, with the effect of the fit."""
    variance = effect.factors @ refs.variance_at(inside)
    variance[:-1] += targets.variance[:, inside]
    after = propagation.after_fit(
        variance, effect.lever.pixels[inside], fit.weight[inside], effect.means
    )
    after *= fit.share[inside]
    result.variance[:, inside] += after[:-1]
    shared[inside] = len(targets.sci) * after[-1]
