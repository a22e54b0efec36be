"""Finding the star behind the coronagraph."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms import fourier, registration, repair
from lyot.algorithms.geometry import radius_map
from lyot.compute import threads
from lyot.compute.cache import remembered
from lyot.errors import LyotError
from lyot.files.exposure import Cube
from lyot.files.headers import ExposureInfo
from lyot.files.star import CRPIX, HEADER, MEASURED, PARAMETER, StarPosition
from lyot.instruments.instrument import Instrument
from lyot.instruments.offaxis import Optics
from lyot.instruments.wavefront import MODEL_SEEDS, TRIAL_SEEDS
from lyot.parameters import AUTO, BY_MODEL, BY_SYMMETRY
from lyot.types import Array

log = logging.getLogger(__name__)

MAX_OFFSET_PIX = 3.0

INNER_LAMBDA_D, OUTER_LAMBDA_D = 2.2, 18.0
"""Annulus in which the model is fitted; the center of symmetry has no inner limit."""
POWER = 0.75
"""The center of symmetry is that of this power of the image, so that neither the few brightest
speckles nor the many faint ones decide alone."""
UNKNOWN_ERROR_LAMBDA_D = 0.1
"""Error of the center of symmetry behind a mask or through a filter of which there is no model."""
MAX_FRAMES, TRIM = 12, 0.25
"""How many frames, evenly spread over the stack, the star is measured on; and the part of them that
is left out at each end of the mean."""
MODEL_WAVELENGTHS, N_TRIAL_PUPIL = 3, 64
TRIAL_OFFSET_ARCSEC = 0.02
"""Offsets from the mask, per axis, over which the error is averaged: those that target acquisition
leaves."""


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
        The center of symmetry; or the fit of the mean image of a star behind the mask; ``auto``
        takes the image behind phase masks, whose inner part follows the star's place on the mask.

    Returns
    -------
    StarPosition
        Mean over the middle half of the frames, with origin ``measured``; the guess where no frame
        has a center within three pixels of it.

    Notes
    -----
    The error is what the same method makes on images with other wavefront errors, of the size that
    the instrument states. It is common to all exposures of a mode.
    """
    step = max(1, -(-len(cube.sci) // MAX_FRAMES))
    mode = _mode_of(cube.info)
    if method == AUTO:
        method = BY_MODEL if cube.info.coronagraph_value.deforms_with_offset else BY_SYMMETRY
    # Only what is near the star is looked at.
    half = _half_width(mode.lambda_over_d_pix) + round(2 * MAX_OFFSET_PIX)
    corner = np.maximum(np.round(guess.yx).astype(int) - half, 0)
    near = tuple(slice(c, c + 2 * half + 1) for c in corner)
    shape = bad[0][near].shape
    measure = _measure(mode, method, shape, tuple(np.asarray(guess.yx) - corner))

    def _one(i: int) -> NDArray[np.float64] | None:
        shift = (np.zeros(2) if shift_yx is None else np.asarray(shift_yx[i])) + corner
        sci, missing = cube.sci[i][near], bad[i][near]
        image = repair.median_fill(sci[None], missing[None])[0]
        start = np.asarray(guess.yx) - shift
        center = measure(image, variance[i][near].astype(np.float64), missing, start)
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
    n_cut = int(TRIM * len(centers))
    y, x = np.mean(np.sort(centers, axis=0)[n_cut : len(centers) - n_cut], axis=0)
    spread = np.std(centers, axis=0) / np.sqrt(len(centers))
    err = np.hypot(spread, _error_pix(mode, method))
    return StarPosition(float(x), float(y), float(err[1]), float(err[0]), MEASURED)


class _Mode(NamedTuple):
    """What the image of the star depends on, and where the star stands on its mask."""

    optics: Optics | None
    place_xy: tuple[float, float]
    lambda_over_d_pix: float


_Measure = Callable[[Array, Array, Array, Array], NDArray[np.float64] | None]
"""What finds the star on an image, from its variance, its bad pixels and a first guess."""


def _measure(
    mode: _Mode, method: str, shape: tuple[int, int], middle_yx: tuple[float, float]
) -> _Measure:
    if mode.optics is None and method == BY_MODEL:
        raise LyotError(
            "There is no model of the star behind this mask in this filter; set star_from to "
            f"{BY_SYMMETRY}, or give star_x and star_y."
        )
    fit = None if mode.optics is None else _ModelFit(mode, mode.optics, shape, middle_yx)
    if method == BY_MODEL and fit is not None:
        return fit
    return partial(_center_of_symmetry, OUTER_LAMBDA_D * mode.lambda_over_d_pix, fit)


def _center_of_symmetry(
    outer_pix: float,
    first: _Measure | None,
    image: Array,
    variance: Array,
    bad: Array,
    start_yx: Array,
) -> NDArray[np.float64] | None:
    # From more than half a speckle away it would be the center of another: the model comes first.
    fitted = first(image, variance, bad, start_yx) if first is not None else None
    at = start_yx if fitted is None else fitted
    center = registration.symmetry_center(
        np.sign(image) * np.abs(image) ** POWER,
        variance,
        bad,
        (float(at[0]), float(at[1])),
        inner_pix=0.0,
        outer_pix=outer_pix,
        max_offset=MAX_OFFSET_PIX,
    )
    good = center.converged and float(center.contrast) > 0.5
    return np.asarray(center.center_yx) if good else None


class _ModelFit:
    """The image of a star behind the mask, the mean over wavefront errors, fitted to a frame.

    The weight grows with the square of the separation, as the image fades with it: so the many
    faint fringes count, not only the few bright speckles that the wavefront moves most.
    """

    def __init__(
        self,
        mode: _Mode,
        optics: Optics,
        shape: tuple[int, int],
        middle_yx: tuple[float, float],
    ) -> None:
        # The model lies on a whole pixel; a fraction of one moves it with the fit.
        self._at = np.round(np.asarray(middle_yx))
        images = _mean_image(optics, mode.place_xy, _half_width(mode.lambda_over_d_pix))
        self._spectra = fourier.spectrum(_framed(images, shape, self._at))[None]
        radius = radius_map(shape, tuple(self._at)) / mode.lambda_over_d_pix
        self._weight = ((radius >= INNER_LAMBDA_D) & (radius <= OUTER_LAMBDA_D)) * radius**2

    def __call__(
        self, image: Array, variance: Array, bad: Array, start_yx: Array
    ) -> NDArray[np.float64] | None:
        guess = (start_yx - self._at)[None]
        data = np.where(bad, 0.0, image).astype(np.float64)
        weight = np.where(bad, 0.0, self._weight)
        start = registration.integer_shift(
            data, weight, self._spectra, max_shift=int(MAX_OFFSET_PIX)
        )
        fit, _ = registration.refine(
            data,
            weight,
            variance,
            self._spectra,
            np.zeros_like(variance)[None],
            start,
            bound_yx=(guess - MAX_OFFSET_PIX, guess + MAX_OFFSET_PIX),
        )
        return fit.shift_yx[0] + self._at if fit.converged[0] else None


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


def _mode_of(info: ExposureInfo) -> _Mode:
    """Return the mode of an exposure; without optics where there is no model of it."""
    coronagraph = info.coronagraph_value
    filter_ = info.instrument_value.find_filter(info.filter)
    if not coronagraph.is_modeled or filter_ is None:
        return _Mode(None, (0.0, 0.0), info.lambda_over_d_pix)
    scale = round(info.pixel_scale_arcsec, 6)
    optics = _optics_of(info.instrument_value, coronagraph.name, info.filter, scale)
    place = optics.mask.along_detector(info.star_along_mask_arcsec, 0.0)
    return _Mode(optics, place, info.lambda_over_d_pix)


@lru_cache(maxsize=8)
def _mean_image(optics: Optics, star_place: tuple[float, float], half: int) -> Array:
    """Mean of the images of a star at its place over draws of the wavefront errors."""
    n = optics.widest(2 * half + 1)

    def _draw(seed: int) -> Array:
        made = replace(optics, seed=seed).psf(star_place, n_pixels=n)
        return made.transmission * made.image

    def _make() -> dict[str, Array]:
        return {"image": np.mean(threads.map_ordered(_draw, MODEL_SEEDS), axis=0)}

    name = f"image-{star_place[0]!r}-{star_place[1]!r}-{n}"
    return remembered(_group(optics), name, _make)["image"]


def _group(optics: Optics) -> str:
    """Name the folder of the cache that depends on optics and on the code of this module."""
    return f"star-{optics.checksum}-{_code()}" if optics.checksum else ""


@cache
def _code() -> str:
    of_fits = sorted(Path(str(registration.__file__)).parent.glob("*.py"))
    files = [Path(__file__), Path(str(fourier.__file__)), *of_fits]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


@lru_cache(maxsize=16)
def _error_pix(mode: _Mode, method: str) -> float:
    """Error of a method along an axis, over other wavefronts and places than its own."""
    scale, place = mode.lambda_over_d_pix, mode.place_xy
    if mode.optics is None:
        return UNKNOWN_ERROR_LAMBDA_D * scale
    optics = replace(mode.optics, n_pupil=N_TRIAL_PUPIL)
    n = optics.widest(2 * _half_width(scale) + 1)
    middle = np.array([n // 2, n // 2])
    measure: _Measure = partial(_center_of_symmetry, OUTER_LAMBDA_D * scale, None)
    if method == BY_MODEL:
        measure = _ModelFit(mode, mode.optics, (n, n), (n // 2, n // 2))
    rng = np.random.default_rng(0)
    pixel_yx = np.array(optics.detector.pixel_scale_arcsec[::-1])

    def _trial(item: tuple[int, NDArray[np.float64]]) -> NDArray[np.float64]:
        seed, offset = item
        y, x = offset / pixel_yx
        made = replace(optics, seed=seed).psf(
            (place[0] + offset[1], place[1] + offset[0]),
            n_pixels=n,
            fraction_xy=(float(x), float(y)),
        )
        star = middle + offset / pixel_yx
        center = measure(made.image, made.image, np.zeros((n, n), bool), star)
        return np.full(2, np.nan) if center is None else center - star

    def _make() -> dict[str, Array]:
        trials = [(seed, rng.normal(0.0, TRIAL_OFFSET_ARCSEC, 2)) for seed in TRIAL_SEEDS]
        return {"found": np.array(threads.map_ordered(_trial, trials))}

    name = f"{method}-{place[0]!r}-{place[1]!r}-{n}"
    found = remembered(_group(optics), name, _make)["found"]
    return float(np.sqrt(np.nanmean(np.square(found))))
