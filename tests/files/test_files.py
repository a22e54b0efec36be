"""Exposures are read as they are; products are written whole or not at all."""

import errno
import os
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits

from lyot.errors import LyotError
from lyot.files import products
from lyot.files.describe import describe
from lyot.files.exposure import as_model, cube_from_model, flag_value, read_cube
from lyot.files.headers import info_from_model, read_info


@pytest.fixture
def exposure(small):
    return next(p for p in sorted(small.parent.glob("*_calints.fits")))


def test_headers_and_model_say_the_same(exposure):
    from_file = read_info(exposure)
    with as_model(exposure, "CubeModel") as model:
        from_model = info_from_model(model)
    assert from_model.pixel_area_sr == pytest.approx(from_file.pixel_area_sr, rel=1e-12)
    assert replace(from_model, pixel_area_sr=0.0) == replace(from_file, pixel_area_sr=0.0)
    assert from_file.filter == "F444W"
    assert from_file.crpix_xy == (25.25, 23.75)
    assert not from_file.is_psf


def test_file_and_model_give_the_same_pixels(exposure):
    quick = read_cube(exposure)
    with as_model(exposure, "CubeModel") as model:
        slow = cube_from_model(model)
    for name in ("sci", "err", "dq"):
        np.testing.assert_array_equal(getattr(quick, name), getattr(slow, name))
    assert quick.sci.dtype.isnative


def test_undeclared_nan_is_bad(exposure):
    cube = read_cube(exposure)
    assert cube.bad("").sum() == np.isnan(cube.sci).sum()
    assert cube.bad("DO_NOT_USE").sum() > np.isnan(cube.sci).sum()


def test_flags_are_named(exposure):
    assert flag_value("DO_NOT_USE+HOT") == 2049
    assert flag_value("DO_NOT_USE,HOT") == 2049
    assert flag_value("") == 0
    with pytest.raises(LyotError, match="bad_bits is 'NOPE'"):
        flag_value("NOPE")


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


def test_truncated_and_foreign_files_are_refused(exposure, tmp_path):
    whole = exposure.read_bytes()
    (tmp_path / "cut.fits").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LyotError, match=r"cut\.fits is truncated|cut\.fits is not a readable"):
        read_cube(tmp_path / "cut.fits")
    (tmp_path / "text.fits").write_text("hello")
    with pytest.raises(LyotError, match="is not a readable FITS file"):
        read_cube(tmp_path / "text.fits")
    with pytest.raises(LyotError, match="does not exist"):
        read_cube(tmp_path / "gone.fits")


def test_a_product_appears_whole(tmp_path):
    path = tmp_path / "new" / "product.txt"
    with products.atomic_write(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert os.listdir(path.parent) == ["product.txt"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_product_leaves_nothing_and_keeps_the_old(tmp_path, failure):
    path = tmp_path / "product.txt"
    path.write_text("old")

    def write():
        with products.atomic_write(path) as temporary:
            temporary.write_text("half")
            raise failure

    with pytest.raises(failure):
        write()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["product.txt"]


def test_a_full_disk_is_said(tmp_path):
    def write():
        with products.atomic_write(tmp_path / "p.fits"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(LyotError, match="the disk is full"):
        write()
    assert os.listdir(tmp_path) == []


def test_a_product_that_cannot_fit_is_not_begun(tmp_path):
    with pytest.raises(LyotError, match="free some room"):
        products.check_free_space(tmp_path, 10**18, "x_psfalign.fits")


def test_an_unwritable_place_is_said(tmp_path):
    (tmp_path / "file").write_text("")

    def write():
        with products.atomic_write(tmp_path / "file" / "p.fits"):
            pass

    with pytest.raises(LyotError, match="is not a folder you may write to"):
        write()


@pytest.mark.parametrize("n_sets", [None, 3])
def test_blocks_make_the_product_that_saving_makes(exposure, tmp_path, rng, n_sets):
    from stdatamodels.jwst import datamodels

    shape = (2, 5, 6) if n_sets is None else (n_sets, 2, 5, 6)
    kind = "CubeModel" if n_sets is None else "QuadModel"
    sci, err = rng.normal(size=(2, *shape)).astype(np.float32)
    sci.flat[3] = np.nan
    dq = rng.integers(0, 2**32, shape, dtype=np.uint32)
    target = as_model(exposure, "CubeModel")

    def model():
        small = np.zeros((1,) * len(shape), np.float32)
        made = products.derived_model(
            kind, target, {"data": small, "err": small.copy(), "dq": small.astype(np.uint32)}
        )
        products.stamp(
            made, "align_psfs", recipe={"a": 1}, inputs=["x"], details={"array": np.arange(4.0)}
        )
        return made

    path = tmp_path / "t_psfalign.fits"
    with products.BlockWriter(path, model, shape) as writer:
        for i in range(n_sets or 1):
            pick = () if n_sets is None else i
            writer.write(i, sci[pick], err[pick], dq[pick])
    with datamodels.open(path) as opened:
        assert type(opened).__name__ == kind
        np.testing.assert_array_equal(opened.data, sci)
        np.testing.assert_array_equal(opened.err, err)
        np.testing.assert_array_equal(opened.dq, dq)
        assert opened.meta.cal_step.align_psfs == "COMPLETE"
        assert opened.meta.filename == "t_psfalign.fits"
        assert opened.meta.wcs is not None
        branch = products.provenance_of(opened)
        np.testing.assert_array_equal(branch["steps"]["align_psfs"]["array"], np.arange(4.0))
    target.close()


def test_a_broken_stream_leaves_nothing(exposure, tmp_path):
    target = as_model(exposure, "CubeModel")

    def model():
        arrays = {name: np.zeros((1, 1, 1), np.float32) for name in ("data", "err")}
        arrays["dq"] = np.zeros((1, 1, 1), np.uint32)
        return products.derived_model("CubeModel", target, arrays)

    def write():
        with products.BlockWriter(tmp_path / "t.fits", model, (2, 5, 6)):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert os.listdir(tmp_path) == []
    target.close()


def test_files_are_described(exposure):
    row = describe(exposure)
    assert row["what"] == "science exposure"
    assert row["shape"] == "2 x 48 x 52"
    assert "F444W" in row["mode"]
