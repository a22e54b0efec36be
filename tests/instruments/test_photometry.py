"""Vega zero points: published values, and those that follow from them."""

import numpy as np
import pytest

from lyot.instruments import MIRI, NIRCAM
from lyot.instruments.photometry import vega_jy


@pytest.mark.parametrize(
    ("instrument", "name", "published"),
    [
        # Carter et al. 2023 for MIRI, the SVO service for NIRCam, which agree to 1.3 %.
        (NIRCAM, "F250M", 504.7),
        (NIRCAM, "F300M", 369.6),
        (NIRCAM, "F356W", 271.4),
        (NIRCAM, "F410M", 208.8),
        (NIRCAM, "F444W", 184.1),
        (MIRI, "F1140C", 28.7),
        (MIRI, "F1550C", 14.8),
    ],
)
def test_published_zero_points(instrument, name, published):
    assert vega_jy(instrument.filter(name)) == pytest.approx(published, rel=0.013)


def test_every_coronagraphic_filter_has_a_zero_point_on_one_smooth_spectrum():
    filters = [f for f in (*NIRCAM.filters, *MIRI.filters) if f.pivot_um > 3.0]
    wavelengths = np.log([f.pivot_um for f in filters])
    fluxes = np.log([vega_jy(f) for f in filters])
    slope = np.polyfit(wavelengths, fluxes, 1)[0]
    assert slope == pytest.approx(-2.0, abs=0.1)
    for found in MIRI.filters:
        # Rayleigh-Jeans from the reddest band of NIRCam.
        expected = 153.224 * (4.834 / found.pivot_um) ** 2
        assert vega_jy(found) == pytest.approx(expected, rel=0.06)
