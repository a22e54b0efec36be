"""Sub-pixel shifts are exact, invertible and do not wrap around."""

import numpy as np
import pytest
from scipy.special import jv

from lyot.algorithms import fourier


def shifted(image, shift_yx):
    return fourier.shift(fourier.spectrum(image), np.asarray(shift_yx), shape=image.shape)


@pytest.mark.parametrize(("n", "length"), [(320, 343), (20, 45), (224, 243), (5, 21)])
def test_grid_length_is_odd_and_smooth(n, length):
    assert fourier.odd_grid_length(n) == length


def test_whole_pixel_shift_moves_pixels(rng):
    image = rng.normal(size=(20, 23))
    out = shifted(image, (2.0, -3.0))
    np.testing.assert_allclose(out[2:, :-3], image[:-2, 3:], atol=1e-12)


def test_shift_of_a_gaussian_is_the_gaussian_elsewhere(star_image):
    out = shifted(star_image(fwhm=5.0), (0.37, -1.21))
    np.testing.assert_allclose(out, star_image(shift_yx=(0.37, -1.21), fwhm=5.0), atol=2e-6)


def test_shift_keeps_a_constant(rng):
    np.testing.assert_allclose(shifted(np.full((30, 31), 7.0), (0.3, 0.4)), 7.0, rtol=1e-12)


def test_float32_input_is_shifted_in_float64(star_image):
    image = star_image().astype(np.float32)
    out = shifted(image, (0.4, 0.0))
    assert out.dtype == np.float64
    np.testing.assert_allclose(out, shifted(image.astype(np.float64), (0.4, 0.0)), rtol=1e-12)


def test_nothing_wraps_around():
    x = np.arange(40)
    image = np.broadcast_to(100.0 * np.exp(-(((x - 39) / 4.0) ** 2)), (40, 40))
    out = shifted(image, (0.0, 1.5))
    plain = np.fft.ifft(np.fft.fft(image) * np.exp(-2j * np.pi * np.fft.fftfreq(40) * 1.5)).real
    assert abs(out[:, 3:30]).max() < 0.5
    assert plain[20, 0] > 70.0  # the far edge, without the bridge


def test_derivatives_agree_with_central_differences(star_image):
    spectrum = fourier.spectrum(star_image())
    d, h = np.array([0.2, -0.6]), 1e-4
    moved = fourier.shift_with_derivatives(spectrum, d, shape=(64, 66))
    for axis, derivative in enumerate((moved.d_y, moved.d_x)):
        step = np.zeros(2)
        step[axis] = h
        numeric = (
            fourier.shift(spectrum, d + step, shape=(64, 66))
            - fourier.shift(spectrum, d - step, shape=(64, 66))
        ) / (2 * h)
        np.testing.assert_allclose(derivative, numeric, atol=1e-6 * abs(derivative).max())


def test_terms_of_the_expansion_are_modified_bessel_functions():
    reach, shape = np.array([0.5, 0.03]), (64, 66)
    spectrum = fourier.spectrum(np.ones(shape))
    terms = fourier.chebyshev_terms(spectrum, reach, shape=shape, order=9)
    along = np.fft.fftfreq(81), np.fft.rfftfreq(99)
    for term, r, k in zip(terms, reach, along, strict=True):
        z, n = 2 * np.pi * k[None] * r, np.arange(10)[:, None]
        expected = np.where(n > 0, 2.0, 1.0) * (-1j) ** n * jv(n, z)  # I_n(-iz) = (-i)^n J_n(z)
        np.testing.assert_allclose(term, expected, atol=1e-14)


@pytest.mark.parametrize(("order", "bound"), [(4, 2e-3), (6, 1e-5), (9, 1e-8)])
def test_the_expansion_is_the_shift_to_its_order(star_image, order, bound):
    powers = tuple((a, b) for a in range(order + 1) for b in range(order + 1 - a))
    spectrum, shape = fourier.spectrum(star_image(fwhm=3.0)), (64, 66)
    d, delta, reach = np.array([0.3, -0.2]), np.array([0.15, -0.2]), np.array([0.25, 0.2])
    terms = fourier.chebyshev_terms(spectrum, reach, shape=shape, order=order)
    images = fourier.expanded_images(spectrum, d, terms, shape=shape, powers=powers)
    t_y, t_x = (
        [np.polynomial.Chebyshev.basis(n)(u) for n in range(order + 1)] for u in delta / reach
    )
    near = sum(image * t_y[a] * t_x[b] for image, (a, b) in zip(images, powers, strict=True))
    exact = fourier.shift(spectrum, d + delta, shape=shape)
    assert abs(near - exact).max() < bound * abs(exact).max()


def test_spectra_in_single_precision_move_images_to_a_millionth(rng):
    y, x = np.mgrid[:320, :320]
    image = 1e5 * np.exp(-((y - 150.2) ** 2 + (x - 163.7) ** 2) / 4.0) + rng.normal(size=y.shape)
    spectrum, d = fourier.spectrum(image), np.array([0.37, -0.61])
    single = fourier.shift(spectrum.astype(np.complex64), d, shape=image.shape)
    assert single.dtype == np.float32
    exact = fourier.shift(spectrum, d, shape=image.shape)
    assert abs(single - exact).max() < 1e-6 * abs(exact).max()
    moved = fourier.shift_with_derivatives(spectrum.astype(np.complex64), d, shape=image.shape)
    exact = fourier.shift_with_derivatives(spectrum, d, shape=image.shape)
    for a, b in zip(moved, exact, strict=True):
        assert abs(a - b).max() < 1e-6 * abs(b).max()


def test_a_part_is_that_part(star_image):
    rows, columns = slice(20, 50), slice(11, 66)
    spectrum = fourier.spectrum(star_image())
    part = fourier.cut(spectrum, shape=(64, 66), rows=rows, columns=columns)
    back = fourier.shift(part, np.zeros(2), shape=(30, 55))
    np.testing.assert_allclose(back, star_image()[rows, columns], atol=1e-12)


def test_some_rows_are_those_rows_of_all(star_image):
    spectrum, d = fourier.spectrum(star_image()), np.array([0.3, -0.2])
    all_rows = fourier.shift_with_derivatives(spectrum, d, shape=(64, 66))
    some = fourier.shift_with_derivatives(spectrum, d, shape=(64, 66), rows=slice(20, 31))
    for a, b in zip(some, all_rows, strict=True):
        np.testing.assert_allclose(a, b[20:31], atol=1e-13)


def test_runs_on_a_strict_array_library(star_image):
    strict = pytest.importorskip("array_api_strict")
    image, d = star_image(), np.array([0.4, -0.3])
    spectrum = fourier.spectrum(strict.asarray(image))
    moved = fourier.shift_with_derivatives(spectrum, strict.asarray(d), shape=image.shape)
    plain = fourier.shift_with_derivatives(fourier.spectrum(image), d, shape=image.shape)
    for a, b in zip(moved, plain, strict=True):
        np.testing.assert_allclose(np.asarray(a), b, atol=1e-12)
