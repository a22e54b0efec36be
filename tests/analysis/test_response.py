"""The response of a reduction to a source equals subtracting again with the source put in."""

from dataclasses import replace

import numpy as np
import pytest

from lyot.algorithms import injection, klip
from lyot.analysis.exposure import make_exposure
from lyot.analysis.psf import psf_from_image
from lyot.analysis.response import PointSource
from lyot.errors import LyotError
from lyot.files.aligned import AlignedArrays, ReferenceInfo
from lyot.files.astrometry import header_plane
from lyot.files.exposure import Cube
from lyot.files.star import StarPosition
from lyot.parameters import SubtractRecipe
from lyot.subtraction.subtract import subtract
from scenes import info

SHAPE, STAR = (60, 62), StarPosition(30.3, 29.6)
N_INT, N_REF = 3, 8


@pytest.fixture(scope="module")
def psf():
    y, x = np.mgrid[-9:10, -9:10]
    return psf_from_image(np.exp(-0.5 * (x**2 + y**2) / 1.1**2), origin="a Gaussian")


def scene(shared):
    # Float64 throughout: what is compared is the algebra, not the rounding of the products.
    rng = np.random.default_rng(4)
    patterns = rng.normal(size=(4, *SHAPE)) * 10
    mix = rng.normal(size=(N_REF, 4))
    lead = (N_REF,) if shared else (N_INT, N_REF)
    refs = np.tensordot(mix, patterns, 1) + rng.normal(size=(*lead, *SHAPE))
    targets = np.tensordot(rng.normal(size=(N_INT, 4)), patterns, 1) + 3.0
    targets = targets + rng.normal(size=targets.shape)
    dq = np.zeros(targets.shape, np.uint32)
    dq[0, 20:22, 30] = dq[1, 40, 33] = 1
    targets[2, 33, 35] = np.nan
    facts = info(targets.shape, target="STAR", roll_ref_deg=40.0)
    return Cube(targets, np.full(targets.shape, 0.5), dq, facts), refs


def exposure_of(target, refs, recipe, holds=None, rolls=None):
    err, info = np.full(refs.shape, 0.3, np.float32), None
    if holds is not None:
        names = tuple("STAR" if held else "REF" for held in holds)
        info = ReferenceInfo(names, rolls, np.full(N_REF, np.nan))
    dq = np.zeros(refs.shape, np.uint32)
    aligned = AlignedArrays(refs, err, dq, dtype=np.float64, ref_info=info)
    return make_exposure(target, aligned, STAR, recipe, dtype=np.float64)


def subtracted_again(plain, target, refs, recipe):
    """Subtract with the references that were chosen before, one fit at a time, and average."""
    recipe = replace(recipe, select="all", n_refs=0)
    total = np.zeros((len(recipe.n_modes), *target.sci.shape))
    for fit in plain.fits:
        part = Cube(*(a[fit.rows] for a in (target.sci, target.err, target.dq)), target.info)
        frames = refs[fit.refs]
        err, dq = np.ones(frames.shape, np.float32), np.zeros(frames.shape, np.uint32)
        aligned = AlignedArrays(frames, err, dq, dtype=np.float64)
        for k, r in enumerate(subtract(part, aligned, [fit.zone], recipe, dtype=np.float64)):
            total[k][fit.rows] += np.nan_to_num(r.sci)
    good = ~plain.bad
    return np.where(good.any(axis=0), (total * good).sum(axis=1) / good.sum(axis=0), np.nan)


RECIPES = [
    SubtractRecipe(n_modes=(2, 5)),
    SubtractRecipe(n_modes=(3,), level_inner_arcsec=0.0),
    SubtractRecipe(n_modes=(3,), level_inner_arcsec=1.2),
    SubtractRecipe(n_modes=(6,), subtract_mean=False),
    SubtractRecipe(
        n_modes=(2, 7),
        zones="annuli",
        n_annuli=3,
        n_sectors=4,
        sector_overlap=0.3,
        level_inner_arcsec=1.0,
        inner_arcsec=0.2,
    ),
    SubtractRecipe(n_modes=(4,), fit_inner_arcsec=0.4, fit_outer_arcsec=1.5),
]

CHOSEN = [
    SubtractRecipe(n_modes=(2, 4), select="correlation", n_refs=5),
    SubtractRecipe(n_modes=(4,), select="residual", n_refs=4, zones="annuli", n_annuli=3),
    SubtractRecipe(n_modes=(3,), method="mean"),
    SubtractRecipe(n_modes=(3,), method="mean", select="correlation", n_refs=4),
    SubtractRecipe(n_modes=(1,), method="median"),
]
# References that hold the source are not followed through these.
WITHOUT = [
    SubtractRecipe(n_modes=(2, 5), method="imputation", fit_inner_arcsec=0.6),
    SubtractRecipe(n_modes=(4,), method="nmf"),
]


@pytest.mark.parametrize("recipe", RECIPES + CHOSEN + WITHOUT)
@pytest.mark.parametrize("shared", [True, False])
def test_the_response_is_that_of_a_full_subtraction(recipe, shared, psf):
    target, refs = scene(shared)
    plain = exposure_of(target, refs, recipe)
    flux, separation, pa = 300.0, 11.3, 75.0
    box, added = plain.response.added(PointSource(psf, separation, pa, 0.8), flux=flux)
    y, x = plain.position(separation, pa)
    _, image = psf.place(float(y), float(x), SHAPE)
    with_it = target.sci.copy()
    with_it[:, box[0], box[1]] += flux * 0.8 * image
    again = exposure_of(replace(target, sci=with_it), refs, recipe)
    expected = (again.residual - plain.residual)[:, box[0], box[1]]
    peak = flux * image.max()
    np.testing.assert_allclose(added, expected, atol=1e-9 * peak)
    _, nothing = plain.response.added(PointSource(psf, separation, pa), flux=0.0)
    assert not np.nan_to_num(nothing).any()


@pytest.mark.parametrize("recipe", RECIPES + CHOSEN)
def test_a_source_in_the_references_is_updated_exactly(recipe, psf):
    target, refs = scene(True)
    holds = np.arange(N_REF) < 3
    rolls = np.where(holds, 50.0 + 5 * np.arange(N_REF), 0.0)
    plain = exposure_of(target, refs, recipe, holds, rolls)
    flux, separation, pa = 200.0, 12.0, 200.0
    box, added = plain.response.added(PointSource(psf, separation, pa), flux=flux)
    with_it, moved = target.sci.copy(), refs.copy()
    y, x = plain.position(separation, pa)
    _, image = psf.place(float(y), float(x), SHAPE)
    with_it[:, box[0], box[1]] += flux * image
    for k in np.flatnonzero(holds):
        turned = replace(plain, plane=header_plane(info((), roll_ref_deg=rolls[k]), STAR))
        there, view = psf.place(*(float(v) for v in turned.position(separation, pa)), SHAPE)
        moved[k][there] += flux * view
    target = replace(target, sci=with_it)
    if recipe in CHOSEN:
        # The choice of references is frozen, and so are the level and factor of each in a median.
        if recipe.method == "median":
            level, size = refs.mean(axis=(1, 2)), refs.std(axis=(1, 2))
            scaled = (moved - level[:, None, None]) * (size.mean() / size)[:, None, None]
            moved, recipe = np.median(scaled, axis=0)[None], replace(recipe, method="klip")
        again = subtracted_again(plain, target, moved, recipe)
    else:
        again = exposure_of(target, moved, recipe).residual
    expected = (again - plain.residual)[:, box[0], box[1]]
    np.testing.assert_allclose(added, expected, atol=1e-8 * flux * image.max())
    _, nothing = plain.response.added(PointSource(psf, separation, pa), flux=0.0)
    assert not np.nan_to_num(nothing).any()


def test_a_source_in_a_reference_has_the_image_of_its_place_there(psf):
    """The mask does not turn with the sky: a roll sees the source elsewhere behind it."""
    target, refs = scene(True)
    holds, rolls = np.arange(N_REF) < 2, np.where(np.arange(N_REF) == 1, 65.0, 50.0)
    plain = exposure_of(target, refs, RECIPES[0], holds, rolls)
    y, x = np.mgrid[-9:10, -9:10]
    wide = psf_from_image(np.exp(-0.5 * (x**2 + y**2) / 1.6**2), origin="a Gaussian")
    source = PointSource(psf, 12.0, 200.0, 0.7, lambda turn: (wide, 1.0 + turn / 50.0))
    box, added = plain.response.added(source, flux=200.0)
    with_it, moved = target.sci.copy(), refs.copy()
    at, image = psf.place(*(float(v) for v in plain.position(12.0, 200.0)), SHAPE)
    with_it[:, at[0], at[1]] += 200.0 * 0.7 * image
    for k, roll in enumerate((50.0, 65.0)):
        turned = replace(plain, plane=header_plane(info((), roll_ref_deg=roll), STAR))
        there, view = wide.place(*(float(v) for v in turned.position(12.0, 200.0)), SHAPE)
        moved[k][there] += 200.0 * 0.7 * (1.0 + (roll - 40.0) / 50.0) * view
    again = exposure_of(replace(target, sci=with_it), moved, RECIPES[0]).residual
    expected = (again - plain.residual)[:, box[0], box[1]]
    np.testing.assert_allclose(added, expected, atol=1e-8 * 200.0 * image.max())


@pytest.mark.parametrize("recipe", WITHOUT)
def test_what_cannot_be_followed_is_refused(recipe, psf):
    target, refs = scene(True)
    exposure = exposure_of(target, refs, recipe, np.arange(N_REF) < 3, np.full(N_REF, 50.0))
    with pytest.raises(LyotError, match=f"method = {recipe.method}; analyse a run with"):
        exposure.response.added(PointSource(psf, 12.0, 200.0))


def test_the_operator_gives_the_response_to_any_source(psf):
    target, refs = scene(True)
    plain = exposure_of(target, refs, SubtractRecipe(n_modes=(5,)))
    box, wanted = (slice(10, 17), slice(30, 36)), (slice(12, 15), slice(28, 34))
    operator = plain.response.of_images(box, None, wanted)[0].reshape(42, -1)
    source = np.random.default_rng(1).normal(size=(1, 7, 6))
    direct = plain.response.of_images(box, source, wanted)[0, 0]
    np.testing.assert_allclose((source.ravel() @ operator).reshape(3, 6), direct, atol=1e-10)


def test_a_source_outside_the_frame_is_refused(psf):
    target, refs = scene(True)
    plain = exposure_of(target, refs, SubtractRecipe(n_modes=(5,)))
    with pytest.raises(LyotError, match="lies outside the frame of 62 x 60 pixels"):
        plain.response.added(PointSource(psf, 80.0, 0.0))


def test_forward_kernels_run_on_a_strict_array_library(rng):
    strict = pytest.importorskip("array_api_strict")
    refs, target, weight = rng.normal(size=(5, 30)), rng.normal(size=30), rng.uniform(0.5, 1, 30)
    refs = refs - (refs @ weight / weight.sum())[:, None]
    target = target - target @ weight / weight.sum()
    source, sources = rng.normal(size=30), rng.normal(size=(5, 30))
    gram, cross = (refs * weight) @ refs.T, refs @ (weight * target)
    matrix = klip.to_modes(klip.decompose(gram))

    def chain(convert):
        fit = injection.FrozenFit(
            *(convert(a) for a in (gram, cross, target, refs, weight)), float(weight.sum())
        )
        updated = injection.update(fit, convert(source), convert(sources), 0.3, n_modes=3)
        offset = convert(np.arange(5.0))
        frames = [convert(refs.reshape(5, 5, 6))]
        images = convert(source.reshape(1, 1, 5, 6)), convert(weight.reshape(1, 5, 6))
        light = convert(np.array([[source @ weight]]))
        products = injection.source_products(*images, light, frames, offset)
        coefs = klip.coefficients(products[0, ...], convert(matrix), n_modes=3)
        return [*updated, injection.linear_response(coefs[None, ...], frames, offset)]

    for a, b in zip(chain(strict.asarray), chain(np.asarray), strict=True):
        np.testing.assert_allclose(np.asarray(a), b, atol=1e-12)
