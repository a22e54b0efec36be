"""The stellar image, modelled from the aligned references and subtracted."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot import execution
from lyot.algorithms import errors, klip, repair
from lyot.algorithms.geometry import radius_map
from lyot.algorithms.noise import annulus_noise
from lyot.algorithms.zones import Zone, annuli, from_map, full_frame, radial_edges
from lyot.errors import LyotError
from lyot.models.aligned import AlignedFrames, AlignedRefs
from lyot.models.cubes import Cube
from lyot.models.star import StarPosition
from lyot.recipe import SubtractRecipe
from lyot.reduction.align import learn_from

log = logging.getLogger(__name__)

Array = NDArray[Any]


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
        Factor of each reference in the model of each integration.
    eigenvalues : ndarray, shape (n_zone, n_ref)
        Of the Gram matrix of the last set of references; zero beyond its rank.
    variance_refs : ndarray, shape (n_y, n_x), float32
        The references' part of the variance, averaged over the integrations.
    variance_refs_coherent : ndarray, shape (n_y, n_x), float32
        The references' part of the variance of the mean of the integrations: they share the
        references, so it does not average down.
    rms_before, rms_after : ndarray, shape (n_int,)
        Standard deviation of the good pixels of each integration.
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


def make_zones(
    recipe: SubtractRecipe,
    shape: tuple[int, int],
    star: StarPosition,
    pixel_scale_arcsec: float,
    /,
    *,
    labels: NDArray[np.integer] | None = None,
    fit_weight: NDArray[np.floating] | None = None,
) -> list[Zone]:
    """Make the search areas of a recipe.

    Parameters
    ----------
    recipe : SubtractRecipe
        The recipe.
    shape : tuple of int
        ``(n_y, n_x)`` of the frames.
    star : StarPosition
        Centre of the annuli.
    pixel_scale_arcsec : float
        Pixel scale [arcsec].
    labels : ndarray of int, shape (n_y, n_x), optional
        Label map for ``zones = "map"``.
    fit_weight : ndarray, shape (n_y, n_x), optional
        Weight of each pixel in the fits, >= 0: zero on what is not to be subtracted from itself.

    Returns
    -------
    list of Zone
        At least one zone.

    Raises
    ------
    LyotError
        If the map is missing or of another shape, or no zone holds a pixel.
    """
    zones = _areas(recipe, shape, star, pixel_scale_arcsec, labels)
    limits = _fit_limits(recipe, shape, star, pixel_scale_arcsec)
    if fit_weight is not None:
        if fit_weight.shape != shape:
            raise LyotError(f"The fit weight is {fit_weight.shape} pixels and frames are {shape}.")
        limits = limits * np.maximum(np.nan_to_num(fit_weight), 0.0)
    level = _level_area(recipe, shape, star, pixel_scale_arcsec)
    zones = [Zone(zone.weight * limits, zone.share, level) for zone in zones]
    if any(not zone.weight.any() for zone in zones):
        raise LyotError("A zone has no pixel that counts in its fit; widen the limits of the fit.")
    return zones


def _fit_limits(
    recipe: SubtractRecipe, shape: tuple[int, int], star: StarPosition, pixel_scale_arcsec: float
) -> Array:
    """1 where pixels count in the fit by their distance from the star, else 0."""
    radius = radius_map(shape, star.yx) * pixel_scale_arcsec
    outer = recipe.fit_outer_arcsec or np.inf
    return ((radius >= recipe.fit_inner_arcsec) & (radius <= outer)).astype(np.float64)


def _level_area(
    recipe: SubtractRecipe, shape: tuple[int, int], star: StarPosition, pixel_scale_arcsec: float
) -> NDArray[np.bool_]:
    """Where the level is taken; nowhere means in the zone itself."""
    if recipe.level_inner_arcsec == 0.0:
        return np.zeros(shape, bool)
    radius = radius_map(shape, star.yx) * pixel_scale_arcsec
    area = np.asarray(radius >= recipe.level_inner_arcsec)
    if not area.any():
        log.warning(
            "The frame ends at %.1f arcsec, within level_inner_arcsec = %g: the level is the mean "
            "of each zone.",
            radius.max(),
            recipe.level_inner_arcsec,
        )
    return area


def _areas(
    recipe: SubtractRecipe,
    shape: tuple[int, int],
    star: StarPosition,
    pixel_scale_arcsec: float,
    labels: NDArray[np.integer] | None,
) -> list[Zone]:
    """Divide the frame as a recipe says."""
    if recipe.zones == "full":
        return full_frame(shape)
    if recipe.zones == "map":
        if labels is None:
            raise LyotError("zones is 'map' and no map was given; give one with zone_map.")
        if labels.shape != shape:
            raise LyotError(f"The zone map is {labels.shape} pixels and the frames are {shape}.")
        zones = from_map(labels)
    else:
        edge = min(star.y, star.x, shape[0] - 1 - star.y, shape[1] - 1 - star.x)
        inner = recipe.inner_arcsec / pixel_scale_arcsec
        outer = recipe.outer_arcsec / pixel_scale_arcsec or edge
        if outer <= inner:
            raise LyotError(
                f"The annuli end at {outer:.1f} pixels, inside their inner edge of {inner:.1f}; "
                "raise outer_arcsec."
            )
        edges = radial_edges(inner, outer, recipe.n_annuli, spacing=recipe.annuli_spacing)
        zones = annuli(
            shape, star.yx, edges, n_sectors=recipe.n_sectors, overlap=recipe.sector_overlap
        )
    if not zones:
        raise LyotError("No zone holds a pixel of the frame.")
    return zones


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
        Centre of the annuli.
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


@execution.single_threaded_blas()
def subtract(
    target: Cube,
    aligned: AlignedRefs,
    zones: list[Zone],
    recipe: SubtractRecipe,
    /,
    *,
    device: execution.Device | None = None,
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
    device : lyot.execution.Device, optional
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
    return _subtract(target, aligned, zones, recipe, device or execution.device("cpu"), None)


@dataclass(frozen=True, eq=False)
class KeptFit:
    """What the fit of one zone to one set of references does to anything added to the targets.

    Attributes
    ----------
    rows : range
        The integrations that the set serves.
    zone : Zone
        The zone.
    missing : ndarray of bool, shape (n_t, n_pix)
        Pixels that are left out: bad in the target, or in every reference.
    mean_target : ndarray, shape (n_t,)
        What is taken off each target.
    mean_ref : ndarray, shape (n_ref,)
        What is taken off each reference.
    weight_left : ndarray, shape (n_t,)
        Sum of the weights of the good pixels of each integration; infinity where no mean is
        subtracted.
    offset : ndarray, shape (n_t, n_ref)
        Mean of each centred reference over the good pixels of each integration.
    level_at : ndarray of int, shape (n_level,)
        Pixels, flattened, where the level is taken; none for the zone's own mean.
    n_level : ndarray, shape (n_t,)
        How many of them are good in each integration, at least 1.
    level_target : ndarray, shape (n_t,)
        Mean of each centred target over those of them that are good.
    level_offset : ndarray, shape (n_t, n_ref)
        Mean of each centred reference over them.
    mode_matrices : list of ndarray, shape (n_kept, n_ref)
        For each integration, what turns references into modes.
    grams : list of ndarray, shape (n_ref, n_ref)
        For each integration, its Gram matrix about its own mean.
    cross : ndarray, shape (n_t, n_ref)
        Products of the targets with the references.
    """

    rows: range
    zone: Zone
    missing: NDArray[np.bool_]
    mean_target: Array
    mean_ref: Array
    weight_left: Array
    offset: Array
    level_at: Array
    n_level: Array
    level_target: Array
    level_offset: Array
    mode_matrices: list[Array]
    grams: list[Array]
    cross: Array


@execution.single_threaded_blas()
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
        One per set of references and zone.
    """
    kept: list[KeptFit] = []
    return _subtract(target, aligned, zones, recipe, execution.device("cpu"), kept), kept


def _subtract(
    target: Cube,
    aligned: AlignedRefs,
    zones: list[Zone],
    recipe: SubtractRecipe,
    device: execution.Device,
    kept: list[KeptFit] | None,
) -> list[Subtraction]:
    n_int, shape = len(target.sci), target.frame_shape
    bad = target.bad(recipe.bad_bits).reshape(n_int, -1)
    images, variance = target.sci.reshape(n_int, -1), target.variance().reshape(n_int, -1)
    results = [_Result(n_int, images.shape[1], n) for n in recipe.n_modes]
    groups = [range(n_int)] if aligned.shared else [range(i, i + 1) for i in range(n_int)]
    fits: list[_ZoneFit] = []
    refs = None
    for rows in groups:
        refs = None  # so that one set is held, not two
        refs = _RefPixels.of(aligned.frames(rows[0]))
        if refs.sci.shape[1] != images.shape[1]:
            raise LyotError(
                f"References of {refs.sci.shape[1]} pixels do not fit frames of {shape}."
            )
        pick = slice(rows.start, rows.stop)
        targets = _Targets(images[pick], bad[pick], variance[pick])
        fits = [_fit_zone(targets, refs, zone, recipe, device) for zone in zones]
        if kept is not None:
            missing = targets.bad | refs.nowhere
            kept += [_kept(fit, z, rows, missing) for fit, z in zip(fits, zones, strict=True)]
        for z, fit in enumerate(fits):
            if recipe.error == "propagated" and rows.start > 0:
                _apply_again(results, z, pick, fit, targets, refs, device)
            else:
                _apply(results, pick, fit, targets, refs, recipe, device)
    if refs is None:
        raise LyotError(f"{target.info.name} has no integrations.")
    asked, most = max(recipe.n_modes), max(f.n_kept for f in fits)
    if asked > most:
        log.info("%d modes were asked for; the references have %d and all are used.", asked, most)
    dropped = max(f.common.n_dropped for f in fits)
    if dropped:
        log.info("%d modes were dropped: their eigenvalues are rounding error.", dropped)
    before = _rms(images, bad)
    return [result.finish(fits, refs, shape, before) for result in results]


class _Targets(NamedTuple):
    """Rows of target pixels that share their references."""

    sci: Array
    bad: Array
    variance: Array

    def centred(self, at: Any, mean: Array) -> Array:
        """Return pixels less the mean of their row, zero where they are missing."""
        data = self.sci[:, at] - mean[:, None]
        missing = self.bad[:, at]
        return np.where(missing, 0.0, data) if missing.any() else data


class _RefPixels(NamedTuple):
    """References as rows of pixels, filled where some are bad; where all are, they read as zero."""

    sci: NDArray[np.float32]
    variance: NDArray[np.float32]
    nowhere: NDArray[np.bool_]

    def centred(self, at: Any, mean: Array) -> Array:
        """Return pixels less the mean of their row, in a thread's own memory."""
        rows = self.sci[:, at]
        out = np.subtract(rows, mean[:, None], out=execution.workspace.array("rows", rows.shape))
        out[:, self.nowhere[at]] = 0.0
        return out

    def variance_at(self, at: Any) -> Array:
        """Return variances, zero where every reference is bad.

        A copy: rows a multiple of 64 KiB apart, as those of 640 x 640 pixels are, get in each
        other's way in the cache of the processor, and a product reads them many times.
        """
        rows, nowhere = self.variance[:, at].copy(), self.nowhere[at]
        return np.where(nowhere, np.float32(0), rows) if nowhere.any() else rows

    @classmethod
    def of(cls, frames: AlignedFrames) -> _RefPixels:
        n_ref = len(frames.sci)
        sci, variance = frames.sci.reshape(n_ref, -1), frames.variance.reshape(n_ref, -1)
        missing = ~np.isfinite(sci)
        nowhere = np.asarray(missing.all(axis=0))
        at = np.flatnonzero(missing.any(axis=0) & ~nowhere)
        if at.size:
            likeness = learn_from(sci, variance, missing)
            sci, variance = sci.copy(), variance.copy()
            sci[:, at], variance[:, at] = repair.fill_from_others(
                sci[:, at], variance[:, at], missing[:, at], likeness
            )
        return cls(sci, variance, nowhere)


@dataclass(eq=False)
class _ZoneFit:
    """What the fit of one zone leaves to be applied, for any number of modes."""

    index: Array | slice
    share: Array
    weight: Array
    mean_target: Array
    mean_ref: Array
    weight_sum: float
    cross: Array
    offset: Array
    target_level: Array
    common: klip.Modes
    mode_matrix: Array
    own_matrices: list[Array] | None
    typical_variance: Array
    noise_scale: Array
    gram: Array = field(default_factory=lambda: np.empty((0, 0)))
    own_grams: list[Array] | None = None
    own_offset: Array = field(default_factory=lambda: np.empty(0))
    weight_left: Array = field(default_factory=lambda: np.empty(0))
    has_level: bool = False

    @property
    def n_kept(self) -> int:
        """Number of modes that there are, at most the largest number asked for."""
        return len(self.mode_matrix)

    def blocks(self) -> list[tuple[slice, Any]]:
        """Blocks of the zone's pixels: where they are in the zone, and in the frame."""
        blocks = execution.pixel_blocks(len(self.share))
        if isinstance(self.index, slice):
            return [(block, block) for block in blocks]
        return [(block, self.index[block]) for block in blocks]

    def coefs(self, n_modes: int) -> Array:
        """Return the coefficients with a number of modes."""
        if self.own_matrices is None:
            return klip.coefficients(self.cross, self.mode_matrix, n_modes=n_modes)
        rows = [
            klip.coefficients(row[None], matrix, n_modes=n_modes)
            for row, matrix in zip(self.cross, self.own_matrices, strict=True)
        ]
        return np.concatenate(rows)


def _kept(fit: _ZoneFit, zone: Zone, rows: range, missing: NDArray[np.bool_]) -> KeptFit:
    n_t = len(fit.cross)
    matrices = fit.own_matrices or [fit.mode_matrix] * n_t
    level_at = np.flatnonzero(zone.level) if fit.has_level else np.empty(0, np.intp)
    return KeptFit(
        rows=rows,
        zone=zone,
        missing=missing,
        mean_target=fit.mean_target,
        mean_ref=fit.mean_ref,
        weight_left=fit.weight_left,
        offset=fit.own_offset,
        level_at=level_at,
        n_level=np.maximum(level_at.size - missing[:, level_at].sum(axis=1), 1),
        level_target=fit.target_level,
        level_offset=fit.offset,
        mode_matrices=matrices,
        grams=fit.own_grams or [fit.gram] * n_t,
        cross=fit.cross,
    )


def _fit_zone(
    targets: _Targets,
    refs: _RefPixels,
    zone: Zone,
    recipe: SubtractRecipe,
    device: execution.Device,
) -> _ZoneFit:
    """Form the products of one zone and decompose them."""
    share, weight = zone.share.ravel(), zone.weight.ravel()
    used = (share > 0) | (weight > 0)
    index: Array | slice = slice(None) if used.all() else np.flatnonzero(used)
    missing = targets.bad[:, index]
    weight = np.where(refs.nowhere[index] | missing.all(axis=0), 0.0, weight[index])
    weight_t = np.array([weight.sum() - weight[row].sum() for row in missing])
    mean_target, mean_ref = np.zeros(len(targets.sci)), np.zeros(len(refs.sci))
    if recipe.subtract_mean:
        mean_target = _good_mean(targets.sci[:, index], missing, weight, weight_t)
        mean_ref = _rough_mean(refs.sci, index, weight)
    fit = _ZoneFit(
        index,
        share[index],
        weight,
        mean_target,
        mean_ref,
        np.inf,
        np.empty(0),
        np.empty(0),
        np.zeros(len(targets.sci)),
        klip.Modes(np.empty(0), np.empty((0, 0)), 0),
        np.empty((0, 0)),
        None,
        np.empty(0),
        np.empty(0),
    )

    plain = bool((weight == 1.0).all())

    def _products(block: tuple[slice, Any]) -> klip.Products:
        inside, at = block
        rows = refs.centred(at, mean_ref)
        data = targets.centred(at, mean_target)
        root = np.sqrt(weight[inside])
        if not plain:
            rows *= root
            data *= root
        products: klip.Products = device.run(klip.block_products, data, rows, root)
        return products

    parts = execution.map_ordered(_products, fit.blocks())
    gram, fit.cross, ref_sum = (sum(p) for p in zip(*parts, strict=True))
    if recipe.subtract_mean and weight.any():
        fit.weight_sum = float(weight.sum())
        gram, rest = klip.recentre(gram, ref_sum, fit.weight_sum)
        fit.mean_ref = mean_ref + rest
    fit.common = device.run(klip.decompose, gram)
    matrix = klip.to_modes(fit.common)
    fit.gram = gram
    fit.weight_left = weight_t if recipe.subtract_mean else np.full(len(weight_t), np.inf)
    fit.own_matrices, fit.own_grams, fit.own_offset = _own_modes(
        gram,
        missing & (weight > 0),
        refs.sci,
        index,
        weight,
        fit.mean_ref,
        fit.weight_left,
        matrix,
    )
    fit.offset = fit.own_offset
    fit.has_level = recipe.subtract_mean and bool(zone.level.any())
    if fit.has_level:
        fit.target_level, fit.offset = _levels(targets, refs, zone.level, fit)
    fit.mode_matrix = matrix[: max(recipe.n_modes)]
    fit.typical_variance = targets.variance[:, index].mean(axis=0, dtype=np.float64)
    level = targets.variance.mean(axis=1, dtype=np.float64)
    fit.noise_scale = level / max(level.mean(), np.finfo(float).tiny)
    return fit


def _levels(targets: _Targets, refs: _RefPixels, area: Array, fit: _ZoneFit) -> tuple[Array, Array]:
    """Mean of each centred target and, over its good pixels, of each centred reference."""
    at = np.flatnonzero(area.ravel() & ~refs.nowhere)
    targets_mean = np.zeros(len(targets.sci))
    refs_mean = np.zeros((len(targets.sci), len(refs.sci)))
    rows = refs.sci[:, at] - fit.mean_ref[:, None]
    every = rows.sum(axis=1)
    for i, (image, bad) in enumerate(zip(targets.sci, targets.bad, strict=True)):
        gaps = bad[at]
        n = max(at.size - int(gaps.sum()), 1)
        targets_mean[i] = image[at[~gaps]].sum(dtype=np.float64) / n - fit.mean_target[i]
        refs_mean[i] = (every - rows[:, gaps].sum(axis=1)) / n
    return targets_mean, refs_mean


def _good_mean(rows: Array, missing: Array, weight: Array, total: Array) -> Array:
    """Weighted mean of each row over the pixels that are not missing."""
    means = np.zeros(len(rows))
    for i, (row, gaps) in enumerate(zip(rows, missing, strict=True)):
        data = np.where(gaps, 0.0, row) if gaps.any() else row.astype(np.float64)
        means[i] = data @ weight / total[i] if total[i] > 0 else 0.0
    return means


def _rough_mean(rows: Array, index: Array | slice, weight: Array) -> Array:
    """Weighted mean of each row over every 64th pixel: it takes off the pedestal."""
    every = slice(None, None, 64)
    at = every if isinstance(index, slice) else index[every]
    w = weight[every]
    total = float(w.sum())
    pixels = np.where(w > 0, rows[:, at], 0.0)
    return np.asarray(pixels @ w / total if total > 0 else np.zeros(len(rows)))


def _own_modes(
    gram: Array,
    missing: Array,
    ref_rows: Array,
    index: Array | slice,
    weight: Array,
    mean_ref: Array,
    weight_left: Array,
    common: Array,
) -> tuple[list[Array] | None, list[Array] | None, Array]:
    """Decompose anew for targets that miss pixels; equal gaps share a decomposition."""
    n_t = len(missing)
    offset = np.zeros((n_t, len(gram)))
    if not missing.any():
        return None, None, offset
    rows = ref_rows[:, index]
    known: dict[bytes, tuple[Array, Array, Array]] = {}
    matrices, grams = [], []
    for i in range(n_t):
        key = np.packbits(missing[i]).tobytes()
        if key not in known:
            at = np.flatnonzero(missing[i])
            if at.size == 0:
                known[key] = (common, gram, offset[i])
            else:
                left, mean = klip.leave_out(
                    gram,
                    rows[:, at] - mean_ref[:, None],
                    weight[at],
                    weight_left[i] if weight_left[i] > 0 else np.inf,
                )
                known[key] = (klip.to_modes(klip.decompose(left)), left, mean)
        matrices.append(known[key][0])
        grams.append(known[key][1])
        offset[i] = known[key][2]
    return matrices, grams, offset


class _Lever(NamedTuple):
    """How the fit of a zone with one number of modes acts on variances."""

    pixels: Array
    mean: Array
    own_noise: Array
    variance: float


class _Result:
    """Residuals and variances of one number of modes, summed over zones and sets."""

    def __init__(self, n_int: int, n_pix: int, n_modes: int) -> None:
        self.n_modes = n_modes
        self.sci = np.zeros((n_int, n_pix), np.float32)
        self.variance = np.zeros((n_int, n_pix), np.float32)
        self.variance_refs = np.zeros(n_pix)
        self.share = np.zeros(n_pix)
        self.bad = np.zeros((n_int, n_pix), bool)
        self.coefs: list[Array] = []
        self.levers: list[_Lever] = []

    def finish(
        self, fits: list[_ZoneFit], refs: _RefPixels, shape: tuple[int, int], before: Array
    ) -> Subtraction:
        """Make the result; the references of the last set stand for those of all."""
        n_zone, n_int = len(fits), len(self.sci)
        coefs = np.stack([np.concatenate(self.coefs[z::n_zone]) for z in range(n_zone)])
        coherent = np.zeros(len(self.share))
        values = np.zeros((n_zone, coefs.shape[-1]))
        for z, fit in enumerate(fits):
            lever = self.levers[z]
            squared = coefs[z].mean(axis=0) ** 2 - lever.own_noise / n_int
            for inside, at in fit.blocks():
                plane = (squared.astype(np.float32) @ refs.variance_at(at))[None]
                after = errors.after_fit(
                    plane, lever.pixels[inside], fit.weight[inside], squared[None] @ lever.mean
                )
                coherent[at] += fit.share[inside] * after[0]
            values[z, : len(fit.common.values)] = fit.common.values
        covered = self.share > 0
        nothing = self.bad | ~covered
        self.sci[nothing] = np.nan
        err = np.sqrt(self.variance, out=self.variance)
        err[nothing] = np.nan
        return Subtraction(
            n_modes=self.n_modes,
            n_kept=min(self.n_modes, max(f.n_kept for f in fits)),
            sci=self.sci.reshape(-1, *shape),
            err=err.reshape(-1, *shape),
            coefs=coefs,
            eigenvalues=values,
            variance_refs=_plane(self.variance_refs / n_int, covered, shape),
            variance_refs_coherent=_plane(coherent, covered, shape),
            rms_before=before,
            rms_after=_rms(self.sci, nothing),
        )


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


def _apply(
    results: list[_Result],
    pick: slice,
    fit: _ZoneFit,
    targets: _Targets,
    refs: _RefPixels,
    recipe: SubtractRecipe,
    device: execution.Device,
) -> None:
    """Add the residuals and variances of one zone to the results of all numbers of modes."""
    propagated = recipe.error == "propagated"
    used = [min(result.n_modes, fit.n_kept) for result in results]
    coefs = [fit.coefs(result.n_modes) for result in results]
    level = [(c * fit.offset).sum(axis=1) - fit.target_level for c in coefs]
    # The model is coefficients times references; where one decomposition serves all targets
    # it is also their coordinates times the modes, which is shorter.
    one_basis = fit.own_matrices is None
    left = [
        fit.cross @ fit.mode_matrix[:n].T if one_basis else c
        for n, c in zip(used, coefs, strict=True)
    ]
    levers = np.zeros((len(results), len(fit.share)))
    whole = bool((fit.share == 1.0).all())

    def _subtract(block: tuple[slice, Any]) -> tuple[Array, Array, Array, Array]:
        inside, at = block
        rows = refs.centred(at, fit.mean_ref)
        modes = rows
        if one_basis or propagated:
            modes = execution.workspace.array("modes", (fit.n_kept, rows.shape[1]))
            np.matmul(fit.mode_matrix, rows, out=modes)
        data = targets.centred(at, fit.mean_target)
        w = fit.weight[inside]
        for k, result in enumerate(results):
            basis = modes[: used[k]] if one_basis else rows
            out = device.run(klip.residual, data, basis, left[k], level[k])
            result.sci[pick, at] += out if whole else fit.share[inside] * out
            if propagated:
                levers[k, inside] = device.run(
                    errors.leverage, modes[: used[k]], 1.0 / fit.weight_sum
                )
            else:
                scatter = klip.reference_scatter(rows, fit.common, n_modes=used[k])
                result.variance[pick, at] += fit.share[inside] * scatter**2
        if not propagated:
            return np.zeros(1), np.zeros(1), np.zeros(1), np.zeros(1)
        h = levers[:, inside] * w
        noise = device.run(errors.coefficient_noise, modes, fit.typical_variance[inside], w)
        return (
            noise,
            h.sum(axis=1),
            targets.variance[:, at] @ (h * w).T,
            refs.variance_at(at) @ ((h * w).T.astype(np.float32)),
        )

    parts = execution.map_ordered(_subtract, fit.blocks())
    noise, h_sum, from_target, from_refs = (sum(p) for p in zip(*parts, strict=True))
    for k, result in enumerate(results):
        result.coefs.append(coefs[k])
        none = np.zeros(coefs[k].shape[1])
        lever = _Lever(levers[k], none, none, 1.0)
        if propagated:
            per_h = 1.0 / h_sum[k] if h_sum[k] > 0 else 0.0
            own = errors.own_noise(fit.mode_matrix, noise, n_modes=used[k])
            typical = float(fit.typical_variance.mean())
            lever = _Lever(levers[k], per_h * from_refs[:, k], own, typical)
            squared = coefs[k] ** 2 - fit.noise_scale[:, None] * own
            effect = _effect(squared, per_h * from_target[:, k] + squared @ lever.mean, lever)
            add = partial(
                _add_variance, result, pick, fit=fit, targets=targets, refs=refs, effect=effect
            )
            execution.map_ordered(add, fit.blocks())
        result.levers.append(lever)
        result.bad[pick, fit.index] |= targets.bad[:, fit.index] | refs.nowhere[fit.index]
        if pick.start == 0:
            result.share[fit.index] += fit.share


def _apply_again(
    results: list[_Result],
    z: int,
    pick: slice,
    fit: _ZoneFit,
    targets: _Targets,
    refs: _RefPixels,
    device: execution.Device,
) -> None:
    """Do as `_apply` for a later set of references, whose levers are known, in one pass."""
    coefs = [fit.coefs(result.n_modes) for result in results]
    level = [(c * fit.offset).sum(axis=1) - fit.target_level for c in coefs]
    effects = []
    for result, c in zip(results, coefs, strict=True):
        lever = result.levers[z]
        brighter = fit.typical_variance.mean() / max(lever.variance, np.finfo(float).tiny)
        squared = c**2 - brighter * lever.own_noise
        h = lever.pixels * fit.weight
        total = float(h.sum())
        own = (targets.variance[:, fit.index] * h).sum(axis=1) / total if total > 0 else 0.0
        effects.append(_effect(squared, own + squared @ lever.mean, lever))

    def _subtract(block: tuple[slice, Any]) -> None:
        inside, at = block
        rows = refs.centred(at, fit.mean_ref)
        data = targets.centred(at, fit.mean_target)
        share = fit.share[inside]
        for k, result in enumerate(results):
            left = device.run(klip.residual, data, rows, coefs[k], level[k])
            result.sci[pick, at] += share * left
            _add_variance(result, pick, block, fit, targets, refs, effects[k])

    execution.map_ordered(_subtract, fit.blocks())
    for result, c in zip(results, coefs, strict=True):
        result.coefs.append(c)
        result.bad[pick, fit.index] |= targets.bad[:, fit.index] | refs.nowhere[fit.index]


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
    result: _Result,
    pick: slice,
    block: tuple[slice, Any],
    fit: _ZoneFit,
    targets: _Targets,
    refs: _RefPixels,
    effect: _Effect,
) -> None:
    """Add ``var_T + squared @ var_R`` of a block, with the effect of the fit."""
    inside, at = block
    variance = effect.factors @ refs.variance_at(at)
    variance[:-1] += targets.variance[:, at]
    after = errors.after_fit(
        variance, effect.lever.pixels[inside], fit.weight[inside], effect.means
    )
    after *= fit.share[inside]
    result.variance[pick, at] += after[:-1]
    result.variance_refs[at] += len(targets.sci) * after[-1]
