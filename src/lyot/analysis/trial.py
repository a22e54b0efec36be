"""Sources put in one after another, and looked for as the search looks for them.

The light of each is added to the flux that the search reads: by the exact response, through the
filters, which are not trained on what stands out and thus not on the source. The peaks, and the
test of a peak against the others of its circle, are those of the search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lyot.algorithms.geometry import east_north
from lyot.analysis.candidate import Tested, Tests
from lyot.analysis.grid import sky_grid
from lyot.analysis.peaks import Place, Relief
from lyot.compute import threads
from lyot.types import Array

NEAR_FWHM = 1.0
"""Distance of a peak from the place of a source up to which it is the source."""
N_STEPS, MAX_NEEDED, UNSEEN_RATIO = 3, 3.0, 1.5
"""Steps towards the flux that is just found, the highest that is tried, and the ratio to the next
where no peak is seen; fluxes are over the one expected."""


@dataclass(frozen=True, eq=False)
class Trials:
    """What the search makes of sources that are put in, each alone."""

    tests: Tests
    relief: Relief

    @classmethod
    def of(cls, tests: Tests) -> Trials:
        """Measure the scatter about which peaks are looked for."""
        tests.maps.prepare()
        grid = sky_grid(tests.maps.observation)
        flux = tests.maps.sample(*grid.polar)[tests.truncation]
        return cls(tests, Relief.of(tests.maps, tests.truncation, flux, grid))

    def found(self, place: Place, tests: Tests, /) -> Tested | None:
        """Return the most significant peak at a place, in the maps of the tests; None without."""
        fwhm = self.relief.maps.observation.fwhm_pix
        half_pix = 2 * int(np.ceil(fwhm)) + 1
        (east, north), near = east_north(*place), []
        for peak in self.relief.about(tests.maps, place, half_pix).peaks(0.0):
            at_east, at_north = east_north(*peak)
            if np.hypot(at_east - east, at_north - north) <= NEAR_FWHM * fwhm:
                near.append(tests.test(peak, {}))
        return max((t for t in near if np.isfinite(t.snr)), key=lambda t: t.snr, default=None)

    def excesses(self, places: Sequence[Place], /) -> Array:
        """Return what sources at places need beyond what the noise there says, ``(n_place,)``.

        Over the flux that stands out at an average place; NaN where none is free.
        """
        return np.array(threads.map_ordered(self._excess, places))

    def _excess(self, place: Place) -> float:
        expected, scale = self.tests.needed(place)
        if not np.isfinite(expected) or not scale > 0:
            return float("nan")
        return (self.needed(place, scale) - expected) / scale

    def needed(self, place: Place, expected: float, /) -> float:
        """Return the flux before the mask from which a source at a place is found.

        By Newton's method: the S/N is nearly linear in the flux. At most `MAX_NEEDED` times the
        expected one.
        """
        tests, flux = self.tests, 1.0
        added = tests.maps.flux_of(*place, flux=expected)
        at, t = tuple(np.array([v]) for v in place), tests.truncation
        lit = tests.maps.with_added(added)
        light = float((lit.sample(*at) - tests.maps.sample(*at))[t, 0])
        if not light > 0:
            return float("nan")
        for _ in range(N_STEPS):
            lit = tests.maps.with_added(added._replace(scale=flux))
            seen = self.found(place, replace(tests, maps=lit))
            if seen is None:
                flux *= UNSEEN_RATIO
                continue
            missing = tests.statistic.threshold(seen.n) - seen.snr
            flux += missing * seen.noise * float(tests.statistic.spread(seen.n)) / light
            flux = float(np.clip(flux, 0.0, MAX_NEEDED))
        return flux * expected
