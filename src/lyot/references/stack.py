"""Outliers among the integrations of the exposures that are stacked."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms import repair
from lyot.files.exposure import Cube
from lyot.parameters import OutlierRecipe

log = logging.getLogger(__name__)


def outlier_dq(cube: Cube, recipe: OutlierRecipe, /) -> tuple[NDArray[np.uint32], int]:
    """Return DQ with outliers flagged OUTLIER and DO_NOT_USE, and the number of outliers."""
    if len(cube.sci) < repair.MIN_INTEGRATIONS:
        text = "%s has %d integration(s); outlier detection needs at least %d."
        log.info(text, cube.info.name, len(cube.sci), repair.MIN_INTEGRATIONS)
        return cube.dq.copy(), 0
    found = repair.outlier_flags(cube.sci, cube.err, cube.bad("DO_NOT_USE"), n_sigma=recipe.n_sigma)
    flags = np.uint32(cube.info.instrument_value.flag_value("OUTLIER+DO_NOT_USE"))
    return np.where(found, cube.dq | flags, cube.dq).astype(np.uint32), int(found.sum())


def flag_outliers(cube: Cube, recipe: OutlierRecipe, /) -> Cube:
    """Return an exposure with its outliers flagged; the exposure itself where that is skipped."""
    if recipe.skip:
        return cube
    return replace(cube, dq=outlier_dq(cube, recipe)[0])
