"""Headers are read alike from files and models; unreadable files are refused."""

import gzip
import os
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits

from lyot.errors import LyotError
from lyot.files.exposure import as_model, read_cube
from lyot.files.headers import info_from_model, read_info


def test_file_and_model_give_the_same_info(exposure):
    from_file = read_info(exposure)
    with as_model(exposure, "CubeModel") as model:
        from_model = info_from_model(model)
    assert from_model.pixel_area_sr == pytest.approx(from_file.pixel_area_sr, rel=1e-12)
    assert replace(from_model, pixel_area_sr=0.0) == replace(from_file, pixel_area_sr=0.0)
    assert from_file.filter == "F444W"
    assert from_file.crpix_xy == (25.25, 23.75)
    assert not from_file.is_psf


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


def test_the_wcs_and_the_roll_give_the_same_position_angle(data_dir):
    for path in sorted((data_dir / "aumic_f444w").glob("*_calints.fits")):
        info = read_info(path)
        by_roll = replace(info, wcs_pa_y_deg=float("nan")).pa_y_deg
        assert info.pa_y_deg == pytest.approx(by_roll, abs=1e-4)
        with as_model(path, "CubeModel") as model:
            assert info_from_model(model).pa_y_deg == info.pa_y_deg


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("VPARITY", 7, "VPARITY of bad.fits is '7'; it must be 1 or -1"),
        ("VPARITY", "abc", "VPARITY of bad.fits is 'abc'"),
        ("ROLL_REF", 1e5, "ROLL_REF of bad.fits is 100000; it must lie between -360 and 360"),
        ("PIXAR_SR", -1.0, "PIXAR_SR of bad.fits is -1"),
        ("PIXAR_SR", 1e-300, "PIXAR_SR of bad.fits is 1e-300"),
    ],
)
def test_values_that_a_keyword_cannot_have_are_refused(exposure, tmp_path, key, value, text):
    with fits.open(exposure) as hdus:
        hdus["SCI"].header[key] = value
        hdus.writeto(tmp_path / "bad.fits")
    with pytest.raises(LyotError, match=text):
        read_info(tmp_path / "bad.fits")


@pytest.mark.parametrize("card", [b"NAXIS1  = 'abc'", b"NAXIS2  = -1", b"NAXIS   = 1E-300"])
def test_sizes_that_are_none_are_refused(exposure, tmp_path, card):
    whole = exposure.read_bytes()
    at = whole.index(card[:8] + b"=", whole.index(b"EXTNAME = 'DQ"))
    (tmp_path / "bad.fits").write_bytes(whole[:at] + card.ljust(80) + whole[at + 80 :])
    for read in (read_info, read_cube):
        with pytest.raises(LyotError, match=r"bad\.fits"):
            read(tmp_path / "bad.fits")


def test_two_sizes_are_refused(exposure, tmp_path):
    """The first is right; astropy goes by the last, and would count to it."""
    whole = exposure.read_bytes()
    at = whole.index(b"BUNIT   =", whole.index(b"EXTNAME = 'ERR"))
    card = b"NAXIS   = 99999999999999999999".ljust(80)
    (tmp_path / "bad.fits").write_bytes(whole[:at] + card + whole[at + 80 :])
    with pytest.raises(LyotError, match=r"bad\.fits has two values of NAXIS; fetch it again"):
        read_info(tmp_path / "bad.fits")


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.fits")
    for path in (tmp_path / "pipe.fits", tmp_path):
        with pytest.raises(LyotError, match="is no file"):
            read_info(path)


def test_a_number_beyond_all_numbers_is_missing(exposure, tmp_path):
    with fits.open(exposure) as hdus:
        hdus[0].header["XOFFSET"] = (10**30, "")
        hdus.writeto(tmp_path / "large.fits")
    assert read_info(tmp_path / "large.fits").dither_arcsec[0] == 1e30


def test_a_compressed_exposure_is_read_and_one_that_grows_without_end_is_not(exposure, tmp_path):
    packed, stored = tmp_path / "packed.fits.gz", gzip.compress(exposure.read_bytes())
    packed.write_bytes(stored)
    np.testing.assert_array_equal(read_cube(packed).sci, read_cube(exposure).sci)
    packed.write_bytes(stored[:-2000])
    with pytest.raises(LyotError, match="cannot be read"):
        read_info(packed)
    more = gzip.compress(bytes(2**20))
    packed.write_bytes(stored + 3000 * more)
    with pytest.raises(LyotError, match="goes on after its last extension"):
        read_info(packed)
    header = fits.Header([("SIMPLE", True), ("BITPIX", 8), ("NAXIS", 1), ("NAXIS1", 3000 * 2**20)])
    packed.write_bytes(gzip.compress(header.tostring().encode()) + 3000 * more)
    with pytest.raises(LyotError, match=r"would grow to more than \d+ MB, over 100 times"):
        read_info(packed)


def test_a_compressed_image_is_refused(exposure, tmp_path):
    path = tmp_path / "packed.fits"
    with fits.open(exposure) as hdus:
        image = fits.CompImageHDU(hdus["SCI"].data, hdus["SCI"].header, name="SCI")
        fits.HDUList([hdus[0], image]).writeto(path)
    with pytest.raises(LyotError, match=r"compressed image; decompress it"):
        read_info(path)


def test_a_header_without_an_end_is_not_read_for_ever(exposure, tmp_path):
    path = tmp_path / "endless.fits"
    path.write_bytes(exposure.read_bytes()[:2880].replace(b"END     ", b"        ") + b" " * 10**7)
    with pytest.raises(LyotError, match="has no end"):
        read_info(path)
