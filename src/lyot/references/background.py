"""The background of exposures: dedicated background exposures, scaled, and low-order surfaces."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms import background as kernels
from lyot.algorithms import repair
from lyot.errors import LyotError
from lyot.files.exposure import Cube, check_same_mode
from lyot.parameters import AUTO, SURFACES, BackgroundRecipe
from lyot.references.star import guess_star
from lyot.types import Mask

log = logging.getLogger(__name__)

STRIPE_HALF_WIDTH_ARCSEC = 0.6
SMOOTHING_ARCSEC = 0.45
MIN_FINE_SCALE = 0.5
"""Below this the fine structure of a background is more noise than background: it stays out. Where
a background was subtracted before, its noise is in the exposure with the other sign."""
SOURCE_SMOOTHING_LAMBDA_D = 0.3
MIN_PIXELS = 200
"""Pixels that a fit needs."""


@dataclass(frozen=True, eq=False)
class Background:
    """What dedicated background exposures of a mode show."""

    parts: NDArray[np.float64]  # (3, n_y, n_x): fine structure, smooth, light of the boundaries
    variance: NDArray[np.float64]  # (n_y, n_x)
    missing: Mask  # (n_y, n_x): where no exposure has a value
    names: tuple[str, ...]


def background_of(cubes: Sequence[Cube], recipe: BackgroundRecipe, /) -> Background:
    """Combine dedicated background exposures; the light along a mask's boundaries is set apart."""
    first = cubes[0].info
    for cube in cubes[1:]:
        check_same_mode(first, cube.info)
    parts = [(c.sci, c.variance(), c.bad(recipe.bad_bits)) for c in cubes]
    frames, variance, bad = (np.concatenate(part) for part in zip(*parts, strict=True))
    if bad.all():
        raise LyotError(f"{first.name} has no good pixel; leave it out.")
    smoothing = SOURCE_SMOOTHING_LAMBDA_D * first.lambda_over_d_pix
    mean, spread = kernels.combine_backgrounds(frames, variance, bad, smoothing_pix=smoothing)
    # Boundaries of a mask are flagged in a background, and not in the exposures of a star.
    flagged = kernels.combine_backgrounds(
        frames, variance, ~np.isfinite(frames), smoothing_pix=smoothing
    )
    usable = (
        ~np.isfinite(mean) & (flagged.mean >= np.nanmin(mean)) & (flagged.mean <= np.nanmax(mean))
    )
    mean, spread = (np.where(usable, *pair) for pair in zip(flagged, (mean, spread), strict=True))
    missing = ~np.isfinite(mean)
    # Where no exposure has a value it is unknown by as much as it varies over the frame.
    spread = np.where(missing, np.nanvar(mean), spread)
    [filled] = repair.median_fill(mean[None], missing[None])
    stripes = _stripes(cubes[0])
    smooth = kernels.level_beside(
        filled, ~stripes, smoothing_pix=SMOOTHING_ARCSEC / first.pixel_scale_arcsec
    )
    light = np.where(stripes, filled - smooth, 0.0)
    terms = np.array([filled - smooth - light, smooth, light])
    return Background(terms, spread, missing, tuple(c.info.name for c in cubes))


def _stripes(cube: Cube) -> Mask:
    """Return where a mask's boundaries scatter light, ``(n_y, n_x)``."""
    info = cube.info
    if not info.coronagraph_value.has_boundaries:
        return np.zeros(cube.frame_shape, bool)
    places = info.along_mask_arcsec(cube.frame_shape, guess_star(info, None))
    return np.asarray(np.minimum(*np.abs(places)) < STRIPE_HALF_WIDTH_ARCSEC)


def subtract_background(
    cube: Cube, background: Background | None, recipe: BackgroundRecipe, /
) -> tuple[Cube, dict[str, Any]]:
    """Subtract the background from each integration; return also what was fitted.

    The scale of each part of the dedicated backgrounds and of the surface are fitted far from the
    star; the variance of what is subtracted is added to that of the exposure. Its integrations
    share it: it does not average down.
    """
    order = _order(recipe, background)
    if recipe.skip or (background is None and order < 0):
        return cube, {}
    shape = cube.frame_shape
    if background is None:
        background = Background(np.empty((0, *shape)), np.zeros(shape), np.zeros(shape, bool), ())
    if background.missing.shape != shape:
        raise LyotError(
            f"Backgrounds are {background.missing.shape} pixels and {cube.info.name} {shape}; "
            "leave them out, or cut both alike."
        )
    surface = kernels.surface_terms(shape, order=order)
    star = guess_star(cube.info, None)
    rows, columns = np.indices(cube.frame_shape)
    radius = np.hypot(rows - star.y, columns - star.x) * cube.info.pixel_scale_arcsec
    far = (radius > recipe.inner_arcsec) & ~background.missing
    bad, variance = cube.bad(recipe.bad_bits), cube.variance()
    sci, err = cube.sci.copy(), cube.err.copy()
    scales, means, shared = [], [], np.zeros(shape)
    for k, frame in enumerate(cube.sci):
        good = far & ~bad[k]
        if good.sum() < MIN_PIXELS:
            raise LyotError(
                f"{cube.info.name} has {int(good.sum())} good pixels beyond inner_arcsec = "
                f"{recipe.inner_arcsec:g}, too few for its background; lower it, or skip the step.",
                parameter="inner_arcsec",
            )
        scale, level = _fit(frame, background.parts, surface, good, recipe.scale)
        model = np.tensordot(scale, background.parts, axes=1)
        model += np.tensordot(level, surface, axes=1)
        sci[k] -= model.astype(np.float32)
        means.append(float(model.mean()))
        added = background.variance * _noisy_scale(background, scale) ** 2
        err[k] = np.where(np.isfinite(err[k]), np.sqrt(variance[k] + added), err[k])
        shared += added / len(sci)
        scales.append((scale, level))
    scale, level = (np.array(part) for part in zip(*scales, strict=True))
    texts = [np.array2string(each.mean(axis=0), precision=3) for each in (scale, level)]
    log.info("Background of %s: scales %s, surface %s.", cube.info.name, *texts)
    record: dict[str, Any] = {
        "names": list(background.names),
        "scale": scale,
        "surface": level,
        "order": order,
    }
    record["mean"] = np.array(means)
    if background.names:
        record["shared_variance"] = shared.astype(np.float32)
    return replace(cube, sci=sci, err=err, shared_variance=record.get("shared_variance")), record


def _order(recipe: BackgroundRecipe, background: Background | None) -> int:
    """Return the order of the surface; -1 for none."""
    if recipe.surface == AUTO:
        return -1 if background is None else 0
    return SURFACES.index(recipe.surface) - 1


def _fit(
    frame: NDArray[np.float32],
    parts: NDArray[np.float64],
    surface: NDArray[np.float64],
    good: Mask,
    given: float | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the scales of the parts of a background, as given or fitted, and of the surface."""
    image, n = frame.astype(np.float64), len(parts)
    if given is not None:
        image -= given * parts.sum(axis=0)
        return np.full(n, given), kernels.fit_terms(image, surface, good).coefficients
    values = kernels.fit_terms(image, np.concatenate([parts, surface]), good).coefficients
    if n and values[0] < MIN_FINE_SCALE:
        values = kernels.fit_terms(image, np.concatenate([parts[1:], surface]), good).coefficients
        values = np.insert(values, 0, 0.0)
    return values[:n], values[n:]


def _noisy_scale(background: Background, scale: NDArray[np.float64]) -> NDArray[np.float64] | float:
    """Return the factor of each pixel's noise: smoothing leaves next to none in the smooth part."""
    if not background.names:
        return 0.0
    fine, smooth, light = scale
    factor = np.where(background.parts[2] != 0.0, light, fine)
    return np.asarray(np.where(background.missing, smooth, factor))
