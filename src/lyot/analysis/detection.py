"""Detection: the S/N of every position, and the candidates above the threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from lyot.algorithms.geometry import polar
from lyot.algorithms.statistics import finite_mean, n_positions
from lyot.analysis.grid import SkyGrid, sky_grid
from lyot.analysis.noise import (
    RING_STEP_PIX,
    KnownSource,
    KnownSources,
    NoiseRings,
    noise_rings,
)
from lyot.analysis.observation import Observation
from lyot.analysis.photometry import FluxMaps, throughputs
from lyot.analysis.statistic import FIVE_SIGMA, MIN_POSITIONS, Statistic
from lyot.analysis.table import FLUX_UNIT, Tabled, column, table_of
from lyot.compute import threads
from lyot.errors import LyotError
from lyot.types import Array

MIN_SHARE = 0.5
"""Share of good pixels about a position below which an integration does not count (STIM)."""
MAX_REFERENCE_STARS = 8
"""Reference stars that are left out one after another."""
MIN_TRANSMISSION = 0.02
"""Transmission of the mask below which a position is not searched."""
PEAK_RADIUS_FWHM = 1.25
TRIED_SHARE = 0.7
"""Maxima of the S/N on whole pixels above this share of the threshold are tested at their place."""
N_RADII, N_ANGLES = 10, 4
"""Injections for the throughput of the flux map."""
LIGHT_ERROR = 0.3
"""Part of the light of a brighter source beside it that is not known: its PSF is a model."""

Place = tuple[float, float]
"""Separation [pixel] and position angle [degree]."""


class Tested(NamedTuple):
    """S/N of a place, the number of positions with it, and its flux as measured."""

    snr: float
    n: int
    flux: float


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
        Probability that noise alone gives this S/N at one position.
    false_alarms : float
        Expected number of such positions on the whole image.
    flux : float
        Flux, corrected for throughput and transmission [MJy/sr times pixel].
    contrast : float
        Flux over that of the star; NaN where its brightness is unknown.
    is_known : bool
        Whether it lies on a known source or disc.
    jackknife_snr : float
        The lowest S/N when one reference star is left out; NaN where there is only one star.
    key_reference : str
        That star.

    Examples
    --------
    >>> candidate = Candidate(1.1, 205.0, 8.2, 1e-9, 1e-6, 177.0, 3e-5, is_known=False)
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
    jackknife_snr: float = column("jackknife_snr", default=float("nan"))
    key_reference: str = column("key_reference", default="")


@dataclass(frozen=True, eq=False)
class Detection(Tabled):
    """Maps and candidates.

    Attributes
    ----------
    snr : ndarray, shape (2 n + 1, 2 n + 1)
        The statistic t, north up and east to the left; NaN where there are too few positions,
        under the mask and beyond the edges.
    flux : ndarray, shape (2 n + 1, 2 n + 1)
        Flux corrected for throughput and transmission [MJy/sr times pixel].
    n_positions : ndarray, shape (2 n + 1, 2 n + 1)
        Independent positions at that separation, the tested one included.
    stim : ndarray, shape (2 n + 1, 2 n + 1)
        Mean over standard deviation of the derotated integrations (Pairet et al. 2019,
        doi:10.1093/mnras/stz1350).
    candidates : tuple of Candidate
        Peaks above the threshold, the most significant first.
    grid : SkyGrid
        Its positions.
    pixel_scale_arcsec : float
        Pixel scale [arcsec].
    n_modes : int
        Number of modes.
    statistic : Statistic
        Of one test.

    Examples
    --------
    >>> found = detect(observation)
    >>> found.to_table().colnames[:3]
    ['separation', 'position_angle', 'snr']
    """

    snr: Array
    flux: Array
    n_positions: Array
    stim: Array
    candidates: tuple[Candidate, ...]
    grid: SkyGrid
    pixel_scale_arcsec: float
    n_modes: int
    statistic: Statistic

    def to_table(self) -> Any:
        """Return one astropy row per candidate, with units."""
        return table_of(
            Candidate, self.candidates, {"n_modes": self.n_modes} | asdict(self.statistic)
        )


@threads.calculation
def detect(
    observation: Observation,
    /,
    *,
    n_modes: int | None = None,
    statistic: Statistic = FIVE_SIGMA,
    known_sources: KnownSources = (),
) -> Detection:
    """Search for companions.

    Parameters
    ----------
    observation : Observation
        The subtracted exposures.
    n_modes : int, optional
        Number of modes; the largest by default.
    statistic : Statistic, optional
        How flux is measured and when it stands out; five sigma of Gaussian noise by default.
    known_sources : tuple of KnownSource or KnownDisc, optional
        Companions and discs that are excluded from the noise estimate.

    Returns
    -------
    Detection
        Maps, and the candidates above the threshold.

    Raises
    ------
    LyotError
        If the frames have too few independent positions at every separation.

    Notes
    -----
    Mawet et al. 2014, doi:10.1088/0004-637X/792/2/97.

    Examples
    --------
    With an observation from `lyot.open_run`:

    >>> from lyot.analysis.noise import KnownDisc
    >>> found = detect(observation, known_sources=(KnownDisc(110.0, 20.0),))
    >>> [c.snr > found.statistic.threshold(20) for c in found.candidates[:2]]
    [True, True]
    """
    maps, grid = FluxMaps(observation, statistic.flux_by), sky_grid(observation)
    t = observation.truncation(n_modes)
    n_modes = observation.n_modes[t]
    search = _Search(observation, grid, t, statistic, known_sources)
    test_all = partial(snr_map, maps, grid, n_modes=n_modes, statistic=statistic)
    snr, flux, number = test_all(known_sources=known_sources)
    if not np.isfinite(snr).any():
        raise LyotError("No separation has enough independent positions to test one.")
    throughput = _throughput_map(maps, grid, t)
    places = search.places(snr, flux, number)
    # A bright source is in the scatter of its neighbors: those found are excluded, and all tested
    # again.
    found = search.significant(maps, places, search.significant(maps, places, {}))
    if found:
        known = tuple(KnownSource(r * observation.pixel_scale_arcsec, pa) for r, pa in found)
        snr, _, number = test_all(known_sources=known_sources + known)
    candidates = [
        search.candidate(snr, throughput, place, tested) for place, tested in found.items()
    ]
    candidates = search.without_each_star(candidates, found)
    return Detection(
        snr=snr,
        flux=flux / throughput,
        n_positions=number,
        stim=stim_map(observation, grid, n_modes=n_modes),
        candidates=tuple(sorted(candidates, key=lambda c: (c.fpf, -c.snr))),
        grid=grid,
        pixel_scale_arcsec=observation.pixel_scale_arcsec,
        n_modes=n_modes,
        statistic=statistic,
    )


@threads.calculation
def snr_map(
    maps: FluxMaps,
    grid: SkyGrid,
    /,
    *,
    n_modes: int | None = None,
    statistic: Statistic = FIVE_SIGMA,
    known_sources: KnownSources = (),
) -> tuple[Array, Array, Array]:
    """Test every position of the sky against the others at its separation.

    Returns the statistic t, the flux as measured, and the number of positions, the tested one
    included, each ``(2 n + 1, 2 n + 1)``.
    """
    truncation = maps.observation.truncation(n_modes)
    radius, pa = grid.polar
    flux = maps.sample(radius, pa)[truncation]
    first = (MIN_POSITIONS + 0.01) / (2.0 * np.pi) * maps.observation.fwhm_pix
    radii = np.arange(first, radius[grid.half_pix].max() * np.sqrt(2.0), RING_STEP_PIX)
    rings = noise_rings(maps, radii, known_sources=known_sources)
    mean, scatter, number = _others_at(rings, truncation, radius, pa, first)
    with np.errstate(invalid="ignore", divide="ignore"):
        snr = (flux - mean) / (scatter * statistic.spread(number + 1))
    transmission, _ = maps.transmission(radius, pa)
    enough = (number + 1 >= MIN_POSITIONS) & ~(transmission < MIN_TRANSMISSION)
    return np.where(enough & np.isfinite(snr), snr, np.nan), flux, number + 1


def _others_at(
    rings: NoiseRings, t: int, radius: Array, pa_deg: Array, first: float
) -> tuple[Array, Array, Array]:
    """Mean, scatter and number of the other positions, linear along the nearest ring."""
    which = np.rint((radius - first) / RING_STEP_PIX).astype(int)
    inside = (which >= 0) & (which < len(rings.radius_pix))
    sizes = np.array([used.size for used in rings.used])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    # A position's place on its ring: the starting angle runs within the spacing of positions.
    columns = [np.stack(rings.others(j, t)).reshape(3, -1) for j in range(len(sizes))]
    flat = np.concatenate(columns, axis=1)
    ring = np.where(inside, which, 0)
    u = pa_deg / 360.0 * sizes[ring]
    low = np.floor(u).astype(int)
    part = u - low
    a, b = starts[ring] + low % sizes[ring], starts[ring] + (low + 1) % sizes[ring]
    mean, scatter = ((1.0 - part) * flat[k][a] + part * flat[k][b] for k in (0, 1))
    number = np.minimum(flat[2][a], flat[2][b])
    return (
        np.where(inside, mean, np.nan),
        np.where(inside, scatter, np.nan),
        np.where(inside, number, 0),
    )


@threads.calculation
def stim_map(observation: Observation, grid: SkyGrid, /, *, n_modes: int | None = None) -> Array:
    """Return mean over standard deviation of the derotated integrations.

    NaN where fewer than two integrations see the position (Pairet et al. 2019,
    doi:10.1093/mnras/stz1350).
    """
    from scipy.ndimage import map_coordinates

    truncation = observation.truncation(n_modes)
    radius, pa = grid.polar
    count = np.zeros(radius.shape)
    total, square = np.zeros(radius.shape), np.zeros(radius.shape)
    for exposure in observation.exposures:
        at = np.stack(exposure.position(radius, pa))
        for image, bad in zip(exposure.integrations[truncation], exposure.bad, strict=True):
            share = map_coordinates((~bad).astype(np.float64), at, order=1, cval=0.0)
            data = map_coordinates(np.where(bad, 0.0, image).astype(np.float64), at, order=1)
            seen = share > MIN_SHARE
            value = np.where(seen, data / np.where(seen, share, 1.0), 0.0)
            count += seen
            total += value
            square += value**2
    mean = total / np.maximum(count, 1)
    variance = (square - count * mean**2) / np.maximum(count - 1, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(
            (count >= 2) & (variance > 0), mean / np.sqrt(np.maximum(variance, 0.0)), np.nan
        )


@dataclass(frozen=True, eq=False)
class _Search:
    """What candidates are searched with."""

    observation: Observation
    grid: SkyGrid
    truncation: int
    statistic: Statistic
    known_sources: KnownSources

    def places(self, snr: Array, flux: Array, number: Array) -> list[Place]:
        """Local maxima that may be above the threshold, where the flux about them is highest."""
        from scipy.ndimage import maximum_filter

        size = 2 * int(np.ceil(self.observation.fwhm_pix)) + 1
        filled = np.where(np.isfinite(snr), snr, -np.inf)
        peak = (filled == maximum_filter(filled, size=size)) & (filled > 0.0)
        limits = TRIED_SHARE * self.statistic.thresholds(number)
        tried = {
            _highest_near(flux, int(y), int(x), self.observation.fwhm_pix)
            for y, x in np.argwhere(peak & (snr > limits))
        }
        return [_refined(flux, y, x, self.grid) for y, x in sorted(tried)]

    def test(self, maps: FluxMaps, place: Place, found: Mapping[Place, Tested]) -> Tested:
        """Test a place against the others of its circle, without its own light in them.

        Others that were found are excluded from the noise. The light of brighter ones is taken
        off the place; what is not known of it counts as noise.
        """
        (r, pa), fwhm, t = place, self.observation.fwhm_pix, self.truncation
        scale = self.observation.pixel_scale_arcsec
        n = max(n_positions(r / fwhm), 1)
        radii, angles = np.full(n, r), pa + 360.0 * np.arange(n) / n
        flux, lobes, unknown = maps.sample(radii, angles)[t], 0.0, 0.0
        used = np.isfinite(flux)
        sources = [KnownSource(p[0] * scale, p[1]) for p in found if p != place]
        for known in (*self.known_sources, *sources):
            used &= ~known.covers(radii * scale, angles, fwhm * scale)
        used[0] = False
        for other, tested in found.items():
            if other != place and tested.flux > flux[0]:
                light = tested.flux * float(maps.crosstalk(other, radii[:1], angles[:1])[t, 0])
                lobes, unknown = lobes + light, unknown + abs(LIGHT_ERROR * light)
        # The others keep it, as those of a limit do.
        flux[0] -= lobes
        own = maps.crosstalk(place, radii[used], angles[used])[t]
        others, m = flux[used] - own * flux[0], int(used.sum())
        if m + 1 < MIN_POSITIONS:
            return Tested(float("nan"), m + 1, float(flux[0]))
        scatter = np.hypot(others.std(ddof=1) * float(self.statistic.spread(m + 1)), unknown)
        return Tested(float((flux[0] - others.mean()) / scatter), m + 1, float(flux[0]))

    def significant(
        self, maps: FluxMaps, places: Sequence[Place], found: Mapping[Place, Tested]
    ) -> dict[Place, Tested]:
        """Return the places above the threshold, with those found before reckoned with."""
        tested = {place: self.test(maps, place, found) for place in places}
        threshold = self.statistic.threshold
        return {place: t for place, t in tested.items() if t.snr > threshold(t.n)}

    def candidate(self, snr: Array, throughput: Array, place: Place, tested: Tested) -> Candidate:
        """Describe a place above the threshold."""
        scale, fwhm = self.observation.pixel_scale_arcsec, self.observation.fwhm_pix
        fpf = self.statistic.fpf_of(tested.snr, tested.n)
        tests = float(np.isfinite(snr).sum()) / (0.25 * np.pi * fwhm**2)
        flux = tested.flux / float(throughput[self.grid.pixel(*place)])
        where = (np.asarray(place[0] * scale), np.asarray(place[1]))
        return Candidate(
            separation_arcsec=place[0] * scale,
            pa_deg=place[1],
            snr=tested.snr,
            fpf=fpf,
            false_alarms=fpf * tests,
            flux=flux,
            contrast=self.observation.contrast_of(flux),
            is_known=any(bool(k.covers(*where, fwhm * scale)) for k in self.known_sources),
        )

    def without_each_star(
        self, candidates: list[Candidate], found: Mapping[Place, Tested]
    ) -> list[Candidate]:
        """Test candidates again without each reference star, of the most weighty ones."""
        stars = _weightiest_stars(self.observation)
        if not candidates or len(stars) < 2:
            return candidates
        snr_without: dict[str, list[float]] = {}
        for star in stars:
            maps = FluxMaps(_without_star(self.observation, star), self.statistic.flux_by)
            snr_without[star] = [self.test(maps, place, found).snr for place in found]
        tested = []
        for k, candidate in enumerate(candidates):
            values = {star: snr[k] for star, snr in snr_without.items() if np.isfinite(snr[k])}
            worst = min(values, key=lambda star: values[star], default="")
            lowest = float(values.get(worst, np.nan))
            tested.append(replace(candidate, jackknife_snr=lowest, key_reference=worst))
        return tested


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


def _throughput_map(maps: FluxMaps, grid: SkyGrid, t: int) -> Array:
    """Throughput of the subtraction by separation, times the transmission of the mask."""
    observation = maps.observation
    radius, pa = grid.polar
    steps = np.geomspace(observation.fwhm_pix, observation.reach_pix, N_RADII)
    bare = finite_mean(throughputs(maps, steps, N_ANGLES, np.ones(N_RADII))[1, t], axis=-1)
    good = np.isfinite(bare)
    transmission, _ = maps.transmission(radius, pa)
    total = transmission * np.interp(radius, steps[good], bare[good])
    return np.where(total > 0, total, np.nan)


def _highest_near(image: Array, y: int, x: int, fwhm_pix: float) -> tuple[int, int]:
    """The highest pixel within 1.25 FWHM of another."""
    rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
    near = np.hypot(rows - y, columns - x) <= PEAK_RADIUS_FWHM * fwhm_pix
    top = np.argmax(np.where(near & np.isfinite(image), image, -np.inf))
    row, column = np.unravel_index(int(top), image.shape)
    return int(row), int(column)


def _refined(image: Array, y: int, x: int, grid: SkyGrid) -> tuple[float, float]:
    """Separation [pixel] and position angle of a peak, by a parabola through its neighbors."""

    def _offset(before: float, at: float, after: float) -> float:
        curve = before - 2.0 * at + after
        if not np.isfinite(curve) or curve >= 0:
            return 0.0
        return float(np.clip(0.5 * (before - after) / curve, -0.5, 0.5))

    padded = np.pad(image, 1, constant_values=np.nan)
    row, column = padded[y + 1], padded[:, x + 1]
    dx = _offset(row[x], row[x + 1], row[x + 2])
    dy = _offset(column[y], column[y + 1], column[y + 2])
    r, pa_deg = polar(grid.half_pix - (x + dx), (y + dy) - grid.half_pix)
    return float(r), float(pa_deg)
