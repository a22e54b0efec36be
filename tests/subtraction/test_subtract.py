"""Subtraction on cubes: the table of missing pixels, zones, and errors by Monte Carlo."""

from dataclasses import replace

import numpy as np
import pytest

from lyot.algorithms.geometry import TangentPlane, angle_map, radius_map
from lyot.algorithms.zones import Zone, annuli, full_frame
from lyot.errors import LyotError
from lyot.files.aligned import AlignedArrays
from lyot.files.star import StarPosition
from lyot.parameters import SubtractRecipe
from lyot.subtraction.result import Subtraction, speckle_noise
from lyot.subtraction.subtract import subtract
from lyot.subtraction.zones import make_zones
from scenes import aligned, correlated_frames, cube

SHAPE = (24, 26)
ABOUT = radius_map(SHAPE, (12.0, 12.5)), angle_map(SHAPE, (12.0, 12.5))
N_INT, N_REF = 4, 7


@pytest.fixture
def scene(rng):
    targets, refs = correlated_frames(rng, SHAPE, N_INT, N_REF, n_patterns=4)
    return targets, refs.astype(np.float32)


def reduce(targets, refs, zones=None, **recipe):
    [result] = subtract(
        cube(targets), aligned(refs), zones or full_frame(SHAPE), SubtractRecipe(**recipe)
    )
    return result


def by_hand(target, refs, good, n_modes):
    """Leave the missing pixels out of every sum, with a decomposition of the pixels."""
    t, r = target[good].astype(float), refs[:, good].astype(float)
    mean_t, mean_r = t.mean(), r.mean(axis=1)
    _, _, basis = np.linalg.svd(r - mean_r[:, None], full_matrices=False)
    u, s, basis = np.linalg.svd(r - mean_r[:, None], full_matrices=False)
    coefs = ((t - mean_t) @ basis[:n_modes].T / s[:n_modes]) @ u[:, :n_modes].T
    model = np.tensordot(coefs, refs.astype(float) - mean_r[:, None, None], 1)
    return np.where(good, target - mean_t - model, np.nan)


CASES = {
    "none": lambda _: None,
    "one science frame": lambda bad: bad.__setitem__((1, 5, 6), True),
    "all science frames": lambda bad: bad.__setitem__((slice(None), 9, 9), True),
    "an edge": lambda bad: bad.__setitem__((2, slice(None), 0), True),
    "a whole row": lambda bad: bad.__setitem__((0, 7), True),
    "an isolated frame": lambda bad: bad.__setitem__((3, slice(0, 20)), True),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("n_modes", [2, 50])
def test_missing_science_pixels_are_left_out(scene, case, n_modes):
    targets, refs = scene
    bad = np.zeros(targets.shape, bool)
    CASES[case](bad)
    out = reduce(np.where(bad, np.nan, targets), refs, n_modes=(n_modes,))
    for i in range(N_INT):
        expected = by_hand(targets[i], refs, ~bad[i], n_modes)
        np.testing.assert_allclose(out.sci[i], expected, atol=2e-4)
    np.testing.assert_array_equal(np.isnan(out.sci), bad)
    np.testing.assert_array_equal(np.isnan(out.err), bad)


def test_the_residual_against_modes_is_that_of_each_number(scene):
    targets, refs = scene
    targets[1, 5, 5] = np.nan
    whole = reduce(targets, refs, n_modes=(6,), level_inner_arcsec=0.0)
    for n in range(7):
        alone = reduce(targets, refs, n_modes=(n,), level_inner_arcsec=0.0)
        expected = np.sqrt(np.nansum(alone.sci.astype(float) ** 2) / alone.sci.size)
        assert whole.residual_rms[0, n] == pytest.approx(expected, rel=1e-3)


def test_flagged_pixels_count_as_missing(scene):
    targets, refs = scene
    dq = np.zeros(targets.shape, np.uint32)
    dq[0, 3, 3] = 1
    [out] = subtract(cube(targets, dq=dq), aligned(refs), full_frame(SHAPE), SubtractRecipe())
    assert np.isnan(out.sci[0, 3, 3])
    assert np.isnan(out.sci).sum() == 1


def test_a_pixel_missing_in_one_reference_is_filled(scene):
    targets, refs = scene
    holed = refs.copy()
    holed[2, 10, 11] = np.nan
    out, clean = reduce(targets, holed), reduce(targets, refs)
    assert np.isfinite(out.sci).all()
    assert np.isfinite(out.err).all()
    away = np.ones(SHAPE, bool)
    away[10, 11] = False
    np.testing.assert_allclose(out.sci[:, away], clean.sci[:, away], atol=0.3)
    assert (out.err[:, 10, 11] > clean.err[:, 10, 11]).all()


def test_a_pixel_missing_in_all_references_is_missing(scene):
    targets, refs = scene
    refs[:, 4, 4] = np.nan
    refs[:, 12] = np.nan
    out = reduce(targets, refs)
    expected = np.zeros(targets.shape, bool)
    expected[:, 4, 4] = expected[:, 12] = True
    np.testing.assert_array_equal(np.isnan(out.sci), expected)
    np.testing.assert_array_equal(np.isnan(out.err), expected)


def test_one_set_of_references_or_one_each_is_the_same(scene):
    targets, refs = scene
    shared = reduce(targets, refs, n_modes=(3,))
    each = reduce(targets, np.broadcast_to(refs, (N_INT, *refs.shape)), n_modes=(3,))
    np.testing.assert_allclose(each.sci, shared.sci, atol=2e-5)
    np.testing.assert_allclose(each.err, shared.err, rtol=2e-3)
    np.testing.assert_allclose(each.coefficients, shared.coefficients, rtol=1e-6, atol=1e-9)


def test_several_truncations_are_those_made_alone(scene):
    targets, refs = scene
    many = subtract(
        cube(targets), aligned(refs), full_frame(SHAPE), SubtractRecipe(n_modes=(5, 1, 99))
    )
    assert [r.n_modes for r in many] == [5, 1, 99]
    assert [r.n_kept for r in many] == [5, 1, N_REF]
    for result in many:
        alone = reduce(targets, refs, n_modes=(result.n_modes,))
        np.testing.assert_allclose(result.sci, alone.sci, atol=1e-5)
        np.testing.assert_allclose(result.err, alone.err, rtol=1e-5)


def test_more_modes_leave_less(scene):
    targets, refs = scene
    many = subtract(
        cube(targets), aligned(refs), full_frame(SHAPE), SubtractRecipe(n_modes=(0, 1, 2, 4, 7))
    )
    rms = [r.rms_after.mean() for r in many]
    assert rms == sorted(rms, reverse=True)


def test_every_zone_is_reduced_by_itself(scene):
    targets, refs = scene
    edges = np.array([0.0, 6.0, 40.0])
    zones = annuli(*ABOUT, edges)
    out = reduce(targets, refs, zones, n_modes=(3,))
    for z in zones:
        inside = z.share > 0
        expected = by_hand(targets[1], refs, inside, 3)
        np.testing.assert_allclose(out.sci[1][inside], expected[inside], atol=2e-4)
    assert out.coefficients.shape == (2, N_INT, N_REF)


def test_overlapping_sectors_blend(scene):
    targets, refs = scene
    edges = np.array([0.0, 40.0])
    plain = annuli(*ABOUT, edges, n_sectors=3, overlap=0.4)
    out = reduce(targets, refs, plain, n_modes=(3,))
    parts = [reduce(targets, refs, [Zone(z.weight, z.weight)], n_modes=(3,)) for z in plain]
    blend = sum(z.share * np.nan_to_num(p.sci) for z, p in zip(plain, parts, strict=True))
    np.testing.assert_allclose(out.sci, blend, atol=1e-4)


def test_pixels_of_no_zone_are_missing(scene):
    targets, refs = scene
    inner = np.zeros(SHAPE)
    inner[5:15, 5:15] = 1.0
    out = reduce(targets, refs, [Zone(inner, inner)])
    np.testing.assert_array_equal(np.isfinite(out.sci[0]), inner > 0)


def test_weight_and_share_are_different_things(scene):
    """A companion masked out of the fit is not subtracted from itself."""
    targets, refs = scene
    targets = targets.copy()
    targets[:, 10:13, 10:13] += 200.0
    weight = np.ones(SHAPE)
    weight[8:15, 8:15] = 0.0
    masked = reduce(targets, refs, [Zone(weight, np.ones(SHAPE))])
    assert np.isfinite(masked.sci).all()
    np.testing.assert_allclose(masked.sci[:, 10:13, 10:13].mean(), 200.0, rtol=0.03)


def test_no_mean_is_taken_when_none_is_wanted(scene):
    targets, refs = scene
    out = reduce(targets, refs, subtract_mean=False)
    coefs, *_ = np.linalg.lstsq(
        refs.reshape(N_REF, -1).T.astype(float),
        targets.reshape(N_INT, -1).T.astype(float),
        rcond=None,
    )
    np.testing.assert_allclose(out.coefficients[0], coefs.T, rtol=1e-5, atol=1e-7)


def test_one_thread_or_two_give_the_same_bits(scene, monkeypatch, rng):
    targets = rng.normal(size=(3, 150, 151)).astype(np.float32)
    refs = rng.normal(size=(5, 150, 151)).astype(np.float32)
    results = []
    for threads in ("1", "2"):
        monkeypatch.setenv("LYOT_THREADS", threads)
        [r] = subtract(cube(targets), aligned(refs), full_frame((150, 151)), SubtractRecipe())
        results.append(r)
    for name in ("sci", "err", "coefficients", "variance_refs_coherent"):
        np.testing.assert_array_equal(getattr(results[0], name), getattr(results[1], name))


def test_scatter_error_is_the_official_one(scene):
    targets, refs = scene
    out = reduce(targets, refs, n_modes=(3,), error="scatter")
    r = refs.reshape(N_REF, -1).astype(float)
    r -= r.mean(axis=1, keepdims=True)
    _, _, z = np.linalg.svd(r, full_matrices=False)
    expected = np.std(r - (r @ z[:3].T) @ z[:3], axis=0).reshape(SHAPE)
    np.testing.assert_allclose(out.err, np.broadcast_to(expected, out.err.shape), rtol=1e-4)


@pytest.mark.parametrize("n_int", [1, 20])
def test_errors_agree_with_monte_carlo(rng, n_int):
    """Of one integration, and of the mean of 20 that share their references."""
    shape, n_ref, n_draw = (30, 30), 12, 150
    patterns = rng.normal(size=(n_ref, *shape)) * (20 * 0.7 ** np.arange(n_ref))[:, None, None]
    truth_r = np.tensordot(rng.normal(size=(n_ref, n_ref)), patterns, 1)
    truth_t = np.tensordot(rng.normal(size=6), patterns[:6], 1)
    sigma_t, sigma_r = 1.0, 0.4
    single, mean, stated, stated_mean = [], [], [], []
    for _ in range(n_draw):
        t = truth_t + sigma_t * rng.normal(size=(n_int, *shape))
        r = truth_r + sigma_r * rng.normal(size=truth_r.shape)
        [out] = subtract(
            cube(t, sigma_t),
            aligned(r.astype(np.float32), sigma_r),
            full_frame(shape),
            SubtractRecipe(n_modes=(6,)),
        )
        single.append(out.sci[0])
        mean.append(out.sci.mean(axis=0))
        stated.append((out.err[0] ** 2).mean())
        own = (out.err**2 - out.variance_refs).sum(axis=0) / n_int**2
        stated_mean.append((own + out.variance_refs_coherent).mean())
    for drawn, said in ((single, stated), (mean, stated_mean)):
        measured = np.var(drawn, axis=0, ddof=1).mean()
        assert abs(np.sqrt(np.mean(said) / measured) - 1) < 0.05


def test_references_for_another_number_of_integrations_are_refused(scene):
    _, refs = scene
    four = aligned(np.broadcast_to(refs, (3, *refs.shape)))
    with pytest.raises(LyotError, match="are for 3 integrations and t has 4"):
        four.check(4, "t")
    with pytest.raises(LyotError, match="have 2 axes"):
        AlignedArrays(refs[0], refs[0], refs[0])


def test_zones_of_a_recipe(scene):
    plane = TangentPlane.linear((12.0, 12.5), 0.0, 0.1)
    assert len(make_zones(SubtractRecipe(), SHAPE, plane)) == 1
    many = SubtractRecipe(zones="annuli", n_annuli=3, n_sectors=4)
    assert len(make_zones(many, SHAPE, plane)) == 12
    with pytest.raises(LyotError, match="no map was given"):
        make_zones(replace(many, zones="map"), SHAPE, plane)
    with pytest.raises(LyotError, match="inside their inner edge"):
        make_zones(replace(many, inner_arcsec=9.0), SHAPE, plane)
    labels = np.ones(SHAPE, int)
    assert len(make_zones(replace(many, zones="map"), SHAPE, plane, labels=labels)) == 1
    with pytest.raises(LyotError, match="zone map is"):
        make_zones(replace(many, zones="map"), SHAPE, plane, labels=labels[:3])


def test_pixels_outside_the_limits_do_not_count_in_the_fit(scene):
    targets, refs = scene
    plane = TangentPlane.linear((12.0, 12.5), 0.0, 0.1)
    recipe = SubtractRecipe(n_modes=(3,), fit_inner_arcsec=0.3, fit_outer_arcsec=0.9)
    weight = np.ones(SHAPE)
    weight[:, :6] = 0.0
    [zone] = make_zones(recipe, SHAPE, plane, fit_weight=weight)
    y, x = np.indices(SHAPE)
    r = np.hypot(y - 12.0, x - 12.5)
    counts = (r >= 3) & (r <= 9) & (x >= 6)
    np.testing.assert_array_equal(zone.weight > 0, counts)
    assert (zone.share == 1).all()
    [out] = subtract(cube(targets), aligned(refs), [zone], recipe)
    inside = by_hand(targets[0], refs, counts, 3)
    np.testing.assert_allclose(out.sci[0][counts], inside[counts], atol=2e-4)
    assert np.isfinite(out.sci).all()
    with pytest.raises(LyotError, match="no pixel that counts"):
        make_zones(replace(recipe, fit_inner_arcsec=9.0, fit_outer_arcsec=0.0), SHAPE, plane)
    with pytest.raises(LyotError, match="The fit weight is"):
        make_zones(recipe, SHAPE, plane, fit_weight=weight[:3])


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"n_modes": ()}, "n_modes is empty"),
        ({"n_modes": (-1,)}, "n_modes is -1"),
        ({"zones": "rings"}, "zones is 'rings'; it must be one of full"),
        ({"sector_overlap": 0.7}, "between 0 and 0.5"),
        ({"error": "none"}, "error is 'none'"),
    ],
)
def test_a_recipe_checks_itself(values, text):
    with pytest.raises(LyotError, match=text):
        SubtractRecipe(**values)


def test_the_level_is_taken_far_from_the_star(scene, rng):
    targets, refs = scene
    targets = targets.copy()
    targets[0, 3, 4] = np.nan
    star, scale = StarPosition(12.0, 11.0), 0.1
    recipe = SubtractRecipe(zones="annuli", n_annuli=3, level_inner_arcsec=1.0)
    far = radius_map(SHAPE, star.yx) * scale >= 1.0
    zones = make_zones(recipe, SHAPE, TangentPlane.linear(star.yx, 0.0, scale))
    [result] = subtract(cube(targets), aligned(refs), zones, recipe)
    # By hand: each zone's coefficients, applied to all pixels; their mean far out is the level.
    for z, zone in enumerate(zones):
        inside = zone.share > 0
        for i in range(N_INT):
            left = targets[i] - np.tensordot(result.coefficients[z, i], refs.astype(float), 1)
            expected = (left - np.nanmean(left[far]))[inside]
            np.testing.assert_allclose(result.sci[i][inside], expected, atol=2e-4)


def test_speckle_noise_is_what_the_errors_do_not_explain(rng):
    shape, star = (90, 90), StarPosition(45.0, 45.0)
    n_int, noise, speckles = 8, 1.0, 0.7
    fixed = rng.normal(0, speckles, shape)
    sci = (fixed + rng.normal(0, noise, (n_int, *shape))).astype(np.float32)
    sci[:, 10, 10] = np.nan
    zero = np.zeros(shape, np.float32)
    result = Subtraction(
        n_modes=1,
        n_kept=1,
        sci=sci,
        err=np.where(np.isfinite(sci), np.float32(noise), np.nan),
        coefficients=np.zeros((1, n_int, 1)),
        eigenvalues=np.zeros((1, 1)),
        variance_refs=zero,
        variance_refs_coherent=zero,
        rms_before=np.zeros(n_int),
        rms_after=np.zeros(n_int),
        residual_rms=np.zeros((1, 2)),
    )
    found = speckle_noise(*result.mean(), star, 0.1)
    np.testing.assert_allclose(found.propagated, noise / np.sqrt(n_int), rtol=1e-5)
    np.testing.assert_allclose(np.mean(found.speckle[5:]), speckles, rtol=0.05)
    np.testing.assert_allclose(found.separation_arcsec[:2], [0.1, 0.3])


@pytest.mark.parametrize("fast_axis", [1, 2])
def test_levels_are_of_the_rows_that_the_detector_reads(rng, fast_axis):
    """Rows lie along x or y: the same frames turned have the same residual, turned."""
    shape, star = (48, 60), StarPosition(30.0, 24.0)
    refs = rng.normal(size=(2, *shape))
    frames = 3.0 * refs[:1] + rng.normal(size=(3, *shape)) + 5.0 * rng.normal(size=(3, 48, 1))
    if fast_axis == 2:
        frames, refs, star = frames.swapaxes(1, 2), refs.swapaxes(1, 2), StarPosition(24.0, 30.0)
    target = cube(frames, fast_axis=fast_axis)
    recipe = SubtractRecipe(rows_inner_arcsec=0.6)
    [plain] = subtract(
        target, aligned(refs, star=star), full_frame(refs.shape[1:]), SubtractRecipe()
    )
    [result] = subtract(target, aligned(refs, star=star), full_frame(refs.shape[1:]), recipe)
    taken = plain.sci - result.sci
    assert np.abs(np.diff(taken, axis=3 - fast_axis)).max() < 1e-5
    assert np.std(taken) > 3.0
    # The error of a median of some 55 pixels with unit noise is sqrt(pi / 2 n).
    added = result.err**2 - plain.err**2
    assert np.sqrt(np.median(added)) == pytest.approx(np.sqrt(0.5 * np.pi / 55), rel=0.2)
    with pytest.raises(LyotError, match="record no star"):
        subtract(target, aligned(refs), full_frame(refs.shape[1:]), recipe)
