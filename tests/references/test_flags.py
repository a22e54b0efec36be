"""Flags of references are held where there are some, and move with their images."""

import numpy as np
import pytest

from lyot.instruments import NIRCAM
from lyot.references.flags import Flags, MovedFlags

SHAPE = (12, 14)


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_flags_move_by_whole_pixels_as_numpy_rolls_an_array(rng, share):
    dq = rng.integers(1, 2**32, (3, *SHAPE), dtype=np.uint32) * (rng.random((3, *SHAPE)) < share)
    dq = dq.astype(np.uint32)
    none = np.zeros(dq.shape, bool)
    shifts = np.array([[0.4, -0.4], [3.3, -15.7], [-2.5, 1.5]])
    moved = MovedFlags(Flags(dq), shifts, none, none[0], NIRCAM)
    assert len(moved) == 3
    for k, pixels in enumerate([(0, 0), (3, -16), (-2, 2)]):
        np.testing.assert_array_equal(moved[k], np.roll(dq[k], pixels, axis=(0, 1)))
        np.testing.assert_array_equal(moved[k : k + 2][0], moved[k])


def test_flags_say_what_was_filled():
    dq = np.zeros((2, *SHAPE), np.uint32)
    dq[0, 5, 6] = 1 + 4
    bad = np.zeros((2, *SHAPE), bool)
    bad[0, 6, 6] = True
    bad[:, 2, 2] = True
    shifts = np.array([[1.0, 0.0], [0.0, 0.0]])
    flags = MovedFlags(Flags(dq), shifts, bad, bad.all(axis=0), NIRCAM)
    estimated = NIRCAM.flag_value("FLUX_ESTIMATED")
    assert flags[0][6, 6] == 4 + estimated  # filled, so it may be used
    assert flags[1][6, 6] == 0
    assert flags[0][2, 2] == flags[1][2, 2] == 1 + estimated  # bad in all: it may not
