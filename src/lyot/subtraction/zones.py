"""Search areas of a recipe, and which references each of them may use."""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms.background import surface_terms
from lyot.algorithms.geometry import TangentPlane, angle_map, radius_map
from lyot.algorithms.selection import displacement_fwhm
from lyot.algorithms.zones import NO_MAP, Zone, annuli, from_map, full_frame, radial_edges
from lyot.errors import LyotError
from lyot.files.aligned import ReferenceInfo
from lyot.files.headers import ExposureInfo
from lyot.files.star import StarPosition
from lyot.parameters import AUTO, SURFACES, SubtractRecipe
from lyot.subtraction.methods import method_of
from lyot.types import Array

log = logging.getLogger(__name__)

STRIPE_SIGMA_ARCSEC, ARMS_INNER_ARCSEC = 0.15, 2.2
"""Width of the light along the boundaries of a phase mask, in backgrounds in F1140C."""


def make_zones(
    recipe: SubtractRecipe,
    shape: tuple[int, int],
    plane: TangentPlane,
    /,
    *,
    labels: NDArray[np.integer] | None = None,
    fit_weight: NDArray[np.floating] | None = None,
) -> list[Zone]:
    """Make the search areas of a recipe on frames about a star."""
    radius = plane.separations(shape)
    zones = _areas(recipe, radius, plane, labels)
    outer = recipe.fit_outer_arcsec or np.inf
    limits = ((radius >= recipe.fit_inner_arcsec) & (radius <= outer)).astype(np.float64)
    if fit_weight is not None:
        if fit_weight.shape != shape:
            raise LyotError(f"The fit weight is {fit_weight.shape} pixels and frames are {shape}.")
        limits = limits * np.maximum(np.nan_to_num(fit_weight), 0.0)
    level = _level_area(recipe, radius)
    all_pixels = method_of(recipe).modes_of_all_pixels
    zones = [
        Zone(zone.weight * limits, zone.share, level, zone.weight if all_pixels else NO_MAP)
        for zone in zones
    ]
    if any(not zone.weight.any() for zone in zones):
        raise LyotError("A zone has no pixel that counts in its fit; widen the limits of the fit.")
    return zones


def _level_area(recipe: SubtractRecipe, radius: Array) -> NDArray[np.bool_]:
    """Where the level is taken; no pixel means that it is that of the fit."""
    if recipe.level_inner_arcsec == 0.0:
        return np.zeros(radius.shape, bool)
    area = np.asarray(radius >= recipe.level_inner_arcsec)
    if not area.any():
        log.warning(
            f"The frame ends at {radius.max():.1f} arcsec, within level_inner_arcsec = "
            f"{recipe.level_inner_arcsec:g}: the level is the mean of each zone."
        )
    return area


class LevelTerms(NamedTuple):
    """What is fitted to the level of a residual, and where besides the area of the level."""

    terms: NDArray[np.float64]  # (n, n_y, n_x); none for a constant
    arms: NDArray[np.bool_]  # (n_y, n_x), along the boundaries of a mask


def level_terms(
    recipe: SubtractRecipe, info: ExposureInfo, star: StarPosition | None, shape: tuple[int, int], /
) -> LevelTerms:
    """Return what is fitted to the level of a residual.

    A surface, and where the mask has boundaries the light along each of their four arms, which is
    measured nearer to the star than the rest.
    """
    arms = np.zeros(shape, bool)
    order = 0 if recipe.level_surface == AUTO else SURFACES.index(recipe.level_surface) - 1
    if order == 0:
        return LevelTerms(np.empty((0, *shape)), arms)
    terms = [*surface_terms(shape, order=order)]
    if info.coronagraph_value.has_boundaries and star is not None:
        x, y = info.along_mask_arcsec(shape, star)
        for along, across in ((x, y), (y, x)):
            stripe = np.exp(-0.5 * (across / STRIPE_SIGMA_ARCSEC) ** 2)
            terms += [stripe * (along < 0), stripe * (along > 0)]
        arms = np.minimum(np.abs(x), np.abs(y)) < 4.0 * STRIPE_SIGMA_ARCSEC
        arms &= np.hypot(x, y) > ARMS_INNER_ARCSEC
    return LevelTerms(np.array(terms), arms)


def _areas(
    recipe: SubtractRecipe, radius: Array, plane: TangentPlane, labels: NDArray[np.integer] | None
) -> list[Zone]:
    """Divide the frame as a recipe says; `radius` is the separation of each pixel [arcsec]."""
    shape = (radius.shape[0], radius.shape[1])
    if recipe.zones == "full":
        return full_frame(shape)
    if recipe.zones == "map":
        if labels is None:
            raise LyotError("zones is 'map' and no map was given; give one with zone_map.")
        if labels.shape != shape:
            raise LyotError(f"The zone map is {labels.shape} pixels and the frames are {shape}.")
        zones = from_map(labels)
    else:
        edge = min(radius[0].min(), radius[-1].min(), radius[:, 0].min(), radius[:, -1].min())
        inner, outer = recipe.inner_arcsec, recipe.outer_arcsec or edge
        if outer <= inner:
            raise LyotError(
                f"The annuli end at {outer:.2f} arcsec, inside their inner edge of {inner:.2f}; "
                "raise outer_arcsec."
            )
        scale, spacing = plane.pixel_scale_arcsec, recipe.annuli_spacing
        edges = radial_edges(inner / scale, outer / scale, recipe.n_annuli, spacing=spacing)
        zones = annuli(
            radius / scale,
            angle_map(shape, plane.star_yx),
            edges,
            n_sectors=recipe.n_sectors,
            overlap=recipe.sector_overlap,
        )
    if not zones:
        raise LyotError("No zone holds a pixel of the frame.")
    return zones


class Area(NamedTuple):
    """Part of a zone whose pixels may use the same references."""

    zone: int  # number of the zone
    share: NDArray[np.float64]  # of the result that each pixel takes from this area
    allowed: NDArray[np.bool_] | None  # (n_ref,): which references may be used; None for all


def divide_by_rotation(
    zones: list[Zone],
    recipe: SubtractRecipe,
    info: ExposureInfo,
    ref_info: ReferenceInfo | None,
    star: StarPosition | None,
    /,
) -> list[Area]:
    """Divide zones where references that show the target itself have turned too little.

    One area per zone where all may be used. With too small a rotation a source in the reference
    overlaps itself in the target, and is subtracted from itself (self-subtraction).
    """
    undivided = [Area(number, zone.share, None) for number, zone in enumerate(zones)]
    if not recipe.min_rotation_fwhm:
        return undivided
    if ref_info is None or star is None:
        raise LyotError(
            "min_rotation_fwhm needs references with recorded targets and rolls, and the star; "
            "give the psfalign product of a run, or min_rotation_fwhm = 0."
        )
    holds = ref_info.show(info.target)
    if not holds.any():
        return undivided
    turn = np.where(holds, ref_info.pa_y_deg - info.pa_y_deg, 0.0)
    radius = radius_map(zones[0].share.shape, star.yx)
    near = np.zeros((len(holds), *radius.shape), bool)
    for angle in np.unique(turn[holds]):
        moved = displacement_fwhm(radius, angle, info.fwhm_pix)
        near[holds & (turn == angle)] = moved < recipe.min_rotation_fwhm
    patterns, which = np.unique(near.reshape(len(holds), -1), axis=1, return_inverse=True)
    which = which.reshape(radius.shape)
    areas = []
    for number, zone in enumerate(zones):
        for p in range(patterns.shape[1]):
            share = np.where(which == p, zone.share, 0.0)
            if share.any():
                areas.append(Area(number, share, ~patterns[:, p]))
    unreferenced = [a.share > 0 for a in areas if a.allowed is not None and not a.allowed.any()]
    if unreferenced:
        without = np.any(unreferenced, axis=0)
        reach = float(radius[without].max()) * info.pixel_scale_arcsec
        log.warning(
            f"No roll turns a source by {recipe.min_rotation_fwhm:g} FWHM within {reach:.2f} "
            f"arcsec of the star in {info.name}: {without.sum()} pixels have no reference and are "
            "NaN."
        )
    return areas
