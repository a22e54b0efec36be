"""Stated errors of psfsub and i2d against Monte Carlo over noise draws of an observation."""

from dataclasses import replace

import numpy as np
import pytest

from lyot.algorithms.geometry import radius_map
from lyot.algorithms.zones import full_frame
from lyot.files.combined import residuals_from_model
from lyot.files.exposure import Cube, as_model, cube_from_model, read_cube, stack
from lyot.files.star import StarPosition
from lyot.parameters import AlignRecipe, CombineRecipe, SubtractRecipe
from lyot.references.aligner import Aligner
from lyot.references.computed import ComputedReferences
from lyot.references.prepare import prepare_refs
from lyot.simulate import Scene, simulate_observation
from lyot.sky import combine
from lyot.subtraction.subtract import subtract

N_DRAW = 40
GAIN, READ = 0.05, 0.6
MASK_PIX = 10.0  # half-transmission radius of MASK335R


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """Return the noiseless exposures of an observation: two rolls, references with dithers."""
    scene = Scene(
        shape=(72, 72),
        n_int=3,
        n_int_psf=1,
        n_dither=8,
        gain=1e-14,
        read_noise=1e-7,
        bad_fraction=0.0,
        hit_fraction=0.0,
        companions=(),
        disc=None,
    )
    folder = tmp_path_factory.mktemp("clean")
    simulate_observation(folder, scene, seed=3)
    paths = sorted(folder.glob("*_calints.fits"))
    models = [as_model(p, "CubeModel") for p in paths[:2]]
    templates = [residuals_from_model(m, "DO_NOT_USE") for m in models]
    yield [cube_from_model(m) for m in models], stack(read_cube(p) for p in paths[2:]), templates
    for model in models:
        model.close()


def noisy(cube: Cube, rng) -> Cube:
    variance = np.maximum(cube.sci, 0) * GAIN + READ**2
    data = cube.sci + rng.normal(size=cube.sci.shape) * np.sqrt(variance)
    return replace(cube, sci=data.astype(np.float32), err=np.sqrt(variance).astype(np.float32))


@pytest.fixture(scope="module")
def draws(clean):
    """Return psfsub and i2d, with their errors, of many draws of the noise."""
    science, refs, templates = clean
    rng = np.random.default_rng(11)
    align, recipe = AlignRecipe(), SubtractRecipe(n_modes=(5,))
    kept = {"sub": [], "sub_err": [], "image": [], "image_err": []}
    for _ in range(N_DRAW):
        prepared = prepare_refs(noisy(refs, rng), align)
        exposures = []
        for cube, template in zip(science, templates, strict=True):
            target = noisy(cube, rng)
            aligner = ComputedReferences(Aligner(target, prepared, align, star_xy=(35.25, 35.75)))
            [out] = subtract(target, aligner, full_frame((72, 72)), recipe)
            exposures.append(
                replace(
                    template,
                    sci=out.sci,
                    err=out.err,
                    bad=~np.isfinite(out.sci),
                    star=aligner.star,
                    variances={},
                    variance_refs=out.variance_refs,
                    variance_refs_coherent=out.variance_refs_coherent,
                )
            )
        image = combine(exposures, CombineRecipe())
        kept["sub"].append(exposures[0].sci[1])
        kept["sub_err"].append(exposures[0].err[1])
        kept["image"].append(image.sci)
        kept["image_err"].append(image.err)
    kept = {k: np.array(v) for k, v in kept.items()}
    return kept | {"star": (image.star.y, image.star.x)}


def ratios(values, errors, center, inner, outer, step=5.0):
    """Ratio of the stated to the true error in annuli."""
    r = radius_map(values.shape[1:], center)
    true = values.var(axis=0, ddof=1)
    stated = (errors.astype(float) ** 2).mean(axis=0)
    for start in np.arange(inner, outer, step):
        ring = (r >= start) & (r < start + step) & np.isfinite(true)
        yield start, float(np.sqrt(stated[ring].mean() / true[ring].mean()))


def test_error_of_psfsub(draws):
    found = list(ratios(draws["sub"], draws["sub_err"], (35.75, 35.25), MASK_PIX, 30.0))
    for radius, ratio in found:
        assert abs(ratio - 1) < 0.05, (radius, found)


def test_error_of_i2d(draws):
    found = list(ratios(draws["image"], draws["image_err"], draws["star"], MASK_PIX, 30.0))
    for radius, ratio in found:
        assert abs(ratio - 1) < 0.05, (radius, found)


def constant(template, value, sigma, **more):
    """Return an exposure of one value, seen where another was."""
    shape = template.sci.shape
    info = replace(template.info, exposure_time_s=more.pop("time", 1.0))
    return replace(
        template,
        sci=np.full(shape, value, np.float32),
        err=np.full(shape, sigma, np.float32),
        bad=np.zeros(shape, bool),
        info=info,
        variances={"var_rnoise": np.full(shape, more.pop("rnoise", 1.0), np.float32)},
        variance_refs=None,
        variance_refs_coherent=None,
        **more,
    )


@pytest.mark.parametrize(
    ("weight_type", "expected"),
    [
        ("exptime", (1.0 * 100 + 3.0 * 300) / 400),
        ("uniform", 2.0),
        ("ivm", (1.0 / 1.0 + 3.0 / 4.0) / (1.0 + 1.0 / 4.0)),
    ],
)
def test_exposures_are_weighted_as_is_asked_for(clean, weight_type, expected):
    _, _, templates = clean
    pair = [
        constant(templates[0], 1.0, 1.0, time=100.0, rnoise=1.0),
        constant(templates[0], 3.0, 2.0, time=300.0, rnoise=4.0),
    ]
    image = combine(pair, CombineRecipe(weight_type=weight_type))
    covered = np.isfinite(image.sci)
    np.testing.assert_allclose(image.sci[covered], expected, rtol=1e-5)


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_the_pixel_scale_of_the_image_is_as_asked_for(clean, ratio):
    _, _, templates = clean
    template = templates[0]
    shape = template.sci.shape
    y, x = np.indices(shape[1:])
    star = StarPosition(36.0, 35.0)
    source = np.exp(-0.5 * ((y - 40.0) ** 2 + (x - 30.0) ** 2) / 3.0**2)
    exposure = replace(
        constant(template, 0.0, 1.0), sci=np.tile(source, (shape[0], 1, 1)), star=star
    )
    plain = combine([exposure], CombineRecipe())
    image = combine([exposure], CombineRecipe(pixel_scale_ratio=ratio))
    np.testing.assert_allclose(image.pixel_area_sr / plain.pixel_area_sr, ratio**2, rtol=1e-3)
    np.testing.assert_allclose(np.array(image.sci.shape) * ratio, plain.sci.shape, rtol=0.05)
    # The star falls on one sky position, and a source keeps its flux, whatever the pixels are.
    sky = [np.array(i.wcs(i.star.x, i.star.y)) for i in (plain, image)]
    np.testing.assert_allclose(sky[1], sky[0], atol=1e-9)
    flux = [np.nansum(i.sci) * i.pixel_area_sr for i in (plain, image)]
    np.testing.assert_allclose(flux[1], flux[0], rtol=0.01)
