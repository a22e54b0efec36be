"""Choices of references and methods of subtraction, each against the same done by hand."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import rotate

import scenes
from lyot.algorithms.geometry import TangentPlane, radius_map
from lyot.algorithms.zones import full_frame
from lyot.errors import LyotError
from lyot.files.aligned import ReferenceInfo
from lyot.files.star import StarPosition
from lyot.parameters import SubtractRecipe
from lyot.subtraction.disc import on_detector, subtract_constrained
from lyot.subtraction.subtract import subtract
from lyot.subtraction.zones import make_zones
from scenes import SCALE_ARCSEC as SCALE
from scenes import correlated_frames

SHAPE, STAR = (40, 42), StarPosition(20.2, 19.7)
N_INT, N_REF = 3, 9


def cube(sci, err=0.5, **facts):
    known = {"target": "STAR", "roll_ref_deg": 10.0, "mjd": 100.0}
    return scenes.cube(sci, err, **(known | facts))


def aligned(refs, err=0.3, ref_info=None):
    return scenes.aligned(refs, err, star=STAR, ref_info=ref_info)


def facts_of(rolls, mjd=None):
    targets = tuple("STAR" if r is not None else "REF" for r in rolls)
    turned = np.array([0.0 if r is None else r for r in rolls])
    return ReferenceInfo(targets, turned, np.zeros(len(rolls)) if mjd is None else np.asarray(mjd))


@pytest.fixture
def scene(rng):
    return correlated_frames(rng, SHAPE, N_INT, N_REF, n_patterns=5)


@pytest.mark.parametrize("select", ["correlation", "residual"])
@pytest.mark.parametrize("each", [False, True])
def test_what_is_chosen_is_subtracted_as_if_it_were_all(scene, select, each):
    targets, refs = scene
    targets[1, 5, 6] = np.nan
    recipe = SubtractRecipe(n_modes=(3,), select=select, n_refs=4, zones="annuli", n_annuli=2)
    zones = make_zones(recipe, SHAPE, TangentPlane.linear(STAR.yx, 0.0, SCALE))
    given = np.broadcast_to(refs, (N_INT, *refs.shape)) if each else refs
    [out] = subtract(cube(targets), aligned(given), zones, recipe)
    plain = replace(recipe, select="all", n_refs=0)
    different = set()
    for z, zone in enumerate(zones):
        for i in range(N_INT):
            chosen = np.flatnonzero(out.coefficients[z, i])
            assert len(chosen) == 4
            different.add(tuple(chosen))
            one = cube(targets[i : i + 1])
            [alone] = subtract(one, aligned(refs[chosen]), [zone], plain)
            inside = zone.share > 0
            np.testing.assert_allclose(out.sci[i][inside], alone.sci[0][inside], atol=1e-4)
            ratio = out.err[i][inside] / alone.err[0][inside]
            # The leverage of single pixels is that of the first integration.
            assert np.nanmax(np.abs(ratio - 1.0)) < 0.02
            assert np.nanmean(ratio) == pytest.approx(1.0, abs=1e-3)
            np.testing.assert_allclose(
                out.coefficients[z, i, chosen], alone.coefficients[0, 0], rtol=1e-6
            )
    assert len(different) > 1


def test_the_most_correlated_are_chosen(scene):
    targets, refs = scene
    recipe = SubtractRecipe(select="correlation", n_refs=2)
    [out] = subtract(cube(targets), aligned(refs), full_frame(SHAPE), recipe)
    for i in range(N_INT):
        corr = [np.corrcoef(targets[i].ravel(), r.ravel())[0, 1] for r in refs]
        assert set(np.flatnonzero(out.coefficients[0, i])) == set(np.argsort(corr)[-2:])


def test_uncorrelated_references_are_left_out(scene):
    targets, refs = scene
    recipe = SubtractRecipe(min_correlation=0.1)
    [out] = subtract(cube(targets), aligned(refs), full_frame(SHAPE), recipe)
    corr = [[np.corrcoef(t.ravel(), r.ravel())[0, 1] for r in refs] for t in targets]
    np.testing.assert_array_equal(out.coefficients[0] != 0, np.array(corr) >= 0.1)
    with pytest.raises(LyotError, match="No reference meets the choice for t_calints"):
        subtract(
            cube(targets), aligned(refs), full_frame(SHAPE), SubtractRecipe(min_correlation=0.999)
        )


def test_the_nearest_in_time_are_chosen(scene):
    targets, refs = scene
    mjd = [90, 99, 200, 101.5, 100.5, 300, 400, np.nan, 10]
    known = aligned(refs, ref_info=facts_of([None] * N_REF, mjd))
    recipe = SubtractRecipe(select="time", n_refs=3)
    [out] = subtract(cube(targets), known, full_frame(SHAPE), recipe)
    assert set(np.flatnonzero(out.coefficients[0, 0])) == {1, 3, 4}


def test_rolls_that_turn_too_little_are_left_out_where_they_do(scene):
    targets, refs = scene
    rolls = [None, None, None, None, 20.0, 20.0, 40.0, 40.0, 10.0]
    recipe = SubtractRecipe(n_modes=(9,), min_rotation_fwhm=1.0)
    target = cube(targets)
    [out] = subtract(target, aligned(refs, ref_info=facts_of(rolls)), full_frame(SHAPE), recipe)
    radius, fwhm = radius_map(SHAPE, STAR.yx), target.info.fwhm_pix
    far = {turn: 2 * radius * np.sin(np.radians(turn) / 2) / fwhm >= 1.0 for turn in (10, 30)}
    plain = replace(recipe, min_rotation_fwhm=0.0)
    cases = (
        (~far[30], [0, 1, 2, 3]),
        (far[30] & ~far[10], [0, 1, 2, 3, 6, 7]),
        (far[10], [0, 1, 2, 3, 4, 5, 6, 7]),
    )
    for where, allowed in cases:
        assert where.any()
        [alone] = subtract(target, aligned(refs[allowed]), full_frame(SHAPE), plain)
        np.testing.assert_allclose(out.sci[:, where], alone.sci[:, where], atol=1e-4)
        np.testing.assert_allclose(out.err[:, where], alone.err[:, where], rtol=1e-4)


def test_where_no_roll_turns_enough_there_is_nothing(scene, caplog):
    targets, refs = scene
    recipe = SubtractRecipe(n_modes=(9,), min_rotation_fwhm=0.5)
    target = cube(targets)
    [out] = subtract(
        target, aligned(refs, ref_info=facts_of([20.0] * N_REF)), full_frame(SHAPE), recipe
    )
    moved = 2 * radius_map(SHAPE, STAR.yx) * np.sin(np.radians(5.0)) / target.info.fwhm_pix
    np.testing.assert_array_equal(np.isnan(out.sci[0]), moved < 0.5)
    np.testing.assert_array_equal(np.isnan(out.err[0]), moved < 0.5)
    assert "No roll turns a source by 0.5 FWHM" in caplog.text
    with pytest.raises(LyotError, match="min_rotation_fwhm needs references with recorded targets"):
        subtract(target, aligned(refs), full_frame(SHAPE), recipe)


def test_the_scaled_mean_by_hand(scene):
    targets, refs = scene
    [out] = subtract(cube(targets), aligned(refs), full_frame(SHAPE), SubtractRecipe(method="mean"))
    flat = refs.reshape(N_REF, -1).astype(np.float32).astype(float)
    flat = flat - flat.mean(axis=1, keepdims=True)
    mean = (flat / np.linalg.norm(flat, axis=1)[:, None]).mean(axis=0)
    for image, left in zip(targets, out.sci, strict=True):
        t = image.ravel() - image.mean(dtype=float)
        expected = t - (t @ mean) / (mean @ mean) * mean
        np.testing.assert_allclose(left.ravel(), expected, atol=1e-4)


def test_the_scaled_median_by_hand(scene):
    targets, refs = scene
    recipe = SubtractRecipe(method="median")
    [out] = subtract(cube(targets), aligned(refs), full_frame(SHAPE), recipe)
    flat = refs.reshape(N_REF, -1).astype(np.float32).astype(float)
    flat = flat - flat.mean(axis=1, keepdims=True)
    median = np.median(flat / flat.std(axis=1)[:, None], axis=0)
    median -= median.mean()
    for image, left in zip(targets, out.sci, strict=True):
        t = image.ravel() - image.mean(dtype=float)
        expected = t - (t @ median) / (median @ median) * median
        np.testing.assert_allclose(left.ravel(), expected, atol=1e-4)


METHODS = {
    "mean": SubtractRecipe(method="mean"),
    "median": SubtractRecipe(method="median"),
    "imputation": SubtractRecipe(n_modes=(3,), method="imputation", fit_inner_arcsec=0.5),
    "nmf": SubtractRecipe(n_modes=(3,), method="nmf"),
    "correlation": SubtractRecipe(n_modes=(3,), select="correlation", n_refs=5),
}


@pytest.mark.parametrize("method", METHODS)
def test_errors_are_those_of_noise_draws(method, rng):
    patterns = rng.uniform(0, 20, size=(3, *SHAPE))
    clean_refs = np.tensordot(rng.uniform(0.3, 1.0, size=(N_REF, 3)), patterns, 1)
    clean = np.tensordot(rng.uniform(0.3, 1.0, size=(1, 3)), patterns, 1)
    recipe = METHODS[method]
    zones = make_zones(recipe, SHAPE, TangentPlane.linear(STAR.yx, 0.0, SCALE))
    left, err = [], []
    for _ in range(120):
        target = cube(clean + 0.6 * rng.normal(size=clean.shape), 0.6)
        noisy = clean_refs + 0.8 * rng.normal(size=clean_refs.shape)
        [out] = subtract(target, aligned(noisy, 0.8), zones, recipe)
        left.append(out.sci[0])
        err.append(out.err[0])
    scatter, stated = np.std(left, axis=0), np.sqrt(np.mean(np.square(err), axis=0))
    ratio = np.sqrt(np.mean(scatter**2) / np.mean(stated**2))
    within = 0.06 if method == "median" else 0.03
    assert 1.0 - within < ratio < 1.0 + within


def disc_scene(rng, n_ref=14):
    """Positive speckles that change, and an inclined ring that the references lack."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    r = np.hypot(y - STAR.y, x - STAR.x)
    halo = 200.0 * np.exp(-r / 5.0)
    patterns = halo * rng.uniform(0.0, 1.0, size=(4, *SHAPE))
    refs = np.tensordot(rng.uniform(0.5, 1.5, size=(n_ref, 4)), patterns, 1)
    targets = np.tensordot(rng.uniform(0.5, 1.5, size=(N_INT, 4)), patterns, 1)
    radius = np.hypot((y - STAR.y) / 0.5, x - STAR.x)
    disc = 25.0 * np.exp(-0.5 * ((radius - 11.0) / 1.5) ** 2)
    noise = rng.normal(size=(2, max(n_ref, N_INT), *SHAPE)) * 0.3
    return targets + noise[0, :N_INT], refs + noise[1, :n_ref], disc


def kept(run, targets, disc):
    """Fraction of a disc that a subtraction keeps, from the same frames with and without it."""
    with_it, without = (run(cube(t)).sci.mean(axis=0) for t in (targets + disc, targets))
    on = disc > 0.2 * disc.max()
    return float((with_it - without)[on].sum() / disc[on].sum())


def test_variants_for_discs_keep_more_of_a_disc(rng):
    targets, refs, disc = disc_scene(rng)
    outside = (disc < 0.02 * disc.max()).astype(float)

    def run(recipe, weight=None):
        zones = make_zones(
            recipe, SHAPE, TangentPlane.linear(STAR.yx, 0.0, SCALE), fit_weight=weight
        )
        return lambda target: subtract(target, aligned(refs), zones, recipe)[0]

    plain = SubtractRecipe(n_modes=(12,), level_inner_arcsec=1.2)
    klip = kept(run(plain), targets, disc)
    imputed = kept(run(replace(plain, method="imputation"), outside), targets, disc)
    negative = kept(run(replace(plain, method="nmf", n_modes=(4,)), outside), targets, disc)

    def constrained(target):
        counts = np.ones(SHAPE, bool)
        made = subtract_constrained(lambda t: [run(plain)(t)], target, 0.37 * disc, counts)
        constrained.scale = made.scale
        return made.results[0]

    model = kept(constrained, targets, disc)
    assert klip < 0.9
    assert imputed == pytest.approx(1.0, abs=0.02)
    assert negative == pytest.approx(1.0, abs=0.05)
    assert model == pytest.approx(1.0, abs=0.02)


def test_a_model_of_the_disc_is_scaled_to_the_data(rng):
    targets, refs, disc = disc_scene(rng)
    recipe = SubtractRecipe(n_modes=(6,), level_inner_arcsec=0.0)

    def run(target):
        return subtract(target, aligned(refs), full_frame(SHAPE), recipe)

    everywhere = np.ones(SHAPE, bool)
    fitted, made, scale = subtract_constrained(run, cube(targets + disc), 0.4 * disc, everywhere)
    assert scale == pytest.approx(2.5, rel=0.02)
    # Exactly: the subtraction of the rest, with the model put back.
    [rest] = run(cube(targets + disc - scale * 0.4 * disc))
    np.testing.assert_allclose(fitted[0].sci, rest.sci, atol=1e-3)
    np.testing.assert_allclose(made[0].sci, rest.sci + scale * 0.4 * disc, atol=1e-3)
    with pytest.raises(LyotError, match="is zero on the pixels of the fit"):
        subtract_constrained(run, cube(targets), 0.0 * disc, everywhere)
    with pytest.raises(LyotError, match=r"model of the disc is \(5, 5\) pixels"):
        subtract_constrained(run, cube(targets), np.ones((5, 5)), everywhere)


def test_an_image_of_the_sky_is_turned_as_sources_are():
    sky = np.zeros((61, 61))
    y, x = np.mgrid[:61, :61]
    separation, pa, roll = 12.0, 70.0, 33.0
    # North up, east to the left.
    north, east = separation * np.cos(np.radians(pa)), separation * np.sin(np.radians(pa))
    sky += np.exp(-0.5 * ((y - 30 - north) ** 2 + (x - 30 + east) ** 2) / 1.5**2)
    found = on_detector(sky, TangentPlane.linear(STAR.yx, roll, SCALE), SCALE, np.indices(SHAPE))
    angle = np.radians(pa - roll)
    dy, dx = separation * np.cos(angle), -separation * np.sin(angle)
    weight = found / found.sum()
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    assert (weight * rows).sum() == pytest.approx(STAR.y + dy, abs=0.02)
    assert (weight * columns).sum() == pytest.approx(STAR.x + dx, abs=0.02)
    # Against an independent rotation about the middle pixel.
    middle = TangentPlane.linear((30.0, 30.0), roll, SCALE)
    turned = rotate(sky, roll, reshape=False, order=3)
    np.testing.assert_allclose(
        on_detector(sky, middle, SCALE, np.indices((61, 61))), turned, atol=0.01
    )


def test_a_disc_that_is_no_image_is_refused():
    plane = TangentPlane.linear(STAR.yx, 0.0, SCALE)
    with pytest.raises(LyotError, match="has 3 axes; give an image"):
        on_detector(np.ones((2, *SHAPE)), plane, SCALE, np.indices(SHAPE))
