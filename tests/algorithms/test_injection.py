"""Responses from products of references, against fits to pixels that hold the source."""

import numpy as np
import pytest

from lyot.algorithms import injection, klip

N_MODES = 4


@pytest.fixture
def data(rng):
    """Target and references with pedestals, a weight, and a source in both."""
    refs, target = rng.normal(3.0, 1.0, size=(7, 150)), rng.normal(5.0, 1.0, size=150)
    weight = rng.uniform(0.2, 1.5, size=150)
    weight[::11] = 0.0
    in_refs = np.zeros_like(refs)
    in_refs[2:, 40:60] = rng.uniform(size=(5, 20))
    source = np.zeros(150)
    source[50:70] = rng.uniform(size=20)
    return target, refs, weight, source, in_refs


def fit(target, refs, weight):
    """Fit centered pixels; return the residual, the means, and what the fit is made of."""
    ref_means, target_mean = refs @ weight / weight.sum(), target @ weight / weight.sum()
    r, t = refs - ref_means[:, None], target - target_mean
    gram, cross = (r * weight) @ r.T, (r * weight) @ t
    matrix = klip.to_modes(klip.decompose(gram))
    coefs = klip.coefficients(cross[None], matrix, n_modes=N_MODES)[0]
    return t - coefs @ r, ref_means, injection.FrozenFit(gram, cross, t, r, weight, weight.sum())


def boxed(pixels):
    """Lay pixels out on a box."""
    return pixels.reshape(*pixels.shape[:-1], 10, 15)


def products(source, weight, refs, means):
    """Return the products of one source on one box."""
    light = np.array([[source @ weight]])
    images = boxed(source[None, None]), boxed(weight[None])
    return injection.source_products(*images, light, [boxed(refs)], means)


def test_the_linear_response_is_the_change_of_the_residual(data):
    target, refs, weight, source, _ = data
    before, ref_means, frozen = fit(target, refs, weight)
    after, *_ = fit(target + 3.0 * source, refs, weight)
    frames = [boxed(refs)]
    cross = products(source, weight, refs, ref_means)
    matrix = klip.to_modes(klip.decompose(frozen.gram))
    coefs = klip.coefficients(cross[0], matrix, n_modes=N_MODES)
    model = injection.linear_response(coefs[None], frames, ref_means)
    response = source - source @ weight / weight.sum() - model.ravel()
    np.testing.assert_allclose(after - before, 3.0 * response, atol=1e-12)


def test_products_of_all_pixels_are_the_operator_on_any_source(data):
    _, refs, weight, source, _ = data
    means = refs @ weight / weight.sum()
    operator = injection.all_products(boxed(weight), boxed(refs), means)
    one = products(source, weight, refs, means)
    np.testing.assert_allclose(source[None] @ operator, one[0], atol=1e-12)


@pytest.mark.parametrize("flux", [0.0, 0.3, -2.0, 40.0])
def test_the_update_is_the_fit_to_pixels_that_hold_the_source(data, flux):
    target, refs, weight, source, in_refs = data
    _, ref_means, frozen = fit(target, refs, weight)
    expected, new_means, _ = fit(target + flux * source, refs + flux * in_refs, weight)
    updated = injection.update(frozen, source, in_refs, flux, n_modes=N_MODES)
    np.testing.assert_allclose(updated.residual, expected, atol=1e-10)
    np.testing.assert_allclose(updated.ref_means, new_means - ref_means, atol=1e-12)
