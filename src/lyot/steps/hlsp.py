"""Step: signal-to-noise image and 1-sigma contrast curve of a subtracted image."""

from __future__ import annotations

from typing import Any

import numpy as np

from lyot.algorithms.statistics import NoiseCurve, annulus_noise, finite_mean
from lyot.errors import LyotError
from lyot.files.headers import take_refused_keywords
from lyot.files.products import derived_model
from lyot.files.provenance import set_keyword, stamp, star_of
from lyot.parameters import STEPS, HlspRecipe
from lyot.steps.base import LyotStep, name_of, opened, spec_of, values_of

PRODUCT_SUFFIXES = ("snr", "contrast")


class HlspStep(LyotStep):
    """Make the high-level products: SNR image and contrast curve.

    Examples
    --------
    >>> HlspStep(annuli_width=3).annuli_width
    3
    """

    class_alias = "hlsp"

    spec = spec_of(*STEPS["hlsp"], save_results=True)

    def process(self, source: Any) -> list[Any]:
        """Return the SNR and contrast models of an image, or of a cube and its mean."""
        recipe = values_of(self, HlspRecipe)
        with opened(source) as model:
            data, err = np.asarray(model.data, np.float64), np.asarray(model.err, np.float64)
            if data.ndim not in (2, 3) or data.size == 0:
                raise LyotError(f"{name_of(source)} has {data.ndim} axes; hlsp takes 2 or 3.")
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = np.where(err > 0, data / err, np.nan)
            center, origin = _center(recipe, model, data.shape)
            image = finite_mean(data, axis=0) if data.ndim == 3 else data
            curve = annulus_noise(image, center, width=float(recipe.annuli_width))
            snr = derived_model(type(model).__name__, model, {"data": ratio.astype(np.float32)})
            for name in ("err", "con", "wht", "var_rnoise", "var_poisson", "var_flat", "area"):
                snr.instance.pop(name, None)
            snr.meta.bunit_data = ""
            contrast, star = _contrast_model(model, curve), star_of(model)
            used = {
                "annuli_width": recipe.annuli_width,
                "center_yx": list(center),
                "center_on": origin,
            }
            for product in (snr, contrast):
                known = {} if star is None else {"star": star.to_dict()}
                shown = star if product is snr else None
                stamp(product, "hlsp", used, [name_of(source)], shown, **known)
                set_keyword(product, "PRIMARY", "S_HLSP", "COMPLETE", "High-level products")
        return [snr, contrast]

    def save_model(self, model: Any, *, idx: int | None = None, **parts: Any) -> Any:
        """Save one of the products, named after the input with the product's own suffix."""
        if idx is not None:
            parts["suffix"] = PRODUCT_SUFFIXES[idx]
            parts.setdefault("output_file", self.output_file or model.meta.filename)
        return super().save_model(model, **parts)


def _center(
    recipe: HlspRecipe, model: Any, shape: tuple[int, ...]
) -> tuple[tuple[float, float], str]:
    """Choose the center: coordinates, the recorded star, or the middle of the image."""
    if recipe.center_x is not None and recipe.center_y is not None:
        return (float(recipe.center_y), float(recipe.center_x)), "coordinates"
    star = star_of(model)
    if recipe.center_on == "star" and star is None:
        raise LyotError(
            f"{model.meta.filename} records no star; give center_x and center_y, or "
            "center_on = image."
        )
    if star is not None and recipe.center_on != "image":
        return star.yx, "star"
    middle = (round(shape[-2] / 2) - 1.0, round(shape[-1] / 2) - 1.0)
    return middle, "image"


def _contrast_model(like: Any, curve: NoiseCurve) -> Any:
    """Make the ContrastModel: columns radius [pixel] and sigma [unit of the image]."""
    from stdatamodels.jwst import datamodels

    model = datamodels.ContrastModel(
        contrast_table=list(zip(curve.radius_pix, curve.sigma, strict=True)),
        validate_on_assignment=False,  # but when it is saved
    )
    model.update(like)
    take_refused_keywords(model, like)
    return model
