"""What moves along with a reference, and what fills its gaps."""

import numpy as np
import pytest

from lyot.files.exposure import Cube
from lyot.files.headers import ExposureInfo
from lyot.parameters import AlignRecipe
from lyot.references.fill import (
    Moved,
    fill_moved,
    learn_prediction,
    move_bad,
)
from lyot.references.prepare import prepare_refs

SHAPE = (12, 14)
INFO = ExposureInfo("x", (1, *SHAPE), instrument="NIRCAM", filter="F444W")


def refs(dq):
    sci = np.ones((len(dq), *SHAPE), np.float32)
    return prepare_refs(Cube(sci, sci, dq, INFO), AlignRecipe())


@pytest.mark.parametrize(
    ("shift", "bad"),
    [
        ((0.0, 0.0), [(5, 6)]),
        ((2.0, -1.0), [(7, 5)]),
        ((0.5, 0.0), [(5, 6), (6, 6)]),
        ((0.5, 0.5), [(5, 6), (5, 7), (6, 6), (6, 7)]),
        ((0.2, 0.0), [(5, 6)]),
    ],
)
def test_a_bad_pixel_moves_with_its_image(shift, bad):
    dq = np.zeros((1, *SHAPE), np.uint32)
    dq[0, 5, 6] = 1
    moved = move_bad(refs(dq), 0, np.array(shift))
    inside = np.zeros(SHAPE, bool)
    inside[3:-3, 3:-3] = True
    assert {tuple(p) for p in np.argwhere(moved & inside)} == set(bad)


def test_pixels_from_outside_the_frame_are_bad():
    moved = move_bad(refs(np.zeros((1, *SHAPE), np.uint32)), 0, np.array([3.0, 0.0]))
    np.testing.assert_array_equal(np.flatnonzero(moved.all(axis=1)), [0, 1, 2])
    assert not moved[3:].any()


def test_pixels_from_more_than_half_a_pixel_beyond_an_edge_are_bad():
    good = refs(np.zeros((1, *SHAPE), np.uint32))
    moved = move_bad(good, 0, np.array([0.4, 1.6]))
    assert not moved[:, 2:].any()
    assert moved[:, :2].all()
    moved = move_bad(good, 0, np.array([-1.6, -0.5]))
    assert moved[-2:].all()
    assert not moved[:-2].any()


def test_gaps_are_filled_from_references_that_follow_one_another(rng):
    speckles = rng.normal(size=(2, 400))
    mix = np.array([[1.0, 0.2], [2.0, 0.5], [0.5, 0.9]])
    sci = (mix @ speckles).astype(np.float32)
    truth = sci.copy()
    variance = np.full(sci.shape, 1e-6, np.float32)
    bad = np.zeros(sci.shape, bool)
    bad[1, 7] = True
    bad[:, 9] = True
    prediction = learn_prediction(sci, variance, bad)
    sci[1, 7] = 1e6
    fill_moved(Moved(sci, variance, bad), prediction)
    np.testing.assert_allclose(sci[1, 7], truth[1, 7], atol=0.05)
    assert np.isnan(sci[:, 9]).all()
    assert variance[1, 7] > 1e-6
    kept = ~bad
    np.testing.assert_array_equal(sci[kept], truth[kept])
