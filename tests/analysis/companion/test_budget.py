"""The errors of a companion, cause by cause, against what moved inputs do to a position."""

from dataclasses import replace

import numpy as np
import pytest

from lyot.algorithms.geometry import TangentPlane, polar
from lyot.analysis.brightness import StarBrightness
from lyot.analysis.companion import ErrorBudget, ErrorTerm, fit_companions
from lyot.analysis.companion.budget import error_budget
from lyot.files.star import StarPosition
from lyot.instruments import NIRCAM
from lyot.instruments.transmission import Transmission

NONE = np.zeros(3)


def at(observation, separation_arcsec, pa_deg):
    return (separation_arcsec / observation.pixel_scale_arcsec, pa_deg, 100.0)


def test_terms_add_in_quadrature():
    budget = ErrorBudget(
        photon=ErrorTerm(3.0, 0.3, 0.03), star=ErrorTerm(4.0, 0.4, 0.0), psf=ErrorTerm(flux=0.04)
    )
    total, rest = budget.total, budget.without("star", "psf")
    assert (total.separation_arcsec, total.flux) == (pytest.approx(5.0), pytest.approx(0.05))
    assert total.pa_deg == pytest.approx(0.5)
    assert rest == budget.noise == ErrorTerm(3.0, 0.3, 0.03)


def test_the_star_moves_companions_as_a_moved_star_does(draw):
    """The same step on the detector in two rolls, against positions read about moved stars."""
    observation = draw(3)
    sigma_y, sigma_x = 0.2, 0.05
    exposures = [
        replace(e, star=StarPosition(e.star.x, e.star.y, sigma_x, sigma_y))
        for e in observation.exposures
    ]
    separation, pa = 1.4, 250.0
    place = at(observation, separation, pa)
    term = error_budget(replace(observation, exposures=exposures), place, NONE, NONE).star
    rng, found = np.random.default_rng(1), []
    for _ in range(4000):
        dy, dx = rng.normal(size=2) * (sigma_y, sigma_x)
        offsets = []
        for e in exposures:
            y, x = e.position(place[0], pa)
            moved = e.plane._replace(star_yx=(e.star.y + dy, e.star.x + dx))
            offsets.append(moved.offset(float(y), float(x)))
        found.append(polar(*np.mean(offsets, axis=0)))
    r, angle = np.transpose(found)
    assert term.separation_arcsec == pytest.approx(np.std(r), rel=0.05)
    assert term.pa_deg == pytest.approx(np.std(angle), rel=0.05)


def test_a_star_that_is_wrong_alike_cancels_in_opposite_rolls(draw):
    observation = draw(3)
    first = observation.exposures[0]
    star = StarPosition(first.star.x, first.star.y, 0.1, 0.1)
    scale = observation.pixel_scale_arcsec
    turned = [
        replace(first, star=star, plane=TangentPlane.linear(star.yx, pa, scale))
        for pa in (30.0, 210.0)
    ]
    place = at(observation, 1.0, 60.0)
    alone = error_budget(replace(observation, exposures=turned[:1]), place, NONE, NONE).star
    both = error_budget(replace(observation, exposures=turned), place, NONE, NONE).star
    same = error_budget(replace(observation, exposures=turned[:1] * 4), place, NONE, NONE).star
    assert alone.separation_arcsec == pytest.approx(0.1 * scale)
    assert same.separation_arcsec == pytest.approx(0.1 * scale)  # more of a kind do not help
    assert both.separation_arcsec == pytest.approx(0.0, abs=1e-12)


def test_geometry_is_that_of_scaled_turned_and_sheared_skies(draw):
    observation = draw(3)
    separation = 1.5
    budget = error_budget(observation, at(observation, separation, 40.0), NONE, NONE)
    known = NIRCAM.accuracy
    assert budget.scale == ErrorTerm(pytest.approx(known.scale * separation), 0.0)
    assert budget.roll == ErrorTerm(0.0, pytest.approx(known.roll_deg))
    east, north = separation * np.sin(np.radians(40.0)), separation * np.cos(np.radians(40.0))
    rng, found = np.random.default_rng(2), []
    for plus, cross in rng.normal(size=(4000, 2)) * known.skew:
        moved = polar(east * (1 + plus) + cross * north, north * (1 - plus) + cross * east)
        found.append([moved[0] - separation, moved[1] - 40.0])
    np.testing.assert_allclose(
        np.std(found, axis=0), [budget.skew.separation_arcsec, budget.skew.pa_deg], rtol=0.05
    )


def test_a_mask_that_lies_elsewhere_passes_another_share(draw):
    optics = NIRCAM.optics("MASK335R", "F444W")
    mask = Transmission(optics=optics, origin="model")
    observation = replace(draw(3), transmission=mask)
    pixel, sigma = observation.pixel_scale_arcsec, NIRCAM.accuracy.mask_arcsec
    r = 0.65 / pixel
    share = mask.at(0.0, r, mask_yx=(0.0, 0.0))
    moved = [mask.at(0.0, r + s * sigma / pixel, mask_yx=(0.0, 0.0)) for s in (-1.0, 1.0)]
    steep = 0.5 * (moved[1] - moved[0]) / share
    near = error_budget(observation, (r, 0.0, 100.0), NONE, NONE).transmission.flux
    far = error_budget(observation, at(observation, 2.4, 0.0), NONE, NONE).transmission.flux
    assert near == pytest.approx(steep, rel=0.1)
    assert far < 0.01 < near


def test_the_noise_is_split_into_what_err_states_and_the_rest(draw):
    """White noise is all of ERR; that of a neighborhood is more than its pixels say."""
    options = {"n_likelihoods": 0, "n_injections": 0}
    parts = {}
    for smooth in (0.0, 1.5):
        observation = draw(11, [(1.4, 250.0, 150.0)], smooth=smooth)
        [c] = fit_companions(observation, [(1.4, 250.0)], **options).companions
        parts[smooth] = c.budget
        assert c.budget.noise.flux == pytest.approx(1.0 / c.snr)
    assert parts[0.0].photon.flux > 0.9 * parts[0.0].noise.flux
    assert parts[1.5].residual.flux > parts[1.5].photon.flux


def test_the_contrast_shares_the_calibration_of_a_measured_star(draw):
    options = {"n_likelihoods": 0, "n_injections": 0}
    observation = draw(11, [(1.4, 250.0, 150.0)])
    found = {}
    for measured in (False, True):
        star = StarBrightness(1.0, 5.66, "stated", err=0.02, is_measured=measured)
        fit = fit_companions(replace(observation, star=star), [(1.4, 250.0)], **options)
        [found[measured]] = fit.companions
    noise, calibration = found[False].budget.noise.flux, NIRCAM.accuracy.flux
    relative = {m: c.contrast.err / c.contrast.value for m, c in found.items()}
    # The transmission is 1 everywhere, and of the user's PSF no error is known.
    mask = found[False].budget.transmission.flux
    assert relative[False] == pytest.approx(np.linalg.norm([noise, mask, calibration, 0.02]))
    assert relative[True] == pytest.approx(np.linalg.norm([noise, mask, 0.02]))
    for c in found.values():
        of_flux = np.linalg.norm([noise, mask, calibration])
        assert c.flux.err / c.flux.value == pytest.approx(of_flux)
        assert c.magnitude.err == pytest.approx(1.0857 * of_flux, rel=1e-3)
        assert c.jy.err / c.jy.value == pytest.approx(of_flux)


def test_every_term_is_a_column(draw):
    observation = draw(11, [(1.4, 250.0, 150.0)])
    fit = fit_companions(observation, [(1.4, 250.0)], n_likelihoods=0, n_injections=0)
    table = fit.to_table()
    for name, term in fit.companions[0].budget:
        assert table[f"{name}_separation_err"][0].to_value("arcsec") == term.separation_arcsec
        assert table[f"{name}_flux_err"][0] == term.flux
