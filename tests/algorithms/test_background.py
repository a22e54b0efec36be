"""Backgrounds: sources in them are left out, terms are fitted beside stars; levels of rows."""

import numpy as np

from lyot.algorithms.background import (
    combine_backgrounds,
    fit_terms,
    level_beside,
    row_levels,
    surface_terms,
)
from scenes import gaussian

SHAPE = (60, 64)


def test_surfaces_hold_all_polynomials_of_their_order():
    y, x = np.meshgrid(np.linspace(-1, 1, 60), np.linspace(-1, 1, 64), indexing="ij")
    image = 3.0 - 2.0 * x + y + 0.5 * x * y - x**2
    for order, n in ((-1, 0), (0, 1), (1, 3), (2, 6)):
        terms = surface_terms(SHAPE, order=order)
        assert terms.shape == (n, *SHAPE)
    fitted = fit_terms(image, terms, np.ones(SHAPE, bool))
    np.testing.assert_allclose(np.tensordot(fitted.coefficients, terms, 1), image, atol=1e-9)


def test_stars_do_not_count_in_a_fit(rng):
    terms = np.array([rng.normal(size=SHAPE), np.ones(SHAPE)])
    noise = rng.normal(0, 0.1, SHAPE)
    image = 0.7 * terms[0] - 4.0 + noise
    for at in rng.uniform(5, 55, (12, 2)):
        image += 50.0 * gaussian(SHAPE, at, 3.0)
    fitted = fit_terms(image, terms, np.ones(SHAPE, bool))
    error = 0.1 / np.sqrt(fitted.n_pixels)
    np.testing.assert_allclose(fitted.coefficients, (0.7, -4.0), atol=10 * error)
    assert 0.08 < fitted.scatter < 0.12


def test_a_source_in_one_background_is_taken_from_the_others(rng):
    common = 14.0 + rng.normal(size=SHAPE)
    frames = common + rng.normal(0, 0.2, (3, *SHAPE))
    frames += np.array([0.0, 0.3, -0.1])[:, None, None]  # the sky changes a little
    frames[1] += 5.0 * gaussian(SHAPE, (20.0, 30.0), 4.0)
    bad = np.zeros(frames.shape, bool)
    bad[:, 7, 8] = True
    bad[0, 9, 9] = True
    frames[:, 7, 8] = frames[0, 9, 9] = np.nan
    made = combine_backgrounds(frames, np.full(frames.shape, 0.04), bad, smoothing_pix=1.0)
    assert np.argwhere(np.isnan(made.mean)).tolist() == [[7, 8]]
    off = made.mean - common
    off -= np.nanmedian(off)
    assert abs(off[20, 30]) < 0.6  # a third of 5 would be left by a mean
    assert np.nanstd(off) < 0.2 / np.sqrt(3) * 1.1
    np.testing.assert_allclose(made.variance[50, 50], 0.04 / 3)
    np.testing.assert_allclose(made.variance[20, 30], 0.04 / 2)
    np.testing.assert_allclose(made.variance[9, 9], 0.04 / 2)


def test_what_lies_beside_is_continued(rng):
    image = np.full(SHAPE, 2.0)
    beside = np.ones(SHAPE, bool)
    beside[:, 30:36] = False
    image[:, 30:36] = rng.normal(size=(60, 6))
    np.testing.assert_allclose(level_beside(image, beside, smoothing_pix=3.0), 2.0)


def test_levels_of_rows_are_found_beside_sources_and_a_gradient(rng):
    shape = (120, 160)
    y, x = np.indices(shape)
    truth = rng.normal(0.0, 0.5, 120)
    image = rng.normal(size=shape) + truth[:, None] + 0.05 * y + 0.01 * x
    image[40:60, 70:110] += 30.0 / (1.0 + np.hypot(y - 50, x - 90)[40:60, 70:110])
    good = (np.hypot(y - 60, x - 80) > 20) & (rng.uniform(size=shape) > 0.03)
    image[~good] = np.nan
    rows = row_levels(image, good)
    # What the rows about a row have in common, here 15 of them, is no noise of the row.
    middle = np.array([np.median(truth[max(k - 7, 0) : k + 8]) for k in range(120)])
    pull = (rows.level - (truth - middle)) / rows.err
    assert 0.5 < np.std(pull) < 2.0
    assert rows.scatter == np.clip(rows.scatter, 0.35, 0.65)


def test_rows_with_too_few_pixels_stay_as_they_are(rng):
    good = np.zeros(SHAPE, bool)
    good[20:, :30] = True
    rows = row_levels(rng.normal(size=SHAPE), good)
    assert not rows.level[:20].any()
    assert np.isfinite(rows.scatter)
    assert np.isnan(row_levels(np.ones(SHAPE), good & False).scatter)
