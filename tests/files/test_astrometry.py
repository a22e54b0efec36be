"""The sky about the star of an exposure, against astropy and the exposure's own gWCS."""

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from stdatamodels.jwst import datamodels

from lyot.algorithms.geometry import polar
from lyot.errors import LyotError
from lyot.files.astrometry import frame_wcs, header_plane, pixel_map, plane_of, turned_to
from lyot.files.headers import info_from_model
from lyot.files.star import StarPosition
from lyot.simulate.exposure_model import Pointing, exposure_model

FRAME = {"data": np.zeros((1, 60, 70), np.float32)}


def by_wcs(wcs, star, y, x):
    """Separation [arcsec] and position angle [degree] of pixels, by astropy."""
    center = SkyCoord(*wcs(*star, with_bounding_box=False), unit="deg")
    there = SkyCoord(*wcs(x, y, with_bounding_box=False), unit="deg")
    return center.separation(there).arcsec, center.position_angle(there).deg


@pytest.mark.parametrize(
    ("file", "star", "crop", "scales"),
    # Scales along y and x and the angle between the axes, as the files' gWCS have them.
    [
        (
            "aumic_f444w/jw01184001001_03106_00001_nrcalong_calints.fits",
            (150.0, 174.0),
            None,
            (62.92, 62.02, 89.73),
        ),
        (
            "hd106906_f1140c/jw01277019001_04101_00001_mirimage_calints.fits",
            (106.75, 105.24),
            (13.0, 7.0),
            (110.6, 110.2, 89.9),
        ),
    ],
)
def test_positions_are_those_of_the_gwcs_of_real_exposures(data_dir, file, star, crop, scales):
    with datamodels.open(data_dir / file) as model:
        plane = plane_of(model, StarPosition(*star))
        wcs, shape = model.meta.wcs, model.data.shape[-2:]
    y, x = np.meshgrid(*(np.linspace(0, n - 1, 7) for n in shape), indexing="ij")
    # The crop is in CROP_SHIFTX/Y of the header, which is not read, and not in the gWCS. CRPIX was
    # moved to the star in both files, which costs a milliarcsecond at 15 arcsec.
    dx, dy = crop or (0.0, 0.0)
    r, pa = by_wcs(wcs, (star[0] + dx, star[1] + dy), y + dy, x + dx)
    found_r, found_pa = polar(*plane.offset(y, x))
    across = np.radians((found_pa - pa + 180.0) % 360.0 - 180.0) * r
    away = np.hypot(found_r - r, across)
    assert away.max() < 1.5e-3  # arcsec
    assert away[r < 7.2].max() < 1e-3
    np.testing.assert_allclose(plane.pixel(*plane.offset(y, x)), [y, x], atol=1e-3)
    of_y, of_x = plane.to_sky[:, 0] * 1e3, plane.to_sky[:, 1] * 1e3
    assert (np.hypot(*of_y), np.hypot(*of_x)) == pytest.approx(scales[:2], abs=0.06)
    cosine = of_y @ of_x / np.hypot(*of_y) / np.hypot(*of_x)
    assert np.degrees(np.arccos(abs(cosine))) == pytest.approx(scales[2], abs=0.06)


@pytest.mark.parametrize(
    "file",
    [
        "aumic_f444w/jw01184001001_03106_00001_nrcalong_calints.fits",
        "hd106906_f1140c/jw01277019001_04101_00001_mirimage_calints.fits",
    ],
)
def test_the_map_between_pixels_is_that_of_the_gwcs_of_every_pixel(data_dir, file):
    with datamodels.open(data_dir / file) as model:
        wcs, shape = model.meta.wcs, model.data.shape[-2:]
        wcs.bounding_box = None
        pointing = {"target": "T", "radec_deg": tuple(wcs(100.0, 90.0)), "roll_ref_deg": 20.0}
    grid = exposure_model(FRAME, Pointing(**pointing, crpix_xy=(40.0, 30.0))).meta.wcs
    found = pixel_map(wcs, grid, shape)
    y, x = np.indices(shape)
    every = np.stack(grid.invert(*wcs(x, y), with_bounding_box=False), axis=-1)
    np.testing.assert_allclose(found, every, rtol=0, atol=1e-7)


def test_a_map_with_an_edge_is_that_of_every_pixel():
    pointing = {"target": "T", "radec_deg": (80.0, 45.0), "roll_ref_deg": 20.0}
    grid = exposure_model(FRAME, Pointing(**pointing, crpix_xy=(40.0, 30.0))).meta.wcs

    def torn(x, y, **_):
        return grid(np.where(x < 20.0, x - 3.0, x), y, with_bounding_box=False)

    found = pixel_map(torn, grid, (50, 40))
    y, x = np.indices((50, 40))
    np.testing.assert_allclose(found[..., 0], np.where(x < 20, x - 3, x), atol=1e-6)
    np.testing.assert_allclose(found[..., 1], y, atol=1e-6)


def test_a_cropped_frame_keeps_its_sky():
    pointing = {"target": "T", "radec_deg": (80.0, 45.0), "roll_ref_deg": 20.0}
    model = exposure_model(FRAME, Pointing(**pointing, crpix_xy=(40.0, 30.0)))
    cropped = exposure_model(
        {"data": FRAME["data"][:, 5:, 12:]}, Pointing(**pointing, crpix_xy=(28.0, 25.0))
    )
    cropped.meta.wcs = model.meta.wcs  # as the tools leave it
    wcs = frame_wcs(cropped.meta.wcs, cropped.meta.wcsinfo.instance, info_from_model(cropped))
    np.testing.assert_allclose(wcs(3.0, 4.0), model.meta.wcs(15.0, 9.0), atol=1e-9)


def test_without_a_wcs_the_headers_say_where_the_sky_is():
    model = exposure_model(
        FRAME,
        Pointing(target="T", radec_deg=(80.0, 45.0), crpix_xy=(40.0, 30.0), roll_ref_deg=20.0),
    )
    star = StarPosition(40.5, 29.0)
    by_wcs_too = plane_of(model, star)
    model.meta.wcs = None
    plane = plane_of(model, star)
    np.testing.assert_array_equal(plane.to_sky, header_plane(info_from_model(model), star).to_sky)
    np.testing.assert_allclose(plane.offset(3.0, 60.0), by_wcs_too.offset(3.0, 60.0), atol=1e-6)


def test_the_sky_is_moved_without_a_turn():
    model = exposure_model(
        FRAME,
        Pointing(target="T", radec_deg=(80.0, 60.0), crpix_xy=(40.0, 30.0), roll_ref_deg=20.0),
    )
    there = tuple(float(v) for v in model.meta.wcs(40.0, 30.0))
    moved = turned_to(model.meta.wcs, there, (80.05, 59.9))
    np.testing.assert_allclose(moved(40.0, 30.0), (80.05, 59.9), atol=1e-9)
    x, y = np.array([3.0, 60.0]), np.array([50.0, 9.0])
    old, new = (by_wcs(w, (40.0, 30.0), y, x) for w in (model.meta.wcs, moved))
    np.testing.assert_allclose(new, old, atol=1e-6)
    target = SkyCoord(80.05 * u.deg, 59.9 * u.deg).directional_offset_by(30 * u.deg, 1 * u.arcsec)
    back = moved.invert(target.ra.deg, target.dec.deg, with_bounding_box=False)
    np.testing.assert_allclose(by_wcs(moved, (40.0, 30.0), *back[::-1])[1], 30.0, atol=1e-4)


def test_a_wcs_that_is_none_ends_in_one_sentence():
    pointing = {"target": "T", "radec_deg": (80.0, 45.0), "roll_ref_deg": 20.0}
    model = exposure_model(FRAME, Pointing(**pointing, crpix_xy=(40.0, 30.0)))
    model.instance["meta"]["wcs"] = {"steps": []}  # as of a file that was changed
    with pytest.raises(LyotError, match=r"The WCS of .* cannot be read .*; run assign_wcs"):
        plane_of(model, StarPosition(35.0, 30.0))
