"""Products of the steps: the metadata of an exposure, and the record of the step."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from lyot.files.exposure import Cube
from lyot.files.headers import info_from_model
from lyot.files.products import derived_model, drop_unknown_long_keywords
from lyot.files.provenance import provenance_of, set_provenance, stamp
from lyot.files.star import StarPosition
from lyot.parameters import SubtractRecipe, to_dict
from lyot.references.aligner import Aligner
from lyot.subtraction.result import Subtraction

log = logging.getLogger(__name__)


def psfstack_model(like: Any, cube: Cube, inputs: list[str], arrays: dict[str, Any], /) -> Any:
    """Make the psfstack product of a stack, with the metadata of its first exposure."""
    model = derived_model("CubeModel", like, arrays)
    log.info("Stacked %d integrations of %d reference exposures.", len(cube.sci), len(inputs))
    known = {"targets": list(cube.targets), "pa_y_deg": cube.pa_y_deg, "mjd": cube.mjd}
    stamp(model, "stack_psfs", {}, inputs, dither_arcsec=cube.dither_arcsec, **known)
    return model


def psfalign_model(target: Any, aligned: Aligner, arrays: dict[str, Any], /) -> Any:
    """Make the psfalign product of a science exposure, with its metadata."""
    model = derived_model("CubeModel" if aligned.shared else "QuadModel", target, arrays)
    model.meta.cal_step.stack_psfs = "COMPLETE"
    recipe, star = to_dict(aligned.recipe), aligned.star
    stamp(model, "align_psfs", recipe, aligned.inputs, star, **aligned.details())
    return model


def psfsub_model(
    target: Any,
    result: Subtraction,
    recipe: SubtractRecipe,
    inputs: list[str],
    star: StarPosition,
    history: dict[str, Any],
    /,
    **details: Any,
) -> Any:
    """Make the psfsub product of one number of modes, with the metadata of the exposure."""
    model = target.copy()
    model.data, model.err = result.sci, result.err
    do_not_use = info_from_model(target).instrument_value.flag_value("DO_NOT_USE")
    missing = np.uint32(do_not_use) * ~np.isfinite(result.sci)
    model.dq = np.asarray(model.dq).astype(np.uint32) | missing.astype(np.uint32)
    model.meta.model_type = "CubeModel"
    drop_unknown_long_keywords(model)
    for step in ("stack_psfs", "align_psfs"):
        setattr(model.meta.cal_step, step, "COMPLETE")
    provenance = provenance_of(model)
    provenance["steps"] = history | provenance.get("steps", {})
    set_provenance(model, provenance)
    error = f"ERR is {recipe.error}; residual speckles are not in a propagated error"
    details = result.record() | {"error": error} | details
    stamp(model, "klip", to_dict(recipe), inputs, star, **details)
    return model
