"""The weight with which pixels count when frames are aligned."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms.geometry import radius_map
from lyot.errors import LyotError, readable
from lyot.files.headers import ExposureInfo, open_fits
from lyot.files.star import StarPosition

log = logging.getLogger(__name__)

INNER_LAMBDA_D, OUTER_LAMBDA_D = 3.5, 21.5
"""Edges of the built-in annulus; at F444W on NIRCam these are 8 and 48 pixels."""


def builtin_weight(info: ExposureInfo, star: StarPosition, /) -> NDArray[np.float64]:
    """Return 1 in an annulus of bright speckles about the star, 0 elsewhere and along a bar."""
    shape = (info.shape[-2], info.shape[-1])
    radius = radius_map(shape, star.yx)
    scale = info.lambda_over_d_pix
    outer = min(OUTER_LAMBDA_D * scale, 0.49 * max(shape))
    inner = min(INNER_LAMBDA_D * scale, 0.5 * outer)
    weight = ((radius > inner) & (radius < outer)).astype(np.float64)
    y, x = np.ogrid[: shape[0], : shape[1]]
    (mask_y, mask_x), pixel = info.mask_yx(star), info.pixel_scale_arcsec
    along = (x - mask_x) * pixel + info.star_along_mask_arcsec
    weight[info.coronagraph_value.is_occulted(along, (y - mask_y) * pixel)] = 0.0
    return weight


def read_psfmask(
    path: str | Path, info: ExposureInfo, star: StarPosition, /
) -> NDArray[np.float64]:
    """Read the weight from a PSFMASK reference file; warn where its hole is not at the star."""
    with readable(path), open_fits(path, memmap=False) as hdus:
        if "SCI" not in hdus or hdus["SCI"].data is None:
            raise LyotError(f"PSFMASK {path} has no SCI image; give a PSFMASK reference file.")
        weight = np.asarray(hdus["SCI"].data, dtype=np.float64)
    if weight.shape != tuple(info.shape[-2:]):
        raise LyotError(
            f"PSFMASK {path} is {weight.shape} pixels and the frames of {info.name} are "
            f"{tuple(info.shape[-2:])}; give the file of this subarray."
        )
    weight = np.where(np.isfinite(weight), np.maximum(weight, 0.0), 0.0)
    if not weight.any():
        raise LyotError(f"PSFMASK {path} is zero everywhere; no pixel would count.")
    y, x = np.nonzero((weight < 0.5 * weight.max()) & (radius_map(weight.shape, star.yx) < 60))
    offset = float(np.hypot(y.mean() - star.y, x.mean() - star.x)) if y.size else 0.0
    if offset > 2.0 * info.lambda_over_d_pix:  # a mask made for another pointing misleads
        log.warning(
            f"The hole of PSFMASK {Path(path).name} lies {offset:.1f} pixels from the star of "
            f"{info.name} at (x, y) = ({star.x:.1f}, {star.y:.1f}); the built-in weight may align "
            "better."
        )
    return weight
