"""The signal-to-noise image and the curve, saved under their names."""

import numpy as np
import pytest
from stdatamodels.jwst import datamodels

from lyot.errors import LyotError
from lyot.files.provenance import provenance_of
from lyot.steps import HlspStep


def test_hlsp_saves_each_time_it_runs(tmp_path):
    image = datamodels.ImageModel(np.ones((20, 20), np.float32))
    image.err = np.ones((20, 20), np.float32)
    image.meta.filename = "a_i2d.fits"
    step = HlspStep("hlsp")
    for number in ("1", "2"):
        step.output_dir = str(tmp_path / number)
        step.run(image)
        names = sorted(p.name for p in (tmp_path / number).iterdir())
        assert names == ["a_contrast.fits", "a_snr.fits"]


def test_hlsp_of_a_plain_image_is_centered_on_the_image(tmp_path):
    rng = np.random.default_rng(2)
    image = datamodels.ImageModel(rng.normal(size=(40, 44)).astype(np.float32))
    image.err = np.full((40, 44), 2.0, np.float32)
    image.meta.filename = "plain_i2d.fits"
    _, contrast = HlspStep.call(image, save_results=False)
    recipe = provenance_of(contrast)["steps"]["hlsp"]["recipe"]
    assert recipe["center_yx"] == [19.0, 21.0]
    assert recipe["center_on"] == "image"
    with pytest.raises(LyotError, match="records no star"):
        HlspStep.call(image, center_on="star", save_results=False)
