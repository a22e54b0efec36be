"""HD 106906, MIRI F1140C behind the 4QPM: roll angle and disc."""

import json

import numpy as np
import pytest
from scipy import ndimage
from stdatamodels.jwst import datamodels

from lyot.files.association import FOLDER_KEY, build_associations
from lyot.files.provenance import provenance_of, star_of
from lyot.files.view import read_view
from lyot.pipeline import Coron3Pipeline

SCALE = 0.110324


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory):
    home = data_dir / "hd106906_f1140c"
    folder = tmp_path_factory.mktemp("hd106906")
    science = [home / "jw01277019001_04101_00001_mirimage_calints.fits"]
    refs = sorted(home.glob("jw01194015001_04101_*_calints.fits"))
    assert len(refs) == 9
    [asn] = build_associations([*science, *refs])
    asn[FOLDER_KEY] = str(home)
    (folder / "asn.json").write_text(json.dumps(asn))
    Coron3Pipeline.call(str(folder / "asn.json"), output_dir=str(folder))
    return folder


def test_the_y_axis_lies_where_the_aperture_does(run):
    [path] = run.glob("*psfsub.fits")
    assert read_view(path).pa_y_deg == pytest.approx(69.65, abs=0.1)
    [path] = run.glob("*i2d.fits")
    assert read_view(path).pa_y_deg == pytest.approx(69.65, abs=0.1)


def test_the_star_is_that_of_the_header(run):
    [path] = run.glob("*psfsub.fits")
    with datamodels.open(path) as model:
        star = star_of(model)
        align = provenance_of(model)["steps"]["align_psfs"]
    assert (star.x, star.y, star.origin) == (106.75, pytest.approx(105.24), "header")
    assert np.abs(align["shift_yx"]).max() < 0.25  # free fits run away to 0.39
    assert np.all(align["converged"])


def test_the_star_falls_on_its_sky_position_though_the_crop_is_not_in_the_wcs(run):
    [path] = run.glob("*i2d.fits")
    with datamodels.open(path) as image:
        star = star_of(image)
        sky = image.meta.wcs(star.x, star.y)
        target = image.meta.target
        np.testing.assert_allclose(sky, (target.ra, target.dec), atol=1e-7)


def strip_angle(image, star, pa_y_deg):
    """Position angle of the brightest strip, 0.5 to 1.6 arcsec, half-width 0.2 arcsec."""
    along = np.linspace(0.5, 1.6, 60)
    along = np.concatenate([-along, along])[:, None]
    across = np.linspace(-0.2, 0.2, 21)[None]
    angles = np.arange(60.0, 150.0, 0.2)
    mean = []
    for pa in angles:
        turn = np.radians(pa - pa_y_deg)
        x = star.x + (-along * np.sin(turn) - across * np.cos(turn)) / SCALE
        y = star.y + (along * np.cos(turn) - across * np.sin(turn)) / SCALE
        mean.append(ndimage.map_coordinates(np.nan_to_num(image), [y, x], order=1).mean())
    return angles[int(np.argmax(mean))]


def test_the_disc_lies_at_its_known_position_angle(run):
    for ending in ("psfsub", "i2d"):
        [path] = run.glob(f"*_{ending}.fits")
        view = read_view(path)
        image = np.asarray(view.data, float).reshape(view.data.shape[-2:])
        assert strip_angle(image, view.star, view.pa_y_deg) == pytest.approx(105, abs=2)
        # Forgetting V3I_YANG would turn it out of the range.
        assert strip_angle(image, view.star, view.pa_y_deg - 4.84) < 103


def test_the_star_is_subtracted(run):
    [path] = run.glob("*psfsub.fits")
    with datamodels.open(path) as model:
        details = provenance_of(model)["steps"]["klip"]
    assert details["n_kept"] == 9
    assert details["rms_after"][0] < 0.5 * details["rms_before"][0]
