"""Stated errors of psfsub and i2d against Monte Carlo over noise draws of an observation."""

from dataclasses import replace

import gwcs
import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import ICRS, SkyCoord
from astropy.io import fits
from astropy.modeling import models
from astropy.wcs import WCS
from gwcs.coordinate_frames import CelestialFrame, Frame2D
from scipy.optimize import root

import scenes
from lyot.algorithms.geometry import radius_map
from lyot.algorithms.zones import full_frame
from lyot.analysis.companion import fit_companions
from lyot.analysis.exposure import make_exposure
from lyot.analysis.observation import make_observation
from lyot.analysis.photometry import FluxMaps
from lyot.analysis.psf import psf_from_image
from lyot.errors import LyotError
from lyot.files.astrometry import plane_of
from lyot.files.combined import combined_model, residuals_from_model
from lyot.files.exposure import Cube, as_model, cube_from_model, read_cube, stack
from lyot.files.provenance import stamp, star_of
from lyot.files.star import StarPosition
from lyot.parameters import AlignRecipe, CombineRecipe, SubtractRecipe
from lyot.references.aligner import Aligner
from lyot.references.prepare import prepare_refs
from lyot.simulate import Scene, simulate_observation
from lyot.simulate.exposure_model import Pointing, exposure_model
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
            aligner = Aligner(target, prepared, align, star_xy=(35.25, 35.75))
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


def test_exposures_without_read_noise_are_weighted_by_their_err(clean):
    _, _, templates = clean
    pair = [constant(templates[0], 1.0, 1.0), constant(templates[0], 3.0, 2.0)]
    alike = [constant(templates[0], 1.0, 1.0), constant(templates[0], 3.0, 1.0)]
    for exposure in (*pair, *alike):
        exposure.variances.clear()
    image, plain = (combine(exposures, CombineRecipe()) for exposures in (pair, alike))
    covered = np.isfinite(image.sci)
    np.testing.assert_allclose(image.sci[covered], (1.0 + 3.0 / 4.0) / 1.25, rtol=1e-5)
    np.testing.assert_allclose(plain.sci[covered], 2.0, rtol=1e-5)
    uniform = combine(alike, CombineRecipe(weight_type="uniform"))
    np.testing.assert_array_equal(plain.wht, uniform.wht)


def test_integrations_drizzled_as_their_mean_make_the_image_of_one_after_another(clean, rng):
    _, _, templates = clean
    n_int = 35  # more than the bits of one plane of CON
    shape = (n_int, *templates[0].sci.shape[1:])
    bad = np.zeros(shape, bool)
    bad[7:12, 20:30, 30:40] = True  # some integrations alike
    bad[rng.integers(0, n_int, 9), rng.integers(0, 72, 9), rng.integers(0, 72, 9)] = True
    exposure = replace(
        constant(templates[0], 0.0, 1.0),
        sci=np.where(bad, np.nan, rng.normal(5.0, 1.0, shape)).astype(np.float32),
        err=rng.uniform(0.5, 1.5, shape).astype(np.float32),
        bad=bad,
        variances={"var_rnoise": rng.uniform(0.5, 2.0, shape).astype(np.float32)},
    )
    other = constant(templates[1], 4.0, 1.0)

    def alone(i):
        of_one = {name: getattr(exposure, name)[i : i + 1] for name in ("sci", "err", "bad")}
        variances = {"var_rnoise": exposure.variances["var_rnoise"][i : i + 1]}
        return replace(exposure, variances=variances, **of_one)

    recipe = CombineRecipe(weight_type="ivm")
    image = combine([exposure, other], recipe)
    each = combine([*(alone(i) for i in range(n_int)), other], recipe)
    np.testing.assert_array_equal(image.con, each.con)
    assert len(np.unique(image.con[0])) > 2  # not all see each pixel
    assert image.con.shape[0] == 2
    for name in ("sci", "err", "wht"):
        np.testing.assert_allclose(getattr(image, name), getattr(each, name), rtol=2e-6)
    np.testing.assert_allclose(
        image.variances["var_rnoise"], each.variances["var_rnoise"], rtol=2e-6
    )


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


SIDE, PIXEL, SEPARATION, PA = 101, 0.063, 1.7173, 118.3
STARS, ROLLS = ((48.4, 53.2), (52.1, 50.7)), (20.0, 31.0)
WIDTH = 1.1  # of a source, standard deviation [pixel]


def test_an_image_to_which_no_pixel_counts_is_refused(clean):
    template = clean[2][0]
    exposure = replace(template, bad=np.ones(template.sci.shape, bool))
    with pytest.raises(LyotError, match=r"No pixel of .* counts in the combined image"):
        combine([exposure], CombineRecipe())


def test_a_target_far_from_the_star_moves_nothing(clean, caplog):
    star = StarPosition(36.0, 35.5, 0.0, 0.0)
    templates = [replace(t, target_radec=None, star=star) for t in clean[2]]
    expected = combine(templates, CombineRecipe())
    ra, dec = clean[2][0].target_radec
    far = combine([replace(t, target_radec=(ra, dec + 30)) for t in templates], CombineRecipe())
    assert "TARG_RA and TARG_DEC" in caplog.text
    np.testing.assert_array_equal(far.sci, expected.sci)
    assert far.wcs(0, 0) == expected.wcs(0, 0)
    # What the header of a telescope misses by is taken from the target.
    near = combine(
        [replace(t, target_radec=(ra, dec + 1 / 3600)) for t in templates], CombineRecipe()
    )
    star = near.wcs(near.star.x, near.star.y)
    np.testing.assert_allclose(star, (ra, dec + 1 / 3600), rtol=0, atol=1e-9)


def test_the_frames_of_a_wcs_may_have_any_names(clean):
    template = clean[2][0]
    sky = CelestialFrame(reference_frame=ICRS(), name="sky")
    detector = Frame2D(name="pixels")
    other = gwcs.WCS([(detector, template.wcs.forward_transform), (sky, None)])
    named, expected = (
        combine([replace(template, wcs=wcs)], CombineRecipe()) for wcs in (other, template.wcs)
    )
    assert named.s_region == expected.s_region
    np.testing.assert_array_equal(named.sci, expected.sci)


def bent_wcs(wcs):
    """Give a WCS skewed pixels of two scales, which grow over the frame by a tenth."""
    skew = models.AffineTransformation2D(np.array([[0.97, 0.06], [0.01, 1.05]]))
    bend = models.Mapping((0, 1, 0, 1)) | (
        models.Polynomial2D(2, c1_0=1.0, c2_0=1e-3, c1_1=-7e-4)
        & models.Polynomial2D(2, c0_1=1.0, c0_2=8e-4, c2_0=-5e-4)
    )
    to_middle, back = (models.Shift(v) & models.Shift(v) for v in (-0.5 * SIDE, 0.5 * SIDE))
    wcs.insert_transform("detector", to_middle | bend | skew | back, after=True)
    wcs.bounding_box = None
    return wcs


def pixel_of(wcs, sky):
    """Find the pixel (x, y) that sees a position, by the WCS alone."""

    def miss(xy):
        there = SkyCoord(*wcs(*xy), unit="deg")
        return [v.to_value("arcsec") for v in sky.spherical_offsets_to(there)]

    return root(miss, (0.5 * SIDE, 0.5 * SIDE), tol=1e-10).x


@pytest.fixture(scope="module")
def bent():
    """Return exposures with a source, placed by their distorted gWCS alone, and their models."""
    y, x = np.mgrid[:SIDE, :SIDE]
    rng = np.random.default_rng(5)
    out = []
    for number, (star, roll) in enumerate(zip(STARS, ROLLS, strict=True)):
        pointing = Pointing(
            target="T",
            radec_deg=(80.0, -60.0),
            crpix_xy=(50.0, 50.0),
            sky_offset_arcsec=(0.1 * number, -0.07),
            roll_ref_deg=roll,
        )
        model = exposure_model({"data": np.zeros((1, SIDE, SIDE), np.float32)}, pointing)
        wcs = bent_wcs(model.meta.wcs)
        center = SkyCoord(*wcs(*star), unit="deg")
        at = pixel_of(wcs, center.directional_offset_by(PA * u.deg, SEPARATION * u.arcsec))
        source = np.exp(-0.5 * ((x - at[0]) ** 2 + (y - at[1]) ** 2) / WIDTH**2)
        model.data = (1e3 * source + rng.normal(size=source.shape))[None].astype(np.float32)
        model.meta.wcs = wcs
        out.append(model)
    return out


def offset_by_fits_wcs(model, yx):
    """Separation [arcsec] and position angle [degree] from the star of a place on an image."""
    header = fits.Header({k.upper(): v for k, v in model.meta.wcsinfo.instance.items()})
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    wcs, star = WCS(header), star_of(model)
    center, there = (wcs.pixel_to_world(*xy) for xy in ((star.x, star.y), yx[::-1]))
    return center.separation(there).arcsec, center.position_angle(there).deg


def assert_at_the_source(separation, pa, tolerance_arcsec):
    across = np.radians(pa - PA) * SEPARATION
    assert np.hypot(separation - SEPARATION, across) < tolerance_arcsec


def test_table_map_and_image_put_a_source_where_the_gwcs_does(bent):
    rng = np.random.default_rng(6)
    star_of_each = [StarPosition(*star, 0.0, 0.0) for star in STARS]
    recipe = SubtractRecipe(n_modes=(2,), level_inner_arcsec=0.0, subtract_mean=False)
    exposures = [
        make_exposure(
            scenes.cube(model.data, 1.0, roll_ref_deg=roll),
            scenes.aligned(0.1 * rng.normal(size=(3, SIDE, SIDE)), 0.1),
            star,
            recipe,
            plane=plane_of(model, star),
        )
        for model, star, roll in zip(bent, star_of_each, ROLLS, strict=True)
    ]
    py, px = np.mgrid[-8:9, -8:9]
    psf = psf_from_image(np.exp(-0.5 * (px**2 + py**2) / WIDTH**2), origin="a Gaussian")
    observation = make_observation(
        "t", exposures, recipe, psf=psf, transmission=np.ones((SIDE, SIDE))
    )
    # The table: the fit begins a pixel away.
    fit = fit_companions(
        observation, [(SEPARATION + 0.05, PA - 1.0)], n_likelihoods=0, n_injections=0
    )
    [companion] = fit.companions
    assert_at_the_source(companion.separation_arcsec.value, companion.pa_deg.value, 1e-3)
    # The map of fluxes, sampled finely about the place.
    fine = np.linspace(-0.5, 0.5, 101)
    flux = FluxMaps(observation).sample(SEPARATION / PIXEL + fine[:, None], PA + 2.0 * fine)[0]
    r, angle = np.unravel_index(np.argmax(flux), flux.shape)
    assert_at_the_source(SEPARATION + PIXEL * fine[r], PA + 2.0 * fine[angle], 2e-3)
    # The combined image, by its own FITS WCS.
    residuals = []
    for model, star in zip(bent, star_of_each, strict=True):
        residual = residuals_from_model(model, "DO_NOT_USE")
        residuals.append(
            replace(residual, star=star, err=np.ones_like(residual.sci), bad=residual.sci > 1e9)
        )
    image = combine(residuals, CombineRecipe())
    product = combined_model(bent, image, CombineRecipe())
    stamp(product, "resample", {}, [], image.star)
    top = np.unravel_index(np.nanargmax(image.sci), image.sci.shape)
    cut = tuple(slice(v - 6, v + 7) for v in top)
    rows, columns = np.mgrid[cut]
    weight = image.sci[cut] / image.sci[cut].sum()
    place = float((weight * rows).sum()), float((weight * columns).sum())
    assert_at_the_source(*offset_by_fits_wcs(product, place), 2e-3)


def test_the_error_of_a_star_that_exposures_share_does_not_average_down(clean):
    _, _, templates = clean
    star = StarPosition(35.25, 35.75, 0.2, 0.2, "measured")
    exposures = [replace(constant(t, 1.0, 1.0), star=star) for t in templates]
    assert combine(exposures, CombineRecipe()).star.x_err == pytest.approx(0.2)
