"""The image of one source, and what its file says: algebra of samples, places and shares."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from lyot.algorithms.geometry import TangentPlane
from lyot.analysis.companion import fit_companions
from lyot.analysis.observation import open_run, read_psf
from lyot.analysis.psf import model_psf
from lyot.analysis.source_image import named_mode, source_image
from lyot.errors import LyotError
from lyot.files.results import write_image
from lyot.instruments import MIRI, NIRCAM
from lyot.instruments.filters import RAYLEIGH_JEANS, Spectrum

ROUND = named_mode("NIRCAM", "F360M", "MASKA335R")


@pytest.mark.parametrize(
    ("mode", "at"),
    [
        (("NIRCAM", "F210M", "MASKA210R"), (0.3, -0.2)),
        (("MIRI", "F1140C", "4QPM_1140"), (0.5, 2.0)),
    ],
)
@pytest.mark.parametrize("oversample", [2, 3])
def test_samples_sum_to_the_pixels_of_the_detector(mode, at, oversample):
    fine, plain = (
        source_image(named_mode(*mode), at, pixels=25, oversample=n) for n in (oversample, 1)
    )
    binned = fine.psf.image.reshape(25, oversample, 25, oversample).sum(axis=(1, 3))
    np.testing.assert_allclose(binned, plain.psf.image, atol=3e-4 * plain.psf.image.max())
    assert fine.keywords["PIXELSCL"][0] * oversample == pytest.approx(plain.keywords["PIXELSCL"][0])
    assert fine.psf.transmission == pytest.approx(plain.psf.transmission)


def test_a_small_image_is_the_middle_of_a_large_one_that_holds_nearly_all():
    made = [source_image(ROUND, (2.5, 1.0), pixels=n).psf for n in (33, 65, 257)]
    shares = [each.stamp_fraction for each in made]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0, abs=0.03)
    middle = made[1].image[16:-16, 16:-16]
    np.testing.assert_allclose(middle, made[0].image, atol=2e-3 * middle.max())
    assert middle.sum() == pytest.approx(shares[0], rel=2e-3)
    for each in made:
        assert each.image.sum() == pytest.approx(each.stamp_fraction, rel=1e-12)


def test_star_and_mask_of_an_exposure_tell_where_the_source_is():
    """An offset from the star is one from the mask by as much as the star lies beside it."""
    shift_xy, area = (1.5, -2.0), (0.063 / 206264.806247) ** 2
    known = {"shape": (90, 90), "crpix_xy": None, "pixel_area_sr": area}
    beside = replace(
        ROUND, star_xy=(45.0 + shift_xy[0], 44.0 + shift_xy[1]), mask_xy=(45.0, 44.0), **known
    )
    scale = NIRCAM.optics(
        "MASKA335R", "F360M", pixel_scale_arcsec=0.063
    ).detector.pixel_scale_arcsec
    moved = tuple(np.array([0.4, 0.1]) + np.multiply(shift_xy, scale))
    expected = source_image(replace(ROUND, star_xy=(45.0, 44.0), **known), moved, pixels=21)
    found = source_image(beside, (0.4, 0.1), pixels=21)
    assert found.psf.transmission == pytest.approx(expected.psf.transmission, abs=1e-9)
    np.testing.assert_allclose(found.psf.image, expected.psf.image, atol=1e-9)
    assert found.keywords["MASKX"][0] == pytest.approx(moved[0])


def test_by_a_gwcs_the_columns_tell_y_and_skewed_pixels_are_reckoned_with():
    """Pixels of 62 x 63 mas, the rows 0.5 degree from a right angle, the columns at 70 degrees."""
    known = {"shape": (90, 90), "pixel_area_sr": (0.0625 / 206264.806247) ** 2}
    info = replace(ROUND, star_xy=(45.0, 44.0), **known)
    y, x = (a.ravel() for a in np.mgrid[0:90, 0:90])
    of_y, of_x = np.radians(70.0), np.radians(70.0 - 90.5)
    east = 0.063 * np.sin(of_y) * (y - 44.0) + 0.062 * np.sin(of_x) * (x - 45.0)
    north = 0.063 * np.cos(of_y) * (y - 44.0) + 0.062 * np.cos(of_x) * (x - 45.0)
    plane = TangentPlane.through((44.0, 45.0), y, x, east, north)
    r, angle = 1.4, np.radians(25.0)
    at = (-r * np.sin(angle), r * np.cos(angle))
    made = source_image(info, at, plane=plane, pixels=5)
    place = plane.pixel(r * np.sin(of_y + angle), r * np.cos(of_y + angle)) - plane.star_yx
    scale = [made.keywords[f"PIXSCL_{axis}"][0] for axis in "YX"]
    found = [made.keywords[f"MASK{axis}"][0] for axis in "YX"]
    np.testing.assert_allclose(found, place * scale, atol=1e-6)
    assert np.abs(found - np.array(at)[::-1]).max() > 0.004  # of 1.4


def test_the_image_is_that_of_stpsf_where_an_analysis_takes_it(monkeypatch):
    class Camera:
        def calc_psf(self, *, fov_pixels, oversample, **_):
            image = np.full((fov_pixels * oversample,) * 2, 0.8 / (fov_pixels * oversample) ** 2)
            return [SimpleNamespace(data=image)]

    plain = source_image(ROUND, (0.5, 0.2), pixels=11, oversample=2)
    drawn = {"pixels": 11, "seed": 3}
    by_model = source_image(ROUND, (0.5, 0.2), **drawn).psf.image
    module = SimpleNamespace(NIRCam=Camera, __version__="9.9")
    monkeypatch.setitem(sys.modules, "stpsf", module)
    monkeypatch.setenv("STPSF_PATH", "somewhere")
    made = source_image(ROUND, (0.5, 0.2), pixels=11, oversample=2)
    assert made.keywords["PSFMODEL"].startswith("stpsf 9.9")
    assert plain.keywords["PSFMODEL"] == "model of the package"
    assert made.psf.image.shape == plain.psf.image.shape
    assert made.psf.stamp_fraction == pytest.approx(0.8)
    assert made.psf.transmission == pytest.approx(plain.psf.transmission)
    assert "WFE_TEL" not in made.keywords
    # Only the model draws wavefronts.
    np.testing.assert_array_equal(source_image(ROUND, (0.5, 0.2), **drawn).psf.image, by_model)


def test_behind_a_bar_the_star_is_where_the_filter_puts_it():
    bar = NIRCAM.coronagraph("MASKLWB")
    made = source_image(named_mode("NIRCAM", "F335M", "MASKALWB"), (0.3, 0.8), pixels=21)
    along = bar.star_x_arcsec("F335M") + 0.3
    assert made.keywords["MASKX"][0] == pytest.approx(along)
    expected = NIRCAM.optics("MASKLWB", "F335M").transmission((along, 0.8))
    assert made.psf.transmission == pytest.approx(expected, abs=1e-6)


def test_the_image_is_in_the_orientation_of_the_detector():
    """A source far up the y axis has lost less of its light than one on the star's own row."""
    mode = named_mode("NIRCAM", "F335M", "MASKALWB")
    along, across = (source_image(mode, at, pixels=5).psf.transmission for at in ((2, 0), (0, 2)))
    assert along < 0.1
    assert across > 0.9


@pytest.mark.parametrize(
    ("mode", "scale", "at"),
    [
        ((NIRCAM, "F360M", "MASK335R"), 0.063, (3.0, 0.5)),
        ((MIRI, "F2300C", "LYOT_2300"), 0.111, (6.0, 1.0)),
    ],
    ids=["F360M", "F2300C"],
)
@pytest.mark.parametrize("oversample", [2, 3])
def test_a_file_gives_the_flux_of_the_model(mode, scale, at, oversample, tmp_path):
    instrument, band, mask = mode
    area = (scale / 206264.806247) ** 2
    info = replace(named_mode(instrument.name, band, mask), shape=(90, 90), pixel_area_sr=area)
    made = source_image(info, at, pixels=49, oversample=oversample)
    path = write_image(made.psf.image, tmp_path / "psf.fits", keywords=made.keywords)
    theirs = read_psf(path, info)
    ours = model_psf(instrument, instrument.coronagraph(mask), instrument.filter(band), scale)
    assert theirs.data.sum() == pytest.approx(ours.data.sum(), rel=0.005)
    model, seen = (p.cropped(8).stamp(0.3, -0.4) for p in (ours, theirs))
    assert (seen * model).sum() / (model**2).sum() == pytest.approx(1.0, abs=0.005)


def test_a_file_of_a_source_that_the_mask_splits_stays_where_the_source_is(tmp_path):
    mode = replace(named_mode("MIRI", "F1140C", "4QPM_1140"), shape=(90, 90))
    made = source_image(mode, (0.12, 2.0), pixels=25, oversample=2)
    path = write_image(made.psf.image, tmp_path / "psf.fits", keywords=made.keywords)
    np.testing.assert_allclose(read_psf(path, mode).data, made.psf.image, atol=1e-12)


def test_a_draw_of_the_wavefront_is_another_image_of_the_same_light():
    mean, draw = (source_image(ROUND, (2.5, 1.0), pixels=49, seed=s) for s in (None, 7))
    assert draw.keywords["WFESEED"][0] == 7
    assert mean.keywords["WFESEED"][0] == "mean"
    assert np.abs(draw.psf.image - mean.psf.image).max() > 0.01 * mean.psf.image.max()
    assert draw.psf.stamp_fraction == pytest.approx(mean.psf.stamp_fraction, abs=0.03)


@pytest.mark.parametrize(
    ("at", "options", "text"),
    [
        ((np.nan, 0.0), {}, "must be finite"),
        ((1.0, 0.0), {"pixels": 64}, "pixels is 64; it must be odd"),
        ((1.0, 0.0), {"oversample": 0}, "oversample is 0"),
        ((1.0, 0.0), {"pixels": 999, "oversample": 9}, "at most 4095 samples"),
    ],
)
def test_bad_requests_are_refused(at, options, text):
    with pytest.raises(LyotError, match=text):
        source_image(ROUND, at, **options)


@pytest.mark.parametrize(("pixels", "oversample", "shares"), [(65, 3, True), (41, 2, False)])
def test_a_file_as_psf_gives_the_flux_of_the_model(demo, pixels, oversample, shares, tmp_path):
    """One normalization: fluxes of a fit with a file and with the model agree to 0.5 %."""
    made = source_image(
        named_mode("NIRCAM", "F444W", "MASKA335R"), (2.5, 1.0), pixels=pixels, oversample=oversample
    )
    keywords = made.keywords if shares else {"OVERSAMP": oversample}
    image = made.psf.image if shares else 123.0 * made.psf.image
    path = write_image(image, tmp_path / "psf.fits", keywords=keywords)
    fluxes = []
    for psf in (None, path):
        with open_run(demo.folder, psf=psf) as observation:
            fit = fit_companions(observation, [(2.2, 25.0)], n_likelihoods=0, n_injections=0)
            fluxes.append(fit.companions[0].flux.value)
    assert fluxes[1] == pytest.approx(fluxes[0], rel=0.005)


def test_the_image_of_a_cold_source_is_that_of_its_light():
    hot, cold = (
        source_image(ROUND, (2.5, 1.0), spectrum=spectrum)
        for spectrum in (RAYLEIGH_JEANS, Spectrum.blackbody(400.0))
    )
    assert cold.keywords["SPECTRUM"] == "blackbody of 400 K"
    mean = [
        sum(k[f"WAVE{i}"][0] * k[f"WGHT{i}"][0] for i in range(k["NWAVES"][0]))
        for k in (hot.keywords, cold.keywords)
    ]
    assert 1.005 < mean[1] / mean[0] < 1.02
    assert cold.psf.image.max() < hot.psf.image.max()
