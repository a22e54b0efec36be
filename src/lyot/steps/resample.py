"""Step: the subtracted integrations combined on the sky."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import Any

import numpy as np

from lyot.files.combined import combined_model, residuals_from_model
from lyot.files.provenance import stamp
from lyot.parameters import STEPS, CombineRecipe, to_dict
from lyot.sky import combine
from lyot.steps.base import LyotStep, is_one, name_of, opened, spec_of, values_of

log = logging.getLogger(__name__)


class ResampleStep(LyotStep):
    """Combine all subtracted integrations of all exposures into one image of the sky.

    Examples
    --------
    >>> ResampleStep(align_on="header").align_on
    'header'
    """

    class_alias = "resample"

    spec = spec_of(*STEPS["resample"], suffix="i2d")

    def process(self, source: Any) -> Any:
        """Return the image of a psfsub product, or of a list of them: SCI, ERR, CON, WHT, VAR_*."""
        items = [source] if is_one(source) else list(source)
        recipe = values_of(self, CombineRecipe)
        with ExitStack() as stack:
            models = [stack.enter_context(opened(item, "CubeModel")) for item in items]
            image = combine([residuals_from_model(m, recipe.bad_bits) for m in models], recipe)
            result = combined_model(models, image, recipe)
            n_y, n_x = np.shape(image.sci)
            log.info("Combined %d exposure(s) into %d x %d pixels.", len(models), n_x, n_y)
            error = "ERR is per pixel; the covariance of drizzling is not in it"
            inputs = [name_of(item) for item in items]
            stamp(result, "resample", to_dict(recipe), inputs, image.star, error=error)
        return result
