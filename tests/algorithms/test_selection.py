"""Choice of references, imputation and non-negative components, against independent ways."""

import numpy as np
import pytest
from scipy.optimize import nnls

from lyot.algorithms import imputation, klip, nmf, selection


@pytest.fixture
def sample(rng):
    refs = rng.normal(size=(9, 200))
    target = refs[[1, 4, 6]].T @ [2.0, -1.0, 0.5] + 0.1 * rng.normal(size=200)
    return refs, target, refs @ refs.T, refs @ target


def test_correlations_are_those_of_the_pixels(sample):
    refs, target, gram, cross = sample
    expected = [(r @ target) / np.sqrt((r @ r) * (target @ target)) for r in refs]
    np.testing.assert_allclose(selection.correlations(gram, cross, target @ target), expected)


def test_the_highest_are_taken_of_those_allowed():
    allowed = np.array([True, False, True, True])
    score = np.array([0.1, 0.9, 0.3, 0.3])
    np.testing.assert_array_equal(selection.highest(score, allowed, 2), [False, False, True, True])
    np.testing.assert_array_equal(selection.highest(score, allowed, 0), allowed)


def test_stepwise_takes_what_lowers_the_residual_most(sample):
    refs, target, gram, cross = sample
    everything = np.ones(9, bool)
    chosen: list[int] = []
    for n in range(1, 6):
        # By trial: the reference that, with those taken before, leaves least.
        left = {}
        for k in set(range(9)) - set(chosen):
            some = refs[[*chosen, k]]
            left[k] = np.linalg.lstsq(some.T, target, rcond=None)[1][0]
        chosen.append(min(left, key=left.get))
        taken = selection.stepwise(gram, cross, everything, n)
        assert sorted(np.flatnonzero(taken)) == sorted(chosen)
    assert {1, 4, 6} <= set(chosen[:3])


def test_stepwise_stops_where_nothing_is_left(rng):
    refs = rng.normal(size=(2, 50))
    refs = np.vstack([refs, refs.sum(axis=0)])  # the third adds nothing
    taken = selection.stepwise(refs @ refs.T, refs @ rng.normal(size=50), np.ones(3, bool), 3)
    assert taken.sum() == 2


def test_a_rotation_moves_a_source_by_its_chord():
    # 60 degrees at 10 pixels: an equilateral triangle.
    assert selection.displacement_fwhm(10.0, 60.0, 2.5) == pytest.approx(4.0)
    assert selection.displacement_fwhm(10.0, 350.0, 1.0) == pytest.approx(
        selection.displacement_fwhm(10.0, -10.0, 1.0)
    )


def test_anchored_modes_fit_at_the_anchors(rng):
    refs = rng.normal(size=(6, 120))
    anchor = np.arange(120) < 70
    target = rng.normal(size=120)
    whole = klip.decompose(refs @ refs.T)
    matrix = imputation.anchored(whole, refs[:, anchor] @ refs[:, anchor].T)
    modes = klip.to_modes(whole) @ refs
    for n in (1, 3, 6):
        coefs = klip.coefficients((target[anchor] @ refs[:, anchor].T)[None], matrix, n_modes=n)
        by_hand = np.linalg.lstsq(modes[:n, anchor].T, target[anchor], rcond=None)[0]
        np.testing.assert_allclose((coefs @ refs)[0], by_hand @ modes[:n], atol=1e-10)


def test_anchored_modes_end_where_the_anchors_do_not_see_them():
    refs = np.eye(3, 8) + 0.0
    refs[2, :] = 0.0
    refs[2, 7] = 5.0  # the leading mode lies where there is no anchor
    anchor = np.arange(8) < 7
    matrix = imputation.anchored(klip.decompose(refs @ refs.T), refs[:, anchor] @ refs[:, anchor].T)
    assert len(matrix) == 0


def test_the_mean_matrix_projects_on_the_mean_of_equal_references(sample):
    refs, target, gram, cross = sample
    mean = (refs / np.linalg.norm(refs, axis=1)[:, None]).mean(axis=0)
    expected = (target @ mean) / (mean @ mean) * mean
    coefs = klip.coefficients(cross[None], klip.mean_matrix(gram), n_modes=50)
    np.testing.assert_allclose((coefs @ refs)[0], expected, atol=1e-12)


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
