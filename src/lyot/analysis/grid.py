"""The grid of the sky on which maps about the star are given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lyot.algorithms.geometry import east_north, polar
from lyot.analysis.observation import Observation
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

    @property
    def polar(self) -> tuple[Array, Array]:
        """Separation [pixel] and position angle [degree] of each pixel."""
        return polar(*self.offsets)

    def pixel(self, separation_pix: float, pa_deg: float, /) -> tuple[int, int]:
        """Return row and column of the pixel nearest to a position."""
        east, north = east_north(separation_pix, pa_deg)
        return self.half_pix + round(float(north)), self.half_pix - round(float(east))


def sky_grid(observation: Observation, /) -> SkyGrid:
    """Return the grid, on the nominal pixel scale, that holds the frames of all exposures."""
    return SkyGrid(
        max(int(np.ceil(exposure.edges_pix.max() - 1e-6)) for exposure in observation.exposures)
    )
