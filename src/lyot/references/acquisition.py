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
from lyot.files.exposure import Cube, as_model, cube_from_model
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
WINDOW_PIX = 20
"""How far from where it is expected the star is looked for, and the noise measured."""
BEHIND_MASK_ARCSEC = 1.0
"""Distance from the mask on the detector within which a star is not beside it."""


def unusable_because(info: ExposureInfo, acquisition: ExposureInfo, /) -> str:
    """Say, by headers alone, why an acquisition does not tell where the star of an exposure is."""
    if not info.visit or info.visit != acquisition.visit:
        return "it is of another visit"
    if not info.guide_star or info.guide_star != acquisition.guide_star:
        return "it was taken with another guide star"
    for each in (info, acquisition):
        if each.pointing and not each.pointing.startswith(MEASURED_POINTING):
            return f"the pointing of {each.name} was not measured (ENGQLPTG is {each.pointing})"
    if info.detector != acquisition.detector:
        return "it is of another detector"
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
    """Return where the star of an acquisition falls on the pixels of an exposure; and its error.

    It is looked for where it would be if it fell on the reference point of the aperture.
    """
    reference = info.crpix_xy or (0.5 * (info.shape[-1] - 1), 0.5 * (info.shape[-2] - 1))
    with as_model(path, "CubeModel") as acquisition:
        cube = cube_from_model(acquisition)
        here, there = (
            frame_wcs(m.meta.wcs, m.meta.wcsinfo.instance, facts)
            if m.meta.hasattr("wcs") and m.meta.wcs is not None
            else None
            for m, facts in ((model, info), (acquisition, cube.info))
        )
        if here is None or there is None:
            raise LyotError("an exposure has no gWCS; run assign_wcs on it.")
        expected = pixel_of(there, here(*reference))
        if info.corner_xy and cube.info.corner_xy:
            apart = expected + cube.info.corner_xy - np.add(reference, info.corner_xy)
            if np.hypot(*apart) * info.pixel_scale_arcsec < BEHIND_MASK_ARCSEC:
                raise LyotError("its star is behind the mask.")
        x, y, err = _centroid(cube, expected)
        found = pixel_of(here, there(x, y))
    away = float(np.hypot(*(found - reference)))
    if not away <= MAX_ACQUISITION_PIX:
        raise LyotError(f"it would be {away:.1f} pixels from the reference point of the aperture.")
    return found[0], found[1], err * cube.info.pixel_scale_arcsec / info.pixel_scale_arcsec


def _centroid(cube: Cube, expected_xy: Array) -> tuple[float, float, float]:
    """Return x, y and error [pixel] of the brightest star near a place in an acquisition."""
    n_y, n_x = cube.frame_shape
    if not (0 <= expected_xy[0] < n_x and 0 <= expected_xy[1] < n_y):
        raise LyotError("the star is not on its frame.")
    corner = np.maximum(np.round(expected_xy[::-1]).astype(int) - WINDOW_PIX, 0)
    y, x = (slice(int(c), int(c) + 2 * WINDOW_PIX + 1) for c in corner)
    good = ~cube.bad("DO_NOT_USE")[:, y, x]
    n = good.sum(axis=0)
    mean = np.where(good, cube.sci[:, y, x], 0.0).sum(axis=0, dtype=np.float64) / np.maximum(n, 1)
    [image] = repair.median_fill(mean[None], n[None] == 0)
    image -= np.median(image)
    sigma = max(cube.info.lambda_over_d_pix, 2.0) / np.sqrt(8.0 * np.log(2.0))
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
    row, column = at + corner
    return float(column), float(row), float(err)
