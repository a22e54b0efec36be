"""Step: the background of an exposure."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from lyot.files.exposure import Cube, cube_from_model, read_cube
from lyot.files.products import copy_with, drop_unknown_long_keywords
from lyot.files.provenance import stamp
from lyot.parameters import STEPS, BackgroundRecipe, to_dict
from lyot.references.background import Background, background_of, subtract_background
from lyot.steps.base import LyotStep, name_of, opened, spec_of, values_of

log = logging.getLogger(__name__)


class BackgroundStep(LyotStep):
    """Subtract dedicated background exposures, scaled, and a low-order surface.

    Examples
    --------
    >>> BackgroundStep(surface="plane").surface
    'plane'
    """

    class_alias = "background"

    spec = spec_of(*STEPS["background"], suffix="bkgsub")

    def process(
        self,
        source: Any,
        backgrounds: Background | Sequence[Any] | None = None,
        made: tuple[Cube, dict[str, Any]] | None = None,
    ) -> Any:
        """Return a copy of an exposure without its background, with its error in ERR.

        `backgrounds` are the dedicated background exposures, or what was made of them; `made` is
        what `lyot.references.background.subtract_background` returns of it, where that is known.
        """
        recipe = values_of(self, BackgroundRecipe)
        if backgrounds is not None and not isinstance(backgrounds, Background):
            backgrounds = background_of([read_cube(path) for path in backgrounds], recipe)
        with opened(source, "CubeModel") as model:
            if made is None:
                made = subtract_background(cube_from_model(model), backgrounds, recipe)
            cube, record = made
            result = copy_with(model, {"data": cube.sci, "err": cube.err} if record else {})
            if not record:
                result.meta.cal_step.back_sub = "SKIPPED"
                return result
            drop_unknown_long_keywords(result)
            stamp(result, "background", to_dict(recipe), [name_of(source)], **record)
            result.meta.cal_step.back_sub = "COMPLETE"
        return result
