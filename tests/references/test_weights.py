"""The built-in weight of the alignment: about the star, without what the mask hides."""

import numpy as np
import pytest

from lyot.files.star import StarPosition
from lyot.references.weights import builtin_weight
from scenes import SCALE_ARCSEC, info

SHAPE, STAR = (161, 161), StarPosition(80.0, 80.0)


@pytest.mark.parametrize("aperture", ["NRCA5_MASKLWB_F250M", "NRCA5_MASKLWB_F480M"])
def test_a_bar_is_left_out_where_it_lies(aperture):
    """The mask at its own place, four pixels above the star; as wide as it is there."""
    facts = {"coronagraph": "MASKALWB", "aperture": aperture, "crpix_xy": (80.0, 84.0)}
    exposure = info(SHAPE, **facts)
    weight = builtin_weight(exposure, STAR)
    bar = exposure.coronagraph_value
    x = 80 + 25
    along = 25 * SCALE_ARCSEC + bar.star_x_arcsec("F444W", aperture)
    half = float(bar.half_width(along)) / SCALE_ARCSEC
    hidden = np.flatnonzero(weight[60:110, x] == 0) + 60
    np.testing.assert_array_equal(hidden, np.arange(np.ceil(84 - half), np.floor(84 + half) + 1))


def test_a_round_mask_hides_nothing_of_the_annulus():
    weight = builtin_weight(info(SHAPE, coronagraph="MASKA335R"), STAR)
    y, x = np.indices(SHAPE)
    r = np.hypot(y - 80, x - 80)
    assert (weight[(r > 10) & (r < 45)] == 1).all()
    assert not weight[r < 6].any()
