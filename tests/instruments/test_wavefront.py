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
    [("MASK210R", "F210M", 0.03), ("MASK335R", "F335M", 0.015), ("MASKLWB", "F444W", 0.015)],
)
def test_the_mean_image_is_that_of_the_draws(mask, band, limit):
    """The structure function stands for the draws, as far as a matched filter is concerned."""
    optics = flight_optics(mask, band, n_wavelengths=3)

    def image(seed):
        made = replace(optics, seed=seed).psf((0.0, 0.0), n_pixels=41, with_mask=False)
        return made.image

    mean, draws = image(None), np.array([image(seed) for seed in range(24)])
    flux = [np.sum(draw * mean) / np.sum(mean**2) for draw in draws]
    assert np.mean(flux) == pytest.approx(1.0, abs=limit)
    assert np.std(flux) < 0.06
    y, x = np.indices(mean.shape) - 20
    near = np.hypot(x, y) < 15
    average = draws.mean(axis=0)
    assert average[20, 20] == pytest.approx(mean[20, 20], rel=2.0 * limit)
    assert average[near].sum() == pytest.approx(mean[near].sum(), rel=0.02)
