"""The star behind the mask from target acquisitions, by the gWCS of real exposures."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits

from lyot.files.exposure import as_model, read_cube
from lyot.files.headers import ACQUISITION, ExposureInfo, read_info
from lyot.files.star import ACQUIRED, COMBINED, MEASURED, StarPosition
from lyot.references.acquisition import star_by_acquisitions, unusable_because
from lyot.references.star import Frames, find_star, guess_star
from scenes import acquisition_of

FILES = {
    "aumic_f444w/jw01184001001_03106_00001_nrcalong_calints.fits": (150.0, 174.0),
    "hd106906_f1140c/jw01277019001_04101_00001_mirimage_calints.fits": (106.75, 105.24),
}
SCIENCE = ExposureInfo(
    "science",
    (2, 8, 8),
    visit="01184001001",
    guide_star="S1",
    pointing="CALCULATED_TRACK",
    aperture="NRCA5_MASK335R",
    exposure_type="NRC_CORON",
)
BEFORE = replace(SCIENCE, exposure_type="NRC_TACQ", aperture="NRCA5_TAMASK335R")


@pytest.fixture
def messages(caplog):
    caplog.set_level(logging.INFO, "lyot")
    return caplog


@pytest.mark.parametrize(("file", "star"), FILES.items())
def test_the_star_is_where_the_pointings_put_it(data_dir, tmp_path, file, star):
    """Algebra: the gWCS of the exposure, turned so that the star lies beside the mask."""
    science = data_dir / file
    path = acquisition_of(science, tmp_path, star_xy=star)
    info, before = read_info(science), read_info(path)
    assert before.role == ACQUISITION
    assert unusable_because(info, before) == ""
    found = star_by_acquisitions(science, [path])
    assert np.hypot(found.x - star[0], found.y - star[1]) < 0.02
    assert found.origin == ACQUIRED
    stated = info.instrument_value.accuracy.acquisition_arcsec / info.pixel_scale_arcsec
    assert found.x_err == pytest.approx(stated, rel=0.1)
    # It is a better start than CRPIX, and the mask stays where it is.
    known = replace(info, acquired=found, star_xy=None)
    assert guess_star(known, None) == found
    assert known.mask_yx(found) == info.mask_yx(found)


def test_pointings_on_one_guide_star_agree(data_dir):
    """Dithers of HD 218261: what one of them says of the star in the others, by the gWCS."""
    from lyot.algorithms.geometry import tangent_offset
    from lyot.files.astrometry import frame_wcs
    from lyot.files.headers import info_from_model

    places = []
    for path in sorted((data_dir / "hd106906_f1140c").glob("jw01194015001*calints.fits"))[::3]:
        cube = read_cube(path)
        frames = Frames(cube.sci, cube.variance(), cube.bad("DO_NOT_USE"))
        star = find_star(replace(cube.info, star_xy=None), frames)
        with as_model(path, "CubeModel") as model:
            info = info_from_model(model)
            wcs = frame_wcs(model.meta.wcs, model.meta.wcsinfo.instance, info)
            places.append(wcs(star.x, star.y))
            target = model.meta.target.ra, model.meta.target.dec
    away = np.array([tangent_offset(*place, places[0]) for place in places])
    # The measurement itself scatters by 5 mas.
    assert (away.std(axis=0) < 0.010).all()
    # The coordinates of the target are no such thing.
    assert np.hypot(*tangent_offset(*places[0], target)) > 0.1


def test_it_is_weighed_with_what_the_frames_show(data_dir):
    file, _ = list(FILES.items())[1]
    cube = read_cube(data_dir / file)
    frames = Frames(cube.sci, cube.variance(), cube.bad("DO_NOT_USE"))
    info = replace(cube.info, star_xy=None)
    alone = find_star(info, frames)
    assert alone.origin == MEASURED
    acquired = StarPosition(106.70, 105.30, 0.09, 0.09, ACQUIRED)
    both = find_star(replace(info, acquired=acquired), frames)
    assert both.origin == COMBINED
    for name in ("x", "y"):
        values, errs = zip(
            *((getattr(s, name), getattr(s, f"{name}_err")) for s in (alone, acquired)), strict=True
        )
        mean = np.average(values, weights=1.0 / np.square(errs))
        assert getattr(both, name) == pytest.approx(mean, abs=1e-6)
        assert getattr(both, f"{name}_err") == pytest.approx(1 / np.hypot(*np.divide(1.0, errs)))


def test_a_contradiction_is_said_and_the_frames_are_taken(data_dir, messages):
    file, _ = list(FILES.items())[1]
    cube = read_cube(data_dir / file)
    frames = Frames(cube.sci, cube.variance(), cube.bad("DO_NOT_USE"))
    acquired = StarPosition(108.0, 105.3, 0.09, 0.09, ACQUIRED)
    found = find_star(replace(cube.info, star_xy=None, acquired=acquired), frames)
    assert found.origin == MEASURED
    assert "by its target acquisition" in messages.text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"visit": "01184002001"}, "another visit"),
        ({"visit": ""}, "another visit"),
        ({"guide_star": "S2"}, "another guide star"),
        ({"pointing": "PLANNED"}, "was not measured"),
        ({"detector": "NRCA2"}, "another detector"),
        ({"exposure_type": "NRC_TACONFIRM", "aperture": "NRCA5_MASK335R"}, "behind the mask"),
    ],
)
def test_headers_tell_what_serves(change, reason):
    assert reason in unusable_because(SCIENCE, replace(BEFORE, **change))
    assert bool(reason) == bool(unusable_because(SCIENCE, replace(BEFORE, **change)))


def test_an_image_of_the_star_behind_the_mask_is_none_of_a_star(data_dir, tmp_path, messages):
    """Confirmation images are taken before the move and after it, with one aperture."""
    [(file, star), _] = FILES.items()
    path = acquisition_of(
        data_dir / file,
        tmp_path,
        star_xy=star,
        at_xy=(110.0 + 4.0, 149.0 - 5.0),
        shape=(180, 170),
        EXP_TYPE="NRC_TACONFIRM",
    )
    corner = read_info(data_dir / file).corner_xy
    for key, first, offset in (("SUBSTRT1", corner[0], 40), ("SUBSTRT2", corner[1], 25)):
        fits.setval(path, key, value=int(first) + 1 + offset)
    assert star_by_acquisitions(data_dir / file, [path]) is None
    assert "is behind the mask" in messages.text


def test_an_acquisition_without_a_star_or_wcs_says_so(science_files, tmp_path, messages):
    path = acquisition_of(science_files[0], tmp_path, star_xy=(60.0, 60.0))
    image = fits.getdata(path, "SCI")
    with fits.open(path, mode="update") as hdus:
        hdus["DQ"].data[35, 21] = 3
    assert star_by_acquisitions(science_files[0], [path]) is None
    assert "lies on bad or saturated pixels" in messages.text
    with fits.open(path, mode="update") as hdus:
        hdus["SCI"].data[10:] = np.random.default_rng(0).normal(size=image[10:].shape)
    assert star_by_acquisitions(science_files[0], [path]) is None
    assert "shows no star" in messages.text
