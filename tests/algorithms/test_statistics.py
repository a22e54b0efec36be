"""The statistic of one position among others, by counting."""

import numpy as np
import pytest

from lyot.algorithms.statistics import critical_t, n_positions, tail_probability


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
