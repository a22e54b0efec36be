"""Extended light behind a mask: the sum of its points."""

import numpy as np
import pytest

from lyot.algorithms.geometry import TangentPlane
from lyot.analysis.mode import extended_image, mode_of, transmission_of
from lyot.analysis.psf import best_psf
from lyot.errors import LyotError
from lyot.files.star import StarPosition
from lyot.instruments.telescope import ARCSEC_PER_RADIAN
from scenes import info

SHAPE, STAR, ROLL = (75, 79), StarPosition(39.3, 36.8), 40.0
ROUND = info(SHAPE, coronagraph="MASKA335R")
FOUR = info(
    SHAPE,
    instrument="MIRI",
    detector="MIRIMAGE",
    filter="F1140C",
    coronagraph="4QPM_1140",
    pixel_area_sr=(0.11 / ARCSEC_PER_RADIAN) ** 2,
)


def blob(east_pix, north_pix, sigma=1.3):
    """A round patch of light on a sky of 61 x 61 pixels."""
    y, x = np.mgrid[:61, :61] - 30
    return np.exp(-0.5 * ((x + east_pix) ** 2 + (y - north_pix) ** 2) / sigma**2)


@pytest.mark.parametrize(
    ("mode", "east", "north"),
    [
        (ROUND, 2.0, 3.0),  # behind the mask
        (ROUND, 18.0, -14.0),  # beside it
        (FOUR, 5.0, 7.0),  # on a boundary of the quadrants, where the image is another
        (FOUR, 18.0, -2.0),
    ],
)
def test_extended_light_is_the_sum_of_its_points_each_with_its_own_psf(mode, east, north):
    sky, scale = blob(east, north), mode.pixel_scale_arcsec
    plane = TangentPlane.linear(STAR.yx, ROLL, scale)
    found = extended_image(sky, mode, STAR, plane, SHAPE)
    psf, through, mask = best_psf(*mode_of(mode)), transmission_of(mode), mode.mask_yx(STAR)
    expected = np.zeros(SHAPE)
    for row, column in np.argwhere(sky > 1e-3):
        y, x = plane.pixel((30 - column) * scale, (row - 30) * scale)
        along, across = (float(v) for v in through.along_mask(y, x, mask_yx=mask))
        box, image = psf.behind((along, across)).place(float(y), float(x), SHAPE)
        expected[box] += sky[row, column] * float(through.at(y, x, mask_yx=mask)) * image
    assert np.abs(found - expected).max() < 0.02 * expected.max()
    assert found.sum() == pytest.approx(expected.sum(), rel=0.01)


def test_a_model_without_light_is_refused():
    plane = TangentPlane.linear(STAR.yx, ROLL, ROUND.pixel_scale_arcsec)
    with pytest.raises(LyotError, match="holds no light on the frames"):
        extended_image(np.zeros((61, 61)), ROUND, STAR, plane, SHAPE)
