"""The background of exposures: dedicated exposures, scaled, and surfaces; its error is in ERR."""

import numpy as np
import pytest

from lyot.algorithms.zones import full_frame
from lyot.errors import LyotError
from lyot.parameters import BackgroundRecipe, SubtractRecipe
from lyot.references.background import background_of, subtract_background
from lyot.subtraction.subtract import subtract
from scenes import aligned, cube, gaussian

SHAPE = (100, 102)
MIRI = {
    "instrument": "MIRI",
    "detector": "MIRIMAGE",
    "filter": "F1140C",
    "coronagraph": "4QPM_1140",
    "pixel_area_sr": 2.86e-13,
    "crpix_xy": (50.0, 49.0),
}
STAR = 400.0 * gaussian(SHAPE, (49.0, 50.0), 9.0)


@pytest.fixture
def sky(rng):
    """The light of the sky: vignetted, with the structure of pixels, and a stripe along a mask."""
    y, x = np.indices(SHAPE)
    smooth = 20.0 - ((x - 50.0) / 40.0) ** 2
    tilt = np.radians(-4.8)
    across = np.cos(tilt) * (y - 49.0) - np.sin(tilt) * (x - 50.0)
    stripe = 2.0 * np.exp(-0.5 * (across / 1.5) ** 2)
    return smooth + stripe + rng.normal(0, 0.5, SHAPE)


def taken(sky, rng, scale=1.0, level=0.0, star=0.0, err=0.1, n=1):
    frames = scale * sky + level + star + rng.normal(0, err, (n, *SHAPE))
    return cube(frames, err=err, **MIRI)


def test_a_raw_exposure_loses_the_whole_background(sky, rng):
    recipe = BackgroundRecipe()
    made = background_of([taken(sky, rng), taken(sky, rng, level=0.2)], recipe)
    np.testing.assert_allclose(made.parts.sum(axis=0), sky + 0.1, atol=0.4)
    science = taken(sky, rng, scale=1.0, level=0.7, star=STAR, n=2)
    done, record = subtract_background(science, made, recipe)
    np.testing.assert_allclose(record["scale"], 1.0, atol=0.07)
    left = done.sci - STAR
    assert np.std(left) < 1.35 * np.hypot(0.1, 0.1 / np.sqrt(2))
    assert abs(np.mean(left)) < 0.03
    np.testing.assert_array_equal(science.sci[0], science.sci[0])


def test_the_error_of_the_background_is_in_err(sky, rng):
    recipe = BackgroundRecipe(scale=1.0)
    background = background_of([taken(sky, rng, err=0.3)], recipe)
    draws = [
        subtract_background(
            taken(sky, rng), background_of([taken(sky, rng, err=0.3)], recipe), recipe
        )[0]
        for _ in range(60)
    ]
    scatter = np.std([each.sci[0] for each in draws], axis=0)
    assert np.median(scatter / draws[0].err[0]) == pytest.approx(1.0, abs=0.05)
    done, _ = subtract_background(taken(sky, rng), background, recipe)
    np.testing.assert_allclose(done.err, np.hypot(0.1, 0.3), rtol=1e-5)


def test_a_background_that_was_subtracted_before_adds_no_noise(sky, rng):
    """Its noise is in the exposure already, with the other sign; traces of its light may be."""
    recipe = BackgroundRecipe()
    before = taken(sky, rng, err=0.3)
    science = taken(sky, rng, star=STAR)
    science = cube(science.sci - 0.7 * before.sci, err=0.3, **MIRI)
    done, record = subtract_background(science, background_of([before], recipe), recipe)
    assert record["scale"][0, 0] == 0.0
    # The smooth part and the stripe go all the same.
    left = done.sci[0] - STAR
    stripe, there = (f[49:56, :20].mean() - f[60:80, :20].mean() for f in (left, science.sci[0]))
    assert there > 0.25
    assert abs(stripe) < 0.5 * there
    assert np.std(left) < 1.02 * np.std(science.sci[0] - STAR)


def test_a_surface_alone_leaves_stars_and_companions_as_they_are(rng):
    y, x = np.indices(SHAPE)
    planet = 3.0 * gaussian(SHAPE, (80.0, 20.0), 4.0)
    frame = 5.0 + 0.02 * x - 0.01 * y + STAR + planet + rng.normal(0, 0.1, SHAPE)
    done, record = subtract_background(
        cube(frame[None], err=0.1, **MIRI), None, BackgroundRecipe(surface="plane")
    )
    assert record["names"] == []
    left = done.sci[0] - STAR - planet
    assert np.abs(left.reshape(10, 10, 102).mean(axis=(1, 2))).max() < 0.02
    np.testing.assert_allclose(done.err, 0.1, rtol=1e-6)


def test_nothing_is_done_unless_there_is_a_background_or_a_surface(rng):
    given = cube(rng.normal(size=(1, *SHAPE)), **MIRI)
    assert subtract_background(given, None, BackgroundRecipe()) == (given, {})
    background = background_of([given], BackgroundRecipe())
    assert subtract_background(given, background, BackgroundRecipe(skip=True)) == (given, {})


def test_flagged_boundaries_of_a_mask_are_known_from_their_values(sky, rng):
    dq = np.zeros((1, *SHAPE), np.uint32)
    dq[:, :, 50] = 1
    exposure = taken(sky, rng)
    exposure.dq[:] = dq
    exposure.sci[0, 10, 50] = 1e4  # a hot pixel there is no background
    made = background_of([exposure], BackgroundRecipe())
    assert np.argwhere(made.missing).tolist() == [[10, 50]]
    assert abs(made.parts[:, 10, 50].sum() - sky[10, 50]) < 3.0
    assert made.variance[10, 50] > 10 * made.variance[11, 50]


def test_backgrounds_that_do_not_fit_are_refused(sky, rng):
    small = cube(sky[None, :90], **MIRI)
    made = background_of([taken(sky, rng)], BackgroundRecipe())
    with pytest.raises(LyotError, match="leave them out, or cut both alike"):
        subtract_background(small, made, BackgroundRecipe())
    with pytest.raises(LyotError, match="too few for its background; lower it"):
        subtract_background(taken(sky, rng), made, BackgroundRecipe(inner_arcsec=50.0))


def test_what_integrations_share_of_a_background_does_not_average_down(sky, rng):
    """The variance of the mean of many integrations is that of the one background, by trial."""
    recipe, n = BackgroundRecipe(scale=1.0), 16
    means, stated = [], []
    for _ in range(30):
        made = background_of([taken(sky, rng, err=0.3)], recipe)
        done, record = subtract_background(taken(sky, rng, n=n), made, recipe)
        assert record["shared_variance"].shape == SHAPE
        # No star: subtracted from a reference of which the fit takes nothing.
        nothing = aligned(np.full((1, *SHAPE), 1e-9) * (1 + np.arange(SHAPE[1])), err=1e-12)
        [result] = subtract(done, nothing, full_frame(SHAPE), SubtractRecipe(n_modes=(0,)))
        mean, variance = result.mean()
        means.append(mean - mean.mean())
        stated.append(np.median(variance))
    scatter = np.var(means, axis=0)
    stripe = np.median(np.sqrt(scatter)), np.sqrt(np.median(stated))
    assert stripe[1] == pytest.approx(stripe[0], rel=0.15)
    # Taken as independent, it would be four times too small.
    assert stripe[1] > 2.0 * np.median(done.err) / np.sqrt(n)
