"""Step: references aligned to the science integrations."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import numpy as np

from lyot.compute import devices
from lyot.files.aligned import AlignedFrames
from lyot.files.exposure import as_model, cube_from_model
from lyot.files.headers import ExposureInfo
from lyot.files.products import derived_model
from lyot.files.provenance import stamp
from lyot.parameters import STEPS, AlignRecipe, ComputeParameters, StarParameters, to_dict
from lyot.references.aligner import Aligner, PreparedRefs, prepare_refs, undersampling_note
from lyot.references.weights import builtin_weight, read_psfmask
from lyot.steps.base import LyotStep, crds_is_configured, name_of
from lyot.steps.spec import spec_of, values_of

log = logging.getLogger(__name__)


class AlignRefsStep(LyotStep):
    """Align every reference to every science integration."""

    class_alias = "align_refs"

    spec = spec_of(*STEPS["align_refs"], suffix="psfalign")

    reference_file_types: ClassVar[list[str]] = ["psfmask"]

    weight_origin = ""
    """Where the weight of the last alignment came from; for the provenance."""

    lazy = False
    """Whether `process` returns an `Aligner`, which computes as it is asked; the pipeline's."""

    def process(self, target: Any, psf: Any) -> Any:
        """Align the references.

        Parameters
        ----------
        target : str or CubeModel
            The science exposure; it is not changed.
        psf : str, CubeModel or PreparedRefs
            The psfstack.

        Returns
        -------
        QuadModel, CubeModel or Aligner
            ``(n_int, n_ref, n_y, n_x)``; with ``align_to = first`` a cube.
        """
        target_model = as_model(target, "CubeModel")
        refs, stack_model = psf, None
        recipe = values_of(self, AlignRecipe)
        if not isinstance(psf, PreparedRefs):
            stack_model = as_model(psf, "CubeModel")
            refs = prepare_refs(cube_from_model(stack_model), recipe)
        aligner = Aligner(
            cube_from_model(target_model),
            refs,
            recipe,
            weight_of=self._weight(target_model),
            star_xy=values_of(self, StarParameters).xy,
            device=devices.device(values_of(self, ComputeParameters).device),
        )
        if note := undersampling_note(aligner.target.info):
            log.warning(note)
        if self.lazy:
            return aligner
        frames = [aligner.frames(i) for i in range(aligner.n_sets)]
        result = self.product(aligner, target_model, frames, [name_of(target), name_of(psf)])
        for model, given in ((target_model, target), (stack_model, psf)):
            if model is not None and model is not given:
                model.close()
        return result

    def product(
        self,
        aligner: Aligner,
        target_model: Any,
        frames: list[AlignedFrames],
        inputs: list[str],
        /,
    ) -> Any:
        """Make the psfalign model of aligned frames."""
        arrays: dict[str, Any] = {
            "data": np.stack([f.sci for f in frames]),
            "err": np.sqrt(np.stack([f.variance for f in frames])),
            "dq": np.stack([[f.dq[k] for k in range(len(f.dq))] for f in frames]),
        }
        kind = "QuadModel"
        if aligner.shared:
            kind, arrays = "CubeModel", {k: a[0] for k, a in arrays.items()}
        model = derived_model(kind, target_model, arrays)
        stamp(
            model,
            "align_psfs",
            recipe=to_dict(aligner.recipe),
            inputs=inputs,
            star=aligner.star,
            details=alignment_details(aligner) | {"weight": self.weight_origin},
        )
        return model

    def _weight(self, model: Any) -> Callable[..., Any]:
        """Choose the weight: override, then CRDS where it is configured, then our own."""
        name = self.get_ref_override("psfmask")
        origin = "override"
        if not name and crds_is_configured():
            name, origin = self._from_crds(model), "CRDS"
        if not name or name == "N/A":
            log.info("Alignment weight: built in, an annulus about the star.")
            self.weight_origin = "built in"
            return builtin_weight
        if not isinstance(name, str):
            log.info("Alignment weight: the given PSFMASK model.")
            self.weight_origin = "a PSFMASK model"
            return partial(_given_weight, np.array(name.data, dtype=np.float64))
        log.info("Alignment weight: PSFMASK %s (%s).", name, origin)
        self.weight_origin = f"PSFMASK {name} ({origin})"
        return partial(_weight_from_file, name)

    def _from_crds(self, model: Any) -> str | None:
        try:
            return str(self.get_reference_file(model, "psfmask"))
        except (Exception, SystemExit) as err:  # CRDS leaves through SystemExit
            log.warning("CRDS is set but did not answer (%s); the built-in weight is used.", err)
            return None


def _weight_from_file(path: str, info: ExposureInfo, star: Any) -> Any:
    return read_psfmask(path, info, star)


def _given_weight(weight: Any, info: ExposureInfo, star: Any) -> Any:
    del info, star
    return weight


def alignment_details(aligner: Aligner, /) -> dict[str, Any]:
    """Return what an alignment measured, as plain values for a product.

    Parameters
    ----------
    aligner : Aligner
        An aligner that has been asked for all its frames.

    Returns
    -------
    dict
        Shifts, covariances, scales, residuals and convergence, ``(n_int, n_ref, ...)``.
    """
    measured = [aligner.shifts[i] for i in sorted(aligner.shifts)]
    note = undersampling_note(aligner.target.info)
    details: dict[str, Any] = {
        "shift_yx": np.stack([m.shift_yx for m in measured]),
        "shift_covariance": np.stack([m.covariance for m in measured]),
        "scale": np.stack([m.scale for m in measured]),
        "rms": np.stack([m.rms for m in measured]),
        "converged": np.stack([m.converged for m in measured]).astype(np.int8),
        "ref_targets": list(aligner.refs.cube.targets),
        "ref_pa_y_deg": aligner.refs.cube.pa_y_deg,
        "ref_mjd": aligner.refs.cube.mjd,
        "unit": "shift_yx [pixel] is applied to each reference, along y and x",
    }
    return details | ({"note": note} if note else {})
