"""Finding the star behind the coronagraph."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms import fourier, registration, repair
from lyot.algorithms.geometry import radius_map
from lyot.compute import threads
from lyot.files.exposure import Cube
from lyot.files.headers import ExposureInfo
from lyot.files.star import CRPIX, HEADER, MEASURED, PARAMETER, StarPosition
from lyot.instruments.instrument import Instrument
from lyot.instruments.offaxis import Optics
from lyot.parameters import AUTO, BY_MODEL
from lyot.types import Array

log = logging.getLogger(__name__)

MAX_OFFSET_PIX = 3.0

INNER_LAMBDA_D, OUTER_LAMBDA_D = 2.2, 18.0
SYSTEMATIC_PIX = 0.2
"""How far the center of symmetry was seen to lie from the star: the speckles are not quite
point-symmetric. 0.05 pixel for AU Mic in F444W, up to 0.25 in other filters of the same mask; the
same for all exposures of a mode."""
MAX_FRAMES = 12
"""How many frames, evenly spread over the stack, the star is measured on."""
MODEL_SEEDS, TRIAL_SEEDS = range(16), range(100, 112)
"""The draws of the wavefront errors whose mean is the model, and those on which it is tried."""
MODEL_WAVELENGTHS = 5
TRIAL_OFFSET_ARCSEC = 0.01
"""Offsets from the mask, per axis, over which the model's error is averaged."""


def stated_star(
    info: ExposureInfo, parameter_xy: tuple[float, float] | None, /
) -> StarPosition | None:
    """Return the star position that the user or the header states; None where neither does.

    `parameter_xy` is the user's [pixel, 0-based].
    """
    if parameter_xy is not None:
        return StarPosition(*parameter_xy, 0.0, 0.0, PARAMETER)
    if info.star_xy is not None:
        return StarPosition(*info.star_xy, origin=HEADER)
    return None


def guess_star(info: ExposureInfo, parameter_xy: tuple[float, float] | None, /) -> StarPosition:
    """Return the best star position without looking at the pixels.

    That is the parameter, else STARCENX/Y, else CRPIX, else the middle of the frame.
    """
    stated = stated_star(info, parameter_xy)
    if stated is not None:
        return stated
    middle = (0.5 * (info.shape[-1] - 1), 0.5 * (info.shape[-2] - 1))
    x, y = info.crpix_xy or middle
    if not (0 <= x < info.shape[-1] and 0 <= y < info.shape[-2]):
        log.warning("CRPIX of %s lies outside its frame; the middle is taken.", info.name)
        x, y = middle
    return StarPosition(x, y, origin=CRPIX)


def find_star(
    info: ExposureInfo,
    cube: Cube,
    variance: NDArray[np.floating],
    bad: NDArray[np.bool_],
    /,
    *,
    star_xy: tuple[float, float] | None = None,
    shift_yx: NDArray[np.floating] | None = None,
    method: str = AUTO,
) -> StarPosition:
    """Return the star of an exposure: stated by the user or the header, else measured on frames.

    The options are those of `measure_star`; `star_xy` is the user's.
    """
    stated = stated_star(info, star_xy)
    if stated is not None:
        return stated
    guess = guess_star(info, None)
    return measure_star(cube, variance, bad, guess, shift_yx=shift_yx, method=method)


@threads.calculation
def measure_star(
    cube: Cube,
    variance: NDArray[np.floating],
    bad: NDArray[np.bool_],
    guess: StarPosition,
    /,
    *,
    shift_yx: NDArray[np.floating] | None = None,
    method: str = AUTO,
) -> StarPosition:
    """Measure the star on frames, seen from another frame.

    Parameters
    ----------
    cube : Cube
        Frames, best those of the references, which hold neither disc nor companion.
    variance : ndarray, shape (n, n_y, n_x)
        Their variance.
    bad : ndarray of bool, shape (n, n_y, n_x)
        True where a pixel is left out.
    guess : StarPosition
        First guess.
    shift_yx : ndarray, shape (n, 2), optional
        The shift that aligns each frame to the frame in which the star is wanted [pixel].
    method : {"auto", "symmetry", "model"}, optional
        The center of symmetry; or the fit of a model of a star behind the mask; ``auto`` takes
        the model where the mask is not symmetric to the image (bars and phase masks).

    Returns
    -------
    StarPosition
        Median over the frames, with origin ``measured``; the guess where no frame has a center
        within three pixels of it.
    """
    step = max(1, -(-len(cube.sci) // MAX_FRAMES))
    by_model = method == BY_MODEL or (method == AUTO and cube.info.coronagraph_value.is_asymmetric)
    measure: _ModelFit | _SymmetryFit = _SymmetryFit(cube.info.lambda_over_d_pix)
    if by_model:
        measure = _model_fit(cube.info, guess.yx)

    def _one(i: int) -> NDArray[np.float64] | None:
        shift = np.zeros(2) if shift_yx is None else np.asarray(shift_yx[i])
        image = repair.median_fill(cube.sci[i : i + 1], bad[i : i + 1])[0]
        start = np.asarray(guess.yx) - shift
        center = measure(image, variance[i].astype(np.float64), bad[i], start)
        return None if center is None else center + shift

    measured = threads.map_ordered(_one, range(0, len(cube.sci), step))
    centers = [center for center in measured if center is not None]
    if not centers:
        log.warning(
            "The star of %s could not be measured; (x, y) = (%.2f, %.2f) from %s is taken.",
            cube.info.name,
            guess.x,
            guess.y,
            guess.origin,
        )
        return guess
    y, x = np.median(centers, axis=0)
    spread = np.std(centers, axis=0) / np.sqrt(len(centers))
    err = np.hypot(spread, measure.systematic_yx())
    return StarPosition(float(x), float(y), float(err[1]), float(err[0]), MEASURED)


class _SymmetryFit:
    """The center about which a frame is symmetric."""

    def __init__(self, lambda_over_d_pix: float) -> None:
        self._scale = lambda_over_d_pix

    def __call__(
        self, image: Array, variance: Array, bad: Array, start_yx: Array
    ) -> NDArray[np.float64] | None:
        center = registration.symmetry_center(
            image,
            variance,
            bad,
            (float(start_yx[0]), float(start_yx[1])),
            inner_pix=INNER_LAMBDA_D * self._scale,
            outer_pix=OUTER_LAMBDA_D * self._scale,
        )
        good = center.converged and float(center.contrast) > 0.5
        return np.asarray(center.center_yx) if good else None

    def systematic_yx(self) -> NDArray[np.float64]:
        return np.full(2, SYSTEMATIC_PIX)


class _ModelFit:
    """The image of a star behind the mask, the mean over wavefront errors, fitted to a frame.

    The weight grows with the square of the separation, as the image fades with it: so the many
    faint fringes count, not only the few bright speckles that the wavefront moves most.
    """

    def __init__(
        self,
        optics: Optics,
        star_place: tuple[float, float],
        shape: tuple[int, int],
        middle_yx: tuple[float, float],
        lambda_over_d_pix: float,
    ) -> None:
        self._mode = optics, star_place, lambda_over_d_pix
        # The model lies on a whole pixel; a fraction of one moves it with the fit.
        self._at = np.round(np.asarray(middle_yx))
        images = _mean_image(optics, star_place, _half_width(lambda_over_d_pix))
        self._spectra = fourier.spectrum(_framed(images, shape, self._at))[None]
        radius = radius_map(shape, tuple(self._at)) / lambda_over_d_pix
        self._weight = ((radius >= INNER_LAMBDA_D) & (radius <= OUTER_LAMBDA_D)) * radius**2

    def __call__(
        self, image: Array, variance: Array, bad: Array, start_yx: Array
    ) -> NDArray[np.float64] | None:
        start = (start_yx - self._at)[None]
        fit, _ = registration.refine(
            np.where(bad, 0.0, image).astype(np.float64),
            np.where(bad, 0.0, self._weight),
            variance,
            self._spectra,
            np.zeros_like(variance)[None],
            start,
            bound_yx=(start - MAX_OFFSET_PIX, start + MAX_OFFSET_PIX),
        )
        return fit.shift_yx[0] + self._at if fit.converged[0] else None

    def systematic_yx(self) -> NDArray[np.float64]:
        return np.asarray(_model_error(*self._mode))


def _half_width(lambda_over_d_pix: float) -> int:
    return int(np.ceil(OUTER_LAMBDA_D * lambda_over_d_pix + MAX_OFFSET_PIX)) + 2


def _framed(image: Array, shape: tuple[int, int], at_yx: Array) -> NDArray[np.float64]:
    """Put an image on a frame, its middle on a whole pixel."""
    half = len(image) // 2
    rows, columns = (np.arange(n) - int(v) + half for n, v in zip(shape, at_yx, strict=True))
    inside = [(v >= 0) & (v < len(image)) for v in (rows, columns)]
    frame = np.zeros(shape)
    frame[np.ix_(*inside)] = image[np.ix_(rows[inside[0]], columns[inside[1]])]
    return frame


@lru_cache(maxsize=16)
def _optics_of(
    instrument: Instrument, coronagraph: str, filter: str, pixel_scale_arcsec: float
) -> Optics:
    optics = instrument.optics(coronagraph, filter, pixel_scale_arcsec=pixel_scale_arcsec)
    return optics.with_fewer_wavelengths(MODEL_WAVELENGTHS)


def _model_fit(info: ExposureInfo, middle_yx: tuple[float, float]) -> _ModelFit:
    """Make the fit of the mode of an exposure."""
    coronagraph = info.instrument_value.coronagraph(info.coronagraph)
    scale = round(info.pixel_scale_arcsec, 6)
    optics = _optics_of(info.instrument_value, coronagraph.name, info.filter, scale)
    at = info.star_along_mask_arcsec
    place = optics.along_detector((at, 0.0))
    shape = (info.shape[-2], info.shape[-1])
    return _ModelFit(optics, place, shape, middle_yx, info.lambda_over_d_pix)


@lru_cache(maxsize=8)
def _mean_image(optics: Optics, star_place: tuple[float, float], half: int) -> Array:
    """Mean of the images of a star at its place over draws of the wavefront errors."""
    n = optics.widest(2 * half + 1)
    images = []
    for seed in MODEL_SEEDS:
        made = replace(optics, seed=seed).psf(star_place, n_pixels=n)
        images.append(made.transmission * made.image)
    return np.asarray(np.mean(images, axis=0))


@lru_cache(maxsize=8)
def _model_error(
    optics: Optics, star_place: tuple[float, float], lambda_over_d_pix: float
) -> tuple[float, float]:
    """Error of the model fit along y and x, over other wavefronts and pointings than its own."""
    half = _half_width(lambda_over_d_pix)
    n = optics.widest(2 * half + 1)
    middle = np.array([n // 2, n // 2])
    fit = _ModelFit(optics, star_place, (n, n), (n // 2, n // 2), lambda_over_d_pix)
    rng = np.random.default_rng(0)
    scale = optics.detector.pixel_scale_arcsec[::-1]
    found = []
    for seed in TRIAL_SEEDS:
        offset = rng.normal(0.0, TRIAL_OFFSET_ARCSEC, 2)
        y, x = offset / scale
        made = replace(optics, seed=seed).psf(
            (star_place[0] + offset[1], star_place[1] + offset[0]),
            n_pixels=n,
            fraction_xy=(float(x), float(y)),
        )
        star = middle + offset / scale
        center = fit(made.image, made.image, np.zeros((n, n), bool), star)
        found.append(np.full(2, np.nan) if center is None else center - star)
    y, x = np.sqrt(np.nanmean(np.square(found), axis=0))
    return float(y), float(x)
