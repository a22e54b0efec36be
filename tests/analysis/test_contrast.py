"""Contrast limits on draws of known noise."""

from dataclasses import replace

import numpy as np
import pytest

from lyot.analysis.companion import fit_companions
from lyot.analysis.contrast import ContrastCurve, contrast_curve, sensitivity_map
from lyot.analysis.detection import detect, find_sources
from lyot.analysis.noise import KnownDisc, KnownSource
from lyot.analysis.observation import make_observation
from lyot.analysis.photometry import FluxMaps
from lyot.analysis.psf import psf_from_image
from lyot.analysis.statistic import Statistic
from lyot.errors import LyotError
from lyot.parameters import SubtractRecipe

FWHM_ARCSEC = 2.4 * 0.063


def test_a_source_really_put_in_at_the_limit_is_found_half_the_time(draw):
    fpf, separation = 1e-3, 5.0 * FWHM_ARCSEC
    hits, trials = 0, 0
    for seed in range(25):
        observation = draw(2000 + seed)
        limit = contrast_curve(
            observation, separations_arcsec=np.array([separation]), statistic=Statistic(fpf=fpf)
        ).calibrated[0, 0]
        for pa in (10.0, 100.0, 190.0, 280.0):
            with_it = observation.with_source(separation, pa, limit)
            maps = FluxMaps(with_it)
            r = separation / observation.pixel_scale_arcsec
            n = int(2 * np.pi * r / observation.fwhm_pix)
            others = maps.sample(np.full(n - 1, r), pa + 360.0 * np.arange(1, n) / n)[0]
            # A source is read where the flux about it is highest.
            steps = np.linspace(-1.2, 1.2, 9)
            around = maps.sample(r + steps[:, None], pa + np.degrees(steps / r)[None, :])[0]
            tau = Statistic(fpf=fpf).tau(n)
            hits += around.max() > others.mean() + tau * others.std(ddof=1)
            trials += 1
    # 100 trials: 5 points are one standard deviation.
    assert abs(hits / trials - 0.5) < 0.15


def test_throughput_and_curve_definitions(draw):
    observation = draw(10)
    curve = contrast_curve(observation, separations_arcsec=np.array([0.4, 1.0, 2.0]))
    around = FluxMaps(observation).sample(np.full(500, 1.0 / 0.063), np.arange(500) * 0.72)[0]
    np.testing.assert_allclose(curve.noise[0, 1], around.std(), rtol=0.15)
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


def test_known_sources_are_not_noise(draw):
    clean, dirty = draw(12), draw(12, [(1.2, 30.0, 3000.0)])
    separations = np.array([1.2])
    kept = contrast_curve(
        dirty, separations_arcsec=separations, known_sources=(KnownSource(1.2, 30.0, 0.5),)
    )
    plain = contrast_curve(clean, separations_arcsec=separations)
    spoilt = contrast_curve(dirty, separations_arcsec=separations)
    assert spoilt.noise[0, 0] > 3 * plain.noise[0, 0]
    np.testing.assert_allclose(kept.noise[0, 0], plain.noise[0, 0], rtol=0.2)
    assert kept.n_positions[0] < plain.n_positions[0]


def test_found_sources_leave_the_noise_and_both_limits_are_kept(draw):
    clean, dirty = draw(12), draw(12, [(1.2, 30.0, 3000.0)])
    options = {"separations_arcsec": np.array([1.2, 2.0]), "n_angles": 2}
    found = find_sources(dirty)
    assert len(found) == 1
    curve = contrast_curve(dirty, **options, found_sources=found)
    plain = contrast_curve(clean, **options)
    np.testing.assert_allclose(curve.calibrated, plain.calibrated, rtol=0.2)
    np.testing.assert_allclose(plain.unmasked, plain.calibrated, rtol=1e-12)
    assert curve.unmasked[0, 0] > 3.0 * plain.calibrated[0, 0]
    again = ContrastCurve.from_table(curve.to_table())
    np.testing.assert_array_equal(again.unmasked, curve.unmasked)
    assert again.settings["found"] == [str(source) for source in found]


def test_a_known_disc_is_not_noise(draw):
    disc = [(r, pa, 500.0) for r in (0.8, 1.2, 1.6, 2.0) for pa in (60.0, 240.0)]
    separations = np.array([1.2])
    known = (KnownDisc(60.0, 20.0),)
    kept = contrast_curve(draw(12, disc), separations_arcsec=separations, known_sources=known)
    plain = contrast_curve(draw(12), separations_arcsec=separations)
    np.testing.assert_allclose(kept.noise[0, 0], plain.noise[0, 0], rtol=0.25)


def test_laplacian_limits_are_higher(draw):
    observation = draw(13)
    separations = np.array([1.0, 2.0])
    gauss = contrast_curve(observation, separations_arcsec=separations)
    heavy = contrast_curve(
        observation, separations_arcsec=separations, statistic=Statistic(noise="laplace")
    )
    assert np.all(heavy.calibrated > 1.5 * gauss.calibrated)


def test_the_normality_check_tells_gaussian_from_heavy_tails(draw):
    separations = np.array([2.4])
    gauss = [
        contrast_curve(draw(s), separations_arcsec=separations).normality[0, 0] for s in range(20)
    ]
    assert np.median(gauss) > 0.1


def test_what_limits_cannot_promise_is_said(draw):
    curve = contrast_curve(draw(16), separations_arcsec=np.array([0.3, 2.4]))
    # The scatter of n - 1 values is known to 1 / sqrt(2 (n - 2)).
    assert curve.n_positions.tolist() == [12, 100]
    values = np.random.default_rng(1).normal(size=(20_000, 11)).std(axis=1, ddof=1)
    assert abs(values.std() - 0.22) < 0.01
    [few] = [text for text in curve.caveats if "positions" in text]
    assert few.startswith("Up to 0.30 arcsec fewer than 20")
    assert few.endswith("uncertain by up to 22 %.")
    assert not any("star" in text for text in curve.caveats)
    alone = replace(
        curve,
        settings=curve.settings | {"references": {"frames": 6, "stars": 2}},
        normality=np.array([[0.5, 1e-6]]),
    )
    [stars, _, loud] = ContrastCurve.from_table(alone.to_table()).caveats
    assert stars.startswith("The references are 6 of 2 stars")
    assert loud.startswith("At 2.40 arcsec the noise is not Gaussian")


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
        contrast_curve(observation, statistic=Statistic(fpf=0.7))
    nameless = make_observation("x", observation.exposures, SubtractRecipe(), psf=gaussian_psf)
    with pytest.raises(LyotError, match="Contrast needs the star's brightness"):
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
