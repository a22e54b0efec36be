"""The star on the observatory's own image behind a mask, whose wavefront was measured in flight."""

import numpy as np
import pytest
from astropy.io import fits
from numpy.polynomial.legendre import legval

from lyot.files.star import StarPosition
from lyot.parameters import BY_MODEL, BY_SYMMETRY
from lyot.references.star import measure_star
from scenes import cube, flight_optics


@pytest.mark.parametrize("method", [BY_SYMMETRY, BY_MODEL])
def test_the_star_of_the_observatorys_model_is_in_the_middle(data_dir, method):
    name = data_dir / "onaxis_f335m" / "nircam_f335m_mask335r_onaxis_legendre.fits"
    with fits.open(name) as opened:
        coefficients, header = opened[0].data.astype(np.float64), opened[0].header
    band = flight_optics("MASK335R", "F335M").band
    first, last = header["WAVE1"], header["WAVE2"]
    at = [legval(2.0 * (w * 1e6 - first) / (last - first) - 1.0, coefficients) for w in band[0]]
    image = np.tensordot(band.weights, at, axes=1)[None]
    frames = cube(image, filter="F335M", coronagraph="MASK335R")
    star = measure_star(
        frames, image, np.zeros(image.shape, bool), StarPosition(32.0, 32.0), method=method
    )
    assert star.origin == "measured"
    assert np.abs(np.array(star.yx) - 32.0).max() < 2.0 * star.x_err
