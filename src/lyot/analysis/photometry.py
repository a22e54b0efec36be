"""The flux of a source anywhere on the sky, and the fraction of it that is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from lyot.algorithms.convolution import convolve
from lyot.algorithms.geometry import radius_map
from lyot.algorithms.statistics import RingLevels, ring_levels
from lyot.analysis.observation import Observation
from lyot.analysis.statistic import MATCHED, WHITENED
from lyot.analysis.whitening import inverse_covariances, node_radii
from lyot.compute import cluster, threads
from lyot.types import Array, Box

MAX_TEMPLATE_FWHM = 1.5
MIN_COVERAGE, MIN_REACH = 0.5, 0.8
"""Share of the source's weight, and of a whitened filter's sum of sizes, on good pixels."""
PLACES_AT_ONCE = 2**15
"""Positions whose fluxes a thread reads."""
MIN_WEIGHT_TRANSMISSION = 1e-3
"""Transmission at which the weight of an exposure no longer falls."""


PATCH_FWHM = 9.0
"""Distance from a source that is put in up to which its light is followed."""
Source = tuple[float, float, Array]
"""Separation [pixel], position angle [degree], and flux for each number of modes."""
_BY_EXPOSURE = ("images", "_splines", "_inverses", "_filters", "_levels", "_spreads")


class AddedFlux(NamedTuple):
    """What a source adds to the flux about its place."""

    parts: list[tuple[Array, Array]]  # of each exposure: first pixel; splines (n_trunc, n_y, n_x)
    scale: float

    def at(self, e: int, yx: Array, /) -> Array:
        """Return it on pixels of an exposure, ``(n_trunc, ...)``."""
        first, splines = self.parts[e]
        at = yx - first.reshape(2, *(1,) * (yx.ndim - 1))
        return self.scale * _spline_values(splines, at, mode="constant")


def _spline_values(splines: Array, yx: Array, /, *, mode: Literal["nearest", "constant"]) -> Array:
    from scipy.ndimage import map_coordinates

    values = [map_coordinates(s, yx, order=3, prefilter=False, mode=mode) for s in splines]
    return np.array(values)


@dataclass(frozen=True, eq=False)
class FluxMaps:
    r"""Flux of a source centered on any position, estimated on the residuals of all exposures.

    With a filter q on an exposure's residual d, :math:`F = \sum q d / \sum q p`, both sums over
    good pixels: 1 for a source of unit flux, whatever is missing. Exposures are averaged with the
    transmission of the mask at the position over the variance of the flux at that separation, each
    at its own roll: nothing is resampled. `flux_by` is "whitened" (the PSF weighted with the
    inverse covariance of the residual, `lyot.analysis.whitening`), "matched" (the PSF) or
    "aperture" (of one FWHM). `sources` are no noise for the covariance; `added` is the light of one
    that is put in.
    """

    observation: Observation
    flux_by: str = WHITENED
    aperture_fwhm: float = 1.0  # diameter of the aperture, at most twice MAX_TEMPLATE_FWHM
    sources: tuple[Source, ...] = ()
    added: AddedFlux | None = None

    def only(self, exposures: Sequence[int], /) -> FluxMaps:
        """Return the maps of some of the exposures; what was computed for them is kept."""
        some = [self.observation.exposures[e] for e in exposures]
        maps = replace(self, observation=replace(self.observation, exposures=some, folder=None))
        for name in _BY_EXPOSURE:
            if name in self.__dict__:
                maps.__dict__[name] = [self.__dict__[name][e] for e in exposures]
        return maps

    def prepare(self) -> None:
        """Make what all positions need, once, before threads ask for it."""
        _ = self._splines, self._spreads, self._levels

    def with_added(self, added: AddedFlux, /) -> FluxMaps:
        """Return the maps with the light of a source put in, seen by the same filters."""
        self.prepare()
        maps = replace(self, added=added)
        maps.__dict__.update({n: self.__dict__[n] for n in _BY_EXPOSURE if n in self.__dict__})
        return maps

    @cached_property
    def half_pix(self) -> int:
        """Half the width of the filter without its middle pixel [pixel]."""
        reach = int(np.ceil(MAX_TEMPLATE_FWHM * self.observation.fwhm_pix))
        return min(reach, self.observation.psf.half_pix)

    @cached_property
    def _nodes(self) -> Array:
        """Separations [pixel] of the filters; between them fluxes are interpolated."""
        if self.flux_by != WHITENED:
            return np.ones(1)
        return node_radii(self.observation.fwhm_pix, self.observation.reach_pix)

    @cached_property
    def _inverses(self) -> list[Array]:
        exposures, fwhm = self.observation.exposures, self.observation.fwhm_pix
        return threads.map_ordered(
            lambda e: inverse_covariances(
                exposures[e], self._nodes, self.half_pix, fwhm, light=self._light(e)
            ),
            range(len(exposures)),
        )

    def _light(self, e: int) -> Array | None:
        """The light of the sources on an exposure, ``(n_trunc, n_y, n_x)``; None without any."""
        exposure = self.observation.exposures[e]
        on_it = [s for s in self.sources if exposure.contains(*exposure.position(*s[:2]))]
        if not on_it:
            return None
        light = np.zeros_like(exposure.residual)
        for separation_pix, pa_deg, flux in on_it:
            source = self.observation.source(exposure, separation_pix, pa_deg)
            box, image = source._replace(transmission=1.0).on(exposure)
            light[:, *box] += np.abs(flux[:, None, None] * image)
        return light

    def _shares(self, radius_pix: Array) -> Array:
        """Share of each filter at separations, ``(n_node, ...)``."""
        log_r, nodes = np.log(np.maximum(radius_pix, 1.0)), np.log(self._nodes)
        return np.array([np.interp(log_r, nodes, one) for one in np.eye(len(nodes))])

    def _template(
        self, e: int, dy: float, dx: float, nodes: Array | slice = slice(None)
    ) -> tuple[Array, Array]:
        """Filters of an exposure off the middle pixel by a fraction, and the PSF on their pixels.

        At some nodes, ``(n_node, n_trunc, n_y, n_x)``, of unit flux for the PSF.
        """
        psf, n = self.observation.psf, self.half_pix
        middle = psf.half_pix
        image = psf.stamp(dy, dx)[middle - n : middle + n + 1, middle - n : middle + n + 1]
        if self.flux_by == WHITENED:
            q = self._inverses[e][nodes] @ image.ravel()
            q = q.reshape(*q.shape[:2], *image.shape)
        elif self.flux_by == MATCHED:
            q = image[None, None]
        else:
            y, x = np.mgrid[-n : n + 1, -n : n + 1]
            radius = 0.5 * self.aperture_fwhm * self.observation.fwhm_pix
            aperture = radius + 0.5 - np.hypot(y - dy, x - dx)
            q = np.clip(aperture, 0.0, 1.0)[None, None]
        q = q / (q * image).sum(axis=(2, 3), keepdims=True)
        return np.broadcast_to(q, (len(q), len(self.observation.n_modes), *image.shape)), image

    @cached_property
    def _filters(self) -> list[tuple[Array, Array]]:
        """For each exposure the filters and the PSF of a source in the middle of a pixel."""
        return [self._template(e, 0.0, 0.0) for e in range(len(self.observation.exposures))]

    @cached_property
    def images(self) -> list[Array]:
        """For each exposure the flux at every pixel, ``(n_trunc, n_y, n_x)``.

        NaN where less than `MIN_COVERAGE` of the filter's weight lies on good pixels, or the edge
        cuts a whitened filter.
        """
        exposures, _ = self.observation.exposures, self._filters
        return threads.map_ordered(
            lambda e: self._filtered(e, exposures[e].residual, (slice(None), slice(None))),
            range(len(exposures)),
        )

    def _filtered(self, e: int, pixels: Array, where: Box) -> Array:
        """The flux at every pixel of a box, by the pixels in it."""
        exposure, n = self.observation.exposures[e], self.half_pix
        filters, p = self._filters[e]
        shares = self._shares(radius_map(exposure.shape, exposure.star.yx)[where])
        out = np.zeros_like(pixels)
        for q, share in zip(filters, shares, strict=True):
            if not share.any():
                continue
            # Where this filter has a share, and the pixels that it needs there.
            rows, columns = (np.flatnonzero((share > 0).any(axis=axis)) for axis in (1, 0))
            box = tuple(slice(max(i[0] - n, 0), i[-1] + n + 1) for i in (rows, columns))
            part, share = pixels[:, *box], share[box]
            good = np.isfinite(part)
            turned, weight = q[:, ::-1, ::-1], (q * p)[:, ::-1, ::-1]
            size = np.abs(turned)
            [total] = convolve(np.where(good, part, 0.0), turned)
            covered, reach = convolve(good.astype(np.float64), weight, size)
            enough = covered > MIN_COVERAGE
            if self.flux_by == WHITENED:  # cut, a filter takes the level with it
                enough &= reach > MIN_REACH * size.sum(axis=(1, 2), keepdims=True)
            flux = np.where(enough, total / np.where(enough, covered, 1.0), np.nan)
            out[:, *box] += np.where(share > 0, share * flux, 0.0)
        return out

    def flux_of(self, separation_pix: float, pa_deg: float, /, *, flux: float) -> AddedFlux:
        """Return what a source of a flux before the mask adds to the flux about its place.

        By its exact response at that flux, within `PATCH_FWHM`.
        """
        from scipy.ndimage import spline_filter

        observation, parts = self.observation, []
        reach = int(np.ceil(PATCH_FWHM * observation.fwhm_pix)) + self.half_pix
        for e, exposure in enumerate(observation.exposures):
            y, x = (float(v) for v in exposure.position(separation_pix, pa_deg))
            if not exposure.contains(y, x):
                parts.append((np.zeros(2), np.zeros((len(observation.n_modes), 1, 1))))
                continue
            corner = max(round(y) - reach, 0), max(round(x) - reach, 0)
            n_y, n_x = exposure.shape
            box = (
                slice(corner[0], min(round(y) + reach + 1, n_y)),
                slice(corner[1], min(round(x) + reach + 1, n_x)),
            )
            source = observation.source(exposure, separation_pix, pa_deg)
            light = flux * exposure.response.per_flux(source, box, flux=flux)
            images = np.nan_to_num(self._filtered(e, light, box))
            splines = np.array([spline_filter(image, order=3) for image in images])
            parts.append((np.array(corner, float), splines))
        return AddedFlux(parts, 1.0)

    @cached_property
    def _splines(self) -> list[Array]:
        """Coefficients of cubic splines through the images."""
        from scipy.ndimage import spline_filter

        def _filtered(images: Array) -> Array:
            filled = np.where(np.isfinite(images), images, 0.0)
            return np.array([spline_filter(each, order=3) for each in filled])

        return threads.map_ordered(_filtered, self.images)

    @cached_property
    def _levels(self) -> list[RingLevels]:
        """Of the flux of each exposure, with the largest number of modes."""
        t, width = self.observation.truncation(None), self.observation.fwhm_pix
        return [
            ring_levels(image[t], radius_map(exposure.shape, exposure.star.yx), width=width)
            for exposure, image in zip(self.observation.exposures, self.images, strict=True)
        ]

    def precisions(self, separation_pix: Array, /) -> Array:
        """Return one over the variance of each exposure's flux at separations, ``(n_exp, ...)``.

        Where one has no noise that is known, the numbers of integrations.
        """
        sigma = np.array([levels.sigma_at(separation_pix) for levels in self._levels])
        n_int = np.array([len(exposure.bad) for exposure in self.observation.exposures], float)
        n_int = n_int.reshape(-1, *(1,) * (sigma.ndim - 1))
        known = np.isfinite(sigma).all(axis=0) & (sigma > 0).all(axis=0)
        return np.where(known, 1.0 / np.where(known, sigma, 1.0) ** 2, n_int)

    def _placed(self, separation_pix: Array, pa_deg: Array) -> tuple[Array, Array, Array]:
        """Pixels ``(n_exp, 2, ...)`` of positions, and each exposure's weight and transmission."""
        places, weights, transmissions = [], [], []
        of_each = zip(
            self.observation.exposures,
            self.images,
            self.precisions(separation_pix),
            strict=True,
        )
        for exposure, images, precision in of_each:
            y, x = exposure.position(separation_pix, pa_deg)
            transmission = self.observation.transmission.at(y, x, mask_yx=exposure.mask_yx)
            row = np.clip(np.rint(y).astype(int), 0, exposure.shape[0] - 1)
            column = np.clip(np.rint(x).astype(int), 0, exposure.shape[1] - 1)
            weight = precision * np.maximum(transmission, MIN_WEIGHT_TRANSMISSION)
            known = exposure.contains(y, x) & np.isfinite(images[0][row, column])
            weights.append(np.where(known, weight, 0.0))
            transmissions.append(transmission)
            places.append(np.stack([y, x]))
        return np.array(places), np.array(weights), np.array(transmissions)

    def weights(self, separation_pix: Array, pa_deg: Array, /) -> tuple[Array, Array]:
        """Return each exposure's weight and transmission at positions, ``(n_exp, ...)`` both.

        The weight is the transmission over the variance of the flux; zero where it is unknown.
        """
        return self._placed(separation_pix, pa_deg)[1:]

    def transmission(self, separation_pix: Array, pa_deg: Array, /) -> tuple[Array, Array]:
        """Return the weighted mean transmission at positions, and the total weight."""
        weight, transmission = self.weights(separation_pix, pa_deg)
        norm = weight.sum(axis=0)
        return (weight * transmission).sum(axis=0) / np.where(norm > 0, norm, 1.0), norm

    def sample(self, separation_pix: Array, pa_deg: Array, /) -> Array:
        """Return the flux at positions, ``(n_trunc, ...)``, not corrected for the throughput.

        The weighted mean over the exposures; NaN where no exposure has any.
        """
        separation_pix, pa_deg = np.broadcast_arrays(separation_pix, pa_deg)
        r, pa, splines = separation_pix.ravel(), pa_deg.ravel(), self._splines

        def _part(part: slice) -> Array:
            places, weights, _ = self._placed(r[part], pa[part])
            total = np.zeros((len(self.observation.n_modes), places.shape[-1]))
            for e, (yx, weight) in enumerate(zip(places, weights, strict=True)):
                total += weight * _spline_values(splines[e], yx, mode="nearest")
                if self.added is not None:
                    total += weight * self.added.at(e, yx)
            norm = weights.sum(axis=0)
            return np.where(norm > 0, total / np.where(norm > 0, norm, 1.0), np.nan)

        parts = [slice(i, i + PLACES_AT_ONCE) for i in range(0, max(r.size, 1), PLACES_AT_ONCE)]
        found = np.concatenate(threads.map_ordered(_part, parts), axis=1)
        return found.reshape(-1, *separation_pix.shape)

    def throughput(self, separation_pix: float, pa_deg: float, /, *, flux: float = 1.0) -> Array:
        """Return the fraction of a source's flux that is measured, ``(2, n_trunc)``.

        By exact injection, with the transmission of the mask and without it; NaN where the flux
        is unknown. The flux of the source matters where references contain it.
        """
        place = (separation_pix, pa_deg)
        if place in self._throughputs:
            return self._throughputs[place]
        weight, transmission = self.weights(*map(np.asarray, place))
        n = len(self.observation.n_modes)
        if not weight.any():
            return np.full((2, n), np.nan)
        total, bare = np.zeros(n), np.zeros(n)
        for e in range(len(self.observation.exposures)):
            if weight[e] > 0:
                part = self._subtraction_throughput(e, separation_pix, pa_deg, flux)
                total += weight[e] * float(transmission[e]) * part
                bare += weight[e] * part
        found = np.stack([total, bare]) / weight.sum()
        if all(exposure.response.is_linear for exposure in self.observation.exposures):
            self._throughputs[place] = found
        return found

    @cached_property
    def _throughputs(self) -> dict[tuple[float, float], Array]:
        """What was found at places, where it does not depend on the flux."""
        return {}

    def _subtraction_throughput(
        self, e: int, separation_pix: float, pa_deg: float, flux: float
    ) -> Array:
        """Fraction of a source's flux that the subtraction of one exposure leaves."""
        exposure, n = self.observation.exposures[e], self.half_pix
        y, x = (float(v) for v in exposure.position(separation_pix, pa_deg))
        source = self.observation.source(exposure, separation_pix, pa_deg)
        source = source._replace(transmission=1.0)
        shares = self._shares(np.hypot(y - exposure.star.y, x - exposure.star.x))
        nodes = np.flatnonzero(shares)
        filters, image = self._template(e, y - round(y), x - round(x), nodes)
        # The frame's edge may cut the filter.
        low = round(y) - n, round(x) - n
        wanted = tuple(
            slice(max(a, 0), min(a + 2 * n + 1, size))
            for a, size in zip(low, exposure.shape, strict=True)
        )
        cut = tuple(slice(w.start - a, w.stop - a) for w, a in zip(wanted, low, strict=True))
        q, view = np.tensordot(shares[nodes], filters, axes=1)[:, *cut], image[cut]
        added = exposure.response.per_flux(source, (wanted[0], wanted[1]), flux=flux)
        good = np.isfinite(added)
        total = (np.where(good, added, 0.0) * q).sum(axis=(1, 2))
        return np.asarray(total / (good * q * view).sum(axis=(1, 2)))

    @cached_property
    def _spreads(self) -> list[Array]:
        """For each exposure the flux that filters see about a source of unit flux.

        ``(n_node, n_trunc, n, n)``, without what the subtraction changes.
        """
        stamp, out = self.observation.psf.stamp(0.0, 0.0), []
        for e in range(len(self.observation.exposures)):
            turned = self._filters[e][0][..., ::-1, ::-1]
            out += convolve(stamp, turned)
        return out

    def crosstalk(
        self, source: tuple[float, float], separation_pix: Array, pa_deg: Array, /
    ) -> Array:
        """Return what a source of unit flux adds to the flux at positions, ``(n_trunc, n)``.

        `source` is its separation [pixel] and position angle.
        """
        from scipy.ndimage import map_coordinates

        n, share = self.observation.psf.half_pix, self._shares(np.asarray(source[0]))
        places, weights, _ = self._placed(
            np.append(separation_pix, source[0]), np.append(pa_deg, source[1])
        )
        weights = weights[:, :-1]
        total = np.zeros((len(self.observation.n_modes), len(pa_deg)))
        for yx, weight, spreads in zip(places, weights, self._spreads, strict=True):
            offset = yx[:, :-1] - yx[:, -1:] + n
            for t, image in enumerate(np.tensordot(share, spreads, axes=1)):
                total[t] += weight * map_coordinates(image, offset)
        return np.asarray(total / np.maximum(weights.sum(axis=0), 1e-30))


Injection = tuple[float, float, float]
"""Separation [pixel] and position angle [degree] of a source, and its flux."""


def injection_angles(n_angles: int, number: int, /) -> list[float]:
    """Return evenly spread position angles, turned from one separation to the next."""
    return [360.0 * (k + 0.25) / n_angles + 7.0 * number for k in range(n_angles)]


def throughputs(
    maps: FluxMaps,
    radius_pix: Array,
    n_angles: int,
    flux: Array,
    /,
    *,
    tasks: cluster.Tasks | None = None,
) -> Array:
    """Inject sources over separations and evenly spread position angles: the fraction measured.

    With the transmission of the mask and without it, ``(2, n_trunc, n_sep, n_angles)``. The flux
    of the source at each separation matters where references contain it.
    """
    positions = [
        (float(r), pa, float(flux[j]))
        for j, r in enumerate(radius_pix)
        for pa in injection_angles(n_angles, j)
    ]
    stored = maps.observation.without_pixels
    if tasks is None or tasks.is_here or stored is None:
        found = _inject_here(maps, positions)
    else:
        n = max(-(-len(positions) // (4 * tasks.n_workers)), 1)
        parts = [positions[i : i + n] for i in range(0, len(positions), n)]
        jobs = [(replace(maps, observation=stored), part) for part in parts]
        found = np.concatenate(list(tasks.ordered(_inject_on_worker, jobs)))
    shaped = found.reshape(len(radius_pix), n_angles, 2, -1)
    return np.moveaxis(shaped, (2, 3, 0, 1), (0, 1, 2, 3))


def _inject_here(maps: FluxMaps, positions: Sequence[Injection]) -> Array:
    reach = maps.observation.reach_pix + maps.observation.fwhm_pix
    maps.prepare()

    def _one(position: Injection) -> Array:
        separation_pix, pa_deg, flux = position
        if separation_pix > reach:
            return np.full((2, len(maps.observation.n_modes)), np.nan)
        return maps.throughput(separation_pix, pa_deg, flux=flux)

    return np.array(threads.map_ordered(_one, positions))


def _inject_on_worker(job: tuple[FluxMaps, list[Injection]]) -> Array:
    """Inject into an observation that is on disk, with the filters that its maps have here."""
    maps, positions = job
    with maps.observation.with_pixels() as observation:
        return _inject_here(replace(maps, observation=observation), positions)
