"""The star found on images with another wavefront than any model's, within the error stated."""

from dataclasses import replace

import numpy as np
import pytest

from lyot.errors import LyotError
from lyot.files.headers import ExposureInfo
from lyot.files.star import StarPosition
from lyot.instruments import instrument_named
from lyot.parameters import AUTO, BY_MODEL, BY_SYMMETRY
from lyot.references.star import Frames, find_star, measure_star

SHAPE, N = (101, 101), 16
ROUND = ("MASK335R", "F444W", "NIRCAM", "NRCALONG")
CASES = [
    (*ROUND, BY_SYMMETRY),
    (*ROUND, BY_MODEL),
    (*ROUND, AUTO),
    ("MASKSWB", "F210M", "NIRCAM", "NRCA4", AUTO),
    ("4QPM_1140", "F1140C", "MIRI", "MIRIMAGE", AUTO),
]
MORE_CASES = [
    ("LYOT_2300", "F2300C", "MIRI", "MIRIMAGE", AUTO),
    ("MASK210R", "F210M", "NIRCAM", "NRCA2", AUTO),
    ("MASKLWB", "F430M", "NIRCAM", "NRCALONG", AUTO),
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
    return info, cube, np.array(truth)


def star_on(info, sci, *, noise=0.0, **options):
    frames = Frames(sci, np.full(sci.shape, noise**2), np.zeros(sci.shape, bool))
    return measure_star(info, frames, StarPosition(50.0, 50.0), **options)


@pytest.mark.parametrize(
    ("mask", "band", "instrument", "detector", "method"),
    [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE_CASES)],
)
def test_the_stated_error_is_the_scatter_over_wavefronts(mask, band, instrument, detector, method):
    info, images, truth = stars(mask, band, instrument, detector)
    found = [star_on(info, image[None], method=method) for image in images]
    pull = (np.array([s.yx for s in found]) - truth) / [(s.y_err, s.x_err) for s in found]
    assert np.abs(pull).max() < 4.0
    assert np.all((np.sqrt(np.mean(pull**2, axis=0)) > 0.6) & (np.abs(pull.mean(axis=0)) < 0.8))
    assert np.sqrt(np.mean(pull**2)) < 1.4


def test_noise_is_in_the_error():
    info, images, truth = stars(*ROUND, n=8)
    rng = np.random.default_rng(4)
    pull, errors = [], []
    for image, at in zip(images, truth, strict=True):
        noise = 0.2 * image.max()
        sci = image + rng.normal(0.0, noise, (4, *image.shape))
        star = star_on(info, sci, noise=noise)
        errors.append((star.y_err, star.x_err))
        pull.append((np.array(star.yx) - at) / errors[-1])
    assert np.abs(pull).max() < 4.0
    assert 0.4 < np.sqrt(np.mean(np.square(pull))) < 1.5
    clean = star_on(info, images[:1])
    assert np.median(errors) > 1.1 * np.hypot(clean.x_err, clean.y_err) / np.sqrt(2.0)


def test_the_error_does_not_fall_with_the_number_of_frames():
    info, images, _ = stars(*ROUND, n=1)
    one = star_on(info, images)
    many = star_on(info, images[[0] * 8])
    assert (many.x_err, many.y_err) == pytest.approx((one.x_err, one.y_err))


def test_the_error_of_the_alignment_is_in_that_of_the_star():
    info, images, _ = stars(*ROUND, n=1)
    one = star_on(info, images)
    none = np.zeros(images.shape)
    frames = Frames(images, none, none > 0.0, np.array([0.09, 0.04]))
    shifted = measure_star(info, frames, StarPosition(50.0, 50.0))
    assert shifted.y_err == pytest.approx(np.hypot(one.y_err, 0.3), rel=1e-3)
    assert shifted.x_err == pytest.approx(np.hypot(one.x_err, 0.2), rel=1e-3)


def test_a_frame_unlike_the_others_does_not_move_the_star():
    info, images, _ = stars(*ROUND, n=1)
    frames = images[[0] * 6] * np.array([1.0, 2.0, 1.0, 0.5, 1.0, 1.0])[:, None, None]
    frames[2] = np.roll(frames[2], 3, axis=1)
    assert star_on(info, frames).x == pytest.approx(star_on(info, images).x, abs=0.01)


def test_the_star_of_the_header_has_the_error_that_the_frames_show():
    info, images, _ = stars(*ROUND, n=1)
    frames = Frames(images, np.zeros(images.shape), np.zeros(images.shape, bool))
    measured = star_on(info, images)
    for apart in (0.0, 1.5):
        stated = replace(info, star_xy=(measured.x + apart, measured.y))
        star = find_star(stated, frames)
        assert (star.origin, star.x) == ("header", measured.x + apart)
        # Both start elsewhere, so that they need not find the same to the last digit.
        assert star.x_err == pytest.approx(np.hypot(measured.x_err, apart), rel=0.05)
        assert star.y_err == pytest.approx(measured.y_err, rel=0.05)
    nothing = Frames(images * np.nan, images, np.zeros(images.shape, bool))
    assert find_star(replace(info, star_xy=(50.0, 50.0)), nothing).x_err == 0.5


def test_a_mode_without_a_model_is_measured_by_symmetry_alone():
    info, images, truth = stars(*ROUND, n=1)
    unknown = replace(info, filter="F999M")
    star = star_on(unknown, images)
    assert np.hypot(star.x - truth[0, 1], star.y - truth[0, 0]) < 3 * np.hypot(
        star.x_err, star.y_err
    )
    with pytest.raises(LyotError, match="no model of the star"):
        star_on(unknown, images, method=BY_MODEL)
