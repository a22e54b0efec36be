"""Whole-pixel shifts, and the fit of all pairs from one expansion of each reference."""

from __future__ import annotations

from typing import Any, NamedTuple

from array_api_compat import array_namespace, device

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

ORDER = 9
"""Highest order of the expansion of a shifted image about a shift."""
REACH_PIX = 0.3

MAX_NEWTON_STEPS = 12
MAX_OFFSET_PIX = 1.0


def integer_shift(
    target: Any, weight: Any, spectra: Any, /, *, max_shift: int = 5, at_once: int = 1
) -> Any:
    r"""Find the whole-pixel shift of each reference onto a finite target: ``(n_ref, 2)``.

    Of each onto several targets ``(n_t, n_y, n_x)`` it is ``(n_ref * n_t, 2)``. A masked
    cross-correlation: the objective is the one that is fitted later, :math:`N_d^2 / D_d` with
    :math:`N_d = \sum w s\,T_d r` and :math:`D_d = \sum w\,(T_d r)^2`, both of which are
    correlations. References without positive correlation get shift zero. `at_once` references are
    transformed at once.
    """
    xp = array_namespace(target, weight, spectra)
    n_y, n_x = target.shape[-2:]
    grid = (spectra.shape[-2], fourier.odd_grid_length(n_x))
    limit = min(max_shift, fourier.MIN_GAP // 2)

    weight = xp.astype(weight, xp.float64)
    weight_spectrum = fourier.transform(weight, grid)
    targets = xp.reshape(target, (-1, n_y, n_x))
    data_spectra = fourier.transform(weight * targets, grid)
    like = {"dtype": xp.float64, "device": device(spectra)}
    waves = fourier.waves(xp.arange(-limit, limit + 1, **like), grid)
    size, still = 2 * limit + 1, xp.zeros(2, **like)
    gains = []
    for k in range(0, spectra.shape[0], at_once):
        image = fourier.shift(spectra[k : k + at_once, None, ...], still, shape=(n_y, n_x))
        d = _correlate(weight_spectrum, fourier.transform(image * image, grid), waves)
        n = _correlate(data_spectra, fourier.transform(image, grid), waves)
        gain = xp.where((n > 0) & (d > 0), n * n / xp.where(d > 0, d, 1.0), 0.0)
        gains.append(xp.reshape(gain, (-1, size * size)))
    gain = xp.concat(gains)
    at = xp.argmax(gain, axis=1)
    best = xp.astype(xp.stack([at // size, at % size], axis=1), xp.float64) - limit
    return xp.where(xp.max(gain, axis=1)[:, None] > 0.0, best, 0.0)


def _correlate(a: Any, b: Any, waves: fourier.Waves) -> Any:
    """Return ``sum_x a(x) b(x - d)`` for the few ``d`` that `fourier.waves` were made for."""
    xp = array_namespace(a, b)
    return xp.real(xp.matmul(xp.matmul(waves.along_y, a * xp.conj(b)), waves.along_x))


class Expansion(NamedTuple):
    """Terms of an expansion: Chebyshev's polynomials of the offset over the reach."""

    powers: tuple[tuple[int, int], ...]  # orders of the polynomials along y and x
    reach_yx: Any  # (2,) [pixel]

    @property
    def order(self) -> int:
        """The highest order."""
        return self.powers[-1][0]


def powers_of(order: int, /) -> tuple[tuple[int, int], ...]:
    """Return the orders along y and x of the terms of an expansion up to an order."""
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
    weights: Any  # (n_t, n_pix), zero where the target is bad
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
        weights,
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
    reach_yx: Any = None,
    at_once: int = 1,
) -> ShiftFit:
    r"""Fit shift and scale of some references to all targets from one expansion of each image.

    With :math:`T_{d + \delta} r \approx \sum T_a(\delta_y / R_y)\,T_b(\delta_x / R_x)\,r_{ab}` up
    to some order of Chebyshev's polynomials, :math:`N_d = \sum w s\,T_d r` and
    :math:`D_d = \sum w\,(T_d r)^2` of every pair follow from products with the targets, and
    Newton's method on :math:`N_d^2 / D_d` needs no image at all.

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
    reach_yx : array, shape (2,), optional
        The offsets from the center for which the expansion is made [pixel], 0.3 by default.
    at_once : int, optional
        References that are expanded at once: one, so that what is transformed stays in the
        processor's cache.

    Returns
    -------
    ShiftFit, leading axes (n_ref, n_t)
        Shifts, scales and covariances; converged where the orders that the expansion leaves out
        move the shift by less than the tolerance: elsewhere the shift is a start for `refine`.

    Notes
    -----
    To sixth order seven transforms along y and, for each row of the fit zone, 28 along x; products
    of ``(4 n_t, n_pix)`` by ``(n_pix, 28)``, in float64. For speckles of F444W sixth order
    reaches 0.3 pixel.

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
    xp, there = array_namespace(targets.weighted, spectra), device(spectra)
    zone = targets.zone
    if reach_yx is None:
        reach_yx = xp.full(2, REACH_PIX, dtype=xp.float64, device=there)
    expansion = Expansion(powers_of(order), reach_yx)
    powers = expansion.powers
    terms = fourier.chebyshev_terms(spectra, reach_yx, shape=targets.shape, order=order)
    images = [
        fourier.expanded_images(
            spectra[k : k + at_once, ...],
            centers_yx[k : k + at_once, :],
            terms,
            shape=targets.shape,
            powers=powers,
            rows=zone.rows,
            keep=lambda rows: pick_rows(rows, zone),
        )
        for k in range(0, spectra.shape[0], at_once)
    ]
    basis = xp.astype(xp.concat(images), xp.float64, copy=False)
    n_ref, n_t = spectra.shape[0], targets.weighted.shape[0]
    # From here on all pairs lie along one axis.
    pairs, by_pair = n_ref * n_t, (n_ref, n_t, -1)
    n = xp.matmul(targets.weighted, xp.matrix_transpose(basis))
    n = xp.reshape(n, (pairs, -1))
    d = xp.reshape(_power_without_bad(basis, targets), (pairs, len(powers), -1))
    delta, last = _maximize(n, d, expansion)
    # The step that the highest order makes is the measure of those that are left out.
    lower = xp.asarray([float(a + b < order) for a, b in powers], dtype=xp.float64, device=there)
    last_order = _newton_step(delta, n * lower, d * lower[:, None] * lower, expansion)
    polynomials = _polynomials(delta, expansion)
    m = [polynomials[times] for times in ((0, 0), (1, 0), (0, 1))]
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
    noise = xp.sqrt(targets.variance + square * v_ref[:, None, :]) * targets.weights
    columns = xp.reshape(columns, (n_ref, n_t, 3, -1)) * noise[:, :, None, :]
    meat = xp.matmul(columns, xp.matrix_transpose(columns))
    ratio, omitted = _omitted(delta, last_order, expansion, n_t)
    converged = (last < tolerance) & (omitted < tolerance) & (ratio < 0.5) & (scale != 0.0)
    power = xp.reshape(xp.matmul(v_ref, targets.weights.T), (pairs,))
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
    root = basis * xp.sqrt(targets.weight)  # a product with itself takes half the time
    full = xp.matmul(root, xp.matrix_transpose(root))
    parts = []
    for at in targets.bad_at:
        if at.shape[0] == 0:
            parts.append(full)
            continue
        excluded = xp.take(root, at, axis=2)
        parts.append(full - xp.matmul(excluded, xp.matrix_transpose(excluded)))
    return xp.stack(parts, axis=1)


def _omitted(delta: Any, last_order: Any, expansion: Expansion, n_t: int) -> tuple[Any, Any]:
    """Return what part of an order the next one is, and how far those left out move the shifts.

    No frequency k is above pi, and I_n(k R) falls with n as (k R / 2)^n / n!, while the polynomials
    are at most 1 within the reach R and grow beyond it as (u + sqrt(u^2 - 1))^n. They have zeros,
    so all offsets within the reach tell of their reference together.
    """
    xp = array_namespace(delta)
    u = xp.abs(delta) / expansion.reach_yx
    growth = xp.where(u > 1.0, u + xp.sqrt(xp.clip(u * u - 1.0, 0.0, None)), 1.0)
    ratio = 0.5 * xp.pi * xp.sum(growth * expansion.reach_yx, axis=1) / (expansion.order + 1)
    size = xp.max(xp.abs(last_order), axis=1)
    inside = xp.all(u <= 1.0, axis=1)
    of_all = xp.reshape(xp.where(inside, size, 0.0 * size), (-1, n_t))
    largest = xp.reshape(xp.max(of_all, axis=1)[:, None] + 0.0 * of_all, (-1,))
    size = xp.where(inside, largest, size)
    return ratio, size * ratio / (1.0 - xp.clip(ratio, 0.0, 0.5))


def _maximize(n: Any, d: Any, expansion: Expansion) -> tuple[Any, Any]:
    """Maximize ``(n.m)^2 / (m.d.m)`` over the offsets; return them and the last steps."""
    xp = array_namespace(n, d)
    delta = xp.zeros((n.shape[0], 2), dtype=xp.float64, device=device(n))
    last = xp.zeros_like(delta[:, 0])
    for _ in range(MAX_NEWTON_STEPS):
        step = xp.clip(_newton_step(delta, n, d, expansion), -MAX_STEP_PIX, MAX_STEP_PIX)
        last = xp.max(xp.abs(step), axis=1)
        delta = xp.clip(delta + step, -MAX_OFFSET_PIX, MAX_OFFSET_PIX)
        if float(xp.max(last)) < 1e-10:
            break
    return delta, last


def _newton_step(delta: Any, n: Any, d: Any, expansion: Expansion) -> Any:
    """Return Newton's step for f = -N^2 / (2 D); the Gauss-Newton one where f is not convex.

    With b = N / D, the quotient rule gives

        f_j  = b^2 D_j / 2 - b N_j
        b_j  = (N_j - b D_j) / D
        f_jk = b^2 D_jk / 2 - b N_jk - D b_j b_k

    where, for the polynomials m of the offset, N = n.m and D = m.d.m, so that D_j = 2 m_j.d.m and
    D_jk = 2 (m_jk.d.m + m_j.d.m_k). Dropping second derivatives of the image and the residual
    leaves b^2 (m_j.d.m_k - D_j D_k / (4 D)), the normal matrix with the scale projected out, which
    is positive definite; far from the optimum f may not be (Nocedal and Wright 2006, ch. 3.4).
    """
    xp = array_namespace(n, d)
    polynomials = _polynomials(delta, expansion)
    m, first = polynomials[0, 0], (polynomials[1, 0], polynomials[0, 1])
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
        m_jk = polynomials[order]
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


def _polynomials(delta: Any, expansion: Expansion) -> dict[tuple[int, int], Any]:
    """Terms of the offsets ``(n_t, n_powers)``, keyed by derivatives along y and x."""
    xp = array_namespace(delta)
    by_axis = []
    for axis in (0, 1):
        at = xp.asarray([each[axis] for each in expansion.powers], device=device(delta))
        reach = expansion.reach_yx[axis]
        columns = _chebyshev(delta[:, axis] / reach, expansion.order)
        by_axis.append([xp.take(c, at, axis=1) / reach**j for j, c in enumerate(columns)])
    y, x = by_axis
    return {(j, k): y[j] * x[k] for j in range(3) for k in range(3 - j)}


def _chebyshev(u: Any, order: int) -> list[Any]:
    """Return T_n(u) for all n and its two derivatives, ``(n_t, order + 1)`` each.

    T_{n+1} = 2 u T_n - T_{n-1}, differentiated twice.
    """
    xp = array_namespace(u)
    one, zero = xp.ones_like(u), xp.zeros_like(u)
    t, first, second = [one, u], [zero, one], [zero, zero]
    for n in range(1, order):
        second.append(4.0 * first[n] + 2.0 * u * second[n] - second[n - 1])
        first.append(2.0 * t[n] + 2.0 * u * first[n] - first[n - 1])
        t.append(2.0 * u * t[n] - t[n - 1])
    return [xp.stack(each[: order + 1], axis=1) for each in (t, first, second)]
