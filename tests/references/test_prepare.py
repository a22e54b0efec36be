"""References before they are aligned."""

import numpy as np

import scenes
from lyot.algorithms import repair
from lyot.parameters import OutlierRecipe
from lyot.references import prepare


def test_outliers_found_some_rows_at_a_time_are_those_of_the_whole_frame(rng):
    n_rows = 2 * prepare.ROWS_AT_ONCE + 3
    sci = rng.normal(size=(6, n_rows, 20)).astype(np.float32)
    # Neighbors beyond the edge of what is worked on at once decide on these.
    sci[:, prepare.ROWS_AT_ONCE - 2 : prepare.ROWS_AT_ONCE] *= 30.0
    sci[rng.integers(0, 6, 40), rng.integers(0, n_rows, 40), rng.integers(0, 20, 40)] += 60.0
    cube = scenes.cube(sci, err=0.1, instrument="NIRCAM")
    wanted = repair.outlier_flags(cube.sci, cube.err, np.zeros(sci.shape, bool), n_sigma=4.0)
    found = prepare.outlier_dq(cube, OutlierRecipe(n_sigma=4.0))
    np.testing.assert_array_equal(found.dq != 0, wanted)
    assert 20 < found.n_found == wanted.sum()
    flagged = prepare.flag_outliers(cube, OutlierRecipe(n_sigma=4.0))
    np.testing.assert_array_equal(flagged.dq, found.dq)
    assert prepare.flag_outliers(cube, OutlierRecipe(skip=True)) is cube
