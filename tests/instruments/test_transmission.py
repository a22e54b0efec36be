"""Transmission at places on a frame, from a map or from the model."""

import numpy as np
import pytest

from lyot.instruments import MIRI, NIRCAM
from lyot.instruments.transmission import Transmission


def transmission(name="MASK335R", image=None, band="F444W", **places):
    return Transmission(
        optics=NIRCAM.optics(name, band),
        origin="test",
        image=image,
        **places,
    )


def test_the_model_is_measured_from_the_mask():
    x = np.array([10.0, 15.0, 20.0, 30.0])
    found = transmission().at(7.0, x, mask_yx=(7.0, 10.0))
    optics = NIRCAM.optics("MASK335R", "F444W")
    scale, _ = optics.detector.pixel_scale_arcsec
    expected = [optics.exact_transmission((d, 0.0)) for d in (x - 10.0) * scale]
    np.testing.assert_allclose(found, expected, atol=0.01)


@pytest.mark.parametrize(
    ("instrument", "name", "band"),
    [
        (NIRCAM, "MASK335R", "F444W"),
        (NIRCAM, "MASKLWB", "F335M"),
        (MIRI, "4QPM_1140", "F1140C"),
        (MIRI, "LYOT_2300", "F2300C"),
    ],
)
def test_the_table_is_the_propagation(instrument, name, band):
    optics = instrument.optics(name, band)
    table = Transmission(optics=optics, origin="test")
    places = np.random.default_rng(1).uniform(-3.0, 3.0, (25, 2))
    expected = [optics.exact_transmission(optics.mask.along_axes(*p)) for p in places]
    found = table.behind(*optics.mask.along_axes(*places.T))
    assert np.abs(found - expected).max() < 0.03
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.012


def test_a_bar_is_as_wide_at_the_star_as_where_it_is_put():
    bar = NIRCAM.coronagraph("MASKLWB")
    at = bar.star_x_arcsec("F277W")
    edge = (
        float(bar.half_width(at)) / NIRCAM.optics("MASKLWB", "F277W").detector.pixel_scale_arcsec[1]
    )
    through = transmission("MASKLWB", band="F277W", mask_xy_arcsec=(at, 0.0)).at
    assert through(20.0 + edge, 20.0, mask_yx=(20.0, 20.0)) == pytest.approx(0.5, abs=1e-3)


def test_a_map_is_interpolated_and_its_gaps_are_opaque():
    image = np.tile(np.linspace(0.0, 1.0, 11), (9, 1))
    image[5, 5] = np.nan
    at = transmission(image=image).at
    np.testing.assert_allclose(
        at(np.array([2.0, 2.0]), np.array([3.0, 3.5]), mask_yx=(0, 0)), [0.3, 0.35]
    )
    assert at(np.array(5.0), np.array(5.0), mask_yx=(0, 0)) == 0.0


def test_a_coronagraph_without_a_model_transmits_everything():
    np.testing.assert_array_equal(
        transmission("SOMETHING").at(np.zeros((3, 1)), np.arange(4.0), mask_yx=(1.0, 1.0)),
        np.ones((3, 4)),
    )
