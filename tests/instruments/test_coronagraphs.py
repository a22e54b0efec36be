"""Geometry of the masks: closed forms, symmetries, an independent code."""

import numpy as np
import poppy
import pytest

from lyot.errors import LyotError
from lyot.instruments import INSTRUMENTS, MIRI, NIRCAM
from lyot.instruments.coronagraphs import NoMask
from scenes import HALF_WIDTHS_ARCSEC

ALL = [(i, c) for i in INSTRUMENTS.values() for c in i.coronagraphs]
IDS = [c.name for _, c in ALL]
Y, X = (np.mgrid[-40:41, -40:41] + 0.5) * 0.07


@pytest.mark.parametrize(("instrument", "coronagraph"), ALL, ids=IDS)
def test_amplitudes_lie_between_plus_and_minus_one(instrument, coronagraph):
    amplitude = coronagraph.amplitude(X[:1], Y[:, :1])
    assert amplitude.shape == X.shape
    assert np.abs(amplitude).max() <= 1.0


@pytest.mark.parametrize(("instrument", "coronagraph"), ALL, ids=IDS)
def test_masks_look_the_same_from_both_sides(instrument, coronagraph):
    """Turned by half a turn about the middle, all but the bars are the same; bars are mirrored."""
    bar = "WB" in coronagraph.name
    turned = coronagraph.amplitude(X if bar else -X, -Y)
    np.testing.assert_allclose(turned, coronagraph.amplitude(X, Y), atol=1e-12)


@pytest.mark.parametrize("name", ["MASK210R", "MASK335R", "MASK430R"])
def test_round_masks_are_those_of_an_independent_code(name):
    coronagraph = NIRCAM.coronagraph(name)
    peer = poppy.BandLimitedCoron(kind="circular", sigma=coronagraph.sigma_per_arcsec)
    wave = poppy.Wavefront(wavelength=4e-6, npix=101, pixelscale=0.04)
    wave.planetype = poppy.poppy_core.PlaneType.image
    y, x = wave.coordinates()
    ours = coronagraph.amplitude(np.asarray(x), np.asarray(y))
    # Within the first side lobe, after which the hardware is cut off.
    pattern = np.hypot(x, y) * coronagraph.sigma_per_arcsec < 2.0 * np.pi
    np.testing.assert_allclose(ours[pattern], peer.get_transmission(wave)[pattern], atol=1e-12)
    np.testing.assert_allclose(ours[~pattern], coronagraph.background)


@pytest.mark.parametrize("name", HALF_WIDTHS_ARCSEC)
def test_half_of_the_light_passes_at_the_half_width(name):
    """As published, to a hundredth of an arcsecond."""
    at = HALF_WIDTHS_ARCSEC[name]
    assert NIRCAM.coronagraph(name).amplitude(0.0, at) ** 2 == pytest.approx(0.5, abs=0.005)


@pytest.mark.parametrize("name", ["MASKSWB", "MASKLWB"])
def test_a_bar_is_two_to_six_lambda_over_d_wide(name):
    bar = NIRCAM.coronagraph(name)
    unit = abs(bar.lambda_over_d_arcsec)
    ends = bar.half_width(np.array([-7.5, 0.0, 7.5])) / unit
    np.testing.assert_allclose(sorted(ends), [2.0, 4.0, 6.0])
    assert bar.half_width(30.0) == bar.half_width(7.5)
    for x in (-7.0, 0.0, 5.0):
        edge = float(bar.half_width(x))
        assert bar.amplitude(x, edge) ** 2 == pytest.approx(0.5, abs=1e-4)


def test_the_short_bar_widens_with_x_and_the_long_one_narrows():
    short, long = (NIRCAM.coronagraph(name).half_width for name in ("MASKSWB", "MASKLWB"))
    assert short(5.0) > short(-5.0)
    assert long(5.0) < long(-5.0)


@pytest.mark.parametrize(("name", "scatter"), [("MASKSWB", 1.2), ("MASKLWB", 1.5)])
def test_a_star_is_put_about_where_the_bar_is_four_lambda_over_d_wide(name, scatter):
    """The observatory's positions follow the width of the bar, not to better than an arcsecond."""
    bar = NIRCAM.coronagraph(name)
    for band in set(bar.star_positions_arcsec) - {"NARROW"}:
        width = NIRCAM.lambda_over_d_arcsec(NIRCAM.filter(band))
        nominal = 15.0 * (width / abs(bar.lambda_over_d_arcsec) - 1.0)
        at = bar.star_x_arcsec(band)
        assert at == pytest.approx(np.sign(bar.lambda_over_d_arcsec) * nominal, abs=scatter)
    narrow = float(bar.half_width(bar.star_x_arcsec(band, f"NRCA5_{name}_NARROW")))
    assert narrow == pytest.approx(2.0 * abs(bar.lambda_over_d_arcsec))


@pytest.mark.parametrize(
    ("aperture", "bar_pixel", "pixel", "scale"),
    # XSciRef of the bar's aperture and of another, and XSciScale: PRDOPSSOC-040, an older release.
    [
        ("NRCA5_MASKLWB_F335M", 160.0, 222.1, 0.0624),
        ("NRCA5_MASKLWB_F444W", 160.0, 148.4, 0.0624),
        ("NRCA5_MASKLWB_NARROW", 160.0, 293.0, 0.0624),
        ("NRCA4_MASKSWB_F182M", 320.5, 263.6, 0.0306),
        ("NRCA4_MASKSWB_NARROW", 320.5, 57.5, 0.0306),
    ],
)
def test_the_aperture_says_where_on_a_bar_the_star_is(aperture, bar_pixel, pixel, scale):
    bar = NIRCAM.coronagraph(aperture.split("_")[1])
    # Another filter through the same aperture: two channels look at once.
    at = bar.star_x_arcsec("F480M", aperture)
    assert at == pytest.approx((pixel - bar_pixel) * scale, abs=0.03)


def test_the_aperture_of_a_bar_is_that_of_its_middle():
    bar = NIRCAM.coronagraph("MASKLWB")
    assert bar.star_x_arcsec("F335M", "NRCA5_MASKLWB") == 0.0
    assert bar.star_x_arcsec("F335M") == bar.star_x_arcsec("F444W", "NRCA5_FULL_MASKLWB_F335M")
    assert NIRCAM.coronagraph("MASK335R").star_x_arcsec("F335M") == 0.0


def test_a_bar_hides_speckles_where_it_is_as_wide():
    bar = NIRCAM.coronagraph("MASKLWB")
    hidden = [bool(bar.is_occulted(np.array(x), np.array(0.5))) for x in (-6.0, 6.0)]
    assert hidden == [True, False]


def test_neighboring_quadrants_of_a_phase_mask_differ_by_half_a_wave():
    mask = MIRI.coronagraph("4QPM_1140")
    turn = np.radians(mask.tilt_deg + np.array([45.0, 135.0, 225.0, 315.0]))
    signs = mask.amplitude(*mask.along_axes(np.cos(turn), np.sin(turn)))
    np.testing.assert_array_equal(signs * signs[0], [1.0, -1.0, 1.0, -1.0])
    plain, crossed = mask.coefficients(mask.design_wavelength_m)
    assert abs(plain) < 1e-12
    assert crossed == pytest.approx(1.0)


def test_a_lyot_spot_stands_on_its_support():
    spot = MIRI.coronagraph("LYOT_2300")
    assert spot.amplitude(0.0, 30.0) == 0.0
    assert spot.amplitude(0.5, 30.0) == 1.0


def test_only_a_bar_hides_speckles_far_from_the_star():
    for _, coronagraph in ALL:
        hidden = coronagraph.is_occulted(np.array([[-5.0, 5.0]]), np.array([[0.0], [3.0]]))
        bar = coronagraph.name in ("MASKSWB", "MASKLWB")
        np.testing.assert_array_equal(hidden, [[bar, bar], [False, False]])


def test_without_a_model_everything_passes():
    none = NIRCAM.find_coronagraph("CLEAR")
    assert isinstance(none, NoMask)
    assert not none.is_modeled
    np.testing.assert_array_equal(none.amplitude(X, Y), 1.0)
    with pytest.raises(LyotError, match="Coronagraph 'CLEAR' is not in the table of NIRCAM"):
        NIRCAM.coronagraph("CLEAR")


def test_an_aperture_in_another_channel_is_refused():
    with pytest.raises(LyotError, match="MASK210R has no aperture in the channel 'LONG'"):
        NIRCAM.coronagraph("MASK210R").aperture("LONG")
