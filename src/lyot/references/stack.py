"""The references, stacked."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms import repair
from lyot.files.exposure import Cube
from lyot.parameters import OutlierRecipe

log = logging.getLogger(__name__)

MIN_INTEGRATIONS = 3


def outlier_dq(cube: Cube, recipe: OutlierRecipe, /) -> tuple[NDArray[np.uint32], int]:
    """Flag the outliers among the integrations of an exposure.

    Parameters
    ----------
    cube : Cube
        The exposure.
    recipe : OutlierRecipe
        The threshold.

    Returns
    -------
    dq : ndarray of uint32, shape (n_int, n_y, n_x)
        Its flags, with OUTLIER and DO_NOT_USE where a pixel is an outlier.
    n_found : int
        Number of outliers.
    """
    if len(cube.sci) < MIN_INTEGRATIONS:
        log.info(
            "%s has %d integration(s): outliers need at least %d to be told.",
            cube.info.name,
            len(cube.sci),
            MIN_INTEGRATIONS,
        )
        return cube.dq.copy(), 0
    found = repair.outlier_flags(cube.sci, cube.err, cube.bad("DO_NOT_USE"), n_sigma=recipe.n_sigma)
    flags = np.uint32(cube.info.instrument_value.flag_value("OUTLIER+DO_NOT_USE"))
    return np.where(found, cube.dq | flags, cube.dq).astype(np.uint32), int(found.sum())


def flag_outliers(cube: Cube, recipe: OutlierRecipe, /) -> Cube:
    """Return an exposure with its outliers flagged.

    Parameters
    ----------
    cube : Cube
        The exposure.
    recipe : OutlierRecipe
        The threshold, and whether to skip.

    Returns
    -------
    Cube
        The exposure itself where flagging is skipped.
    """
    if recipe.skip:
        return cube
    return replace(cube, dq=outlier_dq(cube, recipe)[0])
