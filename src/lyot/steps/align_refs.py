"""Step: references aligned to the science integrations."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from lyot.compute import devices
from lyot.files.aligned import AlignedFrames
from lyot.files.exposure import Cube, cube_from_model
from lyot.files.headers import ExposureInfo
from lyot.files.products import derived_model
from lyot.files.provenance import stamp
from lyot.parameters import STEPS, AlignRecipe, ComputeParameters, StarParameters, to_dict
from lyot.references.aligner import Aligner
from lyot.references.prepare import PreparedRefs, prepare_refs
from lyot.references.shifts import undersampling_note
from lyot.references.star import guess_star
from lyot.references.vet import ReferenceWarning
from lyot.references.weights import builtin_weight, read_psfmask
from lyot.steps.base import LyotStep, crds_is_configured, name_of, opened, spec_of, values_of
from lyot.types import Array

log = logging.getLogger(__name__)


class AlignRefsStep(LyotStep):
    """Align every reference to every science integration.

    Examples
    --------
    >>> AlignRefsStep(align_to="first").align_to
    'first'
    """

    class_alias = "align_refs"

    spec = spec_of(*STEPS["align_refs"], suffix="psfalign")

    reference_file_types: ClassVar[list[str]] = ["psfmask"]

    def process(self, target: Any, psf: Any) -> Any:
        """Return the references `psf` on the pixels of the exposure `target`, 4-D or one set."""
        with opened(target, "CubeModel") as model, opened(psf, "CubeModel") as stack:
            refs = prepare_refs(cube_from_model(stack), values_of(self, AlignRecipe))
            aligned = self.references(model, cube_from_model(model), refs)
            aligned.inputs = [name_of(target), name_of(psf)]
            frames = [aligned.frames(i) for i in range(aligned.n_sets)]
            arrays: dict[str, Any] = {
                "data": np.stack([f.sci for f in frames]),
                "err": np.sqrt(np.stack([f.variance for f in frames])),
                "dq": np.stack([[f.dq[k] for k in range(len(f.dq))] for f in frames]),
            }
            if aligned.shared:
                arrays = {name: array[0] for name, array in arrays.items()}
            return psfalign_model(model, aligned, arrays)

    def references(
        self,
        source: Any,
        cube: Cube,
        refs: PreparedRefs,
        /,
        *,
        receive: Callable[[int, AlignedFrames], None] | None = None,
        warnings: Sequence[ReferenceWarning] | None = None,
    ) -> Aligner:
        """Return the references of an exposure, which are aligned when they are asked for.

        `source` is the exposure's file or model, for CRDS, and `cube` its frames.
        """
        star_xy = values_of(self, StarParameters).xy
        if note := undersampling_note(cube.info):
            log.warning(note)
        weight, origin = self._weight(source, cube.info, star_xy)
        aligner = Aligner(
            cube,
            refs,
            values_of(self, AlignRecipe),
            weight=weight,
            star_xy=star_xy,
            device=devices.device(values_of(self, ComputeParameters).device),
            receive=receive,
            warnings=warnings,
        )
        aligner.weight_origin = origin
        return aligner

    def _weight(
        self, source: Any, info: ExposureInfo, star_xy: tuple[float, float] | None
    ) -> tuple[Array, str]:
        """Return the weight and its origin: override, CRDS where it is configured, or built in."""
        star = guess_star(info, star_xy)
        name = self.get_ref_override("psfmask")
        origin = "override"
        if not name and crds_is_configured():
            name, origin = self._from_crds(source), "CRDS"
        if not name or name == "N/A":
            log.info("Alignment weight: built in, an annulus about the star.")
            return builtin_weight(info, star), "built in"
        if not isinstance(name, str):
            log.info("Alignment weight: the given PSFMASK model.")
            return np.array(name.data, dtype=np.float64), "a PSFMASK model"
        log.info("Alignment weight: PSFMASK %s (%s).", name, origin)
        return read_psfmask(name, info, star), f"PSFMASK {name} ({origin})"

    def _from_crds(self, source: Any) -> str | None:
        try:
            return str(self.get_reference_file(source, "psfmask"))
        except (Exception, SystemExit) as err:  # CRDS leaves through SystemExit
            log.warning("CRDS is set but did not answer (%s); the built-in weight is used.", err)
            return None


def psfalign_model(target: Any, aligned: Aligner, arrays: dict[str, Any], /) -> Any:
    """Make the psfalign product of a science exposure, with its metadata."""
    model = derived_model("CubeModel" if aligned.shared else "QuadModel", target, arrays)
    model.meta.cal_step.stack_psfs = "COMPLETE"
    recipe, star = to_dict(aligned.recipe), aligned.star
    stamp(model, "align_psfs", recipe, aligned.inputs, star, **aligned.details())
    return model
