"""References are stacked, whatever holds them."""

import numpy as np
import pytest
from stdatamodels.jwst import datamodels

from lyot.errors import LyotError
from lyot.steps import StackRefsStep


@pytest.mark.parametrize("kind", ["association", "names", "models", "generator"])
def test_stack_refs_takes_anything_that_holds_exposures(small, files, psfstack, kind):
    models = [datamodels.CubeModel(f) for f in files[1]]
    given = {
        "association": str(small),
        "names": files[1],
        "models": models,
        "generator": (m for m in models),
    }[kind]
    result = StackRefsStep("stack_refs").run(given)
    assert isinstance(result, datamodels.CubeModel)
    expected = np.concatenate([m.data for m in models])
    np.testing.assert_array_equal(result.data, expected)
    np.testing.assert_array_equal(result.data, psfstack.data)
    np.testing.assert_array_equal(result.dq, np.concatenate([m.dq for m in models]))
    assert result.meta.cal_step.stack_psfs == "COMPLETE"
    assert [m.meta.cal_step.stack_psfs for m in models] == [None] * len(models)
    for model in models:
        model.close()


def test_stack_refs_refuses_what_it_cannot_stack(files, tmp_path):
    with pytest.raises(LyotError, match="no psf member"):
        StackRefsStep.call([])
    with datamodels.CubeModel(files[1][0]) as a:
        cut = a.copy()
        cut.data, cut.err, cut.dq = a.data[:, :40], a.err[:, :40], a.dq[:, :40]
        with pytest.raises(LyotError, match="they must be equal"):
            StackRefsStep.call([a, cut])
        other = a.copy()
        other.meta.instrument.filter = "F335M"
        with pytest.raises(LyotError, match="filter F335M"):
            StackRefsStep.call([a, other])
