"""Non-negative components, against what was mixed and SciPy's solution."""

import numpy as np
from scipy.optimize import nnls

from lyot.algorithms import nmf


def test_components_are_non_negative_and_recover_what_was_mixed(rng):
    true = np.zeros((3, 300))
    for k in range(3):
        true[k, 100 * k : 100 * k + 100] = rng.uniform(0.5, 2.0, 100)
    mix = rng.uniform(0.1, 1.0, size=(12, 3))
    refs = mix @ true
    start = rng.uniform(size=(12, 3))
    found = nmf.factorize(refs, np.ones(300), start, n_iterations=400)
    assert (found.pixels >= 0).all()
    assert (found.factors >= 0).all()
    np.testing.assert_allclose(found.factors @ found.pixels, refs, atol=2e-3 * refs.max())


def test_each_sweep_lowers_the_weighted_squares(rng):
    refs, weight = rng.uniform(0, 3, size=(8, 90)), rng.uniform(0, 2, 90)
    start = rng.uniform(size=(8, 3))
    cost = []
    for n in (1, 2, 4, 8, 16, 32):
        found = nmf.factorize(refs, weight, start, n_iterations=n)
        cost.append((weight * (refs - found.factors @ found.pixels) ** 2).sum())
    assert (np.diff(cost) <= 1e-9).all()


def test_the_active_set_is_that_of_scipy(sample):
    refs, target, gram, cross = sample
    expected = nnls(refs.T, target)[0]
    used = nmf.non_negative(gram, cross)
    np.testing.assert_array_equal(used, expected > 0)
    free = np.linalg.lstsq(refs[used].T, target, rcond=None)[0]
    np.testing.assert_allclose(free, expected[used])
