"""Angles and offsets on the detector and on the sky."""

import numpy as np
import pytest
from astropy.wcs import WCS

from lyot.algorithms import geometry
from lyot.algorithms.geometry import TangentPlane


def test_angles_run_from_the_y_axis_towards_negative_x():
    angle = geometry.angle_map((11, 11), (5, 5))
    assert angle[9, 5] == 0
    assert angle[5, 0] == 90
    assert angle[0, 5] == 180
    assert angle[5, 9] == 270


def test_position_angle_of_the_y_axis_adds_the_aperture_angle():
    # HD 106906: ROLL_REF 64.8109, V3I_YANG 4.8354, PA_APER 69.6463 in the header.
    angle = geometry.position_angle_of_y(64.81087393012638, 4.83544897, -1)
    assert abs(angle - 69.64632290012638) < 1e-9


def test_position_angles_run_from_north_to_east():
    east, north = geometry.east_north(2.0, np.array([0.0, 90.0, 200.0]))
    np.testing.assert_allclose([east[:2], north[:2]], [[0.0, 2.0], [2.0, 0.0]], atol=1e-12)
    r, pa = geometry.polar(east, north)
    np.testing.assert_allclose([r[2], pa[2]], [2.0, 200.0])


def test_the_tangent_plane_is_that_of_a_fits_wcs():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [0.001, -67.0], [1.0, 1.0]
    wcs.wcs.cdelt = [1.0 / 3600.0, 1.0 / 3600.0]
    ra, dec = wcs.all_pix2world([30.0, -5.0], [-12.0, 400.0], 0)
    found = geometry.tangent_offset(ra, dec, (0.001, -67.0))
    np.testing.assert_allclose(found, [[30.0, -5.0], [-12.0, 400.0]], atol=1e-6)


def test_square_pixels_are_turned_by_the_position_angle_of_their_y_axis():
    plane = TangentPlane.linear((10.0, 12.0), 30.0, 0.05)
    np.testing.assert_allclose(geometry.polar(*plane.offset(30.0, 12.0)), [1.0, 30.0])
    # East of north is to the left of y where north is up.
    np.testing.assert_allclose(geometry.polar(*plane.offset(10.0, -8.0)), [1.0, 120.0])
    assert plane.pixel_scale_arcsec == pytest.approx(0.05)
    np.testing.assert_allclose(plane.separations((11, 13))[10, 2], 0.5)


def test_distorted_pixels_are_found_both_ways():
    star = (100.3, 90.8)
    rows, columns = (v.ravel() for v in np.mgrid[0:200:10, 0:220:10].astype(float))

    def sky(y, x):
        dy, dx = y - star[0], x - star[1]
        bent = 1.0 + 2e-4 * dx - 1e-4 * dy + 1e-7 * dx * dy
        return np.array([-0.06 * dx + 0.01 * dy, 0.063 * dy]) * bent

    plane = TangentPlane.through(star, rows, columns, *sky(rows, columns))
    assert plane.pixel(0.0, 0.0).tolist() == list(star)
    y, x = np.array([3.7, 150.2]), np.array([11.3, 201.9])
    np.testing.assert_allclose(plane.offset(y, x), sky(y, x), atol=1e-5)
    np.testing.assert_allclose(plane.pixel(*sky(y, x)), [y, x], atol=2e-3)
