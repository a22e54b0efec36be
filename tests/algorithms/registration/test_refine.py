"""Shifts and scales come back, with errors that Monte Carlo confirms."""

import numpy as np
import pytest
from scipy import optimize

from lyot.algorithms import fourier, registration
from scenes import refined

SHAPE = (64, 66)


@pytest.mark.parametrize("scale", [0.04, 1.0, 24.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shift_and_scale_come_back(star_image, scale, dtype):
    target = scale * star_image()
    ref = star_image(shift_yx=(-0.30, 0.40)).astype(dtype)
    found = refined(target, ref)
    np.testing.assert_allclose(found.shift_yx[0], [0.30, -0.40], atol=2e-5)
    np.testing.assert_allclose(found.scale[0], scale, rtol=1e-5)
    assert found.converged[0]


def test_refined_shifts_are_the_direct_optimum(star_image, rng):
    target = star_image() + rng.normal(0, 0.05, SHAPE)
    refs = np.stack([star_image(shift_yx=(0.7, -1.1), seed=0) + 0.3 * star_image(seed=3)])
    weight = rng.uniform(0, 1, SHAPE)
    found = refined(target, refs, weight=weight)
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


@pytest.mark.parametrize(("noise", "most"), [(0.02, 1.2), (0.1, 1.5)])
def test_covariance_agrees_with_monte_carlo(star_image, rng, noise, most):
    clean, ref = 20 * star_image(), 5 * star_image(shift_yx=(0.2, 0.1))
    var_t = 0.3 + 0.1 * clean
    # The second is so much that a part of what looks like slopes of the reference is noise, which
    # also is the residual's: that the two are one is left out, on the safe side.
    var_r = np.full(SHAPE, noise)
    shifts, stated = [], []
    for _ in range(400):
        noisy = clean + rng.normal(size=SHAPE) * np.sqrt(var_t)
        noisy_ref = ref + rng.normal(size=SHAPE) * np.sqrt(var_r)
        found = refined(noisy, noisy_ref, var_t=var_t, var_r=var_r[None])
        shifts.append(found.shift_yx[0])
        stated.append(found.covariance[0])
    measured, stated = np.cov(np.array(shifts).T), np.median(stated, axis=0)
    ratio = np.diag(stated) / np.diag(measured)
    assert np.all((ratio > 0.8) & (ratio < most)), ratio


def test_spectra_in_single_precision_move_shifts_by_less_than_1e_7_pixel(star_image, rng):
    target = 1e4 * star_image() + rng.normal(size=SHAPE)
    refs = 1e5 * np.stack([star_image(shift_yx=d) for d in rng.uniform(-0.7, 0.7, (4, 2))])
    spectra, one = fourier.spectrum(refs), np.ones(SHAPE)

    def found(dtype):
        data = (target, one, one, spectra.astype(dtype), one[None], np.zeros((4, 2)))
        return registration.refine(*data, tolerance=1e-10)

    single, double = found(np.complex64), found(np.complex128)
    assert single.shift_yx.dtype == np.float64
    np.testing.assert_allclose(single.shift_yx, double.shift_yx, atol=1e-7)
    np.testing.assert_allclose(single.scale, double.scale, rtol=1e-6)


def test_without_a_variance_there_is_no_covariance(star_image):
    target, one = star_image(), np.ones(SHAPE)
    spectra, start = fourier.spectrum(star_image(shift_yx=(0.2, 0.1)))[None], np.zeros((1, 2))
    found = registration.refine(target, one, None, spectra, None, start)
    full = registration.refine(target, one, one, spectra, one[None], start)
    assert np.isnan(found.covariance).all()
    for a, b in zip(found._replace(covariance=0), full._replace(covariance=0), strict=True):
        np.testing.assert_array_equal(a, b)


def test_shifts_stay_within_bounds_and_say_so(star_image):
    target, ref = star_image(), star_image(shift_yx=(1.0, 0.0))
    bound = (np.full((1, 2), -0.25), np.full((1, 2), 0.25))
    found = refined(target, ref, bound_yx=bound)
    assert np.all(np.abs(found.shift_yx) <= 0.25)
    assert not found.converged[0]


def test_a_reference_of_zeros_does_not_converge_to_nonsense(star_image):
    found = refined(star_image(), np.zeros(SHAPE))
    np.testing.assert_array_equal(found.shift_yx[0], 0.0)
    assert found.scale[0] == 0.0
    assert np.isnan(found.covariance).all()


def test_runs_on_a_strict_array_library(star_image):
    strict = pytest.importorskip("array_api_strict")
    target, ref = star_image(), star_image(shift_yx=(-0.3, 0.4))
    plain = refined(target, ref)
    ones = strict.ones(SHAPE, dtype=strict.float64)
    found = registration.refine(
        strict.asarray(target),
        ones,
        ones,
        fourier.spectrum(strict.asarray(ref))[None, ...],
        ones[None, ...],
        strict.zeros((1, 2), dtype=strict.float64),
    )
    for a, b in zip(found, plain, strict=True):
        np.testing.assert_allclose(np.asarray(a), b, atol=1e-9)
