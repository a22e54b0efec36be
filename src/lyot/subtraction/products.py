"""Products over the pixels of a zone, from which every fit follows by algebra."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms import klip
from lyot.algorithms.zones import Zone
from lyot.compute import devices, threads
from lyot.parameters import PROPAGATED, SubtractRecipe
from lyot.subtraction.methods import Method, fits_each
from lyot.subtraction.pixels import RefPixels, Targets, ZonePixels, cut
from lyot.types import Array

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


class Means(NamedTuple):
    """Weighted means: exact of each target over its good pixels, rough of each frame."""

    target: Array
    rough_ref: Array


class Grams(NamedTuple):
    """Inner products of centered targets and frames over the pixels of a zone."""

    gram: Array  # (n_ref, n_ref), with the weight of the fit
    mode_gram: Array  # with that of the modes; the same object where the weights are the same
    cross: Array  # (n_t, n_ref): products of the targets with the frames
    mean_ref: Array  # (n_ref,), subtracted from each frame
    weight_sum: float  # infinity where no mean is subtracted
    target_square: Array  # (n_t,): product of each target with itself over its good pixels


class Gaps(NamedTuple):
    """Targets grouped by the pixels of the fit that they miss."""

    pattern: NDArray[np.intp]  # (n_t,): number of the pattern of each target
    grams: list[Array]  # of each pattern, over the remaining pixels
    offsets: Array  # (n_pattern, n_ref): mean of each centered frame over them
    weight_sums: Array  # (n_pattern,), of those pixels; infinity where no mean is subtracted

    def targets(self) -> list[NDArray[np.intp]]:
        """Return the targets of each pattern."""
        return [np.flatnonzero(self.pattern == p) for p in range(len(self.grams))]

    def gram_of(self, target: int) -> Array:
        """Return the Gram matrix of one target."""
        return self.grams[self.pattern[target]]


class Levels(NamedTuple):
    """Means of centered targets and frames where the level of the residual is taken."""

    target: Array  # (n_t,)
    offset: Array  # (n_t, n_ref): of each frame over the good pixels of each target
    n: NDArray[np.intp]  # (n_t,): number of those pixels; zero where the level is that of the fit


class Noise(NamedTuple):
    """Noise of the targets in a zone."""

    typical_variance: Array  # (n_zone_pix,): mean of all targets
    scale: Array  # (n_t,): variance of each target over that
    gram: Array  # with weight ``w^2 typical_variance``; empty unless fitted one by one


class ZoneProducts(NamedTuple):
    """All that the pixels of a zone give, for all targets that share references."""

    zone: Zone
    pixels: ZonePixels
    means: Means
    grams: Grams
    gaps: Gaps
    levels: Levels
    noise: Noise


def zone_products(run: Run, target_set: TargetSet, zone: Zone, /) -> ZoneProducts:
    """Touch the pixels of a zone for the first of two times."""
    recipe, targets, refs = run.recipe, target_set.targets, target_set.refs
    pixels, subtract_mean = cut(targets, refs, zone), recipe.subtract_mean
    n_t = len(targets.sci)
    counted = np.array([pixels.weight.sum() - pixels.weight[b].sum() for b in pixels.targets.bad])
    means = Means(np.zeros(n_t), np.zeros(len(refs)))
    if subtract_mean:
        means = _means(pixels, counted)
    grams = _grams(pixels, means, run.device, subtract_mean=subtract_mean)
    gaps = _gaps(pixels, grams, counted if subtract_mean else np.full(n_t, np.inf))
    levels = Levels(np.zeros(n_t), gaps.offsets[gaps.pattern], np.zeros(n_t, np.intp))
    if subtract_mean and zone.level.any():
        levels = _levels(targets, refs, zone, means.target, grams.mean_ref)
    typical = pixels.targets.variance.mean(axis=0, dtype=np.float64)
    noise_gram = np.empty((0, 0))
    if fits_each(recipe) and recipe.error == PROPAGATED:
        noise_gram = _noise_gram(pixels.refs, grams.mean_ref, pixels.weight**2 * typical)
    noise = Noise(typical, target_set.noise_scale, noise_gram)
    return ZoneProducts(zone, pixels, means, grams, gaps, levels, noise)


def noise_scale(targets: Targets, /) -> Array:
    """Return the mean variance of each target over that of all."""
    brightness = targets.variance.mean(axis=1, dtype=np.float64)
    return np.asarray(brightness / max(brightness.mean(), np.finfo(float).tiny))


def _means(pixels: ZonePixels, counted: Array) -> Means:
    """Weighted means; those of frames by every 64th pixel, which takes off the pedestal."""
    weight, (sci, missing, _) = pixels.weight, pixels.targets
    target = np.zeros(len(sci))
    for i, (row, gaps) in enumerate(zip(sci, missing, strict=True)):
        data = np.where(gaps, 0.0, row) if gaps.any() else row.astype(np.float64)
        target[i] = data @ weight / counted[i] if counted[i] > 0 else 0.0
    sparse = slice(None, None, 64)
    w = weight[sparse]
    total = float(w.sum())
    rows = np.where(w > 0, pixels.refs.sci[:, sparse], 0.0)
    return Means(target, np.asarray(rows @ w / total if total > 0 else np.zeros(len(rows))))


def _grams(
    pixels: ZonePixels, means: Means, device: devices.Device, *, subtract_mean: bool
) -> Grams:
    """Form the Gram matrix and cross products, with the exact mean taken off the frames.

    The rough mean is taken off the pixels first, and only the remainder algebraically: from frames
    with a pedestal that would cost the faint modes.
    """
    products = _sum_over_blocks(pixels, means, pixels.weight, device)
    gram, mean_ref, weight_sum = products.gram, means.rough_ref, np.inf
    if subtract_mean and pixels.weight.any():
        weight_sum = float(pixels.weight.sum())
        centered = klip.recenter(gram, products.ref_sum, weight_sum)
        gram, mean_ref = centered.gram, means.rough_ref + centered.mean
    mode_gram = gram
    if pixels.mode_weight is not pixels.weight:
        of_modes = _sum_over_blocks(pixels, means, pixels.mode_weight, device)
        mode_gram = of_modes.gram
        if subtract_mean and pixels.mode_weight.any():
            total = float(pixels.mode_weight.sum())
            mode_gram = klip.recenter(mode_gram, of_modes.ref_sum, total).gram
    square = _squares(pixels, means.target)
    return Grams(gram, mode_gram, products.cross, mean_ref, weight_sum, square)


def _sum_over_blocks(
    pixels: ZonePixels, means: Means, weight: Array, device: devices.Device
) -> klip.Products:
    """Add up the products of blocks of pixels, in order."""
    plain = bool((weight == 1.0).all())

    def _block(at: slice) -> klip.Products:
        rows = pixels.refs.centered(at, means.rough_ref)
        data = pixels.targets.centered(at, means.target)
        root = np.sqrt(weight[at])
        if not plain:
            rows *= root
            data *= root
        products: klip.Products = device.run(klip.block_products, data, rows, root)
        return products

    parts = threads.map_ordered(_block, threads.pixel_blocks(len(weight)))
    return klip.Products(*(sum(p) for p in zip(*parts, strict=True)))


def _squares(pixels: ZonePixels, means: Array) -> NDArray[np.float64]:
    """Weighted sum of the squares of each target about its mean, over its good pixels."""
    return np.array(
        [
            float(np.where(gaps, 0.0, row - mean).astype(np.float64) ** 2 @ pixels.weight)
            for row, gaps, mean in zip(pixels.targets.sci, pixels.targets.bad, means, strict=True)
        ]
    )


def _gaps(pixels: ZonePixels, grams: Grams, weight_sums: Array) -> Gaps:
    """Group targets by their gaps; the missing pixels are taken out of the Gram matrix."""
    missing = pixels.targets.bad & (pixels.weight > 0)
    numbers: dict[bytes, int] = {}
    pattern = np.zeros(len(missing), np.intp)
    reduced, offsets, sums = [], [], []
    for i, gaps in enumerate(missing):
        key = np.packbits(gaps).tobytes()
        if key not in numbers:
            numbers[key] = len(numbers)
            sums.append(weight_sums[i])
            at = np.flatnonzero(gaps)
            if at.size == 0:
                reduced.append(grams.gram)
                offsets.append(np.zeros(len(grams.gram)))
            else:
                remaining = klip.leave_out(
                    grams.gram,
                    pixels.refs.sci[:, at] - grams.mean_ref[:, None],
                    pixels.weight[at],
                    weight_sums[i] if weight_sums[i] > 0 else np.inf,
                )
                reduced.append(remaining.gram)
                offsets.append(remaining.mean)
        pattern[i] = numbers[key]
    return Gaps(pattern, reduced, np.array(offsets), np.array(sums))


def _levels(
    targets: Targets, refs: RefPixels, zone: Zone, mean_target: Array, mean_ref: Array
) -> Levels:
    """Means over the part of the frame where the level is taken, outside the zone or in it."""
    at = np.flatnonzero(zone.level.ravel() & ~refs.all_bad)
    level = np.zeros(len(targets.sci))
    offset = np.zeros((len(targets.sci), len(refs.sci)))
    n_good = np.zeros(len(targets.sci), np.intp)
    rows = refs.sci[:, at] - mean_ref[:, None]
    total = rows.sum(axis=1)
    for i, (image, bad) in enumerate(zip(targets.sci, targets.bad, strict=True)):
        gaps = bad[at]
        n = max(at.size - int(gaps.sum()), 1)
        level[i] = image[at[~gaps]].sum(dtype=np.float64) / n - mean_target[i]
        offset[i] = (total - rows[:, gaps].sum(axis=1)) / n
        n_good[i] = n
    return Levels(level, offset, n_good)


def _noise_gram(refs: RefPixels, mean_ref: Array, weight: Array) -> NDArray[np.float64]:
    """Gram matrix by evenly spread pixels: enough to correct squares of coefficients."""
    at = slice(None, None, max(len(weight) // MAX_NOISE_PIXELS, 1))
    rows = refs.centered(at, mean_ref) * np.sqrt(weight[at])
    return np.asarray(rows @ rows.T * (weight.sum() / max(weight[at].sum(), 1e-300)))
