"""The off-axis PSF: placed anywhere, from the user, from stpsf, or the package's model."""

import sys
import types
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits

from lyot.algorithms import fourier
from lyot.analysis.observation import read_psf
from lyot.analysis.psf import best_psf, model_psf, psf_from_image
from lyot.errors import LyotError
from lyot.files.headers import ExposureInfo
from lyot.instruments import MIRI, NIRCAM
from lyot.instruments.instrument import mode_optics
from scenes import gaussian

MODE = (NIRCAM, NIRCAM.coronagraph("MASKA335R"), NIRCAM.filter("F444W"))


def normalized(n, y, x, fwhm):
    image = gaussian((n, n), (y, x), fwhm)
    return image / image.sum()


def test_an_image_is_placed_where_it_is_asked_for():
    psf = psf_from_image(normalized(31, 14.8, 15.3, 3.0), origin="test")
    box, image = psf.place(20.25, 30.6, (50, 60))
    y, x = np.mgrid[box]
    total = image.sum()
    np.testing.assert_allclose((image * y).sum() / total, 20.25, atol=1e-3)
    np.testing.assert_allclose((image * x).sum() / total, 30.6, atol=1e-3)
    np.testing.assert_allclose(total, 1.0, atol=1e-3)
    assert psf.fwhm_pix == pytest.approx(3.0, rel=0.03)


def test_an_oversampled_image_is_binned():
    fine = psf_from_image(normalized(93, 46.0, 46.0, 9.0), oversample=3, origin="test")
    coarse = psf_from_image(normalized(31, 15.0, 15.0, 3.0), origin="test")
    # Pixels of three samples integrate, which widens the image a little.
    np.testing.assert_allclose(fine.stamp(0.2, -0.1).sum(), 1.0, atol=1e-3)
    assert coarse.fwhm_pix < fine.fwhm_pix < 1.1 * coarse.fwhm_pix


def test_a_stamp_is_the_sum_over_the_samples_of_each_pixel_of_the_moved_image():
    for psf in (model_psf(*MODE, 0.063), psf_from_image(np.eye(33), origin="x", oversample=2)):
        over, n = psf.oversample, 2 * psf.half_pix + 1
        move = np.array([0.31, -0.24]) * over
        moved = fourier.shift(fourier.spectrum(psf.data), move, shape=psf.data.shape)
        edge = (len(moved) - n * over) // 2
        cut = moved[edge : edge + n * over, edge : edge + n * over]
        expected = cut.reshape(n, over, n, over).sum(axis=(1, 3))
        np.testing.assert_allclose(psf.stamp(0.31, -0.24), expected, atol=1e-14)


def test_an_even_oversampling_has_its_center_between_samples():
    over = 4
    fine = psf_from_image(normalized(31 * over, 61.5, 61.5, 12.0), oversample=over, origin="test")
    y, x = np.mgrid[-15:16, -15:16]
    for dy, dx in ((0.0, 0.0), (0.3, -0.2)):
        stamp = fine.stamp(dy, dx)
        assert stamp.shape == (31, 31)
        found = [(stamp * axis).sum() / stamp.sum() for axis in (y, x)]
        np.testing.assert_allclose(found, (dy, dx), atol=1e-3)


def test_the_middle_of_an_image_is_the_same():
    psf = psf_from_image(normalized(93, 46.0, 46.0, 9.0), oversample=3, origin="test")
    small = psf.cropped(5)
    assert small.half_pix == 5
    cut = psf.half_pix - 5
    np.testing.assert_allclose(
        small.stamp(0.0, 0.0), psf.stamp(0.0, 0.0)[cut:-cut, cut:-cut], atol=1e-9
    )
    assert psf.cropped(99) is psf


def test_a_source_at_the_edge_is_cut():
    psf = psf_from_image(normalized(31, 15.0, 15.0, 3.0), origin="test")
    box, image = psf.place(1.0, 59.0, (50, 60))
    assert image.shape == (box[0].stop - box[0].start, box[1].stop - box[1].start)
    assert box[0].start == 0
    assert box[1].stop == 60


@pytest.mark.parametrize(
    ("image", "options", "text"),
    [
        (np.full((9, 9), np.nan), {}, "holds NaN"),
        (np.zeros((9, 9)), {}, "must be positive"),
        (np.ones(9), {}, "must be an image"),
        (normalized(31, 15.0, 15.0, 3.0), {"oversample": 0}, "must be 1 or more"),
        (normalized(31, 1.0, 15.0, 3.0), {}, "too near its edge"),
    ],
)
def test_bad_images_are_refused(image, options, text):
    with pytest.raises(LyotError, match=text):
        psf_from_image(image, origin="test", **options)


def test_the_model_has_the_width_of_its_filter():
    psf = model_psf(*MODE, 0.063)
    diffraction = 4.421e-6 / 6.5 * 206265 / 0.063
    # The openings of the Lyot stop reach less far than the pupil.
    assert diffraction < psf.fwhm_pix < 1.3 * diffraction
    assert 0.8 < psf.stamp(0.0, 0.0).sum() < 0.87


@pytest.mark.parametrize("half_width", [24, 12])
@pytest.mark.parametrize("states_share", [True, False])
def test_a_file_of_the_model_s_psf_gives_the_same_fluxes(half_width, states_share, tmp_path):
    model = model_psf(*MODE, 0.063)
    small = model.cropped(half_width)
    hdu = fits.PrimaryHDU(7.5 * small.data)
    hdu.header["OVERSAMP"] = small.oversample
    if states_share:
        hdu.header["STAMPFRC"] = small.data.sum()
    hdu.writeto(tmp_path / "psf.fits")
    mode = {"instrument": "NIRCAM", "filter": "F444W", "coronagraph": "MASKA335R"}
    info = ExposureInfo("x", (2, 90, 90), pixel_area_sr=(0.063 / 206264.806) ** 2, **mode)
    psf = read_psf(tmp_path / "psf.fits", info)
    frame = model.place(45.3, 44.6, (90, 90))[1]
    assert frame.sum() == pytest.approx(model.data.sum(), rel=0.005)
    ours, theirs = (p.cropped(8).stamp(0.3, -0.4) for p in (model, psf))
    flux = (ours * theirs).sum() / (theirs**2).sum()
    assert flux == pytest.approx(1.0, abs=0.005)


def test_near_a_mask_the_image_is_that_of_the_place():
    psf = model_psf(MIRI, MIRI.coronagraph("4QPM_1140"), MIRI.filter("F1140C"), 0.111)
    optics = psf.near_mask.optics
    place = (3.0, 0.11)
    exact = optics.psf(optics.mask.along_detector(*place), n_pixels=49, oversample=3).image
    found = psf.behind(place).data
    assert np.abs(found - exact).max() < 0.01 * exact.max()
    assert np.abs(found - exact).max() < 0.25 * np.abs(psf.data - exact).max()
    assert psf.behind((5.0, -5.0)) is psf


def test_stpsf_is_used_where_it_is_installed_with_its_data(monkeypatch):
    asked = {}

    class Camera:
        def calc_psf(self, **options):
            asked.update(options, filter=self.filter, pupil_mask=self.pupil_mask)
            return [types.SimpleNamespace(data=normalized(147, 73.0, 73.0, 7.0))]

    module = types.SimpleNamespace(NIRCam=Camera, MIRI=Camera, __version__="9.9")
    monkeypatch.setitem(sys.modules, "stpsf", module)
    monkeypatch.setenv("STPSF_PATH", "somewhere")
    best_psf.cache_clear()
    psf = best_psf(*MODE, 0.063)
    best_psf.cache_clear()
    assert psf.origin.startswith("stpsf 9.9")
    assert asked["pupil_mask"] == "MASKRND"
    assert asked["normalize"] == "exit_pupil"
    monkeypatch.delenv("STPSF_PATH")
    assert best_psf(*MODE, 0.063).origin.startswith("model of the package")
    best_psf.cache_clear()


def test_stpsf_is_asked_for_the_camera_of_the_instrument(monkeypatch):
    class Camera:
        def calc_psf(self, **_):
            return [types.SimpleNamespace(data=normalized(147, 73.0, 73.0, 7.0))]

    class Imager(Camera):
        def calc_psf(self, **_):
            assert self.pupil_mask == "MASKFQPM"
            return [types.SimpleNamespace(data=normalized(147, 73.0, 73.0, 14.0))]

    module = types.SimpleNamespace(NIRCam=Camera, MIRI=Imager, __version__="9.9")
    monkeypatch.setitem(sys.modules, "stpsf", module)
    monkeypatch.setenv("STPSF_PATH", "somewhere")
    best_psf.cache_clear()
    phase_mask = (MIRI.coronagraph("4QPM_1140"), MIRI.filter("F1140C"))
    assert best_psf(MIRI, *phase_mask, 0.111).fwhm_pix > 1.5 * best_psf(*MODE, 0.063).fwhm_pix
    # An instrument that stpsf does not know has the package's own model.
    other = replace(MIRI, name="OTHER", stpsf_class="")
    assert best_psf(other, *phase_mask, 0.111).origin.startswith("model of the package")
    best_psf.cache_clear()


def test_the_psf_does_not_depend_on_the_threads_of_the_linear_algebra():
    from threadpoolctl import threadpool_limits

    made = []
    for n in (1, 2):
        model_psf.cache_clear()
        mode_optics.cache_clear()
        with threadpool_limits(n, user_api="blas"):
            made.append(model_psf(*MODE, 0.063).data)
    np.testing.assert_array_equal(*made)


def test_a_psf_says_what_it_was_checked_against():
    in_f300m = model_psf(NIRCAM, NIRCAM.coronagraph("MASK335R"), NIRCAM.filter("F300M"), 0.063)
    assert "; growth curves of HD 141569 B and C agree to 4 %" in in_f300m.origin
    assert "; not checked against a real star; in F300M: growth" in model_psf(*MODE, 0.063).origin
    bar = NIRCAM.coronagraph("MASKLWB")
    assert bar.psf_check("F335M") == "not checked against a real star"
