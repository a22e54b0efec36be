"""Aligned references that are computed set by set, as the subtraction asks for them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms.registration import ShiftFit
from lyot.files.aligned import AlignedArrays, AlignedFrames
from lyot.files.star import StarPosition
from lyot.parameters import to_dict
from lyot.references.aligner import AlignedSet, Aligner
from lyot.references.shifts import undersampling_note
from lyot.references.vet import ReferenceWarning, find_contaminated, find_saturated

log = logging.getLogger(__name__)


class ComputedReferences:
    """The references of each integration of a science exposure, aligned when they are asked for.

    One set is held at a time. What is measured does not depend on the order in which sets are
    asked for. `receive` is given the number of each set and the set, the first time that it is
    computed. Without `warnings` the references are vetted.
    """

    def __init__(
        self,
        aligner: Aligner,
        /,
        *,
        name: str = "",
        inputs: Sequence[str] = (),
        weight_origin: str = "built in",
        receive: Callable[[int, AlignedFrames], None] | None = None,
        warnings: Sequence[ReferenceWarning] | None = None,
    ) -> None:
        """Store the arguments; nothing is computed yet."""
        self.aligner, self.ref_info = aligner, aligner.refs.info
        self.shared, self.n_sets = aligner.shared, aligner.n_sets
        self.name = name
        self.inputs = list(inputs)
        self._weight_origin = weight_origin
        self._receive = receive
        self._warnings = warnings
        self._fits: dict[int, ShiftFit] = {}
        self._latest: tuple[int, AlignedSet] | None = None

    @cached_property
    def star(self) -> StarPosition:
        """The star on the science frames."""
        return self.aligner.star(self._set(0).fit)

    @cached_property
    def warnings(self) -> list[ReferenceWarning]:
        """What may spoil the subtraction in some references; it is logged when it is found."""
        if self._warnings is not None:
            return list(self._warnings)
        target, refs = self.aligner.target, self.aligner.refs
        warnings = find_saturated(refs.cube, self.star)
        warnings += find_contaminated(self.frames(0), self.ref_info, self.star, target.info)
        for warning in warnings:
            log.warning(
                "Reference %d of %s%s: %s.",
                warning.reference + 1,
                target.info.name,
                f" ({warning.target})" if warning.target else "",
                warning.reason,
            )
        return warnings

    def frames(self, integration: int, /) -> AlignedFrames:
        """Return the references on the pixels of one science integration."""
        return self._set(0 if self.shared else integration).frames

    def section(self, integration: int, rows: slice, columns: slice, /) -> NDArray[np.float64]:
        """Return part of the references on the pixels of one science integration, in float64."""
        return self.frames(integration).sci[:, rows, columns].astype(np.float64)

    def fits(self) -> ShiftFit:
        """Return what was fitted to every integration, ``(n_sets, n_ref, ...)``."""
        fits = [self._fits.get(i) or self._set(i).fit for i in range(self.n_sets)]
        return ShiftFit(*(np.stack(column) for column in zip(*fits, strict=True)))

    def history(self) -> dict[str, Any]:
        """Return how the references were made, by step, as plain values for a product."""
        return {
            "align_psfs": {
                "recipe": to_dict(self.aligner.recipe),
                "inputs": self.inputs,
                **self.details(),
            }
        }

    def details(self) -> dict[str, Any]:
        """Return what the alignment measured, as plain values for a product."""
        fits, cube = self.fits(), self.aligner.refs.cube
        note = undersampling_note(self.aligner.target.info)
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
            "weight": self._weight_origin,
            "reference_warnings": [asdict(warning) for warning in self.warnings],
        }
        return details | ({"note": note} if note else {})

    def _set(self, i: int) -> AlignedSet:
        if self._latest is not None and self._latest[0] == i:
            return self._latest[1]
        self._latest = None  # so that one set is held, not two
        aligned = self.aligner.align(i)
        self._latest = (i, aligned)
        if i not in self._fits:
            self._fits[i] = aligned.fit
            if self._receive is not None:
                self._receive(i, aligned.frames)
        return aligned


AlignedReferences = AlignedArrays | ComputedReferences
"""The references of each science integration: from a product, or computed when asked for."""
