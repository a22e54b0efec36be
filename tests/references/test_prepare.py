"""Outliers of exposures: among integrations, by their sharpness, and beside saturated pixels."""

import numpy as np
import pytest

import scenes
from lyot.algorithms import repair
from lyot.parameters import OutlierRecipe
from lyot.references import prepare
from lyot.references.prepare import flag_outliers, outlier_dq
from scenes import cube

SHAPE = (40, 44)


@pytest.mark.parametrize(
    ("n_int", "spikes", "found"),
    [(1, "auto", 1), (2, "auto", 1), (2, "never", 0), (4, "auto", 0), (4, "always", 4)],
)
def test_spikes_are_looked_for_where_integrations_cannot_be_compared(rng, n_int, spikes, found):
    given = cube(rng.normal(size=(n_int, *SHAPE)), err=1.0)
    given.sci[:, 20, 21] += 20.0 if n_int > 2 else 0.0  # hot in all of them
    given.sci[0, 20, 21] += 0.0 if n_int > 2 else 20.0
    dq, n = outlier_dq(given, OutlierRecipe(spikes=spikes))
    assert ((dq[:, 20, 21] & 17) == 17).sum() == found
    assert n <= found + 2
    assert (given.dq == 0).all()


def test_pixels_beside_saturated_ones_are_left_out(rng):
    given = cube(rng.normal(size=(1, *SHAPE)), err=1.0)
    given.dq[0, 10, 10] = 3  # in all groups
    given.dq[0, 30, 30] = 2  # in the last ones
    for n, size in ((0, 1), (1, 9), (2, 25)):
        dq = flag_outliers(given, OutlierRecipe(grow_saturated=n, spikes="never")).dq
        assert (dq & 1 > 0).sum() == size
    assert flag_outliers(given, OutlierRecipe(skip=True)) is given


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
