"""References aligned to the integrations of a science exposure as they are asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from lyot.algorithms import fourier, propagation, repair
from lyot.algorithms.registration import ShiftFit
from lyot.compute import devices, memory, threads
from lyot.errors import LyotError
from lyot.files.aligned import AlignedArrays, AlignedFrames
from lyot.files.exposure import Cube, check_same_mode
from lyot.files.star import UNKNOWN_ERROR_PIX, StarPosition
from lyot.parameters import FIRST_INTEGRATION, AlignRecipe, to_dict
from lyot.references.fill import (
    Moved,
    fill_moved,
    learn_prediction,
    move_bad,
    move_bad_there,
)
from lyot.references.flags import MovedFlags, PlacesThere
from lyot.references.prepare import PreparedRefs
from lyot.references.shifts import (
    FitFrames,
    first_shifts,
    fit_all_pairs,
    low_pass_cutoff,
    robust_weight,
    shift_limits,
    undersampling_note,
)
from lyot.references.star import Frames, find_star, guess_star
from lyot.references.vet import ReferenceWarning, find_contaminated, find_saturated
from lyot.references.weights import builtin_weight
from lyot.types import Array

log = logging.getLogger(__name__)

IMAGES_AT_ONCE, OTHERS_AT_ONCE = 4, 40
"""References whose images a thread moves at once, and whose variances and gaps."""


class AlignedSet(NamedTuple):
    """The references on the pixels of one integration, and the shifts that put them there."""

    frames: AlignedFrames
    fit: ShiftFit


class Aligner:
    """The references of each integration of a science exposure, aligned when they are asked for.

    The references of one integration are held at a time; they are the same in whatever order the
    integrations are asked for.
    `weight`, ``(n_y, n_x)``, is that of the pixels in the fits, by default the built-in annulus
    about the star; `star_xy` is the star where the user states it [pixel, 0-based]. `receive` is
    given the number of each set and the set, the first time that it is computed. Without
    `warnings` the references are vetted. `name`, `inputs` and `weight_origin` are for the record.
    """

    def __init__(
        self,
        target: Cube,
        refs: PreparedRefs,
        recipe: AlignRecipe,
        /,
        *,
        weight: Array | None = None,
        star_xy: tuple[float, float] | None = None,
        device: devices.Device | None = None,
        receive: Callable[[int, AlignedFrames], None] | None = None,
        warnings: Sequence[ReferenceWarning] | None = None,
    ) -> None:
        """Refuse references of another mode, and a weight that is zero on all good pixels."""
        check_same_mode(target.info, refs.cube.info)
        self.target, self.refs, self.recipe, self.ref_info = target, refs, recipe, refs.info
        self.shared = recipe.align_to == FIRST_INTEGRATION  # one set serves every integration
        self.n_sets = 1 if self.shared else len(target.sci)
        self.name, self.weight_origin = "", "built in"
        self.inputs: list[str] = []
        self._device, self._star_xy = device or devices.device("cpu"), star_xy
        self._receive, self._warnings = receive, warnings
        self._guess = guess_star(target.info, star_xy)
        self._bad = target.bad(recipe.bad_bits)
        self._variance = target.variance()
        self._prediction: repair.CrossPrediction | None = None
        self._fits: dict[int, ShiftFit] = {}
        self._latest: tuple[int, AlignedSet] | None = None
        self._store = memory.Store()
        given = builtin_weight(target.info, self._guess) if weight is None else weight
        self._given_weight = np.asarray(given, dtype=np.float64)
        if not np.any(self._given_weight[~self._bad[0]] > 0):
            raise LyotError(
                f"No good pixel of {target.info.name} has weight in the alignment: all are flagged "
                "in DQ; leave the exposure out, or change bad_bits."
            )

    @property
    def weight(self) -> NDArray[np.float64]:
        """Weight of the pixels in the fits, with what no reference has weighed down."""
        return self._start[1]

    def frames(self, integration: int, /) -> AlignedFrames:
        """Return the references on the pixels of one science integration."""
        return self.align(0 if self.shared else integration).frames

    def align(self, i: int, /) -> AlignedSet:
        """Align the references to one integration; what is bad in some is filled from the rest."""
        if self._latest is None or self._latest[0] != i:
            self._latest = None  # so that one set is held, not two
            self._latest = (i, self._align(i))
        aligned = self._latest[1]
        if i not in self._fits:
            self._fits[i] = aligned.fit
            if self._receive is not None:
                self._receive(i, aligned.frames)
        return aligned

    @cached_property
    def star(self) -> StarPosition:
        """The star, measured on the references, which hold neither disc nor companion."""
        aligned, fit = self.align(0)
        # The noise of the integration is common to all shifts; the least holds little besides.
        shift = np.nanmin(np.diagonal(fit.covariance, axis1=-2, axis2=-1), axis=0, initial=np.inf)
        star = find_star(
            self.target.info,
            Frames(
                aligned.sci,
                aligned.variance,
                np.broadcast_to(False, aligned.sci.shape),  # what is not finite is left out anyway
                np.where(np.isfinite(shift), shift, UNKNOWN_ERROR_PIX**2),
            ),
            star_xy=self._star_xy,
            method=self.recipe.star_from,
        )
        name, x, y = self.target.info.name, star.x, star.y
        log.info("The star of %s is at (x, y) = (%.2f, %.2f), %s.", name, x, y, star.origin)
        return star

    @cached_property
    def warnings(self) -> list[ReferenceWarning]:
        """What may spoil the subtraction in some references; it is logged when it is found."""
        if self._warnings is not None:
            return list(self._warnings)
        info, warnings = self.target.info, find_saturated(self.refs, self.star)
        warnings += find_contaminated(self.frames(0), self.ref_info, self.star, info)
        for each in warnings:
            star = f" ({each.target})" if each.target else ""
            log.warning(f"Reference {each.reference + 1} of {info.name}{star}: {each.reason}.")
        return warnings

    def prepare(self) -> None:
        """Do what all sets rest on: the shifts, the star, what may spoil the subtraction."""
        _ = self.star, self.warnings

    def release(self) -> None:
        """Let go of the set that is held; it is made again where it is asked for."""
        self._latest = None
        self._store.clear()

    def fits(self) -> ShiftFit:
        """Return what was fitted to every integration, ``(n_sets, n_ref, ...)``."""
        fits = [self._fits.get(i) or self.align(i).fit for i in range(self.n_sets)]
        return ShiftFit(*(np.stack(column) for column in zip(*fits, strict=True)))

    @property
    def history(self) -> dict[str, Any]:
        """How the references were made, by step, as plain values for a product."""
        record = {"recipe": to_dict(self.recipe), "inputs": self.inputs, **self.details()}
        return {"align_psfs": record}

    def details(self) -> dict[str, Any]:
        """Return what the alignment measured, as plain values for a product."""
        fits, cube = self.fits(), self.refs.cube
        note = undersampling_note(self.target.info)
        details = {
            "shift_yx": fits.shift_yx,
            "shift_covariance": fits.covariance,
            "scale": fits.scale,
            "rms": fits.rms,
            "converged": fits.converged.astype(np.int8),
            "ref_targets": list(cube.targets),
            "ref_pa_y_deg": cube.pa_y_deg,
            "ref_mjd": cube.mjd,
            "unit": "shift_yx [pixel] is applied to each reference, along y and x",
            "weight": self.weight_origin,
            "reference_warnings": [asdict(warning) for warning in self.warnings],
        }
        if self.target.info.acquired is not None:
            details["star_by_acquisitions"] = self.target.info.acquired.to_dict()
        return details | ({"note": note} if note else {})

    @threads.calculation
    def _align(self, i: int) -> AlignedSet:
        fit, moved = self._moved(i)
        failed = np.flatnonzero(~fit.converged)
        if failed.size:
            log.warning(
                f"The alignment of {failed.size} of {len(fit.converged)} references to integration "
                f"{i + 1} of {self.target.info.name} did not converge or met its bound (first: "
                f"reference {failed[0] + 1})."
            )
        if array_namespace(moved.bad).any(moved.bad):
            if self._prediction is None:
                # How references follow from one another is learned on their first set.
                first = moved if i == 0 else self._moved(0)[1]
                weight = np.where(self._bad[0], 0.0, self.weight)
                sci, variance, bad = self._device.get(first)
                self._prediction = learn_prediction(sci, variance, bad, weight)
            moved = fill_moved(moved, self._prediction, self._device)
        xp, bad = array_namespace(moved.bad), moved.bad
        all_bad = np.asarray(self._device.get(xp.all(bad, axis=0)))
        if not self._device.is_numpy:
            bad = PlacesThere(bad, self._device)
        instrument = self.refs.cube.info.instrument_value
        flags = MovedFlags(self.refs.flags, fit.shift_yx, bad, all_bad, instrument)
        frames = AlignedFrames(moved.sci, moved.variance, flags, all_bad, self._device)
        return AlignedSet(frames, fit)

    def _moved(self, i: int) -> tuple[ShiftFit, Moved]:
        """Fit what has not converged in the fit of all pairs; move images, variances, gaps."""
        frames = self._frames
        fit = ShiftFit(*(part[i].copy() for part in self._start[0]))
        pending = np.flatnonzero(~fit.converged)
        image, noise = frames.image(i), self._variance[i].astype(np.float64)
        weight = np.where(self._bad[i], 0.0, self.weight)

        def _refine(pick: Sequence[int]) -> None:
            start = fit.shift_yx[pick]
            found = frames.refine(pick, image, weight, noise, start, cutoff=frames.cutoff)
            for array, value in zip(fit, found, strict=True):
                array[pick] = value

        frames.in_groups(_refine, pending.tolist())

        return fit, self._move(fit.shift_yx)

    def _move(self, shift_yx: Array) -> Moved:
        """Move images, variances and what is bad."""
        if not self._device.is_numpy:
            return self._moved_there(shift_yx)
        refs, shape = self.refs, self.target.frame_shape
        bad = self._store.empty((len(refs), *shape), bool)
        sci, variance = (self._store.empty(bad.shape, np.float32) for _ in range(2))

        def _images(at: slice) -> None:
            sci[at] = fourier.shift(self._spectra[at], shift_yx[at], shape=shape)

        def _others(at: slice) -> None:
            for k in range(len(refs))[at]:
                variance[k] = propagation.shift_variance(refs.variance[k], shift_yx[k])
                bad[k] = move_bad(refs, k, shift_yx[k])

        # One thread in many short steps, while others transform for long without the interpreter.
        jobs = [
            partial(move, slice(k, k + n))
            for move, n in ((_others, OTHERS_AT_ONCE), (_images, IMAGES_AT_ONCE))
            for k in range(0, len(refs), n)
        ]
        threads.map_ordered(lambda job: job(), jobs)
        return Moved(sci, variance, bad)

    def _moved_there(self, shift_yx: Array) -> Moved:
        """Do so on the device, with many at once."""
        shape, shifts = self.target.frame_shape, self._device.put(shift_yx)

        def _group(pick: Sequence[int]) -> tuple[Any, Any, Any]:
            of_pick = (devices.rows(each, pick) for each in (self._spectra, *self._there, shifts))
            spectra, variance, bad, by = of_pick
            moved = propagation.shift_variances(variance, by)
            return fourier.shift(spectra, by, shape=shape), moved, move_bad_there(bad, by)

        parts = self._frames.in_groups(_group, range(len(self.refs)))
        join = array_namespace(shifts).concat
        sci, variance, bad = (join(each) for each in zip(*parts, strict=True))
        return Moved(sci, variance, bad)

    @cached_property
    def _spectra(self) -> Any:
        """Spectra of the references, on the device."""
        return self._device.put(self.refs.spectra)

    @cached_property
    def _there(self) -> Any:
        """Their variances and bad pixels, on the device."""
        bad = np.zeros(self.refs.variance.shape, bool)
        for plane, at in zip(bad, self.refs.bad_pixels, strict=True):
            plane[at] = True
        return self._device.put((self.refs.variance, bad))

    @cached_property
    def _frames(self) -> FitFrames:
        info, shape = self.target.info, self.target.frame_shape
        spectra, cutoff = self._spectra, low_pass_cutoff(info)
        if cutoff is not None:
            spectra = fourier.low_pass(spectra, shape=shape, cutoff=cutoff)
        limits = shift_limits(info, self.refs.cube, self.recipe)[:, None] * np.ones(2)
        return FitFrames(self.target, self._bad, self.refs, spectra, limits, cutoff, self._device)

    @cached_property
    def _start(self) -> tuple[ShiftFit, NDArray[np.float64]]:
        """Where the fit of every pair starts, in whole pixels or for many final; the weight."""
        frames = self._frames
        weight = np.where(self._bad[0], 0.0, self._given_weight)
        start_yx = first_shifts(frames, weight)
        robust = self._given_weight * robust_weight(frames, weight, start_yx, self._guess.yx)
        if self.n_sets == 1 or frames.cutoff is not None or not (robust > 0).any():
            # None has converged: these are starts alone.
            shape = (self.n_sets, len(start_yx))
            starts, blank = np.tile(start_yx, (self.n_sets, 1, 1)), np.zeros(shape)
            none = ShiftFit(starts, blank, np.zeros((*shape, 2, 2)), blank, blank.astype(bool))
            return none, robust
        return fit_all_pairs(frames, robust, self._variance, start_yx), robust


AlignedReferences = AlignedArrays | Aligner
"""The references of each science integration: from a product, or aligned when asked for."""
