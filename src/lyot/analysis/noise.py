"""The noise of a source's flux: its scatter among independent positions on rings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms.geometry import east_north, polar
from lyot.algorithms.statistics import n_positions
from lyot.analysis.observation import Observation
from lyot.analysis.photometry import FluxMaps
from lyot.analysis.statistic import Statistic
from lyot.compute import threads
from lyot.types import Array

RING_STEP_PIX, PHASE_STEP_PIX = 0.5, 0.5
ABOUT_FWHM, ABOUT_STEP_PIX = 0.4, 1.0
"""Distance of the rings on both sides of a separation whose noise is that of its limit, and the
step along them: with one ring alone, chance makes neighboring limits differ by 5 to 10 %."""
POSITIONS_AT_ONCE = 2**15
"""Positions, in whole rings, whose noise a thread computes at once."""
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
        reach = self.maps.observation.psf.half_pix * np.sqrt(2.0)
        covered, near = np.zeros(r.shape, bool), np.abs(r - place[0]) < reach
        # A chord is at least 2/pi of its arc.
        arc = np.abs((pa[near] - place[1] + 180.0) % 360.0 - 180.0)
        near[near] = np.sqrt(np.maximum(r[near], 0.0) * place[0]) * (arc / 90.0) < reach
        (east, north), (own_east, own_north) = east_north(r[near], pa[near]), east_north(*place)
        close = np.hypot(east - own_east, north - own_north) < reach
        if not close.any():
            return covered
        near[near], east, north = close, east[close], north[close]
        shift = LOBE_SHIFT_FWHM * self.maps.observation.fwhm_pix
        to_east, to_north = shift * np.array([(0, 1, -1, 0, 0), (0, 0, 0, 1, -1)])[..., None]
        about = polar((east + to_east).ravel(), (north + to_north).ravel())
        light = self.maps.crosstalk([place], [about[0].size], *about)[self.truncation]
        light = np.abs(light).reshape(5, -1)
        covered[near] = np.abs(self.flux) * light.max(axis=0) > MAX_LIGHT_SIGMA * self.noise
        return covered


KnownSources = tuple[KnownSource | KnownDisc | FoundSource, ...]


class Others(NamedTuple):
    """Of the other positions of each position of rings, ``(n,)`` each; see `NoiseRings.others`."""

    mean: Array
    scatter: Array
    number: Array


@dataclass(frozen=True, eq=False)
class RingPlaces:
    """Positions along circles about the star, one FWHM apart, from several starting angles each.

    All positions of all rings follow one another; on each ring the starting angle, or phase,
    changes first.
    """

    radius_pix: Array  # (n_ring,)
    shapes: NDArray[np.intp]  # (n_ring, 2): positions and phases

    @cached_property
    def sizes(self) -> NDArray[np.intp]:
        """Count the positions of each ring, of all phases."""
        return np.asarray(self.shapes.prod(axis=1))

    @cached_property
    def starts(self) -> NDArray[np.intp]:
        """Return where each ring begins."""
        return np.asarray(np.cumsum(self.sizes) - self.sizes)

    @cached_property
    def blocks(self) -> list[slice]:
        """Divide the positions into blocks of whole rings."""
        first = np.unique(self.starts // POSITIONS_AT_ONCE, return_index=True)[1]
        edges = [*self.starts[first].tolist(), int(self.sizes.sum())]
        return [slice(*pair) for pair in pairwise(edges)]

    @cached_property
    def positions(self) -> tuple[Array, Array]:
        """Return separations [pixel] and position angles [degree]."""
        angle = 360.0 * self._along / np.repeat(self.sizes, self.sizes)
        return np.repeat(self.radius_pix, self.sizes), angle

    @property
    def _along(self) -> NDArray[np.intp]:
        """Number of each position along its ring."""
        return np.asarray(np.arange(self.sizes.sum()) - np.repeat(self.starts, self.sizes))

    @cached_property
    def sets(self) -> NDArray[np.intp]:
        """Number of the ring and phase of each position: with those of the same it is compared."""
        phases = self.shapes[:, 1]
        first = np.cumsum(phases) - phases
        return np.asarray(
            np.repeat(first, self.sizes) + self._along % np.repeat(phases, self.sizes)
        )


@dataclass(frozen=True, eq=False)
class NoiseRings:
    """Fluxes along circles about the star, and the noise among independent positions."""

    places: RingPlaces
    flux: Array  # (n_trunc, n)
    used: NDArray[np.bool_]  # (n,), False where unknown, and on known sources

    def of(self, ring: int, values: Array, /) -> Array:
        """Return the values of one ring, ``(..., n_position, n_phase)``."""
        start, size = self.places.starts[ring], self.places.sizes[ring]
        part = values[..., start : start + size]
        return part.reshape(*values.shape[:-1], *self.places.shapes[ring])

    def without(self, sources: KnownSources, observation: Observation, /) -> NoiseRings:
        """Exclude the positions that sources cover."""
        if not sources:
            return self
        scale, fwhm = observation.pixel_scale_arcsec, observation.fwhm_pix
        (radius, angle), used = self.places.positions, self.used.copy()

        def _exclude(block: slice) -> None:
            for source in sources:
                used[block] &= ~source.covers(radius[block] * scale, angle[block], fwhm * scale)

        threads.map_ordered(_exclude, self.places.blocks)
        return replace(self, used=used)

    def needed(self, truncation: int, statistic: Statistic, /) -> list[Array]:
        r"""Return the flux that a source needs at each position that is used, to be detected there.

        For each ring. The flux is added to what is there: skewed noise leaves less than the mean at
        most places. A source is read where the flux about it is highest, which in noise of scatter
        s lies above that at its own place by :math:`s / \tau` (two coordinates are free).
        """
        mean, scatter, number = self.others(truncation)
        tau = statistic.taus(number + 1)
        need = mean + (tau - 1.0 / tau) * scatter - self.flux[truncation]
        known = self.used & np.isfinite(need)
        parts = zip(*(np.split(a, self.places.starts[1:]) for a in (need, known)), strict=True)
        return [values[at] for values, at in parts]

    def count(self, ring: int, /) -> int:
        """Return the number of positions of a ring that are used, median over starting angles."""
        return int(np.median(self.of(ring, self.used).sum(axis=0)))

    def others(self, truncation: int, /) -> Others:
        """Return mean, scatter and number of the other positions of each position.

        The others are those of the same starting angle without the position itself: sums over
        all, less its own term, taken about the mean of all so that they do not cancel. They are
        kept.
        """
        if truncation not in self._known:
            self._known[truncation] = self._others(truncation)
        return self._known[truncation]

    @cached_property
    def _known(self) -> dict[int, Others]:
        return {}

    def _others(self, truncation: int) -> Others:
        flux, used, sets = self.flux[truncation], self.used, self.places.sets
        out = Others(np.empty(flux.shape), np.empty(flux.shape), np.empty(flux.shape, np.intp))

        def _fill(block: slice) -> None:
            found = _others_of_sets(flux[block], used[block], sets[block] - sets[block.start])
            for array, values in zip(out, found, strict=True):
                array[block] = values

        threads.map_ordered(_fill, self.places.blocks)
        return out


def _others_of_sets(flux: Array, used: NDArray[np.bool_], own: NDArray[np.intp]) -> Others:
    """Do what `NoiseRings.others` does, for positions of whole sets of these numbers."""

    def _sums(values: Array) -> Array:
        return np.bincount(own, values)[own]

    count = _sums(used.astype(np.float64))
    number = count - used
    enough = number >= 2
    m = np.where(enough, number, 2.0)
    middle = _sums(np.where(used, flux, 0.0)) / np.maximum(count, 1.0)
    off = np.where(used, flux - middle, 0.0)
    square = off**2
    mean = (_sums(off) - off) / m
    left = np.maximum(_sums(square) - square - m * mean**2, 0.0)
    return Others(
        np.where(enough, mean + middle, np.nan),
        np.where(enough, np.sqrt(left / (m - 1.0)), np.nan),
        number.astype(np.intp),
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

    def needed(self, truncation: int, statistic: Statistic, /) -> list[Array]:
        """Return the flux that a source needs at each position, as `NoiseRings.needed`.

        For each separation.
        """
        each = self.rings.needed(truncation, statistic)
        about = [each[i : i + 3] for i in range(0, len(each), 3)]
        return [
            np.concatenate(three) if all(part.size for part in three) else three[1]
            for three in about
        ]

    def limits(self, truncation: int, statistic: Statistic, /) -> Array:
        """Return the flux at which half of the sources are detected; NaN for too few positions."""
        needed = self.needed(truncation, statistic)
        return np.array([np.median(part) if part.size else np.nan for part in needed])

    def count(self, separation: int, /) -> int:
        """Return the number of positions at a separation, as `NoiseRings.count`."""
        return self.rings.count(3 * separation + 1)

    def flux(self, separation: int, truncation: int, /) -> Array:
        """Return the fluxes at independent positions that are used."""
        ring = 3 * separation + 1
        flux, used = (
            self.rings.of(ring, a) for a in (self.rings.flux[truncation], self.rings.used)
        )
        return np.asarray(flux[:, 0][used[:, 0]])


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
    places = RingPlaces(radius_pix, np.array(shapes, np.intp).reshape(-1, 2))
    flux = maps.sample(*places.positions)
    rings = NoiseRings(places, flux, np.isfinite(flux[0]))
    return rings.without(known_sources, observation)
