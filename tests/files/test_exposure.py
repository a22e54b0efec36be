"""Exposures are read alike from files and models; flags and missing pixels are bad."""

import numpy as np
import pytest
from astropy.io import fits

from lyot.errors import LyotError
from lyot.files.exposure import as_model, cube_from_model, read_cube


def test_file_and_model_give_the_same_pixels(exposure):
    quick = read_cube(exposure)
    with as_model(exposure, "CubeModel") as model:
        slow = cube_from_model(model)
    for name in ("sci", "err", "dq"):
        np.testing.assert_array_equal(getattr(quick, name), getattr(slow, name))
    assert quick.sci.dtype.isnative


def test_nan_without_a_flag_is_bad(exposure):
    cube = read_cube(exposure)
    assert cube.bad("").sum() == np.isnan(cube.sci).sum()
    assert cube.bad("DO_NOT_USE").sum() > np.isnan(cube.sci).sum()


def edit(exposure, path, change):
    with fits.open(exposure) as hdus:
        change(hdus)
        hdus.writeto(path)
    return path


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda h: h.__delitem__("SCI"), "has no SCI image"),
        (lambda h: setattr(h["SCI"], "data", h["SCI"].data * np.nan), "has no finite pixel"),
        (lambda h: setattr(h["SCI"], "data", None), "SCI"),
    ],
)
def test_bad_exposures_are_refused(exposure, tmp_path, change, text):
    path = edit(exposure, tmp_path / "bad.fits", change)
    with pytest.raises(LyotError, match=text):
        read_cube(path)
