"""Companions on draws of known noise."""

from dataclasses import replace

import numpy as np
import pytest

from lyot.analysis.companion import fit_companions
from lyot.analysis.companion.likelihood import Likelihood, NoiseSettings
from lyot.analysis.observation import make_observation
from lyot.analysis.psf import psf_from_image
from lyot.errors import LyotError
from lyot.instruments import NIRCAM
from lyot.instruments.transmission import Transmission
from lyot.parameters import SubtractRecipe


def test_a_psf_that_does_not_describe_a_source_is_said(draw):
    bright, faint = (1.2, 40.0, 6000.0), (1.9, 220.0, 60.0)
    observation = draw(11, [bright, faint])
    y, x = np.mgrid[-15:16, -15:16]
    image = np.exp(-4 * np.log(2) * (x**2 + y**2) / 3.0**2)
    wide = replace(observation, psf=psf_from_image(image, origin="a wide Gaussian"))
    guesses, options = [bright[:2], faint[:2]], {"n_likelihoods": 0, "n_injections": 0}
    assert fit_companions(observation, guesses, **options).warnings == []
    fit = fit_companions(wide, guesses, **options)
    # What noise there is tells of the bright one alone.
    assert [c.is_described for c in fit.companions] == [False, True]
    [text] = fit.warnings
    per_pixel = fit.companions[0].chi2 / fit.companions[0].n_data
    assert f"does not describe companion 1: chi-square is {per_pixel:.1f} per pixel" in text
    assert "PSF: a wide Gaussian" in text
    table = fit.to_table()
    assert list(table["described_by_psf"]) == [False, True]
    assert table.meta["lyot"]["warnings"] == [text]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "n_draws"), [("white", 500), ("correlated", 500), ("rolls", 400)])
def test_pulls_of_companions(draw, kind, n_draws):
    pulls, chi2 = [], []
    truth = (1.1, 100.0, 90.0)
    smooth, rolls_too = 1.2 * (kind == "correlated"), kind == "rolls"
    recipe = SubtractRecipe(n_modes=(9 if rolls_too else 4,), level_inner_arcsec=2.0)
    for seed in range(5000, 5000 + n_draws):
        observation = draw(seed, [truth], smooth=smooth, rolls_too=rolls_too, recipe=recipe)
        fit = fit_companions(observation, [(1.13, 101.0)], n_likelihoods=0, n_injections=0)
        c = fit.companions[0]
        # The errors of the fit: roll and scale are exact here.
        along, across = (
            c.separation_arcsec.value - truth[0],
            np.radians(c.pa_deg.value - truth[1]) * truth[0],
        )
        pulls.append(
            [
                along / c.budget.noise.separation_arcsec,
                across / (np.radians(c.budget.noise.pa_deg) * truth[0]),
                (c.flux.value - truth[2]) / (c.budget.noise.flux * c.flux.value),
            ]
        )
        chi2.append(c.chi2 / c.n_data)
    mean, width = np.mean(pulls, axis=0), np.std(pulls, axis=0, ddof=1)
    assert np.all(np.abs(mean) < 0.15)
    assert np.all((width > 0.85) & (width < 1.15))
    assert 0.85 < np.mean(chi2) < 1.15


def test_the_posterior_is_that_of_the_curvature(draw):
    observation = draw(3, [(1.4, 250.0, 120.0)])
    sampled = fit_companions(observation, [(1.4, 250.0)], n_likelihoods=16_000, n_injections=0)
    curved = fit_companions(observation, [(1.4, 250.0)], n_likelihoods=0, n_injections=0)
    a, b = sampled.companions[0], curved.companions[0]
    # Some 200 independent samples: the median is known to a tenth of the error.
    assert abs(a.flux.value - b.flux.value) < 0.3 * b.flux.value / b.snr
    np.testing.assert_allclose(a.snr, b.snr, rtol=0.15)
    np.testing.assert_allclose(
        a.budget.noise.separation_arcsec, b.budget.noise.separation_arcsec, rtol=0.15
    )
    assert sampled.n_likelihoods > 15_000


def test_two_companions_are_fitted_together(draw):
    truth = [(1.2, 40.0, 150.0), (1.2, 55.0, 100.0)]
    observation = draw(5, truth)
    fit = fit_companions(observation, [(1.22, 39.0), (1.18, 56.0)], n_likelihoods=0, n_injections=0)
    for found, (separation, pa, flux) in zip(fit.companions, truth, strict=True):
        assert abs(found.flux.value - flux) < 4 * found.flux.value / found.snr
        assert abs(found.separation_arcsec.value - separation) < 4 * found.separation_arcsec.err
        assert abs(found.pa_deg.value - pa) < 4 * found.pa_deg.err
    assert len(fit.to_table()) == 2


def test_the_bias_is_measured_by_injections(draw):
    observation = draw(6, [(1.3, 120.0, 90.0)])
    c = fit_companions(observation, [(1.3, 120.0)], n_likelihoods=0, n_injections=10).companions[0]
    assert c.bias.n_injected >= 8
    assert abs(c.bias.flux) < 2.0 * c.flux.value / c.snr
    assert abs(c.bias.separation_arcsec) < 2.0 * c.separation_arcsec.err
    assert c.jy.value == pytest.approx(c.flux.value * observation.jy_per_unit)
    assert c.contrast.value == pytest.approx(c.flux.value / observation.star_flux)


def test_companions_are_injected_where_the_mask_passes_alike(draw):
    """Behind a bar they would be measured worse, which says nothing of this one."""
    observation = draw(7, [(1.3, 35.0, 90.0)])
    rows = np.arange(91)[:, None]
    behind_bar = np.broadcast_to(np.where(np.abs(rows - 45) < 6, 0.05, 1.0), (91, 93))
    optics = NIRCAM.optics("MASKLWB", "F335M")
    map_of_bar = Transmission(optics=optics, origin="a map", image=behind_bar)
    options = {"n_likelihoods": 0, "n_injections": 12}
    [free] = fit_companions(observation, [(1.3, 35.0)], **options).companions
    barred = replace(observation, transmission=map_of_bar)
    [beside] = fit_companions(barred, [(1.3, 35.0)], **options).companions
    assert 4 <= beside.bias.n_injected < free.bias.n_injected
    assert beside.snr > free.snr / 1.5


def test_a_companion_under_the_mask_is_refused(draw, gaussian_psf):
    opaque = np.zeros((91, 93))
    observation = draw(16)
    blind = make_observation(
        "x", observation.exposures, SubtractRecipe(), psf=gaussian_psf, transmission=opaque
    )
    with pytest.raises(LyotError, match="lies under the mask"):
        fit_companions(blind, [(1.0, 10.0)])


def test_slopes_are_those_of_the_response(draw):
    """The design matrix against finite steps of the exact response, where the mask matters."""
    mask = Transmission(optics=NIRCAM.optics("MASK335R", "F444W"), origin="model")
    observation = replace(draw(23, [(0.65, 70.0, 200.0)]), transmission=mask)
    guess = 0.65 / observation.pixel_scale_arcsec * np.array([[0.94, 0.342]])
    data = [exposure.residual[0] for exposure in observation.exposures]
    likelihood = Likelihood(observation, NoiseSettings(0, "constant", ()), guess, data, guess)
    flux, step = np.array([200.0]), 1e-3
    design = likelihood.design(guess, flux)
    for axis in range(2):
        move = step * np.eye(2)[axis]
        up, down = (likelihood.residual(guess + s * move, flux) for s in (1.0, -1.0))
        slope = (up - down) / (2.0 * step)
        # The slope of the transmission is that of a spline through the pixels.
        np.testing.assert_allclose(design[:, axis], slope, atol=1e-3 * np.abs(slope).max())
    np.testing.assert_array_equal(design[:, 2], np.concatenate(likelihood.columns(guess))[:, 0])


def test_a_guess_more_than_the_margin_away_is_refused(draw):
    observation = draw(24, [(1.2, 70.0, 400.0)])
    with pytest.raises(LyotError, match="No companion is found within 3 pixels"):
        fit_companions(observation, [(1.2 + 3.6 * 0.063, 70.0)], n_likelihoods=0, n_injections=0)
