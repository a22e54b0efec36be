"""The Gram matrix gives what a singular value decomposition of the pixels gives."""

import numpy as np
import pytest

from lyot.algorithms import klip


@pytest.fixture
def pixels(rng):
    common = rng.normal(size=(6, 500))
    refs = rng.normal(size=(12, 6)) @ common + 0.1 * rng.normal(size=(12, 500)) + 5.0
    targets = rng.normal(size=(3, 6)) @ common + 0.1 * rng.normal(size=(3, 500)) + 3.0
    return targets, refs, rng.uniform(0.2, 1.0, 500)


def products_of(targets, refs, weight):
    root = np.sqrt(weight)
    return klip.block_products(targets * root, refs * root, root)


def centered(rows, weight):
    return rows - (rows @ weight / weight.sum())[:, None]


@pytest.mark.parametrize("n_modes", [1, 5, 12, 50])
def test_residual_is_that_of_the_pixel_decomposition(pixels, n_modes):
    targets, refs, weight = pixels
    t, r = centered(targets, weight), centered(refs, weight)
    products = products_of(t, r, weight)
    modes = klip.decompose(products.gram)
    coefs = klip.coefficients(products.cross, klip.to_modes(modes), n_modes=n_modes)
    ours = klip.residual(t, r, coefs, np.zeros(3))
    _, _, basis = np.linalg.svd(r * np.sqrt(weight), full_matrices=False)
    basis = basis[:n_modes]
    theirs = t - ((t * np.sqrt(weight)) @ basis.T @ basis) / np.sqrt(weight)
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


def test_all_modes_are_least_squares(pixels):
    targets, refs, _ = pixels
    products = klip.block_products(targets, refs, np.ones(500))
    coefs = klip.coefficients(
        products.cross, klip.to_modes(klip.decompose(products.gram)), n_modes=99
    )
    expected, *_ = np.linalg.lstsq(refs.T, targets.T, rcond=None)
    np.testing.assert_allclose(coefs, expected.T, rtol=1e-7, atol=1e-9)


def test_modes_are_orthonormal_under_the_weight(pixels):
    _, refs, weight = pixels
    r = centered(refs, weight)
    z = klip.to_modes(klip.decompose(products_of(r, r, weight).gram)) @ r
    np.testing.assert_allclose((z * weight) @ z.T, np.eye(12), atol=1e-9)


def test_blocks_sum_to_the_whole(pixels):
    targets, refs, weight = pixels
    whole = products_of(targets, refs, weight)
    halves = [
        products_of(targets[:, s], refs[:, s], weight[s]) for s in (slice(0, 200), slice(200, 500))
    ]
    np.testing.assert_allclose(halves[0].gram + halves[1].gram, whole.gram, rtol=1e-12)
    np.testing.assert_allclose(halves[0].cross + halves[1].cross, whole.cross, rtol=1e-10)


def test_recentering_is_centering_the_pixels(pixels):
    targets, refs, weight = pixels
    t = centered(targets, weight)
    near = refs - refs[:, ::16].mean(axis=1, keepdims=True)
    products = products_of(t, near, weight)
    gram, rest = klip.recenter(products.gram, products.ref_sum, weight.sum())
    exact = products_of(t, centered(refs, weight), weight)
    np.testing.assert_allclose(gram, exact.gram, rtol=1e-10, atol=1e-9)
    np.testing.assert_allclose(products.cross, exact.cross, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(near - rest[:, None], centered(refs, weight), atol=1e-12)


def test_leaving_pixels_out_is_never_having_had_them(pixels, rng):
    _, refs, weight = pixels
    refs = refs + 1e4  # a pedestal, which must not cost the faint modes
    missing = np.flatnonzero(rng.random(500) < 0.1)
    left = np.setdiff1d(np.arange(500), missing)
    r = centered(refs, weight)
    gram = products_of(r, r, weight).gram
    ours, offset = klip.leave_out(gram, r[:, missing], weight[missing], weight[left].sum())
    direct = centered(refs[:, left], weight[left])
    np.testing.assert_allclose(ours, (direct * weight[left]) @ direct.T, rtol=1e-8, atol=1e-6)
    np.testing.assert_allclose(r[:, left] - offset[:, None], direct, atol=1e-8)


def test_repeated_references_are_dropped_not_amplified(pixels):
    _, refs, weight = pixels
    twice = centered(np.concatenate([refs, refs]), weight)
    modes = klip.decompose(products_of(twice, twice, weight).gram)
    assert modes.n_dropped == 12
    assert len(modes.values) == 12


def test_references_of_zeros_have_no_modes():
    modes = klip.decompose(np.zeros((4, 4)))
    assert len(modes.values) == 0
    assert klip.coefficients(np.ones((2, 4)), klip.to_modes(modes), n_modes=3).shape == (2, 4)


def test_zero_modes_subtract_nothing(pixels):
    targets, refs, weight = pixels
    products = products_of(targets, refs, weight)
    coefs = klip.coefficients(
        products.cross, klip.to_modes(klip.decompose(products.gram)), n_modes=0
    )
    np.testing.assert_array_equal(klip.residual(targets, refs, coefs, np.zeros(3)), targets)


def test_missing_target_pixels_stay_missing_and_do_not_spread(pixels):
    targets, refs, _ = pixels
    targets = targets.copy()
    targets[1, 7] = np.nan
    out = klip.residual(targets, refs, np.ones((3, 12)), np.zeros(3))
    assert np.isnan(out[1, 7])
    assert np.isnan(out).sum() == 1


def test_reference_scatter_is_that_of_their_residuals(pixels):
    _, refs, _ = pixels
    r = centered(refs, np.ones(500))
    modes = klip.decompose(r @ r.T)
    z = klip.to_modes(modes)[:4] @ r
    np.testing.assert_allclose(
        klip.reference_scatter(r, modes, n_modes=4), np.std(r - (r @ z.T) @ z, axis=0), atol=1e-9
    )


def test_runs_on_a_strict_array_library(pixels):
    strict = pytest.importorskip("array_api_strict")

    def solve(convert):
        t, r, w = (convert(a) for a in pixels)
        products = klip.block_products(t, r, w)
        modes = klip.decompose(products.gram)
        matrix = klip.to_modes(modes)
        coefs = klip.coefficients(products.cross, matrix, n_modes=5)
        left, _ = klip.leave_out(products.gram, r[:, :5], w[:5], 250.0)
        middle, _ = klip.recenter(products.gram, products.ref_sum, 250.0)
        return [
            middle,
            klip.residual(t, r, coefs, coefs[:, 0]),
            left,
            klip.reference_scatter(r, modes, n_modes=3),
        ]

    for a, b in zip(solve(strict.asarray), solve(np.asarray), strict=True):
        np.testing.assert_allclose(np.asarray(a), b, rtol=1e-9, atol=1e-9)


def test_the_mean_matrix_projects_on_the_mean_of_equal_references(sample):
    refs, target, gram, cross = sample
    mean = (refs / np.linalg.norm(refs, axis=1)[:, None]).mean(axis=0)
    expected = (target @ mean) / (mean @ mean) * mean
    coefs = klip.coefficients(cross[None], klip.mean_matrix(gram), n_modes=50)
    np.testing.assert_allclose((coefs @ refs)[0], expected, atol=1e-12)
