"""Whole-pixel shifts, and the fit of all pairs from one expansion of each reference."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from array_api_compat import array_namespace

from lyot.algorithms import fourier
from lyot.algorithms.registration.zone import (
    MAX_STEP_PIX,
    TOLERANCE_PIX,
    ShiftFit,
    Zone,
    noise_in_normal,
    pick,
    pick_rows,
    shift_covariance,
    zone_of,
)

ORDER = 7
"""Highest order of the expansion of a shifted image about a shift."""

Powers = tuple[tuple[int, int], ...]

MAX_NEWTON_STEPS = 12
MAX_OFFSET_PIX = 1.0


def integer_shift(target: Any, weight: Any, spectra: Any, /, *, max_shift: int = 5) -> Any:
    r"""Find the whole-pixel shift ``(n_ref, 2)`` of each reference onto a finite target.

    A masked cross-correlation: the objective is the one that is fitted later, :math:`N_d^2 / D_d`
    with :math:`N_d = \sum w s\,T_d r` and :math:`D_d = \sum w\,(T_d r)^2`, both of which are
    correlations. References without positive correlation get shift zero.
    """
    xp = array_namespace(target, weight, spectra)
    n_y, n_x = target.shape
    grid = (spectra.shape[-2], fourier.odd_grid_length(n_x))
    limit = min(max_shift, fourier.MIN_GAP // 2)

    weight = xp.astype(weight, xp.float64)
    weight_spectrum = fourier.transform(weight, grid)
    data_spectrum = fourier.transform(weight * target, grid)
    waves = fourier.waves(xp.arange(-limit, limit + 1, dtype=xp.float64), grid)
    size = 2 * limit + 1
    best = []
    for k in range(spectra.shape[0]):
        image = xp.fft.irfftn(spectra[k, ...], s=grid, axes=(-2, -1))[:n_y, :n_x]
        n = _correlate(data_spectrum, fourier.transform(image, grid), waves)
        d = _correlate(weight_spectrum, fourier.transform(image * image, grid), waves)
        gain = xp.where((n > 0) & (d > 0), n * n / xp.where(d > 0, d, 1.0), 0.0)
        if float(xp.max(gain)) > 0.0:
            index = int(xp.argmax(xp.reshape(gain, (-1,))))
            best.append([float(index // size - limit), float(index % size - limit)])
        else:
            best.append([0.0, 0.0])
    return xp.asarray(best, dtype=xp.float64)


def _correlate(a: Any, b: Any, waves: fourier.Waves) -> Any:
    """Return ``sum_x a(x) b(x - d)`` for the few ``d`` that `fourier.waves` were made for."""
    xp = array_namespace(a, b)
    return xp.real(xp.matmul(xp.matmul(waves.along_y, a * xp.conj(b)), waves.along_x))


def powers_of(order: int, /) -> Powers:
    """Return the powers of the offset along y and x in an expansion up to an order."""
    return tuple((a, b) for a in range(order + 1) for b in range(order + 1 - a))


class PairTargets(NamedTuple):
    """What the fit of all pairs takes from the targets, at the pixels of the fit zone."""

    shape: tuple[int, int]
    zone: Zone
    weight: Any  # (n_pix,), where no pixel is bad
    weighted: Any  # (n_t, n_pix), weight times target; zero where the target is bad
    power: Any  # (n_t,), weighted sum of the squared target
    total: Any  # (n_t,), sum of the weights
    bad_at: list[Any]  # places of each target's bad pixels
    weight_squared: Any  # (n_t, n_pix), zero where the target is bad
    variance: Any  # (n_t, n_pix), of the targets' noise


def pair_targets(targets: Any, weight: Any, bad: Any, variance: Any, /) -> PairTargets:
    """Pick from targets ``(n_t, n_y, n_x)``, finite where not `bad`, what `fit_pairs` needs."""
    xp = array_namespace(targets, weight, bad, variance)
    zone = zone_of(weight)
    common, excluded = pick(weight, zone), pick_rows(bad[:, zone.rows, :], zone)
    zero = xp.zeros_like(common)
    data, noise = (
        xp.where(excluded, zero, xp.astype(pick_rows(a[:, zone.rows, :], zone), xp.float64))
        for a in (targets, variance)
    )
    weights = xp.where(excluded, zero, common)
    weighted = weights * data
    return PairTargets(
        (targets.shape[-2], targets.shape[-1]),
        zone,
        common,
        weighted,
        xp.sum(weighted * data, axis=1),
        xp.sum(weights, axis=1),
        [xp.nonzero(excluded[i, :])[0] for i in range(targets.shape[0])],
        weights * weights,
        noise,
    )


def fit_pairs(
    targets: PairTargets,
    spectra: Any,
    variance_refs: Any,
    centers_yx: Any,
    /,
    *,
    tolerance: float = TOLERANCE_PIX,
    order: int = ORDER,
) -> ShiftFit:
    r"""Fit shift and scale of some references to all targets from one expansion of each image.

    With :math:`T_{d + \delta} r \approx \sum \delta_y^a \delta_x^b\,r_{ab}` up to some order,
    :math:`N_d = \sum w s\,T_d r` and :math:`D_d = \sum w\,(T_d r)^2` of every pair follow from
    products with the targets, and Newton's method on :math:`N_d^2 / D_d` needs no image at all.

    Parameters
    ----------
    targets : PairTargets
        From `pair_targets`.
    spectra : array, shape (n_ref, m_y, m_x // 2 + 1)
        The references, from `lyot.algorithms.fourier.spectrum`.
    variance_refs : array, shape (n_ref, n_y, n_x)
        Their noise variances.
    centers_yx : array, shape (n_ref, 2)
        The shifts about which they are expanded [pixel].
    tolerance : float, optional
        How far the orders left out may move a shift that counts as converged [pixel].
    order : int, optional
        Order of the expansion; the cost grows with its square.

    Returns
    -------
    ShiftFit, leading axes (n_ref, n_t)
        Shifts, scales and covariances; converged where the orders that the expansion leaves out
        move the shift by less than the tolerance: elsewhere the shift is a start for `refine`.

    Notes
    -----
    To seventh order eight transforms along y and, for each row of the fit zone, 36 along x;
    products of ``(4 n_t, n_pix)`` by ``(n_pix, 36)``; all in float64. For speckles of F444W offsets
    up to 0.3 pixel converge to seventh order, and up to 0.05 pixel to fourth.

    Examples
    --------
    >>> import numpy as np
    >>> y, x = np.mgrid[:32, :32]
    >>> ref = np.exp(-((y - 15.0) ** 2 + (x - 16.0) ** 2) / 8.0)
    >>> targets = [np.exp(-((y - 15.1) ** 2 + (x - 16.2) ** 2) / 8.0), 2.0 * ref]
    >>> one, none = np.ones((32, 32)), np.zeros((2, 32, 32), bool)
    >>> prepared = pair_targets(np.stack(targets), one, none, np.ones((2, 32, 32)))
    >>> fit = fit_pairs(prepared, fourier.spectrum(ref)[None], one[None], np.zeros((1, 2)))
    >>> fit.scale.round(3).tolist()
    [[1.0, 2.0]]
    >>> bool(np.abs(fit.shift_yx[0, 0] - [0.1, 0.2]).max() < 1e-3)
    True
    """
    xp = array_namespace(targets.weighted, spectra)
    zone, powers = targets.zone, powers_of(order)
    # One at a time, so that what is transformed stays in the processor's cache.
    images = [
        fourier.taylor_images(
            spectra[k, ...],
            centers_yx[k, :],
            shape=targets.shape,
            powers=powers,
            rows=zone.rows,
            keep=lambda rows: pick_rows(rows, zone),
        )
        for k in range(spectra.shape[0])
    ]
    basis = xp.stack(images)
    n_ref, n_t = spectra.shape[0], targets.weighted.shape[0]
    # From here on all pairs lie along one axis.
    pairs, by_pair = n_ref * n_t, (n_ref, n_t, -1)
    n = xp.matmul(targets.weighted, xp.matrix_transpose(basis))
    n = xp.reshape(n, (pairs, -1))
    d = xp.reshape(_power_without_bad(basis, targets), (pairs, len(powers), -1))
    delta, last = _maximize(n, d, powers)
    # The step that the highest order makes is the measure of those that are left out.
    lower = xp.astype(xp.asarray([a + b < order for a, b in powers]), xp.float64)
    last_order = _newton_step(delta, n * lower, d * lower[:, None] * lower, powers)
    monomials = _monomials(delta, powers)
    m = [monomials[times] for times in ((0, 0), (1, 0), (0, 1))]
    dm = [xp.matmul(d, row[:, :, None])[:, :, 0] for row in m]
    value, power = xp.sum(n * m[0], axis=1), xp.sum(m[0] * dm[0], axis=1)
    positive = power > 0.0
    scale = xp.where(positive, value / xp.where(positive, power, xp.ones_like(power)), 0.0 * power)
    # sum w (s - b r)^2 = sum w s^2 - 2 b N + b^2 D
    of_targets = (xp.reshape(part, (n_ref, n_t)) for part in (scale * value, scale * scale * power))
    modeled, squared = of_targets
    residual = xp.clip(targets.power - 2.0 * modeled + squared, 0.0, None)
    rms = xp.sqrt(residual / xp.where(targets.total > 0, targets.total, 1.0))
    normal = xp.stack([xp.stack([xp.sum(a * b, axis=1) for b in dm], axis=1) for a in m], axis=1)
    columns = xp.matmul(xp.reshape(xp.stack(m, axis=1), (n_ref, 3 * n_t, -1)), basis)
    v_ref = xp.astype(pick_rows(variance_refs[:, zone.rows, :], zone), xp.float64)
    square = xp.reshape(scale * scale, (n_ref, n_t, 1))
    noise = (targets.variance + square * v_ref[:, None, :]) * targets.weight_squared
    columns = xp.reshape(columns, (n_ref, n_t, 3, -1))
    meat = xp.matmul(columns * noise[:, :, None, :], xp.matrix_transpose(columns))
    # No frequency is above pi, so each order is at most this part of the one before it.
    ratio = xp.pi * xp.sum(xp.abs(delta), axis=1) / (order + 1)
    omitted = xp.max(xp.abs(last_order), axis=1) * ratio / (1.0 - xp.clip(ratio, 0.0, 0.5))
    converged = (last < tolerance) & (omitted < tolerance) & (ratio < 0.5) & (scale != 0.0)
    power = xp.reshape(xp.matmul(v_ref, xp.sqrt(targets.weight_squared).T), (pairs,))
    meat = xp.reshape(meat, (pairs, 3, 3))
    covariance = shift_covariance(normal, meat, scale, noise_in_normal(power, None))
    return ShiftFit(
        centers_yx[:, None, :] + xp.reshape(delta, by_pair),
        xp.reshape(scale, (n_ref, n_t)),
        xp.reshape(covariance, (n_ref, n_t, 2, 2)),
        rms,
        xp.reshape(converged, (n_ref, n_t)),
    )


def _power_without_bad(basis: Any, targets: PairTargets) -> Any:
    """Return the weighted products of the images, ``(n_ref, n_t, n_powers, n_powers)``."""
    xp = array_namespace(basis)
    full = xp.matmul(basis * targets.weight, xp.matrix_transpose(basis))
    parts = []
    for at in targets.bad_at:
        if at.shape[0] == 0:
            parts.append(full)
            continue
        excluded = xp.take(basis, at, axis=2)
        weighted = excluded * xp.take(targets.weight, at)
        parts.append(full - xp.matmul(weighted, xp.matrix_transpose(excluded)))
    return xp.stack(parts, axis=1)


def _maximize(n: Any, d: Any, powers: Powers) -> tuple[Any, Any]:
    """Maximize ``(n.m)^2 / (m.d.m)`` over the offsets; return them and the last steps."""
    xp = array_namespace(n, d)
    delta = xp.zeros((n.shape[0], 2), dtype=xp.float64)
    last = xp.zeros_like(delta[:, 0])
    for _ in range(MAX_NEWTON_STEPS):
        step = xp.clip(_newton_step(delta, n, d, powers), -MAX_STEP_PIX, MAX_STEP_PIX)
        last = xp.max(xp.abs(step), axis=1)
        delta = xp.clip(delta + step, -MAX_OFFSET_PIX, MAX_OFFSET_PIX)
        if float(xp.max(last)) < 1e-10:
            break
    return delta, last


def _newton_step(delta: Any, n: Any, d: Any, powers: Powers) -> Any:
    """Return Newton's step for f = -N^2 / (2 D); the Gauss-Newton one where f is not convex.

    With b = N / D, the quotient rule gives

        f_j  = b^2 D_j / 2 - b N_j
        b_j  = (N_j - b D_j) / D
        f_jk = b^2 D_jk / 2 - b N_jk - D b_j b_k

    where, for the monomials m of the offset, N = n.m and D = m.d.m, so that D_j = 2 m_j.d.m and
    D_jk = 2 (m_jk.d.m + m_j.d.m_k). Dropping second derivatives of the image and the residual
    leaves b^2 (m_j.d.m_k - D_j D_k / (4 D)), the normal matrix with the scale projected out, which
    is positive definite; far from the optimum f may not be (Nocedal and Wright 2006, ch. 3.4).
    """
    xp = array_namespace(n, d)
    monomials = _monomials(delta, powers)
    m, first = monomials[0, 0], (monomials[1, 0], monomials[0, 1])
    second = {(0, 0): (2, 0), (0, 1): (1, 1), (1, 1): (0, 2)}
    dm = xp.matmul(d, m[:, :, None])[:, :, 0]
    power = xp.sum(m * dm, axis=1)
    positive = power > 0.0
    power = xp.where(positive, power, xp.ones_like(power))
    b = xp.sum(n * m, axis=1) / power
    n_j = [xp.sum(n * g, axis=1) for g in first]
    d_j = [2.0 * xp.sum(dm * g, axis=1) for g in first]
    b_j = [(nj - b * dj) / power for nj, dj in zip(n_j, d_j, strict=True)]
    gradient = [0.5 * b * b * dj - b * nj for nj, dj in zip(n_j, d_j, strict=True)]
    newton, plain = {}, {}
    for (j, k), order in second.items():
        m_jk = monomials[order]
        cross = xp.sum(first[j] * xp.matmul(d, first[k][:, :, None])[:, :, 0], axis=1)
        plain[j, k] = b * b * (cross - 0.25 * d_j[j] * d_j[k] / power)
        curve = b * b * (xp.sum(m_jk * dm, axis=1) + cross) - b * xp.sum(n * m_jk, axis=1)
        newton[j, k] = curve - power * b_j[j] * b_j[k]
    convex = (newton[0, 0] > 0.0) & (_determinant(newton) > 0.0)
    used = {key: xp.where(convex, newton[key], plain[key]) for key in second}
    det = _determinant(used)
    usable = positive & (det > 0.0)
    det = xp.where(usable, det, xp.ones_like(det))
    y = (used[0, 1] * gradient[1] - used[1, 1] * gradient[0]) / det
    x = (used[0, 1] * gradient[0] - used[0, 0] * gradient[1]) / det
    step = xp.stack([y, x], axis=1)
    return xp.where(usable[:, None], step, xp.zeros_like(step))


def _determinant(h: dict[tuple[int, int], Any]) -> Any:
    return h[0, 0] * h[1, 1] - h[0, 1] * h[0, 1]


def _monomials(delta: Any, powers: Powers) -> dict[tuple[int, int], Any]:
    """Monomials of the offsets ``(n_t, n_powers)``, keyed by derivatives along y and x."""
    xp = array_namespace(delta)
    a, b = (xp.asarray([each[axis] for each in powers]) for axis in (0, 1))
    order = powers[-1][0]
    y = [xp.take(columns, a, axis=1) for columns in _power_columns(delta[:, 0], order)]
    x = [xp.take(columns, b, axis=1) for columns in _power_columns(delta[:, 1], order)]
    return {(j, k): y[j] * x[k] for j in range(3) for k in range(3 - j)}


def _power_columns(value: Any, order: int) -> list[Any]:
    """Return ``value**p`` for all powers p and its two derivatives, ``(n_t, order + 1)`` each."""
    xp = array_namespace(value)
    plain = [xp.ones_like(value)]
    for _ in range(order):
        plain.append(plain[-1] * value)
    zero = xp.zeros_like(value)
    columns = []
    for times in range(3):
        factors = [float(math.perm(p, times)) for p in range(order + 1)]
        shifted = xp.stack([zero] * times + plain[: order + 1 - times], axis=1)
        columns.append(shifted * xp.asarray(factors, dtype=xp.float64))
    return columns
