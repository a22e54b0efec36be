"""Step: the stellar image modelled from the references and subtracted."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lyot.algorithms.zones import Zone
from lyot.compute import devices
from lyot.files.aligned import AlignedArrays, AlignedReferences
from lyot.files.exposure import Cube, as_model, cube_from_model
from lyot.files.headers import info_from_model, open_fits
from lyot.files.products import drop_unknown_long_keywords
from lyot.files.provenance import provenance_of, set_provenance, stamp, star_of
from lyot.files.run import read_image, reference_info
from lyot.files.star import StarPosition
from lyot.parameters import (
    STEPS,
    ComputeParameters,
    FitInputs,
    StarParameters,
    SubtractRecipe,
    to_dict,
)
from lyot.references.computed import ComputedReferences
from lyot.references.star import find_star
from lyot.steps.base import LyotStep, name_of
from lyot.steps.spec import spec_of, values_of
from lyot.subtraction.disc import Constrained, on_detector, subtract_constrained
from lyot.subtraction.result import Subtracted, Subtraction, speckle_noise
from lyot.subtraction.subtract import subtract
from lyot.subtraction.zones import make_zones

log = logging.getLogger(__name__)


class KlipStep(LyotStep):
    """Subtract the star from a science exposure with the KL modes of its references.

    Examples
    --------
    >>> KlipStep(zones="annuli", n_annuli=3).n_annuli
    3
    """

    class_alias = "klip"

    spec = spec_of(*STEPS["klip"], suffix="psfsub")

    def process(
        self, target: Any, psfrefs: Any, receive: Callable[[Subtracted], None] | None = None
    ) -> Any:
        """Subtract the star.

        Parameters
        ----------
        target : str or CubeModel
            The science exposure; it is not changed.
        psfrefs : str, QuadModel, CubeModel, AlignedArrays or ComputedReferences
            The aligned references, 4-D or 3-D; or what gives them when it is asked for them.
        receive : callable, optional
            Called with the finished subtraction, its fits kept, for an analysis that follows.

        Returns
        -------
        CubeModel or list of CubeModel
            The residual, of the shape of the science cube; a list where ``truncate`` has
            several numbers.
        """
        recipe, files = values_of(self, SubtractRecipe), values_of(self, FitInputs)
        model = as_model(target, "CubeModel")
        cube = cube_from_model(model)
        aligned, refs_model = _aligned(psfrefs, cube)
        star = self._star(cube, aligned.star)
        labels = _image(files.zone_map)
        zones = make_zones(
            recipe,
            cube.frame_shape,
            star,
            cube.info.pixel_scale_arcsec,
            labels=None if labels is None else labels.astype(int),
            fit_weight=_image(files.fit_weight),
        )
        keep_fits = receive is not None
        subtracted, results, disc_scale = self._subtracted(
            cube, aligned, zones, recipe, star, keep_fits=keep_fits
        )
        if receive is not None:
            receive(subtracted)
        maps = {name: str(Path(path).resolve()) for name, path in to_dict(files).items() if path}
        products = [
            psfsub_model(
                model,
                result,
                recipe=recipe,
                inputs=[name_of(target), aligned.name],
                star=star,
                history=aligned.history(),
                details={
                    "speckle_noise": speckle_noise(
                        result, star, cube.info.pixel_scale_arcsec
                    )._asdict(),
                    "maps": maps,
                    "disc_scale": disc_scale,
                },
            )
            for result in results
        ]
        for opened, given in ((model, target), (refs_model, psfrefs)):
            if opened is not None and opened is not given:
                opened.close()
        return products[0] if len(products) == 1 else products

    def _subtracted(
        self,
        cube: Cube,
        aligned: AlignedReferences,
        zones: list[Zone],
        recipe: SubtractRecipe,
        star: StarPosition,
        *,
        keep_fits: bool,
    ) -> Constrained:
        """Subtract; with a model of a disc, its coefficients are fitted to target less model."""
        device = devices.device(values_of(self, ComputeParameters).device)

        def _run(target: Cube) -> Subtracted:
            return subtract(target, aligned, zones, recipe, device=device, keep_fits=keep_fits)

        if not self.disc_model:
            subtracted = _run(cube)
            return Constrained(subtracted, subtracted.results, 0.0)

        sky = _image(self.disc_model)
        disc = on_detector(sky, star, cube.info.pa_y_deg, cube.frame_shape)
        counts = np.any([zone.weight > 0 for zone in zones], axis=0)
        constrained = subtract_constrained(_run, cube, disc, counts)
        log.info("The model of the disc is %.4g times %s.", constrained.scale, self.disc_model)
        return constrained

    def _star(self, cube: Cube, recorded: StarPosition | None) -> StarPosition:
        """Return the star: the user's, that of the aligned references, the header's, measured."""
        given = values_of(self, StarParameters).xy
        if given is None and recorded is not None:
            return recorded
        return find_star(cube.info, cube, cube.variance(), cube.bad(self.bad_bits), star_xy=given)

    def save_model(
        self,
        model: Any,
        suffix: str | None = None,
        idx: Any = None,
        output_file: str | None = None,
        force: bool = False,
        **components: Any,
    ) -> Any:
        """Save a product; one of several is named by its number of modes."""
        if idx is not None:
            n = provenance_of(model)["steps"]["klip"]["n_modes"]
            components["modes"], idx = f"k{n:03d}", None
        return super().save_model(model, suffix, idx, output_file, force, **components)


def _image(path: str | None) -> Any:
    """Read the first image of a FITS file, or nothing."""
    return read_image(path)[0] if path else None


def _aligned(psfrefs: Any, cube: Cube) -> tuple[AlignedReferences, Any]:
    """Return the references, and the model that holds them where they are a product."""
    if isinstance(psfrefs, AlignedArrays | ComputedReferences):
        return psfrefs, None
    model = as_model(psfrefs, _kind_of(psfrefs))
    history = provenance_of(model).get("steps", {})
    aligned = AlignedArrays(
        model.data,
        model.err,
        model.dq,
        star=star_of(model),
        ref_info=reference_info(history),
        name=name_of(psfrefs),
        history=history,
    )
    aligned.check(len(cube.sci), cube.info.name)
    return aligned, model


def _kind_of(source: Any) -> str:
    """Return the class for a psfalign file: by its number of axes."""
    if not isinstance(source, str):
        return "CubeModel"
    with open_fits(source) as hdus:
        n = hdus["SCI"].header["NAXIS"] if "SCI" in hdus else 0
    return "QuadModel" if n == 4 else "CubeModel"


def psfsub_model(
    target: Any,
    result: Subtraction,
    /,
    *,
    recipe: SubtractRecipe,
    inputs: list[str],
    star: StarPosition,
    history: dict[str, Any],
    details: dict[str, Any],
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
    measured = {
        "n_modes": result.n_modes,
        "n_kept": result.n_kept,
        "coefficients": result.coefs,
        "eigenvalues": result.eigenvalues,
        "variance_refs": result.variance_refs,
        "variance_refs_coherent": result.variance_refs_coherent,
        "rms_before": result.rms_before,
        "rms_after": result.rms_after,
        "residual_rms": result.residual_rms,
        "error": f"ERR is {recipe.error}; residual speckles are not in a propagated error",
    }
    stamp(
        model,
        "klip",
        recipe=to_dict(recipe),
        inputs=inputs,
        star=star,
        details=measured | details,
    )
    return model
