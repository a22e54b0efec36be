"""The brightness of the star."""

from dataclasses import replace

import numpy as np
import pytest

from lyot.analysis.brightness import star_brightness, star_flux_in
from lyot.errors import LyotError
from lyot.instruments import MIRI, NIRCAM


def test_brightness_of_the_star(gaussian_psf):
    star = star_brightness(NIRCAM.filter("F444W"), magnitude=4.0)
    assert star.jy == pytest.approx(185.8 * 10 ** (-1.6))
    assert star_brightness(NIRCAM.filter("F444W"), jy=star.jy).magnitude == pytest.approx(4.0)
    assert star_brightness(MIRI.filter("F1140C"), magnitude=0.0).jy == 29.62
    unknown = replace(MIRI.filter("F1140C"), vega_jy=None)
    assert star_brightness(unknown, jy=1.0).magnitude is None
    with pytest.raises(LyotError, match="no zero point"):
        star_brightness(unknown, magnitude=3.0)
    with pytest.raises(LyotError, match="give one of"):
        star_brightness(NIRCAM.filter("F444W"))
    frame = np.zeros((40, 41))
    box, image = gaussian_psf.place(20.3, 18.8, frame.shape)
    frame[box] = 777.0 * image
    frame[0, 0] = np.nan
    assert star_flux_in(frame, gaussian_psf) == pytest.approx(777.0, rel=1e-4)
