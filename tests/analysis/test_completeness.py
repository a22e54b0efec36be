"""Completeness: half of the sources at the limit are found."""

import numpy as np
import pytest

from lyot.analysis.completeness import completeness_map
from lyot.analysis.contrast import contrast_curve
from lyot.analysis.statistic import Statistic

FWHM_ARCSEC = 2.4 * 0.063


@pytest.mark.parametrize("rolls_too", [False, True])
def test_half_of_the_sources_at_the_limit_are_found(draw, rolls_too):
    fpf, separations = 1e-3, np.array([1.5, 2.5, 5.0, 9.0]) * FWHM_ARCSEC
    found = np.zeros(len(separations))
    for seed in range(30):
        observation = draw(1000 + seed, rolls_too=rolls_too)
        curve = contrast_curve(
            observation, separations_arcsec=separations, statistic=Statistic(fpf=fpf)
        )
        complete = completeness_map(
            observation,
            separations_arcsec=separations,
            contrasts=curve.calibrated[0],
            n_angles=3,
            statistic=Statistic(fpf=fpf),
        )
        found += np.diag(complete.fraction)
    # Positions of one draw are few near the star: each draw counts about n trials there.
    np.testing.assert_allclose(found / 30.0, 0.5, atol=0.05)
