"""Limits, detections and companions on draws of known noise."""

import numpy as np
import pytest

from lyot.algorithms.statistics import threshold
from lyot.analysis.companion import fit_companions
from lyot.analysis.contrast import (
    completeness_map,
    contrast_curve,
    sensitivity_map,
)
from lyot.analysis.detection import detect, snr_map
from lyot.analysis.maps import FluxMaps, Known, KnownDisc, make_rings, sky_grid
from lyot.analysis.observation import brightness_of, flux_in_frame, make_observation
from lyot.analysis.psf import psf_from_image
from lyot.errors import LyotError
from lyot.instruments import MIRI, NIRCAM
from lyot.parameters import SubtractRecipe

FWHM_ARCSEC = 2.4 * 0.063


@pytest.mark.parametrize(("kind", "n_draws"), [("white", 500), ("correlated", 500), ("rolls", 150)])
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
        along, across = c.separation_arcsec - truth[0], np.radians(c.pa_deg - truth[1]) * truth[0]
        pulls.append(
            [along / c.fit_err_arcsec, across / c.fit_err_arcsec, (c.flux - truth[2]) / c.flux_err]
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
    assert abs(a.flux - b.flux) < 0.3 * b.flux_err
    np.testing.assert_allclose(a.flux_err, b.flux_err, rtol=0.15)
    np.testing.assert_allclose(a.fit_err_arcsec, b.fit_err_arcsec, rtol=0.15)
    assert sampled.n_likelihoods > 15_000


def test_two_companions_are_fitted_together(draw):
    truth = [(1.2, 40.0, 150.0), (1.2, 55.0, 100.0)]
    observation = draw(5, truth)
    fit = fit_companions(observation, [(1.22, 39.0), (1.18, 56.0)], n_likelihoods=0, n_injections=0)
    for found, (separation, pa, flux) in zip(fit.companions, truth, strict=True):
        assert abs(found.flux - flux) < 4 * found.flux_err
        assert abs(found.separation_arcsec - separation) < 4 * found.separation_err
        assert abs(found.pa_deg - pa) < 4 * found.pa_err
    assert len(fit.to_table()) == 2


def test_the_bias_is_measured_by_injections(draw):
    observation = draw(6, [(1.3, 120.0, 90.0)])
    c = fit_companions(observation, [(1.3, 120.0)], n_likelihoods=0, n_injections=10).companions[0]
    assert c.n_injected >= 8
    assert abs(c.bias_flux) < 2.0 * c.flux_err
    assert abs(c.bias_separation_arcsec) < 2.0 * c.separation_err
    assert c.jy == pytest.approx(c.flux * observation.jy_per_unit)
    assert c.contrast == pytest.approx(c.flux / observation.star_flux)


@pytest.mark.parametrize("rolls_too", [False, True])
def test_half_of_the_sources_at_the_limit_are_found(draw, rolls_too):
    fpf, separations = 1e-3, np.array([1.5, 2.5, 5.0, 9.0]) * FWHM_ARCSEC
    found = np.zeros((len(separations), 2))
    for seed in range(30):
        observation = draw(1000 + seed, rolls_too=rolls_too)
        curve = contrast_curve(observation, separations_arcsec=separations, fpf=fpf)
        for j in range(len(separations)):
            limit = curve.calibrated[0, j]
            complete = completeness_map(
                observation,
                separations_arcsec=separations[j : j + 1],
                contrasts=np.array([limit]),
                fpf=fpf,
            )
            found[j] += complete.fraction[0, 0], 1
    fraction = found[:, 0] / found[:, 1]
    # Positions of one draw are few near the star: each draw counts about n trials there.
    np.testing.assert_allclose(fraction, 0.5, atol=0.05)


def test_a_source_really_put_in_at_the_limit_is_found_half_the_time(draw):
    fpf, separation = 1e-3, 5.0 * FWHM_ARCSEC
    hits, trials = 0, 0
    for seed in range(25):
        observation = draw(2000 + seed)
        limit = contrast_curve(
            observation, separations_arcsec=np.array([separation]), fpf=fpf
        ).calibrated[0, 0]
        for pa in (10.0, 100.0, 190.0, 280.0):
            with_it = observation.with_source(separation, pa, limit)
            maps = FluxMaps(with_it)
            r = separation / observation.pixel_scale_arcsec
            n = int(2 * np.pi * r / observation.fwhm_pix)
            flux = maps.sample(np.full(n, r), pa + 360.0 * np.arange(n) / n)[0]
            others = flux[1:]
            tau = threshold(n, fpf=fpf)
            hits += flux[0] > others.mean() + tau * others.std(ddof=1)
            trials += 1
    # 100 trials: 5 points are one standard deviation.
    assert abs(hits / trials - 0.5) < 0.15


def test_false_alarms_on_images_come_at_the_stated_rate(draw):
    fpf, alarms, tests = 5e-3, 0, 0
    for seed in range(12):
        observation = draw(3000 + seed)
        maps = FluxMaps(observation)
        rings = make_rings(maps, np.arange(5.0, 40.0, 2.4))
        for j in range(len(rings.radius_pix)):
            mean, scatter, number = rings.others(j, 0)
            tau = threshold(int(number.max()) + 1, fpf=fpf)
            above = rings.flux[j][0] > mean + tau * scatter
            alarms += above[:, 0].sum()
            tests += above[:, 0].size
    assert tests > 5000
    assert abs(alarms - fpf * tests) < 4 * np.sqrt(fpf * tests)


def test_candidates_are_found_where_they_are(draw):
    truth = [(1.0, 60.0, 200.0), (2.0, 300.0, 150.0)]
    observation = draw(7, truth)
    found = detect(observation, known=tuple(Known(s, pa) for s, pa, _ in truth))
    assert len(found.candidates) == 2
    for separation, pa, flux in truth:
        best = min(found.candidates, key=lambda c: abs(c.pa_deg - pa))
        assert abs(best.separation_arcsec - separation) < 0.3 * observation.pixel_scale_arcsec
        assert abs(np.radians(best.pa_deg - pa)) * separation < 0.3 * 0.063
        assert abs(best.flux - flux) < 0.15 * flux
        assert best.false_alarms < 1e-3
        assert best.known
    assert len(found.to_table()) == 2
    assert np.nanmax(found.stim) > 5


def test_noise_alone_gives_no_candidate(draw):
    found = detect(draw(8))
    assert not found.candidates
    good = np.isfinite(found.snr)
    assert 0.8 < np.std(found.snr[good]) < 1.3


def test_the_map_is_the_statistic_of_independent_positions(draw):
    observation = draw(9)
    maps, grid = FluxMaps(observation), sky_grid(observation)
    snr, flux, number = snr_map(maps, grid)
    y, x = grid.half_pix + 17, grid.half_pix - 12
    r, pa = np.hypot(17, 12), np.degrees(np.arctan2(12, 17))
    n = int(2 * np.pi * r / observation.fwhm_pix)
    around = maps.sample(np.full(n, r), pa + 360.0 * np.arange(n) / n)[0]
    expected = (around[0] - around[1:].mean()) / (around[1:].std(ddof=1) * np.sqrt(1 + 1 / (n - 1)))
    assert abs(flux[y, x] - around[0]) < 1e-9
    assert abs(number[y, x] - n) <= 1
    # The ring nearest to the pixel is up to a quarter of a pixel away.
    assert abs(snr[y, x] - expected) < 0.25


def test_references_that_hold_a_companion_subtract_part_of_it(draw):
    truth = (1.0, 100.0, 300.0)
    recipe = SubtractRecipe(n_modes=(12,), level_inner_arcsec=2.0)
    alone, rolls = (draw(4, [truth], rolls_too=r, recipe=recipe) for r in (False, True))
    r = truth[0] / alone.pixel_scale_arcsec
    kept = FluxMaps(alone).throughput(r, truth[1])[0, 0]
    left = FluxMaps(rolls).throughput(r, truth[1], flux=truth[2])[0, 0]
    assert left < kept - 0.005
    # What is measured, over the exact throughput, is the flux all the same.
    flux = FluxMaps(rolls).sample(np.array([r]), np.array([truth[1]]))[0, 0]
    assert abs(flux / left - truth[2]) < 0.1 * truth[2]


def test_throughput_and_curve_definitions(draw):
    observation = draw(10)
    curve = contrast_curve(observation, separations_arcsec=np.array([0.4, 1.0, 2.0]))
    np.testing.assert_allclose(
        curve.raw, curve.tau * curve.noise / observation.star_flux, rtol=1e-12
    )
    np.testing.assert_allclose(curve.corrected, curve.raw / curve.throughput, rtol=1e-9)
    # The mask of this scene is transparent.
    np.testing.assert_allclose(curve.calibrated, curve.corrected, rtol=1e-9)
    table = curve.to_table()
    assert str(table["separation"].unit) == "arcsec"
    assert str(table["flux_density"].unit) == "Jy"
    spread = sensitivity_map(observation, curve)
    middle = spread.grid.half_pix
    step = round(1.0 / observation.pixel_scale_arcsec)
    at = step * observation.pixel_scale_arcsec
    level = np.exp(np.interp(at, curve.separation_arcsec, np.log(curve.calibrated[0])))
    np.testing.assert_allclose(spread.limit[middle + step, middle], level, rtol=1e-6)


def test_the_flux_of_an_isolated_source_is_measured(draw):
    noiseless = draw(11, [(1.5, 77.0, 1000.0)], noise=1e-3)
    for method in ("matched", "aperture"):
        maps = FluxMaps(noiseless, method)
        r = 1.5 / noiseless.pixel_scale_arcsec
        through = maps.throughput(r, 77.0)[0, 0]
        flux = maps.sample(np.array([r]), np.array([77.0]))[0, 0]
        np.testing.assert_allclose(flux / through, 1000.0, rtol=0.01)


def test_known_sources_are_not_noise(draw):
    clean, dirty = draw(12), draw(12, [(1.2, 30.0, 3000.0)])
    separations = np.array([1.2])
    kept = contrast_curve(dirty, separations_arcsec=separations, known=(Known(1.2, 30.0, 0.4),))
    plain = contrast_curve(clean, separations_arcsec=separations)
    spoilt = contrast_curve(dirty, separations_arcsec=separations)
    assert spoilt.noise[0, 0] > 3 * plain.noise[0, 0]
    np.testing.assert_allclose(kept.noise[0, 0], plain.noise[0, 0], rtol=0.2)
    assert kept.n_positions[0] < plain.n_positions[0]


def test_a_known_disc_is_not_noise(draw):
    disc = [(r, pa, 500.0) for r in (0.8, 1.2, 1.6, 2.0) for pa in (60.0, 240.0)]
    separations = np.array([1.2])
    known = (KnownDisc(60.0, 20.0),)
    kept = contrast_curve(draw(12, disc), separations_arcsec=separations, known=known)
    plain = contrast_curve(draw(12), separations_arcsec=separations)
    np.testing.assert_allclose(kept.noise[0, 0], plain.noise[0, 0], rtol=0.25)


def test_places_under_the_mask_are_not_searched(draw, gaussian_psf):
    observation = draw(18)
    y, x = np.mgrid[:91, :93]
    mask = np.where(np.hypot(y - 44.9, x - 46.3) < 8.0, 0.001, 1.0)
    masked = make_observation(
        "x", observation.exposures, observation.recipe, psf=gaussian_psf, transmission=mask
    )
    grid = sky_grid(masked)
    snr, _, _ = snr_map(FluxMaps(masked), grid)
    radius, _ = grid.polar
    assert np.isnan(snr[radius < 7]).all()
    assert np.isfinite(snr[(radius > 10) & (radius < 40)]).all()


def test_laplacian_limits_are_higher(draw):
    observation = draw(13)
    separations = np.array([1.0, 2.0])
    gauss = contrast_curve(observation, separations_arcsec=separations)
    heavy = contrast_curve(observation, separations_arcsec=separations, distribution="laplace")
    assert np.all(heavy.calibrated > 1.5 * gauss.calibrated)


def test_the_normality_check_tells_gaussian_from_heavy_tails(draw):
    separations = np.array([2.4])
    gauss = [
        contrast_curve(draw(s), separations_arcsec=separations).normality[0, 0] for s in range(20)
    ]
    assert np.median(gauss) > 0.1


def test_bad_input_gets_its_sentence(draw, gaussian_psf):
    observation = draw(14)
    with pytest.raises(LyotError, match="lies outside the frame of roll0"):
        fit_companions(observation, [(9.0, 10.0)])
    with pytest.raises(LyotError, match="at least one companion"):
        fit_companions(observation, [])
    with pytest.raises(LyotError, match="background is 'wavy'"):
        fit_companions(observation, [(1.0, 10.0)], background="wavy")
    with pytest.raises(LyotError, match="made with 4 modes, not 7"):
        detect(observation, n_modes=7)
    with pytest.raises(LyotError, match="beyond"):
        contrast_curve(observation, separations_arcsec=np.array([50.0]))
    with pytest.raises(LyotError, match=r"must lie between 0 and 0\.5"):
        contrast_curve(observation, fpf=0.7)
    nameless = make_observation("x", observation.exposures, SubtractRecipe(), psf=gaussian_psf)
    with pytest.raises(LyotError, match="brightness of the star is needed"):
        contrast_curve(nameless)
    large = psf_from_image(np.pad(gaussian_psf.data, 60), origin="large")
    with pytest.raises(LyotError, match="pixels wide and the frames are 93 x 91"):
        make_observation("x", observation.exposures, SubtractRecipe(), psf=large)
    with pytest.raises(LyotError, match="transmission map is"):
        make_observation(
            "x",
            observation.exposures,
            SubtractRecipe(),
            psf=gaussian_psf,
            transmission=np.ones((4, 4)),
        )


def test_too_few_positions_are_flagged(draw):
    curve = contrast_curve(draw(15), separations_arcsec=np.array([0.06, 1.0]))
    assert np.isnan(curve.calibrated[0, 0])
    assert curve.to_table()["too_few_positions"].tolist() == [True, False]


def test_separations_beyond_the_frames_have_no_limit(draw):
    curve = contrast_curve(draw(19), separations_arcsec=np.array([0.8, 1.5, 6.0]))
    assert np.isfinite(curve.calibrated[0, :2]).all()
    assert np.isnan(curve.calibrated[0, 2])
    spread = sensitivity_map(draw(19), curve)
    assert np.isfinite(spread.limit).any()


def test_a_companion_under_the_mask_is_refused(draw, gaussian_psf):
    opaque = np.zeros((91, 93))
    observation = draw(16)
    blind = make_observation(
        "x", observation.exposures, SubtractRecipe(), psf=gaussian_psf, transmission=opaque
    )
    with pytest.raises(LyotError, match="lies under the mask"):
        fit_companions(blind, [(1.0, 10.0)])


def test_brightness_of_the_star(draw, gaussian_psf):
    star = brightness_of(NIRCAM.filter("F444W"), magnitude=4.0)
    assert star.jy == pytest.approx(184.102 * 10 ** (-1.6))
    assert brightness_of(NIRCAM.filter("F444W"), jy=star.jy).magnitude == pytest.approx(4.0)
    assert brightness_of(MIRI.filter("F1140C"), jy=1.0).magnitude is None
    with pytest.raises(LyotError, match="no zero point"):
        brightness_of(MIRI.filter("F1140C"), magnitude=3.0)
    with pytest.raises(LyotError, match="give one of"):
        brightness_of(NIRCAM.filter("F444W"))
    frame = np.zeros((40, 41))
    box, image = gaussian_psf.place(20.3, 18.8, frame.shape)
    frame[box] = 777.0 * image
    frame[0, 0] = np.nan
    assert flux_in_frame(draw(17), frame) == pytest.approx(777.0, rel=1e-4)
