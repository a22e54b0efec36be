"""NIRCam: its masks against published numbers."""

import pytest

from lyot.instruments import NIRCAM
from lyot.instruments.transmission import Transmission


def test_headers_of_both_modules_name_the_same_mask():
    for name in ("MASK335R", "MASKA335R", "MASKB335R", "maska335r"):
        assert NIRCAM.coronagraph(name).name == "MASK335R"


def test_pixel_scale_is_that_of_the_detector_and_else_of_the_filter():
    assert NIRCAM.channel(detector="NRCALONG").pixel_scale_arcsec == 0.063
    assert NIRCAM.channel(detector="NRCA2", filter="F444W").pixel_scale_arcsec == 0.0307
    assert NIRCAM.channel(filter="F444W").pixel_scale_arcsec == 0.063
    assert NIRCAM.channel(filter="F200W").pixel_scale_arcsec == 0.0307


@pytest.mark.parametrize(
    ("name", "band", "half_width"),
    # JWST User Documentation, "NIRCam Coronagraphic Imaging": six lambda/D for the round masks.
    [("MASK210R", "F210M", 0.40), ("MASK335R", "F335M", 0.63), ("MASK430R", "F430M", 0.81)],
)
def test_round_masks_are_six_lambda_over_d_wide(name, band, half_width):
    at_half = NIRCAM.coronagraph(name).amplitude(half_width, 0.0) ** 2
    assert at_half == pytest.approx(0.5, abs=0.015)
    width = NIRCAM.lambda_over_d_arcsec(NIRCAM.filter(band))
    assert half_width == pytest.approx(6.0 * width, rel=0.02)


def transmission(mask, band, x, y):
    """Return the transmission at places from the middle of a mask [arcsec]."""
    return Transmission(optics=NIRCAM.optics(mask, band), origin="the optics").behind(x, y)


def test_transmission_of_mask335r_is_the_published_one():
    """Values of the reference file of MASK335R at four separations."""
    for r, expected in ((0.3, 0.053), (0.5, 0.269), (1.0, 0.961), (2.0, 0.991)):
        assert abs(transmission("MASK335R", "F335M", r, 0.0) - expected) < 0.006
