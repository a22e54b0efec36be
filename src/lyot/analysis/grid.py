"""The grid of the sky on which maps about the star are given."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from lyot.algorithms.geometry import east_north, polar
from lyot.types import Array


@dataclass(frozen=True, eq=False)
class SkyGrid:
    """A grid of the sky, north up and east to the left, with the star on the middle pixel."""

    half_pix: int  # half its width without the middle pixel

    @property
    def offsets(self) -> tuple[Array, Array]:
        """Offset of each pixel to the east and to the north [pixel]."""
        y, x = np.mgrid[-self.half_pix : self.half_pix + 1, -self.half_pix : self.half_pix + 1]
        return -x.astype(np.float64), y.astype(np.float64)

    @cached_property
    def polar(self) -> tuple[Array, Array]:
        """Separation [pixel] and position angle [degree] of each pixel."""
        return polar(*self.offsets)

    def place(self, row: Array, column: Array, /) -> tuple[Array, Array]:
        """Return separation [pixel] and position angle [degree] of places on the grid."""
        return polar(self.half_pix - column, row - self.half_pix)

    def row_column(self, separation_pix: float, pa_deg: float, /) -> tuple[float, float]:
        """Return row and column of a position."""
        east, north = east_north(separation_pix, pa_deg)
        return self.half_pix + float(north), self.half_pix - float(east)

    def pixel(self, separation_pix: float, pa_deg: float, /) -> tuple[int, int]:
        """Return row and column of the pixel of the grid nearest to a position.

        A peak of its outermost pixels may lie beyond their middles.
        """
        east, north = (round(float(part)) for part in east_north(separation_pix, pa_deg))
        half = self.half_pix
        return half + min(max(north, -half), half), half - min(max(east, -half), half)


@lru_cache(maxsize=2)
def sky_grid(half_pix: int, /) -> SkyGrid:
    """Return a grid, whose separations and angles are computed once."""
    return SkyGrid(half_pix)
