"""Convolution agrees with SciPy's, kernel by kernel, and with sums over pixels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import convolve2d, fftconvolve

from lyot.algorithms.convolution import Kernels, convolve


@pytest.mark.parametrize("size", [(5, 7), (6, 4)])
def test_each_kernel_gives_what_sums_over_pixels_do(size):
    rng = np.random.default_rng(1)
    images, kernels = rng.normal(size=(2, 21, 30)), rng.normal(size=(3, 2, *size))
    for found, kernel in zip(convolve(images, *kernels), kernels, strict=True):
        for plane, image, one in zip(found, images, kernel, strict=True):
            np.testing.assert_allclose(plane, convolve2d(image, one, mode="same"), atol=1e-13)


def test_kernels_of_many_images_are_picked_by_their_first_axis():
    rng = np.random.default_rng(3)
    stack = Kernels(rng.normal(size=(3, 5, 5)))
    for shape in ((9, 9), (12, 8), (9, 9)):
        image = rng.normal(size=shape)
        [found] = stack.over(image, [0, 2])
        expected = [convolve2d(image, stack.kernels[0][k], mode="same") for k in (0, 2)]
        np.testing.assert_allclose(found, expected, atol=1e-13)


def test_images_and_kernels_broadcast():
    rng = np.random.default_rng(2)
    image, kernels = rng.normal(size=(9, 9)), rng.normal(size=(2, 3, 5, 5))
    [found] = convolve(image, kernels)
    expected = fftconvolve(np.broadcast_to(image, (2, 3, 9, 9)), kernels, "same", axes=(2, 3))
    np.testing.assert_allclose(found, expected, atol=1e-13)
