"""The star found by a model of its image behind the mask, with an error that draws confirm."""

import numpy as np
import pytest

from lyot.files.exposure import Cube
from lyot.files.headers import ExposureInfo
from lyot.files.star import StarPosition
from lyot.instruments import instrument_named
from lyot.instruments.optics import draw_wavefront
from lyot.parameters import BY_MODEL
from lyot.references.star import measure_star

pytest.importorskip("poppy")

SHAPE, N = (121, 121), 24
CASES = [
    ("MASK335R", "F444W", "NIRCAM", "NRCALONG"),
    ("MASKLWB", "F430M", "NIRCAM", "NRCALONG"),
    ("4QPM_1140", "F1140C", "MIRI", "MIRIMAGE"),
]


@pytest.mark.parametrize(("mask", "band", "instrument", "detector"), CASES)
def test_the_stated_error_of_the_model_fit_is_its_scatter(mask, band, instrument, detector):
    rng = np.random.default_rng(11)
    scale = 0.111 if instrument == "MIRI" else 0.063
    optics = instrument_named(instrument).model(mask, band, SHAPE)
    images, truth = [], []
    for _ in range(N):
        offset, center = rng.normal(0, 0.01, 2), 60.0 + rng.uniform(-0.4, 0.4, 2)
        images.append(
            optics.image(
                wavefront_m=draw_wavefront(optics.pupil, 60e-9, rng),
                source_xy_arcsec=(offset[1], offset[0]),
                center_xy=(center[1], center[0]),
            )
        )
        truth.append(center + offset / scale)
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
        star = measure_star(one, image[None], none, StarPosition(60.0, 60.0), method=BY_MODEL)
        found.append(np.asarray(star.yx) - at)
        stated.append((star.y_err, star.x_err))
    pull = np.asarray(found) / np.asarray(stated)
    assert np.abs(found).max() < 0.3
    assert 0.6 < np.sqrt(np.mean(pull**2)) < 1.6
