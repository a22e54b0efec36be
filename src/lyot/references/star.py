"""Finding the star behind the coronagraph."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms import fourier, registration, repair
from lyot.algorithms.geometry import radius_map
from lyot.compute import threads
from lyot.compute.cache import remembered
from lyot.errors import LyotError
from lyot.files.headers import ExposureInfo
from lyot.files.star import COMBINED, CRPIX, HEADER, MEASURED, PARAMETER, StarPosition
from lyot.instruments.instrument import mode_optics
from lyot.instruments.offaxis import Optics
from lyot.instruments.wavefront import MODEL_SEEDS, TRIAL_SEEDS
from lyot.parameters import AUTO, BY_MODEL, BY_SYMMETRY
from lyot.types import Array

log = logging.getLogger(__name__)

MAX_OFFSET_PIX = 3.0

INNER_LAMBDA_D, OUTER_LAMBDA_D = 2.2, 18.0
"""Annulus in which the model is fitted; the center of symmetry has no inner limit."""
UNKNOWN_ERROR_LAMBDA_D = 0.1
"""Error of the center of symmetry behind a mask or through a filter of which there is no model."""
MAX_FRAMES, TRIM = 48, 0.25
"""How many frames, evenly spread over the stack, the star is measured on; and the part of each
pixel's values that is left out at each end of their mean."""
TRIMMED_VARIANCE = 1.2
"""Variance of such a mean over that of the mean of all, for Gaussian noise."""
MODEL_WAVELENGTHS, MODEL_N_PUPIL = 3, 64
TRIAL_OFFSET_ARCSEC = 0.02
"""Offsets from the mask, per axis, over which the error is averaged: those that target acquisition
leaves."""
MIN_NOISE, NOISE_STEP = 2.0**-8, 4.0
"""Noise over the peak of the star's image below which it is none; and the steps in which it is
told apart, so that what is calibrated serves many exposures."""
N_NOISE, NOISE_AT_ONCE, NOISE_TOLERANCE_PIX = 12, 6, 1e-4
"""How often noise is added once more to what is measured, to see what noise does; how many such
images are measured together, and how well each place is then found."""
MAX_DISAGREEMENT = 2.0
"""How far the methods may differ, in errors of the difference, before the error grows."""
MAX_HEADER_ERRORS = 4.0
"""Difference, in errors of what is measured, beyond which the header's star is warned of."""
MAX_ACQUISITION_ERRORS = 4.0
"""Difference, in its error, beyond which the star by a target acquisition is not used."""


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

    That is the parameter, else STARCENX/Y, else the acquisition, else CRPIX, else the middle of the
    frame.
    """
    if known := stated_star(info, parameter_xy) or info.acquired:
        return known
    middle = (0.5 * (info.shape[-1] - 1), 0.5 * (info.shape[-2] - 1))
    x, y = info.crpix_xy or middle
    if not (0 <= x < info.shape[-1] and 0 <= y < info.shape[-2]):
        log.warning("CRPIX of %s lies outside its frame; the middle is taken.", info.name)
        x, y = middle
    return StarPosition(x, y, origin=CRPIX)


def find_star(
    info: ExposureInfo,
    frames: Frames,
    /,
    *,
    star_xy: tuple[float, float] | None = None,
    method: str = AUTO,
) -> StarPosition:
    """Return the star of an exposure: stated by the user or the header, else measured on frames.

    What the header states is measured besides: its error is the root of the sum of the squares of
    the difference and of the error of what is measured, which holds whatever made the header.
    What is measured on the frames and in a target acquisition is weighed by the errors of both.
    `star_xy` is the user's; for the rest see `measure_star`.
    """
    stated = stated_star(info, star_xy)
    if stated is not None and stated.origin != HEADER:
        return stated
    measured = measure_star(info, frames, guess_star(info, None), method=method)
    if stated is None or measured.origin != MEASURED:
        return stated or _with_acquisition(info, measured)
    apart, err = np.subtract(measured.yx, stated.yx), (measured.y_err, measured.x_err)
    y_err, x_err = np.hypot(apart, err)
    if np.any(np.abs(apart) > MAX_HEADER_ERRORS * np.array(err)):
        log.warning(
            "The star of %s lies at (x, y) = (%.2f, %.2f) by %s, at (%.2f, %.2f) +- (%.2f, %.2f) "
            "on the frames; the header is taken, with the difference as its error.",
            info.name,
            stated.x,
            stated.y,
            "/".join(info.instrument_value.keywords.star_pixel),
            measured.x,
            measured.y,
            measured.x_err,
            measured.y_err,
        )
    return replace(stated, x_err=float(x_err), y_err=float(y_err))


def _with_acquisition(info: ExposureInfo, star: StarPosition) -> StarPosition:
    """Weigh the star that was measured on the frames and that by the target acquisition."""
    acquired = info.acquired
    if acquired is None or star.origin != MEASURED:
        return star
    places, variances = (
        np.array(pair)
        for pair in zip(
            *(((s.x, s.y), (s.x_err**2, s.y_err**2)) for s in (star, acquired)), strict=True
        )
    )
    apart = np.abs(places[0] - places[1]) / np.sqrt(variances.sum(axis=0))
    if (apart > MAX_ACQUISITION_ERRORS).any():
        log.warning(
            "The star of %s lies at (x, y) = (%.2f, %.2f) on the frames, at (%.2f, %.2f) by its "
            "target acquisition, %.1f errors apart; the frames are taken.",
            info.name,
            *places.ravel(),
            apart.max(),
        )
        return star
    weights = 1.0 / variances
    total = weights.sum(axis=0)
    (x, y), (x_err, y_err) = (weights * places).sum(axis=0) / total, total**-0.5
    return StarPosition(float(x), float(y), float(x_err), float(y_err), COMBINED)


class Frames(NamedTuple):
    """Frames that show one star at one place: best references, without disc and companion."""

    sci: NDArray[np.floating]  # (n, n_y, n_x)
    variance: NDArray[np.floating]  # (n, n_y, n_x)
    bad: NDArray[np.bool_]  # (n, n_y, n_x), True where a pixel is left out
    shift_variance: NDArray[np.float64] | float = 0.0  # (2,) of their alignment, y and x [pixel^2]


@threads.calculation
def measure_star(
    info: ExposureInfo,
    frames: Frames,
    guess: StarPosition,
    /,
    *,
    method: str = AUTO,
) -> StarPosition:
    """Measure the star on frames.

    Parameters
    ----------
    info : ExposureInfo
        What the frames show.
    frames : Frames
        Frames that are aligned to one another.
    guess : StarPosition
        First guess.
    method : {"auto", "symmetry", "model"}, optional
        The center of symmetry; the fit of the mean image of a star behind the mask; or, by
        ``auto``, the mean of both, but the fit alone behind phase masks, whose inner image follows
        the star's place on the mask.

    Returns
    -------
    StarPosition
        With origin ``measured``; the guess where nothing is found within three pixels of it.

    Notes
    -----
    The star is sought on the mean of the frames, each pixel's lowest and highest quarter left out.
    The error is what the same methods make on images with other wavefront errors, of the size that
    the instrument states, bias included, which is common to all exposures of a mode; with the
    noise of the frames and of their alignment, and more where the methods disagree.
    """
    mode = _mode_of(info)
    if mode.optics is None and method == BY_MODEL:
        raise LyotError(
            "There is no model of the star behind this mask in this filter; set star_from to "
            f"{BY_SYMMETRY}, or give star_x and star_y."
        )
    both = [1] if info.coronagraph_value.deforms_with_offset else [0, 1]
    methods = {BY_SYMMETRY: [0], BY_MODEL: [1]}.get(method, both)
    found = _look(mode, frames, guess.yx, methods)
    if found is not None and np.any(np.round(found.yx) != np.round(guess.yx)):
        # The weights are about whole pixels: those of the star.
        found = _look(mode, frames, found.yx, methods)
    if found is None or np.any(np.abs(np.subtract(found.yx, guess.yx)) > MAX_OFFSET_PIX):
        log.warning(
            "The star of %s could not be measured; (x, y) = (%.2f, %.2f) from %s is taken.",
            info.name,
            guess.x,
            guess.y,
            guess.origin,
        )
        return guess
    return found


def _look(
    mode: _Mode, frames: Frames, guess_yx: tuple[float, float], methods: list[int]
) -> StarPosition | None:
    """Measure the star by some of the methods; only what is near it is looked at."""
    half = _half_width(mode.lambda_over_d_pix) + round(2 * MAX_OFFSET_PIX)
    corner = np.maximum(np.round(guess_yx).astype(int) - half, 0)
    image = _mean_frame(frames, corner, 2 * half + 1)
    if image.bad.all():
        return None
    start = np.asarray(guess_yx) - corner
    noise = _noise_of(image, mode, start)
    measure = _Measure(mode, image.sci.shape, tuple(start), noise)
    found = measure(image, start)
    usable = np.flatnonzero(np.isfinite(found[:, 0]))
    usable = usable[np.isin(usable, methods)]
    if not usable.size:
        return None
    covariance = measure.covariance
    if noise > 0.0:
        covariance = covariance + _scatter(measure, image, found)
    variance = _variance_of_mean(found[usable], covariance[:, usable][:, :, usable])
    y, x = (float(v) for v in found[usable].mean(axis=0) + corner)
    y_err, x_err = (float(v) for v in np.sqrt(variance + frames.shift_variance))
    return StarPosition(x, y, x_err, y_err, MEASURED)


class _Image(NamedTuple):
    sci: Array
    variance: Array
    bad: NDArray[np.bool_]


def _mean_frame(frames: Frames, corner: Array, width: int) -> _Image:
    """Mean of frames about the star, brought to one brightness; values at both ends left out."""
    y, x = (slice(int(c), int(c) + width) for c in corner)
    near = np.s_[:: max(1, -(-len(frames.sci) // MAX_FRAMES)), y, x]
    sci, variance = (part[near].astype(np.float64) for part in frames[:2])
    bad = frames.bad[near] | ~np.isfinite(sci + variance)
    sci[bad] = np.nan
    known = ~bad.all(axis=(1, 2))
    sci, variance, bad = sci[known], variance[known], bad[known]
    if not len(sci):
        empty = np.zeros(sci.shape[1:])
        return _Image(empty, empty, empty == 0.0)
    sci -= np.nanmedian(sci, axis=(1, 2), keepdims=True)
    held = np.where(bad, 0.0, sci)
    common = held.sum(axis=0) / np.maximum(np.sum(~bad, axis=0), 1)
    scale = np.sum(common * held, axis=(1, 2)) / np.sum(np.where(bad, 0.0, common**2), axis=(1, 2))
    shown = scale > 0.0
    sci, bad = sci[shown] / scale[shown, None, None], bad[shown]
    variance = variance[shown] / scale[shown, None, None] ** 2
    n = np.sum(~bad, axis=0)
    cut = (TRIM * n).astype(int)
    rank = np.arange(len(sci))[:, None, None]
    kept = (rank >= cut) & (rank < n - cut)
    mean = np.where(kept, np.sort(sci, axis=0), 0.0).sum(axis=0) / np.maximum(kept.sum(axis=0), 1)
    noise = np.where(bad, 0.0, variance).sum(axis=0) / np.maximum(n, 1) ** 2
    missing = n == 0
    noise = np.where(missing, 0.0, noise * np.where(cut > 0, TRIMMED_VARIANCE, 1.0))
    return _Image(repair.median_fill(mean[None], missing[None])[0], noise, missing)


def _scatter(measure: _Measure, image: _Image, found: Array) -> Array:
    """Mean products of how far noise moves what methods find, along y and x.

    Noise like that of the image is added to it once more, by which most moves; what then jumps to a
    speckle far away counts as three standard deviations.
    """
    sigma = np.sqrt(image.variance)
    start = np.nanmean(found, axis=0)

    def _moved(seeds: list[int]) -> Array:
        drawn = [np.random.default_rng(seed).normal(size=sigma.shape) for seed in seeds]
        moved = measure.several(image.sci + sigma * drawn, image, start, NOISE_TOLERANCE_PIX)
        return np.where(np.isfinite(moved), moved, MAX_OFFSET_PIX + found) - found

    seeds = list(range(N_NOISE))
    groups = [seeds[k : k + NOISE_AT_ONCE] for k in range(0, N_NOISE, NOISE_AT_ONCE)]
    moved = np.concatenate(threads.map_ordered(_moved, groups))
    most = 3.0 * repair.MAD_TO_SIGMA * np.median(np.abs(moved), axis=0)
    return _mean_products(np.clip(moved, -most, most))


def _mean_products(errors: Array) -> Array:
    """Mean over draws of the products of errors (n, methods, 2), along y and x."""
    return np.asarray(np.einsum("tia,tja->aij", errors, errors) / len(errors))


def _variance_of_mean(found: Array, covariance: Array) -> Array:
    """Variance along each axis of the mean of the places found (n, 2), from their covariance.

    Where two methods differ by more than their errors allow, the error grows as much.
    """
    variance = covariance.mean(axis=(1, 2))
    if len(found) == 1:
        return variance
    expected = np.trace(covariance, axis1=1, axis2=2) - 2.0 * covariance[:, 0, 1]
    apart = np.abs(found[0] - found[1]) / np.sqrt(expected)
    return variance * np.maximum(1.0, apart / MAX_DISAGREEMENT) ** 2


@dataclass(frozen=True, eq=False)
class _Mode:
    """What the image of the star depends on, and where the star stands on its mask."""

    optics: Optics | None  # None where there is no model
    place_xy: tuple[float, float]
    lambda_over_d_pix: float

    @property
    def known_optics(self) -> Optics:
        """The optics, where there is a model."""
        assert self.optics is not None
        return self.optics

    @property
    def group(self) -> str:
        """Folder of the cache: it depends on optics, place and the code of this module."""
        place, checksum = "-".join(f"{p:.4f}" for p in self.place_xy), self.known_optics.checksum
        return f"star-{checksum}-{_code()}-{place}" if checksum else ""


class _Measure:
    """The center of symmetry and, where there is a model, its fit: two methods on one image."""

    def __init__(
        self, mode: _Mode, shape: tuple[int, int], middle_yx: tuple[float, float], noise: float
    ) -> None:
        self._mode, self._noise = mode, noise
        self._fit = _ModelFit(mode, shape, middle_yx, noise) if mode.optics is not None else None

    @property
    def covariance(self) -> Array:
        """Mean products of the errors of the methods along y and x, over wavefronts, (2, n, n)."""
        if self._mode.optics is None:
            unknown = (UNKNOWN_ERROR_LAMBDA_D * self._mode.lambda_over_d_pix) ** 2
            return np.full((2, 1, 1), unknown)
        return _covariance(self._mode, self._noise)

    def __call__(self, image: _Image, start_yx: Array) -> Array:
        """Return the places (n, 2); NaN where a method has none."""
        return self.several(image.sci[None], image, start_yx, registration.TOLERANCE_PIX)[0]

    def several(self, sci: Array, like: _Image, start_yx: Array, tolerance: float) -> Array:
        """Return the places (n_image, n, 2) in images with the variance and bad pixels of one."""
        fit, start = self._fit, np.tile(start_yx, (len(sci), 1))
        if fit is None:
            return self._centers(sci, like, start, tolerance)[:, None]
        fitted = fit(sci, like, start, tolerance)
        # From more than half a speckle away it would be the center of another: the model's first.
        at = np.where(np.isfinite(fitted).all(axis=1, keepdims=True), fitted, start)
        return np.stack([self._centers(sci, like, at, tolerance), fitted], axis=1)

    def _centers(self, sci: Array, like: _Image, at_yx: Array, tolerance: float) -> Array:
        """Return the centers of symmetry (n_image, 2), sought about places."""
        found = np.full(at_yx.shape, np.nan)
        pixels, group = np.unique(np.round(at_yx), axis=0, return_inverse=True)
        for number, pixel in enumerate(pixels):
            pick = np.flatnonzero(group.ravel() == number)
            center = registration.symmetry_centers(
                sci[pick],
                like.variance,
                like.bad,
                at_yx[pick],
                inner_pix=0.0,
                outer_pix=OUTER_LAMBDA_D * self._mode.lambda_over_d_pix,
                max_offset=MAX_OFFSET_PIX,
                weight=None if self._fit is None else self._fit.trust(like.sci.shape, pixel),
                tolerance=tolerance,
            )
            good = center.converged & (center.contrast > 0.5)
            found[pick[good]] = center.center_yx[good]
        return found


class _ModelFit:
    """The image of a star behind the mask, the mean over wavefront errors, fitted to a frame.

    The weight grows with the square of the separation, as the image fades with it: so the many
    faint fringes count, not only the few bright speckles that the wavefront moves most; as far out
    as they rise above the noise, given over the peak of the star's image.
    """

    def __init__(
        self,
        mode: _Mode,
        shape: tuple[int, int],
        middle_yx: tuple[float, float],
        noise: float,
    ) -> None:
        # The model lies on a whole pixel; a fraction of one moves it with the fit.
        self._at = np.round(np.asarray(middle_yx))
        image = _mean_image(mode)
        self._spectra = fourier.spectrum(_framed(image, shape, self._at))[None]
        self._power, self._noise = _radial_power(image) / image.max() ** 2, noise
        radius = radius_map(shape, tuple(self._at)) / mode.lambda_over_d_pix
        inside = (radius >= INNER_LAMBDA_D) & (radius <= OUTER_LAMBDA_D)
        self._weight = inside * radius**2 * self.trust(shape, self._at)

    def trust(self, shape: tuple[int, int], at_yx: Array) -> Array:
        """Return how much of an image about a place is the star's: 1 without noise."""
        ring = np.round(radius_map(shape, tuple(np.round(at_yx)))).astype(int)
        power = self._power[np.minimum(ring, len(self._power) - 1)]
        return np.asarray(power / (power + self._noise**2))

    def __call__(self, sci: Array, like: _Image, starts_yx: Array, tolerance: float) -> Array:
        """Return the places (n_image, 2) in images with the variance and bad pixels of one."""
        guess = starts_yx - self._at
        data = np.where(like.bad, 0.0, sci)
        weight = np.where(like.bad, 0.0, self._weight)
        most = int(MAX_OFFSET_PIX)
        whole = registration.integer_shift(data, weight, self._spectra, max_shift=most)
        fit = registration.refine(
            data,
            weight,
            like.variance,
            np.broadcast_to(self._spectra, (len(data), *self._spectra.shape[1:])),
            np.zeros_like(like.variance)[None],
            whole,
            bound_yx=(guess - MAX_OFFSET_PIX, guess + MAX_OFFSET_PIX),
            tolerance=tolerance,
        )
        return np.where(fit.converged[:, None], fit.shift_yx + self._at, np.nan)


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


def _radial_power(image: Array) -> Array:
    """Mean square of an image by its distance from the middle in whole pixels."""
    ring = np.round(radius_map(image.shape, (len(image) // 2,) * 2)).astype(int).ravel()
    return np.bincount(ring, image.ravel() ** 2) / np.bincount(ring)


def _noise_of(image: _Image, mode: _Mode, start_yx: Array) -> float:
    """Noise over the peak of the star's image, in steps; 0 where it is small."""
    if mode.optics is None:
        return 0.0
    model = _mean_image(mode)
    within = radius_map(image.sci.shape, tuple(start_yx)) <= OUTER_LAMBDA_D * mode.lambda_over_d_pix
    within &= ~image.bad
    seen = _framed(model, image.sci.shape, np.round(start_yx))[within].sum()
    sigma = float(np.sqrt(np.median(image.variance[within])))
    # A star that the noise hides is as bright as it can be.
    flux = max(float(image.sci[within].sum()), sigma * np.sqrt(within.sum()))
    noise = sigma * seen / (flux * model.max())
    if noise < MIN_NOISE:
        return 0.0
    return float(NOISE_STEP ** np.round(np.log(noise) / np.log(NOISE_STEP)))


@lru_cache(maxsize=16)
def _mode(optics: Optics | None, place: tuple[float, float], lambda_over_d_pix: float) -> _Mode:
    if optics is not None:
        optics = replace(optics.with_fewer_wavelengths(MODEL_WAVELENGTHS), n_pupil=MODEL_N_PUPIL)
    return _Mode(optics, place, lambda_over_d_pix)


def _mode_of(info: ExposureInfo) -> _Mode:
    """Return the mode of an exposure; without optics where there is no model of it."""
    instrument, coronagraph = info.instrument_value, info.coronagraph_value
    filter_, width = instrument.find_filter(info.filter), info.lambda_over_d_pix
    if not coronagraph.is_modeled or filter_ is None:
        return _mode(None, (0.0, 0.0), width)
    optics = mode_optics(instrument, coronagraph, filter_, round(info.pixel_scale_arcsec, 6))
    return _mode(optics, optics.mask.along_detector(info.star_along_mask_arcsec, 0.0), width)


@lru_cache(maxsize=1)
def _code() -> str:
    of_fits = sorted(Path(str(registration.__file__)).parent.glob("*.py"))
    files = [Path(__file__), Path(str(fourier.__file__)), *of_fits]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def _drawn(mode: _Mode, seed: int, offset_yx: Array | tuple[float, float] = (0.0, 0.0), /) -> Array:
    """Image of the star with a wavefront, at an offset from its place [arcsec]."""
    optics = mode.known_optics
    n = optics.widest(2 * _half_width(mode.lambda_over_d_pix) + 1)
    x, y = np.divide(offset_yx[::-1], optics.detector.pixel_scale_arcsec)
    made = replace(optics, seed=seed).psf(
        (mode.place_xy[0] + offset_yx[1], mode.place_xy[1] + offset_yx[0]),
        n_pixels=n,
        fraction_xy=(float(x), float(y)),
    )
    return made.transmission * made.image


@lru_cache(maxsize=8)
def _mean_image(mode: _Mode) -> Array:
    """Mean of the images of a star at its place over draws of the wavefront errors."""

    def _make() -> dict[str, Array]:
        images = threads.map_ordered(lambda seed: _drawn(mode, seed), MODEL_SEEDS)
        return {"image": np.mean(images, axis=0)}

    return remembered(mode.group, "mean", _make)["image"]


@lru_cache(maxsize=2)
def _trials(mode: _Mode) -> list[tuple[Array, Array]]:
    """Images with other wavefronts and places than the model's, and where their stars are."""
    offsets = np.random.default_rng(0).normal(0.0, TRIAL_OFFSET_ARCSEC, (len(TRIAL_SEEDS), 2))
    pixel_yx = np.array(mode.known_optics.detector.pixel_scale_arcsec[::-1])

    def _one(trial: tuple[int, Array]) -> tuple[Array, Array]:
        image = _drawn(mode, *trial)
        return image, len(image) // 2 + trial[1] / pixel_yx

    return threads.map_ordered(_one, zip(TRIAL_SEEDS, offsets, strict=True))


@lru_cache(maxsize=16)
def _covariance(mode: _Mode, noise: float) -> Array:
    """Mean products of the errors of both methods along y and x, over other wavefronts."""

    def _errors(trial: tuple[Array, Array]) -> Array:
        image, star = trial
        measure = _Measure(mode, image.shape, (len(image) // 2,) * 2, noise)
        return measure(_Image(image, np.zeros_like(image), image < 0.0), star) - star

    def _make() -> dict[str, Array]:
        errors = np.array(threads.map_ordered(_errors, _trials(mode)))
        return {"covariance": _mean_products(errors[np.isfinite(errors).all(axis=(1, 2))])}

    return remembered(mode.group, f"errors-{noise:g}", _make)["covariance"]
