"""Shifts and scales come back, with errors that Monte Carlo confirms."""

import numpy as np
import pytest
from scipy import optimize

from lyot.algorithms import fourier, registration

SHAPE = (64, 66)


def fit(target, refs, start=None, weight=None, var_t=None, var_r=None, **options):
    refs = np.atleast_3d(refs) if np.ndim(refs) == 3 else np.asarray(refs)[None]
    spectra = fourier.spectrum(refs)
    weight = np.ones(target.shape) if weight is None else weight
    var_t = np.ones(target.shape) if var_t is None else var_t
    var_r = np.ones(refs.shape) if var_r is None else var_r
    start = np.zeros((len(refs), 2)) if start is None else start
    return registration.refine(target, weight, var_t, spectra, var_r, start, **options)


@pytest.mark.parametrize("scale", [0.04, 1.0, 24.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shift_and_scale_come_back(star_image, scale, dtype):
    target = scale * star_image()
    ref = star_image(shift_yx=(-0.30, 0.40)).astype(dtype)
    found = fit(target, ref)
    np.testing.assert_allclose(found.shift_yx[0], [0.30, -0.40], atol=2e-5)
    np.testing.assert_allclose(found.scale[0], scale, rtol=1e-5)
    assert found.converged[0]


def test_polish_is_the_direct_optimum(star_image, rng):
    target = star_image() + rng.normal(0, 0.05, SHAPE)
    refs = np.stack([star_image(shift_yx=(0.7, -1.1), seed=0) + 0.3 * star_image(seed=3)])
    weight = rng.uniform(0, 1, SHAPE)
    found = fit(target, refs, weight=weight)
    spectrum = fourier.spectrum(refs)[0]

    def cost(d):
        r = fourier.shift(spectrum, d, shape=SHAPE)
        b = (weight * target * r).sum() / (weight * r * r).sum()
        return (weight * (target - b * r) ** 2).sum()

    direct = optimize.minimize(
        cost,
        found.shift_yx[0] + 0.01,
        method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-14, "maxiter": 1000},
    )
    np.testing.assert_allclose(found.shift_yx[0], direct.x, atol=1e-6)


def test_covariance_agrees_with_monte_carlo(star_image, rng):
    clean, ref = 20 * star_image(), 5 * star_image(shift_yx=(0.2, 0.1))
    var_t = 0.3 + 0.1 * clean
    var_r = np.full(SHAPE, 0.02)
    shifts = []
    for _ in range(400):
        noisy = clean + rng.normal(size=SHAPE) * np.sqrt(var_t)
        noisy_ref = ref + rng.normal(size=SHAPE) * np.sqrt(var_r)
        found = fit(noisy, noisy_ref, var_t=var_t, var_r=var_r[None])
        shifts.append(found.shift_yx[0])
    measured = np.cov(np.array(shifts).T)
    stated = fit(clean, ref, var_t=var_t, var_r=var_r[None]).covariance[0]
    np.testing.assert_allclose(np.diag(stated), np.diag(measured), rtol=0.2)


def test_shifts_stay_within_bounds_and_say_so(star_image):
    target, ref = star_image(), star_image(shift_yx=(1.0, 0.0))
    bound = (np.full((1, 2), -0.25), np.full((1, 2), 0.25))
    found = fit(target, ref, bound_yx=bound)
    assert np.all(np.abs(found.shift_yx) <= 0.25)
    assert not found.converged[0]


def test_a_reference_of_zeros_does_not_converge_to_nonsense(star_image):
    found = fit(star_image(), np.zeros(SHAPE))
    np.testing.assert_array_equal(found.shift_yx[0], 0.0)
    assert found.scale[0] == 0.0
    assert np.isnan(found.covariance).all()


@pytest.mark.parametrize("shift", [(3, -4), (0, 0), (-5, 2)])
def test_integer_shift_is_found_through_a_mask(star_image, shift):
    target = star_image()
    weight = np.ones(SHAPE)
    weight[28:36, 28:38] = 0.0
    refs = fourier.spectrum(star_image(shift_yx=(-shift[0], -shift[1])))[None]
    found = registration.integer_shift(target, weight, refs, max_shift=6)
    np.testing.assert_array_equal(found[0], shift)


def pairs(targets, ref, center, weight=None, bad=None, var_t=None, var_r=None):
    weight = np.ones(SHAPE) if weight is None else weight
    bad = np.zeros(targets.shape, bool) if bad is None else bad
    var_t = np.ones(targets.shape) if var_t is None else var_t
    var_r = np.ones(SHAPE) if var_r is None else var_r
    prepared = registration.pair_targets(targets, weight, bad, var_t)
    return registration.fit_pairs(prepared, fourier.spectrum(ref), var_r, np.asarray(center))


def test_all_pairs_are_fitted_to_their_direct_optimum(star_image, rng):
    drift = [(0.0, 0.0), (0.05, -0.1), (-0.2, 0.18), (0.3, 0.2)]
    targets = np.stack([star_image(shift_yx=d) for d in drift])
    targets += rng.normal(0, 0.02, targets.shape)
    ref = 0.1 * star_image(shift_yx=(0.8, -1.2)) + 0.02 * star_image(seed=5)
    weight = rng.uniform(0, 1, SHAPE)
    bad = rng.random(targets.shape) < 0.02
    targets[bad] = np.nan
    var_t, var_r = rng.uniform(1, 2, targets.shape), rng.uniform(0.1, 0.2, SHAPE)
    found = pairs(targets, ref, (-0.8, 1.2), weight, bad, var_t, var_r)
    for i, target in enumerate(targets):
        w = np.where(bad[i], 0.0, weight)
        whole = np.where(bad[i], 0.0, target)
        alone = fit(
            whole, ref, start=found.shift_yx[i : i + 1], weight=w, var_t=var_t[i], var_r=var_r[None]
        )
        if found.converged[i]:
            np.testing.assert_allclose(found.shift_yx[i], alone.shift_yx[0], atol=1e-6)
            np.testing.assert_allclose(found.scale[i], alone.scale[0], rtol=1e-6)
            np.testing.assert_allclose(found.rms[i], alone.rms[0], rtol=1e-6)
            np.testing.assert_allclose(found.covariance[i], alone.covariance[0], rtol=1e-4)
        else:
            np.testing.assert_allclose(found.shift_yx[i], alone.shift_yx[0], atol=1e-3)
    assert found.converged[:3].all()


def test_a_pair_too_far_for_the_expansion_does_not_count_as_settled(star_image):
    targets = np.stack([star_image(), star_image(shift_yx=(0.9, -0.8))])
    found = pairs(targets, star_image(), (0.0, 0.0))
    np.testing.assert_array_equal(found.converged, [True, False])


def test_center_of_a_symmetric_pattern_is_found(star_image):
    y, x = np.ogrid[:81, :81]
    center = (40.31, 39.58)
    r = np.hypot(y - center[0], x - center[1])
    angle = np.arctan2(y - center[0], x - center[1])
    image = np.exp(-((r / 12) ** 2)) * (2 + np.cos(4 * angle) * np.minimum(r, 3) / 3)
    found = registration.symmetry_center(
        image,
        np.ones_like(image),
        np.zeros(image.shape, bool),
        (40.0, 40.0),
        inner_pix=4.0,
        outer_pix=30.0,
    )
    np.testing.assert_allclose(found.center_yx, center, atol=2e-3)
    assert found.converged
    assert found.contrast > 0.999


def test_runs_on_a_strict_array_library(star_image):
    strict = pytest.importorskip("array_api_strict")
    target, ref = star_image(), star_image(shift_yx=(-0.3, 0.4))
    plain = fit(target, ref)
    spectra = fourier.spectrum(strict.asarray(ref))[None, ...]
    ones = strict.ones(SHAPE, dtype=strict.float64)
    found = registration.refine(
        strict.asarray(target),
        ones,
        ones,
        spectra,
        ones[None, ...],
        strict.zeros((1, 2), dtype=strict.float64),
    )
    for a, b in zip(found, plain, strict=True):
        np.testing.assert_allclose(np.asarray(a), b, atol=1e-9)
    whole = registration.integer_shift(strict.asarray(target), ones, spectra)
    np.testing.assert_array_equal(np.asarray(whole), 0.0)
    prepared = registration.pair_targets(
        strict.asarray(target)[None, ...], ones, ones[None, ...] < 0, ones[None, ...]
    )
    center = strict.asarray([0.2, -0.3], dtype=strict.float64)
    near = registration.fit_pairs(prepared, spectra[0, ...], ones, center)
    for a, b in zip(near, pairs(target[None], ref, (0.2, -0.3)), strict=True):
        np.testing.assert_allclose(np.asarray(a), b, atol=1e-9)
