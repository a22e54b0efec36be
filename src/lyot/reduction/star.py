"""Finding the star behind the coronagraph."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from lyot import execution
from lyot.algorithms import registration, repair
from lyot.models.cubes import Cube
from lyot.models.info import ExposureInfo
from lyot.models.star import CRPIX, HEADER, MEASURED, PARAMETER, StarPosition

log = logging.getLogger(__name__)

INNER_LAMBDA_D, OUTER_LAMBDA_D = 2.2, 18.0
SYSTEMATIC_PIX = 0.1
"""How far the centre of symmetry was seen to lie from the star: the speckles are not quite
point-symmetric (NIRCam F444W, AU Mic and its references)."""
MAX_FRAMES = 12
"""How many frames, evenly spread over the stack, the star is measured on."""


def stated_star(
    info: ExposureInfo, parameter_xy: tuple[float, float] | None, /
) -> StarPosition | None:
    """Return the star position that the user or the header states.

    Parameters
    ----------
    info : ExposureInfo
        The science exposure.
    parameter_xy : tuple of float or None
        What the user gave [pixel, 0-based].

    Returns
    -------
    StarPosition or None
        None where neither states it.
    """
    if parameter_xy is not None:
        return StarPosition(*parameter_xy, 0.0, 0.0, PARAMETER)
    if info.star_xy is not None:
        return StarPosition(*info.star_xy, origin=HEADER)
    return None


def guess_star(info: ExposureInfo, parameter_xy: tuple[float, float] | None, /) -> StarPosition:
    """Return the best position that is known without looking at the pixels.

    Parameters
    ----------
    info : ExposureInfo
        The science exposure.
    parameter_xy : tuple of float or None
        What the user gave [pixel, 0-based].

    Returns
    -------
    StarPosition
        Parameter, else STARCENX/Y, else CRPIX, else the middle of the frame.
    """
    stated = stated_star(info, parameter_xy)
    if stated is not None:
        return stated
    middle = (0.5 * (info.shape[-1] - 1), 0.5 * (info.shape[-2] - 1))
    x, y = info.crpix_xy or middle
    if not (0 <= x < info.shape[-1] and 0 <= y < info.shape[-2]):
        log.warning("CRPIX of %s lies outside its frame; the middle is taken.", info.name)
        x, y = middle
    return StarPosition(x, y, origin=CRPIX)


def measure_star(
    cube: Cube,
    variance: NDArray[np.floating],
    bad: NDArray[np.bool_],
    guess: StarPosition,
    /,
    *,
    shift_yx: NDArray[np.floating] | None = None,
) -> StarPosition:
    """Measure the star as the centre of symmetry of frames, seen from another frame.

    Parameters
    ----------
    cube : Cube
        Frames, best those of the references, which hold neither disc nor companion.
    variance : ndarray, shape (n, n_y, n_x)
        Their variance.
    bad : ndarray of bool, shape (n, n_y, n_x)
        True where a pixel is left out.
    guess : StarPosition
        First guess.
    shift_yx : ndarray, shape (n, 2), optional
        The shift that aligns each frame to the frame in which the star is wanted [pixel].

    Returns
    -------
    StarPosition
        Median over the frames, with origin ``measured``; the guess where no frame has a centre
        within three pixels of it.
    """
    every = max(1, -(-len(cube.sci) // MAX_FRAMES))
    scale = cube.info.lambda_over_d_pix

    def _one(i: int) -> NDArray[np.float64] | None:
        shift = np.zeros(2) if shift_yx is None else np.asarray(shift_yx[i])
        image = repair.median_fill(cube.sci[i : i + 1], bad[i : i + 1])[0]
        centre = registration.symmetry_centre(
            image,
            variance[i].astype(np.float64),
            bad[i],
            (guess.y - shift[0], guess.x - shift[1]),
            inner_pix=INNER_LAMBDA_D * scale,
            outer_pix=OUTER_LAMBDA_D * scale,
        )
        good = centre.converged and float(centre.contrast) > 0.5
        return np.asarray(centre.centre_yx) + shift if good else None

    found = execution.map_ordered(_one, range(0, len(cube.sci), every))
    centres = [centre for centre in found if centre is not None]
    if not centres:
        log.warning(
            "The star of %s could not be measured; (x, y) = (%.2f, %.2f) from %s is taken.",
            cube.info.name,
            guess.x,
            guess.y,
            guess.origin,
        )
        return guess
    y, x = np.median(centres, axis=0)
    spread = np.std(centres, axis=0) / np.sqrt(len(centres))
    err = np.hypot(spread, SYSTEMATIC_PIX)
    return StarPosition(float(x), float(y), float(err[1]), float(err[0]), MEASURED)
