r"""The error of a residual: noise of targets and references, through the fit.

With the modes :math:`Z = W R`, :math:`A = dC/dT = W^T Z w` and the leverage
:math:`h = w\,(\sum_k Z_k^2 + 1/\sum w)` the squared coefficients without their own noise are
:math:`c2_k = c_k^2 - \sum_j A_{kj}^2\,var_{T,j}`: noise in a coefficient is noise that the target
has anyway, and counts in h. Then :math:`v = var_T + \sum_k c2_k\,var_{R,k}`, and
:math:`var = (1 - 2h)\,v + h \langle v \rangle` in the fit, :math:`v + h \langle v \rangle` outside
(`lyot.algorithms.propagation`).

All integrations subtract the same references, so that the noise of these is not averaged down:
the part of the references in the variance of the mean is
:math:`\sum_k (\overline{c_k}^2 - \overline{\sum_j A_{kj}^2 var_T} / n) var_{R,k}`, with n
integrations and the mean over them, through the fit as before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lyot.algorithms import klip, propagation
from lyot.compute import threads
from lyot.subtraction.fit import AreaFits
from lyot.subtraction.pixels import RefPixels
from lyot.subtraction.products import Run, ZoneProducts
from lyot.types import Array


class FitVariance(NamedTuple):
    """How the fits of one area with one number of modes act on variances."""

    leverage: Array  # (n_zone_pix,): h of each pixel over its weight
    mean_refs: Array  # (n_ref,): mean variance of each reference, weighted by h
    own_noise: Array  # (n_ref,): variance that the noise of a typical target gives to coefficients
    typical: float  # mean variance of that target


class Propagated(NamedTuple):
    """Variance of residuals, times the share of each pixel, and what gave it."""

    variance: Array  # (n_t, n_zone_pix)
    refs: Array  # (n_zone_pix,): the references' part, summed over the targets
    effect: FitVariance


class LeverageSums(NamedTuple):
    """Sums over a block of pixels, the last three for each number of modes."""

    mode_noise: Array  # ``Z w^2 var_T Z^T`` of a typical target; zero where fitted one by one
    h: Array  # (n_trunc,): of the leverage
    targets: Array  # (n_t, n_trunc): of the variances of targets, weighted by the leverage
    refs: Array  # (n_ref, n_trunc): of those of references, likewise


def leverage_of_blocks(
    run: Run, area: ZoneProducts, fits: AreaFits, leverage: Array, /
) -> Callable[[slice, Any, Any], LeverageSums]:
    """Return a function of blocks that writes `leverage` ``(n_trunc, n_zone_pix)`` and sums."""

    put, get = run.device.put, run.device.get

    def _block(inside: slice, _: Any, modes: Any) -> LeverageSums:
        w = area.weight[inside]
        for k, n in enumerate(run.recipe.n_modes):
            used = modes[: min(n, fits.n_kept), :]
            leverage[k, inside] = get(propagation.leverage(used, 1.0 / area.weight_sum))
        h = leverage[:, inside] * w
        noise = np.zeros(1)
        if not fits.one_by_one:
            typical = area.typical_variance[inside]
            noise = get(propagation.coefficient_noise(modes, put(typical), put(w)))
        return LeverageSums(
            noise,
            h.sum(axis=1),
            area.targets.variance[:, inside] @ (h * w).T,
            get(area.refs.variance_at(inside) @ put((h * w).T.astype(np.float32))),
        )

    return _block


def variance_of_fits(
    run: Run,
    area: ZoneProducts,
    fits: AreaFits,
    coefs: list[Array],
    leverage: Array,
    sums: LeverageSums,
    /,
) -> list[Propagated]:
    """Propagate variances through the fits, for each number of modes."""
    typical = float(area.typical_variance.mean())
    out = []
    for k, (n, c) in enumerate(zip(run.recipe.n_modes, coefs, strict=True)):
        per_h = 1.0 / sums.h[k] if sums.h[k] > 0 else 0.0
        own = _own_noise(area, fits, n, sums.mode_noise)
        effect = FitVariance(leverage[k], per_h * sums.refs[:, k], own.mean(axis=0), typical)
        squared = area.refs.in_references(c) ** 2 - area.noise_scale[:, None] * own
        out.append(_propagate(area, effect, squared, per_h * sums.targets[:, k]))
    return out


def variance_of_later_fits(
    area: ZoneProducts, coefs: list[Array], effects: list[FitVariance], /
) -> list[Propagated]:
    """Do as `variance_of_fits` for a later set of references, with the leverage of the first."""
    out = []
    for effect, c in zip(effects, coefs, strict=True):
        brighter = area.typical_variance.mean() / max(effect.typical, np.finfo(float).tiny)
        squared = area.refs.in_references(c) ** 2 - brighter * effect.own_noise
        h = effect.leverage * area.weight
        total = float(h.sum())
        own = (area.targets.variance * h).sum(axis=1) / total if total > 0 else 0.0
        out.append(_propagate(area, effect, squared, own))
    return out


def _own_noise(area: ZoneProducts, fits: AreaFits, n_modes: int, mode_noise: Array) -> Array:
    """Variance of coefficients by the noise of a typical target; of each target, or a row for all.

    One by one, ``Z w^2 var_T Z^T`` is ``W N W^T``, N the Gram matrix with the weight ``w^2 var_T``.
    """
    if not fits.one_by_one:
        matrix = area.refs.in_references(fits.lead.matrix)
        return np.asarray(propagation.own_noise(matrix, mode_noise, n_modes=n_modes))[None]
    weights = area.refs.component_weights
    out = np.zeros((len(fits.rows), area.refs.n_refs))
    for i, fit in enumerate(fits.fits):
        matrix = fit.operator.matrix[:n_modes]
        noise = matrix @ area.noise_gram[np.ix_(fit.refs, fit.refs)] @ matrix.T
        at = np.searchsorted(fits.refs, fit.refs) if weights is None else slice(None)
        real = matrix if weights is None else matrix @ weights[fit.refs]
        out[i, at] = (real * (noise @ real)).sum(axis=0)
    return out


def _propagate(
    area: ZoneProducts, effect: FitVariance, squared: Array, mean_targets: Array | float
) -> Propagated:
    """Return ``var_T + squared @ var_R`` through the fit; a last row is the references alone."""
    out = np.empty(area.targets.sci.shape, np.float32)
    refs_part = np.zeros(len(area.share))
    average = squared.mean(axis=0, keepdims=True)
    means = np.concatenate([mean_targets + squared @ effect.mean_refs, average @ effect.mean_refs])
    device, n_ref = area.refs.device, len(area.refs)
    factors = device.put(np.concatenate([squared, average]).astype(np.float32))

    def _block(inside: slice) -> None:
        variance = factors @ area.refs.variance_at(inside)
        variance[:-1, :] += device.put(area.targets.variance[:, inside])
        of_fit = (effect.leverage[inside], area.weight[inside], means)
        after = propagation.propagate_through_fit(variance, *device.put(of_fit))
        after = device.get(after)
        after *= area.share[inside]
        out[:, inside] = after[:-1]
        refs_part[inside] = len(out) * after[-1]

    blocks = device.pixel_blocks(len(area.share), n_ref)
    device.map(_block, blocks, item_bytes=threads.block_bytes(n_ref))
    return Propagated(out, refs_part, effect)


def scatter_of_blocks(
    run: Run, area: ZoneProducts, out: Array, /
) -> Callable[[slice, Any, Any], None]:
    """Return a function of blocks that writes the scatter of the references about their modes."""
    modes = klip.decompose(run.device.put(area.mode_gram))

    def _block(inside: slice, rows: Any, _: Any) -> None:
        for k, n in enumerate(run.recipe.n_modes):
            scatter = run.device.get(klip.reference_scatter(rows, modes, n_modes=n))
            out[k, inside] = area.share[inside] * scatter**2

    return _block


def error_from_scatter(area: ZoneProducts, variance: Array, /) -> Propagated:
    """Return the scatter as the variance of every target; none of it counts as the references'."""
    n_pix, zeros = len(area.share), np.zeros(area.refs.n_refs)
    by_target = np.broadcast_to(variance.astype(np.float32), area.targets.sci.shape)
    return Propagated(by_target, np.zeros(n_pix), FitVariance(np.zeros(n_pix), zeros, zeros, 1.0))


class CoherentNoise:
    """Sums over all sets of one area, for the noise of references that integrations share."""

    def __init__(self, area: ZoneProducts, n_ref: int, /) -> None:
        self.where, self.share, self.weight = area.where, area.share, area.weight
        self.leverage, self.n_targets = np.zeros(len(area.share)), 0
        self.mean_refs, self.own_noise, self.n_refs = np.zeros((3, n_ref))

    def add(self, area: ZoneProducts, fits: AreaFits, effect: FitVariance) -> None:
        """Add the fits to one set of references; the weight of the last set stands for all."""
        n = len(fits.rows)
        used = fits.refs if area.refs.component_weights is None else slice(None)
        self.weight = area.weight
        self.leverage += n * effect.leverage
        self.mean_refs[used] += n * effect.mean_refs
        self.own_noise[used] += n * effect.own_noise
        self.n_refs[used] += n
        self.n_targets += n

    def variance(self, refs: RefPixels, mean_coefs: Array, n_int: int) -> Array:
        """Return the references' part of the variance of the mean, on the pixels of the zone."""
        average = refs.in_references(mean_coefs)
        squared = average**2 - self.own_noise / n_int**2
        typical = squared[None] @ (self.mean_refs / np.maximum(self.n_refs, 1))
        out = np.empty(len(self.share))
        for inside in refs.device.pixel_blocks(len(out), len(refs)):
            at = inside if isinstance(self.where, slice) else self.where[inside]
            factors = refs.device.put(squared.astype(np.float32))
            plane = refs.device.get(factors @ refs.variance_at(at))[None]
            leverage = self.leverage[inside] / max(self.n_targets, 1)
            after = propagation.propagate_through_fit(plane, leverage, self.weight[inside], typical)
            out[inside] = self.share[inside] * after[0]
        return out
