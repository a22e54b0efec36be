"""Transmission at places on a frame, from a map or from the model."""

import numpy as np
import pytest

from lyot.instruments import NIRCAM
from lyot.instruments.transmission import Transmission


def transmission(name="MASK335R", image=None, width=0.14):
    return Transmission(
        coronagraph=NIRCAM.find_coronagraph(name),
        lambda_over_d_arcsec=width,
        pixel_scale_arcsec=0.063,
        origin="test",
        image=image,
    )


def test_the_model_is_measured_from_the_star():
    x = np.array([10.0, 15.0, 20.0, 30.0])
    found = transmission().at(7.0, x, star_yx=(7.0, 10.0))
    expected = NIRCAM.coronagraph("MASK335R").transmission(
        (x - 10.0) * 0.063, 0.0, lambda_over_d_arcsec=0.14
    )
    np.testing.assert_allclose(found, expected)


def test_a_bar_is_as_wide_at_the_star_as_its_filter_asks():
    width = NIRCAM.lambda_over_d_arcsec(NIRCAM.filter("F277W"))
    edge = 4.0 * width / 0.063
    found = transmission("MASKLWB", width=width).at(20.0 + edge, 20.0, star_yx=(20.0, 20.0))
    assert found == pytest.approx(0.5, abs=1e-4)


def test_a_map_is_interpolated_and_its_gaps_are_opaque():
    image = np.tile(np.linspace(0.0, 1.0, 11), (9, 1))
    image[5, 5] = np.nan
    at = transmission(image=image).at
    np.testing.assert_allclose(
        at(np.array([2.0, 2.0]), np.array([3.0, 3.5]), star_yx=(0, 0)), [0.3, 0.35]
    )
    assert at(np.array(5.0), np.array(5.0), star_yx=(0, 0)) == 0.0


def test_a_coronagraph_without_a_model_transmits_everything():
    np.testing.assert_array_equal(
        transmission("SOMETHING").at(np.zeros((3, 1)), np.arange(4.0), star_yx=(1.0, 1.0)),
        np.ones((3, 4)),
    )
