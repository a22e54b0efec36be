"""Places where the flux stands out from that at their separation.

A search tests them; and the filters of `lyot.analysis.whitening` are not trained on them, since a
source in its own covariance takes a part of its light for noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from lyot.algorithms.geometry import polar
from lyot.algorithms.statistics import RingLevels, ring_levels
from lyot.analysis.grid import SkyGrid, sky_grid
from lyot.analysis.observation import Observation
from lyot.analysis.photometry import FluxMaps, Source
from lyot.analysis.statistic import WHITENED
from lyot.types import Array

MIN_LEVEL = 4.0
"""Flux over the scatter at its separation above which a place does not train the filters."""
FINE_STEP_PIX, FINE_REACH_PIX = 0.25, 0.75
"""Grid on which the highest place about a pixel is looked for: whitened images of a source are
narrower than the PSF, which parabolas through pixels do not describe."""
Place = tuple[float, float]
"""Separation [pixel] and position angle [degree]."""


def flux_maps(observation: Observation, flux_by: str = WHITENED, /) -> FluxMaps:
    """Return the maps of an observation, made once: their filters not trained on what stands out.

    What stands out is looked for with filters that are.
    """
    if flux_by not in observation.kept:
        maps = FluxMaps(observation, flux_by)
        if flux_by == WHITENED and (sources := _standing_out(maps)):
            maps = replace(maps, sources=sources)
        observation.kept[flux_by] = maps
    return cast(FluxMaps, observation.kept[flux_by])


def _standing_out(maps: FluxMaps) -> tuple[Source, ...]:
    """The places that stand out with each number of modes."""
    grid, out = sky_grid(maps.observation), list[Source]()
    for t, flux in enumerate(maps.sample(*grid.polar)):
        relief = Relief.of(maps, t, flux, grid)
        for place in relief.peaks(MIN_LEVEL):
            found = np.zeros(len(maps.observation.n_modes))
            found[t] = flux[grid.pixel(*place)]
            out.append((*place, found))
    return tuple(out)


@dataclass(frozen=True, eq=False)
class Relief:
    """Flux over its scatter at a separation, on a grid or a part of one, and its peaks.

    The scatter is a median absolute deviation, which a bright source does not change.
    """

    maps: FluxMaps
    truncation: int
    rings: RingLevels
    grid: SkyGrid
    level: Array  # (n_y, n_x)
    corner: tuple[int, int] = (0, 0)  # of the part on the grid

    @classmethod
    def of(cls, maps: FluxMaps, truncation: int, flux: Array, grid: SkyGrid) -> Relief:
        """Measure the scatter of the flux on a grid, and take it for that of the whole grid."""
        radius, _ = grid.polar
        rings = ring_levels(flux, radius, width=maps.observation.fwhm_pix)
        return cls(maps, truncation, rings, grid, rings.over(flux, radius))

    def about(self, maps: FluxMaps, place: Place, half_pix: int, /) -> Relief:
        """Return the part about a place, of other maps over the same scatter."""
        (y, x), size = self.grid.pixel(*place), self.level.shape
        rows = slice(max(y - half_pix, 0), min(y + half_pix + 1, size[0]))
        columns = slice(max(x - half_pix, 0), min(x + half_pix + 1, size[1]))
        at = polar(*self._offsets(*np.mgrid[rows, columns]))
        return replace(
            self, maps=maps, level=self._at(maps, *at), corner=(rows.start, columns.start)
        )

    def _offsets(self, row: Array, column: Array) -> tuple[Array, Array]:
        """To the east and to the north [pixel]."""
        return self.grid.half_pix - column, row - self.grid.half_pix

    def _at(self, maps: FluxMaps, separation_pix: Array, pa_deg: Array) -> Array:
        flux = maps.sample(separation_pix, pa_deg)[self.truncation]
        return self.rings.over(flux, separation_pix)

    def peaks(self, minimum: Array | float, /) -> list[Place]:
        """Return the highest places about the local maxima that are above a minimum."""
        from scipy.ndimage import maximum_filter

        size = 2 * int(np.ceil(self.maps.observation.fwhm_pix)) + 1
        filled = np.where(np.isfinite(self.level), self.level, -np.inf)
        is_peak = (filled == maximum_filter(filled, size=size)) & (filled > minimum)
        y, x = (part[:, None] for part in np.nonzero(is_peak))
        if not y.size:
            return []
        steps = np.arange(-FINE_REACH_PIX, FINE_REACH_PIX + 1e-9, FINE_STEP_PIX)
        dy, dx = (part.ravel() for part in np.meshgrid(steps, steps, indexing="ij"))
        r, pa_deg = polar(*self._offsets(self.corner[0] + y + dy, self.corner[1] + x + dx))
        level = self._at(self.maps, r, pa_deg)
        top = np.argmax(np.where(np.isfinite(level), level, -np.inf), axis=1)
        return [(float(r[k, i]), float(pa_deg[k, i])) for k, i in enumerate(top)]
