"""The scatter of the blank sky against ERR; noise of rows."""

import numpy as np
import pytest

from lyot.subtraction.result import row_noise, sky_noise

SHAPE = (180, 180)


def separation(scale=0.1):
    y, x = np.indices(SHAPE)
    return np.hypot(y - 90.0, x - 90.0) * scale


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.7])
def test_the_ratio_is_that_of_scatter_and_err_whatever_shines_there(rng, factor):
    y, x = np.indices(SHAPE)
    variance = 2.0 + 0.01 * x
    image = factor * np.sqrt(variance) * rng.normal(size=SHAPE)
    image += 0.02 * y - 3.0  # a gradient, and a level
    image[np.hypot(y - 150.0, x - 30.0) < 6.0] += 500.0  # a galaxy
    image[rng.uniform(size=SHAPE) < 0.02] = np.nan
    image[separation() < 4.0] *= 40.0  # speckles
    found = sky_noise(image, variance, separation())
    assert found.ratio == pytest.approx(factor, rel=0.03)
    assert bool(found.warning("a.fits")) == (factor != 1.0)
    assert str(found) == f"{found.ratio:.2f}"


def test_a_frame_without_blank_sky_says_so_and_changes_nothing(rng):
    found = sky_noise(rng.normal(size=SHAPE), np.ones(SHAPE), separation(0.03))
    assert str(found) == "no blank sky beyond 5 arcsec"
    assert (found.factor, found.warning("a.fits")) == (1.0, "")


@pytest.mark.parametrize("fast_axis", [1, 2])
def test_noise_of_rows_is_told_from_that_of_columns(rng, fast_axis):
    image = rng.normal(size=SHAPE) + 0.02 * np.arange(180)
    noisy = rng.normal(0.0, 0.4, 180)
    image += noisy[:, None] if fast_axis == 1 else noisy
    found = row_noise(image, separation(), fast_axis)
    assert found.rows == pytest.approx(0.4, rel=0.2)
    assert found.columns < 0.1
    assert np.isnan(row_noise(image, separation(0.03), fast_axis).rows)
