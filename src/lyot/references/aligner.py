"""References aligned to science integrations, one integration at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms import fourier, propagation, registration, repair
from lyot.algorithms.geometry import radius_map
from lyot.compute import devices, threads
from lyot.errors import LyotError
from lyot.files.aligned import AlignedFrames, ReferenceInfo
from lyot.files.exposure import Cube, check_same_mode
from lyot.files.headers import ExposureInfo
from lyot.files.star import StarPosition
from lyot.parameters import FIRST_INTEGRATION, AlignRecipe
from lyot.references.star import guess_star, measure_star, stated_star
from lyot.references.weights import builtin_weight

log = logging.getLogger(__name__)

FREE_MAX_SHIFT_PIX = 5.0
DITHER_MARGIN_PIX = 0.1
UNDERSAMPLED_FWHM_PIX = 2.0
MAX_JUDGES, JUDGED_RING_PIX, STRANGE_SIGMA = 12, 3.0, 3.0
BAD_FRACTION = 0.25
REFS_AT_ONCE = 4
NEAR_PIX = 0.001


ShiftFit = registration.ShiftFit


def _unfitted(start_yx: NDArray[np.float64], n_int: int) -> ShiftFit:
    """Return starts of the fits to every integration; none has converged."""
    shape = (n_int, len(start_yx))
    return ShiftFit(
        np.repeat(start_yx[None], n_int, axis=0),
        np.ones(shape),
        np.full((*shape, 2, 2), np.nan),
        np.full(shape, np.nan),
        np.zeros(shape, bool),
    )


@dataclass(frozen=True, eq=False)
class PreparedRefs:
    """References, repaired and transformed once, ready for any number of targets.

    Attributes
    ----------
    cube : Cube
        The stack as it is.
    bad : ndarray of bool, shape (n_ref, n_y, n_x)
        True where a pixel is bad.
    variance : ndarray, shape (n_ref, n_y, n_x), float32
        Variance.
    spectra : ndarray, shape (n_ref, m_y, m_x // 2 + 1), complex128
        Spectra of the repaired frames.
    """

    cube: Cube
    bad: NDArray[np.bool_]
    variance: NDArray[np.float32]
    spectra: NDArray[np.complex128]

    @cached_property
    def bad_at(self) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """The rows and columns of the bad pixels of each reference."""
        found = [np.nonzero(bad) for bad in self.bad]
        return [(y, x) for y, x in found]


@threads.calculation
def prepare_refs(refs: Cube, recipe: AlignRecipe, /) -> PreparedRefs:
    """Repair and transform the references.

    Parameters
    ----------
    refs : Cube
        The psfstack.
    recipe : AlignRecipe
        How bad pixels are told and repaired.

    Returns
    -------
    PreparedRefs
        To be used for every target.

    Raises
    ------
    LyotError
        If a reference has no good pixel or is zero everywhere.
    """
    bad = refs.bad(recipe.bad_bits)
    for k in range(len(refs.sci)):
        if bad[k].all():
            raise LyotError(f"Reference {k + 1} of the stack has no good pixel; leave it out.")
        if not np.any(refs.sci[k][~bad[k]]):
            raise LyotError(f"Reference {k + 1} of the stack is zero everywhere; leave it out.")

    m_y, m_x = (fourier.odd_grid_length(n) for n in refs.frame_shape)
    spectra = np.empty((len(refs.sci), m_y, m_x // 2 + 1), np.complex128)

    def _transform(k: int) -> None:
        frame = repair.median_fill(
            refs.sci[k : k + 1], bad[k : k + 1], box=recipe.median_box_length
        )
        spectra[k] = fourier.spectrum(frame[0])

    threads.map_ordered(_transform, range(len(refs.sci)))
    variance = refs.variance()
    # The errors are in the variance; a stack is large enough not to keep them twice.
    return PreparedRefs(replace(refs, err=variance[:0]), bad, variance, spectra)


class _Start(NamedTuple):
    """The fit of all pairs, of which some are starts alone, and the weight that fits use."""

    fits: ShiftFit
    weight: NDArray[np.float64]


class Aligner:
    """References aligned to the integrations of one science exposure, computed when asked for.

    Parameters
    ----------
    target : Cube
        The science exposure.
    refs : PreparedRefs
        The references.
    recipe : AlignRecipe
        How to align.
    weight_of : callable, optional
        Makes the weight of the pixels from the exposure and its star; the built-in annulus by
        default.
    star_xy : tuple of float, optional
        The star, where the user states it [pixel, 0-based].
    device : lyot.compute.devices.Device, optional
        Where the fits and the shifts are computed.

    Raises
    ------
    LyotError
        If target and references are of different modes, or no pixel has weight.
    """

    def __init__(
        self,
        target: Cube,
        refs: PreparedRefs,
        recipe: AlignRecipe,
        /,
        *,
        weight_of: Callable[[ExposureInfo, StarPosition], NDArray[np.float64]] = builtin_weight,
        star_xy: tuple[float, float] | None = None,
        device: devices.Device | None = None,
    ) -> None:
        """Check the inputs; nothing is computed yet."""
        check_same_mode(target.info, refs.cube.info)
        self.target = target
        self.refs = refs
        self.recipe = recipe
        self._device = device or devices.device("cpu")
        self._guess = guess_star(target.info, star_xy)
        self._stated = stated_star(target.info, star_xy)
        self._bad = target.bad(recipe.bad_bits)
        self._variance = target.variance()
        self._weight = np.asarray(weight_of(target.info, self._guess), dtype=np.float64)
        if not np.any(self._weight[~self._bad[0]] > 0):
            raise LyotError(f"No good pixel of {target.info.name} has weight in the alignment.")
        self._limits = _shift_limits(target.info, refs.cube, recipe)[:, None] * np.ones(2)
        self._cutoff = low_pass_cutoff(target.info)
        self.shifts: dict[int, ShiftFit] = {}
        self._likeness: repair.CrossPrediction | None = None
        self._latest: tuple[int, AlignedFrames] | None = None

    @property
    def shared(self) -> bool:
        """Whether one set of references serves every integration."""
        return self.recipe.align_to == FIRST_INTEGRATION

    @property
    def ref_info(self) -> ReferenceInfo | None:
        """What is known of each reference, where it is."""
        cube = self.refs.cube
        return ReferenceInfo.of(cube.targets, cube.pa_y_deg, cube.mjd)

    @property
    def n_sets(self) -> int:
        """Number of sets of aligned references: one, or one per integration."""
        return 1 if self.shared else len(self.target.sci)

    @cached_property
    def star(self) -> StarPosition:
        """The star on the science frames: stated, else measured on the aligned references."""
        if self._stated is not None:
            return self._stated
        if 0 not in self.shifts:
            self.frames(0)
        refs = self.refs
        star = measure_star(
            refs.cube,
            refs.variance,
            refs.bad,
            self._guess,
            shift_yx=self.shifts[0].shift_yx,
            method=self.recipe.star_from,
        )
        log.info(
            "The star of %s is at (x, y) = (%.2f, %.2f), %s.",
            self.target.info.name,
            star.x,
            star.y,
            star.origin,
        )
        return star

    @threads.calculation
    def frames(self, integration: int, /) -> AlignedFrames:
        """Align the references to one science integration.

        Parameters
        ----------
        integration : int
            Index of the integration.

        Returns
        -------
        AlignedFrames
            The references on its pixels; what was measured is kept in ``shifts``.
        """
        number = 0 if self.shared else integration
        if self._latest is None or self._latest[0] != number:
            self._latest = None  # so that one set is held, not two
            self._latest = (number, self._align(number))
        return self._latest[1]

    def _align(self, i: int) -> AlignedFrames:
        weight = np.where(self._bad[i], 0.0, self._start.weight)
        image, spectra, whole_spectra = self._fit_image(i), self._fit_spectra, self._spectra
        variance = self._variance[i].astype(np.float64)
        shape = self.target.frame_shape
        n_ref = len(self.refs.cube.sci)
        sci = np.empty((n_ref, *shape), np.float32)
        var = np.empty((n_ref, *shape), np.float32)
        bad = np.empty((n_ref, *shape), bool)
        shifts = ShiftFit(*(part[i].copy() for part in self._start.fits))
        again = np.flatnonzero(~shifts.converged)
        start = shifts.shift_yx.copy()

        def _polish(pick: list[int]) -> None:
            fit, aligned = self._device.run(
                registration.refine,
                image,
                weight,
                variance,
                spectra[pick],
                self.refs.variance[pick],
                start[pick],
                bound_yx=(-self._limits[pick], self._limits[pick]),
                cutoff=self._cutoff,
            )
            shifts.shift_yx[pick], shifts.scale[pick] = fit.shift_yx, fit.scale
            shifts.covariance[pick], shifts.rms[pick] = fit.covariance, fit.rms
            shifts.converged[pick] = fit.converged
            sci[pick] = aligned

        def _move(k: int) -> None:
            # What was fitted is not what is subtracted, where it was low-passed.
            if self._cutoff is not None or k not in polished:
                at = shifts.shift_yx[k]
                sci[k] = self._device.run(fourier.shift, whole_spectra[k], at, shape=shape)
            var[k], bad[k] = _move_rest(self.refs, k, shifts.shift_yx[k])

        polished = set(again.tolist())
        threads.map_ordered(_polish, [again[pick].tolist() for pick in _some(again.size)])
        threads.map_ordered(_move, range(n_ref))
        self.shifts[i] = shifts
        _report(shifts, self.target.info, i)
        at = bad.any(axis=0)
        if at.any():
            if self._likeness is None:
                self._likeness = learn_from(
                    sci.reshape(n_ref, -1),
                    var.reshape(n_ref, -1),
                    bad.reshape(n_ref, -1),
                    weight.ravel(),
                )
            sci[:, at], var[:, at] = repair.fill_from_others(
                sci[:, at], var[:, at], bad[:, at], self._likeness
            )
        return AlignedFrames(sci, var, _MovedFlags(self.refs.cube, shifts.shift_yx, bad))

    @cached_property
    def _spectra(self) -> Any:
        """Spectra of the references, on the device."""
        return self._device.put(self.refs.spectra)

    @cached_property
    def _fit_spectra(self) -> Any:
        """Spectra of the references for the fit: low-passed where they are undersampled."""
        if self._cutoff is None:
            return self._spectra
        return fourier.low_pass(self._spectra, shape=self.target.frame_shape, cutoff=self._cutoff)

    def _fit_image(self, i: int) -> NDArray[np.float64]:
        """One science integration for the fit: bad pixels repaired, or zero; low-passed."""
        bad = self._bad[i]
        if self._cutoff is None:
            return np.where(bad, 0.0, self.target.sci[i]).astype(np.float64)
        shape = self.target.frame_shape
        whole = repair.median_fill(self.target.sci[i : i + 1], bad[None])
        smooth = fourier.low_pass(fourier.spectrum(whole[0]), shape=shape, cutoff=self._cutoff)
        return np.asarray(fourier.shift(smooth, np.zeros(2), shape=shape))

    @cached_property
    def _start(self) -> _Start:
        """Where the fit of every pair starts: whole pixels, then the expansion for all pairs."""
        n_int, limits, refs = self.n_sets, self._limits, self.refs
        n_ref = len(refs.cube.sci)
        first, spectra = self._fit_image(0), self._fit_spectra
        weight = np.where(self._bad[0], 0.0, self._weight)

        judges = range(0, n_ref, max(1, -(-n_ref // MAX_JUDGES)))

        def _near(pick: slice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            whole = np.zeros_like(limits[pick])
            if np.all(limits[pick] >= 1.0):
                whole = self._device.run(
                    registration.integer_shift,
                    first,
                    weight,
                    spectra[pick],
                    max_shift=int(limits[pick].max()),
                )
            fit, aligned = self._device.run(
                registration.refine,
                first,
                weight,
                first,
                spectra[pick],
                refs.variance[pick],
                whole,
                tolerance=NEAR_PIX,
                bound_yx=(-limits[pick], limits[pick]),
            )
            asked = [number for number, k in enumerate(range(n_ref)[pick]) if k in judges]
            return fit.shift_yx, fit.scale[asked, None, None] * aligned[asked]

        near = threads.map_ordered(_near, _some(n_ref))
        start = np.concatenate([shift for shift, _ in near])
        models = np.concatenate([model for _, model in near])
        judged = self._weight * self._robust_weight(first, weight, models)
        if n_int == 1 or self._cutoff is not None or not (judged > 0).any():
            return _Start(_unfitted(start, n_int), judged)
        targets = self._device.put(
            registration.pair_targets(
                self.target.sci, judged, self._bad, self._variance.astype(np.float64)
            )
        )

        drift = np.zeros(2)  # of the middle of the targets from the first, which comes first

        def _fit(k: int) -> ShiftFit:
            center = start[k] + drift
            fit: ShiftFit = self._device.run(
                registration.fit_pairs, targets, spectra[k], refs.variance[k], center
            )
            return fit

        drift = np.median(_fit(0).shift_yx, axis=0) - start[0]
        pairs = threads.map_ordered(_fit, range(n_ref))
        fits = ShiftFit(*(np.stack(column, axis=1) for column in zip(*pairs, strict=True)))
        beyond = np.any(np.abs(fits.shift_yx) >= limits, axis=-1)
        np.clip(fits.shift_yx, -limits, limits, out=fits.shift_yx)
        return _Start(fits._replace(converged=fits.converged & ~beyond), judged)

    def _robust_weight(
        self,
        image: NDArray[np.float64],
        weight: NDArray[np.float64],
        models: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Weigh down what no reference has: a companion, a disc, a star in the background."""
        left = image - np.median(models, axis=0)
        ring = (radius_map(image.shape, self._guess.yx) / JUDGED_RING_PIX).astype(int)
        used = weight > 0
        factor = np.ones_like(weight)
        for number in np.unique(ring[used]):
            here = used & (ring == number)
            sigma = repair.MAD_TO_SIGMA * float(np.median(np.abs(left[here])))
            if sigma > 0:
                far = np.maximum(np.abs(left[here]) / (STRANGE_SIGMA * sigma), 1.0)
                factor[here] = far**-2
        return factor


def _some(n: int) -> list[slice]:
    """Divide references into groups that are worked on at once."""
    return [slice(k, min(k + REFS_AT_ONCE, n)) for k in range(0, n, REFS_AT_ONCE)]


def _shift_limits(target: ExposureInfo, refs: Cube, recipe: AlignRecipe) -> NDArray[np.float64]:
    """Largest shift of each reference [pixel].

    Where the mask deforms the image more than a dither moves it (4QPM), the shifts are bounded by
    the commanded dither: the distance of each reference from the middle of its small grid.
    """
    n_ref = len(refs.sci)
    if recipe.max_shift is not None:
        return np.full(n_ref, recipe.max_shift)
    if not target.coronagraph_value.deforms_with_offset:
        return np.full(n_ref, FREE_MAX_SHIFT_PIX)
    dither = np.zeros((n_ref, 2)) if refs.dither_arcsec is None else refs.dither_arcsec
    step = np.linalg.norm(dither - np.median(dither, axis=0), axis=1)
    return np.asarray(step / target.pixel_scale_arcsec + DITHER_MARGIN_PIX)


def _move_rest(
    refs: PreparedRefs, k: int, shift_yx: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Move variance and bad pixels of one reference along with its image."""
    shape = refs.cube.frame_shape
    variance = propagation.shift_variance(refs.variance[k], shift_yx)
    bad = fourier.outside(shift_yx, shape=shape)
    y, x = refs.bad_at[k]
    if y.size:
        bad |= _spread(y, x, shift_yx, shape) >= BAD_FRACTION - 1e-6
    return variance, bad


def _spread(
    y: NDArray[np.intp], x: NDArray[np.intp], shift_yx: NDArray[np.float64], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Share of each pixel that comes from given pixels, by linear interpolation."""
    share = np.zeros(shape, np.float32)
    whole = np.floor(shift_yx).astype(int)
    part = shift_yx - whole
    for step_y, weight_y in ((0, 1 - part[0]), (1, part[0])):
        for step_x, weight_x in ((0, 1 - part[1]), (1, part[1])):
            to_y, to_x = y + whole[0] + step_y, x + whole[1] + step_x
            inside = (to_y >= 0) & (to_y < shape[0]) & (to_x >= 0) & (to_x < shape[1])
            np.add.at(share, (to_y[inside], to_x[inside]), np.float32(weight_y * weight_x))
    return share


class _MovedFlags:
    """Flags of the references, moved along by whole pixels, with what was filled marked."""

    def __init__(self, refs: Cube, shift_yx: NDArray[np.float64], bad: NDArray[np.bool_]) -> None:
        self._dq, self._shift_yx, self._bad = refs.dq, shift_yx, bad
        self._nowhere = bad.all(axis=0)
        flag_value = refs.info.instrument_value.flag_value
        self._do_not_use = np.uint32(flag_value("DO_NOT_USE"))
        self._estimated = np.uint32(flag_value("FLUX_ESTIMATED"))

    def __len__(self) -> int:
        return len(self._dq)

    def __getitem__(self, k: int, /) -> NDArray[np.uint32]:
        whole = tuple(round(float(s)) for s in self._shift_yx[k])
        dq = np.roll(self._dq[k], whole, axis=(0, 1))
        bad = self._bad[k]
        dq[bad] = (dq[bad] & ~self._do_not_use) | self._estimated
        dq[self._nowhere] |= self._do_not_use
        return dq


MAX_LEARNT_PIXELS = 20_000


def learn_from(
    sci: NDArray[np.float32],
    variance: NDArray[np.float32],
    bad: NDArray[np.bool_],
    weight: NDArray[np.float64] | None = None,
    /,
) -> repair.CrossPrediction:
    """Learn how each reference follows from the others, where all are good.

    Parameters
    ----------
    sci, variance : ndarray, shape (n_ref, n_pix)
        References and their variance.
    bad : ndarray of bool, shape (n_ref, n_pix)
        True where a reference is bad.
    weight : ndarray, shape (n_pix,), optional
        Pixels of zero weight are not learnt from, if enough others are left.

    Returns
    -------
    Likeness
        From at most `MAX_LEARNT_PIXELS` pixels, evenly spread.
    """
    good = ~bad.any(axis=0)
    if weight is not None and (good & (weight > 0)).sum() > 4 * len(sci):
        good = good & (weight > 0)
    at = np.flatnonzero(good)
    at = at[:: max(1, at.size // MAX_LEARNT_PIXELS)]
    return repair.fit_cross_prediction(sci[:, at], variance[:, at])


def _report(shifts: ShiftFit, info: ExposureInfo, integration: int) -> None:
    failed = np.flatnonzero(~shifts.converged)
    if failed.size:
        log.warning(
            "The alignment of %d of %d references to integration %d of %s did not converge or "
            "met its bound (first: reference %d).",
            failed.size,
            len(shifts.converged),
            integration + 1,
            info.name,
            failed[0] + 1,
        )


def low_pass_cutoff(info: ExposureInfo, /) -> float | None:
    """Return how far frames are low-passed before undersampled ones are aligned.

    Frequencies above the pixels' Nyquist frequency are folded back below it, and what is folded
    does not shift with the image. Optics of diffraction limit d = lambda/D [pixel] pass up to
    2 / d of the Nyquist frequency, so 2 - 2 / d of it is clean.

    Parameters
    ----------
    info : ExposureInfo
        The science exposure.

    Returns
    -------
    float or None
        Cutoff of a Gaussian that keeps to the clean part [Nyquist frequency]; None where the
        FWHM is two pixels or more.
    """
    if info.filter_value is None or info.fwhm_pix >= UNDERSAMPLED_FWHM_PIX:
        return None
    return 0.6 * max(2.0 - 2.0 / info.lambda_over_d_pix, 0.3)


def undersampling_note(info: ExposureInfo, /) -> str:
    """Say what undersampling does to the shifts of an exposure.

    Parameters
    ----------
    info : ExposureInfo
        The science exposure.

    Returns
    -------
    str
        A sentence where the FWHM is below two pixels, else nothing.
    """
    cutoff = low_pass_cutoff(info)
    if cutoff is None:
        return ""
    return (
        f"The FWHM of {info.filter} is {info.fwhm_pix:.2f} pixels: the shifts of undersampled "
        f"images are fitted below {cutoff:.2f} of the Nyquist frequency, and can be biased by up "
        "to 0.01 pixel beyond their covariance."
    )
