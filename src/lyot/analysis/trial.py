"""Sources put in one after another, and looked for as the search looks for them.

The light of each is added to the flux that the search reads: by the exact response, through the
filters, which are not trained on what stands out and thus not on the source. The peaks, and the
test of a peak against the others of its circle, are those of the search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lyot.algorithms.geometry import box_about, east_north
from lyot.analysis.candidate import Tested, Tests
from lyot.analysis.peaks import FINE_REACH_PIX, Place, Relief
from lyot.analysis.photometry import AddedFlux
from lyot.compute import threads
from lyot.types import Array

NEAR_FWHM = 1.0
"""Distance of a peak from the place of a source up to which it is the source."""
N_STEPS, MAX_NEEDED, UNSEEN_RATIO = 3, 3.0, 1.5
"""Steps towards the flux that is just found, the highest that is tried, and the ratio to the next
where no peak is seen; fluxes are over the one expected."""
MAX_MOVE_PIX = FINE_REACH_PIX * np.sqrt(2.0)
"""Distance of the highest place of a peak from its pixel."""
TRIALS_AT_ONCE = 18
"""Sources that a thread looks for in the same steps."""


@dataclass(frozen=True, eq=False)
class _Trial:
    """A source that is put in, and the level about it without and with its light."""

    place: Place
    added: AddedFlux
    corner: tuple[int, int]  # of the part of the grid about it
    level: Array  # (n_y, n_x)
    lit: Array  # likewise, what the source adds


@dataclass(frozen=True, eq=False)
class Trials:
    """What the search makes of sources that are put in, each alone."""

    tests: Tests
    relief: Relief

    @classmethod
    def of(cls, tests: Tests) -> Trials:
        """Measure the scatter about which peaks are looked for."""
        tests.maps.prepare()
        return cls(tests, Relief.of(tests.maps, tests.truncation))

    def excesses(self, places: Sequence[Place], /) -> Array:
        """Return what sources at places need beyond what the noise there says, ``(n_place,)``.

        Over the flux that stands out at an average place; NaN where none is free.
        """
        expected, scale = self.tests.needed(places)
        out = np.full(len(places), np.nan)
        free = np.flatnonzero(np.isfinite(expected) & (scale > 0))
        needed = self.needed([places[k] for k in free.tolist()], scale[free])
        out[free] = (needed - expected[free]) / scale[free]
        return out

    def needed(self, places: Sequence[Place], expected: Array, /) -> Array:
        """Return the fluxes before the mask from which sources at places are found.

        By Newton's method: the S/N is nearly linear in the flux. At most `MAX_NEEDED` times the
        expected ones; NaN where a source adds no flux at its place.
        """
        added = self.tests.maps.flux_of(*np.array(places).reshape(-1, 2).T, flux=expected)
        parts = [slice(i, i + TRIALS_AT_ONCE) for i in range(0, len(places), TRIALS_AT_ONCE)]
        found = threads.map_ordered(lambda p: self._ratios(places[p], added[p]), parts)
        return np.concatenate([*found, np.zeros(0)]) * expected

    def _ratios(self, places: Sequence[Place], added: Sequence[AddedFlux]) -> Array:
        """What is needed, over the flux whose light is given."""
        maps, t, statistic = self.tests.maps, self.tests.truncation, self.tests.statistic
        trials = [self._trial(*each) for each in zip(places, added, strict=True)]
        at = maps.placed(*np.array(places).T)
        own = np.array([float(a.at(at.part(slice(k, k + 1)), t)[0]) for k, a in enumerate(added)])
        ratio = np.where(own > 0, 1.0, np.nan)
        for _ in range(N_STEPS):
            for k, seen in enumerate(self._found(trials, ratio)):
                if seen is None:
                    ratio[k] *= UNSEEN_RATIO
                    continue
                missing = statistic.threshold(seen.n) - seen.snr
                ratio[k] += missing * seen.noise * float(statistic.spread(seen.n)) / own[k]
                ratio[k] = np.clip(ratio[k], 0.0, MAX_NEEDED)
        return ratio

    def _trial(self, place: Place, added: AddedFlux) -> _Trial:
        """Take the part of the grid in which the peak of a source is looked for."""
        maps = self.tests.maps
        half_pix = 2 * int(np.ceil(maps.observation.fwhm_pix)) + 1
        n_y, n_x = self.relief.level.shape
        near = box_about(maps.observation.grid.pixel(*place), half_pix, (n_y, n_x))
        lit = added.at(maps.sky.part(*near), self.tests.truncation)
        lit /= self.relief.rings.sigma_at(maps.observation.grid.polar[0][near])
        corner = near[0].start, near[1].start
        return _Trial(place, added, corner, self.relief.level[near], lit)

    def _found(self, trials: Sequence[_Trial], ratio: Array) -> list[Tested | None]:
        """Return the most significant peak at each place, with its source; None without any."""
        relief, grid = self.relief, self.tests.maps.observation.grid
        out: list[Tested | None] = [None] * len(trials)
        near_pix = NEAR_FWHM * self.tests.maps.observation.fwhm_pix
        owners, pixels = list[int](), [np.empty((0, 2), np.intp)]
        for k, (trial, f) in enumerate(zip(trials, ratio, strict=True)):
            highest = relief.maxima(trial.level + f * trial.lit, 0.0) + trial.corner
            apart = np.hypot(*(highest - grid.row_column(*trial.place)).T)
            pixels.append(highest[apart <= near_pix + MAX_MOVE_PIX])
            owners += [k] * len(pixels[-1])
        r, pa = relief.about(np.concatenate(pixels))
        flux = self._flux(trials, owners, [r.shape[1]] * len(r), ratio, r.ravel(), pa.ravel())
        found = zip(owners, relief.highest(flux.reshape(r.shape), r, pa), strict=True)
        near = [(k, peak) for k, peak in found if _apart(peak, trials[k].place) <= near_pix]
        owners, peaks = [k for k, _ in near], [peak for _, peak in near]
        circles = self.tests.circles(peaks, {})
        positions = circles.radii, circles.angles
        flux = self._flux(trials, owners, circles.sizes.tolist(), ratio, *positions)
        for k, tested in zip(owners, self.tests.judged(peaks, {}, circles, flux), strict=True):
            best = out[k]
            if np.isfinite(tested.snr) and (best is None or tested.snr > best.snr):
                out[k] = tested
        return out

    def _flux(
        self,
        trials: Sequence[_Trial],
        owners: Sequence[int],
        sizes: Sequence[int],
        ratio: Array,
        separation_pix: Array,
        pa_deg: Array,
    ) -> Array:
        """The flux at positions, so many for each owner, with the light of its source."""
        t, placed = self.tests.truncation, self.tests.maps.placed(separation_pix, pa_deg)
        flux = self.tests.maps.flux_at(placed)[t]
        for k, end, size in zip(owners, np.cumsum(sizes), sizes, strict=True):
            part = slice(end - size, end)
            flux[part] += ratio[k] * trials[k].added.at(placed.part(part), t)
        return flux


def _apart(place: Place, other: Place) -> float:
    """Distance of two places [pixel]."""
    return float(np.hypot(*np.subtract(east_north(*place), east_north(*other))))
