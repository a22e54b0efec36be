"""Places where the flux stands out from that at their separation.

A search tests them; and the filters of `lyot.analysis.whitening` are not trained on them, since a
source in its own covariance takes a part of its light for noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms.statistics import RingLevels, ring_levels
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
    out = list[Source]()
    for t, flux in enumerate(maps.sky_flux):
        relief = Relief.of(maps, t)
        for place in relief.peaks(MIN_LEVEL):
            found = np.zeros(len(maps.observation.n_modes))
            found[t] = flux[maps.observation.grid.pixel(*place)]
            out.append((*place, found))
    return tuple(out)


@dataclass(frozen=True, eq=False)
class Relief:
    """Flux over its scatter at a separation, on the grid of the sky, and its peaks.

    The scatter is a median absolute deviation, which a bright source does not change.
    """

    maps: FluxMaps
    truncation: int
    rings: RingLevels
    level: Array  # (n_y, n_x)

    @classmethod
    def of(cls, maps: FluxMaps, truncation: int, /) -> Relief:
        """Measure the scatter of the flux of maps."""
        (radius, _), flux = maps.observation.grid.polar, maps.sky_flux[truncation]
        rings = ring_levels(flux, radius, width=maps.observation.fwhm_pix)
        return cls(maps, truncation, rings, rings.over(flux, radius))

    def peaks(self, minimum: Array | float, /) -> list[Place]:
        """Return the highest places about the local maxima that are above a minimum."""
        return self.places(self.maxima(self.level, minimum))

    def places(self, pixels: NDArray[np.intp], /) -> list[Place]:
        """Return the highest places about pixels ``(n, 2)``."""
        if not len(pixels):
            return []
        at = self.about(pixels)
        return self.highest(self.maps.sample(*at)[self.truncation], *at)

    def maxima(self, level: Array, minimum: Array | float, /) -> NDArray[np.intp]:
        """Return rows and columns of the pixels that are the highest about them, ``(n, 2)``."""
        from scipy.ndimage import maximum_filter

        size = 2 * int(np.ceil(self.maps.observation.fwhm_pix)) + 1
        filled = np.where(np.isfinite(level), level, -np.inf)
        is_peak = (filled == maximum_filter(filled, size=size)) & (filled > minimum)
        return np.argwhere(is_peak)

    def about(self, pixels: NDArray[np.intp], /) -> tuple[Array, Array]:
        """Return separation and position angle of the places about pixels, ``(n, n_step)`` each."""
        steps = np.arange(-FINE_REACH_PIX, FINE_REACH_PIX + 1e-9, FINE_STEP_PIX)
        dy, dx = (part.ravel() for part in np.meshgrid(steps, steps, indexing="ij"))
        row, column = (part[:, None] for part in pixels.T)
        return self.maps.observation.grid.place(row + dy, column + dx)

    def highest(self, flux: Array, separation_pix: Array, pa_deg: Array, /) -> list[Place]:
        """Return the place of each row ``(n, n_step)`` where flux over scatter is highest."""
        level = self.rings.over(flux, separation_pix)
        top = np.argmax(np.where(np.isfinite(level), level, -np.inf), axis=1)
        places = zip(separation_pix, pa_deg, top, strict=True)
        return [(float(r[i]), float(pa[i])) for r, pa, i in places]
