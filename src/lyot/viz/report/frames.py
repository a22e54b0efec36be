"""Images of the report that can be explored: frames, and the viewer that steps through them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lyot.algorithms.geometry import TangentPlane, east_north
from lyot.files.star import StarPosition
from lyot.files.view import View
from lyot.types import Array
from lyot.viz.report.blocks import Block, in_base64
from lyot.viz.style import stretch_of

CROP_ARCSEC = 4.0
"""Where there are many frames, they are cropped to this offset from the star [arcsec]."""
MARK_RADIUS_PIX = 4.0
"""Radius of the circle about a candidate."""


@dataclass(frozen=True, eq=False)
class Frame:
    """An image in a viewer."""

    name: str
    data: Array
    """Values, shape (n_y, n_x); NaN is drawn blank."""
    unit: str
    star: StarPosition | None
    pa_y_deg: float | None
    pixel_scale_arcsec: float
    origin_xy: tuple[int, int] = (0, 0)
    """Pixel of the product at which the frame begins."""
    limits: tuple[float, float] | None = None
    """Values drawn black and white; by default those that suit the data."""
    marks: list[dict[str, Any]] = field(default_factory=list)
    """Circles: ``x``, ``y``, ``r`` [pixel] and ``text``."""
    to_sky: Array | None = None
    """Of the `lyot.algorithms.geometry.TangentPlane` of an exposure; None for square pixels."""
    star_radec: tuple[float, float] | None = None
    """Right ascension and declination of the star [degree]."""

    def to_json(self) -> dict[str, Any]:
        """Return the plain values that viewer.js reads."""
        data = np.asarray(self.data, dtype=np.float64)
        low, high, soft = stretch_of(data)
        low, high = self.limits or (low, high)
        largest = float(np.nanmax(np.abs(data))) if np.isfinite(data).any() else 1.0
        scale = max(largest / 2048.0, 1e-30)  # three digits in 16 bits
        x0, y0 = self.origin_xy
        return {
            "name": self.name,
            "unit": self.unit,
            "width": data.shape[1],
            "height": data.shape[0],
            "scale": scale,
            "data": in_base64((data / scale).astype("<f2").tobytes()),
            "star": None if self.star is None else [self.star.x - x0, self.star.y - y0],
            "pa_y": self.pa_y_deg,
            "arcsec": self.pixel_scale_arcsec,
            "sky": None if self.to_sky is None else np.asarray(self.to_sky).tolist(),
            "radec": self.star_radec,
            "x0": x0,
            "y0": y0,
            "range": [low, high],
            "soft": soft,
            "marks": self.marks,
        }

    @property
    def size(self) -> int:
        """Number of characters that the values take in the page."""
        return int(np.ceil(np.size(self.data) * 2 * 4 / 3))


@dataclass(frozen=True, eq=False)
class Viewer(Block):
    """An interactive image: frames to choose from along one axis or several."""

    title: str
    axes: list[tuple[str, list[str]]]
    """Name of each axis, and of the choices along it."""
    frames: list[Frame]
    """In the order of the choices; the last axis varies first."""
    start: tuple[int, ...]
    """Choice along each axis at the beginning."""
    caption: str
    north_up: bool = False
    """Whether north is up at the beginning."""
    is_compact: bool = False
    """Whether it is shown without controls; keys, wheel and pointer work."""

    def to_json(self) -> dict[str, Any]:
        """Return the plain values that viewer.js reads."""
        return {
            "north": self.north_up,
            "axes": [
                {"title": title, "names": names, "start": start}
                for (title, names), start in zip(self.axes, self.start, strict=True)
            ],
            "frames": [frame.to_json() for frame in self.frames],
        }


def frame_of(
    like: View,
    known: TangentPlane | None,
    data: Array,
    name: str,
    candidates: Any,
    *,
    crop: bool,
) -> Frame:
    """A frame with the star and sky of a product, whole or cropped about the star."""
    star, scale = like.star, like.info.pixel_scale_arcsec
    origin, plane, own = (0, 0), None, False
    if star is not None:
        own = known is not None and known.star_yx == star.yx
        if own:
            plane = known
        elif like.pa_y_deg is not None:
            plane = TangentPlane.linear(star.yx, like.pa_y_deg, scale)
        if crop:
            half = round(CROP_ARCSEC / scale)
            x0, y0 = max(round(star.x) - half, 0), max(round(star.y) - half, 0)
            data = data[y0 : round(star.y) + half + 1, x0 : round(star.x) + half + 1]
            origin = (x0, y0)
    return Frame(
        name,
        data,
        "MJy/sr",
        star,
        like.pa_y_deg,
        scale,
        origin,
        marks=[] if plane is None or candidates is None else circles(candidates, plane, origin),
        to_sky=plane.to_sky if own and plane is not None else None,
        star_radec=like.target_radec,
    )


def circles(
    candidates: Any, plane: TangentPlane, origin_xy: tuple[int, int] = (0, 0)
) -> list[dict[str, Any]]:
    """A circle for each candidate and each known source, named as in their tables."""
    known = np.reshape(known_places(candidates), (-1, 2)).T
    columns = ("separation", "position_angle")
    both = [np.append(np.asarray(candidates[n]), k) for n, k in zip(columns, known, strict=True)]
    names = [*range(1, len(candidates) + 1), *(f"K{k + 1}" for k in range(known.shape[1]))]
    places = plane.pixel(*east_north(*both)) - np.reshape(origin_xy[::-1], (2, 1))
    return [
        {"x": float(x), "y": float(y), "r": MARK_RADIUS_PIX, "text": str(name)}
        for name, (y, x) in zip(names, places.T, strict=True)
    ]


def known_places(candidates: Any, /) -> list[list[float]]:
    """Separation [arcsec] and position angle [degree] of the sources that the search knew."""
    places: list[list[float]] = candidates.meta.get("lyot", {}).get("known_sources", [])
    return places
