"""Step: outliers among the integrations of an exposure."""

from __future__ import annotations

import logging
from typing import Any

from lyot.files.exposure import cube_from_model
from lyot.files.products import copy_with, drop_unknown_long_keywords
from lyot.files.provenance import stamp
from lyot.parameters import STEPS, OutlierRecipe, to_dict
from lyot.references.prepare import Outliers, outlier_dq
from lyot.steps.base import LyotStep, name_of, opened, spec_of, values_of

log = logging.getLogger(__name__)


class OutlierDetectionStep(LyotStep):
    """Flag pixels that differ from the other integrations of their exposure.

    Examples
    --------
    >>> OutlierDetectionStep(n_sigma=4.0).n_sigma
    4.0
    """

    class_alias = "outlier_detection"

    spec = spec_of(*STEPS["outlier_detection"], suffix="crfints")

    def process(self, source: Any, found: Outliers | None = None) -> Any:
        """Return a copy of an exposure, DQ with OUTLIER and DO_NOT_USE where a pixel is one.

        `found` is what `lyot.references.prepare.outlier_dq` returns of it, where that is known.
        """
        recipe = values_of(self, OutlierRecipe)
        with opened(source, "CubeModel") as model:
            dq, n_found = found or outlier_dq(cube_from_model(model), recipe)
            result = copy_with(model, {"dq": dq})
            name, n_int = model.meta.filename, len(dq)
            log.info("%d outliers in %d integrations of %s.", n_found, n_int, name)
            drop_unknown_long_keywords(result)
            inputs = [name_of(source)]
            stamp(result, "outlier_detection", to_dict(recipe), inputs, n_outliers=n_found)
        return result
