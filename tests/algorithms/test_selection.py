"""Choice of references, against the pixels."""

import numpy as np
import pytest

from lyot.algorithms import selection


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
