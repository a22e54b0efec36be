"""Outliers are flagged in a copy."""

import numpy as np
from stdatamodels.jwst import datamodels

from lyot.steps import OutlierDetectionStep
from scenes import assert_unchanged, snapshot


def test_outliers_are_flagged_in_a_copy(target):
    cube = datamodels.CubeModel()
    rng = np.random.default_rng(1)
    cube.update(target)
    cube.data = rng.normal(size=(5, 48, 52)).astype(np.float32)
    cube.err = np.ones(cube.data.shape, np.float32)
    cube.dq = np.zeros(cube.data.shape, np.uint32)
    cube.data[1, 7, 8] = 99.0
    before = snapshot(cube)
    result = OutlierDetectionStep.call(cube)
    assert result.dq[1, 7, 8] == 17
    assert result.meta.cal_step.outlier_detection == "COMPLETE"
    assert_unchanged(cube, before)
