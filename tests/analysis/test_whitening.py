"""Filters for correlated noise, against what the known covariance says."""

from dataclasses import replace

import numpy as np
from scipy import ndimage

from lyot.analysis.photometry import FluxMaps
from lyot.analysis.whitening import by_length, inverse_covariances, lag_products, node_radii


def test_autocovariance_of_filtered_white_noise_is_that_of_the_filter():
    rng = np.random.default_rng(1)
    kernel = np.array([[0, 1, 0], [1, 2, 1], [0, 1, 0]]) / 3.0
    data = ndimage.convolve(rng.normal(size=(300, 280)), kernel, mode="wrap")
    keep = rng.random(data.shape) < 0.8
    lag, curve = by_length(*lag_products(np.where(keep, data, 0.0), keep, 4))
    # Products of the kernel with itself, moved by 0, 1, sqrt(2) and 2 or sqrt(5) pixels, and by 3.
    for length, expected in ((0.0, 8 / 9), (1.0, 4 / 9), (1.5, 2 / 9), (2.0, 1 / 27), (3.0, 0.0)):
        assert abs(curve[lag == length][0] - expected) < 0.02


def test_filters_are_nearly_the_best_for_correlated_noise_and_take_no_level(draw):
    smooth, loud = 3.0, draw(31, smooth=3.0)
    at = np.full(700, 25.0), np.arange(700) * 0.51
    scatter = {m: FluxMaps(loud, m).sample(*at)[0].std() for m in ("whitened", "matched")}
    # The scene's covariance: white noise of three integrations, and what is common to them.
    image = loud.psf.stamp(0.0, 0.0)[8:17, 8:17]
    y, x = (part.ravel() for part in np.mgrid[:9, :9])
    distance = np.hypot(y[:, None] - y, x[:, None] - x)
    covariance = np.eye(81) / 3.0 + np.exp(-((distance / (2.0 * smooth)) ** 2))
    best = 1.0 / np.sqrt(image.ravel() @ np.linalg.solve(covariance, image.ravel()) * 2.0)
    assert scatter["whitened"] < 1.15 * best
    assert scatter["matched"] > 1.5 * best
    nodes = node_radii(loud.fwhm_pix, loud.reach_pix)
    inverse = inverse_covariances(loud.exposures[0], nodes, 4, loud.fwhm_pix)
    for q in (inverse @ image.ravel())[:, 0]:
        assert abs(q.sum()) < 0.02 * np.abs(q).sum()


def test_white_noise_gives_the_psf_less_its_level(draw):
    [exposure, _] = (made := draw(32)).exposures
    image = made.psf.stamp(0.0, 0.0)[8:17, 8:17]
    inverse = inverse_covariances(exposure, np.array([30.0]), 4, made.fwhm_pix)
    q = (inverse[0, 0] @ image.ravel()).reshape(image.shape)
    assert np.corrcoef(q.ravel(), (image - image.mean()).ravel())[0, 1] > 0.99


def test_noise_with_a_direction_is_told_from_noise_without(draw):
    # Every pixel is the mean of five along a row: neighbors along a column are independent.
    made, rng = draw(33), np.random.default_rng(4)
    striped = [
        replace(e, residual=ndimage.uniform_filter1d(rng.normal(size=e.residual.shape), 5, axis=2))
        for e in made.exposures
    ]
    at = np.full(700, 25.0), np.arange(700) * 0.51
    scatter = FluxMaps(replace(made, exposures=striped)).sample(*at)[0].std() * np.sqrt(2.0)
    image = made.psf.stamp(0.0, 0.0)[8:17, 8:17].ravel()
    y, x = (part.ravel() for part in np.mgrid[:9, :9])
    dy, dx = np.abs(y[:, None] - y), np.abs(x[:, None] - x)
    covariance = np.where(dy == 0, np.maximum(5 - dx, 0) / 25.0, 0.0)
    # What the best filter would have that knows how far two pixels are apart, not in which way.
    away = np.rint(2.0 * np.hypot(dy, dx)).astype(int)
    mean = np.bincount(away.ravel(), covariance.ravel()) / np.maximum(np.bincount(away.ravel()), 1)
    q = np.linalg.solve(mean[away] + 0.02 * mean[0] * np.eye(81), image)
    without = np.sqrt(q @ covariance @ q) / (q @ image)
    assert scatter < 0.95 * without
