"""Step: the stellar image modeled from the references and subtracted."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lyot.analysis.mode import extended_image
from lyot.compute import devices, threads
from lyot.files.aligned import AlignedArrays
from lyot.files.astrometry import plane_of
from lyot.files.exposure import Cube, cube_from_model
from lyot.files.headers import info_from_model
from lyot.files.products import copy_with, drop_unknown_long_keywords
from lyot.files.provenance import provenance_of, set_provenance, stamp
from lyot.files.run import read_image
from lyot.files.star import StarPosition
from lyot.parameters import (
    AUTO,
    STEPS,
    ComputeParameters,
    FitInputs,
    StarParameters,
    SubtractRecipe,
    to_dict,
)
from lyot.references.star import Frames, find_star
from lyot.steps.base import LyotStep, is_one, name_of, opened, spec_of, values_of
from lyot.subtraction.disc import Constrained, subtract_constrained
from lyot.subtraction.recorded import record_of
from lyot.subtraction.result import (
    Subtracted,
    Subtraction,
    row_noise,
    sky_noise,
    speckle_noise,
)
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
        """Return the residual of an exposure, a list where ``truncate`` has several numbers.

        `psfrefs` is a psfalign product or `AlignedReferences`; `receive` is given the subtraction.
        """
        recipe, files = values_of(self, SubtractRecipe), values_of(self, FitInputs)
        device = devices.device(values_of(self, ComputeParameters).device)
        with opened(target, "CubeModel") as model, opened(psfrefs) as refs:
            cube = cube_from_model(model)
            aligned = refs
            if is_one(refs):
                aligned = AlignedArrays.from_model(refs, name_of(psfrefs))
                aligned.check(len(cube.sci), cube.info.name)
            star = self._star(cube, aligned.star)
            if recipe.level_surface == AUTO:
                known = provenance_of(model).get("steps", {}).get("background", {})
                has_boundaries = cube.info.coronagraph_value.has_boundaries
                of_background = "cubic" if has_boundaries else "plane"
                surface = of_background if known.get("names") else "constant"
                recipe = replace(recipe, level_surface=surface)
            plane, scale_arcsec = plane_of(model, star), cube.info.pixel_scale_arcsec
            zones = make_zones(
                recipe,
                cube.frame_shape,
                plane,
                labels=read_image(files.zone_map)[0].astype(int) if files.zone_map else None,
                fit_weight=read_image(files.fit_weight)[0] if files.fit_weight else None,
            )

            def run(exposure: Cube) -> Subtracted:
                return subtract(
                    exposure, aligned, zones, recipe, device=device, keep_fits=receive is not None
                )

            if files.disc_model:
                sky, _ = read_image(files.disc_model)
                disc = extended_image(sky, cube.info, star, plane, cube.frame_shape)
                counts = np.any([zone.weight > 0 for zone in zones], axis=0)
                done = subtract_constrained(run, cube, disc, counts)
                log.info("The model of the disc is %.4g times %s.", done.scale, files.disc_model)
            else:
                subtracted = run(cube)
                done = Constrained(subtracted, subtracted.results, 0.0)
            if receive is not None:
                receive(done.subtracted)
            maps = {name: str(Path(p).resolve()) for name, p in to_dict(files).items() if p}
            inputs, history = [name_of(target), aligned.name], aligned.history
            known = {"plane": plane._asdict(), "maps": maps, "disc_scale": done.scale}
            known |= record_of(done.subtracted)
            products = []
            separation = plane.separations(cube.frame_shape)
            with threads.SecondThread() as second:
                for result in done.results:
                    mean, variance = result.mean()
                    rows = second.submit(row_noise, mean, separation, cube.info.fast_axis)
                    on_sky = sky_noise(mean, variance, separation)
                    on_sky = on_sky._replace(is_applied=recipe.scale_err)
                    log.info("Scatter of the blank sky over ERR of %s: %s.", cube.info.name, on_sky)
                    if text := on_sky.warning(cube.info.name):
                        log.warning(text)
                    if recipe.scale_err:
                        result = result.with_err_times(on_sky.factor)
                        variance = variance * on_sky.factor**2
                    noise = speckle_noise(mean, variance, star, scale_arcsec)
                    known |= {"speckle_noise": noise._asdict(), "sky_noise": on_sky._asdict()}
                    product = _product(model, result)
                    known |= {"row_noise": rows.result()._asdict()}
                    log.info("Noise of rows left in %s: %s.", cube.info.name, rows.result())
                    _stamp(product, result, recipe, inputs, star, history, **known)
                    products.append(product)
        return products[0] if len(products) == 1 else products

    def _star(self, cube: Cube, recorded: StarPosition | None) -> StarPosition:
        """Return the star: the user's, that of the aligned references, the header's, measured."""
        given = values_of(self, StarParameters).xy
        if given is None and recorded is not None:
            return recorded
        frames = Frames(cube.sci, cube.variance(), cube.bad(self.bad_bits))
        return find_star(cube.info, frames, star_xy=given)

    def save_model(self, model: Any, *, idx: int | None = None, **parts: Any) -> Any:
        """Save a product; one of several is named by its number of modes."""
        if idx is not None:
            parts["modes"] = f"k{provenance_of(model)['steps']['klip']['n_modes']:03d}"
        return super().save_model(model, **parts)


def _product(target: Any, result: Subtraction) -> Any:
    """Make the psfsub product of one number of modes, with the metadata of the exposure."""
    do_not_use = np.uint32(info_from_model(target).instrument_value.flag_value("DO_NOT_USE"))
    # A combined image has none.
    dq = np.array(np.zeros(result.sci.shape) if target.dq is None else target.dq, np.uint32)
    dq[~np.isfinite(result.sci)] |= do_not_use
    model = copy_with(target, {"data": result.sci, "err": result.err, "dq": dq})
    model.meta.model_type = "CubeModel"
    drop_unknown_long_keywords(model)
    return model


def _stamp(
    model: Any,
    result: Subtraction,
    recipe: SubtractRecipe,
    inputs: list[str],
    star: StarPosition,
    history: dict[str, Any],
    /,
    **details: Any,
) -> None:
    """Record in a product what was done, with what its references record."""
    for step in ("stack_psfs", "align_psfs"):
        setattr(model.meta.cal_step, step, "COMPLETE")
    provenance = provenance_of(model)
    provenance["steps"] = history | provenance.get("steps", {})
    set_provenance(model, provenance)
    error = f"ERR is {recipe.error}; residual speckles are not in a propagated error"
    details = result.record() | {"error": error} | details
    stamp(model, "klip", to_dict(recipe), inputs, star, **details)
