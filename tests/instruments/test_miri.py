"""MIRI: its masks against published numbers, its headers against real ones."""

import numpy as np
import pytest

from lyot.files.headers import read_info
from lyot.instruments import MIRI


@pytest.mark.parametrize(
    ("name", "band", "angle"),
    # Inner working angles of Boccaletti et al. 2022, A&A 667, A165: one lambda/D.
    [("4QPM_1065", "F1065C", 0.33), ("4QPM_1140", "F1140C", 0.36), ("4QPM_1550", "F1550C", 0.49)],
)
def test_the_inner_working_angle_of_a_phase_mask_is_lambda_over_d(name, band, angle):
    width = MIRI.lambda_over_d_arcsec(MIRI.filter(band))
    assert angle == pytest.approx(width, rel=0.02)
    # Halfway between the axes half of the light passes about there.
    diagonal = angle / np.sqrt(2.0)
    half = MIRI.optics(name, band).exact_transmission((diagonal, diagonal))
    assert 0.3 < half < 0.55


def test_the_lyot_spot_is_three_lambda_over_d_wide():
    spot = MIRI.coronagraph("LYOT_2300")
    width = MIRI.lambda_over_d_arcsec(MIRI.filter("F2300C"))
    assert spot.radius_arcsec == pytest.approx(3.0 * width, rel=0.02)


def test_headers_of_real_exposures_are_those_of_the_table(data_dir):
    info = read_info(next((data_dir / "hd106906_f1140c").glob("jw01277019001*_calints.fits")))
    [aperture] = info.coronagraph_value.apertures
    assert (info.detector, info.subarray) == (aperture.detector, aperture.subarray)
    channel = MIRI.channel(detector=info.detector)
    assert info.v3i_yangle_deg == pytest.approx(channel.v3i_yangle_deg)
    assert info.pixel_scale_arcsec == pytest.approx(channel.pixel_scale_arcsec, rel=0.01)
