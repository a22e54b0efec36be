"""The Lyot stops of NIRCam and MIRI, in the coordinates of the telescope's pupil.

A stop keeps the part of the pupil that lies farther than some length from every edge at which the
focal-plane mask leaves light.

NIRCam, round masks: a band-limited mask (Kuchner and Traub 2002, doi:10.1086/339625) spreads the
light of an edge over the support of its Fourier transform; three lengths give the 14 openings and
the throughput of 0.19 of the stop that flies. NIRCam, bars: 14 openings whose corners were read to
0.04 m from the figure of the stop in the documentation of ``webbpsf``. MIRI: the published
throughputs are 0.62 (four-quadrant phase masks) and 0.72 (Lyot spot) (Boccaletti et al. 2015,
PASP 127, 633). Their outlines are not published as numbers. The Lyot spot's stop passes 0.72
where it keeps 0.197 m, 3 % of the pupil, from every edge: the allowance for a shift of the pupil.
The three lengths of the phase masks' stop are those of the stops that pass 0.62 which describe HD
106906 b and the transmission that the observatory's model has in F1140C best; that in F1550C tests
them (tests/realdata). Both are shifted by what was measured in flight (Wright, Sabatke and Telfer
2022, as `stpsf` has it).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lyot.instruments.pupil import (
    depth_in_polygon,
    distance_to_sides,
    inside,
    sample_grid,
    strut_distance,
)
from lyot.instruments.telescope import LyotStop, Pupil
from lyot.types import Array

_LATTICE_M = 1.32
"""Distance between the middles of neighboring segments, and their width between flats [m]."""


@dataclass(frozen=True)
class RoundMaskStop:
    """The stop behind NIRCam's round masks.

    Attributes
    ----------
    outer_m, strut_m, segment_m : float
        What it keeps from the outer edge and the central obscuration, from struts, and from the
        edges of each segment [m].

    Examples
    --------
    >>> from lyot.instruments.pupil import FLIGHT_PUPIL
    >>> from lyot.instruments.stops import RoundMaskStop, throughput
    >>> print(f"{throughput(RoundMaskStop(), FLIGHT_PUPIL):.2f} of the light passes")
    0.19 of the light passes
    """

    outer_m: float = 0.52
    strut_m: float = 0.50
    segment_m: float = 0.20

    def amplitude(self, pupil: Pupil, n: int, /) -> NDArray[np.float64]:
        """Return the open part of each sample on the grid of the pupil, 0 to 1."""
        x, y, step = sample_grid(n, pupil.width_m)
        in_segment = np.max([depth_in_polygon(h, x, y) for h in _lattice()], axis=0)
        depth = np.minimum(in_segment - self.segment_m, strut_distance(x, y) - self.strut_m)
        for starts, ends in _outlines():
            depth = np.minimum(depth, distance_to_sides(starts, ends, x, y) - self.outer_m)
        return inside(depth, step)


# x from, x to, y from, y to [m], the bar along x; those of the first table also at -x.
_BAR_OPENINGS_BOTH_SIDES_M = (
    (0.83, 1.46, 1.58, 1.79),
    (0.79, 1.46, 0.30, 1.11),
    (1.97, 2.63, 0.89, 1.11),
    (1.97, 2.63, -0.43, 0.43),
    (1.97, 2.63, -1.11, -0.89),
)
_BAR_TRAPEZIUM_M = ((1.25, -1.06), (1.46, -1.06), (1.46, -0.30), (0.83, -0.30))
"""The opening whose lower inner corner is cut off, to two thirds of the rectangle."""

_BAR_OPENINGS_M = ((-0.33, 0.29, -1.79, -1.58), (-0.35, 0.31, -2.47, -2.26))


@dataclass(frozen=True)
class BarMaskStop:
    """The stop behind NIRCam's bars.

    Examples
    --------
    >>> from lyot.instruments.pupil import FLIGHT_PUPIL
    >>> from lyot.instruments.stops import BarMaskStop, throughput
    >>> 0.15 < throughput(BarMaskStop(), FLIGHT_PUPIL) < 0.25
    True
    """

    def amplitude(self, pupil: Pupil, n: int, /) -> NDArray[np.float64]:
        """Return the open part of each sample on the grid of the pupil, 0 to 1."""
        x, y, step = sample_grid(n, pupil.width_m)
        right = [_rectangle(*o) for o in _BAR_OPENINGS_BOTH_SIDES_M] + [np.array(_BAR_TRAPEZIUM_M)]
        openings = right + [o * [-1.0, 1.0] for o in right]
        openings += [_rectangle(*o) for o in _BAR_OPENINGS_M]
        return np.sum([inside(depth_in_polygon(o, x, y), step) for o in openings], axis=0)


@dataclass(frozen=True)
class EdgeStop:
    """A stop that keeps a length of its own from each kind of edge.

    Attributes
    ----------
    outer_m, obscuration_m, strut_m : float
        What it keeps from the outer edge, the central obscuration and the struts [m].
    shift_m : tuple of float
        Shift of the stop against the pupil along x and y [m].

    Examples
    --------
    >>> from lyot.instruments.pupil import FLIGHT_PUPIL
    >>> from lyot.instruments.stops import EdgeStop, throughput
    >>> print(f"{throughput(EdgeStop(0.197, 0.197, 0.197), FLIGHT_PUPIL):.2f} of the light passes")
    0.72 of the light passes
    """

    outer_m: float
    obscuration_m: float
    strut_m: float
    shift_m: tuple[float, float] = (0.0, 0.0)

    def amplitude(self, pupil: Pupil, n: int, /) -> NDArray[np.float64]:
        """Return the open part of each sample on the grid of the pupil, 0 to 1."""
        x, y, step = sample_grid(n, pupil.width_m)
        x, y = x - self.shift_m[0], y - self.shift_m[1]
        in_pupil = np.max([depth_in_polygon(h, x, y) for h in _lattice()], axis=0) > -1e-9
        depth = strut_distance(x, y) - self.strut_m
        lengths = self.outer_m, self.obscuration_m
        for (starts, ends), kept in zip(_outlines(), lengths, strict=True):
            from_edge = distance_to_sides(starts, ends, x, y) * np.where(in_pupil, 1.0, -1.0)
            depth = np.minimum(depth, from_edge - kept)
        return inside(depth, step)


ROUND_MASK_STOP = RoundMaskStop()
BAR_MASK_STOP = BarMaskStop()
_MIRI_SHIFT_M = (-0.0068 * 6.603464, 0.0110 * 6.603464)
PHASE_MASK_STOP = EdgeStop(0.25, 0.45, 0.23, _MIRI_SHIFT_M)
LYOT_SPOT_STOP = EdgeStop(0.197, 0.197, 0.197, _MIRI_SHIFT_M)


@lru_cache(maxsize=8)
def sampled(stop: LyotStop, pupil: Pupil, n: int, /) -> NDArray[np.float64]:
    """Return the amplitude of a stop, kept for the next wavefront."""
    open_part = stop.amplitude(pupil, n)
    open_part.flags.writeable = False
    return open_part


@lru_cache(maxsize=16)
def throughput(stop: LyotStop, pupil: Pupil, /, *, n: int = 384) -> float:
    """Return the part of the light in a telescope's pupil that a stop passes without a mask."""
    open_part = pupil.amplitude(n)
    return float(np.sum(open_part * stop.amplitude(pupil, n)) / np.sum(open_part))


def _rectangle(x0: float, x1: float, y0: float, y1: float) -> Array:
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


@lru_cache(maxsize=1)
def _lattice() -> Array:
    """Corners of 18 ideal hexagons that touch: the pupil with its gaps closed, (18, 6, 2) [m]."""
    angles = np.arange(6) * np.pi / 3.0
    corners = np.stack([np.cos(angles), np.sin(angles)], axis=1) * _LATTICE_M / np.sqrt(3.0)
    middles = [
        (_LATTICE_M * np.sqrt(3.0) / 2.0 * q, _LATTICE_M * (r + q / 2.0))
        for q in range(-2, 3)
        for r in range(-2, 3)
        if 0 < max(abs(q), abs(r), abs(q + r)) <= 2
    ]
    return corners[None] + np.array(middles)[:, None]


@lru_cache(maxsize=1)
def _outlines() -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Starts and ends of the sides that no two hexagons share: outer edge, and obscuration."""
    hexagons = _lattice()
    starts = hexagons.reshape(-1, 2)
    ends = np.roll(hexagons, -1, axis=1).reshape(-1, 2)
    middles = 0.5 * (starts + ends)
    apart = np.hypot(*(middles[:, None] - middles[None]).transpose(2, 0, 1))
    alone = np.sum(apart < 1e-6, axis=1) == 1
    central = np.hypot(*middles.T) < _LATTICE_M
    outer, inner = alone & ~central, alone & central
    return (starts[outer], ends[outer]), (starts[inner], ends[inner])
