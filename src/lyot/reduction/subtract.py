"""The stellar image, modelled from the aligned references and subtracted."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot import execution
from lyot.algorithms import errors, klip, repair
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

    Returns
    -------
    list of Zone
        At least one zone.

    Raises
    ------
    LyotError
        If the map is missing or of another shape, or no zone holds a pixel.
    """
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


def subtract(
    target: Cube, aligned: AlignedRefs, zones: list[Zone], recipe: SubtractRecipe, /
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

    Returns
    -------
    list of Subtraction
        One per number of modes, in the order of the recipe.

    Notes
    -----
    One set of aligned references is held at a time.
    """
    n_int, shape = len(target.sci), target.frame_shape
    bad, variance = target.bad(recipe.bad_bits), target.variance()
    images = target.sci.reshape(n_int, -1)
    bad, variance = bad.reshape(n_int, -1), variance.reshape(n_int, -1)
    results = [_Accumulator(n_int, images.shape[1]) for _ in recipe.n_modes]
    groups = [range(n_int)] if aligned.shared else [range(i, i + 1) for i in range(n_int)]
    fits: list[_ZoneFit] = []
    refs = None
    for rows in groups:
        refs = _RefPixels.of(aligned.frames(rows[0]))
        if refs.sci.shape[1] != images.shape[1]:
            raise LyotError(
                f"References of {refs.sci.shape[1]} pixels do not fit frames of {shape}."
            )
        pick = slice(rows.start, rows.stop)
        fits = [
            _fit_zone(images[pick], bad[pick], variance[pick], refs, zone, recipe) for zone in zones
        ]
        for number, n in enumerate(recipe.n_modes):
            for fit in fits:
                _apply(results[number], pick, fit, n, images, bad, variance, refs, recipe)
    if refs is None:
        raise LyotError(f"{target.info.name} has no integrations.")
    asked = max(recipe.n_modes)
    if asked > max(f.n_kept for f in fits):
        log.info(
            "%d modes were asked for; the references span %d and all are used.",
            asked,
            max(f.n_kept for f in fits),
        )
    before = _rms(images, bad)
    return [
        results[number].finish(n, fits, refs, shape, before)
        for number, n in enumerate(recipe.n_modes)
    ]


class _RefPixels(NamedTuple):
    """References as rows of pixels, filled where some are bad, zero where all are."""

    sci: NDArray[np.float32]
    variance: NDArray[np.float32]
    nowhere: NDArray[np.bool_]

    @classmethod
    def of(cls, frames: AlignedFrames) -> _RefPixels:
        n_ref = len(frames.sci)
        sci, variance = frames.sci.reshape(n_ref, -1), frames.variance.reshape(n_ref, -1)
        missing = ~np.isfinite(sci)
        if not missing.any():
            return cls(sci, variance, np.zeros(sci.shape[1], bool))
        nowhere = np.asarray(missing.all(axis=0))
        sci, variance = sci.copy(), variance.copy()
        at = np.flatnonzero(missing.any(axis=0) & ~nowhere)
        if at.size:
            likeness = learn_from(sci, variance, missing)
            sci[:, at], variance[:, at] = repair.fill_from_others(
                sci[:, at], variance[:, at], missing[:, at], likeness
            )
        sci[:, nowhere] = 0.0
        variance[:, nowhere] = 0.0
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
    common: klip.Modes
    mode_matrix: Array
    own_matrices: list[Array] | None
    mode_noise: Array
    noise_scale: Array

    @property
    def n_kept(self) -> int:
        return len(self.mode_matrix)

    def coefs(self, n_modes: int) -> Array:
        """Return the coefficients with a number of modes."""
        if self.own_matrices is None:
            return klip.coefficients(self.cross, self.mode_matrix, n_modes=n_modes)
        rows = [
            klip.coefficients(row[None], matrix, n_modes=n_modes)
            for row, matrix in zip(self.cross, self.own_matrices, strict=True)
        ]
        return np.concatenate(rows)

    def squared(self, coefs: Array, noise_scale: Array, n_modes: int) -> Array:
        return errors.squared_coefficients(
            coefs,
            self.mode_matrix,
            self.mode_noise,
            noise_scale,
            n_modes=min(n_modes, self.n_kept),
        )


def _fit_zone(
    images: Array,
    bad: Array,
    variance: Array,
    refs: _RefPixels,
    zone: Zone,
    recipe: SubtractRecipe,
) -> _ZoneFit:
    """Form the products of one zone and decompose them."""
    n_t, n_ref = len(images), len(refs.sci)
    share, weight = zone.share.ravel(), zone.weight.ravel()
    used = (share > 0) | (weight > 0)
    index: Array | slice = slice(None) if used.all() else np.flatnonzero(used)
    weight = np.where(refs.nowhere[index] | bad[:, index].all(axis=0), 0.0, weight[index])
    n_pix = len(weight)
    blocks = execution.pixel_blocks(n_pix)

    def pixels(rows: Array, block: slice) -> Array:
        at = block if isinstance(index, slice) else index[block]
        return rows[:, at]

    def target_block(block: slice) -> tuple[Array, Array]:
        missing = pixels(bad, block)
        return np.where(missing, 0.0, pixels(images, block)).astype(np.float64), missing

    def sums(block: slice) -> klip.Sums:
        data, missing = target_block(block)
        return klip.block_sums(
            data,
            (~missing).astype(np.float64),
            pixels(refs.sci, block).astype(np.float64),
            weight[block],
        )

    total = [sum(parts) for parts in zip(*execution.map_ordered(sums, blocks), strict=True)]
    weight_t, weight_sum = total[0], float(total[3])
    mean_target, mean_ref = np.zeros(n_t), np.zeros(n_ref)
    if recipe.subtract_mean and weight_sum > 0:
        mean_target = total[1] / np.where(weight_t > 0, weight_t, 1.0)
        mean_ref = total[2] / weight_sum

    def products(block: slice) -> klip.Products:
        data, missing = target_block(block)
        centred = np.where(missing, 0.0, data - mean_target[:, None])
        return klip.block_products(
            centred, pixels(refs.sci, block) - mean_ref[:, None], weight[block]
        )

    parts = execution.map_ordered(products, blocks)
    gram, cross = (sum(p) for p in zip(*parts, strict=True))
    common = klip.decompose(gram)
    matrix = klip.to_modes(common)
    own, offset = _own_modes(
        gram,
        (bad[:, index] & (weight > 0)),
        refs.sci,
        index,
        weight,
        mean_ref,
        weight_t if recipe.subtract_mean else np.full(n_t, np.inf),
        matrix,
    )
    n_most = min(max(recipe.n_modes), len(matrix))
    typical = variance.mean(axis=0, dtype=np.float64)
    scale = variance.mean(axis=1, dtype=np.float64) / max(typical.mean(), np.finfo(float).tiny)

    def mode_noise(block: slice) -> Array:
        modes = matrix[:n_most] @ (pixels(refs.sci, block) - mean_ref[:, None])
        return errors.coefficient_noise(
            modes, matrix[:n_most], pixels(typical[None], block)[0], weight[block]
        )

    noise = np.zeros((n_most, n_most))
    if recipe.error == "propagated":
        noise = sum(execution.map_ordered(mode_noise, blocks), noise)
    return _ZoneFit(
        index,
        share[index],
        weight,
        mean_target,
        mean_ref,
        weight_sum if recipe.subtract_mean else np.inf,
        cross,
        offset,
        common,
        matrix[:n_most],
        own,
        noise,
        scale,
    )


def _own_modes(
    gram: Array,
    missing: Array,
    ref_rows: Array,
    index: Array | slice,
    weight: Array,
    mean_ref: Array,
    weight_left: Array,
    common: Array,
) -> tuple[list[Array] | None, Array]:
    """Decompose anew for targets that miss pixels; equal gaps share a decomposition."""
    n_t = len(missing)
    offset = np.zeros((n_t, len(gram)))
    if not missing.any():
        return None, offset
    rows = ref_rows[:, index]
    known: dict[bytes, tuple[Array, Array]] = {}
    matrices = []
    for i in range(n_t):
        key = np.packbits(missing[i]).tobytes()
        if key not in known:
            at = np.flatnonzero(missing[i])
            if at.size == 0:
                known[key] = (common, offset[i])
            else:
                left, mean = klip.leave_out(
                    gram,
                    rows[:, at] - mean_ref[:, None],
                    weight[at],
                    weight_left[i] if weight_left[i] > 0 else np.inf,
                )
                known[key] = (klip.to_modes(klip.decompose(left)), mean)
        matrices.append(known[key][0])
        offset[i] = known[key][1]
    return matrices, offset


class _Accumulator:
    """Residuals and variances of one number of modes, summed over zones and sets."""

    def __init__(self, n_int: int, n_pix: int) -> None:
        self.sci = np.zeros((n_int, n_pix), np.float32)
        self.variance = np.zeros((n_int, n_pix), np.float32)
        self.variance_refs = np.zeros(n_pix)
        self.share = np.zeros(n_pix)
        self.bad = np.zeros((n_int, n_pix), bool)
        self.coefs: list[Array] = []
        self.levers: list[Array] = []

    def finish(
        self,
        n_modes: int,
        fits: list[_ZoneFit],
        refs: _RefPixels,
        shape: tuple[int, int],
        before: Array,
    ) -> Subtraction:
        """Make the result; the references of the last set stand for those of all."""
        n_zone, n_int = len(fits), len(self.sci)
        coefs = np.stack([np.concatenate(self.coefs[z::n_zone]) for z in range(n_zone)])
        coherent = np.zeros(len(self.share))
        values = np.zeros((n_zone, coefs.shape[-1]))
        for z, fit in enumerate(fits):
            mean = coefs[z].mean(axis=0, keepdims=True)
            squared = fit.squared(mean, np.array([fit.noise_scale.mean() / n_int]), n_modes)
            plane = _variance_after_fit(squared, refs, fit, self.levers[z - n_zone])
            coherent[fit.index] += fit.share * plane[0]
            values[z, : len(fit.common.values)] = fit.common.values
        covered = self.share > 0
        nothing = self.bad | ~covered
        sci = np.where(nothing, np.float32(np.nan), self.sci)
        err = np.where(nothing, np.float32(np.nan), np.sqrt(self.variance))
        return Subtraction(
            n_modes=n_modes,
            n_kept=min(n_modes, max(f.n_kept for f in fits)),
            sci=sci.reshape(-1, *shape),
            err=err.reshape(-1, *shape),
            coefs=coefs,
            eigenvalues=values,
            variance_refs=_plane(self.variance_refs / n_int, covered, shape),
            variance_refs_coherent=_plane(coherent, covered, shape),
            rms_before=before,
            rms_after=_rms(sci, nothing),
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
    out: _Accumulator,
    pick: slice,
    fit: _ZoneFit,
    n_modes: int,
    images: Array,
    bad: Array,
    variance: Array,
    refs: _RefPixels,
    recipe: SubtractRecipe,
) -> None:
    """Add the residual and the variance of one zone to the results."""
    index, share = fit.index, fit.share
    coefs = fit.coefs(n_modes)
    n_used = min(n_modes, fit.n_kept)
    modes = fit.mode_matrix[:n_used]
    level = (coefs * fit.offset).sum(axis=1)
    n_t, n_pix = len(coefs), len(share)
    residual = np.empty((n_t, n_pix), np.float32)
    lever, scatter = np.zeros(n_pix), np.zeros(n_pix)
    propagated = recipe.error == "propagated"
    # The model is coefficients times references; where one decomposition serves all targets
    # it is also their coordinates times the modes, which is shorter.
    one_basis = fit.own_matrices is None
    left = fit.cross @ modes.T if one_basis else coefs

    def one(block: slice) -> None:
        at = block if isinstance(index, slice) else index[block]
        rows = refs.sci[:, at] - fit.mean_ref[:, None]
        mode_pixels = modes @ rows if one_basis or propagated else rows
        data = np.where(bad[pick][:, at], 0.0, images[pick][:, at]) - fit.mean_target[:, None]
        residual[:, block] = klip.residual(data, mode_pixels if one_basis else rows, left, level)
        if propagated:
            lever[block] = errors.leverage(mode_pixels, 1.0 / fit.weight_sum)
        else:
            scatter[block] = klip.reference_scatter(rows, fit.common, n_modes=n_used)

    execution.map_ordered(one, execution.pixel_blocks(n_pix))
    out.coefs.append(coefs)
    out.levers.append(lever)
    if propagated:
        squared = fit.squared(coefs, fit.noise_scale, n_modes)
        total = _variance_after_fit(squared, refs, fit, lever, own=variance[pick])
        mean = squared.mean(axis=0, keepdims=True)
        out.variance_refs[index] += n_t * share * _variance_after_fit(mean, refs, fit, lever)[0]
    else:
        total = np.broadcast_to(scatter**2, residual.shape)
    out.sci[pick, index] += (share * residual).astype(np.float32)
    out.variance[pick, index] += (share * total).astype(np.float32)
    out.bad[pick, index] |= bad[pick][:, index] | refs.nowhere[index]
    if pick.start == 0:
        out.share[index] += share


def _variance_after_fit(
    squared: Array, refs: _RefPixels, fit: _ZoneFit, lever: Array, *, own: Array | None = None
) -> Array:
    """Return ``own + squared @ var_R`` in the pixels of a zone, with the effect of the fit."""
    index, n_pix = fit.index, len(lever)
    out = np.empty((len(squared), n_pix), np.float32)
    factors = squared.astype(np.float32)
    blocks = execution.pixel_blocks(n_pix)

    def before(block: slice) -> errors.LeverageSums:
        at = block if isinstance(index, slice) else index[block]
        out[:, block] = factors @ refs.variance[:, at]
        if own is not None:
            out[:, block] += own[:, at]
        return errors.leverage_sums(
            out[:, block].astype(np.float64), lever[block], fit.weight[block]
        )

    parts = execution.map_ordered(before, blocks)
    h, weighted = (sum(p) for p in zip(*parts, strict=True))
    mean = weighted / h if h > 0 else np.zeros(len(squared))

    def after(block: slice) -> None:
        out[:, block] = errors.after_fit(out[:, block], lever[block], fit.weight[block], mean)

    execution.map_ordered(after, blocks)
    return out
