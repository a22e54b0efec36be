"""The record of a run: what its products say of it beyond their own step, and its summary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lyot.files.provenance import provenance_of, set_provenance
from lyot.parameters import to_dict
from lyot.pipeline.plan import Plan, PlannedExposure


@dataclass(frozen=True)
class Record:
    """Records a run in its products."""

    plan: Plan
    checksums: dict[str, str]  # SHA-256, of the members of the association, by name

    def exposure(
        self, model: Any, /, *, library: dict[str, Any], backgrounds: dict[str, Any]
    ) -> None:
        """Record the run in a psfsub product, in place.

        `library` says which frames it chose, `backgrounds` what was subtracted from references.
        """
        provenance = provenance_of(model)
        if backgrounds:
            provenance["steps"]["background_of_references"] = backgrounds
        if library:
            provenance["steps"]["library"] = library
        provenance["steps"]["association"] = self._association()
        provenance["recipe"] = to_dict(self.plan.parameters.recipe)
        set_provenance(model, provenance)
        model.meta.asn.pool_name = self.plan.association.pool or None
        model.meta.asn.table_name = self.plan.association.table or None

    def image(self, model: Any, exposures: list[Any], /) -> None:
        """Record the run, and the exposures that were combined, in a combined image, in place."""
        provenance = provenance_of(model)
        provenance["steps"] = {"association": self._association()} | provenance["steps"]
        provenance["exposures"] = {
            str(each.meta.filename): {
                key: provenance_of(each)["steps"]["klip"][key]
                for key in ("n_modes", "n_kept", "rms_before", "rms_after", "recipe")
            }
            for each in exposures
        }
        provenance["recipe"] = to_dict(self.plan.parameters.recipe)
        set_provenance(model, provenance)

    def _association(self) -> dict[str, Any]:
        association = self.plan.association
        return {
            "table": association.table,
            "product": association.product,
            "science": [path.name for path in association.science],
            "psf": [path.name for path in association.psf],
            "background": [path.name for path in association.background],
            "acquisitions": {
                path.name: [each.name for each in own]
                for path, own in self.plan.acquisitions.items()
            },
            "sha256": dict(self.checksums),
        }


def record_library(model: Any, library: dict[str, Any], /) -> None:
    """Record in a psfstack product, in place, which frames of a library are in it, if any."""
    if not library:
        return
    provenance = provenance_of(model)
    provenance["steps"]["stack_psfs"]["library"] = library
    set_provenance(model, provenance)


def summary_of(exposure: PlannedExposure, model: Any, /) -> dict[str, Any]:
    """Return what the summary of a run says of a psfsub product, as plain values."""
    provenance = provenance_of(model)
    align, klip = provenance["steps"]["align_psfs"], provenance["steps"]["klip"]
    shift = np.hypot(*np.moveaxis(np.asarray(align["shift_yx"]), -1, 0))
    return {
        "exposure": exposure.science.name,
        "integrations": len(model.data),
        "references": int(shift.shape[-1]),
        "median_shift_pix": float(np.median(shift)),
        "largest_shift_pix": float(np.max(shift)),
        "n_modes": int(klip["n_modes"]),
        "n_kept": int(klip["n_kept"]),
        "rms_before": float(np.nanmean(klip["rms_before"])),
        "rms_after": float(np.nanmean(klip["rms_after"])),
        "star": provenance["star"],
        "reference_warnings": align["reference_warnings"],
    }
