"""The shifts of all references onto all integrations: a start for each pair, most of them final."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms import fourier, registration, repair
from lyot.algorithms.geometry import radius_map
from lyot.algorithms.registration import ShiftFit
from lyot.compute import devices
from lyot.files.exposure import Cube
from lyot.files.headers import ExposureInfo
from lyot.parameters import AlignRecipe
from lyot.references.prepare import PreparedRefs
from lyot.types import Array, Mask

MAX_FREE_SHIFT_PIX = 5.0
DITHER_MARGIN_PIX = 0.1
MIN_SAMPLED_FWHM_PIX = 2.0
"""Images of smaller FWHM are undersampled, and low-passed for the fit."""

MAX_SAMPLES, RING_PIX, MAX_EXCESS, SMOOTHING_FWHM, WINDOW_SIGMA = 12, 3.0, 2.0, 0.65, 4.0
"""The robust weight: number of references it is made from, width of its annuli, threshold, and
standard deviation and half width of the window in which residuals are averaged."""

MARGIN_PIX = 12
"""Pixels about the fit zone that are enough for the start of a fit."""

REFS_AT_ONCE, LOCATING_ORDER, FIRST_ORDER, SPREAD_PIX = 4, 5, 3, 0.02
FIRST_TOLERANCE_PIX, MODEL_TOLERANCES_PIX = 1e-3, (1e-3, 1e-6)
FRAMES_IN_USE = 64
"""So many frames of float64 a reference may take in a fit."""

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class FitFrames:
    """Target and references as the fit sees them."""

    target: Cube
    bad: Mask  # (n_int, n_y, n_x), of the target
    refs: PreparedRefs
    spectra: Any  # of the references, on the device, low-passed where they are undersampled
    limits: NDArray[np.float64]  # (n_ref, 2): largest shift of each reference [pixel]
    cutoff: float | None  # of the low-pass [Nyquist frequency]
    device: devices.Device

    def image(self, i: int, /) -> NDArray[np.float64]:
        """Return an integration with bad pixels zero; repaired and low-passed where that is due."""
        bad = self.bad[i]
        if self.cutoff is None:
            return np.where(bad, 0.0, self.target.sci[i]).astype(np.float64)
        shape = self.target.frame_shape
        repaired = repair.median_fill(self.target.sci[i : i + 1], bad[None])
        smooth = fourier.low_pass(fourier.spectrum(repaired[0]), shape=shape, cutoff=self.cutoff)
        return np.asarray(fourier.shift(smooth, np.zeros(2), shape=shape))

    def in_groups(
        self,
        function: Callable[[Sequence[int]], Result],
        refs: Sequence[int],
        /,
        *,
        at_once: int = REFS_AT_ONCE,
        n_bytes: int = 0,
    ) -> list[Result]:
        """Apply a function to groups of references, of which each takes at least `n_bytes`."""
        item_bytes = n_bytes + 8 * FRAMES_IN_USE * math.prod(self.target.frame_shape)
        return self.device.map_groups(function, refs, at_once=at_once, item_bytes=item_bytes)

    def at_once(self, refs: Sequence[int], /) -> int:
        """Return how many references of a group are transformed at once: what the cache holds."""
        return 1 if self.device.is_numpy else len(refs)

    def refine(
        self,
        pick: Sequence[int],
        image: Array,
        weight: Array,
        noise: Array | None,
        start: Array,
        /,
        **options: Any,
    ) -> ShiftFit:
        """Fit some references to one `image` until they converge; its variance, for covariances."""
        limits, variance = self.limits[pick], self.refs.variance[pick]
        options["bound_yx"] = (-limits, limits)
        data = (image, weight, noise, devices.rows(self.spectra, pick), variance, start)
        return ShiftFit(*self.device.run(registration.refine, *data, **options))


def first_shifts(frames: FitFrames, weight: Array, /) -> NDArray[np.float64]:
    """Fit all references to the first integration, roughly: shifts ``(n_ref, 2)``.

    The part of the frames about the fit zone is enough for a start, and a tenth of the work.
    """
    limits, run, shape = frames.limits, frames.device.run, frames.target.frame_shape
    box = _about(weight, MARGIN_PIX)
    target, of_pixels = frames.image(0)[box], weight[box]
    shifts = np.zeros_like(limits)

    def _fit(pick: Sequence[int]) -> None:
        bound, spectra = limits[pick], devices.rows(frames.spectra, pick)
        spectra = fourier.cut(spectra, shape=shape, rows=box[0], columns=box[1])
        start = np.zeros_like(bound)
        if np.all(bound >= 1.0):
            most = int(bound.max())
            kernel = partial(registration.integer_shift, at_once=frames.at_once(pick))
            start = run(kernel, target, of_pixels, spectra, max_shift=most)
        data = (target, of_pixels, None, spectra, None, start)
        options = {"bound_yx": (-bound, bound), "tolerance": FIRST_TOLERANCE_PIX}
        shifts[pick] = run(registration.refine, *data, **options).shift_yx

    frames.in_groups(_fit, range(len(limits)))
    return shifts


def _about(weight: Array, margin: int) -> tuple[slice, slice]:
    """Return the part of a frame that holds all pixels of positive weight, and a margin."""
    zone = registration.zone_of(weight)
    rows, columns = (
        slice(max(part.start - margin, 0), min(part.stop + margin, n))
        for part, n in zip((zone.rows, zone.columns), weight.shape, strict=True)
    )
    return rows, columns


def robust_weight(
    frames: FitFrames, weight: Array, shifts: Array, center_yx: tuple[float, float], /
) -> NDArray[np.float64]:
    """Weigh down what no reference has: a companion with its lobes, a disc, a background star.

    A few references are fitted to the first integration. Where the rms of what their median leaves,
    in a window of about an image's width, is more than `MAX_EXCESS` times its median over the
    annulus, pixels count less. They are fitted once more so, as a bright neighbor moves them.
    """
    first, shape = frames.image(0), frames.target.frame_shape
    picks = list(range(0, len(shifts), max(1, -(-len(shifts) // MAX_SAMPLES))))
    width = SMOOTHING_FWHM * frames.target.info.fwhm_pix
    box = _about(weight, round(WINDOW_SIGMA * width) + 1)
    ring = (radius_map(shape, center_yx) / RING_PIX).astype(int)[box]
    factor, starts = np.ones_like(weight), shifts.copy()
    for tolerance in MODEL_TOLERANCES_PIX:

        def _models(
            pick: Sequence[int], of_pixels: Array = weight * factor, tolerance: float = tolerance
        ) -> Array:
            fit = frames.refine(pick, first, of_pixels, None, starts[pick], tolerance=tolerance)
            starts[pick] = fit.shift_yx
            spectra = devices.rows(frames.spectra, pick)
            moved = frames.device.run(
                fourier.shift, spectra, fit.shift_yx, shape=shape, rows=box[0]
            )
            return np.asarray(fit.scale[:, None, None] * moved[..., box[1]])

        models = np.median(np.concatenate(frames.in_groups(_models, picks, at_once=1)), axis=0)
        factor[box] = _factor(first[box] - models, weight[box] > 0, ring, width)
    return factor


def _factor(residual: Array, used: Mask, ring: Array, width: float) -> NDArray[np.float64]:
    """Factor on the weight of pixels about which the residual is large for its annulus."""
    from scipy.ndimage import gaussian_filter

    square = np.where(used, residual, 0.0) ** 2
    smooth = partial(gaussian_filter, sigma=width, truncate=WINDOW_SIGMA)
    rms = np.sqrt(smooth(square) / np.where(used, smooth(used.astype(np.float64)), 1.0))
    factor = np.ones(residual.shape)
    for number in np.unique(ring[used]):
        annulus = used & (ring == number)
        typical = float(np.median(rms[annulus]))
        if typical > 0:
            factor[annulus] = np.maximum(rms[annulus] / (MAX_EXCESS * typical), 1.0) ** -4
    return factor


def fit_all_pairs(
    frames: FitFrames, weight: Array, variance: Array, start_yx: Array, /
) -> ShiftFit:
    """Fit all references to all integrations by one expansion of each: ``(n_int, n_ref)``."""
    targets = registration.pair_targets(
        frames.target.sci, weight, frames.bad, variance.astype(np.float64)
    )
    n_terms = (registration.ORDER + 1) * (registration.ORDER + 2) // 2
    n_bytes = 8 * len(variance) * (8 * targets.weighted.shape[1] + 4 * n_terms**2)
    targets = frames.device.put(targets)

    def _fit(refs: Sequence[int], centers_yx: Array, **options: Any) -> ShiftFit:
        spectra = devices.rows(frames.spectra, refs)
        data = (targets, spectra, frames.refs.variance[refs], centers_yx[refs])
        options["at_once"] = frames.at_once(refs)
        return ShiftFit(*frames.device.run(registration.fit_pairs, *data, **options))

    # The expansion is best about the middle of the targets; one reference tells where it lies, how
    # far it has to reach, and which order is enough, ten times better than it must be. What lies
    # too far from the target next to the middle is fitted by itself afterwards.
    one = [0]
    offsets = _fit(one, start_yx, order=LOCATING_ORDER).shift_yx[0] - start_yx[0]
    middle = offsets[np.abs(offsets - np.median(offsets, axis=0)).max(axis=1).argmin()]
    away = np.abs(offsets - middle).max(axis=1)
    far = away > fourier.MAX_REACH_PIX - SPREAD_PIX
    ends = np.array([end(offsets[~far], axis=0) for end in (np.min, np.max)])
    start_yx = start_yx + ends.mean(axis=0)
    reach = {"reach_yx": 0.5 * (ends[1] - ends[0]) + SPREAD_PIX}
    enough = {"tolerance": 0.1 * registration.TOLERANCE_PIX, **reach}
    order = FIRST_ORDER
    while order < registration.ORDER:
        if _fit(one, start_yx, order=order, **enough).converged[:, ~far].all():
            break
        order += 1

    def _fit_all(refs: Sequence[int]) -> ShiftFit:
        fit = _fit(refs, start_yx, order=order, **reach)
        if order == registration.ORDER or fit.converged[:, ~far].all():
            return fit
        return _fit(refs, start_yx, **reach)

    parts = frames.in_groups(_fit_all, range(len(frames.refs)), n_bytes=n_bytes)
    columns = (np.swapaxes(np.concatenate(column), 0, 1) for column in zip(*parts, strict=True))
    fits = ShiftFit(*(np.ascontiguousarray(column) for column in columns))
    beyond = np.any(np.abs(fits.shift_yx) >= frames.limits, axis=-1)
    np.clip(fits.shift_yx, -frames.limits, frames.limits, out=fits.shift_yx)
    return fits._replace(converged=fits.converged & ~beyond)


def shift_limits(target: ExposureInfo, refs: Cube, recipe: AlignRecipe, /) -> Array:
    """Return the largest shift of each reference [pixel]; its dither where the mask deforms it."""
    n_ref = len(refs.sci)
    if recipe.max_shift is not None:
        return np.full(n_ref, recipe.max_shift)
    if not target.coronagraph_value.deforms_with_offset:
        return np.full(n_ref, MAX_FREE_SHIFT_PIX)
    dither = np.zeros((n_ref, 2)) if refs.dither_arcsec is None else refs.dither_arcsec
    step = np.linalg.norm(dither - np.median(dither, axis=0), axis=1)
    return np.asarray(step / target.pixel_scale_arcsec + DITHER_MARGIN_PIX)


def low_pass_cutoff(info: ExposureInfo, /) -> float | None:
    """Return how far frames are low-passed for the fit [Nyquist frequency]; None for not at all.

    Frequencies above the pixels' Nyquist frequency are folded back below it, and what is folded
    does not shift with the image. Optics of diffraction limit d = lambda/D [pixel] pass up to
    2 / d of the Nyquist frequency, so 2 - 2 / d of it is clean.
    """
    if info.filter_value is None or info.fwhm_pix >= MIN_SAMPLED_FWHM_PIX:
        return None
    return 0.6 * max(2.0 - 2.0 / info.lambda_over_d_pix, 0.3)


def undersampling_note(info: ExposureInfo, /) -> str:
    """Say what undersampling does to the shifts of an exposure, if it does anything."""
    cutoff = low_pass_cutoff(info)
    if cutoff is None:
        return ""
    return (
        f"The FWHM of {info.filter} is {info.fwhm_pix:.2f} pixels: the shifts of undersampled "
        f"images are fitted below {cutoff:.2f} of the Nyquist frequency, and can be biased by up "
        "to 0.01 pixel beyond their covariance."
    )
