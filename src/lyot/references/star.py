"""Finding the star behind the coronagraph."""

from __future__ import annotations

import logging
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms import fourier, registration, repair
from lyot.algorithms.geometry import radius_map
from lyot.compute import threads
from lyot.files.exposure import Cube
from lyot.files.headers import ExposureInfo
from lyot.files.star import CRPIX, HEADER, MEASURED, PARAMETER, StarPosition
from lyot.instruments.optics import CoronagraphModel, draw_wavefront
from lyot.parameters import AUTO, BY_MODEL
from lyot.types import Array

log = logging.getLogger(__name__)

MAX_OFFSET_PIX = 3.0

INNER_LAMBDA_D, OUTER_LAMBDA_D = 2.2, 18.0
SYSTEMATIC_PIX = 0.1
"""How far the center of symmetry was seen to lie from the star: the speckles are not quite
point-symmetric (NIRCam F444W, AU Mic and its references)."""
MAX_FRAMES = 12
"""How many frames, evenly spread over the stack, the star is measured on."""
N_DRAWS, DRAW_WAVEFRONT_M, DRAW_OFFSET_ARCSEC = 12, 60e-9, 0.01
"""The wavefronts and the offsets from the mask over which the model's error is averaged."""


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
        measure = _ModelFit(_optics_of(cube.info), guess.yx, cube.info.lambda_over_d_pix)

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
    """The model of a star behind the middle of the mask, fitted to a frame.

    The weight grows with the square of the separation, as the image fades with it: so the many
    faint fringes count, not only the few bright speckles that the wavefront moves most.
    """

    def __init__(
        self, optics: CoronagraphModel, middle_yx: tuple[float, float], lambda_over_d_pix: float
    ) -> None:
        self._optics = optics
        self._at = np.asarray(middle_yx)
        self._scale = lambda_over_d_pix
        model = optics.image(center_xy=(middle_yx[1], middle_yx[0]))
        self._spectra = fourier.spectrum(model)[None]
        radius = radius_map(optics.shape, middle_yx) / lambda_over_d_pix
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
        return np.asarray(_model_error(self._optics, self._scale))


def _optics_of(info: ExposureInfo) -> CoronagraphModel:
    return info.instrument_value.model(
        info.coronagraph,
        info.filter,
        (info.shape[-2], info.shape[-1]),
        pixel_scale_arcsec=info.pixel_scale_arcsec,
    )


@lru_cache(maxsize=8)
def _model_error(optics: CoronagraphModel, lambda_over_d_pix: float) -> tuple[float, float]:
    """Monte Carlo error of the model fit along y and x, over wavefront and pointing draws."""
    rng = np.random.default_rng(0)
    middle = (0.5 * (optics.shape[0] - 1), 0.5 * (optics.shape[1] - 1))
    fit = _ModelFit(optics, middle, lambda_over_d_pix)

    def _error(draw: tuple[Array, Array]) -> NDArray[np.float64]:
        wavefront, offset = draw
        image = optics.image(
            wavefront_m=wavefront,
            source_xy_arcsec=(float(offset[1]), float(offset[0])),
            center_xy=(middle[1], middle[0]),
        )
        star = np.asarray(middle) + offset / optics.pixel_scale_arcsec
        center = fit(image, image, np.zeros(image.shape, bool), star)
        return np.full(2, np.nan) if center is None else center - star

    draws = []
    for _ in range(N_DRAWS):
        wavefront = draw_wavefront(optics.pupil, DRAW_WAVEFRONT_M, rng)
        draws.append((wavefront, rng.normal(0.0, DRAW_OFFSET_ARCSEC, 2)))
    found = np.array(threads.map_ordered(_error, draws))
    y, x = np.sqrt(np.nanmean(found**2, axis=0))
    return float(y), float(x)
