"""One expansion of a reference gives its shift onto every target."""

import numpy as np
import pytest

from lyot.algorithms import fourier, registration
from scenes import refined

SHAPE = (64, 66)


@pytest.mark.parametrize("shift", [(3, -4), (0, 0), (-5, 2)])
def test_integer_shift_is_found_through_a_mask(star_image, shift):
    target = star_image()
    weight = np.ones(SHAPE)
    weight[28:36, 28:38] = 0.0
    refs = fourier.spectrum(star_image(shift_yx=(-shift[0], -shift[1])))[None]
    found = registration.integer_shift(target, weight, refs, max_shift=6)
    np.testing.assert_array_equal(found[0], shift)


@pytest.mark.parametrize("at_once", [1, 2])
def test_integer_shifts_onto_several_targets_are_those_onto_each(star_image, at_once):
    targets = np.stack([star_image(shift_yx=d) for d in [(3, -4), (0, 1), (-2, 2)]])
    refs = fourier.spectrum(np.stack([star_image(), star_image(shift_yx=(1, 1))]))
    found = registration.integer_shift(targets, np.ones(SHAPE), refs, at_once=at_once)
    expected = [[(3, -4), (0, 1), (-2, 2)], [(2, -5), (-1, 0), (-3, 1)]]
    np.testing.assert_array_equal(found.reshape(2, 3, 2), expected)


def pairs(targets, ref, center, weight=None, bad=None, var_t=None, var_r=None, **options):
    weight = np.ones(ref.shape) if weight is None else weight
    bad = np.zeros(targets.shape, bool) if bad is None else bad
    var_t = np.ones(targets.shape) if var_t is None else var_t
    var_r = np.ones(ref.shape) if var_r is None else var_r
    prepared = registration.pair_targets(targets, weight, bad, var_t)
    spectra, centers = fourier.spectrum(ref)[None], np.asarray(center)[None]
    fit = registration.fit_pairs(prepared, spectra, var_r[None], centers, **options)
    return registration.ShiftFit(*(column[0] for column in fit))


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
        alone = refined(
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


def test_a_pair_too_far_for_the_expansion_has_not_converged(star_image):
    targets = np.stack([star_image(), star_image(shift_yx=(0.9, -0.8))])
    found = pairs(targets, star_image(), (0.0, 0.0))
    np.testing.assert_array_equal(found.converged, [True, False])


def test_pairs_run_on_a_strict_array_library(star_image):
    strict = pytest.importorskip("array_api_strict")
    target, ref = star_image(), star_image(shift_yx=(-0.3, 0.4))
    spectra = fourier.spectrum(strict.asarray(ref))[None, ...]
    ones = strict.ones(SHAPE, dtype=strict.float64)
    whole = registration.integer_shift(strict.asarray(target), ones, spectra)
    np.testing.assert_array_equal(np.asarray(whole), 0.0)
    prepared = registration.pair_targets(
        strict.asarray(target)[None, ...], ones, ones[None, ...] < 0, ones[None, ...]
    )
    center = strict.asarray([0.2, -0.3], dtype=strict.float64)
    near = registration.fit_pairs(prepared, spectra[:1, ...], ones[None, ...], center[None, ...])
    for a, b in zip(near, pairs(target[None], ref, (0.2, -0.3)), strict=True):
        np.testing.assert_allclose(np.asarray(a)[0], b, atol=1e-9)


@pytest.mark.parametrize("order", [3, 4, 5, 6])
def test_fewer_orders_say_where_they_are_enough(star_image, order):
    # Offsets from far too large for the order to far smaller than needed.
    drift = [(d, -0.5 * d) for d in (0.4, 0.2, 0.1, 0.05, 0.02, 0.01, 0.003, 0.001)]
    targets = np.stack([star_image(shift_yx=d) for d in drift])
    ref = star_image(shift_yx=(0.3, 0.2)) + 0.03 * star_image(seed=5)
    alone = [refined(target, ref, start=np.array([[-0.3, -0.2]])).shift_yx[0] for target in targets]
    found = pairs(targets, ref, (-0.3, -0.2), order=order, reach_yx=np.full(2, 0.005))
    assert not found.converged[0]
    assert found.converged[-1]
    off = np.abs(found.shift_yx - alone).max(axis=1)
    assert off[found.converged].max() < 1e-6
    assert off[0] > 1e-6


@pytest.mark.parametrize("at_once", [1, 2])
def test_references_fitted_together_are_those_fitted_alone(star_image, rng, at_once):
    targets = np.stack([star_image(shift_yx=d) for d in ((0.1, 0.0), (0.0, -0.1), (0.05, 0.05))])
    refs = np.stack([star_image(seed=k) for k in range(3)])
    bad = rng.random(targets.shape) < 0.02
    variance, centers = rng.uniform(0.1, 0.2, refs.shape), rng.normal(0.0, 0.02, (3, 2))
    prepared = registration.pair_targets(targets, np.ones(SHAPE), bad, np.ones(targets.shape))
    together = registration.fit_pairs(
        prepared, fourier.spectrum(refs), variance, centers, at_once=at_once
    )
    for k, ref in enumerate(refs):
        alone = pairs(targets, ref, centers[k], bad=bad, var_r=variance[k])
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a[k], b, rtol=1e-9)


@pytest.mark.parametrize("order", [4, 5, 6, 7])
def test_what_an_expansion_omits_is_known_over_its_reach(star_image, rng, order):
    # Chebyshev's polynomials have zeros, where a single pair would not tell what is left out.
    drift = rng.uniform(-0.2, 0.2, (12, 2))
    targets = np.stack([star_image(shift_yx=d, fwhm=4.0) for d in drift])
    targets += rng.normal(0, 0.01, targets.shape)
    ref = star_image(fwhm=4.0)
    reach = {"reach_yx": np.full(2, 0.2)}
    exact = pairs(targets, ref, (0.0, 0.0), order=12, **reach).shift_yx
    tolerances = 10.0 ** -np.arange(2.0, 9.0)
    for tolerance in tolerances:
        found = pairs(targets, ref, (0.0, 0.0), order=order, tolerance=tolerance, **reach)
        off = np.abs(found.shift_yx - exact).max(axis=1)
        assert (off[found.converged] < tolerance).all()


def test_spectra_in_single_precision_move_shifts_by_less_than_1e_7_pixel(star_image, rng):
    targets = np.stack([star_image(shift_yx=d) for d in rng.uniform(-0.2, 0.2, (3, 2))])
    one, none = np.ones(SHAPE), np.zeros(targets.shape, bool)
    prepared = registration.pair_targets(targets, one, none, np.ones(targets.shape))
    spectra = fourier.spectrum(1e5 * star_image())[None]

    def found(dtype):
        return registration.fit_pairs(prepared, spectra.astype(dtype), one[None], np.zeros((1, 2)))

    single, double = found(np.complex64), found(np.complex128)
    assert single.shift_yx.dtype == np.float64
    np.testing.assert_allclose(single.shift_yx, double.shift_yx, atol=1e-7)
