"""The background is subtracted from a copy, and recorded."""

import numpy as np

from lyot.files.provenance import provenance_of
from lyot.steps import BackgroundStep
from scenes import assert_unchanged, snapshot


def test_a_surface_is_subtracted_from_a_copy(target):
    before = snapshot(target)
    result = BackgroundStep.call(target, surface="constant", inner_arcsec=1.0)
    assert result.meta.cal_step.back_sub == "COMPLETE"
    step = provenance_of(result)["steps"]["background"]
    assert step["recipe"]["surface"] == "constant"
    level = np.asarray(step["surface"])
    np.testing.assert_allclose(result.data, target.data - level[:, :, None], atol=1e-3)
    assert_unchanged(target, before)
    assert BackgroundStep.call(target).meta.cal_step.back_sub == "SKIPPED"


def test_background_exposures_may_be_files(target, files, tmp_path):
    result = BackgroundStep.call(target, files[0], scale=1.0, inner_arcsec=1.0)
    # An exposure minus its own mean and a level.
    np.testing.assert_allclose(np.nanmedian(result.data.sum(axis=0)), 0.0, atol=0.2)
