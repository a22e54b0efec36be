"""Products have the metadata of their exposure, and nothing that the schema refuses is written."""

import numpy as np
import pytest
from stdatamodels.jwst import datamodels

from lyot.errors import LyotError
from lyot.files.exposure import as_model
from lyot.files.products import copy_with, derived_model, save_atomically

ARRAYS = {"data": np.ones((1, 1, 1), np.float32)}


@pytest.mark.parametrize("kind", ["CubeModel", "ImageModel"])
def test_a_derived_product_has_what_stdatamodels_would_give_it_value_by_value(exposure, kind):
    arrays = {"data": np.ones((1,) * {"CubeModel": 3, "ImageModel": 2}[kind], np.float32)}
    with as_model(exposure, "CubeModel") as like, derived_model(kind, like, arrays) as model:
        checked = getattr(datamodels, kind)()
        checked.update(like)
        checked.meta.model_type = kind
        known, made = (each.to_flat_dict(include_arrays=False) for each in (checked, model))
        known.pop("meta.date")  # of now
        assert known == {key: made.get(key) for key in known}
        assert model.meta.instrument.filter == like.meta.instrument.filter


@pytest.mark.parametrize("make", [derived_model, lambda _, like, arrays: copy_with(like, arrays)])
def test_a_value_that_the_schema_refuses_ends_in_one_sentence(exposure, tmp_path, make):
    path = tmp_path / "x_psfsub.fits"
    with as_model(exposure, "CubeModel") as like, make("CubeModel", like, ARRAYS) as model:
        model.meta.exposure.type = "NO TYPE"
        with pytest.raises(LyotError, match=r"x_psfsub\.fits was not written.*NO TYPE"):
            save_atomically(model, path)
    assert not path.exists()
