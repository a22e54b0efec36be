"""What an unknown wavefront does to a fit, against fits to draws that the estimate has not seen."""

from dataclasses import replace

import numpy as np
import pytest

from lyot.analysis.companion.mismatch import wavefront_mismatch
from lyot.analysis.psf import model_psf, psf_from_image
from lyot.instruments import NIRCAM
from lyot.instruments.wavefront import data_seed


def psf_of(mask, band):
    scale = NIRCAM.channel(filter=band).pixel_scale_arcsec
    return model_psf(NIRCAM, NIRCAM.coronagraph(mask), NIRCAM.filter(band), scale)


@pytest.mark.parametrize(("mask", "band"), [("MASK335R", "F300M"), ("MASKSWB", "F187N")])
def test_the_mismatch_is_that_of_other_draws(mask, band):
    psf = psf_of(mask, band)
    stated, optics, half = wavefront_mismatch(psf), psf.near_mask.optics, 6
    optics = replace(optics.with_fewer_wavelengths(3), n_pupil=64)
    middle = slice(psf.half_pix - half, psf.half_pix + half + 1)
    step = 0.05
    stamps = [psf.stamp(*at)[middle, middle] for at in ((0, 0), (step, 0), (0, step))]
    design = np.array([stamps[0], *(s - stamps[0] for s in stamps[1:]), np.ones_like(stamps[0])])
    found = []
    for seed in range(200):
        drawn = replace(optics, seed=data_seed(seed)).psf(
            (0.0, 0.0), n_pixels=2 * half + 1, with_mask=False
        )
        flux, y, x, _ = np.linalg.lstsq(design.reshape(4, -1).T, drawn.image.ravel(), rcond=None)[0]
        found.append([y * step / flux, x * step / flux, flux - 1.0])
    rms = np.sqrt(np.mean(np.square(found), axis=0))
    ratio = rms / [*stated.shift_yx, stated.flux]
    # Few draws lose much light: even 128 of them and 200 know the flux to a tenth only.
    assert np.all((ratio > 0.75) & (ratio < 1.3)), ratio


def test_the_mismatch_falls_with_the_wavelength():
    short, long = (wavefront_mismatch(psf_of("MASK335R", band)) for band in ("F250M", "F444W"))
    assert 0.003 < long.flux < 0.6 * short.flux < 0.1


def test_of_an_image_of_the_users_it_is_not_known():
    y, x = np.mgrid[-8:9, -8:9]
    psf = psf_from_image(np.exp(-0.5 * (x**2 + y**2) / 1.2**2), origin="a Gaussian")
    assert wavefront_mismatch(psf).flux == 0.0
    assert not wavefront_mismatch(psf).shift_yx.any()
