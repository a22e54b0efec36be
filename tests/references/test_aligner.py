"""Alignment of whole exposures: drift, bright neighbors, undersampling, covariance, the record."""

import json
from dataclasses import replace

import numpy as np
import pytest

import scenes
from lyot.algorithms import fourier, registration
from lyot.errors import LyotError
from lyot.files.exposure import read_cube, stack
from lyot.instruments import NIRCAM
from lyot.parameters import AlignRecipe
from lyot.references.aligner import Aligner
from lyot.references.prepare import prepare_refs
from lyot.references.vet import ReferenceWarning
from lyot.simulate import Companion, Disc, Scene, simulate_observation

SHAPE = (112, 112)
STAR = (55.5, 55.5)


def cube(sci, sigma=0.5, **facts):
    known = {"crpix_xy": STAR, "coronagraph": "MASKA335R"}
    return scenes.cube(sci, sigma, **(known | facts))


def on_axis(band, seed):
    """Return what makes the image of a star behind the mask at a shift, as its part of the flux."""
    optics = NIRCAM.optics("MASK335R", band, n_wavelengths=1, seed=seed)

    def image(shift_yx=(0.0, 0.0)):
        at = (STAR[0] + float(shift_yx[1]), STAR[1] + float(shift_yx[0]))
        return optics.frame((0.0, 0.0), at, SHAPE)

    return image


@pytest.fixture(scope="module")
def star():
    """Return the image of a star behind the mask, shifted at will."""
    y, x = np.indices(SHAPE)
    # Dark at the edges, where a shift in Fourier space is not that of the sky.
    fade = np.exp(-((np.hypot(y - STAR[0], x - STAR[1]) / 50.0) ** 12))
    image = 5e6 * fade * on_axis("F444W", seed=3)()
    spectrum = fourier.spectrum(image)
    return lambda d: fourier.shift(spectrum, np.asarray(d, float), shape=SHAPE)


def test_all_pairs_with_drift_and_large_shifts(star):
    rng = np.random.default_rng(5)
    drift = rng.uniform(-0.3, 0.3, (5, 2))
    offsets = rng.uniform(-2.0, 2.0, (6, 2))
    scale = rng.uniform(0.2, 5.0, 6)
    target = cube([star(d) for d in drift])
    refs = cube([s * star(o) for s, o in zip(scale, offsets, strict=True)])
    recipe = AlignRecipe()
    aligner = Aligner(target, prepare_refs(refs, recipe), recipe)
    weight = None
    for i in range(5):
        aligned, found = aligner.align(i)
        assert found.converged.all()
        np.testing.assert_allclose(found.shift_yx, drift[i] - offsets, atol=2e-5)
        np.testing.assert_allclose(found.scale, 1 / scale, rtol=1e-5)
        weight = aligner.weight > 0
        for k in range(6):
            left = target.sci[i] - found.scale[k] * aligned.sci[k]
            assert np.abs(left[weight]).max() < 1e-4 * np.abs(target.sci[i]).max()


def test_integrations_far_from_each_other_are_aligned(star):
    drift = np.array([(-1.0, 0.3), (1.0, -0.3)])  # none is near their middle
    recipe = AlignRecipe()
    refs = prepare_refs(cube([star((0.4, -0.2)), star((-0.6, 0.1))]), recipe)
    aligner = Aligner(cube([star(d) for d in drift]), refs, recipe)
    for i in range(2):
        found = aligner.align(i).fit
        assert found.converged.all()
        expected = drift[i] - [(0.4, -0.2), (-0.6, 0.1)]
        np.testing.assert_allclose(found.shift_yx, expected, atol=2e-5)


def test_each_pair_is_its_direct_optimum(star):
    """The expansion only says where to start."""
    rng = np.random.default_rng(8)
    target = cube([star(d) + rng.normal(0, 0.5, SHAPE) for d in rng.uniform(-0.3, 0.3, (3, 2))])
    refs = cube([star(o) + rng.normal(0, 0.5, SHAPE) for o in rng.uniform(-1, 1, (3, 2))])
    recipe = AlignRecipe()
    prepared = prepare_refs(refs, recipe)
    aligner = Aligner(target, prepared, recipe)
    for i in range(3):
        found = aligner.align(i).fit
        again = registration.refine(
            target.sci[i].astype(float),
            aligner.weight,
            target.variance()[i],
            prepared.spectra,
            prepared.variance,
            found.shift_yx + 0.02,
            tolerance=1e-9,
        )
        np.testing.assert_allclose(found.shift_yx, again.shift_yx, atol=1e-6)


@pytest.fixture(scope="module")
def bright(tmp_path_factory):
    """Return true shifts, and those measured without and with a bright companion and disc.

    Behind the mask 8e-4 of the star's light is left. The companion is twice as bright as its
    brightest speckle, the disc as bright over the pixels of the fit.
    """
    found = {}
    for name, companions, disc in (
        ("nothing", (), None),
        ("companion", (Companion(separation_arcsec=1.0, pa_deg=40.0, contrast=2.4e-3),), None),
        (
            "disc",
            (),
            Disc(
                radius_arcsec=1.5,
                width_arcsec=0.2,
                inclination_deg=80.0,
                pa_deg=70.0,
                contrast=6e-3,
            ),
        ),
    ):
        scene = Scene(
            shape=(96, 96),
            rolls_deg=(20.0,),
            n_int=1,
            n_int_psf=1,
            n_dither=5,
            companions=companions,
            disc=disc,
            bad_fraction=0.0,
            hit_fraction=0.0,
        )
        folder = tmp_path_factory.mktemp(name)
        simulate_observation(folder, scene, seed=9)
        paths = sorted(folder.glob("*_calints.fits"))
        recipe = AlignRecipe()
        aligner = Aligner(
            read_cube(paths[0]),
            prepare_refs(stack(read_cube(p) for p in paths[1:]), recipe),
            recipe,
        )
        found[name] = aligner.align(0).fit.shift_yx
    exposures = json.loads((folder / "truth.json").read_text())["exposures"]
    stars = np.array([exposures[p.name]["star_xy"][::-1] for p in paths])
    return found | {"truth": stars[0] - stars[1:]}


@pytest.mark.parametrize("neighbor", ["companion", "disc"])
def test_a_bright_neighbor_moves_the_star_less_than_the_wavefront_does(bright, neighbor):
    """A drift of 3 nm between exposures moves it by 0.05 pixel, the neighbors by 0.01."""
    drift = np.abs(bright["nothing"] - bright["truth"]).max()
    assert drift < 0.1
    assert np.abs(bright[neighbor] - bright["nothing"]).max() < 0.3 * drift


@pytest.mark.parametrize(("name", "worst"), [("F277W", 0.003), ("F335M", 0.003), ("F250M", 0.005)])
def test_the_bias_of_undersampled_images_is_small(name, worst):
    """True shifts, made with the optics; without the low-pass the bias is 0.05 to 0.34 pixel."""
    image = on_axis(name, seed=1)

    def draw(d):
        return 1e5 * image(d)

    shifts = np.array([(0.1, 0.25), (0.25, -0.4), (-0.35, 0.15), (0.5, 0.5)])
    refs = cube([draw(-d) for d in shifts], sigma=0.01, filter=name)
    recipe = AlignRecipe()
    target = cube([draw((0.0, 0.0))], sigma=0.01, filter=name)
    aligner = Aligner(target, prepare_refs(refs, recipe), recipe)
    assert np.abs(aligner.align(0).fit.shift_yx - shifts).max() < worst


def test_the_covariance_of_a_low_passed_fit_agrees_with_monte_carlo(star):
    rng = np.random.default_rng(2)
    cutoff, sigma = 0.5, 3.0

    def smooth(image):
        spectrum = fourier.low_pass(fourier.spectrum(image), shape=SHAPE, cutoff=cutoff)
        return fourier.shift(spectrum, np.zeros(2), shape=SHAPE), spectrum

    target, ref = star((0.2, 0.0)), star((0.0, 0.0))
    weight = np.ones(SHAPE)
    weight[:20] = weight[-20:] = 0.0
    shifts, stated = [], None
    for _ in range(150):
        s, _ = smooth(target + rng.normal(0, sigma, SHAPE))
        _, r = smooth(ref + rng.normal(0, sigma, SHAPE))
        variance = np.full(SHAPE, sigma**2)
        found = registration.refine(
            s, weight, variance, r[None], variance[None], np.array([[0.2, 0.0]]), cutoff=cutoff
        )
        shifts.append(found.shift_yx[0])
        stated = found.covariance[0]
    measured = np.cov(np.array(shifts).T)
    np.testing.assert_allclose(np.diag(stated), np.diag(measured), rtol=0.35)


def test_a_four_quadrant_mask_bounds_the_shifts_by_the_dither(star):
    mode = {"instrument": "MIRI", "filter": "F1140C", "coronagraph": "4QPM_1140"}
    target = cube([star((0.0, 0.0))], **mode)
    refs = cube([star((0.9, 0.0)), star((0.05, 0.0))], **mode)
    refs = replace(refs, dither_arcsec=np.array([[0.0, 0.0], [0.01, 0.0]]))
    recipe = AlignRecipe()
    aligner = Aligner(target, prepare_refs(refs, recipe), recipe)
    found = aligner.align(0).fit
    limit = 0.5 * 0.01 / 0.063 + 0.1
    assert np.abs(found.shift_yx).max() <= limit + 1e-9
    assert list(found.converged) == [False, True]


def test_no_weight_is_refused(star):
    recipe = AlignRecipe()
    refs = prepare_refs(cube([star((0.0, 0.0))]), recipe)
    with pytest.raises(LyotError, match="has weight in the alignment"):
        Aligner(cube([star((0.0, 0.0))]), refs, recipe, weight=np.zeros(SHAPE))


@pytest.fixture(scope="module")
def aligner(small):
    """Return what makes an aligner of a small observation."""
    [science] = small.parent.glob("jw09999001*_calints.fits")
    refs = sorted(small.parent.glob("jw09999002*_calints.fits"))
    target = read_cube(science)
    prepared = prepare_refs(stack(read_cube(path) for path in refs), AlignRecipe())

    def make(align_to="all", **options):
        return Aligner(target, prepared, AlignRecipe(align_to=align_to), **options)

    return make


def test_the_order_of_the_questions_does_not_matter(aligner):
    forward, backward = aligner(), aligner()
    first = [forward.align(i) for i in (0, 1)]
    last = [backward.align(i) for i in (1, 0)][::-1]
    for a, b in zip(first, last, strict=True):
        np.testing.assert_array_equal(a.frames.sci, b.frames.sci)
        np.testing.assert_array_equal(a.frames.variance, b.frames.variance)
        for one, other in zip(a.fit, b.fit, strict=True):
            np.testing.assert_array_equal(one, other)


def test_each_set_is_handed_on_once(aligner):
    received = []
    aligned = aligner(receive=lambda i, frames: received.append((i, frames.sci.copy())))
    assert aligned.star.origin == "measured"
    for i in (0, 1, 0, 1):
        np.testing.assert_array_equal(aligned.frames(i).sci, received[i][1])
    assert [number for number, _ in received] == [0, 1]


def test_the_record_is_complete_whatever_was_asked_for(aligner):
    aligned = aligner()
    aligned.inputs, aligned.weight_origin = ["a", "b"], "w"
    record = aligned.history["align_psfs"]
    assert record["shift_yx"].shape == (2, 6, 2)
    assert (record["inputs"], record["weight"]) == (["a", "b"], "w")
    np.testing.assert_array_equal(record["shift_yx"][1], aligner().align(1).fit.shift_yx)


def test_a_set_for_the_first_integration_serves_all(aligner):
    aligned = aligner("first")
    assert (aligned.shared, aligned.n_sets) == (True, 1)
    assert aligned.frames(1) is aligned.frames(0)
    assert aligned.fits().scale.shape == (1, 6)


def test_warnings_that_are_given_are_not_looked_for_again(aligner):
    warning = ReferenceWarning(2, "star", "too bright")
    aligned = aligner(warnings=[warning])
    assert aligned.warnings == [warning]
    [recorded] = aligned.details()["reference_warnings"]
    assert recorded == {"reference": 2, "target": "star", "reason": "too bright"}
