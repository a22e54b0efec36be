"""References aligned to the integrations of one science exposure."""

from __future__ import annotations

import logging
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms import fourier, repair
from lyot.algorithms.registration import ShiftFit
from lyot.compute import devices, threads
from lyot.errors import LyotError
from lyot.files.aligned import AlignedFrames
from lyot.files.exposure import Cube, check_same_mode
from lyot.files.star import StarPosition
from lyot.parameters import FIRST_INTEGRATION, AlignRecipe
from lyot.references.fill import (
    Moved,
    MovedFlags,
    fill_moved,
    learn_prediction,
    move_variance_and_bad,
)
from lyot.references.prepare import PreparedRefs
from lyot.references.shifts import (
    FitFrames,
    first_shifts,
    fit_all_pairs,
    groups_of,
    low_pass_cutoff,
    refine_pairs,
    robust_weight,
    shift_limits,
    unfitted,
)
from lyot.references.star import find_star, guess_star
from lyot.references.weights import builtin_weight
from lyot.types import Array

log = logging.getLogger(__name__)


class AlignedSet(NamedTuple):
    """The references on the pixels of one integration, and the shifts that put them there."""

    frames: AlignedFrames
    fit: ShiftFit


class _Start(NamedTuple):
    """The fits of all pairs, of which some are starts alone, and the weight that fits use."""

    fits: ShiftFit
    weight: NDArray[np.float64]


class Aligner:
    """Aligns references to the integrations of one science exposure.

    What it returns for an integration does not depend on what it was asked for before. `weight`,
    ``(n_y, n_x)``, is that of the pixels in the fits, by default the built-in annulus about the
    star; `star_xy` is the star where the user states it [pixel, 0-based].
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
    ) -> None:
        """Refuse references of another mode, and a weight that is zero on all good pixels."""
        check_same_mode(target.info, refs.cube.info)
        self.target = target
        self.refs = refs
        self.recipe = recipe
        self.shared = recipe.align_to == FIRST_INTEGRATION  # one set serves every integration
        self.n_sets = 1 if self.shared else len(target.sci)
        self._device = device or devices.device("cpu")
        self._star_xy = star_xy
        self._guess = guess_star(target.info, star_xy)
        self._bad = target.bad(recipe.bad_bits)
        self._variance = target.variance()
        self._prediction: repair.CrossPrediction | None = None
        given = builtin_weight(target.info, self._guess) if weight is None else weight
        self._given_weight = np.asarray(given, dtype=np.float64)
        if not np.any(self._given_weight[~self._bad[0]] > 0):
            raise LyotError(f"No good pixel of {target.info.name} has weight in the alignment.")

    @property
    def weight(self) -> NDArray[np.float64]:
        """Weight of the pixels in the fits, with what no reference has weighed down."""
        return self._start.weight

    @threads.calculation
    def align(self, i: int, /) -> AlignedSet:
        """Align the references to one integration; what is bad in some is filled from the rest."""
        fit, moved = self._moved(i)
        failed = np.flatnonzero(~fit.converged)
        if failed.size:
            log.warning(
                "The alignment of %d of %d references to integration %d of %s did not converge or "
                "met its bound (first: reference %d).",
                failed.size,
                len(fit.converged),
                i + 1,
                self.target.info.name,
                failed[0] + 1,
            )
        if moved.bad.any():
            if self._prediction is None:
                # How references follow from one another is learned on their first set.
                first = moved if i == 0 else self._moved(0)[1]
                weight = np.where(self._bad[0], 0.0, self._start.weight)
                self._prediction = learn_prediction(*first, weight)
            fill_moved(moved, self._prediction)
        flags = MovedFlags(self.refs.cube, fit.shift_yx, moved.bad)
        return AlignedSet(AlignedFrames(moved.sci, moved.variance, flags), fit)

    def star(self, fit: ShiftFit, /) -> StarPosition:
        """Return the star on the science frames; `fit` is that to the first integration.

        It is measured on the references, which hold neither disc nor companion.
        """
        refs = self.refs
        star = find_star(
            self.target.info,
            refs.cube,
            refs.variance,
            refs.bad,
            star_xy=self._star_xy,
            shift_yx=fit.shift_yx,
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

    def _moved(self, i: int) -> tuple[ShiftFit, Moved]:
        """Fit what has not converged in the fit of all pairs; move images, variances, gaps."""
        refs, shape, n_ref = self.refs, self.target.frame_shape, len(self.refs)
        fit = ShiftFit(*(part[i].copy() for part in self._start.fits))
        sci = np.empty((n_ref, *shape), np.float32)
        variance = np.empty((n_ref, *shape), np.float32)
        bad = np.empty((n_ref, *shape), bool)
        pending = np.flatnonzero(~fit.converged)
        groups = [pending[pick].tolist() for pick in groups_of(pending.size)]
        image, variances = self._frames.image(i), self._variance[i].astype(np.float64)
        weight = np.where(self._bad[i], 0.0, self._start.weight)
        refine = partial(refine_pairs, self._frames, image, weight, variances)
        refined = threads.map_ordered(lambda pick: refine(pick, fit.shift_yx[pick]), groups)
        for pick, (values, aligned) in zip(groups, refined, strict=True):
            for array, value in zip(fit, values, strict=True):
                array[pick] = value
            sci[pick] = aligned
        refined.clear()
        # What was fitted is not what is subtracted, where it was low-passed.
        done = set(pending.tolist()) if self._frames.cutoff is None else set()

        def _move(k: int) -> None:
            if k not in done:
                shift = fit.shift_yx[k]
                sci[k] = self._device.run(fourier.shift, self._spectra[k], shift, shape=shape)
            variance[k], bad[k] = move_variance_and_bad(refs, k, fit.shift_yx[k])

        threads.map_ordered(_move, range(n_ref))
        return fit, Moved(sci, variance, bad)

    @cached_property
    def _spectra(self) -> Any:
        """Spectra of the references, on the device."""
        return self._device.put(self.refs.spectra)

    @cached_property
    def _frames(self) -> FitFrames:
        info, shape = self.target.info, self.target.frame_shape
        spectra, cutoff = self._spectra, low_pass_cutoff(info)
        if cutoff is not None:
            spectra = fourier.low_pass(spectra, shape=shape, cutoff=cutoff)
        limits = shift_limits(info, self.refs.cube, self.recipe)[:, None] * np.ones(2)
        return FitFrames(self.target, self._bad, self.refs, spectra, limits, cutoff, self._device)

    @cached_property
    def _start(self) -> _Start:
        """Where the fit of every pair starts: whole pixels, then the expansion for all pairs."""
        frames = self._frames
        weight = np.where(self._bad[0], 0.0, self._given_weight)
        start_yx, models = first_shifts(frames, weight)
        fwhm = self.target.info.fwhm_pix
        robust = robust_weight(frames.image(0), weight, models, self._guess.yx, fwhm)
        robust = self._given_weight * robust
        if self.n_sets == 1 or frames.cutoff is not None or not (robust > 0).any():
            return _Start(unfitted(start_yx, self.n_sets), robust)
        return _Start(fit_all_pairs(frames, robust, self._variance, start_yx), robust)
