"""Search areas: the full frame, annuli, sectors, and maps of the user's."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.types import Mask

SPACINGS = ("constant", "linear", "log")


NO_MAP, NO_LEVEL = np.zeros((0, 0)), np.zeros((0, 0), bool)
"""In place of a map that is the same as another."""


class Zone(NamedTuple):
    """One search area, by maps ``(n_y, n_x)``; where zones cover, their shares sum to 1."""

    weight: NDArray[np.float64]  # weight of each pixel when the coefficients are fitted, >= 0
    share: NDArray[np.float64]  # share of the result that each pixel takes from this zone
    level: Mask = NO_LEVEL  # where the level of the result is taken; empty for the zone itself
    mode_weight: NDArray[np.float64] = NO_MAP  # weight when modes are made; empty for `weight`


def full_frame(shape: tuple[int, int], /) -> list[Zone]:
    """Return one zone that is the full frame ``(n_y, n_x)``, of weight 1."""
    return [Zone(np.ones(shape), np.ones(shape))]


def radial_edges(
    inner_pix: float, outer_pix: float, n_annuli: int, /, *, spacing: str = "constant"
) -> NDArray[np.float64]:
    """Return the ``n_annuli + 1`` edges of annuli [pixel].

    The spacing is "constant" (equal widths), "linear" (widths that grow in proportion to their
    number) or "log" (a geometric series, whose first edge counts as at least one pixel).
    """
    u = np.linspace(0.0, 1.0, n_annuli + 1)
    if spacing == "constant":
        return inner_pix + (outer_pix - inner_pix) * u
    if spacing == "linear":
        i = np.arange(n_annuli + 1)
        return inner_pix + (outer_pix - inner_pix) * i * (i + 1) / (n_annuli * (n_annuli + 1))
    if spacing == "log":
        edges = np.geomspace(max(inner_pix, 1.0), outer_pix, n_annuli + 1)
        edges[0] = inner_pix
        return edges
    raise ValueError(f"spacing is {spacing!r}; it must be one of {', '.join(SPACINGS)}.")


def annuli(
    radius_pix: NDArray[np.float64],
    angle_deg: NDArray[np.float64],
    edges_pix: NDArray[np.float64],
    /,
    *,
    n_sectors: int = 1,
    overlap: float = 0.0,
) -> list[Zone]:
    """Divide the frame into annuli and equal sectors, by the radius and angle of each pixel.

    What lies outside the last edge joins the last annulus; empty zones are left out. `overlap` is
    the width by which neighboring sectors reach into one another, as a fraction of a sector, 0 to
    0.5; there the two results are blended linearly. The shares sum to 1 from the first edge on.
    """
    zones = []
    for i, inner in enumerate(edges_pix[:-1]):
        outer = np.inf if i == len(edges_pix) - 2 else edges_pix[i + 1]
        ring = (radius_pix >= inner) & (radius_pix < outer)
        for j in range(n_sectors):
            share = ring * _sector_share(angle_deg, j, n_sectors, overlap)
            if share.any():
                zones.append(Zone((share > 0).astype(np.float64), share))
    return zones


def _sector_share(
    angle: NDArray[np.float64], number: int, n_sectors: int, overlap: float
) -> NDArray[np.float64]:
    """Share of sector `number`: 1 inside, falling linearly to 0 across each overlap."""
    if n_sectors == 1:
        return np.ones_like(angle)
    width = 360.0 / n_sectors
    from_middle = np.abs((angle - (number + 0.5) * width + 180.0) % 360.0 - 180.0)
    if overlap == 0.0:
        start = (angle - number * width) % 360.0
        return (start < width).astype(np.float64)
    return np.clip((0.5 * width * (1 + overlap) - from_middle) / (overlap * width), 0.0, 1.0)


def from_map(labels: NDArray[np.integer], /) -> list[Zone]:
    """Make one zone of the pixels of each positive label, in order; others belong to none."""
    masks = [(labels == label).astype(np.float64) for label in np.unique(labels) if label > 0]
    return [Zone(mask, mask) for mask in masks]
