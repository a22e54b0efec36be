"""Detection: the S/N of every position, and the candidates above the threshold."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms.statistics import finite_mean, n_positions
from lyot.analysis.candidate import Candidate, Tested, Tests, without_each_star
from lyot.analysis.grid import SkyGrid
from lyot.analysis.noise import (
    RING_STEP_PIX,
    FoundSource,
    KnownSources,
    NoiseRings,
    noise_rings,
)
from lyot.analysis.observation import Observation
from lyot.analysis.peaks import Place, Relief, flux_maps
from lyot.analysis.photometry import FluxMaps, throughputs
from lyot.analysis.statistic import FIVE_SIGMA, MIN_POSITIONS, Statistic, state_chances
from lyot.analysis.table import Tabled, table_of
from lyot.compute import threads
from lyot.errors import LyotError
from lyot.types import Array, Mask

MIN_SHARE = 0.5
"""Share of good pixels about a position below which an integration does not count (STIM)."""
INTEGRATIONS_AT_ONCE, POSITIONS_AT_ONCE = 32, 2**13
"""Integrations that are derotated at once, and the positions that a thread takes of them."""
MIN_TRANSMISSION = 0.02
"""Transmission of the mask below which a position is not searched."""
TRIED_SHARE = 0.7
"""Maxima of the flux over the scatter at its separation above this share of the threshold are
tested at their place."""
N_RADII, N_ANGLES = 10, 4
"""Injections for the throughput of the flux map."""


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
    n_places : float
        Number of independent places of the map: its area over that of a circle of one FWHM.
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
    n_places: float
    grid: SkyGrid
    pixel_scale_arcsec: float
    n_modes: int
    statistic: Statistic

    def to_table(self) -> Any:
        """Return one astropy row per candidate, with units."""
        meta = {"n_modes": self.n_modes, "n_places": round(self.n_places)}
        table = table_of(Candidate, self.candidates, meta | asdict(self.statistic))
        state_chances(table, "false_positive_fraction", "expected_false_alarms")
        return table


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
    tests = _tests(observation, n_modes, statistic, known_sources)
    maps, grid, t = tests.maps, tests.maps.observation.grid, tests.truncation
    observation = maps.observation  # of one number of modes
    rings = _rings(maps, known_sources)
    snr, number = _snr(maps, rings, t, statistic)
    _check(snr)
    found = _found(tests, rings)
    if found:
        # A bright source is in the scatter of its neighbors: those found are excluded.
        snr, number = _snr(maps, rings.without(_sources(tests, found), observation), t, statistic)
    throughput = _throughput_map(maps, t)
    n_places = float(np.isfinite(snr).sum()) / (0.25 * np.pi * observation.fwhm_pix**2)
    candidates = [
        tests.described(_candidate(tests, place, each, throughput, grid, n_places), place, found)
        for place, each in found.items()
    ]
    candidates = without_each_star(tests, candidates, found)
    return Detection(
        snr=snr,
        flux=maps.sky_flux[t] / throughput,
        n_positions=number,
        stim=stim_map(observation, n_modes=observation.n_modes[t]),
        candidates=tuple(sorted(candidates, key=lambda c: (c.fpf, -c.snr))),
        n_places=n_places,
        grid=grid,
        pixel_scale_arcsec=observation.pixel_scale_arcsec,
        n_modes=observation.n_modes[t],
        statistic=statistic,
    )


@threads.calculation
def find_sources(
    observation: Observation,
    /,
    *,
    n_modes: int | None = None,
    statistic: Statistic = FIVE_SIGMA,
    known_sources: KnownSources = (),
) -> tuple[FoundSource, ...]:
    """Search for sources as `detect` does, to exclude them from the noise of a limit.

    Parameters
    ----------
    observation : Observation
        The subtracted exposures.
    n_modes : int, optional
        Number of modes; the largest by default.
    statistic : Statistic, optional
        How flux is measured and when it stands out; five sigma of Gaussian noise by default.
    known_sources : tuple of KnownSource or KnownDisc, optional
        Companions and discs that are excluded already.

    Returns
    -------
    tuple of FoundSource
        Those above the threshold, each of the shape of its PSF.

    Examples
    --------
    >>> [round(source.pa_deg) for source in find_sources(observation)][:1]
    [205]
    """
    tests = _tests(observation, n_modes, statistic, known_sources)
    return _sources(tests, _found(tests))


@threads.calculation
def snr_map(
    maps: FluxMaps,
    /,
    *,
    n_modes: int | None = None,
    statistic: Statistic = FIVE_SIGMA,
    known_sources: KnownSources = (),
) -> tuple[Array, Array]:
    """Test every position of the sky against the others at its separation.

    Returns the statistic t, and the number of positions, the tested one included, each
    ``(2 n + 1, 2 n + 1)``.
    """
    return _snr(maps, _rings(maps, known_sources), maps.observation.truncation(n_modes), statistic)


def _ring_radii(observation: Observation) -> Array:
    """Separations [pixel] of rings over the whole grid, from where there are enough positions."""
    inner = (MIN_POSITIONS + 0.01) / (2.0 * np.pi) * observation.fwhm_pix
    outer = observation.farthest_pix + RING_STEP_PIX
    return np.arange(inner, max(outer, inner + RING_STEP_PIX), RING_STEP_PIX)


def _rings(maps: FluxMaps, known_sources: KnownSources, *, near: Array | None = None) -> NoiseRings:
    """The fluxes on all rings, or on those that are nearest to some separations."""
    radii = _ring_radii(maps.observation)
    if near is not None:
        radii = radii[np.unique(np.maximum(_nearest(radii, near), 0))]
    return noise_rings(maps, radii, known_sources=known_sources)


def _nearest(ring_pix: Array, radius_pix: Array) -> NDArray[np.intp]:
    """Number of the ring nearest to each separation; -1 within the first."""
    return np.searchsorted(ring_pix - 0.5 * RING_STEP_PIX, radius_pix, side="right") - 1


def _snr(
    maps: FluxMaps, rings: NoiseRings, t: int, statistic: Statistic, at: Any = ...
) -> tuple[Array, Array]:
    """The statistic of positions of the grid, by default of all, and the numbers with them."""
    radius, pa = (part[at] for part in maps.observation.grid.polar)
    mean, scatter, number = _others_at(rings, t, radius, pa)
    with np.errstate(invalid="ignore", divide="ignore"):
        snr = (maps.sky_flux[t][at] - mean) / (scatter * statistic.spread(number + 1))
    enough = (number + 1 >= MIN_POSITIONS) & ~(maps.sky_transmission[at] < MIN_TRANSMISSION)
    return np.where(enough & np.isfinite(snr), snr, np.nan), number + 1


def _others_at(
    rings: NoiseRings, t: int, radius_pix: Array, pa_deg: Array
) -> tuple[Array, Array, Array]:
    """Mean, scatter and number of the other positions, linear along the nearest ring."""
    places, others = rings.places, rings.others(t)
    which = _nearest(places.radius_pix, radius_pix)
    ring = np.maximum(which, 0)
    inside = (which >= 0) & (radius_pix - places.radius_pix[ring] <= 0.5 * RING_STEP_PIX)
    size, start = places.sizes[ring], places.starts[ring]
    u = pa_deg / 360.0 * size
    low = np.floor(u).astype(int)
    part, a, b = u - low, start + low % size, start + (low + 1) % size
    mean, scatter = ((1.0 - part) * v[a] + part * v[b] for v in (others.mean, others.scatter))
    number = np.minimum(others.number[a], others.number[b])
    return (
        np.where(inside, mean, np.nan),
        np.where(inside, scatter, np.nan),
        np.where(inside, number, 0),
    )


@threads.calculation
def stim_map(observation: Observation, /, *, n_modes: int | None = None) -> Array:
    """Return mean over standard deviation of the derotated integrations on the grid of the sky.

    NaN where fewer than two integrations see the position (Pairet et al. 2019,
    doi:10.1093/mnras/stz1350).
    """
    truncation, sky = observation.truncation(n_modes), observation.sky
    count, total, square = sums = np.zeros((3, *sky.inside.shape[1:]))
    for exposure, yx, inside in zip(observation.exposures, sky.yx, sky.inside, strict=True):
        at = yx[:, inside]
        for i in range(0, len(exposure.bad), INTEGRATIONS_AT_ONCE):
            part = slice(i, i + INTEGRATIONS_AT_ONCE)
            images, bad = exposure.integrations[truncation][part], exposure.bad[part]
            sums[:, inside] += _sums_at(images, bad, at)
    mean = total / np.maximum(count, 1)
    variance = (square - count * mean**2) / np.maximum(count - 1, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(
            (count >= 2) & (variance > 0), mean / np.sqrt(np.maximum(variance, 0.0)), np.nan
        )


def _sums_at(images: Array, bad: Mask, at: Array) -> Array:
    """Number, sum and sum of squares of the images that see each position ``(2, n)`` of theirs."""
    n, n_y, n_x = images.shape
    bad = bad.reshape(n, -1).T
    values = np.where(bad, 0.0, images.reshape(n, -1).T).astype(np.float64, order="C")
    alike = bool((bad == bad[:, :1]).all())  # most often they are: then one stands for all
    good = (~(bad[:, :1] if alike else bad)).astype(np.float64)

    def _sums(part: slice) -> Array:
        corner = np.minimum(at[:, part].astype(int), [[n_y - 2], [n_x - 2]])
        (v, u), first = (at[:, part] - corner)[..., None], corner[0] * n_x + corner[1]
        data, share = np.zeros((len(first), n)), np.zeros((len(first), 1))
        for step, weight in (
            (0, (1.0 - v) * (1.0 - u)),
            (1, (1.0 - v) * u),
            (n_x, v * (1.0 - u)),
            (n_x + 1, v * u),
        ):
            corners = values.take(first + step, axis=0)
            data += np.multiply(corners, weight, out=corners)
            share = share + weight * good[first + step]
        seen = share > MIN_SHARE
        data *= np.where(seen, 1.0 / np.where(seen, share, 1.0), 0.0)
        number = np.broadcast_to(seen, data.shape).sum(axis=1)
        return np.stack([number, data.sum(axis=1), np.einsum("ij,ij->i", data, data)])

    parts = [
        slice(i, i + POSITIONS_AT_ONCE) for i in range(0, max(at.shape[1], 1), POSITIONS_AT_ONCE)
    ]
    return np.concatenate(threads.map_ordered(_sums, parts), axis=1)


def _tests(
    observation: Observation, n_modes: int | None, statistic: Statistic, known_sources: KnownSources
) -> Tests:
    """The tests of places with one number of modes."""
    observation = observation.of_modes(n_modes)
    maps, t = flux_maps(observation, statistic.flux_by), observation.truncation(n_modes)
    return Tests(maps, t, statistic, known_sources)


def _check(snr: Array) -> None:
    """Refuse a map in which nothing is tested."""
    if not np.isfinite(snr).any():
        raise LyotError("No separation has enough independent positions to test one.")


def _found(tests: Tests, rings: NoiseRings | None = None) -> dict[Place, Tested]:
    """Test the peaks that may stand out; then again those that do, with one another reckoned with.

    On the rings of the whole grid where they are known, else on those of the peaks alone.
    """
    maps, t, statistic = tests.maps, tests.truncation, tests.statistic
    relief = Relief.of(maps, t)
    # Thresholds fall with the number of positions, which is largest far out.
    most = n_positions(_ring_radii(maps.observation)[-1] / maps.observation.fwhm_pix)
    lowest = TRIED_SHARE * statistic.threshold(max(most, MIN_POSITIONS))
    pixels = relief.maxima(relief.level, lowest)
    at = tuple(pixels.T)
    if rings is None:
        rings = _rings(maps, tests.known_sources, near=maps.observation.grid.polar[0][at])
    snr, number = _snr(maps, rings, t, statistic, at)
    if not np.isfinite(snr).any():  # no peak, or nothing that can be tested
        _check(_snr(maps, _rings(maps, tests.known_sources), t, statistic)[0])
    tried = np.isfinite(snr) & (relief.level[at] > TRIED_SHARE * statistic.thresholds(number))
    places = relief.places(pixels[tried])
    return tests.significant(places, tests.significant(places, {}))


def _sources(tests: Tests, found: dict[Place, Tested]) -> tuple[FoundSource, ...]:
    """What was found, for the noise."""
    return tuple(tests.source(*item) for item in found.items())


def _candidate(
    tests: Tests,
    place: Place,
    tested: Tested,
    throughput: Array,
    grid: SkyGrid,
    n_places: float,
) -> Candidate:
    """Describe a place above the threshold by its numbers."""
    observation = tests.maps.observation
    scale, fwhm = observation.pixel_scale_arcsec, observation.fwhm_pix
    fpf = tests.statistic.fpf_of(tested.snr, tested.n)
    flux = tested.flux / float(throughput[grid.pixel(*place)])
    where = (np.asarray(place[0] * scale), np.asarray(place[1]))
    return Candidate(
        separation_arcsec=place[0] * scale,
        pa_deg=place[1],
        snr=tested.snr,
        fpf=fpf,
        false_alarms=fpf * n_places,
        flux=flux,
        contrast=observation.contrast_of(flux),
        is_known=any(bool(k.covers(*where, fwhm * scale)) for k in tests.known_sources),
    )


def _throughput_map(maps: FluxMaps, t: int) -> Array:
    """Throughput of the subtraction by separation, times the transmission of the mask."""
    observation = maps.observation
    steps = np.geomspace(observation.fwhm_pix, observation.reach_pix, N_RADII)
    bare = finite_mean(throughputs(maps, steps, N_ANGLES, np.ones(N_RADII))[1, t], axis=-1)
    good = np.isfinite(bare)
    total = maps.sky_transmission * np.interp(
        maps.observation.grid.polar[0], steps[good], bare[good]
    )
    return np.where(total > 0, total, np.nan)
