"""AU Mic, NIRCam F444W behind MASKA335R: what is known about these frames comes out."""

import json
import shutil
import warnings

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from scipy import ndimage
from stdatamodels.jwst import datamodels

from lyot.algorithms import fourier, registration, repair
from lyot.algorithms.zones import Zone
from lyot.analysis.companion import fit_companions
from lyot.analysis.observation import open_run
from lyot.analysis.psf import model_psf
from lyot.files.aligned import AlignedArrays
from lyot.files.association import FOLDER_KEY
from lyot.files.exposure import read_cube, stack
from lyot.files.provenance import provenance_of, star_of
from lyot.files.sorting import build_associations
from lyot.files.star import StarPosition
from lyot.instruments import NIRCAM
from lyot.parameters import AlignRecipe, SubtractRecipe
from lyot.pipeline import Coron3Pipeline
from lyot.references.aligner import Aligner
from lyot.references.prepare import prepare_refs
from lyot.references.star import guess_star
from lyot.references.weights import read_psfmask
from lyot.subtraction.subtract import subtract
from scenes import blank_sky_over_err

STAR = StarPosition(150.0, 174.0)
SCALE = 0.062595
REFS = ("003", "004", "005", "006", "013", "014")


@pytest.fixture(scope="module")
def files(data_dir):
    return sorted((data_dir / "aumic_f444w").glob("*_calints.fits"))


@pytest.fixture(scope="module")
def frames(files):
    return [read_cube(f) for f in files[:2]], stack(read_cube(f) for f in files[2:])


def product(aumic_run, ending):
    return next(iter(sorted(aumic_run.glob(f"*{ending}"))))


def test_every_product_opens_without_a_warning(aumic_run):
    kinds = {}
    for path in aumic_run.glob("*.fits"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with datamodels.open(path) as model:
                kinds.setdefault(path.stem.rpartition("_")[2], []).append(type(model).__name__)
    assert kinds == {
        "psfstack": ["CubeModel"],
        "crfints": ["CubeModel"] * 2,
        "psfalign": ["QuadModel"] * 2,
        "psfsub": ["CubeModel"] * 2,
        "i2d": ["ImageModel"],
        "snr": ["ImageModel"],
        "contrast": ["ContrastModel"],
    }


@pytest.mark.parametrize(
    ("roll", "coefficients", "before", "after"),
    [
        (0, [6.012, 3.754, -2.468, -0.095, 3.080, -3.177], 63.345, 2.4784),
        (1, [5.463, 3.618, -0.665, -5.019, 2.816, -0.473], 60.064, 2.5527),
    ],
)
def test_klip_is_the_known_least_squares(frames, roll, coefficients, before, after):
    science, refs = frames
    y, x = np.ogrid[:320, :320]
    finite = np.isfinite(np.concatenate([c.sci for c in (*science, refs)])).all(axis=0)
    zone = (finite & (np.hypot(x - 150, y - 174) * SCALE < 3)).astype(float)
    assert zone.sum() == 7209
    aligned = AlignedArrays(refs.sci, refs.err, refs.dq)
    [out] = subtract(
        science[roll], aligned, [Zone(zone, zone)], SubtractRecipe(subtract_mean=False)
    )
    np.testing.assert_allclose(out.coefficients[0, 0], coefficients, rtol=0.01, atol=0.002)
    assert np.std(science[roll].sci[0][zone > 0]) == pytest.approx(before, rel=0.01)
    assert np.std(out.sci[0][zone > 0]) == pytest.approx(after, rel=0.01)


def test_aligned_frames_stay_where_they_are(aumic_run):
    for path in aumic_run.glob("*psfsub.fits"):
        with datamodels.open(path) as model:
            align = provenance_of(model)["steps"]["align_psfs"]
        assert np.abs(align["shift_yx"]).max() < 0.02
        assert np.all(align["converged"])


def test_a_known_shift_comes_back(frames):
    science, refs = frames
    recipe = AlignRecipe()
    still = Aligner(science[0], prepare_refs(refs, recipe), recipe).align(0).fit
    repaired = repair.median_fill(refs.sci, refs.bad("DO_NOT_USE"))
    moved = refs.sci.copy()
    # 0.40 pixel along x and -0.30 along y, put in as float32.
    moved[2] = fourier.shift(
        fourier.spectrum(repaired[2]), np.array([-0.30, 0.40]), shape=(320, 320)
    ).astype(np.float32)
    shifted = type(refs)(moved, refs.err, refs.dq, refs.info)
    aligner = Aligner(science[0], prepare_refs(shifted, recipe), recipe)
    found = aligner.align(0).fit.shift_yx - still.shift_yx
    np.testing.assert_allclose(found[2], [0.30, -0.40], atol=0.005)
    # The others stay, but for the weight, which asks what the references have in common.
    np.testing.assert_allclose(np.delete(found, 2, axis=0), 0.0, atol=1e-4)


def test_the_star_is_where_the_frames_were_centered(aumic_run):
    stars = []
    for path in aumic_run.glob("*psfsub.fits"):
        with datamodels.open(path) as model:
            stars.append(star_of(model))
    for star in stars:
        assert star.origin == "measured"
        off = np.hypot(star.x - 150, star.y - 174)
        assert off < 0.05
        assert off < 2 * min(star.x_err, star.y_err)
    assert np.hypot(stars[0].x - stars[1].x, stars[0].y - stars[1].y) < 0.02


def test_the_stars_of_both_rolls_fall_on_one_pixel(aumic_run):
    from lyot.files.combined import residuals_from_model
    from lyot.parameters import CombineRecipe
    from lyot.sky import anchored_wcs

    models = [datamodels.open(p) for p in sorted(aumic_run.glob("*psfsub.fits"))]
    with datamodels.open(product(aumic_run, "_i2d.fits")) as image:
        wcs, star = image.meta.wcs, star_of(image)
        exposures = [residuals_from_model(m, "DO_NOT_USE") for m in models]
        at = []
        for own in anchored_wcs(exposures, CombineRecipe()):
            at.append(wcs.invert(*own(150.0, 174.0), with_bounding_box=False))
        assert np.hypot(*np.subtract(at[0], at[1])) < 0.05
        # The recorded star is the measured one.
        assert np.hypot(at[0][0] - star.x, at[0][1] - star.y) < 0.05
        # The headers put them 1.7 pixels apart.
        plain = [wcs.invert(*e.wcs(150.0, 174.0), with_bounding_box=False) for e in exposures]
        assert 1.5 < np.hypot(*np.subtract(plain[0], plain[1])) < 1.9
    for model in models:
        model.close()


def test_the_disc_lies_at_its_known_position_angle(aumic_run):
    """Ridge fit over 1 to 4.5 arcsec; the published model has 128.7 degrees."""
    with datamodels.open(product(aumic_run, "_i2d.fits")) as model:
        image = np.asarray(model.data, float)
        star, wcs = star_of(model), model.meta.wcs
        ra, dec = wcs(star.x, star.y)

        def pixel(separation, pa_deg):
            pa = np.radians(pa_deg)
            north, east = separation * np.cos(pa) / 3600, separation * np.sin(pa) / 3600
            return wcs.invert(
                ra + east / np.cos(np.radians(dec)), dec + north, with_bounding_box=False
            )

        smooth = ndimage.gaussian_filter(np.nan_to_num(image), 1.0)
        angles = np.arange(100.0, 160.0, 0.25)
        ridge = []
        for side in (0.0, 180.0):
            for separation in np.arange(1.0, 4.5, 0.1):
                x, y = pixel(separation, angles + side)
                profile = ndimage.map_coordinates(smooth, [y, x], order=1)
                k = int(np.argmax(profile))
                near = slice(max(k - 12, 0), k + 13)
                w = np.maximum(profile[near] - 0.5 * profile[k], 0)
                ridge.append((w * angles[near]).sum() / w.sum())
    assert np.median(ridge) == pytest.approx(128.7, abs=2.0)


def test_errors_of_the_inputs_are_as_known(frames):
    science, refs = frames
    y, x = np.ogrid[:320, :320]
    far = np.hypot(x - 150, y - 174) > 100
    for cube, known in ((science[0], 0.182), (science[1], 0.182), (refs, 0.066)):
        for err in cube.err:
            assert np.nanmedian(err[far]) == pytest.approx(known, abs=0.003)


def test_err_is_compared_with_the_blank_sky(aumic_run):
    for path in aumic_run.glob("*psfsub.fits"):
        plain, ratio = blank_sky_over_err(path, 0.0626)
        assert ratio == pytest.approx(plain, rel=0.05)
        assert 0.55 < ratio < 0.75


def test_an_error_is_there_wherever_there_is_a_value(aumic_run):
    for ending in ("psfsub.fits", "i2d.fits", "psfalign.fits"):
        for path in aumic_run.glob(f"*{ending}"):
            with fits.open(path) as hdus:
                good = np.isfinite(hdus["SCI"].data)
                assert np.isfinite(hdus["ERR"].data[good]).all()


def test_a_real_psfmask_is_used_and_its_offset_is_said(data_dir, frames, caplog):
    science, refs = frames
    mask = data_dir / "psfmask" / "jwst_nircam_psfmask_0019.fits"
    recipe = AlignRecipe()
    with caplog.at_level("WARNING", logger="lyot"):
        aligner = Aligner(
            science[0],
            prepare_refs(refs, recipe),
            recipe,
            weight=read_psfmask(mask, science[0].info, guess_star(science[0].info, None)),
        )
    assert "pixels from the star" in caplog.text
    assert np.abs(aligner.align(0).fit.shift_yx).max() < 0.06


@pytest.mark.parametrize("number", ["0003", "0019", "0027", "0036", "0049"])
def test_all_real_psfmasks_are_read(data_dir, number):
    from lyot.files.headers import ExposureInfo

    path = data_dir / "psfmask" / f"jwst_nircam_psfmask_{number}.fits"
    shape = fits.getdata(path, "SCI").shape
    info = ExposureInfo(name="x.fits", shape=(1, *shape), instrument="NIRCAM", filter="F335M")
    weight = read_psfmask(path, info, StarPosition(shape[1] / 2, shape[0] / 2))
    assert weight.shape == shape
    assert weight.min() >= 0
    assert weight.max() > 0


def test_registration_of_the_raw_frames_is_within_its_known_scatter(frames):
    """The weight 8 < r < 48 pixels gives shifts up to 0.013 pixels."""
    science, refs = frames
    y, x = np.ogrid[:320, :320]
    r = np.hypot(x - 150, y - 174)
    bad = science[0].bad("DO_NOT_USE")[0]
    weight = ((r > 8) & (r < 48) & ~bad).astype(float)
    spectra = fourier.spectrum(repair.median_fill(refs.sci, refs.bad("DO_NOT_USE")))
    found = registration.refine(
        np.where(bad, 0.0, science[0].sci[0]).astype(float),
        weight,
        science[0].variance()[0],
        spectra,
        refs.variance(),
        np.zeros((6, 2)),
    )
    assert 0.009 < np.abs(found.shift_yx).max() < 0.0145
    assert found.scale.max() == pytest.approx(24, rel=0.05)


def test_sources_are_measured_where_the_gwcs_of_each_exposure_puts_them(files, tmp_path):
    """Copies of the exposures with a source each, placed by their own gWCS, and reduced."""
    mask, band = NIRCAM.coronagraph("MASK335R"), NIRCAM.filter("F444W")
    psf = model_psf(NIRCAM, mask, band, SCALE)
    sources = [(2.4, 20.0), (4.5, 80.0), (4.5, 215.0), (7.5, 50.0)]
    copies = [tmp_path / f.name for f in files]
    for number, (file, copy) in enumerate(zip(files, copies, strict=True)):
        shutil.copy(file, copy)
        if number > 1:
            continue
        with datamodels.open(file) as model:
            wcs = model.meta.wcs
        star = SkyCoord(*wcs(STAR.x, STAR.y, with_bounding_box=False), unit="deg")
        with fits.open(copy, mode="update") as hdus:
            data = hdus["SCI"].data
            for separation, pa in sources:
                there = star.directional_offset_by(pa * u.deg, separation * u.arcsec)
                x, y = wcs.invert(there.ra.deg, there.dec.deg, with_bounding_box=False)
                box, image = psf.place(float(y), float(x), data.shape[-2:])
                data[..., box[0], box[1]] += (3000.0 * image).astype(data.dtype)
    [asn] = build_associations(copies)
    asn[FOLDER_KEY] = str(tmp_path)
    (tmp_path / "asn.json").write_text(json.dumps(asn))
    pipeline = Coron3Pipeline()
    pipeline.output_dir = str(tmp_path)
    for step in (pipeline.klip, pipeline.align_refs):
        step.star_x, step.star_y = STAR.x, STAR.y
    pipeline.run(str(tmp_path / "asn.json"))
    with open_run(tmp_path) as observation:
        for separation, pa in sources:
            fit = fit_companions(
                observation, [(separation, pa)], n_likelihoods=0, n_injections=0
            ).companions[0]
            across = np.radians(fit.pa_deg.value - pa) * separation
            assert np.hypot(fit.separation_arcsec.value - separation, across) < 2e-3
