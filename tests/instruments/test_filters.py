"""Filters: their curves, zero points and flux densities."""

import numpy as np
import pytest

from lyot.errors import LyotError
from lyot.instruments import MIRI, NIRCAM
from lyot.instruments.filters import RAYLEIGH_JEANS, Curve, Spectrum

FILTERS = [*NIRCAM.filters, *MIRI.filters]

# Stars of magnitude zero [micrometer, Jy] by others: Tokunaga and Vacca 2005, doi:10.1086/429382;
# IRAC 8.0 (Reach et al. 2005, PASP 117, 978); MIPS 24 (Rieke et al. 2008,
# doi:10.1088/0004-6256/135/6/2245).
VEGA = Spectrum(
    (1.644, 2.198, 3.754, 4.702, 7.872, 23.675, 30.0),
    (1040.0, 645.0, 249.0, 163.0, 64.13, 7.17, 7.17 * (23.675 / 30.0) ** 2),
)


def test_zero_points_are_those_of_others():
    # Hydrogen takes light from F187N; Spitzer's zero points lie 3 to 6 % above CALSPEC's.
    limits = {"F187N": 0.06, "F480M": 0.03} | {f.name: 0.06 for f in MIRI.filters}
    for band in FILTERS:
        limit = limits.get(band.name, 0.025)
        assert band.flux_density(VEGA) == pytest.approx(band.vega_jy, rel=limit), band.name
        magnitude = -2.5 * np.log10(band.flux_density(VEGA) / band.vega_jy)
        assert abs(magnitude) < 0.07


def test_zero_points_in_the_thermal_infrared_follow_planck():
    """A photosphere of one temperature, which falls to 4 % as its opacity grows with wavelength."""
    photosphere = Spectrum.blackbody(9600.0)
    red = NIRCAM.filter("F460M")
    for band in MIRI.filters:
        ratio = band.flux_density(photosphere) / red.flux_density(photosphere)
        assert band.vega_jy / red.vega_jy == pytest.approx(ratio, rel=0.05)


def test_zero_points_and_pivots_are_those_of_the_filter_profile_service(data_dir):
    rows = {}
    for line in (data_dir / "throughput" / "svo_filter_table.dat").read_text().splitlines():
        words = line.split()
        if words[0].startswith("ivo:"):
            # The pivot wavelength is the first number; the zero point stands before its unit.
            first = next(w for w in words if w.replace(".", "").isdigit() and "." in w)
            zero = float(words[words.index("Jy") - 1])
            rows[words[1].removeprefix("JWST/NIRCam.")] = float(first) * 1e-4, zero
    # Its curves are those from before launch.
    changed = {"F322W2": 0.025, "F444W": 0.01, "F480M": 0.01}
    for band in NIRCAM.filters:
        pivot, zero = rows[band.name]
        assert band.pivot_um == pytest.approx(pivot, rel=2 * changed.get(band.name, 0.003))
        assert band.vega_jy == pytest.approx(zero, rel=changed.get(band.name, 0.006))


@pytest.mark.parametrize("band", FILTERS, ids=lambda f: f.name)
def test_a_flat_spectrum_gives_its_value(band):
    assert band.flux_density(Spectrum((1.0, 40.0), (0.37, 0.37))) == pytest.approx(0.37, rel=1e-12)


def test_the_flux_density_is_counted_in_photons():
    # Photons of F_nu = a / lambda over a box, over those of a flat one: a (1/x - 1/y) / ln(y / x).
    band = MIRI.filter("F2300C")
    box = type(band)("box", "ONLY", Curve((4.0, 6.0), (1.0, 1.0)))
    found = box.flux_density(Spectrum((1.0, 10.0), (10.0, 1.0)))
    assert found == pytest.approx(10.0 * (1 / 4 - 1 / 6) / np.log(6 / 4), rel=1e-6)
    # At the pivot wavelength the means per frequency and per wavelength agree.
    um, photons = band.curve.photons(RAYLEIGH_JEANS)
    flat = photons / RAYLEIGH_JEANS.at(um)
    # Weights of F_lambda are those of F_nu times the square of the wavelength.
    per_um = (flat * RAYLEIGH_JEANS.at(um)).sum() / (flat * um**2).sum()
    assert band.flux_density(RAYLEIGH_JEANS) == pytest.approx(per_um * band.pivot_um**2, rel=1e-9)


def test_a_line_narrower_than_the_steps_counts():
    um = np.array([3.0, 4.299999, 4.3, 4.300001, 6.0])
    line = Spectrum(tuple(um.tolist()), (1e-9, 1e-9, 1e6, 1e-9, 1e-9))
    box = Curve((4.0, 5.0), (1.0, 1.0))
    _, photons = box.photons(line)
    # Between its points a spectrum is a power law, but a step takes the value of its middle.
    assert photons.sum() == pytest.approx(1e6 * 1e-6 / 4.3, rel=0.01)


def test_a_spectrum_that_ends_in_the_filter_is_refused():
    with pytest.raises(LyotError, match=r"covers 1 to 4 micrometer, and F444W 3\.79"):
        NIRCAM.filter("F444W").flux_density(Spectrum((1.0, 4.0), (1.0, 1.0)))
    with pytest.raises(LyotError, match="covers 4 to 9 micrometer, and F444W"):
        NIRCAM.optics("MASK335R", "F444W", spectrum=Spectrum((4.0, 9.0), (1.0, 1.0)))


def test_planck():
    cold = Spectrum.blackbody(300.0)
    # Wien: nu B_nu is greatest at 3670 um K.
    um = np.linspace(8.0, 18.0, 5001)
    assert um[np.argmax(cold.at(um) / um)] * 300.0 == pytest.approx(3670.0, rel=0.01)
    hot = Spectrum.blackbody(3e5)
    assert hot.at(10.0) / hot.at(20.0) == pytest.approx(4.0, rel=0.005)


@pytest.mark.parametrize("band", FILTERS, ids=lambda f: f.name)
def test_wavelengths_of_a_band_keep_the_photons(band):
    sampled = band.curve.band(RAYLEIGH_JEANS)
    assert sampled.weights.sum() == pytest.approx(1.0)
    mean = 1e6 * sampled.weights @ sampled.wavelengths_m
    assert mean == pytest.approx(band.curve.mean_um(RAYLEIGH_JEANS), rel=1e-9)
    assert np.all(np.diff(sampled.wavelengths_m) > 0)
    assert np.all(sampled.weights > 0)
    cold = 1e6 * np.dot(*band.curve.band(Spectrum.blackbody(500.0)))
    assert cold > mean


def test_a_box_has_its_pivot_and_width():
    box = Curve.box(3.5, 0.7)
    band = type(FILTERS[0])("box", "ONLY", box)
    assert band.pivot_um == pytest.approx(3.5, rel=1e-5)
    assert band.width_um == pytest.approx(0.7)
    narrow = box.times(Curve((3.0, 4.0), (0.0, 1.0)))
    assert narrow.at(np.array([3.4, 3.0, 9.0])) == pytest.approx([0.4, 0.0, 0.0])


def test_the_masks_substrate_reddens_the_light_of_a_coronagraph():
    """Its transmission falls by half towards 1.7 micrometer."""
    light = NIRCAM.filter("F182M")
    plain = light.curve.mean_um(RAYLEIGH_JEANS)
    through = 1e6 * np.dot(*NIRCAM.optics("MASK210R", "F182M").band)
    assert 1.01 < through / plain < 1.02
    without = 1e6 * np.dot(*NIRCAM.optics("CLEAR", "F182M").band)
    assert without == pytest.approx(plain, rel=1e-9)
