"""Pupils and Lyot stops, on a grid of samples across the pupil."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

ARCSEC_PER_RADIAN = 206264.806247


class Pupil(Protocol):
    """The entrance pupil of a telescope."""

    @property
    def diameter_m(self) -> float:
        """Diameter that lambda/D refers to [m]."""
        ...

    @property
    def width_m(self) -> float:
        """Width of the grid on which the pupil is sampled [m]."""
        ...

    @property
    def segment_centers_m(self) -> tuple[tuple[float, float], ...]:
        """The centers ``(x, y)`` of the mirror's segments [m]; empty for a mirror of one piece."""
        ...

    def __hash__(self) -> int: ...

    def amplitude(self, n: int, /) -> NDArray[np.float64]:
        """Return the amplitude transmission on an ``n x n`` grid over `width_m`, 0 to 1."""
        ...


class LyotStop(Protocol):
    """A stop in the pupil behind a focal-plane mask."""

    def amplitude(self, pupil: Pupil, n: int, /) -> NDArray[np.float64]:
        """Return the amplitude transmission on the grid of the pupil, 0 to 1."""
        ...


@dataclass(frozen=True)
class OpenStop:
    """No stop."""

    def amplitude(self, pupil: Pupil, n: int, /) -> NDArray[np.float64]:
        """Return 1 everywhere."""
        del pupil
        return np.ones((n, n))


OPEN = OpenStop()


@dataclass(frozen=True, kw_only=True)
class SegmentedPupil:
    """Eighteen hexagonal segments in two rings, with a central obscuration and supports.

    Attributes
    ----------
    diameter_m : float
        Diameter that lambda/D refers to [m].
    width_m : float
        Width of the grid on which the pupil is sampled [m].
    flat_to_flat_m, gap_m : float
        Width of a segment, and the gap between two [m].
    secondary_radius_m, support_width_m : float
        Radius of the central obscuration, and width of its supports [m].
    n_supports : int
        Number of supports.

    Examples
    --------
    >>> from lyot.instruments import NIRCAM
    >>> len(NIRCAM.pupil.segment_centers_m)
    18
    """

    diameter_m: float
    width_m: float
    flat_to_flat_m: float
    gap_m: float
    secondary_radius_m: float
    support_width_m: float
    n_supports: int = 3

    @property
    def segment_centers_m(self) -> tuple[tuple[float, float], ...]:
        """The centers ``(x, y)`` of the segments of the two rings [m]."""
        pitch = self.flat_to_flat_m + self.gap_m
        return tuple(
            (pitch * np.sqrt(3) / 2 * q, pitch * (r + q / 2))
            for q in range(-2, 3)
            for r in range(-2, 3)
            if 0 < max(abs(q), abs(r), abs(q + r)) <= 2
        )

    def amplitude(self, n: int, /) -> NDArray[np.float64]:
        """Return the amplitude transmission on an ``n x n`` grid over `width_m`, 0 to 1."""
        return _segments(self, n, 1.0)


@dataclass(frozen=True, kw_only=True)
class UndersizedSegments:
    """A stop that passes a smaller copy of each segment of a segmented pupil.

    Attributes
    ----------
    undersize : float
        Factor on the size of each segment, below 1.

    Examples
    --------
    >>> from lyot.instruments import NIRCAM
    >>> stop = UndersizedSegments(undersize=0.86).amplitude(NIRCAM.pupil, 64)
    >>> bool(stop.sum() < NIRCAM.pupil.amplitude(64).sum())
    True
    """

    undersize: float

    def amplitude(self, pupil: Pupil, n: int, /) -> NDArray[np.float64]:
        """Return the amplitude transmission on the grid of the pupil, 0 to 1."""
        if not isinstance(pupil, SegmentedPupil):
            raise TypeError(f"UndersizedSegments needs a SegmentedPupil, not {pupil!r}.")
        return _segments(pupil, n, self.undersize)


@lru_cache(maxsize=8)
def _segments(pupil: SegmentedPupil, n: int, undersize: float) -> NDArray[np.float64]:
    """Draw the segments by `poppy` (Perrin et al. 2012, doi:10.1117/12.925230)."""
    import poppy

    side = pupil.flat_to_flat_m / np.sqrt(3.0)
    parts = [
        poppy.MultiHexagonAperture(
            side=side * undersize,
            gap=pupil.gap_m + pupil.flat_to_flat_m * (1.0 - undersize),
            rings=2,
        ),
        # Supports grow with the square, so that the stop also covers the light that they diffract.
        poppy.SecondaryObscuration(
            secondary_radius=pupil.secondary_radius_m,
            n_supports=pupil.n_supports,
            support_width=pupil.support_width_m / undersize**2,
            support_angle_offset=0.0,
        ),
    ]
    optic = poppy.CompoundAnalyticOptic(parts)
    return np.asarray(optic.sample(npix=n, grid_size=pupil.width_m, what="amplitude"))
