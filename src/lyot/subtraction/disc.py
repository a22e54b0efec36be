r"""Model-constrained subtraction: coefficients fitted to the data less a model of the disc.

A disc in the target draws the coefficients, and is subtracted from itself. With a model D of it,
the coefficients are those of :math:`T - b D`, and applied to T: the disc stays, as far as the
model is right (Lawson et al. 2022, doi:10.3847/2041-8213/ac853e, for models from polarimetry;
Lawson et al. 2023, doi:10.3847/1538-3881/aced08, arXiv:2308.02486, for JWST). The scale b of
the model is fitted to what the subtraction leaves: with P the subtraction,
:math:`b = \langle P T, P D \rangle / \langle P D, P D \rangle` over the pixels of the fit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from lyot.algorithms.geometry import TangentPlane
from lyot.errors import LyotError
from lyot.files.exposure import Cube
from lyot.subtraction.result import Subtracted, Subtraction


def on_detector(
    image: NDArray[np.floating],
    plane: TangentPlane,
    pixel_scale_arcsec: float,
    yx: tuple[NDArray[np.floating], NDArray[np.floating]],
    /,
) -> NDArray[np.float64]:
    """Read an image of the sky at positions on an exposure [pixel], by cubic interpolation.

    North is up, the star at the pixel ``(n // 2, n // 2)``; NaN, and what lies beyond, are zero.
    """
    if image.ndim != 2:
        raise LyotError(f"The model of the disc has {image.ndim} axes; give an image of the sky.")
    east, north = plane.offset(*yx) / pixel_scale_arcsec
    places = np.stack([image.shape[0] // 2 + north, image.shape[1] // 2 - east])
    return np.asarray(map_coordinates(np.nan_to_num(image), places, order=3, cval=0.0))


class Constrained(NamedTuple):
    """A subtraction of target less model, its results with the model put back, and its scale."""

    subtracted: Subtracted
    results: list[Subtraction]
    scale: float  # of the model, for the last number of modes


def subtract_constrained(
    run: Callable[[Cube], Subtracted],
    target: Cube,
    disc: NDArray[np.floating],
    counts: NDArray[np.bool_],
    /,
) -> Constrained:
    """Subtract an exposure less a model of its disc, scaled to the data where `counts` is True."""
    if disc.shape != target.frame_shape:
        raise LyotError(
            f"The model of the disc is {disc.shape} pixels and frames are {target.frame_shape}."
        )
    if not np.any(disc[counts]):
        raise LyotError("The model of the disc is zero on the pixels of the fit.")

    def _mean(added: float) -> NDArray[np.float64]:
        sci = run(_plus(target, added * disc))[-1].sci
        n = np.maximum(np.isfinite(sci).sum(axis=0), 1)
        return np.asarray(np.nansum(sci, axis=0, dtype=np.float64) / n)

    residual = _mean(0.0)
    # The subtraction is linear in the target: a model as bright as the residual shows its effect.
    unit = float(np.std(residual[counts])) / max(float(np.std(disc[counts])), np.finfo(float).tiny)
    of_model = (_mean(unit) - residual) / unit
    power = float((of_model[counts] ** 2).sum())
    if not power > 0.0:
        raise LyotError(
            "The subtraction removes the model of the disc entirely; its scale cannot be fitted."
        )
    scale = max(float((residual * of_model)[counts].sum()) / power, 0.0)
    subtracted = run(_plus(target, -scale * disc))
    model = (scale * disc).astype(np.float32)
    results = [replace(result, sci=result.sci + model) for result in subtracted]
    return Constrained(subtracted, results, scale)


def _plus(target: Cube, added: NDArray[np.floating]) -> Cube:
    return replace(target, sci=target.sci + added.astype(np.float32))
