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
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from lyot.errors import LyotError
from lyot.files.exposure import Cube
from lyot.files.star import StarPosition
from lyot.subtraction.result import Subtraction

Kept = TypeVar("Kept")


def on_detector(
    image: NDArray[np.floating], star: StarPosition, pa_y_deg: float, shape: tuple[int, int], /
) -> NDArray[np.float64]:
    """Turn an image of the sky onto the pixels of an exposure.

    Parameters
    ----------
    image : ndarray, shape (n_row, n_column)
        North up, east to the left, the star at the middle pixel ``(n // 2, n // 2)``, pixels as
        large as the exposure's, and convolved with its PSF; NaN counts as zero.
    star : StarPosition
        The star on the exposure.
    pa_y_deg : float
        Position angle of the exposure's y axis [degree].
    shape : tuple of int
        ``(n_y, n_x)`` of the exposure.

    Returns
    -------
    ndarray, shape (n_y, n_x)
        By cubic interpolation; zero beyond the image.
    """
    y, x = np.mgrid[: shape[0], : shape[1]]
    dy, dx = y - star.y, x - star.x
    turn = np.radians(pa_y_deg)
    north = dy * np.cos(turn) + dx * np.sin(turn)
    west = dx * np.cos(turn) - dy * np.sin(turn)
    at = np.stack([north + image.shape[0] // 2, west + image.shape[1] // 2])
    found: NDArray[np.float64] = map_coordinates(np.nan_to_num(image), at, order=3, cval=0.0)
    return found


def subtract_constrained(
    run: Callable[[Cube], tuple[list[Subtraction], Kept]],
    target: Cube,
    disc: NDArray[np.floating],
    counts: NDArray[np.bool_],
    /,
) -> tuple[list[Subtraction], Kept, float]:
    """Subtract an exposure with coefficients that a model of its disc does not draw.

    Parameters
    ----------
    run : callable
        Subtracts an exposure, with whatever else it returns.
    target : Cube
        The exposure.
    disc : ndarray, shape (n_y, n_x)
        The model on its pixels, in any unit.
    counts : ndarray of bool, shape (n_y, n_x)
        Pixels by which the scale of the model is fitted.

    Returns
    -------
    results : list of Subtraction
        As from `lyot.subtraction.subtract.subtract`; the disc is in them.
    kept : object
        What else the last run returned.
    scale : float
        The scale b, of the last number of modes.

    Raises
    ------
    LyotError
        If the model is another shape, or is zero, or what is left of it is.
    """
    if disc.shape != target.frame_shape:
        raise LyotError(
            f"The model of the disc is {disc.shape} pixels and frames are {target.frame_shape}."
        )
    if not np.any(disc[counts]):
        raise LyotError("The model of the disc is zero on the pixels of the fit.")

    def _mean(added: float) -> NDArray[np.float64]:
        sci = run(_with(target, added * disc))[0][-1].sci
        n = np.maximum(np.isfinite(sci).sum(axis=0), 1)
        return np.asarray(np.nansum(sci, axis=0, dtype=np.float64) / n)

    residual = _mean(0.0)
    # The subtraction is linear in the target: a model as bright as the residual shows its effect.
    unit = float(np.std(residual[counts])) / max(float(np.std(disc[counts])), np.finfo(float).tiny)
    of_model = (_mean(unit) - residual) / unit
    power = float((of_model[counts] ** 2).sum())
    if not power > 0.0:
        raise LyotError("The subtraction leaves nothing of the model of the disc.")
    scale = max(float((residual * of_model)[counts].sum()) / power, 0.0)
    results, kept = run(_with(target, -scale * disc))
    back = (scale * disc).astype(np.float32)
    return [replace(r, sci=r.sci + back) for r in results], kept, scale


def _with(target: Cube, added: NDArray[np.floating]) -> Cube:
    return replace(target, sci=target.sci + added.astype(np.float32))
