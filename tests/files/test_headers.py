"""Headers are read alike from files and models; unreadable files are refused."""

from dataclasses import replace

import pytest

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
