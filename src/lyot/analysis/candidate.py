"""Candidates: how a place is tested, and what speaks against a source there.

A place of high S/N may be a point source, an extended one, a residue at an edge, something in the
frames of one roll, or a source in the frames of one reference star: each is looked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms.statistics import n_positions
from lyot.analysis.exposure import SubtractedExposure
from lyot.analysis.noise import FoundSource, KnownSource, KnownSources
from lyot.analysis.observation import Observation
from lyot.analysis.peaks import Place
from lyot.analysis.photometry import FluxMaps
from lyot.analysis.statistic import APERTURE, MIN_POSITIONS, Statistic
from lyot.analysis.table import FLUX_UNIT, column
from lyot.types import Array

MAX_REFERENCE_STARS = 8
"""Reference stars that are left out one after another."""
LIGHT_ERROR = 0.3
"""Part of the light of a brighter source beside it that is not known: its PSF is a model."""
WIDE_FWHM = 2.5
"""Diameter of the wide aperture, in which light beside the core of a PSF is looked for."""
EXTENT_ERROR = 0.07
"""Of the extent, by the unknown wavefront: what draws differ by (tests/analysis/test_candidate.py).
"""
MAX_SIGMA = 3.0
"""Deviation, in standard errors, up to which a candidate agrees with a point, or rolls agree."""
EDGE_FWHM, MIN_GOOD_SHARE = 3.0, 0.9
"""Radius about a candidate, and the share of good pixels within it: less is an edge."""
SAME_ROLL_DEG = 1.0
MAX_FLUX_KEPT = 0.5
"""Share of the flux that is kept without a reference star, below which a candidate rests on it."""
POINT, EXTENDED, NARROW = "point", "extended", "narrow"
RESTS_ON = "rests on reference star"


class Tested(NamedTuple):
    """S/N of a place, the number of positions with it, its flux as measured, and the noise."""

    snr: float
    n: int
    flux: float
    noise: float


@dataclass(frozen=True)
class Candidate:
    """A position whose flux stands out from the noise at its separation.

    Attributes
    ----------
    separation_arcsec, pa_deg : float
        Where it is [arcsec], [degree east of north].
    snr : float
        The statistic t against the other positions at its separation, the candidate's own light
        taken off them.
    fpf : float
        Probability that noise alone gives this S/N at one position. It rests on the shape of the
        noise's tail: below 1e-6 tables and reports give no number.
    false_alarms : float
        Expected number of such positions on the whole image.
    flux : float
        Flux, corrected for throughput and transmission [MJy/sr times pixel].
    contrast : float
        Flux over that of the star; NaN where its brightness is unknown.
    is_known : bool
        Whether it lies on a known source or disc.
    extent, extent_err : float
        Flux in an aperture of 2.5 FWHM over that in one of 1 FWHM, each over that of the PSF, and
        its error: 1 for a point.
    kind : str
        "point", "extended" or "narrow" (than the PSF, such as a bad pixel); empty where the noise
        does not tell.
    notes : str
        What speaks against it: "near an edge", "one roll only", "rests on reference star NAME".
    jackknife_snr : float
        The lowest S/N when one reference star is left out; NaN where there is only one star.
    key_reference : str
        That star.

    Examples
    --------
    >>> candidate = Candidate(1.1, 205.0, 8.2, 1e-9, 1e-6, 177.0, 3e-5, False, 1.02, 0.1)
    >>> candidate.false_alarms < 0.01
    True
    """

    separation_arcsec: float = column("separation", "arcsec")
    pa_deg: float = column("position_angle", "deg")
    snr: float = column("snr")
    fpf: float = column("false_positive_fraction")
    false_alarms: float = column("expected_false_alarms")
    flux: float = column("flux", FLUX_UNIT)
    contrast: float = column("contrast")
    is_known: bool = column("known")
    extent: float = column("extent", default=float("nan"))
    extent_err: float = column("extent_err", default=float("nan"))
    kind: str = column("kind", default="")
    notes: str = column("notes", default="")
    jackknife_snr: float = column("jackknife_snr", default=float("nan"))
    key_reference: str = column("key_reference", default="")

    @property
    def can_be_measured(self) -> bool:
        """Whether it is a point that does not rest on one reference star."""
        return self.kind == POINT and RESTS_ON not in self.notes


class Circles(NamedTuple):
    """The positions that places are compared with, one circle after another, the places first."""

    starts: NDArray[np.intp]  # (n_place,)
    sizes: NDArray[np.intp]
    radii: Array  # (n,), separations [pixel]
    angles: Array  # position angles [degree]
    used: NDArray[np.bool_]  # False for the places, and on sources

    @property
    def slices(self) -> list[slice]:
        """Where each circle is."""
        return [slice(a, a + n) for a, n in zip(self.starts, self.sizes, strict=True)]


@dataclass(frozen=True, eq=False)
class Tests:
    """The tests of places in one observation, with one number of modes."""

    maps: FluxMaps
    truncation: int
    statistic: Statistic
    known_sources: KnownSources

    def source(self, place: Place, tested: Tested, /) -> FoundSource:
        """Return the source at a place that was tested."""
        scale = self.maps.observation.pixel_scale_arcsec
        where = (place[0] * scale, place[1])
        return FoundSource(*where, tested.flux, tested.noise, self.maps, self.truncation)

    def circles(self, places: Sequence[Place], found: Mapping[Place, Tested], /) -> Circles:
        """Return the circles of places; known sources and those found are no other positions."""
        observation = self.maps.observation
        fwhm, scale = observation.fwhm_pix, observation.pixel_scale_arcsec
        at = np.array(places).reshape(-1, 2)
        sizes = np.array([max(n_positions(r / fwhm), 1) for r in at[:, 0]], np.intp)
        starts = np.cumsum(sizes) - sizes
        radii, angles = np.repeat(at, sizes, axis=0).T
        angles = angles + 360.0 * (np.arange(len(radii)) - np.repeat(starts, sizes)) / np.repeat(
            sizes, sizes
        )
        used = np.ones(len(radii), bool)
        used[starts] = False
        for known in self.known_sources:
            used &= ~known.covers(radii * scale, angles, fwhm * scale)
        circle_of = np.repeat(np.arange(len(places)), sizes)
        for place, tested in found.items():
            covered = self.source(place, tested).covers(radii * scale, angles, fwhm * scale)
            own = np.array([other == place for other in places], bool)
            used &= ~covered | own[circle_of]
        return Circles(starts, sizes, radii, angles, used)

    def test(self, places: Sequence[Place], found: Mapping[Place, Tested], /) -> list[Tested]:
        """Test places each against the others of its circle, without its own light in them.

        Others that were found are excluded from the noise. The light of brighter ones is taken
        off the place; what is not known of it counts as noise.
        """
        circles = self.circles(places, found)
        flux = self.maps.sample(circles.radii, circles.angles)[self.truncation]
        return self.judged(places, found, circles, flux)

    def judged(
        self,
        places: Sequence[Place],
        found: Mapping[Place, Tested],
        circles: Circles,
        flux: Array,
        /,
    ) -> list[Tested]:
        """Test places as `test` does, by the flux measured on their circles."""
        maps, t = self.maps, self.truncation
        first = flux[circles.starts]
        lobes, unknown = np.zeros((2, len(places)))
        pairs = [
            (k, other)
            for k, place in enumerate(places)
            for other, tested in found.items()
            if other != place and tested.flux > first[k]
        ]
        if pairs:
            at = np.array([places[k] for k, _ in pairs]).T
            crosstalk = maps.crosstalk([other for _, other in pairs], [1] * len(pairs), *at)[t]
            for (k, other), share in zip(pairs, crosstalk, strict=True):
                light = found[other].flux * float(share)
                lobes[k], unknown[k] = lobes[k] + light, unknown[k] + abs(LIGHT_ERROR * light)
        # The others keep it, as those of a limit do.
        first = first - lobes
        own = maps.crosstalk(places, circles.sizes.tolist(), circles.radii, circles.angles)[t]
        out = []
        for k, part in enumerate(circles.slices):
            used = circles.used[part] & np.isfinite(flux[part])
            others, m = flux[part][used] - own[part][used] * first[k], int(used.sum())
            snr = scatter = float("nan")
            if m + 1 >= MIN_POSITIONS:
                scatter = float(others.std(ddof=1))
                error = np.hypot(scatter * float(self.statistic.spread(m + 1)), unknown[k])
                snr = float((first[k] - others.mean()) / error)
            out.append(Tested(snr, m + 1, float(first[k]), scatter))
        return out

    def needed(self, places: Sequence[Place], /) -> tuple[Array, Array]:
        """Return the flux before the mask that sources need at places by the noise alone.

        As `lyot.analysis.noise.NoiseRings.needed`; and what they need at an average place. NaN
        where a place is on a known source, or untested.
        """
        circles, fwhm = self.circles(places, {}), self.maps.observation.fwhm_pix
        flux = self.maps.sample(circles.radii, circles.angles)[self.truncation]
        r, pa = np.array(places).reshape(-1, 2).T
        scale = self.maps.observation.pixel_scale_arcsec
        through = self.maps.throughput(r, pa)[0, self.truncation]
        for known in self.known_sources:
            through[known.covers(r * scale, pa, fwhm * scale)] = np.nan
        expected, average = np.full((2, len(places)), np.nan)
        for k, part in enumerate(circles.slices):
            used = circles.used[part] & np.isfinite(flux[part])
            others, m = flux[part][used], int(used.sum())
            if m + 1 >= MIN_POSITIONS:
                tau, scatter = self.statistic.tau(m + 1), float(others.std(ddof=1))
                need = float(others.mean() - flux[part][0]) + (tau - 1.0 / tau) * scatter
                expected[k], average[k] = need / through[k], tau * scatter / through[k]
        return expected, average

    def significant(
        self, places: Sequence[Place], found: Mapping[Place, Tested], /
    ) -> dict[Place, Tested]:
        """Return the places above the threshold, with those found before reckoned with."""
        tested = zip(places, self.test(places, found), strict=True)
        threshold = self.statistic.threshold
        return {place: t for place, t in tested if t.snr > threshold(t.n)}

    def described(
        self, candidate: Candidate, place: Place, found: Mapping[Place, Tested], /
    ) -> Candidate:
        """Say of a candidate whether it is a point, and what speaks against it."""
        extent, error = self.extent(place, found)
        kind = ""
        if abs(extent - 1.0) > MAX_SIGMA * error:
            kind = EXTENDED if extent > 1.0 else NARROW
        elif MAX_SIGMA * error < 1.0:  # twice the light would be seen
            kind = POINT
        notes = []
        if any(map(_is_cut, *self._seen_at(place))):
            notes.append("near an edge")
        if self.is_on_one_roll(place, found):
            notes.append("one roll only")
        return replace(
            candidate, extent=extent, extent_err=error, kind=kind, notes="; ".join(notes)
        )

    @cached_property
    def _apertures(self) -> tuple[FluxMaps, FluxMaps]:
        observation = self.maps.observation
        return FluxMaps(observation, APERTURE), FluxMaps(observation, APERTURE, WIDE_FWHM)

    def extent(self, place: Place, found: Mapping[Place, Tested], /) -> tuple[float, float]:
        """Compare the flux in two apertures, each over that of a point there; with its error.

        1 for a point, more for an extended source; the error holds the noise of the other positions
        and the unknown wavefront.
        """
        _, _, radii, angles, used = self.circles([place], found)
        used = used & np.isfinite(self.maps.sample(radii, angles)[self.truncation])
        scale, fwhm = self.maps.observation.pixel_scale_arcsec, self.maps.observation.fwhm_pix
        own = KnownSource(place[0] * scale, place[1], (0.5 * WIDE_FWHM + 1.0) * fwhm * scale)
        for source in (own, self.source(place, found[place])):
            used &= ~source.covers(radii * scale, angles, fwhm * scale)
        fluxes = []
        for maps in self._apertures:
            through = maps.throughput(*place, flux=found[place].flux)[1]
            fluxes.append(maps.sample(radii, angles)[self.truncation] / through[self.truncation])
        core, wide = fluxes
        used &= np.isfinite(core) & np.isfinite(wide)
        m = int(used.sum())
        if m + 1 < MIN_POSITIONS:
            return float("nan"), float("nan")
        flux = float(core[0] - core[used].mean())
        beside = wide - core
        noise = float(beside[used].std(ddof=1) * self.statistic.spread(m + 1)) / abs(flux)
        extent = 1.0 + float(beside[0] - beside[used].mean()) / flux
        return extent, float(np.hypot(noise, EXTENT_ERROR))

    def _weights(self, place: Place) -> Array:
        """The weight of each exposure at a place."""
        return self.maps.placed(*np.array([place]).T).weight[:, 0]

    def _seen_at(
        self, place: Place
    ) -> tuple[list[SubtractedExposure], list[tuple[float, float]], list[float]]:
        """The exposures that see a place, where on them it is, and the radius of an edge."""
        observation = self.maps.observation
        weights = self._weights(place)
        seen = [e for e, weight in zip(observation.exposures, weights, strict=True) if weight > 0]
        at = [(float(y), float(x)) for y, x in (e.position(*place) for e in seen)]
        return seen, at, [EDGE_FWHM * observation.fwhm_pix] * len(seen)

    def is_on_one_roll(self, place: Place, found: Mapping[Place, Tested], /) -> bool:
        """Whether one roll alone sees a place, or the others contradict its flux there."""
        weights = self._weights(place)
        rolls = [[e for e in roll if weights[e] > 0] for roll in _rolls(self.maps.observation)]
        rolls = [roll for roll in rolls if roll]
        if len(rolls) < 2:
            return True
        each = [self._of(roll).test([place], found)[0] for roll in rolls]
        best = int(np.argmax([tested.flux for tested in each]))
        others = [e for k, roll in enumerate(rolls) for e in roll if k != best]
        [rest] = self._of(others).test([place], found)
        error = np.hypot(each[best].noise, rest.noise)
        contradict = each[best].flux - rest.flux > MAX_SIGMA * error
        return bool(contradict and not rest.snr > MAX_SIGMA)

    def _of(self, exposures: list[int]) -> Tests:
        return replace(self, maps=self.maps.only(exposures))


def _is_cut(exposure: SubtractedExposure, at: tuple[float, float], radius_pix: float) -> bool:
    """Whether pixels about a place are bad, or beyond the frame."""
    n = int(np.ceil(radius_pix))
    y, x = np.mgrid[-n : n + 1, -n : n + 1]
    near = np.hypot(y, x) <= radius_pix
    rows, columns = (y + round(at[0]))[near], (x + round(at[1]))[near]
    n_y, n_x = exposure.shape
    inside = (rows >= 0) & (rows < n_y) & (columns >= 0) & (columns < n_x)
    good = np.isfinite(exposure.residual[0, rows[inside], columns[inside]])
    return bool(good.sum() < MIN_GOOD_SHARE * near.sum())


def _rolls(observation: Observation) -> Iterator[list[int]]:
    """Exposures of about the same position angle."""
    angles = np.array([e.target.info.pa_y_deg or 0.0 for e in observation.exposures])
    left = np.ones(len(angles), bool)
    while left.any():
        turn = (angles - angles[left][0] + 180.0) % 360.0 - 180.0
        same = left & (np.abs(turn) < SAME_ROLL_DEG)
        left &= ~same
        yield np.flatnonzero(same).tolist()


def without_each_star(
    tests: Tests, candidates: list[Candidate], found: Mapping[Place, Tested], /
) -> list[Candidate]:
    """Test candidates again without each reference star, of the most weighty ones."""
    observation = tests.maps.observation
    stars = _weightiest_stars(observation)
    if not candidates or len(stars) < 2:
        return candidates
    again: dict[str, list[Tested]] = {}
    for star in stars:
        maps = replace(tests.maps, observation=_without_star(observation, star))
        again[star] = replace(tests, maps=maps).test(list(found), found)
    described = []
    for k, (candidate, tested) in enumerate(zip(candidates, found.values(), strict=True)):
        values = {star: each[k] for star, each in again.items() if np.isfinite(each[k].snr)}
        worst = min(values, key=lambda star: values[star].snr, default="")
        lowest, notes = float("nan"), candidate.notes
        if worst:
            lowest = values[worst].snr
            gone = values[worst].flux < MAX_FLUX_KEPT * tested.flux
            if gone and not lowest > tests.statistic.threshold(values[worst].n):
                notes = "; ".join(filter(None, (notes, f"{RESTS_ON} {worst}")))
        described.append(replace(candidate, jackknife_snr=lowest, key_reference=worst, notes=notes))
    return described


def _without_star(observation: Observation, star: str) -> Observation:
    """Subtract again without the references of one star, where others remain."""
    exposures = []
    for exposure in observation.exposures:
        ref_info = exposure.aligned.ref_info
        names = ref_info.targets if ref_info is not None else ()
        left_out = np.array([name == star for name in names], bool)
        if left_out.any() and not left_out.all():
            exposure = exposure.without_refs(left_out)
        exposures.append(exposure)
    return replace(observation, exposures=exposures, folder=None)


def _weightiest_stars(observation: Observation) -> list[str]:
    """Reference stars in the order of their squared coefficients; at most a handful."""
    power: dict[str, float] = {}
    for exposure in observation.exposures:
        ref_info = exposure.aligned.ref_info
        if ref_info is None or exposure.frames:
            return []
        for fit in exposure.fits:
            for coefs in fit.coefs(max(exposure.n_modes)):
                size = coefs**2 * np.diagonal(fit.gram)
                for k, value in zip(fit.refs, size, strict=True):
                    name = ref_info.targets[k]
                    power[name] = power.get(name, 0.0) + float(value)
    return sorted(power, key=lambda name: -power[name])[:MAX_REFERENCE_STARS]
