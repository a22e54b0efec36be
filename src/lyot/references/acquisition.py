"""The star behind the mask, from its image in target acquisitions.

An acquisition shows the star beside the mask; then the telescope moves it behind. Both pointings
are measured on one guide star: the WCS of both exposures leads from the pixel there to the pixel
here. What the guide star's catalog errs by is common to both and drops out; the coordinates of the
target itself are not used, they are off by a tenth of an arcsecond or two.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from lyot.algorithms import repair
from lyot.errors import LyotError
from lyot.files.astrometry import frame_wcs, pixel_of
from lyot.files.exposure import as_model, cube_from_model
from lyot.files.headers import MAX_ACQUISITION_PIX, ExposureInfo, info_from_model
from lyot.files.star import ACQUIRED, StarPosition
from lyot.types import Array

log = logging.getLogger(__name__)

MIN_SNR = 20.0
"""Of the star in the acquisition."""
MIN_CENTROID_ERR_PIX = 0.03
"""Error of a centroid of pixels as wide as the image of a star."""
MEASURED_POINTING = "CALCULATED"
N_STEPS = 50


def unusable_because(info: ExposureInfo, acquisition: ExposureInfo, /) -> str:
    """Say, by headers alone, why an acquisition does not tell where the star of an exposure is."""
    if not info.visit or info.visit != acquisition.visit:
        return "it is of another visit"
    if not info.guide_star or info.guide_star != acquisition.guide_star:
        return "it was taken with another guide star"
    for each in (info, acquisition):
        if each.pointing and not each.pointing.startswith(MEASURED_POINTING):
            return f"the pointing of {each.name} was not measured (ENGQLPTG is {each.pointing})"
    if info.aperture == acquisition.aperture:
        return "its star is behind the mask"
    return ""


def star_by_acquisitions(path: Path, acquisitions: Sequence[Path], /) -> StarPosition | None:
    """Return the star of an exposure by its acquisitions; None, with the reason logged, without.

    The mean of several, with the error of one pointing: it is common to them.
    """
    places = []
    with as_model(path, "CubeModel") as model:
        info = info_from_model(model)
        for each in acquisitions:
            try:
                places.append(_transferred(model, info, each))
            except LyotError as why:
                names = each.name, path.name
                log.warning("%s does not tell where the star of %s is: %s", *names, why)
    if not places:
        return None
    x, y, err = np.mean(places, axis=0)
    scatter = np.std(places, axis=0)[:2] / np.sqrt(max(len(places) - 1, 1))
    pointing = info.instrument_value.accuracy.acquisition_arcsec / info.pixel_scale_arcsec
    x_err, y_err = np.sqrt(pointing**2 + err**2 + scatter**2)
    log.info(
        "The star of %s is at (x, y) = (%.2f, %.2f) +- %.2f by %d acquisition(s).",
        *(path.name, x, y, x_err, len(places)),
    )
    return StarPosition(float(x), float(y), float(x_err), float(y_err), ACQUIRED)


def _transferred(model: Any, info: ExposureInfo, path: Path) -> tuple[float, float, float]:
    """Return where the star of an acquisition falls on the pixels of an exposure; and its error."""
    with as_model(path, "CubeModel") as acquisition:
        cube = cube_from_model(acquisition)
        y, x, err = _centroid(cube.sci, cube.bad("DO_NOT_USE"), cube.info)
        wcs = [
            frame_wcs(m.meta.wcs, m.meta.wcsinfo.instance, facts)
            for m, facts in ((model, info), (acquisition, cube.info))
            if m.meta.hasattr("wcs") and m.meta.wcs is not None
        ]
    if len(wcs) < 2:
        raise LyotError("an exposure has no gWCS; run assign_wcs on it.")
    there = pixel_of(wcs[0], wcs[1](x, y))
    reference = info.crpix_xy or (0.5 * (info.shape[-1] - 1), 0.5 * (info.shape[-2] - 1))
    away = float(np.hypot(*(there - reference)))
    if not away <= MAX_ACQUISITION_PIX:
        raise LyotError(f"it would be {away:.1f} pixels from the reference point of the aperture.")
    return there[0], there[1], err * cube.info.pixel_scale_arcsec / info.pixel_scale_arcsec


def _centroid(frames: Array, bad: Array, info: ExposureInfo) -> tuple[float, float, float]:
    """Return row, column and error [pixel] of the star in an acquisition."""
    good = ~bad
    n = good.sum(axis=0)
    mean = np.where(good, frames, 0.0).sum(axis=0, dtype=np.float64) / np.maximum(n, 1)
    [image] = repair.median_fill(mean[None], n[None] == 0)
    image -= np.median(image)
    sigma = max(info.lambda_over_d_pix, 2.0) / np.sqrt(8.0 * np.log(2.0))
    smooth = ndimage.gaussian_filter(image, sigma)
    noise = repair.MAD_TO_SIGMA * np.median(np.abs(smooth - np.median(smooth)))
    peak = np.unravel_index(int(np.argmax(smooth)), image.shape)
    snr = smooth[peak] / noise if noise > 0 else np.inf
    if snr < MIN_SNR:
        raise LyotError(f"it shows no star (S/N {snr:.0f}).")
    near = (slice(max(int(v) - 1, 0), int(v) + 2) for v in peak)
    if (n[tuple(near)] == 0).any():
        raise LyotError("its star lies on bad or saturated pixels.")
    rows, columns = np.indices(image.shape)
    at = np.array(peak, dtype=np.float64)
    for _ in range(N_STEPS):
        weight = image * np.exp(-0.25 * ((rows - at[0]) ** 2 + (columns - at[1]) ** 2) / sigma**2)
        mean_yx = np.array([(weight * each).sum() for each in (rows, columns)]) / weight.sum()
        # The window draws the mean of a star as wide as itself to its own middle.
        step, at = 1.5 * (mean_yx - at), at + 1.5 * (mean_yx - at)
        if np.abs(step).max() < 1e-4:
            break
    err = np.hypot(MIN_CENTROID_ERR_PIX, sigma / snr)
    return float(at[0]), float(at[1]), float(err)
