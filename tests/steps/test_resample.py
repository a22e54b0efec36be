"""One exposure on the sky, and what is measured in it."""

import numpy as np
import pytest
from stdatamodels.jwst import datamodels

from lyot.errors import LyotError
from lyot.files.provenance import star_of
from lyot.steps import AlignRefsStep, HlspStep, KlipStep, ResampleStep
from scenes import assert_unchanged, snapshot


def test_resample_and_hlsp_on_one_exposure(target, psfstack, tmp_path):
    aligned = AlignRefsStep.call(target, psfstack)
    subtracted = KlipStep.call(target, aligned)
    before = snapshot(subtracted)
    image = ResampleStep.call(subtracted)
    assert_unchanged(subtracted, before)
    assert isinstance(image, datamodels.ImageModel)
    assert image.meta.cal_step.resample == "COMPLETE"
    star = star_of(image)
    sky = image.meta.wcs(star.x, star.y)
    np.testing.assert_allclose(sky, (150.0, -25.0), atol=1e-7)
    covered = np.isfinite(image.data)
    assert np.isfinite(image.err[covered]).all()
    path = tmp_path / "one_i2d.fits"
    image.save(path)
    snr, contrast = HlspStep.call(str(path), output_dir=str(tmp_path))
    np.testing.assert_allclose(snr.data[covered], (image.data / image.err)[covered], rtol=1e-5)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "one_contrast.fits",
        "one_i2d.fits",
        "one_snr.fits",
    ]
    table = contrast.contrast_table
    y, x = np.indices(image.data.shape)
    r = np.hypot(y - star.y, x - star.x)
    ring = image.data[(r >= 10) & (r < 12)]
    np.testing.assert_allclose(table["sigma"][5], np.nanstd(ring), rtol=1e-4)
    np.testing.assert_allclose(table["radius"][:3], [1, 3, 5])


def test_a_missing_wcs_is_said(target, psfstack):
    subtracted = KlipStep.call(target, AlignRefsStep.call(target, psfstack))
    subtracted.meta.wcs = None
    with pytest.raises(LyotError, match="has no WCS"):
        ResampleStep.call(subtracted)
