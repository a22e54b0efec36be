"""Step: the subtracted integrations combined on the sky."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from lyot.files.combined import combined_model, residuals_from_model
from lyot.files.exposure import as_model
from lyot.files.provenance import stamp
from lyot.parameters import CombineRecipe, to_dict
from lyot.sky import combine
from lyot.steps.base import LyotStep, name_of

log = logging.getLogger(__name__)


class ResampleStep(LyotStep):
    """Combine all subtracted integrations of all exposures into one image of the sky."""

    class_alias = "resample"

    spec = """
        suffix = string(default='i2d')  # Suffix of the product
        align_on = option('star', 'header', default='star')  # Put all stars on one sky position, or trust the headers
        pixfrac = float(default=1.0, min=0.0, max=1.0)  # Fraction of a pixel that its flux is confined to
        kernel = option('square', 'gaussian', 'point', 'turbo', 'lanczos2', 'lanczos3', default='square')  # Drizzle kernel
        weight_type = option('ivm', 'exptime', 'uniform', default='ivm')  # Weights
        pixel_scale_ratio = float(default=1.0)  # Output over input pixel scale
        rotation = float(default=None)  # Position angle of the output y axis [degree]
        bad_bits = string(default='DO_NOT_USE+NON_SCIENCE')  # DQ flags of pixels that are left out
    """  # noqa: E501

    def recipe(self) -> CombineRecipe:
        """Return the parameters as a recipe."""
        return CombineRecipe(
            align_on=self.align_on,
            pixfrac=self.pixfrac,
            kernel=self.kernel,
            weight_type=self.weight_type,
            pixel_scale_ratio=self.pixel_scale_ratio,
            rotation=self.rotation,
            bad_bits=self.bad_bits,
        )

    def process(self, source: Any) -> Any:
        """Combine.

        Parameters
        ----------
        source : str, CubeModel, or list of these
            The psfsub products.

        Returns
        -------
        ImageModel
            SCI, ERR, CON, WHT, and VAR_* where the inputs have them.
        """
        single = isinstance(source, str | Path) or hasattr(source, "getarray_noinit")
        items = [source] if single else list(source)
        models = [as_model(item, "CubeModel") for item in items]
        recipe = self.recipe()
        image = combine([residuals_from_model(m, recipe.bad_bits) for m in models], recipe)
        result = combined_model(models, image, recipe)
        shape = np.shape(image.sci)
        log.info("Combined %d exposure(s) into %d x %d pixels.", len(models), shape[1], shape[0])
        stamp(
            result,
            "resample",
            recipe=to_dict(recipe),
            inputs=[name_of(i) for i in items],
            star=image.star,
            details={"error": "ERR is per pixel; the covariance of drizzling is not in it"},
        )
        for model, item in zip(models, items, strict=True):
            if model is not item:
                model.close()
        return result
