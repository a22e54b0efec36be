r"""Shift and scale between frames, with their covariance; the center of a symmetric pattern.

The model of a target frame :math:`s` is a reference :math:`r`, shifted by :math:`d` and scaled:
:math:`\min_{d, b} \sum_p w_p\,(s_p - b\,(T_d r)_p)^2`. The scale is eliminated (variable
projection; Golub and Pereyra 1973, doi:10.1137/0710036), the shift acts in Fourier space with
analytic derivatives, and everything is float64: a finite difference of a float32 transform is
zero.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from array_api_compat import array_namespace

from lyot.algorithms import fourier

TOLERANCE_PIX = 5e-7
MAX_ITERATIONS = 40
MAX_STEP_PIX = 0.5


class Alignment(NamedTuple):
    """How references were moved onto one target frame.

    Attributes
    ----------
    shift_yx : array, shape (n_ref, 2)
        Shift applied to each reference [pixel].
    scale : array, shape (n_ref,)
        Factor from the reference to the target in the fit zone.
    covariance : array, shape (n_ref, 2, 2)
        Covariance of `shift_yx` [pixel^2], from the noise variances.
    rms : array, shape (n_ref,)
        Weighted rms of the residual in the fit zone.
    converged : array of bool, shape (n_ref,)
        False where the last step was larger than the tolerance or the shift met its bound.
    aligned : array, shape (n_ref, n_y, n_x)
        The shifted references, not scaled.
    """

    shift_yx: Any
    scale: Any
    covariance: Any
    rms: Any
    converged: Any
    aligned: Any


def integer_shift(target: Any, weight: Any, spectra: Any, /, *, max_shift: int = 5) -> Any:
    r"""Find the whole-pixel shift of each reference onto a target by masked cross-correlation.

    The objective is the one that is fitted later, :math:`N_d^2 / D_d` with
    :math:`N_d = \sum w s\,T_d r` and :math:`D_d = \sum w\,(T_d r)^2`, both of which are
    correlations.

    Parameters
    ----------
    target : array, shape (n_y, n_x)
        Finite target frame.
    weight : array, shape (n_y, n_x)
        Weight of each pixel, >= 0.
    spectra : array, shape (n_ref, m_y, m_x // 2 + 1)
        References, from `lyot.algorithms.fourier.spectrum`.
    max_shift : int, optional
        Largest shift that is searched along each axis [pixel].

    Returns
    -------
    array, shape (n_ref, 2), float64
        Shift along y and x of each reference.

    Notes
    -----
    Three transforms per reference, and the correlations at these few shifts alone. References
    without positive correlation get shift zero.
    """
    xp = array_namespace(target, weight, spectra)
    shape = target.shape
    grid = (spectra.shape[-2], fourier.odd_grid_length(shape[1]))
    limit = min(max_shift, fourier.MIN_GAP // 2)
    weight_spectrum = _embed_and_transform(weight, grid)
    data_spectrum = _embed_and_transform(weight * target, grid)
    inside = _embed(xp.ones(shape, dtype=xp.float64), grid)
    waves = fourier.waves(xp.arange(-limit, limit + 1, dtype=xp.float64), grid)
    size = 2 * limit + 1
    best = []
    for k in range(spectra.shape[0]):
        image = xp.fft.irfftn(spectra[k, ...], s=grid, axes=(-2, -1)) * inside
        n = _correlate(data_spectrum, xp.fft.rfftn(image, axes=(-2, -1)), waves)
        d = _correlate(weight_spectrum, xp.fft.rfftn(image * image, axes=(-2, -1)), waves)
        gain = xp.where((n > 0) & (d > 0), n * n / xp.where(d > 0, d, 1.0), 0.0)
        if float(xp.max(gain)) > 0.0:
            index = int(xp.argmax(xp.reshape(gain, (-1,))))
            best.append([float(index // size - limit), float(index % size - limit)])
        else:
            best.append([0.0, 0.0])
    return xp.asarray(best, dtype=xp.float64)


def _embed(image: Any, grid: tuple[int, int]) -> Any:
    xp = array_namespace(image)
    n_y, n_x = image.shape
    image = xp.concat([image, xp.zeros((grid[0] - n_y, n_x), dtype=image.dtype)], axis=0)
    return xp.concat([image, xp.zeros((grid[0], grid[1] - n_x), dtype=image.dtype)], axis=1)


def _embed_and_transform(image: Any, grid: tuple[int, int]) -> Any:
    xp = array_namespace(image)
    return xp.fft.rfftn(_embed(xp.astype(image, xp.float64), grid), axes=(-2, -1))


def _correlate(a: Any, b: Any, waves: tuple[Any, Any]) -> Any:
    """Return ``sum_x a(x) b(x - d)`` for the few ``d`` that `fourier.waves` were made for."""
    xp = array_namespace(a, b)
    return xp.real(xp.matmul(xp.matmul(waves[0], a * xp.conj(b)), waves[1]))


class _Zone(NamedTuple):
    """The pixels of positive weight: the rows that hold them, and their places in these."""

    rows: slice
    index: Any


def _zone(weight: Any) -> _Zone:
    xp = array_namespace(weight)
    used = xp.nonzero(xp.any(weight > 0, axis=1))[0]
    rows = slice(int(used[0]), int(used[-1]) + 1) if used.shape[0] else slice(0, 1)
    return _Zone(rows, xp.nonzero(xp.reshape(weight[rows, :], (-1,)) > 0)[0])


def _pick(image: Any, zone: _Zone) -> Any:
    return _pick_rows(image[zone.rows, :], zone)


def _pick_rows(rows: Any, zone: _Zone) -> Any:
    """Return the pixels of the zone of one image, or of each of several."""
    xp = array_namespace(rows)
    return xp.take(xp.reshape(rows, (*rows.shape[:-2], -1)), zone.index, axis=-1)


def _columns(images: fourier.ShiftedImage, zone: _Zone) -> Any:
    """Return the value and both derivatives at the pixels of the zone, ``(n_ref, 3, n_pix)``."""
    xp = array_namespace(images.value)
    parts = (images.value, images.d_y, images.d_x)
    return xp.stack([_pick_rows(part, zone) for part in parts], axis=1)


ORDER = 7
"""Order of the expansion of a shifted image about a shift."""

POWERS = tuple((a, b) for a in range(ORDER + 1) for b in range(ORDER + 1 - a))
"""Powers of the offset along y and x in that expansion."""

NEWTON_STEPS = 12
MAX_OFFSET_PIX = 1.0


class PairTargets(NamedTuple):
    """What the fit of all pairs takes from the targets, at the pixels of the fit zone.

    Attributes
    ----------
    shape : tuple of int
        ``(n_y, n_x)`` of the frames.
    zone : _Zone
        Where the fit zone is.
    weight : array, shape (n_pix,)
        Weight where no pixel is bad.
    weighted : array, shape (n_t, n_pix)
        Weight times target; zero where the target is bad.
    power : array, shape (n_t,)
        Weighted sum of the squared target.
    total : array, shape (n_t,)
        Sum of the weights.
    bad_at : list of array, shape (n_bad,)
        Places of each target's bad pixels.
    weight_squared : array, shape (n_t, n_pix)
        Squared weight; zero where the target is bad.
    variance : array, shape (n_t, n_pix)
        Noise variance of the targets.
    """

    shape: tuple[int, int]
    zone: _Zone
    weight: Any
    weighted: Any
    power: Any
    total: Any
    bad_at: list[Any]
    weight_squared: Any
    variance: Any


def pair_targets(targets: Any, weight: Any, bad: Any, variance: Any, /) -> PairTargets:
    """Pick from the targets what `fit_pairs` needs of them.

    Parameters
    ----------
    targets : array, shape (n_t, n_y, n_x)
        Target frames, finite where not bad.
    weight : array, shape (n_y, n_x)
        Weight of each pixel, >= 0.
    bad : array of bool, shape (n_t, n_y, n_x)
        True where a target is bad: its weight there is zero.
    variance : array, shape (n_t, n_y, n_x)
        Noise variance of the targets.

    Returns
    -------
    PairTargets
        Float64 arrays that hold the fit zone alone.

    Notes
    -----
    A few passes over the pixels, once for all references.
    """
    xp = array_namespace(targets, weight, bad, variance)
    zone = _zone(weight)
    w, s, v, out = [], [], [], []
    common = _pick(weight, zone)
    zero = xp.zeros_like(common)
    for i in range(targets.shape[0]):
        gone = _pick(bad[i, ...], zone)
        w.append(xp.where(gone, zero, common))
        s.append(xp.where(gone, zero, xp.astype(_pick(targets[i, ...], zone), xp.float64)))
        v.append(xp.where(gone, zero, xp.astype(_pick(variance[i, ...], zone), xp.float64)))
        out.append(xp.nonzero(gone)[0])
    weights, data = xp.stack(w), xp.stack(s)
    weighted = weights * data
    return PairTargets(
        (targets.shape[-2], targets.shape[-1]),
        zone,
        common,
        weighted,
        xp.sum(weighted * data, axis=1),
        xp.sum(weights, axis=1),
        out,
        weights * weights,
        xp.stack(v),
    )


class Pairs(NamedTuple):
    """One reference fitted to every target.

    Attributes
    ----------
    shift_yx : array, shape (n_t, 2)
        Shift of the reference onto each target [pixel].
    scale : array, shape (n_t,)
        Factor from the reference to the target in the fit zone.
    covariance : array, shape (n_t, 2, 2)
        Covariance of `shift_yx` [pixel^2], from the noise variances.
    rms : array, shape (n_t,)
        Weighted rms of the residual in the fit zone.
    converged : array of bool, shape (n_t,)
        True where the orders that the expansion leaves out move the shift by less than the
        tolerance, so that it is the direct optimum; elsewhere it is a start for `refine`.
    """

    shift_yx: Any
    scale: Any
    covariance: Any
    rms: Any
    converged: Any


def fit_pairs(
    targets: PairTargets,
    spectrum: Any,
    variance_ref: Any,
    center_yx: Any,
    /,
    *,
    tolerance: float = TOLERANCE_PIX,
) -> Pairs:
    r"""Fit shift and scale of one reference to all targets from one expansion of its image.

    With :math:`T_{d + \delta} r \approx \sum \delta_y^a \delta_x^b\,r_{ab}` to seventh order (36
    images), :math:`N_d = \sum w s\,T_d r` and :math:`D_d = \sum w\,(T_d r)^2` of every pair follow
    from products with the targets, and Newton's method on :math:`N_d^2 / D_d` needs no image at
    all.

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
    Pairs
        Shifts, scales, covariances, and which of them are final.

    Notes
    -----
    Eight transforms along y and, for each row of the fit zone, 36 along x; products of
    ``(4 n_t, n_pix)`` by ``(n_pix, 36)``; all in float64. For speckles of F444W offsets up to 0.3
    pixel settle.
    """
    xp = array_namespace(targets.weighted, spectrum)
    zone = targets.zone
    images = fourier.taylor_images(
        spectrum, center_yx, shape=targets.shape, powers=POWERS, rows=zone.rows
    )
    basis = xp.stack([_pick_rows(image, zone) for image in images])
    n = xp.matmul(targets.weighted, xp.matrix_transpose(basis))
    d = _power_without_bad(basis, targets)
    delta, last = _maximize(n, d)
    lower = xp.asarray([a + b < ORDER for a, b in POWERS])
    keep = xp.astype(lower, xp.float64)
    less = _newton_step(delta, n * keep, d * keep[:, None] * keep)
    monomials = _monomials(delta)
    m = [monomials[order] for order in ((0, 0), (1, 0), (0, 1))]
    dm = [xp.matmul(d, row[:, :, None])[:, :, 0] for row in m]
    value, power = xp.sum(n * m[0], axis=1), xp.sum(m[0] * dm[0], axis=1)
    some = power > 0.0
    scale = xp.where(some, value / xp.where(some, power, xp.ones_like(power)), 0.0 * power)
    left = targets.power - 2.0 * scale * value + scale * scale * power
    rms = xp.sqrt(xp.clip(left, 0.0, None) / xp.where(targets.total > 0, targets.total, 1.0))
    normal = xp.stack([xp.stack([xp.sum(a * b, axis=1) for b in dm], axis=1) for a in m], axis=1)
    columns = xp.matmul(xp.stack(m, axis=1), basis)
    v_ref = xp.astype(_pick(variance_ref, zone), xp.float64)
    noise = (targets.variance + (scale * scale)[:, None] * v_ref) * targets.weight_squared
    meat = xp.matmul(columns * noise[:, None, :], xp.matrix_transpose(columns))
    # No frequency is above pi, so each order is at most this part of the one before it.
    ratio = xp.pi * xp.sum(xp.abs(delta), axis=1) / (ORDER + 1)
    rest = xp.max(xp.abs(less), axis=1) * ratio / (1.0 - xp.clip(ratio, 0.0, 0.5))
    converged = (last < tolerance) & (rest < tolerance) & (ratio < 0.5) & (scale != 0.0)
    covariance = _shift_covariance(normal, meat, scale)
    return Pairs(center_yx[None, :] + delta, scale, covariance, rms, converged)


def _power_without_bad(basis: Any, targets: PairTargets) -> Any:
    """Return the weighted products of the expansion's images, ``(n_t, n_powers, n_powers)``."""
    xp = array_namespace(basis)
    every = xp.matmul(basis * targets.weight, xp.matrix_transpose(basis))
    parts = []
    for at in targets.bad_at:
        if at.shape[0] == 0:
            parts.append(every)
            continue
        here = xp.take(basis, at, axis=1)
        weighted = here * xp.take(targets.weight, at)
        parts.append(every - xp.matmul(weighted, xp.matrix_transpose(here)))
    return xp.stack(parts)


def _maximize(n: Any, d: Any) -> tuple[Any, Any]:
    """Maximise ``(n.m)^2 / (m.d.m)`` over the offsets; return them and the last steps."""
    xp = array_namespace(n, d)
    delta = xp.zeros((n.shape[0], 2), dtype=xp.float64)
    last = xp.zeros_like(delta[:, 0])
    for _ in range(NEWTON_STEPS):
        step = xp.clip(_newton_step(delta, n, d), -MAX_STEP_PIX, MAX_STEP_PIX)
        last = xp.max(xp.abs(step), axis=1)
        delta = xp.clip(delta + step, -MAX_OFFSET_PIX, MAX_OFFSET_PIX)
        if float(xp.max(last)) < 1e-10:
            break
    return delta, last


def _newton_step(delta: Any, n: Any, d: Any) -> Any:
    r"""Newton's step for :math:`-N^2 / 2D`; the Gauss-Newton one where that is not convex."""
    xp = array_namespace(n, d)
    monomials = _monomials(delta)
    m, first = monomials[0, 0], (monomials[1, 0], monomials[0, 1])
    second = {(0, 0): (2, 0), (0, 1): (1, 1), (1, 1): (0, 2)}
    dm = xp.matmul(d, m[:, :, None])[:, :, 0]
    power = xp.sum(m * dm, axis=1)
    some = power > 0.0
    power = xp.where(some, power, xp.ones_like(power))
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
    usable = some & (det > 0.0)
    det = xp.where(usable, det, xp.ones_like(det))
    y = (used[0, 1] * gradient[1] - used[1, 1] * gradient[0]) / det
    x = (used[0, 1] * gradient[0] - used[0, 0] * gradient[1]) / det
    step = xp.stack([y, x], axis=1)
    return xp.where(usable[:, None], step, xp.zeros_like(step))


def _determinant(h: dict[tuple[int, int], Any]) -> Any:
    return h[0, 0] * h[1, 1] - h[0, 1] * h[0, 1]


def _monomials(delta: Any) -> dict[tuple[int, int], Any]:
    """Return the monomials of the offsets and their derivatives, ``(n_t, n_powers)`` each.

    The keys are how often they are differentiated along y and along x.
    """
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


def refine(
    target: Any,
    weight: Any,
    variance_target: Any,
    spectra: Any,
    variance_refs: Any,
    start_yx: Any,
    /,
    *,
    bound_yx: Any = None,
    max_iterations: int = MAX_ITERATIONS,
    tolerance: float = TOLERANCE_PIX,
    cutoff: float | None = None,
) -> Alignment:
    """Fit shift and scale of each reference to one target until the step is below tolerance.

    Parameters
    ----------
    target : array, shape (n_y, n_x)
        Finite target frame.
    weight : array, shape (n_y, n_x)
        Weight of each pixel, >= 0; zero where the target is bad.
    variance_target : array, shape (n_y, n_x)
        Noise variance of the target; used for the covariance alone.
    spectra : array, shape (n_ref, m_y, m_x // 2 + 1)
        References, from `lyot.algorithms.fourier.spectrum`.
    variance_refs : array, shape (n_ref, n_y, n_x)
        Noise variance of the references.
    start_yx : array, shape (n_ref, 2)
        Where the fit starts [pixel].
    bound_yx : tuple of array, shape (n_ref, 2) each, optional
        Lowest and highest allowed shift [pixel].
    max_iterations : int, optional
        Number of Gauss-Newton steps after which a fit counts as not converged.
    tolerance : float, optional
        Size of the last step [pixel].
    cutoff : float, optional
        Where target and spectra have been low-passed (`lyot.algorithms.fourier.low_pass`), the
        cutoff, so that the covariance knows that their noise is correlated.

    Returns
    -------
    Alignment
        Shifts, scales, covariances and the aligned references.

    Notes
    -----
    Two transforms along y, and three along x for each row of the fit zone, per reference and
    step; one to three steps from a good start; one more transform for the aligned image. The
    covariance is the sandwich of the normal matrix with the pixel variances, so it holds for
    any weight.
    """
    xp = array_namespace(target, weight, spectra)
    zone = _zone(weight)
    w, s = _pick(weight, zone), _pick(target, zone)
    options = _Options(bound_yx, max_iterations, tolerance)
    d, b, step, images = _solve(s, w, zone, spectra, start_yx, target.shape, options)
    columns = _columns(images, zone)
    normal = xp.matmul(columns * w, xp.matrix_transpose(columns))
    noise = variance_target[None, ...] + (b * b)[:, None, None] * variance_refs
    covariance = _shift_covariance(normal, _noise_of(images, weight, noise, zone, cutoff), b)
    residual = s[None, :] - b[:, None] * columns[:, 0, :]
    rms = xp.sqrt(xp.sum(w * residual * residual, axis=1) / xp.sum(w))
    converged = step < tolerance
    if bound_yx is not None:
        converged = converged & ~xp.any((d <= bound_yx[0]) | (d >= bound_yx[1]), axis=1)
    aligned = fourier.finish(images.columns, shape=target.shape)
    return Alignment(d, b, covariance, rms, converged, aligned)


class _Options(NamedTuple):
    """When a fit stops, and where it may go."""

    bound: tuple[Any, Any] | None
    max_iterations: int
    tolerance: float


def _solve(
    s: Any,
    w: Any,
    zone: _Zone,
    spectra: Any,
    start: Any,
    shape: tuple[int, int],
    options: _Options,
) -> tuple[Any, Any, Any, fourier.ShiftedImage]:
    """Fit all references at once; return shifts, scales, last steps, and images at the shifts."""
    xp = array_namespace(s, spectra)
    d = start
    inverse = xp.stack([xp.eye(2, dtype=xp.float64)] * d.shape[0])
    before: tuple[Any, Any] | None = None
    for _ in range(options.max_iterations):
        moved = fourier.shift_with_derivatives(spectra, d, shape=shape, rows=zone.rows)
        columns = _columns(moved, zone)
        weighted = columns * w
        normal = xp.matmul(weighted, xp.matrix_transpose(columns))
        b, step = _gauss_newton(normal, xp.matmul(weighted, s))
        if before is not None:
            inverse = _broyden(inverse, d - before[0], before[1] - step)
        before = (d, step)
        move = xp.matmul(inverse, step[:, :, None])[:, :, 0]
        new = d + xp.clip(move, -MAX_STEP_PIX, MAX_STEP_PIX)
        if options.bound is not None:
            new = xp.clip(new, options.bound[0], options.bound[1])
        last = xp.max(xp.abs(new - d), axis=1)
        active = last >= options.tolerance
        if not bool(xp.any(active)):
            break
        d = xp.where(active[:, None], new, d)
    return d, b, last, moved


def _broyden(inverse: Any, moved: Any, change: Any) -> Any:
    """Update the factors on the Gauss-Newton steps by how the steps changed with the shifts.

    The step alone converges slowly where the model fits badly, as behind a 4QPM; with this rank-one
    correction (Broyden 1965, doi:10.1090/S0025-5718-1965-0198670-6) it does not.
    """
    xp = array_namespace(inverse, moved, change)
    projected = xp.matmul(inverse, change[:, :, None])[:, :, 0]
    size = xp.sum(moved * projected, axis=1)
    usable = xp.abs(size) > 1e-30
    safe = xp.where(usable, size, xp.ones_like(size))
    row = xp.matmul(moved[:, None, :], inverse)
    updated = inverse + (moved - projected)[:, :, None] * row / safe[:, None, None]
    usable = usable & (xp.max(xp.abs(updated), axis=(1, 2)) < 10.0)
    return xp.where(usable[:, None, None], updated, inverse)


def _gauss_newton(normal: Any, right: Any) -> tuple[Any, Any]:
    """Solve ``s = b r + (b dy) r_y + (b dx) r_x``; return ``b`` and ``(dy, dx)`` of each pair."""
    xp = array_namespace(normal, right)
    rr = normal[:, 0, 0]
    some = rr > 0.0
    rr = xp.where(some, rr, xp.ones_like(rr))
    b = xp.where(some, right[:, 0] / rr, xp.zeros_like(rr))
    reduced = normal[:, 1:, 1:] - normal[:, 1:, :1] * normal[:, :1, 1:] / rr[:, None, None]
    left = right[:, 1:] - normal[:, 1:, 0] * b[:, None]
    det = reduced[:, 0, 0] * reduced[:, 1, 1] - reduced[:, 0, 1] * reduced[:, 1, 0]
    usable = some & (det > 0.0) & (b != 0.0)
    det = xp.where(usable, det, xp.ones_like(det))
    y = (reduced[:, 1, 1] * left[:, 0] - reduced[:, 0, 1] * left[:, 1]) / det
    x = (reduced[:, 0, 0] * left[:, 1] - reduced[:, 1, 0] * left[:, 0]) / det
    scale = b - (normal[:, 0, 1] * y + normal[:, 0, 2] * x) / rr
    scale = xp.where(scale != 0.0, scale, b)
    scale = xp.where(usable, scale, xp.ones_like(scale))
    step = xp.stack([y / scale, x / scale], axis=1)
    return b, xp.where(usable[:, None], step, xp.zeros_like(step))


def _noise_of(
    images: fourier.ShiftedImage, weight: Any, variance: Any, zone: _Zone, cutoff: float | None
) -> Any:
    """Return the covariance that pixel noise gives to the right sides of the normal equations.

    Where the frames were low-passed, so was their noise; the filter is symmetric, so it may act on
    the columns instead.
    """
    xp = array_namespace(weight, variance)
    if cutoff is None:
        columns = _columns(images, zone) * _pick(weight, zone)
        v = _pick_rows(variance[:, zone.rows, :], zone)
    else:
        n_y, n_x = weight.shape
        inside = xp.stack([images.value, images.d_y, images.d_x], axis=1) * weight[zone.rows, :]
        shape = inside.shape[:2]
        above = xp.zeros((*shape, zone.rows.start, n_x), dtype=xp.float64)
        below = xp.zeros((*shape, n_y - zone.rows.stop, n_x), dtype=xp.float64)
        spectra = fourier.spectrum(xp.concat([above, inside, below], axis=2))
        spectra = fourier.low_pass(spectra, shape=weight.shape, cutoff=cutoff)
        still = xp.zeros((*shape, 2), dtype=xp.float64)
        columns = xp.reshape(fourier.shift(spectra, still, shape=weight.shape), (*shape, -1))
        v = xp.reshape(variance, (shape[0], -1))
    return xp.matmul(columns * v[:, None, :], xp.matrix_transpose(columns))


def _shift_covariance(normal: Any, meat: Any, b: Any) -> Any:
    """Sandwich of the normal matrices with the noise of the right sides, for the shifts alone."""
    xp = array_namespace(normal, meat)
    rr = normal[:, 0, 0]
    usable = (rr > 0.0) & (b != 0.0)
    safe = xp.where(usable, rr, xp.ones_like(rr))[:, None, None]
    usable = usable & (xp.linalg.det(normal / safe) > 0.0)
    scale = xp.stack([xp.ones_like(b), b, b], axis=1)
    outer = scale[:, :, None] * scale[:, None, :]
    keep = usable[:, None, None]
    inverse = xp.linalg.inv(xp.where(keep, normal * outer, xp.eye(3, dtype=xp.float64)))
    covariance = xp.matmul(xp.matmul(inverse, meat * outer), inverse)[:, 1:, 1:]
    return xp.where(keep, covariance, xp.asarray(xp.nan, dtype=xp.float64))


class Center(NamedTuple):
    """The center of point symmetry of an image.

    Attributes
    ----------
    center_yx : array, shape (2,)
        The center [pixel, 0-based].
    covariance : array, shape (2, 2)
        From the noise variance alone [pixel^2].
    contrast : array, shape ()
        Fraction of the weighted power that is symmetric about the center, from 0.5 (none) to 1.
    converged : bool
        Whether the last step was below tolerance.
    """

    center_yx: Any
    covariance: Any
    contrast: Any
    converged: bool


def symmetry_center(
    image: Any,
    variance: Any,
    bad: Any,
    guess_yx: tuple[float, float],
    /,
    *,
    inner_pix: float,
    outer_pix: float,
    max_offset: float = 3.0,
) -> Center:
    r"""Measure the point about which an image is symmetric under rotation by 180 degrees.

    Minimises :math:`\sum w\,(s - T_d \tilde s)^2`, where :math:`\tilde s` is the image turned
    about a pixel: the center lies at half the shift.

    Parameters
    ----------
    image : array, shape (n_y, n_x)
        Finite image.
    variance : array, shape (n_y, n_x)
        Its noise variance.
    bad : array of bool, shape (n_y, n_x)
        True where the pixel is left out.
    guess_yx : tuple of float
        First guess [pixel, 0-based].
    inner_pix, outer_pix : float
        Radii of the annulus about the guess that is used [pixel].
    max_offset : float, optional
        Distance from the guess beyond which the fit counts as failed [pixel].

    Returns
    -------
    Center
        The center, its covariance, and how symmetric the image is.

    Notes
    -----
    Speckles are point-symmetric only to first order in the wavefront error (Bloemhof et al.
    2001, doi:10.1086/324270), which is what limits the accuracy, not the noise.
    """
    xp = array_namespace(image, variance, bad)
    shape = image.shape
    n_y, n_x = shape
    pivot = (round(guess_yx[0]), round(guess_yx[1]))
    turned = xp.flip(xp.flip(image, axis=0), axis=1)
    # Turning the whole frame sends pixel p to n - 1 - p; this shift brings the pivot home.
    home = xp.asarray([2.0 * pivot[0] - (n_y - 1), 2.0 * pivot[1] - (n_x - 1)], dtype=xp.float64)
    y = xp.arange(n_y, dtype=xp.float64)[:, None] - pivot[0]
    x = xp.arange(n_x, dtype=xp.float64)[None, :] - pivot[1]
    radius = xp.sqrt(y * y + x * x)
    limit = min(outer_pix, pivot[0], pivot[1], n_y - 1 - pivot[0], n_x - 1 - pivot[1])
    bad_turned = _roll_to(xp.flip(xp.flip(bad, axis=0), axis=1), home)
    keep = (radius >= inner_pix) & (radius <= limit) & ~bad & ~bad_turned
    weight = xp.astype(keep, xp.float64)
    rolled = _roll_to(turned, home)
    spectra = fourier.spectrum(rolled)[None, ...]
    v_turned = _roll_to(xp.flip(xp.flip(variance, axis=0), axis=1), home)
    start = xp.asarray(
        [[2.0 * (guess_yx[0] - pivot[0]), 2.0 * (guess_yx[1] - pivot[1])]], dtype=xp.float64
    )
    bound = (start - 2.0 * max_offset, start + 2.0 * max_offset)
    fit = refine(
        xp.astype(image, xp.float64),
        weight,
        variance,
        spectra,
        v_turned[None, ...],
        start,
        bound_yx=bound,
    )
    d = fit.shift_yx[0, :]
    power = xp.sum(weight * image * image) / xp.sum(weight)
    contrast = 1.0 - 0.5 * fit.rms[0] ** 2 / power
    center = xp.asarray([float(pivot[0]), float(pivot[1])], dtype=xp.float64) + 0.5 * d
    # Each pixel pair enters twice, as (s, turned) and as (turned, s): half the information.
    covariance = fit.covariance[0, ...] * 0.25 * 2.0
    return Center(center, covariance, contrast, bool(fit.converged[0]))


def _roll_to(image: Any, home: Any) -> Any:
    xp = array_namespace(image)
    return xp.roll(image, (int(home[0]), int(home[1])), axis=(0, 1))
