"""Products over the pixels of a zone, from which every fit follows by algebra."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from lyot.algorithms import klip
from lyot.algorithms.zones import Zone
from lyot.compute import devices, threads
from lyot.parameters import PROPAGATED, SubtractRecipe
from lyot.subtraction.methods import Method, fits_each
from lyot.subtraction.pixels import RefPixels, Targets, ZonePixels, cut
from lyot.types import Array, Mask

MAX_PRODUCTS = 2**22
"""Products of references that are held at once before they are summed."""
NO_LEVEL = np.zeros(0)
MAX_NOISE_PIXELS = 1024
"""Most pixels from which the noise of coefficients is computed where references are chosen."""


class Run(NamedTuple):
    """How an exposure is subtracted."""

    zones: list[Zone]
    recipe: SubtractRecipe
    method: Method
    device: devices.Device
    dtype: np.dtype[Any]


class TargetSet(NamedTuple):
    """Targets that share references."""

    first: int  # the first integration of them
    targets: Targets
    refs: RefPixels  # or the frames made of them
    noise_scale: Array  # (n_t,): mean variance of each target over that of all
    days: Array | None  # (n_ref,): how far each reference lies in time, NaN where unknown


@dataclass(frozen=True, eq=False)
class ZoneProducts(ZonePixels):
    """All that the pixels of a zone give, for targets that share references."""

    zone: Zone
    mean_target: Array  # (n_t,), weighted, over the good pixels of each target
    mean_ref: Array  # (n_ref,), subtracted from each frame
    weight_sum: float  # infinity where no mean is subtracted
    gram: Array  # (n_ref, n_ref), of the centered frames, with the weight of the fit
    mode_gram: Array  # with that of the modes; the same object where the weights are the same
    cross: Array  # (n_t, n_ref): products of the centered targets with the frames
    target_square: Array  # (n_t,): product of each target with itself over its good pixels
    pattern: NDArray[np.intp]  # (n_t,): number of the pattern of missing pixels of each target
    grams: list[Array]  # of each pattern, over the remaining pixels
    offsets: Array  # (n_pattern, n_ref): mean of each centered frame over them
    weight_sums: Array  # (n_pattern,), of those pixels; infinity where no mean is subtracted
    level_target: Array  # (n_t,): mean of each centered target where the level is taken
    level_offset: Array  # (n_t, n_ref): of each frame over the good pixels of each target there
    n_level: NDArray[np.intp]  # (n_t,): number of those; zero where the level is that of the fit
    noise_scale: Array  # (n_t,): variance of each target over the mean of all
    typical_variance: Array  # (n_zone_pix,): that mean
    noise_gram: Array  # with weight ``w^2 typical_variance``; empty unless fitted one by one

    def gram_of(self, target: int) -> Array:
        """Return the Gram matrix of one target over its good pixels."""
        return self.grams[self.pattern[target]]

    @cached_property
    def share(self) -> Array:
        """Share of the result that each pixel takes from the zone, ``(n_zone_pix,)``."""
        return self.zone.share.ravel()[self.where]

    def of(self, rows: NDArray[np.intp], refs: NDArray[np.intp]) -> ZoneProducts:
        """Take what concerns the pixels of some targets and frames; none is copied for all."""
        out = replace(self, refs=self.refs.of(refs), mean_ref=self.mean_ref[refs])
        if len(rows) == len(self.targets.sci):
            return out
        return replace(
            out,
            targets=self.targets.rows(rows),
            mean_target=self.mean_target[rows],
            noise_scale=self.noise_scale[rows],
        )


def zone_products(run: Run, target_set: TargetSet, zone: Zone, /) -> ZoneProducts:
    """Touch the pixels of a zone for the first of two times."""
    recipe, targets, refs = run.recipe, target_set.targets, target_set.refs
    pixels, subtract_mean = cut(targets, refs, zone), recipe.subtract_mean
    n_t = len(targets.sci)
    counted = np.array([pixels.weight.sum() - pixels.weight[b].sum() for b in pixels.targets.bad])
    mean_target, rough_mean, weight_sum = np.zeros(n_t), np.zeros(len(refs)), np.inf
    if subtract_mean:
        mean_target, rough_mean = _means(pixels, counted)
    # The rough mean of frames is taken off the pixels first, and only the remainder algebraically:
    # from frames with a pedestal that would cost the faint modes.
    level = zone.level.ravel() & ~refs.all_bad if zone.level.size else np.zeros_like(refs.all_bad)
    inside = level[pixels.where].astype(np.float64)
    sums = _sum_over_blocks(run, pixels, mean_target, rough_mean, pixels.weight, inside)
    gram, mean_ref = sums.products.gram, rough_mean
    if subtract_mean and pixels.weight.any():
        weight_sum = float(pixels.weight.sum())
        gram, remainder = klip.recenter(gram, sums.products.ref_sum, weight_sum)
        mean_ref = rough_mean + remainder
    mode_gram, weight = gram, pixels.mode_weight
    if weight is not pixels.weight:
        of_modes = _sum_over_blocks(run, pixels, mean_target, rough_mean, weight).products
        mode_gram = of_modes.gram
        if subtract_mean and weight.any():
            mode_gram = klip.recenter(mode_gram, of_modes.ref_sum, float(weight.sum())).gram
    gaps = _gaps(pixels, gram, mean_ref, counted if subtract_mean else np.full(n_t, np.inf))
    levels = np.zeros(n_t), gaps[2][gaps[0]], np.zeros(n_t, np.intp)
    if subtract_mean and level.any():
        rest = level.copy()
        rest[pixels.where] = False
        of_targets, of_refs = _sums_at(target_set, np.flatnonzero(rest), mean_target, rough_mean)
        of_refs = of_refs + sums.level_refs - level.sum() * (mean_ref - rough_mean)
        levels = _levels(target_set, level, of_targets + sums.level_targets, of_refs, mean_ref)
    typical = pixels.targets.variance.mean(axis=0, dtype=np.float64)
    noise_gram = np.empty((0, 0))
    if fits_each(recipe) and recipe.error == PROPAGATED:
        noise_gram = _noise_gram(pixels.refs, mean_ref, pixels.weight**2 * typical)
    of_fit = (mean_target, mean_ref, weight_sum, gram, mode_gram, sums.products.cross, sums.square)
    noise = (target_set.noise_scale, typical, noise_gram)
    values: list[Any] = [*vars(pixels).values(), zone, *of_fit, *gaps, *levels, *noise]
    return ZoneProducts(*values)


def _means(pixels: ZonePixels, counted: Array) -> tuple[Array, Array]:
    """Weighted means; those of frames by every 64th pixel, which takes off the pedestal."""
    weight, (sci, missing, _) = pixels.weight, pixels.targets
    target = np.zeros(len(sci))
    for i, (row, gaps) in enumerate(zip(sci, missing, strict=True)):
        data = np.where(gaps, 0.0, row) if gaps.any() else row.astype(np.float64)
        target[i] = data @ weight / counted[i] if counted[i] > 0 else 0.0
    sparse = slice(None, None, 64)
    w = weight[sparse]
    total = float(w.sum())
    rows = np.where(w > 0, pixels.refs.at(sparse), 0.0)
    return target, np.asarray(rows @ w / total if total > 0 else np.zeros(len(rows)))


class _Sums(NamedTuple):
    """Sums over the pixels of a zone, added up over blocks."""

    products: klip.Products
    square: Array  # (n_t,), weighted, of the centered targets
    level_targets: Array  # (n_t,), of the centered targets where the level is taken
    level_refs: Array  # (n_ref,), of the nearly centered references there


def _sum_over_blocks(
    run: Run,
    pixels: ZonePixels,
    mean_target: Array,
    mean_ref: Array,
    weight: Array,
    level: Array = NO_LEVEL,
) -> _Sums:
    """Add up the products of blocks of pixels, in order; and where `level` is 1, the pixels."""
    plain, leveled = bool((weight == 1.0).all()), bool(level.any())

    def _block(at: slice) -> tuple[Array, ...]:
        rows = pixels.refs.centered(at, mean_ref)
        data, root, inside = run.device.put(
            (pixels.targets.centered(at, mean_target), np.sqrt(weight[at]), level[at])
        )
        levels = (data @ inside, rows @ inside) if leveled else (np.zeros(1),) * 2
        if not plain:
            rows *= root
            data *= root
        products = klip.block_products(data, rows, root)
        return *products, array_namespace(data).sum(data * data, axis=1), *levels

    n_ref = len(pixels.refs)
    blocks, n_bytes = run.device.pixel_blocks(len(weight), n_ref), threads.block_bytes(n_ref)
    # In groups: the products of many references are as large as their pixels.
    step = max(MAX_PRODUCTS // n_ref**2, threads.n_threads())
    totals: list[Any] = [0] * (len(klip.Products._fields) + 3)
    for first in range(0, len(blocks), step):
        group = blocks[first : first + step]
        for part in run.device.map(_block, group, item_bytes=n_bytes + 8 * n_ref**2):
            totals = [total + each for total, each in zip(totals, part, strict=True)]
    totals = run.device.get(totals)
    return _Sums(klip.Products(*totals[:-3]), *totals[-3:])


def _gaps(
    pixels: ZonePixels, gram: Array, mean_ref: Array, weight_sums: Array
) -> tuple[NDArray[np.intp], list[Array], Array, Array]:
    """Group targets by their gaps; the missing pixels are taken out of the Gram matrix."""
    missing = pixels.targets.bad & (pixels.weight > 0)
    numbers: dict[bytes, int] = {}
    pattern = np.zeros(len(missing), np.intp)
    reduced: list[klip.Centered] = []
    sums = []
    for i, gaps in enumerate(missing):
        key = np.packbits(gaps).tobytes()
        pattern[i] = numbers.setdefault(key, len(numbers))
        if len(numbers) == len(reduced):
            continue
        sums.append(weight_sums[i])
        remaining, at = klip.Centered(gram, np.zeros(len(gram))), np.flatnonzero(gaps)
        if at.size:
            rows = pixels.refs.at(at) - mean_ref[:, None]
            total = weight_sums[i] if weight_sums[i] > 0 else np.inf
            remaining = klip.leave_out(gram, rows, pixels.weight[at], total)
        reduced.append(remaining)
    offsets = np.array([each.mean for each in reduced])
    return pattern, [each.gram for each in reduced], offsets, np.array(sums)


def _sums_at(
    target_set: TargetSet, at: NDArray[np.intp], mean_target: Array, mean_ref: Array
) -> tuple[Array, Array]:
    """Sum centered targets ``(n_t,)`` and references ``(n_ref,)`` over some pixels."""
    targets, refs = target_set.targets, target_set.refs

    def _sum(block: slice) -> tuple[Array, Array]:
        each = targets.centered(at[block], mean_target).sum(axis=1)
        return each, refs.sums(at[block], mean_ref)

    parts = refs.device.map(_sum, refs.device.pixel_blocks(at.size, len(refs)))
    of_targets, of_refs = np.zeros(len(mean_target)), np.zeros(len(refs))
    for part in parts:
        of_targets, of_refs = of_targets + part[0], of_refs + part[1]
    return of_targets, of_refs


def _levels(
    target_set: TargetSet, level: Mask, of_targets: Array, of_refs: Array, mean_ref: Array
) -> tuple[Array, Array, NDArray[np.intp]]:
    """Means over the good pixels of each target where the level is taken, from sums over all."""
    bad = target_set.targets.bad
    offset = np.tile(of_refs, (len(bad), 1))
    n_good = np.full(len(bad), level.sum())
    for i, missing in enumerate(bad):
        gaps = np.flatnonzero(missing & level)
        if gaps.size:
            offset[i] -= target_set.refs.sums(gaps, mean_ref)
            n_good[i] = max(n_good[i] - gaps.size, 1)
    return of_targets / n_good, offset / n_good[:, None], n_good


def _noise_gram(refs: RefPixels, mean_ref: Array, weight: Array) -> NDArray[np.float64]:
    """Gram matrix by evenly spread pixels: enough to correct squares of coefficients."""
    at = slice(None, None, max(len(weight) // MAX_NOISE_PIXELS, 1))
    rows = refs.device.get(refs.centered(at, mean_ref)) * np.sqrt(weight[at])
    return np.asarray(rows @ rows.T * (weight.sum() / max(weight[at].sum(), 1e-300)))
