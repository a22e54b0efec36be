"""The star found by a model of its image behind the mask, with an error that draws confirm."""

from dataclasses import replace

import numpy as np
import pytest

from lyot.files.exposure import Cube
from lyot.files.headers import ExposureInfo
from lyot.files.star import StarPosition
from lyot.instruments import instrument_named
from lyot.parameters import BY_MODEL
from lyot.references.star import measure_star

SHAPE, N = (101, 101), 16
CASES = [
    ("MASK335R", "F444W", "NIRCAM", "NRCALONG", 0.4),
    # NIRCam's own error of 155 nm moves the lobes along the opening that a bar leaves.
    ("MASKLWB", "F430M", "NIRCAM", "NRCALONG", 0.6),
    ("4QPM_1140", "F1140C", "MIRI", "MIRIMAGE", 0.3),
]


@pytest.mark.parametrize(("mask", "band", "instrument", "detector", "largest"), CASES)
def test_the_stated_error_of_the_model_fit_is_its_scatter(
    mask, band, instrument, detector, largest
):
    rng = np.random.default_rng(11)
    scale = 0.111 if instrument == "MIRI" else 0.063
    optics = instrument_named(instrument).optics(mask, band, pixel_scale_arcsec=scale)
    optics = optics.with_fewer_wavelengths(3)
    place = optics.along_detector((optics.mask.star_x_arcsec(band), 0.0))
    images, truth = [], []
    for seed in range(N):
        offset, center = rng.normal(0, 0.01, 2), rng.uniform(-0.4, 0.4, 2)
        at = center + offset / scale
        made = replace(optics, seed=300 + seed).psf(
            (place[0] + offset[1], place[1] + offset[0]),
            n_pixels=SHAPE[0],
            fraction_xy=(float(at[1]), float(at[0])),
        )
        images.append(made.image)
        truth.append(50.0 + at)
    cube = np.array(images)
    info = ExposureInfo(
        "images",
        cube.shape,
        filter=band,
        coronagraph=mask,
        detector=detector,
        instrument=instrument,
    )
    found, stated = [], []
    for image, at in zip(cube, truth, strict=True):
        one = Cube(image[None], image[None], np.zeros((1, *SHAPE), np.uint32), info)
        none = np.zeros((1, *SHAPE), bool)
        star = measure_star(one, image[None], none, StarPosition(50.0, 50.0), method=BY_MODEL)
        found.append(np.asarray(star.yx) - at)
        stated.append((star.y_err, star.x_err))
    pull = np.asarray(found) / np.asarray(stated)
    assert np.abs(found).max() < largest
    assert 0.6 < np.sqrt(np.mean(pull**2)) < 1.6
