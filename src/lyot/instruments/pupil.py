"""The telescope's pupil as geometry: 18 segments, the gaps between them, three struts.

Lengths are meters in the entrance pupil, +x along V2 and +y along V3. The corners of the segments
are those of Lightsey's "2010.03.16 Transmission X Area Budget" (Ball drawing 2220169 Rev B), as
`stpsf.constants` lists them: three hexagons, each turned six times by 60 degrees. The outlines of
the struts, with the hinges and dampers that are wider than they, were read to 2 mm from the pupil
measured in flight (``jwst_pupil_flight_npix1024.fits``, programme 1155).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lyot.types import Array

# fmt: off
_CORNERS_M = (
    # Segments A1, B1 and C1: the inner ring, the outer ring on the axes, the outer ring between.
    ((-0.381010, 0.667604), (-0.758826, 1.321999), (-0.381010, 1.976407), (0.381010, 1.976407),
     (0.758826, 1.321999), (0.381010, 0.667604)),
    ((0.381010, 3.279674), (0.758826, 2.631791), (0.381010, 1.984020), (-0.381010, 1.984020),
     (-0.758826, 2.631791), (-0.381010, 3.279674)),
    ((0.765201, 2.627516), (1.517956, 2.629178), (1.892896, 1.976441), (1.521076, 1.325812),
     (0.765454, 1.325807), (0.387649, 1.980196)),
)

# Each strut: its angle [degree, from +x], and its half-widths to the right and to the left of it,
# looking outwards, as (distance from the center, half-width) between which they are straight.
_PLAIN_V3, _PLAIN = 0.0552, 0.0605
_STRUTS_M = (
    (90.0,
     ((2.035, _PLAIN_V3), (2.235, 0.0812), (2.296, 0.0812), (2.312, 0.0770), (2.344, 0.0769),
      (2.364, 0.0818), (2.409, 0.0848), (2.473, 0.0813), (2.499, 0.0817), (2.512, 0.0847),
      (2.551, 0.0819), (2.564, 0.0777), (2.586, 0.0580), (2.596, _PLAIN_V3)),
     ((2.080, _PLAIN_V3), (2.235, 0.0723), (2.273, 0.0695), (2.351, 0.0699), (2.409, 0.0846),
      (2.490, 0.0813), (2.512, 0.0847), (2.557, 0.0801), (2.567, 0.0755), (2.586, 0.0580),
      (2.596, _PLAIN_V3))),
    (-60.0,
     ((0.752, 0.0614), (0.806, 0.0701), (0.832, 0.0686), (0.877, _PLAIN), (1.600, _PLAIN),
      (1.616, 0.0632), (1.703, 0.0874), (1.780, 0.1029), (1.864, 0.1138), (1.935, 0.1170),
      (2.003, 0.1123), (2.064, 0.0967), (2.086, 0.0862), (2.093, 0.0769), (2.099, _PLAIN)),
     ((0.748, _PLAIN), (0.794, 0.0693), (0.816, 0.0702), (0.852, 0.0655), (0.864, _PLAIN),
      (1.767, _PLAIN), (1.870, 0.0732), (1.916, 0.0758), (1.987, 0.0731), (2.051, _PLAIN))),
    (-120.0,
     ((0.748, _PLAIN), (0.794, 0.0693), (0.816, 0.0702), (0.848, 0.0661), (0.864, _PLAIN),
      (1.703, _PLAIN), (1.787, 0.0755), (1.858, 0.0800), (1.954, 0.0756), (2.038, _PLAIN)),
     ((0.752, 0.0614), (0.777, 0.0670), (0.810, 0.0701), (0.832, 0.0686), (0.877, _PLAIN),
      (1.625, _PLAIN), (1.638, 0.0618), (1.671, 0.0767), (1.696, 0.0847), (1.738, 0.0941),
      (1.806, 0.1029), (1.874, 0.1054), (1.935, 0.1028), (2.009, 0.0926), (2.067, 0.0769),
      (2.080, 0.0652), (2.090, _PLAIN))),
)
# fmt: on


@dataclass(frozen=True)
class FlightPupil:
    """The pupil of JWST as it flies.

    Attributes
    ----------
    diameter_m : float
        Diameter that lambda/D refers to [m].
    width_m : float
        Width of the grid on which the pupil is sampled [m]: the circle around it.

    Examples
    --------
    >>> from lyot.instruments.pupil import FLIGHT_PUPIL
    >>> area = FLIGHT_PUPIL.amplitude(256).sum() * (FLIGHT_PUPIL.width_m / 256) ** 2
    >>> print(f"{area:.1f} square meters")
    25.8 square meters
    """

    diameter_m: float = 6.5
    width_m: float = 6.603464

    def amplitude(self, n: int, /) -> NDArray[np.float64]:
        """Return the open part of each of ``n x n`` samples, 0 to 1.

        Segment gaps of 8 mm and the edges of struts keep their area however coarse the sampling
        is. First axis along V3, second along V2.
        """
        return _sampled(n, self.width_m)


FLIGHT_PUPIL = FlightPupil()


@lru_cache(maxsize=4)
def _sampled(n: int, width: float) -> NDArray[np.float64]:
    x, y, step = sample_grid(n, width)
    segments = np.sum(segment_maps(n, width), axis=0)
    open_part = np.asarray(segments * inside(strut_distance(x, y), step))
    open_part.setflags(write=False)
    return open_part


@lru_cache(maxsize=1)
def segment_corners() -> Array:
    """Return the corners of the segments A1-6, B1-6, C1-6 [m], of shape (18, 6, 2)."""
    turned = []
    for corners in _CORNERS_M:
        for k in range(6):
            cos, sin = np.cos(k * np.pi / 3.0), np.sin(k * np.pi / 3.0)
            # Clockwise, as the segments are numbered.
            turned.append(np.asarray(corners) @ np.array([[cos, -sin], [sin, cos]]))
    return np.array(turned)


def sample_grid(n: int, width: float, /) -> tuple[Array, Array, float]:
    """Return x as a row and y as a column of ``n`` samples across a width, and their step [m]."""
    axis = (np.arange(n) - 0.5 * (n - 1)) * (width / n)
    return axis[None, :], axis[:, None], width / n


def segment_maps(n: int, width: float, /) -> list[Array]:
    """Sample each of the 18 segments alone, without struts."""
    x, y, step = sample_grid(n, width)
    return [inside(depth_in_polygon(corners, x, y), step) for corners in segment_corners()]


def inside(depth: Array, step: float) -> Array:
    """Return the part of square samples that lies inside an edge, by the depth of their middle."""
    return np.clip(0.5 + depth / step, 0.0, 1.0)


def depth_in_polygon(corners: Array, x: Array, y: Array) -> Array:
    """Return the distance to the nearest side of a convex polygon, negative outside [m]."""
    middle = corners.mean(axis=0)
    depth: Array = np.full(np.broadcast(x, y).shape, np.inf)
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        along = end - start
        normal = np.array([-along[1], along[0]]) / np.hypot(*along)
        if normal @ (middle - start) < 0.0:
            normal = -normal
        np.minimum(depth, normal[0] * (x - start[0]) + normal[1] * (y - start[1]), out=depth)
    return depth


def strut_distance(x: Array, y: Array) -> Array:
    """Return the distance from the edge of the nearest strut, negative on it [m]."""
    nearest: Array = np.full(np.broadcast(x, y).shape, np.inf)
    for angle, right, left in _STRUTS_M:
        cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        outwards, aside = cos * x + sin * y, sin * x - cos * y
        for side, knots in ((1.0, right), (-1.0, left)):
            at, half_width = np.transpose(knots)
            from_edge = side * aside - np.interp(outwards, at, half_width)
            # Behind the center, what is nearest is the strut's foot.
            from_edge = np.where(outwards < 0.0, np.hypot(x, y), from_edge)
            on_this_side = side * aside >= 0.0
            np.minimum(nearest, np.where(on_this_side, from_edge, np.inf), out=nearest)
    return nearest


def distance_to_sides(starts: Array, ends: Array, x: Array, y: Array) -> Array:
    """Return the distance from each point to the nearest of some straight pieces [m]."""
    nearest: Array = np.full(np.broadcast(x, y).shape, np.inf)
    for (x0, y0), (x1, y1) in zip(starts, ends, strict=True):
        dx, dy = x1 - x0, y1 - y0
        part = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0.0, 1.0)
        squared = (x - x0 - part * dx) ** 2 + (y - y0 - part * dy) ** 2
        np.minimum(nearest, squared, out=nearest)
    return np.sqrt(nearest)
