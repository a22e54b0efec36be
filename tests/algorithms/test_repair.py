"""Bad pixels and outliers, against NumPy's own medians and known mixtures."""

import numpy as np
import pytest
from scipy import ndimage

from lyot.algorithms import repair


def test_median_fill_is_the_median_of_good_neighbors(rng):
    image = rng.normal(size=(1, 20, 21))
    bad = rng.random(image.shape) < 0.1
    filled = repair.median_fill(np.where(bad, np.nan, image), bad, box=3)
    for _, y, x in np.argwhere(bad):
        near = np.s_[0, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        good = image[near][~bad[near]]
        if good.size:
            np.testing.assert_allclose(filled[0, y, x], np.median(good))
    np.testing.assert_array_equal(filled[~bad], image[~bad])


def test_median_fill_reaches_across_large_gaps():
    image = np.full((1, 30, 30), 4.0)
    bad = np.zeros(image.shape, bool)
    bad[0, 5:25, 5:25] = True
    np.testing.assert_array_equal(repair.median_fill(image, bad), 4.0)


def test_an_image_with_no_good_pixel_is_zero():
    assert not repair.median_fill(np.full((1, 4, 4), np.nan), np.ones((1, 4, 4), bool)).any()


def test_bad_pixels_are_predicted_from_the_other_frames(rng):
    """Frames that mix three patterns predict one another, though none is a multiple."""
    patterns = rng.normal(size=(3, 600)) * 10
    truth = rng.normal(size=(8, 3)) @ patterns + rng.uniform(5, 9, 8)[:, None]
    frames = truth + 0.1 * rng.normal(size=truth.shape)
    variance = np.full(frames.shape, 0.01)
    bad = np.zeros(frames.shape, bool)
    bad[2, 500:540] = True
    bad[:, 550] = True
    good = ~bad.any(axis=0)
    prediction = repair.fit_cross_prediction(frames[:, good], variance[:, good])
    filled, spread = repair.fill_from_others(
        np.where(bad, np.nan, frames), np.where(bad, np.nan, variance), bad, prediction
    )
    error = (filled - truth)[2, 500:540]
    assert np.abs(error).max() < 1.0
    assert 0.5 < np.std(error) / np.sqrt(spread[2, 500:540].mean()) < 1.2
    np.testing.assert_array_equal(filled[~bad], frames[~bad])
    assert np.isnan(filled[:, 550]).all()
    assert np.isnan(spread[:, 550]).all()


def test_blocks_of_pixels_give_the_prediction_of_all_at_once(rng):
    n, n_pix = 600, 4000  # several blocks
    latent = rng.normal(size=(3, n_pix))
    frames = (rng.uniform(0.5, 2.0, (n, 3)) @ latent + 0.1 * rng.normal(size=(n, n_pix))) * 7.0
    variance = rng.uniform(0.1, 0.2, frames.shape)
    got = repair.fit_cross_prediction(frames.astype(np.float32), variance.astype(np.float32))
    mean = frames.mean(axis=1, keepdims=True)
    precision = np.linalg.inv((frames - mean) @ (frames - mean).T + np.diag(variance.sum(axis=1)))
    matrix = -precision / np.diag(precision)[:, None]
    np.fill_diagonal(matrix, 0.0)
    residual = frames - mean - matrix @ (frames - mean)
    np.testing.assert_allclose(got.matrix, matrix, atol=1e-5 * np.abs(matrix).max())
    np.testing.assert_allclose(got.excess + 1, (residual**2 / variance).mean(axis=1), rtol=1e-4)
    common = frames.mean(axis=0)
    np.testing.assert_allclose(got.brightness, frames @ common / (common @ common), rtol=1e-5)


def test_multiples_of_one_frame_fill_one_another_exactly(rng):
    scale = np.array([1.0, 2.0, 4.0])
    frames = scale[:, None] * rng.uniform(1, 9, 50)
    bad = np.zeros(frames.shape, bool)
    bad[1, :5] = True
    zero = np.zeros(frames.shape)
    prediction = repair.fit_cross_prediction(frames[:, 5:], zero[:, 5:])
    filled, _ = repair.fill_from_others(np.where(bad, np.nan, frames), zero, bad, prediction)
    np.testing.assert_allclose(filled, frames, rtol=1e-6)


def test_outliers_are_flagged_and_speckles_are_not(rng):
    speckle = np.zeros((32, 32))
    speckle[10:13, 10:13] = 500.0
    cube = speckle + rng.normal(size=(6, 32, 32))
    cube[2, 20, 20] += 40.0
    flags = repair.outlier_flags(cube, np.ones(cube.shape), np.zeros(cube.shape, bool))
    assert flags[2, 20, 20]
    assert not flags[:, 10:13, 10:13].any()
    assert flags.sum() < 5


def test_a_speckle_that_drifts_is_no_outlier(rng):
    cube = rng.normal(size=(6, 32, 32))
    cube[:, 14:18, 14:18] += np.linspace(0, 60, 6)[:, None, None]
    flags = repair.outlier_flags(cube, np.ones(cube.shape), np.zeros(cube.shape, bool))
    assert not flags[:, 14:18, 14:18].any()


@pytest.mark.parametrize(
    ("n", "share"), [(2, 0.3), (3, 0.1), (7, 0.3), (10, 0.01), (40, 0.01), (41, 0)]
)
def test_the_median_of_what_is_known_is_that_of_numpy(rng, n, share):
    data = rng.normal(size=(n, 30, 31))
    data[rng.random(data.shape) < share] = np.nan
    data[:, 3, 3] = np.nan
    data[:, 0, 0] = 1.0
    known = np.isfinite(data).any(axis=0)
    found = repair.finite_median(data)
    np.testing.assert_allclose(found[known], np.nanmedian(data[:, known], axis=0))
    assert np.isnan(found[~known]).all()


def test_two_integrations_tell_no_outlier(rng):
    cube = rng.normal(size=(2, 8, 8))
    cube[0, 3, 3] = 1e4
    flags = repair.outlier_flags(cube, np.ones(cube.shape), np.zeros(cube.shape, bool))
    assert not flags.any()


@pytest.mark.parametrize("half_window", [1, 2])
@pytest.mark.parametrize("shape", [(40, 30), (7, 5), (1, 9), (3, 3)])
def test_the_median_of_neighbors_is_that_of_scipy(rng, shape, half_window):
    image = rng.normal(size=shape).astype(np.float32)
    wanted = ndimage.median_filter(image, size=2 * half_window + 1, mode="nearest")
    found = repair.median_of_neighbors(image, half_window=half_window)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_middle_is_the_median(rng, dtype):
    for n in range(1, 9):
        values = rng.normal(size=n).astype(dtype)
        assert repair.middle_of(values) == np.median(values)
    assert np.isnan(repair.middle_of(np.zeros(0)))
