"""The flight pupil: against the file it was read from, and against itself at other samplings."""

import numpy as np
import pytest
from astropy.io import fits

from lyot.instruments.pupil import FLIGHT_PUPIL, depth_in_polygon, segment_corners, segment_maps


def test_the_pupil_agrees_with_the_flight_file_to_the_pixel(data_dir):
    measured = fits.getdata(data_dir / "jwst_pupil_flight_npix1024.fits") / 256.0
    difference = np.abs(FLIGHT_PUPIL.amplitude(1024) - measured)
    assert np.sum(difference > 0.5) == 0
    assert difference.sum() < 1e-3 * measured.sum()


def test_the_open_area_does_not_depend_on_the_sampling():
    areas = [FLIGHT_PUPIL.amplitude(n).sum() * (FLIGHT_PUPIL.width_m / n) ** 2 for n in (96, 768)]
    assert areas[0] == pytest.approx(areas[1], rel=1e-3)
    # 25.4 m2 is the mission's "clear aperture", with wider edges of the segments left out.
    assert areas[1] == pytest.approx(25.75, abs=0.05)


def test_segments_are_eighteen_and_do_not_overlap():
    assert segment_corners().shape == (18, 6, 2)
    assert np.sum(segment_maps(256, FLIGHT_PUPIL.width_m), axis=0).max() <= 1.0 + 1e-12
    middles = segment_corners().mean(axis=1)
    apart = np.hypot(*(middles[:, None] - middles[None]).T)
    nearest = np.sort(apart, axis=0)[1]
    # One pitch of 1.32 m, seen on a curved mirror.
    assert np.all((nearest > 1.30) & (nearest < 1.33))


def test_depth_in_a_square_is_the_distance_to_its_nearest_side():
    square = np.array([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)])
    x = np.array([0.0, 0.7, 0.0, 1.5])
    y = np.array([0.0, 0.0, -0.9, 0.0])
    np.testing.assert_allclose(depth_in_polygon(square, x, y), [1.0, 0.3, 0.1, -0.5])
