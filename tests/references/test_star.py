"""The star found on images with another wavefront than any model's, within the error stated."""

from dataclasses import replace

import numpy as np
import pytest

from lyot.errors import LyotError
from lyot.files.exposure import Cube
from lyot.files.headers import ExposureInfo
from lyot.files.star import StarPosition
from lyot.instruments import instrument_named
from lyot.parameters import AUTO, BY_MODEL, BY_SYMMETRY
from lyot.references.star import measure_star

SHAPE, N = (101, 101), 16
ROUND = ("MASK335R", "F444W", "NIRCAM", "NRCALONG")
CASES = [
    (*ROUND, BY_SYMMETRY),
    (*ROUND, BY_MODEL),
    ("MASK210R", "F210M", "NIRCAM", "NRCA2", AUTO),
    ("MASKLWB", "F430M", "NIRCAM", "NRCALONG", AUTO),
    ("4QPM_1140", "F1140C", "MIRI", "MIRIMAGE", AUTO),
]


def stars(mask, band, instrument, detector, n=N):
    """Return frames of stars, each with its wavefront and place on the mask, and the truth."""
    rng = np.random.default_rng(11)
    optics = instrument_named(instrument).optics(mask, band).with_fewer_wavelengths(3)
    scale = np.array(optics.detector.pixel_scale_arcsec[::-1])
    place = optics.mask.along_detector(optics.mask.star_x_arcsec(band), 0.0)
    images, truth = [], []
    for seed in range(n):
        offset, center = rng.normal(0, 0.02, 2), rng.uniform(-0.4, 0.4, 2)
        at = center + offset / scale
        made = replace(optics, seed=300 + seed).psf(
            (place[0] + offset[1], place[1] + offset[0]),
            n_pixels=SHAPE[0],
            fraction_xy=(float(at[1]), float(at[0])),
        )
        images.append(made.image)
        truth.append(50.0 + at)
    cube = np.array(images)
    facts = {"filter": band, "coronagraph": mask, "detector": detector, "instrument": instrument}
    info = ExposureInfo("images", cube.shape, **facts)
    return Cube(cube, cube, np.zeros(cube.shape, np.uint32), info), np.array(truth)


def star_on(cube, frames, **options):
    sci = cube.sci[frames]
    part = Cube(sci, sci, cube.dq[frames], replace(cube.info, shape=sci.shape))
    none = np.zeros(sci.shape, bool)
    return measure_star(part, sci, none, StarPosition(50.0, 50.0), **options)


@pytest.mark.parametrize(("mask", "band", "instrument", "detector", "method"), CASES)
def test_the_stated_error_is_the_scatter_over_wavefronts(mask, band, instrument, detector, method):
    cube, truth = stars(mask, band, instrument, detector)
    found = [star_on(cube, slice(i, i + 1), method=method) for i in range(N)]
    pull = (np.array([s.yx for s in found]) - truth) / [(s.y_err, s.x_err) for s in found]
    assert np.abs(pull).max() < 4.0
    assert 0.6 < np.sqrt(np.mean(pull**2)) < 1.5


def test_the_error_does_not_fall_with_the_number_of_frames():
    cube, _ = stars(*ROUND, n=1)
    one = star_on(cube, [0])
    many = star_on(cube, [0] * 8)
    assert (many.x_err, many.y_err) == pytest.approx((one.x_err, one.y_err))


def test_a_frame_unlike_the_others_does_not_move_the_star():
    cube, _ = stars(*ROUND, n=1)
    shifts = np.zeros((6, 2))
    shifts[2] = (0.0, 2.5)
    assert star_on(cube, [0] * 6, shift_yx=shifts).x == pytest.approx(star_on(cube, [0]).x)


def test_a_mode_without_a_model_is_measured_by_symmetry_alone():
    cube, truth = stars(*ROUND, n=1)
    unknown = replace(cube, info=replace(cube.info, filter="F999M"))
    star = star_on(unknown, [0])
    assert np.hypot(star.x - truth[0, 1], star.y - truth[0, 0]) < 3 * np.hypot(
        star.x_err, star.y_err
    )
    with pytest.raises(LyotError, match="no model of the star"):
        star_on(unknown, [0], method=BY_MODEL)
