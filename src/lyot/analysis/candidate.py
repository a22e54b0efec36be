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

    def _circle(
        self, place: Place, found: Mapping[Place, Tested]
    ) -> tuple[Array, Array, Array, Array]:
        """Separations, angles and measured flux on its circle, and which are the other positions.

        Known sources and those found are excluded.
        """
        (r, pa), observation = place, self.maps.observation
        fwhm, scale = observation.fwhm_pix, observation.pixel_scale_arcsec
        n = max(n_positions(r / fwhm), 1)
        radii, angles = np.full(n, r), pa + 360.0 * np.arange(n) / n
        flux = self.maps.sample(radii, angles)[self.truncation]
        used = np.isfinite(flux)
        sources = [self.source(*item) for item in found.items() if item[0] != place]
        for known in (*self.known_sources, *sources):
            used &= ~known.covers(radii * scale, angles, fwhm * scale)
        used[0] = False
        return radii, angles, flux, used

    def test(self, place: Place, found: Mapping[Place, Tested], /) -> Tested:
        """Test a place against the others of its circle, without its own light in them.

        Others that were found are excluded from the noise. The light of brighter ones is taken
        off the place; what is not known of it counts as noise.
        """
        t, lobes, unknown = self.truncation, 0.0, 0.0
        radii, angles, flux, used = self._circle(place, found)
        for other, tested in found.items():
            if other != place and tested.flux > flux[0]:
                crosstalk = self.maps.crosstalk(other, radii[:1], angles[:1])
                light = tested.flux * float(crosstalk[t, 0])
                lobes, unknown = lobes + light, unknown + abs(LIGHT_ERROR * light)
        # The others keep it, as those of a limit do.
        flux[0] -= lobes
        own = self.maps.crosstalk(place, radii[used], angles[used])[t]
        others, m = flux[used] - own * flux[0], int(used.sum())
        if m + 1 < MIN_POSITIONS:
            return Tested(float("nan"), m + 1, float(flux[0]), float("nan"))
        scatter = others.std(ddof=1)
        error = np.hypot(scatter * float(self.statistic.spread(m + 1)), unknown)
        snr = float((flux[0] - others.mean()) / error)
        return Tested(snr, m + 1, float(flux[0]), float(scatter))

    def needed(self, place: Place, /) -> tuple[float, float]:
        """Return the flux before the mask that a source needs at a place by the noise alone.

        As `lyot.analysis.noise.NoiseRings.needed`; and what it needs at an average place. NaN where
        the place is on a known source, or untested.
        """
        radii, angles, flux, used = self._circle(place, {})
        scale, fwhm = self.maps.observation.pixel_scale_arcsec, self.maps.observation.fwhm_pix
        at = radii[:1] * scale, angles[:1]
        others, m = flux[used], int(used.sum())
        on_known = any(k.covers(*at, fwhm * scale).any() for k in self.known_sources)
        if m + 1 < MIN_POSITIONS or on_known:
            return float("nan"), float("nan")
        through = float(self.maps.throughput(*place)[0, self.truncation])
        tau, scatter = self.statistic.tau(m + 1), float(others.std(ddof=1))
        need = float(others.mean() - flux[0]) + (tau - 1.0 / tau) * scatter
        return need / through, tau * scatter / through

    def significant(
        self, places: Sequence[Place], found: Mapping[Place, Tested], /
    ) -> dict[Place, Tested]:
        """Return the places above the threshold, with those found before reckoned with."""
        tested = {place: self.test(place, found) for place in places}
        threshold = self.statistic.threshold
        return {place: t for place, t in tested.items() if t.snr > threshold(t.n)}

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
        radii, angles, _, used = self._circle(place, found)
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

    def _seen_at(
        self, place: Place
    ) -> tuple[list[SubtractedExposure], list[tuple[float, float]], list[float]]:
        """The exposures that see a place, where on them it is, and the radius of an edge."""
        observation = self.maps.observation
        weights, _ = self.maps.weights(*(np.asarray(v) for v in place))
        seen = [e for e, weight in zip(observation.exposures, weights, strict=True) if weight > 0]
        at = [(float(y), float(x)) for y, x in (e.position(*place) for e in seen)]
        return seen, at, [EDGE_FWHM * observation.fwhm_pix] * len(seen)

    def is_on_one_roll(self, place: Place, found: Mapping[Place, Tested], /) -> bool:
        """Whether one roll alone sees a place, or the others contradict its flux there."""
        weights, _ = self.maps.weights(*(np.asarray(v) for v in place))
        rolls = [[e for e in roll if weights[e] > 0] for roll in _rolls(self.maps.observation)]
        rolls = [roll for roll in rolls if roll]
        if len(rolls) < 2:
            return True
        each = [self._of(roll).test(place, found) for roll in rolls]
        best = int(np.argmax([tested.flux for tested in each]))
        others = [e for k, roll in enumerate(rolls) for e in roll if k != best]
        rest = self._of(others).test(place, found)
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
        again[star] = [replace(tests, maps=maps).test(place, found) for place in found]
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
