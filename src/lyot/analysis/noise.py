"""The noise of a source's flux: its scatter among independent positions on rings."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lyot.algorithms.geometry import east_north, polar
from lyot.algorithms.statistics import n_positions
from lyot.analysis.observation import Observation
from lyot.analysis.photometry import FluxMaps
from lyot.analysis.statistic import Statistic
from lyot.types import Array

RING_STEP_PIX, PHASE_STEP_PIX = 0.5, 0.5
ABOUT_FWHM, ABOUT_STEP_PIX = 0.4, 1.0
"""Distance of the rings on both sides of a separation whose noise is that of its limit, and the
step along them: with one ring alone, chance makes neighboring limits differ by 5 to 10 %."""
EXCLUDED_RADIUS_FWHM = 1.5
MAX_LIGHT_SIGMA = 0.5
"""Light of a found source, over the noise, that a position may have without being excluded."""
LOBE_SHIFT_FWHM = 0.5
"""How far lobes may lie from those of the PSF: the wavefront is not known."""


@dataclass(frozen=True)
class KnownSource:
    """A source that is excluded from the noise estimate.

    Attributes
    ----------
    separation_arcsec, pa_deg : float
        Where it is [arcsec], [degree east of north].
    radius_arcsec : float or None
        Radius of what is excluded about it [arcsec]; 1.5 FWHM by default.

    Examples
    --------
    >>> KnownSource(1.0, 90.0).covers(np.array([1.1, 1.0]), np.array([90.0, 120.0]), 0.1)
    array([ True, False])
    """

    separation_arcsec: float
    pa_deg: float
    radius_arcsec: float | None = None

    def covers(self, separation_arcsec: Array, pa_deg: Array, fwhm_arcsec: float, /) -> Array:
        """Return True for positions within the radius."""
        limit = self.radius_arcsec or EXCLUDED_RADIUS_FWHM * fwhm_arcsec
        east, north = east_north(separation_arcsec, pa_deg)
        own_east, own_north = east_north(self.separation_arcsec, self.pa_deg)
        return np.asarray(np.hypot(east - own_east, north - own_north) <= limit)


@dataclass(frozen=True)
class KnownDisc:
    """A disc seen nearly edge-on: two opposite sectors that are excluded from the noise estimate.

    Attributes
    ----------
    pa_deg : float
        Position angle of its major axis [degree].
    half_width_deg : float
        Half the opening angle of each sector [degree].

    Examples
    --------
    >>> KnownDisc(128.7, 15.0).covers(np.ones(3), np.array([120.0, 300.0, 20.0]), 0.1)
    array([ True,  True, False])
    """

    pa_deg: float
    half_width_deg: float

    def covers(self, separation_arcsec: Array, pa_deg: Array, fwhm_arcsec: float, /) -> Array:
        """Return True for positions within the sectors, at any separation."""
        del separation_arcsec, fwhm_arcsec
        turn = np.abs((np.asarray(pa_deg) - self.pa_deg + 90.0) % 180.0 - 90.0)
        return np.asarray(turn <= self.half_width_deg)


@dataclass(frozen=True, eq=False)
class FoundSource:
    """A source that was found, excluded from the noise by the shape of its PSF.

    Where its light adds more than half of the noise to a measured flux, or does half a FWHM from
    there, positions are excluded: its core, and of a bright one the lobes, at every roll.

    Attributes
    ----------
    separation_arcsec, pa_deg : float
        Where it is [arcsec], [degree east of north].
    flux, noise : float
        Its flux as measured, and the noise at its separation [MJy/sr times pixel].
    maps : FluxMaps
        What measured them.
    truncation : int
        Index of the number of modes.

    Examples
    --------
    >>> source = FoundSource(1.5, 40.0, 50.0, 1.0, FluxMaps(observation))
    >>> source.covers(np.array([1.5, 1.5]), np.array([40.0, 200.0]), 0.1)
    array([ True, False])
    """

    separation_arcsec: float
    pa_deg: float
    flux: float
    noise: float
    maps: FluxMaps
    truncation: int = -1

    def __str__(self) -> str:
        """Say where it is."""
        return f"{self.separation_arcsec:.3f} arcsec, {self.pa_deg:.2f} degrees"

    def covers(self, separation_arcsec: Array, pa_deg: Array, fwhm_arcsec: float, /) -> Array:
        """Return True for positions to which its light matters."""
        del fwhm_arcsec
        scale = self.maps.observation.pixel_scale_arcsec
        r, pa = np.broadcast_arrays(np.asarray(separation_arcsec) / scale, pa_deg)
        place = (self.separation_arcsec / scale, self.pa_deg)
        (east, north), (own_east, own_north) = east_north(r, pa), east_north(*place)
        reach = self.maps.observation.psf.half_pix * np.sqrt(2.0)
        near = np.hypot(east - own_east, north - own_north) < reach
        covered = np.zeros(r.shape, bool)
        if not near.any():
            return covered
        shift = LOBE_SHIFT_FWHM * self.maps.observation.fwhm_pix
        to_east, to_north = shift * np.array([(0, 1, -1, 0, 0), (0, 0, 0, 1, -1)])[..., None]
        about = polar((east[near] + to_east).ravel(), (north[near] + to_north).ravel())
        light = self.maps.crosstalk([place], [about[0].size], *about)[self.truncation]
        light = np.abs(light).reshape(5, -1)
        covered[near] = np.abs(self.flux) * light.max(axis=0) > MAX_LIGHT_SIGMA * self.noise
        return covered


KnownSources = tuple[KnownSource | KnownDisc | FoundSource, ...]


@dataclass(frozen=True, eq=False)
class NoiseRings:
    """Fluxes along circles about the star, and the noise among independent positions.

    Positions are one FWHM apart, on each ring from a number of starting angles (phases).
    """

    radius_pix: Array  # (n_ring,)
    flux: list[Array]  # (n_trunc, n_position, n_phase) on each ring
    used: list[Array]  # (n_position, n_phase), False where unknown, and on known sources

    def without(self, sources: KnownSources, observation: Observation, /) -> NoiseRings:
        """Exclude the positions that sources cover."""
        scale, fwhm = observation.pixel_scale_arcsec, observation.fwhm_pix
        ends = np.cumsum([used.size for used in self.used])
        angles = [_angles(*used.shape).ravel() for used in self.used]
        sizes = [len(angle) for angle in angles]
        separation, angle = np.repeat(self.radius_pix, sizes) * scale, np.concatenate(angles)
        covered = np.zeros(len(angle), bool)
        for source in sources:
            covered |= source.covers(separation, angle, fwhm * scale)
        parts = np.split(covered, ends[:-1])
        free = [u & ~p.reshape(u.shape) for u, p in zip(self.used, parts, strict=True)]
        return replace(self, used=free)

    def needed(self, ring: int, truncation: int, statistic: Statistic, /) -> Array:
        r"""Return the flux that a source needs at each position that is used, to be detected there.

        It is added to what is there: skewed noise leaves less than the mean at most places. A
        source is read where the flux about it is highest, which in noise of scatter s lies above
        that at its own place by :math:`s / \tau` (two coordinates are free).
        """
        mean, scatter, number = self.others(ring, truncation)
        tau = statistic.taus(number + 1)
        need = mean + (tau - 1.0 / tau) * scatter - self.flux[ring][truncation]
        return np.asarray(need[self.used[ring] & np.isfinite(need)])

    def count(self, ring: int, /) -> int:
        """Return the number of positions of a ring that are used, median over starting angles."""
        return int(np.median(self.used[ring].sum(axis=0)))

    def others(self, ring: int, truncation: int, /) -> tuple[Array, Array, Array]:
        """Return mean, scatter and number of the other positions, ``(n_position, n_phase)`` each.

        The others are those of the same starting angle without the position itself: sums over
        all, less its own term, taken about the mean of all so that they do not cancel.
        """
        flux, used = self.flux[ring][truncation], self.used[ring]
        value = np.where(used, flux, 0.0)
        number = used.sum(axis=0) - used
        enough = number >= 2
        m = np.where(enough, number, 2)
        middle = value.sum(axis=0) / np.maximum(used.sum(axis=0), 1)
        off = np.where(used, flux - middle, 0.0)
        mean = (off.sum(axis=0) - off) / m
        square = (off**2).sum(axis=0) - off**2
        scatter = np.sqrt(np.maximum(square - m * mean**2, 0.0) / (m - 1))
        return (
            np.where(enough, mean + middle, np.nan),
            np.where(enough, scatter, np.nan),
            number,
        )


@dataclass(frozen=True, eq=False)
class NoiseAbout:
    """The noise about separations: that of three rings each, and of one where they are not whole.

    A limit at a separation is the flux at which half of the sources about it are detected.
    """

    rings: NoiseRings  # the one before, at and beyond each separation

    def without(self, sources: KnownSources, observation: Observation, /) -> NoiseAbout:
        """Exclude the positions that sources cover."""
        return NoiseAbout(self.rings.without(sources, observation))

    def needed(self, separation: int, truncation: int, statistic: Statistic, /) -> Array:
        """Return the flux that a source needs at each position, as `NoiseRings.needed`."""
        rings = range(3 * separation, 3 * separation + 3)
        each = [self.rings.needed(ring, truncation, statistic) for ring in rings]
        return np.concatenate(each) if all(part.size for part in each) else each[1]

    def limit(self, separation: int, truncation: int, statistic: Statistic, /) -> float:
        """Return the flux at which half of the sources are detected; NaN for too few positions."""
        needed = self.needed(separation, truncation, statistic)
        return float(np.median(needed)) if needed.size else float("nan")

    def count(self, separation: int, /) -> int:
        """Return the number of positions at a separation, as `NoiseRings.count`."""
        return self.rings.count(3 * separation + 1)

    def flux(self, separation: int, truncation: int, /) -> Array:
        """Return the fluxes at independent positions that are used."""
        ring = 3 * separation + 1
        used = self.rings.used[ring][:, 0]
        return np.asarray(self.rings.flux[ring][truncation][:, 0][used])


def noise_about(
    maps: FluxMaps, radius_pix: Array, /, *, known_sources: KnownSources = ()
) -> NoiseAbout:
    """Sample the fluxes about separations."""
    step = ABOUT_FWHM * maps.observation.fwhm_pix
    radii = np.ravel(np.asarray(radius_pix)[:, None] + step * np.array([-1.0, 0.0, 1.0]))
    return NoiseAbout(
        noise_rings(maps, radii, known_sources=known_sources, phase_step_pix=ABOUT_STEP_PIX)
    )


def noise_rings(
    maps: FluxMaps,
    radius_pix: Array,
    /,
    *,
    known_sources: KnownSources = (),
    phase_step_pix: float = PHASE_STEP_PIX,
) -> NoiseRings:
    """Sample the fluxes along circles: on each as many positions as are independent."""
    observation = maps.observation
    radius_pix = np.asarray(radius_pix, dtype=np.float64)
    shapes = []
    for r in radius_pix:
        n = max(n_positions(float(r) / observation.fwhm_pix), 1)
        shapes.append((n, max(int(np.ceil(2.0 * np.pi * r / n / phase_step_pix)), 1)))
    sizes = [n * k for n, k in shapes]
    angle = np.concatenate([_angles(*shape).ravel() for shape in shapes])
    flux = np.split(maps.sample(np.repeat(radius_pix, sizes), angle), np.cumsum(sizes)[:-1], axis=1)
    flux = [f.reshape(len(f), *shape) for f, shape in zip(flux, shapes, strict=True)]
    rings = NoiseRings(radius_pix, flux, [np.isfinite(f[0]) for f in flux])
    return rings.without(known_sources, observation)


def _angles(n: int, k: int) -> Array:
    """Position angles [degree] of n positions on a ring, from k starting angles."""
    return np.asarray(360.0 * (np.arange(n)[:, None] + np.arange(k)[None, :] / k) / n)
