"""Draws of wavefront errors: their size, what they leave in place, and what they do on average."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lyot
from lyot.errors import LyotError
from lyot.instruments.pupil import FLIGHT_PUPIL
from lyot.instruments.stops import ROUND_MASK_STOP
from lyot.instruments.wavefront import (
    FIRST_DATA_SEED,
    MODEL_SEEDS,
    PSF_SEEDS,
    TRIAL_SEEDS,
    WavefrontBudget,
    data_seed,
    draw_wavefront,
    mean_transfer,
)
from scenes import flight_optics

BUDGET = WavefrontBudget(telescope_m=67e-9, instrument_m=155e-9)
N = 96


@pytest.mark.parametrize("seed", [1, 2])
def test_a_draw_has_the_stated_size_and_moves_no_image(seed):
    open_part, stop = FLIGHT_PUPIL.amplitude(N), ROUND_MASK_STOP.amplitude(FLIGHT_PUPIL, N)
    draws = draw_wavefront(BUDGET, N, seed=seed, stop=stop)
    y, x = np.mgrid[-1 : 1 : N * 1j, -1 : 1 : N * 1j]
    through = (open_part * stop).ravel()
    for draw, rms in zip(draws, (67e-9, 155e-9), strict=True):
        root = np.sqrt(open_part).ravel()
        plane = np.stack([np.ones_like(x), x, y]).reshape(3, -1).T * root[:, None]
        [squares] = np.linalg.lstsq(plane, draw.ravel() * root, rcond=None)[1]
        assert np.sqrt(squares / open_part.sum()) == pytest.approx(rms)
        for term in (np.ones_like(x), x, y):
            assert abs(np.sum(through * (draw * term).ravel())) < 1e-9 * rms * through.sum()


def test_draws_of_other_seeds_are_other_errors():
    first, second = (draw_wavefront(BUDGET, N, seed=seed)[0] for seed in (3, 4))
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.8


def test_the_same_seed_is_the_same_error_at_another_sampling():
    coarse, fine = (draw_wavefront(BUDGET, n, seed=3)[1] for n in (N, 2 * N))
    binned = fine.reshape(N, 2, N, 2).mean(axis=(1, 3))
    weight = FLIGHT_PUPIL.amplitude(N)
    assert np.sqrt(np.average((binned - coarse) ** 2, weights=weight)) < 0.02 * BUDGET.instrument_m


def test_data_are_never_made_with_a_draw_that_measures_them():
    measuring = {*MODEL_SEEDS, *TRIAL_SEEDS, *PSF_SEEDS}
    assert not measuring & {data_seed(seed) for seed in (0, 1, 10**6)}
    assert max(measuring) < FIRST_DATA_SEED == data_seed(0)
    with pytest.raises(LyotError, match="seed is -9990; it must be 0 or more"):
        data_seed(-9990)
    # No other file of the package names draws.
    package = Path(lyot.__file__).parent
    named = [p.name for p in package.rglob("*.py") if "_SEEDS = " in p.read_text()]
    assert named == ["wavefront.py"]


@pytest.mark.parametrize(
    ("mask", "band", "limit"),
    [("MASK210R", "F210M", 0.01), ("MASK335R", "F335M", 0.005), ("MASKLWB", "F444W", 0.005)],
)
def test_the_mean_image_is_that_of_the_draws(mask, band, limit):
    """A filter with the mean finds the flux of draws whose position is free, on average."""
    optics = replace(flight_optics(mask, band, n_wavelengths=3), n_pupil=96)
    at = {"n_pixels": 31, "with_mask": False}
    mean, left, up = (
        optics.psf((0.0, 0.0), fraction_xy=f, **at).image for f in ((0, 0), (0.1, 0), (0, 0.1))
    )
    draws = np.array(
        [replace(optics, seed=seed).psf((0.0, 0.0), **at).image for seed in range(3000, 3096)]
    )
    y, x = np.indices(mean.shape) - 15
    for radius in (3, 8, 15):
        near = np.hypot(x, y) < radius
        design = np.array([i[near] for i in (mean, left - mean, up - mean)]).T
        flux = np.linalg.lstsq(design, draws[:, near].T, rcond=None)[0][0]
        assert np.mean(flux) == pytest.approx(1.0, abs=limit)
        assert np.std(flux) < 0.06
    average = draws.mean(axis=0)
    assert average[15, 15] == pytest.approx(mean[15, 15], rel=2.0 * limit)
    assert np.abs(average - mean).max() < 0.015 * mean.max()
    assert average.sum() == pytest.approx(mean.sum(), rel=5e-3)


def test_the_mean_transfer_function_is_that_of_pairs_of_plain_draws():
    """The mean of ``exp(i (p - q))`` over pairs of places, at three separations."""
    wavelength, n = 2.0e-6, 48
    mean, step = mean_transfer(BUDGET, FLIGHT_PUPIL, ROUND_MASK_STOP, wavelength)
    stop = ROUND_MASK_STOP.amplitude(FLIGHT_PUPIL, n)
    passed = FLIGHT_PUPIL.amplitude(n) * stop
    assert step == pytest.approx(FLIGHT_PUPIL.width_m / n)
    assert mean[n, n] == 1.0
    totals = np.zeros((2, 3))
    for seed in range(4000, 4200):
        error = sum(draw_wavefront(BUDGET, n, seed=seed, stop=stop))
        wave = passed * np.exp(2j * np.pi * error / wavelength)
        for i, (dy, dx) in enumerate(((0, 3), (4, 0), (9, 2))):
            pair = np.s_[dy:, dx:], np.s_[: n - dy, : n - dx]
            totals[0, i] += np.sum(wave[pair[0]] * wave[pair[1]].conj()).real
            totals[1, i] += np.sum(passed[pair[0]] * passed[pair[1]])
    found = [mean[n + 0, n + 3], mean[n + 4, n], mean[n + 9, n + 2]]
    np.testing.assert_allclose(found, totals[0] / totals[1], atol=0.015)
    assert min(found) < 0.9 < max(found)
