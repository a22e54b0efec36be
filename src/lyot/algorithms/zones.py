"""Search areas: the full frame, annuli, sectors, and maps of the user's."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms.geometry import angle_map, radius_map

SPACINGS = ("constant", "linear", "log")


NO_MAP = np.zeros((0, 0))
"""In place of a map that is the same as another."""


class Zone(NamedTuple):
    """One search area.

    Attributes
    ----------
    weight : ndarray, shape (n_y, n_x)
        Weight with which each pixel counts when the coefficients are fitted, >= 0.
    share : ndarray, shape (n_y, n_x)
        Share of the result that each pixel takes from this zone; the shares of all zones sum
        to 1 where the frame is covered.
    level : ndarray of bool, shape (n_y, n_x)
        True where the level of the result is taken; empty for the zone itself.
    mode_weight : ndarray, shape (n_y, n_x)
        Weight with which each pixel counts when modes are made, where that is another than
        `weight`; else empty.
    """

    weight: NDArray[np.float64]
    share: NDArray[np.float64]
    level: NDArray[np.bool_] = np.zeros((0, 0), bool)
    mode_weight: NDArray[np.float64] = NO_MAP


def full_frame(shape: tuple[int, int], /) -> list[Zone]:
    """Return the whole frame as one zone.

    Parameters
    ----------
    shape : tuple of int
        ``(n_y, n_x)``.

    Returns
    -------
    list of Zone
        One zone with weight 1.
    """
    return [Zone(np.ones(shape), np.ones(shape))]


def radial_edges(
    inner_pix: float, outer_pix: float, n_annuli: int, /, *, spacing: str = "constant"
) -> NDArray[np.float64]:
    """Return the edges of annuli.

    Parameters
    ----------
    inner_pix, outer_pix : float
        Inner edge of the first annulus and outer edge of the last [pixel].
    n_annuli : int
        Number of annuli.
    spacing : {"constant", "linear", "log"}, optional
        Equal widths; widths that grow in proportion to their number; edges in a geometric
        series (the first edge then counts as at least one pixel).

    Returns
    -------
    ndarray, shape (n_annuli + 1,)
        Edges [pixel].

    Raises
    ------
    ValueError
        If the spacing is not known.
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
    shape: tuple[int, int],
    center_yx: tuple[float, float],
    edges_pix: NDArray[np.float64],
    /,
    *,
    n_sectors: int = 1,
    overlap: float = 0.0,
) -> list[Zone]:
    """Divide the frame into annuli and sectors about a center.

    Parameters
    ----------
    shape : tuple of int
        ``(n_y, n_x)``.
    center_yx : tuple of float
        Center [pixel, 0-based].
    edges_pix : ndarray, shape (n + 1,)
        Edges of the annuli [pixel]; what lies outside the last edge joins the last annulus.
    n_sectors : int, optional
        Number of equal sectors of each annulus.
    overlap : float, optional
        Width by which neighboring sectors reach into one another, as a fraction of a sector,
        0 to 0.5. In the overlap the two results are blended linearly.

    Returns
    -------
    list of Zone
        Zones whose shares sum to 1 from the first edge outwards; empty zones are left out.
    """
    radius, angle = radius_map(shape, center_yx), angle_map(shape, center_yx)
    zones = []
    for i, inner in enumerate(edges_pix[:-1]):
        outer = np.inf if i == len(edges_pix) - 2 else edges_pix[i + 1]
        ring = (radius >= inner) & (radius < outer)
        for j in range(n_sectors):
            share = ring * _sector_share(angle, j, n_sectors, overlap)
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
    """Make zones of a label map.

    Parameters
    ----------
    labels : ndarray of int, shape (n_y, n_x)
        Pixels of equal positive label form one zone; zero and less belong to none.

    Returns
    -------
    list of Zone
        One zone per label, in order.
    """
    masks = [(labels == label).astype(np.float64) for label in np.unique(labels) if label > 0]
    return [Zone(mask, mask) for mask in masks]
