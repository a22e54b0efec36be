"""Stated errors are those that noise makes."""

import numpy as np
import pytest
from scipy import ndimage

from lyot.algorithms import klip, propagation


def test_moved_variance_is_kept_and_never_negative(rng):
    variance = rng.uniform(0, 1, (30, 32))
    variance[10:20, 10:20] = 50.0
    moved = propagation.shift_variance(variance, np.array([0.4, -1.3]))
    assert moved.min() >= 0
    assert abs(moved[3:-3, 3:-3].mean() / variance[3:-3, 3:-3].mean() - 1) < 0.02


def test_a_missing_variance_touches_four_pixels():
    variance = np.ones((10, 10))
    variance[5, 5] = np.nan
    assert np.isnan(propagation.shift_variance(variance, np.array([0.5, 0.5]))).sum() == 4


def test_whole_shift_moves_variance_exactly(rng):
    variance = rng.uniform(0, 1, (12, 13))
    moved = propagation.shift_variance(variance, np.array([2.0, -1.0]))
    np.testing.assert_array_equal(moved[2:, :-1], variance[:-2, 1:])


@pytest.mark.parametrize("shift", [(0.3, 0.7), (-0.6, 1.4), (-2.5, -1.0), (3.2, -0.1)])
def test_variance_is_interpolated_and_edges_repeated_outwards(rng, shift):
    variance = rng.uniform(0, 1, (12, 13))
    moved = propagation.shift_variance(variance, np.array(shift))
    expected = ndimage.shift(variance, shift, order=1, mode="nearest")
    np.testing.assert_allclose(moved, expected, rtol=1e-12)


def test_many_variances_are_moved_as_each_alone(rng):
    variances, shifts = rng.uniform(1, 2, (5, 12, 14)), rng.uniform(-3, 3, (5, 2))
    variances[1, 4, 5] = np.nan
    shifts[2], shifts[3, 0] = (-2.0, 1.0), 0.0
    together = propagation.shift_variances(variances, shifts)
    for moved, variance, shift in zip(together, variances, shifts, strict=True):
        alone = propagation.shift_variance(variance, shift)
        np.testing.assert_allclose(moved, alone, rtol=1e-14)


@pytest.mark.parametrize(("n_pix", "n_modes"), [(500, 50), (2000, 20), (500, 5)])
def test_propagated_error_agrees_with_monte_carlo(rng, n_pix, n_modes):
    """500 pixels and 50 of 100 modes included, where the fit eats a tenth of the noise."""
    n_ref, n_draw = 100, 400
    # Speckles with a falling spectrum, all modes of it above the noise.
    patterns = rng.normal(size=(n_ref, n_pix)) * (10.0 * 0.97 ** np.arange(n_ref))[:, None]
    truth = rng.normal(size=(n_ref, n_ref)) @ patterns
    target = rng.normal(size=n_modes // 2) @ patterns[: n_modes // 2]
    var_r = np.full(truth.shape, 0.04)
    var_t = rng.uniform(0.5, 1.5, n_pix)
    weight = np.ones(n_pix)
    out, stated = [], []
    for _ in range(n_draw):
        t = (target + rng.normal(size=n_pix) * np.sqrt(var_t))[None]
        # References are drawn anew too: their noise is part of the error.
        noisy = truth + rng.normal(size=truth.shape) * 0.2
        r = noisy - noisy.mean(axis=1, keepdims=True)
        t = t - t.mean(axis=1, keepdims=True)
        products = klip.block_products(t, r, weight)
        matrix = klip.to_modes(klip.decompose(products.gram))[:n_modes]
        coefs = klip.coefficients(products.cross, matrix, n_modes=n_modes)
        out.append(klip.residual(t, r, coefs, np.zeros(1))[0])
        z = matrix @ r
        noise = propagation.coefficient_noise(z, var_t, weight)
        squared = coefs**2 - propagation.own_noise(matrix, noise, n_modes=n_modes)
        v = var_t + squared @ var_r
        lever = propagation.leverage(z, 1.0 / n_pix)
        stated.append(
            propagation.propagate_through_fit(v, lever, weight, v @ lever / lever.sum())[0]
        )
    residual_noise = np.var(np.array(out) - np.mean(out, axis=0), axis=0, ddof=1)
    ratio = np.sqrt(np.mean(stated) / residual_noise.mean())
    assert abs(ratio - 1) < 0.05


def test_outside_the_zone_the_fit_adds_noise_alone():
    v, lever = np.full((1, 4), 2.0), np.full(4, 0.1)
    weight = np.array([1.0, 1.0, 0.0, 0.0])
    out = propagation.propagate_through_fit(v, lever, weight, np.array([2.0]))
    np.testing.assert_allclose(out, [[1.8, 1.8, 2.2, 2.2]])


def test_runs_on_a_strict_array_library(rng):
    strict = pytest.importorskip("array_api_strict")
    z, w = rng.normal(size=(3, 40)), rng.uniform(0, 1, 40)
    matrix, coefs = rng.normal(size=(3, 5)), rng.normal(size=(2, 5))
    variance = rng.uniform(1, 2, (2, 40))

    def chain(convert):
        a = [convert(x) for x in (z, w, matrix, coefs, variance)]
        noise = propagation.coefficient_noise(a[0], a[4][0, :], a[1])
        own = propagation.own_noise(a[2], noise, n_modes=2)
        after = propagation.propagate_through_fit(
            a[4], propagation.leverage(a[0], 0.01), a[1], a[3][:, 0]
        )
        return [own, after, propagation.shift_variance(a[4], np.array([0.5, 1.2]))]

    for got, expected in zip(chain(strict.asarray), chain(np.asarray), strict=True):
        np.testing.assert_allclose(np.asarray(got), expected, rtol=1e-10)
