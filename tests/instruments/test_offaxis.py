"""Images of sources behind a coronagraph: against plain Fourier transforms and closed forms."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from lyot.errors import LyotError
from lyot.instruments.coronagraphs import FourQuadrantMask
from lyot.instruments.pupil import FLIGHT_PUPIL, sample_grid
from lyot.instruments.telescope import ARCSEC_PER_RADIAN
from lyot.instruments.wavefront import WavefrontBudget, mean_transfer
from scenes import flight_optics

NO_ERRORS = WavefrontBudget(telescope_m=0.0, instrument_m=0.0)


def by_fft(optics, offset, padding=8):
    """Propagate one wavelength by padded FFTs: the image in samples of lambda / (padding D)."""
    n, wavelength = optics.n_pupil, float(optics.band.wavelengths_m[0])
    x, y, _ = sample_grid(n, FLIGHT_PUPIL.width_m)
    pupil = FLIGHT_PUPIL.amplitude(n)
    stop = optics.stop.amplitude(FLIGHT_PUPIL, n)
    tilt = (offset[0] * x + offset[1] * y) / ARCSEC_PER_RADIAN / wavelength
    size = n * padding
    lambda_d = wavelength / FLIGHT_PUPIL.width_m * ARCSEC_PER_RADIAN
    # Places half a sample from the middle, so that none lies on a boundary.
    half = np.exp(-1j * np.pi * np.arange(n) / size)
    places = (np.arange(size) - size // 2 + 0.5) * lambda_d / padding
    field = np.zeros((size, size), complex)
    field[:n, :n] = pupil * np.exp(2j * np.pi * tilt) * half[:, None] * half[None, :]
    at_mask = np.fft.fftshift(np.fft.fft2(field))
    if isinstance(optics.mask, FourQuadrantMask):
        plain, crossed = optics.mask.coefficients(wavelength)
        mask = plain + crossed * np.sign(places)[None, :] * np.sign(places)[:, None]
    else:
        mask = optics.mask.amplitude(places[None, :], places[:, None])
    behind = np.fft.ifft2(np.fft.ifftshift(at_mask * mask))[:n, :n]
    passed = np.sum(stop * np.abs(behind) ** 2) / np.sum(stop * pupil**2)
    return passed, behind * half.conj()[:, None] * half.conj()[None, :] * stop


def mono(mask, band, **changes):
    return replace(flight_optics(mask, band, n_wavelengths=1), wavefront=NO_ERRORS, **changes)


@pytest.mark.parametrize(
    ("mask", "band", "offset", "tolerance"),
    [
        ("MASK335R", "F300M", (0.6, 0.2), 2e-3),
        ("MASK210R", "F210M", (0.3, -0.2), 2e-3),
        ("MASKLWB", "F335M", (4.0, 0.5), 2e-3),
        ("LYOT_2300", "F2300C", (2.0, 1.5), 2e-2),
        ("4QPM_1140", "F1140C", (1.0, 0.3), 2e-2),
        ("4QPM_1140", "F1140C", (0.05, 1.0), 2e-2),
    ],
)
def test_transmission_is_that_of_plain_fourier_transforms(mask, band, offset, tolerance):
    optics = mono(mask, band)
    optics = replace(optics, mask=replace(optics.mask, tilt_deg=0.0))
    expected, _ = by_fft(optics, offset)
    assert optics.transmission(offset) == pytest.approx(expected, abs=tolerance)


def test_the_image_near_a_mask_is_that_of_plain_fourier_transforms():
    optics = mono("MASK335R", "F300M")
    sharp = replace(optics, detector=replace(optics.detector, diffusion_arcsec=0.0))
    offset = (0.5, 0.25)
    _, at_stop = by_fft(optics, offset)
    made = sharp.psf(offset, n_pixels=25, oversample=3)
    # The same stop field, taken to the samples one by one.
    x, y, _ = sample_grid(optics.n_pupil, FLIGHT_PUPIL.width_m)
    wavelength = float(optics.band.wavelengths_m[0])
    places = (np.arange(75) - 37) / 3.0
    at_x, at_y = (
        np.subtract.outer(places * s, [-o])
        for s, o in zip(optics.detector.pixel_scale_arcsec, offset, strict=True)
    )
    to_x = np.exp(-2j * np.pi * at_x * x / ARCSEC_PER_RADIAN / wavelength)
    to_y = np.exp(-2j * np.pi * at_y * y.T / ARCSEC_PER_RADIAN / wavelength)
    expected = np.abs(to_y @ at_stop @ to_x.T) ** 2
    expected *= made.image.sum() / expected.sum()
    # The pixel's box is a third of a pixel wide here: small against lambda / D.
    assert np.abs(made.image - expected).max() < 0.03 * expected.max()
    middle = made.image[30:45, 30:45].ravel(), expected[30:45, 30:45].ravel()
    assert np.corrcoef(*middle)[0, 1] > 0.999


def test_a_wide_image_without_the_mask_holds_nearly_all_the_flux():
    optics = mono("MASK335R", "F300M", n_pupil=320)
    made = optics.psf((9.0, 0.0), n_pixels=301, with_mask=False)
    assert made.transmission == 1.0
    assert made.stamp_fraction == pytest.approx(0.985, abs=0.008)
    assert made.image.sum() == pytest.approx(made.stamp_fraction)


def test_an_image_wider_than_the_sampling_holds_is_refused():
    with pytest.raises(LyotError, match="n_pupil of 2"):
        flight_optics("MASK335R", "F300M").psf((9.0, 0.0), n_pixels=301)


def test_encircled_energy_through_the_stop_in_f444w():
    """0.696 within 16.5 pixels is the observatory's number, of a wavefront that is not known."""
    image = flight_optics("MASK335R", "F444W").psf((9.0, 0.0), n_pixels=101).image
    y, x = np.indices(image.shape) - 50
    assert image[np.hypot(x, y) < 16.5].sum() == pytest.approx(0.696, abs=0.03)


def test_sums_over_pixels_of_an_oversampled_image_are_the_image():
    optics = flight_optics("MASK335R", "F300M")
    at = {"n_pixels": 21, "fraction_xy": (0.3, -0.2)}
    fine = optics.psf((1.0, 0.5), oversample=3, **at).image
    plain = optics.psf((1.0, 0.5), **at).image
    np.testing.assert_allclose(
        fine.reshape(21, 3, 21, 3).sum(axis=(1, 3)), plain, atol=2e-4 * plain.max()
    )


@pytest.mark.parametrize("mask_band", [("MASK335R", "F300M"), ("4QPM_1140", "F1140C")])
def test_a_fraction_of_a_pixel_moves_the_image(mask_band):
    optics = flight_optics(*mask_band)
    left = optics.psf((6.0, 5.0), n_pixels=41, fraction_xy=(-0.5, 0.2)).image
    right = optics.psf((6.0, 5.0), n_pixels=41, fraction_xy=(0.5, 0.2)).image
    middle = slice(5, -5)
    np.testing.assert_allclose(
        right[middle, middle], np.roll(left, 1, axis=1)[middle, middle], atol=1e-3 * left.max()
    )
    y, x = np.indices(right.shape) - 20
    near = np.hypot(x - 0.5, y - 0.2) < 2.5
    assert np.average(x[near], weights=right[near]) > 0.2
    assert np.average(y[near], weights=right[near]) > 0.05


@pytest.mark.parametrize(
    ("mask", "band", "direction"),
    [
        ("MASK335R", "F300M", (1.0, 0.0)),
        ("MASK335R", "F444W", (0.6, 0.8)),
        ("MASKLWB", "F335M", (0.0, 1.0)),
    ],
)
def test_beside_the_mask_the_product_is_good_to_one_percent(mask, band, direction):
    optics = flight_optics(mask, band)
    along = 4.0 if mask == "MASKLWB" else 0.0
    distances = np.arange(1.0, 6.0, 0.1)
    place = next(
        (r * direction[0] + along, r * direction[1])
        for r in distances
        if optics.is_beside_mask((r * direction[0] + along, r * direction[1]))
    )
    product = optics.psf(place)
    full = replace(optics, max_change=0.0).psf(place)
    assert product.transmission == pytest.approx(full.transmission, abs=0.01)
    assert np.abs(product.image - full.image).max() < 0.01 * full.image.max()


@pytest.mark.parametrize(
    ("mask", "band"), [("MASK335R", "F322W2"), ("MASKSWB", "F200W"), ("4QPM_1140", "F1140C")]
)
def test_the_wavelengths_of_an_image_are_enough(mask, band):
    """They follow the width of the image: as many as 41 give it to a thousandth of the peak."""
    few, many = (
        replace(flight_optics(mask, band, n_wavelengths=n), wavefront=NO_ERRORS) for n in (None, 41)
    )
    place, images = (2.5, 0.9), []
    for wavelength, weight in zip(*many.band, strict=True):
        band_of_one = many.band._replace(wavelengths_m=np.array([wavelength]), weights=np.ones(1))
        made = replace(many, band=band_of_one).psf(place)
        images.append(weight * made.transmission * made.image)
    expected = np.sum(images, axis=0)
    made = few.psf(place)
    found = made.transmission * made.image
    assert np.abs(found - expected).max() < 2e-3 * expected.max()


def test_fewer_wavelengths_have_the_moments_of_all():
    band = flight_optics("MASK335R", "F322W2").band
    few = flight_optics("MASK335R", "F322W2").with_fewer_wavelengths(4).band
    for power in range(8):
        means = [b.weights @ (1e6 * b.wavelengths_m) ** power for b in (band, few)]
        assert means[1] == pytest.approx(means[0], rel=1e-10)


@pytest.mark.parametrize("place", [(0.2, 0.1), (1.5, 0.7), (0.4, 9.0), (6.0, 5.0)])
def test_the_transmission_of_a_phase_mask_does_not_depend_on_the_sampling(place):
    """The wave turns within a sample of the pupil, the more the farther the source lies away."""
    coarse = mono("4QPM_1140", "F1140C")
    fine = replace(coarse, n_pupil=320)
    assert coarse.exact_transmission(place) == pytest.approx(
        fine.exact_transmission(place), abs=3e-3
    )


def test_far_from_all_boundaries_a_phase_mask_takes_no_light():
    optics = flight_optics("4QPM_1140", "F1140C")
    for place in ((6.0, 6.0), (12.0, -5.0), (5.0, 14.0)):
        at = optics.mask.along_detector(*place)
        assert optics.transmission(at) == pytest.approx(1.0, abs=0.01)


def test_a_source_beside_a_phase_boundary_is_split():
    optics = flight_optics("4QPM_1140", "F1140C")
    near = optics.psf((2.5, -0.15), n_pixels=41)
    far = optics.psf((2.5, 2.5), n_pixels=41)
    assert near.transmission < 0.5 < far.transmission
    assert np.corrcoef(near.image.ravel(), far.image.ravel())[0, 1] < 0.9


def test_the_spot_of_f2300c_has_a_support():
    optics = flight_optics("LYOT_2300", "F2300C")
    on_support = optics.mask.along_detector(0.0, 4.0)
    assert on_support[0] == pytest.approx(4.0 * np.sin(np.radians(4.8)))
    assert optics.transmission(on_support) < 0.4
    assert optics.transmission((4.0, 0.0)) > 0.9


def test_coupling_is_a_convolution_of_the_pixels():
    free = flight_optics("4QPM_1140", "F1140C")
    alpha, beta = 0.03, 0.02
    still = replace(free.detector, coupling=(0.0, 0.0))
    coupled = replace(free.detector, coupling=(alpha, beta))
    image = replace(free, detector=still).psf((4.0, 4.0), n_pixels=41).image
    blurred = replace(free, detector=coupled).psf((4.0, 4.0), n_pixels=41).image
    along_x = (1 - 2 * alpha) * image + alpha * (np.roll(image, 1, 1) + np.roll(image, -1, 1))
    expected = (1 - 2 * beta) * along_x + beta * (np.roll(along_x, 1, 0) + np.roll(along_x, -1, 0))
    np.testing.assert_allclose(blurred[2:-2, 2:-2], expected[2:-2, 2:-2], atol=1e-9)


def test_images_do_not_depend_on_the_number_of_threads(monkeypatch):
    images = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("LYOT_THREADS", threads)
        images.append(flight_optics("MASK335R", "F300M").psf((0.7, 0.1), n_pixels=25).image)
    assert np.array_equal(images[0], images[1])
    assert np.array_equal(images[0], images[2])


def test_the_mean_wavefront_is_read_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LYOT_CACHE_DIR", str(tmp_path))
    mean_transfer.cache_clear()
    optics = flight_optics("MASK335R", "F444W", n_wavelengths=1)
    made, other = (replace(optics, wavefront=WavefrontBudget(size)) for size in (67e-9, 90e-9))
    first = made.psf((3.0, 1.0), n_pixels=33)
    assert not np.array_equal(other.psf((3.0, 1.0), n_pixels=33).image, first.image)
    mean_transfer.cache_clear()
    monkeypatch.setattr(ndimage, "gaussian_filter", lambda *_: pytest.fail("it is computed again"))
    np.testing.assert_array_equal(replace(made).psf((3.0, 1.0), n_pixels=33).image, first.image)


def test_a_star_behind_a_round_mask_is_suppressed_by_a_thousand():
    perfect = mono("MASK335R", "F335M")
    assert perfect.transmission((0.0, 0.0)) < 2e-4
    with_errors = flight_optics("MASK335R", "F335M", seed=1).transmission((0.0, 0.0))
    assert 1e-3 < with_errors < 1e-2
