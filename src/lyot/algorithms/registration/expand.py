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
    pick,
    pick_rows,
    shift_covariance,
    zone_of,
)

ORDER = 7
"""Order of the expansion of a shifted image about a shift."""

POWERS = tuple((a, b) for a in range(ORDER + 1) for b in range(ORDER + 1 - a))
"""Powers of the offset along y and x in that expansion."""

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

    def transform(image: Any) -> Any:
        """Transform an image, zero beyond it on the periodic grid."""
        return xp.fft.rfftn(xp.astype(image, xp.float64), s=grid, axes=(-2, -1))

    weight_spectrum, data_spectrum = transform(weight), transform(weight * target)
    waves = fourier.waves(xp.arange(-limit, limit + 1, dtype=xp.float64), grid)
    size = 2 * limit + 1
    best = []
    for k in range(spectra.shape[0]):
        image = xp.fft.irfftn(spectra[k, ...], s=grid, axes=(-2, -1))[:n_y, :n_x]
        n = _correlate(data_spectrum, transform(image), waves)
        d = _correlate(weight_spectrum, transform(image * image), waves)
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
    spectrum: Any,
    variance_ref: Any,
    center_yx: Any,
    /,
    *,
    tolerance: float = TOLERANCE_PIX,
) -> ShiftFit:
    r"""Fit shift and scale of one reference to all targets from one expansion of its image.

    With :math:`T_{d + \delta} r \approx \sum \delta_y^a \delta_x^b\,r_{ab}` to seventh order,
    :math:`N_d = \sum w s\,T_d r` and :math:`D_d = \sum w\,(T_d r)^2` of every pair follow from
    products with the targets, and Newton's method on :math:`N_d^2 / D_d` needs no image at all.

    Parameters
    ----------
    targets : PairTargets
        From `pair_targets`.
    spectrum : array, shape (m_y, m_x // 2 + 1)
        The reference, from `lyot.algorithms.fourier.spectrum`.
    variance_ref : array, shape (n_y, n_x)
        Its noise variance.
    center_yx : array, shape (2,)
        The shift about which it is expanded [pixel].
    tolerance : float, optional
        How far the orders left out may move a shift that counts as converged [pixel].

    Returns
    -------
    ShiftFit, leading axis n_t
        Shifts, scales and covariances; converged where the orders that the expansion leaves out
        move the shift by less than the tolerance: elsewhere the shift is a start for `refine`.

    Notes
    -----
    Eight transforms along y and, for each row of the fit zone, 36 along x; products of
    ``(4 n_t, n_pix)`` by ``(n_pix, 36)``; all in float64. For speckles of F444W offsets up to 0.3
    pixel converge.

    Examples
    --------
    >>> import numpy as np
    >>> y, x = np.mgrid[:32, :32]
    >>> ref = np.exp(-((y - 15.0) ** 2 + (x - 16.0) ** 2) / 8.0)
    >>> targets = [np.exp(-((y - 15.1) ** 2 + (x - 16.2) ** 2) / 8.0), 2.0 * ref]
    >>> one, none = np.ones((32, 32)), np.zeros((2, 32, 32), bool)
    >>> prepared = pair_targets(np.stack(targets), one, none, np.ones((2, 32, 32)))
    >>> fit = fit_pairs(prepared, fourier.spectrum(ref), one, np.zeros(2))
    >>> fit.scale.round(3).tolist()
    [1.0, 2.0]
    >>> bool(np.abs(fit.shift_yx[0] - [0.1, 0.2]).max() < 1e-3)
    True
    """
    xp = array_namespace(targets.weighted, spectrum)
    zone = targets.zone
    images = fourier.taylor_images(
        spectrum, center_yx, shape=targets.shape, powers=POWERS, rows=zone.rows
    )
    basis = xp.stack([pick_rows(image, zone) for image in images])
    n = xp.matmul(targets.weighted, xp.matrix_transpose(basis))
    d = _power_without_bad(basis, targets)
    delta, last = _maximize(n, d)
    # The step that the highest order makes is the measure of those that are left out.
    lower = xp.astype(xp.asarray([a + b < ORDER for a, b in POWERS]), xp.float64)
    last_order = _newton_step(delta, n * lower, d * lower[:, None] * lower)
    monomials = _monomials(delta)
    m = [monomials[order] for order in ((0, 0), (1, 0), (0, 1))]
    dm = [xp.matmul(d, row[:, :, None])[:, :, 0] for row in m]
    value, power = xp.sum(n * m[0], axis=1), xp.sum(m[0] * dm[0], axis=1)
    positive = power > 0.0
    scale = xp.where(positive, value / xp.where(positive, power, xp.ones_like(power)), 0.0 * power)
    # sum w (s - b r)^2 = sum w s^2 - 2 b N + b^2 D
    residual = targets.power - 2.0 * scale * value + scale * scale * power
    rms = xp.sqrt(xp.clip(residual, 0.0, None) / xp.where(targets.total > 0, targets.total, 1.0))
    normal = xp.stack([xp.stack([xp.sum(a * b, axis=1) for b in dm], axis=1) for a in m], axis=1)
    columns = xp.matmul(xp.stack(m, axis=1), basis)
    v_ref = xp.astype(pick(variance_ref, zone), xp.float64)
    noise = (targets.variance + (scale * scale)[:, None] * v_ref) * targets.weight_squared
    meat = xp.matmul(columns * noise[:, None, :], xp.matrix_transpose(columns))
    # No frequency is above pi, so each order is at most this part of the one before it.
    ratio = xp.pi * xp.sum(xp.abs(delta), axis=1) / (ORDER + 1)
    omitted = xp.max(xp.abs(last_order), axis=1) * ratio / (1.0 - xp.clip(ratio, 0.0, 0.5))
    converged = (last < tolerance) & (omitted < tolerance) & (ratio < 0.5) & (scale != 0.0)
    covariance = shift_covariance(normal, meat, scale)
    return ShiftFit(center_yx[None, :] + delta, scale, covariance, rms, converged)


def _power_without_bad(basis: Any, targets: PairTargets) -> Any:
    """Return the weighted products of the expansion's images, ``(n_t, n_powers, n_powers)``."""
    xp = array_namespace(basis)
    full = xp.matmul(basis * targets.weight, xp.matrix_transpose(basis))
    parts = []
    for at in targets.bad_at:
        if at.shape[0] == 0:
            parts.append(full)
            continue
        excluded = xp.take(basis, at, axis=1)
        weighted = excluded * xp.take(targets.weight, at)
        parts.append(full - xp.matmul(weighted, xp.matrix_transpose(excluded)))
    return xp.stack(parts)


def _maximize(n: Any, d: Any) -> tuple[Any, Any]:
    """Maximize ``(n.m)^2 / (m.d.m)`` over the offsets; return them and the last steps."""
    xp = array_namespace(n, d)
    delta = xp.zeros((n.shape[0], 2), dtype=xp.float64)
    last = xp.zeros_like(delta[:, 0])
    for _ in range(MAX_NEWTON_STEPS):
        step = xp.clip(_newton_step(delta, n, d), -MAX_STEP_PIX, MAX_STEP_PIX)
        last = xp.max(xp.abs(step), axis=1)
        delta = xp.clip(delta + step, -MAX_OFFSET_PIX, MAX_OFFSET_PIX)
        if float(xp.max(last)) < 1e-10:
            break
    return delta, last


def _newton_step(delta: Any, n: Any, d: Any) -> Any:
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
    monomials = _monomials(delta)
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


def _monomials(delta: Any) -> dict[tuple[int, int], Any]:
    """Monomials of the offsets ``(n_t, n_powers)``, keyed by derivatives along y and x."""
    xp = array_namespace(delta)
    a, b = (xp.asarray([powers[axis] for powers in POWERS]) for axis in (0, 1))
    y = [xp.take(columns, a, axis=1) for columns in _powers(delta[:, 0])]
    x = [xp.take(columns, b, axis=1) for columns in _powers(delta[:, 1])]
    return {(j, k): y[j] * x[k] for j in range(3) for k in range(3 - j)}


def _powers(value: Any) -> list[Any]:
    """Return ``value**p`` for all powers p and its two derivatives, ``(n_t, ORDER + 1)`` each."""
    xp = array_namespace(value)
    plain = [xp.ones_like(value)]
    for _ in range(ORDER):
        plain.append(plain[-1] * value)
    zero = xp.zeros_like(value)
    columns = []
    for times in range(3):
        factors = [float(math.perm(p, times)) for p in range(ORDER + 1)]
        shifted = xp.stack([zero] * times + plain[: ORDER + 1 - times], axis=1)
        columns.append(shifted * xp.asarray(factors, dtype=xp.float64))
    return columns
