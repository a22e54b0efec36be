"""Noise in annuli, the statistic of one position among others, and medians, by counting."""

import numpy as np
import pytest

from lyot.algorithms import geometry
from lyot.algorithms.statistics import (
    annulus_noise,
    critical_t,
    median_variance,
    n_positions,
    tail_probability,
)


def test_positions_are_a_circumference():
    assert [n_positions(r) for r in (0.3, 1, 1.5, 10)] == [1, 6, 9, 62]


def test_too_few_others_have_no_threshold():
    assert np.isnan(critical_t(1, 1e-3))
    assert np.isnan(tail_probability(3.0, 1))
    assert np.isnan(tail_probability(np.nan, 9))


@pytest.mark.parametrize("n", [6, 12, 40])
@pytest.mark.parametrize("distribution", ["gaussian", "laplace"])
def test_false_alarms_come_at_the_stated_rate(n, distribution):
    rng = np.random.default_rng(n)
    fpf, trials = 5e-3, 200_000
    draw = rng.normal if distribution == "gaussian" else rng.laplace
    values = draw(size=(trials, n))
    others = values[:, 1:]
    spread = others.std(axis=1, ddof=1) * np.sqrt(1 + 1 / (n - 1))
    t = (values[:, 0] - others.mean(axis=1)) / spread
    alarms = (t > critical_t(n - 1, fpf, distribution=distribution)).sum()
    assert abs(alarms - fpf * trials) < 4 * np.sqrt(fpf * trials)


@pytest.mark.parametrize("distribution", ["gaussian", "laplace"])
def test_the_tail_is_the_inverse_of_the_threshold(distribution):
    for n in (6, 20, 100):
        t = critical_t(n, 1e-4, distribution=distribution)
        np.testing.assert_allclose(
            tail_probability(t, n, distribution=distribution), 1e-4, rtol=1e-9
        )


def test_annulus_noise_is_the_scatter_of_whole_pixels(rng):
    image = rng.normal(size=(61, 61))
    image[30, 33] = np.nan
    curve = annulus_noise(image, (30.0, 30.0), width=2)
    r = geometry.radius_map((61, 61), (30.0, 30.0))
    for radius, sigma, n in zip(*curve, strict=True):
        ring = image[(r >= radius - 1) & (r < radius + 1)]
        np.testing.assert_allclose(sigma, np.nanstd(ring))
        assert n == np.isfinite(ring).sum()
    np.testing.assert_allclose(curve.radius_pix, np.arange(1, 30, 2))


@pytest.mark.parametrize("n", [2, 5, 6, 9])
@pytest.mark.parametrize("apart", [0.0, 1.0, 20.0])
def test_the_variance_of_a_median_is_that_of_draws(rng, n, apart):
    centers = apart * np.linspace(-1.0, 1.0, n)[:, None] * np.ones(4000)
    values = centers + rng.normal(size=(n, 4000))
    stated = median_variance(values, np.ones(values.shape))
    again = np.median(centers + rng.normal(size=(300, n, 4000)), axis=1)
    assert np.sqrt(stated.mean() / again.var(axis=0).mean()) == pytest.approx(1.0, abs=0.08)
