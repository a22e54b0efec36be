"""One statistic for curve and detection, against its published values and by counting."""

import numpy as np
import pytest

from lyot.algorithms.statistics import (
    false_positive_fraction,
    finite_mean,
    n_positions,
    threshold,
)

RADII = (1, 1.5, 2, 3, 5, 10)


def test_thresholds_of_five_sigma():
    found = [threshold(n_positions(r)) for r in RADII]
    np.testing.assert_allclose(found, [62.3, 18.1, 11.7, 8.21, 6.48, 5.64], rtol=4e-3)


def test_thresholds_as_pyklip_and_vip_print_them():
    found = [threshold(n_positions(r), others="n") for r in RADII]
    np.testing.assert_allclose(found, [34.4, 15.0, 10.7, 7.95, 6.42, 5.63], rtol=4e-3)


def test_too_few_positions_have_no_threshold():
    assert np.isnan(threshold(2))
    with pytest.raises(ValueError, match="distribution 'cauchy'"):
        threshold(9, distribution="cauchy")


@pytest.mark.parametrize("n", [6, 12, 40])
@pytest.mark.parametrize("distribution", ["gaussian", "laplace"])
def test_false_alarms_come_at_the_stated_rate(n, distribution):
    rng = np.random.default_rng(n)
    fpf, trials = 5e-3, 200_000
    draw = rng.normal if distribution == "gaussian" else rng.laplace
    values = draw(size=(trials, n))
    others = values[:, 1:]
    limit = others.mean(axis=1) + threshold(n, fpf=fpf, distribution=distribution) * others.std(
        axis=1, ddof=1
    )
    alarms = (values[:, 0] > limit).sum()
    assert abs(alarms - fpf * trials) < 4 * np.sqrt(fpf * trials)


def test_the_fraction_is_the_inverse_of_the_threshold():
    for n in (6, 20, 100):
        t = threshold(n, fpf=1e-4) / np.sqrt(1 + 1 / (n - 1))
        np.testing.assert_allclose(false_positive_fraction(t, np.asarray(n)), 1e-4, rtol=1e-9)


def test_the_mean_leaves_out_what_is_not_finite(rng):
    values = rng.normal(size=(5, 3, 4))
    values[1:, 0, 0], values[:, 2, 1] = np.nan, np.inf
    mean = finite_mean(values, axis=0)
    assert mean[0, 0] == values[0, 0, 0]
    assert np.isnan(mean[2, 1])
    np.testing.assert_allclose(mean[1], values[:, 1].mean(axis=0), rtol=1e-15)
