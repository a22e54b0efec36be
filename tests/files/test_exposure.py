"""Exposures are read alike from files and models; flags and missing pixels are bad."""

import re
import shutil

import numpy as np
import pytest
from astropy.io import fits

from lyot.errors import LyotError
from lyot.files.exposure import as_model, cube_from_model, open_model, read_cube
from lyot.files.view import read_view
from robustness.fitsbytes import tree_of, with_tree


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
        (lambda h: setattr(h["SCI"], "data", h["SCI"].data * 0 + 3), "is 3 everywhere"),
        (lambda h: setattr(h["DQ"], "data", h["DQ"].data.T), r"DQ of bad.fits has the shape"),
        (lambda h: setattr(h["ERR"], "data", h["ERR"].data[:, 1:]), "ERR of bad.fits has the shap"),
        (lambda h: h["SCI"].data.__setitem__(np.s_[:, 2:], np.nan), "has 104 finite pixels"),
    ],
)
def test_bad_exposures_are_refused(exposure, tmp_path, change, text):
    path = edit(exposure, tmp_path / "bad.fits", change)
    with pytest.raises(LyotError, match=text):
        read_cube(path)


def test_impossible_values_are_bad_and_said(exposure, tmp_path, caplog):
    def change(hdus):
        hdus["SCI"].data[0, 20, 30] = 1e30
        hdus["ERR"].data[:] = 0.0

    cube = read_cube(edit(exposure, tmp_path / "bad.fits", change))
    assert cube.bad("")[0, 20, 30]
    assert "1 pixels beyond 1e+15 MJy/sr are bad" in caplog.text
    assert "holds no positive value" in caplog.text


@pytest.mark.parametrize("odd", [1e38, np.inf, np.nan, -1.0])
def test_an_impossible_error_is_not_known(exposure, tmp_path, caplog, odd):
    def change(hdus):
        hdus["ERR"].data[0, 20, 30] = odd

    cube = read_cube(edit(exposure, tmp_path / "odd.fits", change))
    assert ("beyond 1e+15 MJy/sr is not known" in caplog.text) == (odd > 0)
    others = np.delete(cube.err[0].ravel(), 20 * cube.err.shape[2] + 30)
    assert cube.variance()[0, 20, 30] == pytest.approx(np.median(others) ** 2, rel=1e-6)


def test_a_model_with_impossible_values_is_not_changed(exposure):
    with as_model(exposure, "CubeModel") as model:
        model.data = np.asarray(model.data, np.float32)
        model.data[0, 20, 30] = 1e30
        cube = cube_from_model(model)
        assert model.data[0, 20, 30] == np.float32(1e30)
    assert cube.bad("")[0, 20, 30]


def test_a_tree_that_leads_elsewhere_is_refused_by_every_reader(exposure, tmp_path):
    path = tmp_path / "elsewhere.fits"
    whole = exposure.read_bytes()
    at = whole.index(b"source: fits:SCI,1")
    path.write_bytes(whole[:at] + b"source: http://a/1" + whole[at + 18 :])
    readers = (
        lambda: as_model(path, "CubeModel"),
        lambda: open_model(str(path)),
        lambda: read_view(path),
    )
    for read in readers:
        with pytest.raises(LyotError, match="only arrays inside the file"):
            read()


def test_a_tree_that_no_library_reads_ends_in_one_sentence(exposure, tmp_path):
    whole = exposure.read_bytes()
    at = whole.index(b"!core/asdf")
    (tmp_path / "tree.fits").write_bytes(whole[:at] + b"@{[*]}" + whole[at + 6 :])
    with pytest.raises(LyotError, match=r"tree.fits cannot be read \(.*\); fetch it again"):
        as_model(tmp_path / "tree.fits", "CubeModel")


def test_an_array_that_a_tree_does_not_describe_ends_in_one_sentence(demo, tmp_path):
    path = tmp_path / "cut.fits"
    shutil.copy(demo.product("_psfsub.fits"), path)
    tree = tree_of(path)
    head, mark, rest = tree.partition(b"eigenvalues: !core/ndarray")
    with_tree(path, head + mark + rest.replace(b"shape:", b"form:", 1))
    readers = (
        lambda: as_model(path, "CubeModel"),
        lambda: open_model(str(path)),
        lambda: read_view(path),
    )
    for read in readers:
        with pytest.raises(LyotError, match=r"cut.fits cannot be read \(.*\); fetch it again"):
            read()
    # And elsewhere than in what this package records.
    text, end, blocks = tree.partition(b"\n...")
    tag = re.search(rb"!core/ndarray-[\d.]+", text)[0]
    with_tree(
        path,
        text + b"\nodd: [" + tag + b" {source: 0, datatype: int8, byteorder: big}]" + end + blocks,
    )
    for read in readers[:2]:
        with pytest.raises(LyotError, match=r"cut.fits cannot be read \(.*\); fetch it again"):
            read()


@pytest.mark.parametrize(
    "record", [{"dither_arcsec": "abc"}, {"dither_arcsec": [[0.0, 0.0]], "targets": 3}]
)
def test_what_a_stack_records_of_its_frames_is_checked(demo, record):
    with as_model(demo.product("_psfstack.fits"), "CubeModel") as model:
        model.instance["lyot"]["steps"]["stack_psfs"] = record
        with pytest.raises(LyotError, match=r"The stack .* cannot be read"):
            cube_from_model(model)
