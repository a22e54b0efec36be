"""The sky on the pixels of an exposure: its WCS about its star."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms.geometry import TangentPlane, tangent_offset
from lyot.errors import LyotError, readable
from lyot.files.headers import ExposureInfo, info_from_model
from lyot.files.star import StarPosition
from lyot.types import Array

log = logging.getLogger(__name__)

N_SAMPLES = 13
"""Pixels per axis at which a WCS is read."""
MAX_MISFIT_ARCSEC = 1e-3
N_NODES, MAX_MAP_MISFIT_PIX = 16, 1e-7
"""Nodes per axis of the polynomial through the way from pixels to pixels; what it may miss by."""


def plane_of(model: Any, star: StarPosition, /) -> TangentPlane:
    """Return the sky about the star of an exposure: by its WCS, else by roll and pixel scale."""
    info = info_from_model(model)
    if not (model.meta.hasattr("wcs") and model.meta.wcs is not None):
        return header_plane(info, star)
    y, x = (np.linspace(-0.5, n - 0.5, N_SAMPLES) for n in info.shape[-2:])
    x, y = places = np.meshgrid(x, y)
    with readable(f"The WCS of {info.name}", "run assign_wcs again"):
        dx, dy = _moved(model.meta.wcs, model.meta.wcsinfo.instance, info)
        wcs = partial(model.meta.wcs, with_bounding_box=False)
        ra, dec = wcs(x + dx, y + dy)
        center = tuple(float(v) for v in wcs(star.x + dx, star.y + dy))
    if not np.isfinite([*ra.ravel(), *dec.ravel(), *center]).all():
        raise LyotError(f"The WCS of {info.name} does not cover its frame; run assign_wcs on it.")
    offsets = tangent_offset(ra, dec, center)
    columns, rows, east, north = (np.ravel(v) for v in (*places, *offsets))
    plane = TangentPlane.through(star.yx, rows, columns, east, north)
    misfit = np.abs(plane.offset(rows, columns) - [east, north]).max()
    if misfit > MAX_MISFIT_ARCSEC:
        log.warning("Positions follow the WCS of %s to %.0f mas.", info.name, 1e3 * misfit)
    return plane


def header_plane(info: ExposureInfo, star: StarPosition, /) -> TangentPlane:
    """Return the sky about a star by the headers alone: square pixels."""
    return TangentPlane.linear(star.yx, info.pa_y_deg, info.pixel_scale_arcsec)


def frame_wcs(wcs: Any, wcsinfo: Mapping[str, Any], info: ExposureInfo, /) -> Any:
    """Return a copy of a WCS, without a bounding box, for the pixels that the frame has now.

    A frame that was cropped or recentered after its WCS was assigned has other pixels. CRPIX moves
    with the frame, RA_REF and DEC_REF are what the WCS says there.
    """
    from astropy.modeling.models import Shift

    dx, dy = _moved(wcs, wcsinfo, info)
    wcs = copy.deepcopy(wcs)
    wcs.bounding_box = None
    if dx or dy:
        wcs.insert_transform(wcs.available_frames[0], Shift(dx) & Shift(dy), after=True)
    return wcs


def _moved(wcs: Any, wcsinfo: Mapping[str, Any], info: ExposureInfo) -> tuple[float, float]:
    """How far the pixels of a frame, x and y, are from those that its WCS was assigned for."""
    ra, dec = wcsinfo.get("ra_ref"), wcsinfo.get("dec_ref")
    if info.crpix_xy is None or ra is None or dec is None:
        return 0.0, 0.0
    moved = pixel_of(wcs, (ra, dec)) - info.crpix_xy
    if not (np.abs(moved) < max(info.shape[-2:])).all():
        log.warning("CRPIX of %s is not on its WCS; its pixels are taken as they are.", info.name)
        return 0.0, 0.0
    return (float(moved[0]), float(moved[1])) if np.abs(moved).max() > 1e-3 else (0.0, 0.0)


def pixel_of(wcs: Any, sky: tuple[float, float], /) -> Array:
    """Return x and y [pixel] of a position on the sky [degree].

    The inverse that a gWCS holds is a fit, good to some hundredths of a pixel; what it makes of its
    own positions corrects it.
    """
    inverse = _inverse_of(wcs)
    first = at = np.array(inverse(*sky), dtype=np.float64)
    for _ in range(2):
        at = at + first - np.array(inverse(*wcs(*at, with_bounding_box=False)))
    return at


def _inverse_of(wcs: Any) -> Callable[..., Any]:
    """Return a function from the sky [degree] to pixels, which `wcs.invert` makes in each call."""
    with suppress(NotImplementedError):
        inverse: Any = wcs.backward_transform
        if not inverse.uses_quantity:
            return inverse
    return partial(wcs.invert, with_bounding_box=False)


def pixel_map(wcs: Any, grid: Any, shape: tuple[int, int], /) -> NDArray[np.float64]:
    r"""Return where the pixels of a frame lie on another grid: ``(n_y, n_x, 2)``, x and y [pixel].

    Optics bend the sky smoothly, so both WCS are asked at 16 x 16 Chebyshev nodes, and the
    polynomial through them at the pixels: with the nodes :math:`u_k` of an axis, the pixel u has

    .. math:: f(u) = \frac{1}{N} \sum_k f(u_k) \left(1 + 2 \sum_{j<N} T_j(u_k)\,T_j(u)\right).

    It is asked at other places as well; where the polynomial misses those, at every pixel.
    """
    inverse = _inverse_of(grid)

    def _exact(y: Array, x: Array) -> Array:
        y, x = np.meshgrid(y, x, indexing="ij")
        return np.stack(inverse(*wcs(x, y, with_bounding_box=False)))

    angles = (np.arange(N_NODES) + 0.5) * np.pi / N_NODES
    nodes = [0.5 * (n - 1 + n * np.cos(angles)) for n in shape]
    tests = [np.linspace(0.0, n - 1.0, N_SAMPLES) for n in shape]
    at_nodes = _exact(*nodes)

    def _polynomial(*places: Array) -> Array:
        ways = []
        for place, n in zip(places, shape, strict=True):
            u = np.arccos((2.0 * place - (n - 1)) / n)
            orders = np.arange(1, N_NODES)[:, None]
            terms = 1.0 + 2.0 * np.cos(orders * u).T @ np.cos(orders * angles)
            ways.append(terms / N_NODES)
        return ways[0] @ at_nodes @ ways[1].T

    pixels = [np.arange(n, dtype=np.float64) for n in shape]
    is_smooth = np.abs(_polynomial(*tests) - _exact(*tests)).max() <= MAX_MAP_MISFIT_PIX
    found = _polynomial(*pixels) if is_smooth else _exact(*pixels)
    return np.ascontiguousarray(np.moveaxis(found, 0, -1))


def turned_to(wcs: Any, there: tuple[float, float], here: tuple[float, float], /) -> Any:
    """Return a copy of a WCS whose sky is moved from one position [degree] to another.

    North stays north there: offsets from the one become the same offsets from the other.
    """
    from astropy.modeling.models import RotateCelestial2Native, RotateNative2Celestial

    wcs = copy.deepcopy(wcs)
    move = RotateCelestial2Native(*there, 180.0) | RotateNative2Celestial(*here, 180.0)
    wcs.insert_transform(wcs.available_frames[-1], move, after=False)
    return wcs
