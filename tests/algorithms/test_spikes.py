"""Pixels sharper than the optics are found; images of the optics, however bright, are not."""

import numpy as np
import pytest

from lyot.algorithms.spikes import grown, spike_flags, spike_kernel

SHAPE = (120, 124)


def point_source(lambda_over_d_pix, at):
    """The image of a round pupil: Fourier transform of its transfer, and of a square pixel."""
    y, x = np.meshgrid(*(np.fft.fftfreq(n) for n in SHAPE), indexing="ij")
    nu = np.clip(np.hypot(y, x) * lambda_over_d_pix, 0, 1)
    transfer = 2 / np.pi * (np.arccos(nu) - nu * np.sqrt(1 - nu**2)) * np.sinc(y) * np.sinc(x)
    image = np.fft.ifft2(transfer * np.exp(-2j * np.pi * (y * at[0] + x * at[1]))).real
    return image / np.sqrt((image**2).sum())


@pytest.mark.parametrize("width", [1.9, 2.2, 3.25])
def test_sources_of_any_brightness_are_not_flagged_and_single_pixels_are(rng, width):
    image = rng.normal(size=SHAPE)
    sources = rng.uniform(10, 110, (8, 2))
    for k, at in enumerate(sources):
        image += (30.0, 60.0, 100.0)[k % 3] * point_source(width, at)
    hot = [
        (y, x)
        for y in range(6, 120, 12)
        for x in range(6, 120, 12)
        if np.hypot(*(sources - (y, x)).T).min() > 12
    ]
    rows, columns = np.transpose(hot)
    image[rows, columns] += 10.0
    flags = spike_flags(image, np.ones(SHAPE), np.zeros(SHAPE, bool), lambda_over_d_pix=width)
    found = flags[rows, columns]
    assert found.mean() > 0.9 if width < 2 else found.mean() > 0.95
    flags[rows, columns] = False
    beside = np.zeros(SHAPE, bool)
    beside[rows, columns] = True
    flags &= ~grown(beside, 1)
    assert flags.mean() < 1e-3
    for y, x in sources.round().astype(int):
        assert not flags[y - 3 : y + 4, x - 3 : x + 4].any()


def test_the_kernel_stops_what_the_optics_form():
    for width in (2.2, 3.25):
        kernel = spike_kernel(width)
        image = point_source(width, (60.3, 61.8))
        inside = image[54:67, 56:69]
        assert kernel[6, 6] == 1.0
        assert abs((kernel * inside).sum()) < 0.2 * image.max()


def test_bad_pixels_are_neither_read_nor_flagged(rng):
    image = rng.normal(size=SHAPE)
    bad = rng.random(SHAPE) < 0.02
    image[bad] = np.nan
    flags = spike_flags(image, np.ones(SHAPE), bad, lambda_over_d_pix=2.2)
    assert not (flags & bad).any()
    assert flags.mean() < 1e-3
    everything = np.ones(SHAPE, bool)
    assert not spike_flags(image, np.ones(SHAPE), everything, lambda_over_d_pix=2.2).any()


def test_a_mask_grows_along_diagonals_too():
    mask = np.zeros((7, 7), bool)
    mask[3, 3] = True
    assert grown(mask, 1).sum() == 9
    assert grown(mask, 2).sum() == 25
    assert grown(mask, 0) is mask
