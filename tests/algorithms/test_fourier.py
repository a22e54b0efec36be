"""Sub-pixel shifts are exact, invertible and do not wrap around."""

import numpy as np
import pytest

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


def test_second_derivatives_are_derivatives_of_the_first(star_image):
    spectrum = fourier.spectrum(star_image())
    d, h = np.array([0.1, 0.3]), 1e-4
    powers = ((0, 2), (1, 1), (2, 0))
    xx, yx, yy = fourier.taylor_images(spectrum, d, shape=(64, 66), powers=powers)
    xx, yy = 2 * xx, 2 * yy

    def first(at):
        return fourier.shift_with_derivatives(spectrum, np.asarray(at), shape=(64, 66))

    up, down = first(d + np.array([h, 0])), first(d - np.array([h, 0]))
    np.testing.assert_allclose(yy, (up.d_y - down.d_y) / (2 * h), atol=1e-5)
    np.testing.assert_allclose(yx, (up.d_x - down.d_x) / (2 * h), atol=1e-5)
    right, left = first(d + np.array([0, h])), first(d - np.array([0, h]))
    np.testing.assert_allclose(xx, (right.d_x - left.d_x) / (2 * h), atol=1e-5)


def test_the_expansion_is_the_shift_to_its_order(star_image):
    from lyot.algorithms.registration.expand import ORDER, powers_of

    powers, spectrum = powers_of(ORDER), fourier.spectrum(star_image(fwhm=5.0))
    d, delta = np.array([0.3, -0.2]), np.array([0.05, 0.08])
    images = fourier.taylor_images(spectrum, d, shape=(64, 66), powers=powers)
    near = sum(i * delta[0] ** a * delta[1] ** b for i, (a, b) in zip(images, powers, strict=True))
    exact = fourier.shift(spectrum, d + delta, shape=(64, 66))
    assert abs(near - exact).max() < 1e-5 * abs(exact).max()


def test_some_rows_are_those_rows_of_all(star_image):
    spectrum, d = fourier.spectrum(star_image()), np.array([0.3, -0.2])
    all_rows = fourier.shift_with_derivatives(spectrum, d, shape=(64, 66))
    some = fourier.shift_with_derivatives(spectrum, d, shape=(64, 66), rows=slice(20, 31))
    for a, b in zip(some[:3], all_rows[:3], strict=True):
        np.testing.assert_allclose(a, b[20:31], atol=1e-13)
    whole = fourier.finish(some.columns, shape=(64, 66))
    np.testing.assert_allclose(whole, all_rows.value, atol=1e-13)


def test_outside_tells_which_pixels_came_from_beyond_an_edge():
    out = fourier.outside(np.array([0.4, 1.6]), shape=(5, 6))
    assert not out[:, 2:].any()
    assert out[:, :2].all()


def test_runs_on_a_strict_array_library(star_image):
    strict = pytest.importorskip("array_api_strict")
    image, d = star_image(), np.array([0.4, -0.3])
    spectrum = fourier.spectrum(strict.asarray(image))
    moved = fourier.shift_with_derivatives(spectrum, strict.asarray(d), shape=image.shape)
    plain = fourier.shift_with_derivatives(fourier.spectrum(image), d, shape=image.shape)
    for a, b in zip(moved, plain, strict=True):
        np.testing.assert_allclose(np.asarray(a), b, atol=1e-12)
