"""The flux of a source anywhere on the sky, and the fraction of it that is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from lyot.algorithms.convolution import Kernels, convolve
from lyot.algorithms.geometry import box_about
from lyot.algorithms.statistics import RingLevels, ring_levels
from lyot.analysis.lights import inside
from lyot.analysis.observation import ROWS_AT_ONCE, Located, Observation
from lyot.analysis.statistic import MATCHED, WHITENED
from lyot.analysis.whitening import inverse_covariances, node_radii
from lyot.compute import cluster, threads
from lyot.types import Array, Box

MAX_TEMPLATE_FWHM = 1.5
MIN_COVERAGE, MIN_REACH = 0.5, 0.8
"""Share of the source's weight, and of a whitened filter's sum of sizes, on good pixels."""
PLACES_AT_ONCE, SOURCES_AT_ONCE, MAX_PATCH_PIX = 2**15, 144, 2**14
"""Positions whose fluxes a thread reads, sources that it puts in with the same references, and
pixels to which all filters are applied at once."""
N_TRIED = 12
"""Separations at which the completeness runs the search."""
MIN_WEIGHT_TRANSMISSION = 1e-3
"""Transmission at which the weight of an exposure no longer falls."""


PATCH_FWHM = 9.0
"""Distance from a source that is put in up to which its light is followed."""
Part = TypeVar("Part")
Source = tuple[float, float, Array]
"""Separation [pixel], position angle [degree], and flux for each number of modes."""
_BY_EXPOSURE = ("images", "_splines", "_inverses", "_filters", "_levels", "_spreads")


class Placed(NamedTuple):
    """Positions of the sky as the exposures see them, ``(n_exp, ...)``."""

    yx: Array  # (n_exp, 2, ...) [pixel]
    weight: Array  # the transmission over the variance of the flux; zero where it is unknown
    transmission: Array

    def part(self, *index: slice) -> Placed:
        """Return some of the positions."""
        at: Any = (..., *index)
        return Placed(*(array[at] for array in self))

    def mean(self, each: Array, /) -> Array:
        """Return the weighted mean of what each exposure has; NaN where none has any."""
        norm = self.weight.sum(axis=0)
        total = (self.weight * each).sum(axis=0)
        return np.where(norm > 0, total / np.where(norm > 0, norm, 1.0), np.nan)


class _Lit(NamedTuple):
    """What a source adds to an exposure over its flux, about its place."""

    yx: tuple[float, float]  # [pixel]
    reach_pix: int
    box: Box
    added: Array  # (n_trunc, n_rows, n_columns)
    transmission: float  # of the mask, where it is not in the light


class AddedFlux(NamedTuple):
    """What a source adds to the flux about its place."""

    parts: list[tuple[Array, Array]]  # of each exposure: first pixel; splines (n_trunc, n_y, n_x)

    def at(self, placed: Placed, truncation: int, /) -> Array:
        """Return it at positions, with one number of modes."""
        each = []
        for yx, (first, splines) in zip(placed.yx, self.parts, strict=True):
            at = yx - first.reshape(2, *(1,) * (yx.ndim - 1))
            each.append(_spline_values(splines[truncation], at, mode="constant"))
        return placed.mean(np.array(each))


def _spline_values(spline: Array, yx: Array, /, *, mode: Literal["nearest", "constant"]) -> Array:
    from scipy.ndimage import map_coordinates

    return np.asarray(map_coordinates(spline, yx, order=3, prefilter=False, mode=mode))


@dataclass(frozen=True, eq=False)
class FluxMaps:
    r"""Flux of a source centered on any position, estimated on the residuals of all exposures.

    With a filter q on an exposure's residual d, :math:`F = \sum q d / \sum q p`, both sums over
    good pixels: 1 for a source of unit flux, whatever is missing. Exposures are averaged with the
    transmission of the mask at the position over the variance of the flux at that separation, each
    at its own roll: nothing is resampled. `flux_by` is "whitened" (the PSF weighted with the
    inverse covariance of the residual, `lyot.analysis.whitening`), "matched" (the PSF) or
    "aperture" (of one FWHM). `sources` are no noise for the covariance.
    """

    observation: Observation
    flux_by: str = WHITENED
    aperture_fwhm: float = 1.0  # diameter of the aperture, at most twice MAX_TEMPLATE_FWHM
    sources: tuple[Source, ...] = ()

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
        nodes = np.arange(len(self._nodes), dtype=np.float64)
        at = np.interp(np.log(np.maximum(radius_pix, 1.0)), np.log(self._nodes), nodes)
        return np.maximum(1.0 - np.abs(at - nodes.reshape(-1, *(1,) * np.ndim(at))), 0.0)

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
        _ = self._filters
        return threads.map_ordered(
            lambda e: self._filtered(
                self._kernels(e), self.observation.exposures[e].residual, self._distances(e)
            ),
            range(len(self.observation.exposures)),
        )

    def _distances(self, e: int, box: Box = (slice(None), slice(None))) -> Array:
        """Separations [pixel] of the pixels of an exposure, or of a box."""
        exposure = self.observation.exposures[e]
        rows, columns = (np.arange(n)[part] for n, part in zip(exposure.shape, box, strict=True))
        return np.hypot(rows[:, None] - exposure.star.y, columns - exposure.star.x)

    def _kernels(self, e: int) -> tuple[Kernels, Kernels]:
        """The filters of an exposure; and the weights of pixels in them, and their sizes."""
        filters, p = self._filters[e]
        turned = filters[..., ::-1, ::-1]
        return Kernels(turned), Kernels((filters * p)[..., ::-1, ::-1], np.abs(turned))

    def _filtered(self, kernels: tuple[Kernels, Kernels], pixels: Array, distance: Array) -> Array:
        """The flux at pixels of some separations, by these pixels."""
        n, out, (of_data, of_good) = self.half_pix, np.zeros_like(pixels), kernels
        shares = self._shares(distance)
        used = np.flatnonzero(shares.any(axis=(1, 2))).tolist()
        groups = [(used, (slice(None), slice(None)))]
        if distance.size > MAX_PATCH_PIX:  # each filter where it has a share, and what it needs
            groups = []
            for k in used:
                rows, columns = (np.flatnonzero(shares[k].any(axis=axis)) for axis in (1, 0))
                box = (
                    slice(max(rows[0] - n, 0), rows[-1] + n + 1),
                    slice(max(columns[0] - n, 0), columns[-1] + n + 1),
                )
                groups.append(([k], box))
        for nodes, box in groups:
            part, share = pixels[:, *box], shares[nodes][:, None, *box]
            good = np.isfinite(part)
            [total] = of_data.over(np.where(good, part, 0.0), nodes)
            covered, reach = of_good.over(good.astype(np.float64), nodes)
            enough = covered > MIN_COVERAGE
            if self.flux_by == WHITENED:  # cut, a filter takes the level with it
                whole = of_good.kernels[1][nodes].sum(axis=(-2, -1), keepdims=True)
                enough &= reach > MIN_REACH * whole
            flux = np.where(enough, total / np.where(enough, covered, 1.0), np.nan)
            out[:, *box] += np.where(share > 0, share * flux, 0.0).sum(axis=0)
        return out

    def flux_of(self, separation_pix: Array, pa_deg: Array, /, *, flux: Array) -> list[AddedFlux]:
        """Return what sources at places ``(n,)``, of fluxes before the mask, add to the flux there.

        By their exact response at that flux, within `PATCH_FWHM`.
        """
        parts = self._by_exposure(self._splines_of, separation_pix, pa_deg, flux)
        return [AddedFlux(list(of_source)) for of_source in zip(*parts, strict=True)]

    def _splines_of(
        self, e: int, separation_pix: Array, pa_deg: Array, flux: Array
    ) -> list[tuple[Array, Array]]:
        """First pixel, and splines through the flux that sources add to an exposure."""
        from scipy.ndimage import spline_filter

        out = [(np.zeros(2), np.zeros((len(self.observation.n_modes), 1, 1)))] * len(flux)
        lit, kernels = self._lit(e, separation_pix, pa_deg, flux, self._patch_pix), self._kernels(e)
        for i, each in lit.items():
            image = flux[i] * each.transmission * each.added
            images = self._filtered(kernels, image, self._distances(e, each.box))
            splines = np.array([spline_filter(image, order=3) for image in np.nan_to_num(images)])
            out[i] = np.array([part.start for part in each.box], np.float64), splines
        return out

    def _by_exposure(
        self, function: Callable[..., Sequence[Part]], separation_pix: Array, *arrays: Array
    ) -> list[list[Part]]:
        """Ask of each exposure about places, of which some are taken together on a thread."""
        n, n_exp = len(separation_pix), len(self.observation.exposures)
        parts = [slice(i, i + SOURCES_AT_ONCE) for i in range(0, n, SOURCES_AT_ONCE)]
        found = threads.map_ordered(
            lambda job: function(job[0], *(a[job[1]] for a in (separation_pix, *arrays))),
            [(e, part) for e in range(n_exp) for part in parts],
        )
        m = len(parts)
        return [[one for part in found[e * m : e * m + m] for one in part] for e in range(n_exp)]

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
            ring_levels(image[t], self._distances(e), width=width)
            for e, image in enumerate(self.images)
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

    def placed(self, separation_pix: Array, pa_deg: Array, /) -> Placed:
        """Return positions as the exposures see them."""
        return self._weighted(self.observation.located(separation_pix, pa_deg), separation_pix)

    def _weighted(self, located: Located, separation_pix: Array) -> Placed:
        """Give each exposure's flux at positions its weight."""
        yx, inside, transmission = located
        weight, seen = np.zeros(inside.shape), inside.any(axis=0)
        weight[:, seen] = self.precisions(np.broadcast_to(separation_pix, seen.shape)[seen])
        for e, images in enumerate(self.images):
            row, column = np.rint(yx[e][:, inside[e]]).astype(int)
            known = inside[e].copy()
            known[known] = np.isfinite(images[0][row, column])
            weight[e] *= known * np.maximum(transmission[e], MIN_WEIGHT_TRANSMISSION)
        return Placed(yx, weight, transmission)

    def flux_at(self, placed: Placed, /) -> Array:
        """Return the flux at positions, ``(n_trunc, ...)``; NaN where no exposure has any."""
        each = np.zeros((len(self.observation.n_modes), *placed.weight.shape))
        for e, (splines, seen) in enumerate(zip(self._splines, placed.weight > 0, strict=True)):
            at = placed.yx[e][:, seen]
            for values, spline in zip(each[:, e], splines, strict=True):
                values[seen] = _spline_values(spline, at, mode="nearest")
        return np.array([placed.mean(of_one) for of_one in each])

    def sample(self, separation_pix: Array, pa_deg: Array, /) -> Array:
        """Return the flux at positions, ``(n_trunc, ...)``, not corrected for the throughput.

        The weighted mean over the exposures; NaN where no exposure has any.
        """
        separation_pix, pa_deg = np.broadcast_arrays(separation_pix, pa_deg)
        r, pa, _ = separation_pix.ravel(), pa_deg.ravel(), self._splines
        parts = [slice(i, i + PLACES_AT_ONCE) for i in range(0, max(r.size, 1), PLACES_AT_ONCE)]
        found = threads.map_ordered(lambda p: self.flux_at(self.placed(r[p], pa[p])), parts)
        n_trunc = len(self.observation.n_modes)
        return np.concatenate(found, axis=1).reshape(n_trunc, *separation_pix.shape)

    @cached_property
    def sky(self) -> Placed:
        """Place the positions of the grid of the sky."""
        return self._weighted(self.observation.sky, self.observation.grid.polar[0])

    @cached_property
    def sky_flux(self) -> Array:
        """Measure the flux there, ``(n_trunc, n_y, n_x)``."""
        sky, n = self.sky, self.sky.yx.shape[-2]
        parts = [slice(i, i + ROWS_AT_ONCE) for i in range(0, n, ROWS_AT_ONCE)]
        _ = self._splines
        rows = threads.map_ordered(lambda p: self.flux_at(sky.part(p, slice(None))), parts)
        return np.concatenate(rows, axis=1)

    @cached_property
    def sky_transmission(self) -> Array:
        """Average the transmission there, weighted; NaN where no exposure sees it."""
        return self.sky.mean(self.sky.transmission)

    def throughput(
        self, separation_pix: Array | float, pa_deg: Array | float, /, *, flux: Array | float = 1.0
    ) -> Array:
        """Return the fraction of a source's flux that is measured, ``(2, n_trunc, ...)``.

        By exact injection, with the transmission of the mask and without it; NaN where the flux
        is unknown. The flux of the source matters where references contain it.
        """
        arrays = np.broadcast_arrays(separation_pix, pa_deg, flux)
        r, pa, fluxes = (np.ravel(a).astype(np.float64) for a in arrays)
        if all(exposure.response.is_linear for exposure in self.observation.exposures):
            places, known = list(zip(r.tolist(), pa.tolist(), strict=True)), self._throughputs
            new = np.array([i for i, place in enumerate(places) if place not in known], int)
            found = self._injected(r[new], pa[new], fluxes[new])
            known.update(zip((places[i] for i in new), found, strict=True))
            values = np.array([known[place] for place in places])
        else:
            values = self._injected(r, pa, fluxes)
        values = values.reshape(r.size, 2, len(self.observation.n_modes))
        return np.moveaxis(values, 0, -1).reshape(*values.shape[1:], *arrays[0].shape)

    @cached_property
    def _throughputs(self) -> dict[tuple[float, float], Array]:
        """What was found at places, where it does not depend on the flux."""
        return {}

    def _injected(self, separation_pix: Array, pa_deg: Array, flux: Array) -> Array:
        """What `throughput` returns, ``(n, 2, n_trunc)``, by injection."""
        placed = self.placed(separation_pix, pa_deg)
        left = self._by_exposure(self._subtraction_throughputs, separation_pix, pa_deg, flux)
        weight, transmission = placed.weight[..., None], placed.transmission[..., None]
        shape = *placed.weight.shape, len(self.observation.n_modes)
        bare = np.where(weight > 0, weight * np.array(left).reshape(shape), 0.0)
        both = np.stack([(transmission * bare).sum(axis=0), bare.sum(axis=0)], axis=1)
        norm = weight.sum(axis=0)[:, None]
        return np.where(norm > 0, both / np.where(norm > 0, norm, 1.0), np.nan)

    def _subtraction_throughputs(
        self, e: int, separation_pix: Array, pa_deg: Array, flux: Array
    ) -> list[Array]:
        """Fraction of each source's flux that the subtraction of one exposure leaves.

        NaN beyond the frame.
        """
        exposure, n = self.observation.exposures[e], self.half_pix
        out = [np.full(len(self.observation.n_modes), np.nan)] * len(flux)
        for i, each in self._lit(e, separation_pix, pa_deg, flux, n, behind=False).items():
            y, x = each.yx
            share_of = self._shares(np.hypot(y - exposure.star.y, x - exposure.star.x))
            nodes = np.flatnonzero(share_of)
            filters, image = self._template(e, y - round(y), x - round(x), nodes)
            box = box_about(each.yx, n, exposure.shape)
            added = each.added[:, *inside(box, each.box)]
            # The frame's edge may cut the filter.
            low = round(y) - n, round(x) - n
            cut = tuple(slice(b.start - a, b.stop - a) for b, a in zip(box, low, strict=True))
            q, view = np.tensordot(share_of[nodes], filters, axes=1)[:, *cut], image[cut]
            good = np.isfinite(added)
            total = (np.where(good, added, 0.0) * q).sum(axis=(1, 2))
            with np.errstate(invalid="ignore", divide="ignore"):
                out[i] = total / (good * q * view).sum(axis=(1, 2))
        return out

    @property
    def _patch_pix(self) -> int:
        """Distance from a source up to which its light is followed [pixel]."""
        return int(np.ceil(PATCH_FWHM * self.observation.fwhm_pix)) + self.half_pix

    def follow(self, separation_pix: Array, pa_deg: Array, /) -> None:
        """Tell places where `flux_of` comes after `throughput`: their light is made once for both.

        Where no reference holds their sources.
        """
        places = zip(separation_pix.tolist(), pa_deg.tolist(), strict=True)
        self._followed.update((place, self._patch_pix) for place in places)

    @cached_property
    def _followed(self) -> dict[tuple[float, float], int]:
        """Distances up to which the light of places is wanted [pixel]."""
        return {}

    @cached_property
    def _held(self) -> list[dict[tuple[float, float], _Lit]]:
        """For each exposure the light of sources at the places that are followed."""
        return [{} for _ in self.observation.exposures]

    def _lit(
        self,
        e: int,
        separation_pix: Array,
        pa_deg: Array,
        flux: Array,
        reach_pix: int,
        *,
        behind: bool = True,
    ) -> dict[int, _Lit]:
        """The light of those sources that an exposure sees, by their number.

        Of a source of some flux `behind` the mask, or beside it.
        """
        exposure = self.observation.exposures[e]
        y, x = exposure.position(separation_pix, pa_deg)
        seen = np.flatnonzero(exposure.contains(y, x)).tolist()
        places = list(zip(separation_pix.tolist(), pa_deg.tolist(), strict=True))
        is_linear = exposure.response.is_linear
        held = self._held[e] if is_linear else {}
        new = [i for i in seen if places[i] not in held or held[places[i]].reach_pix < reach_pix]
        sources = self.observation.sources(exposure, separation_pix[new], pa_deg[new])
        through = [source.transmission for source in sources]
        if is_linear or not behind:
            sources = [source._replace(transmission=1.0) for source in sources]
        reaches = [max(self._followed.get(places[i], 0), reach_pix) for i in new]
        at = [(float(y[i]), float(x[i])) for i in new]
        boxes = [box_about(*each, exposure.shape) for each in zip(at, reaches, strict=True)]
        added = exposure.response.per_flux(sources, boxes, flux=flux[new].tolist())
        if not is_linear:
            through = [1.0] * len(new)
        made = map(_Lit, at, reaches, boxes, added, through)
        lit = dict(zip(new, made, strict=True))
        if is_linear:
            held.update((places[i], each) for i, each in lit.items() if places[i] in self._followed)
        return {i: lit[i] if i in lit else held[places[i]] for i in seen}

    @cached_property
    def _spreads(self) -> list[Array]:
        """For each exposure splines through the flux that filters see about a source of unit flux.

        ``(n_node, n_trunc, n, n)``, without what the subtraction changes.
        """
        from scipy.ndimage import spline_filter1d

        stamp, out = self.observation.psf.stamp(0.0, 0.0), []
        for e in range(len(self.observation.exposures)):
            [seen] = convolve(stamp, self._filters[e][0][..., ::-1, ::-1])
            for axis in (-2, -1):
                seen = spline_filter1d(seen, order=3, axis=axis)
            out.append(seen)
        return out

    def crosstalk(
        self,
        sources: Sequence[tuple[float, float]],
        sizes: Sequence[int],
        separation_pix: Array,
        pa_deg: Array,
        /,
    ) -> Array:
        """Return what sources of unit flux add to the flux at positions, ``(n_trunc, n)``.

        `sources` are separations [pixel] and position angles; for each of them so many positions
        follow one another.
        """
        placed, n = self.placed(separation_pix, pa_deg), self.observation.psf.half_pix
        of_sources = np.array(sources).reshape(-1, 2).T
        shares, ends = self._shares(of_sources[0]).T, np.cumsum(sizes)
        each = np.zeros((len(self.observation.n_modes), *placed.weight.shape))
        for e, exposure in enumerate(self.observation.exposures):
            places = np.asarray(exposure.position(*of_sources)).T
            for share, place, end, size in zip(shares, places, ends, sizes, strict=True):
                part, nodes = slice(end - size, end), np.flatnonzero(share)
                at = placed.yx[e][:, part] - place[:, None] + n
                splines = np.tensordot(share[nodes], self._spreads[e][nodes], axes=1)
                for t, spline in enumerate(splines):
                    each[t, e, part] = _spline_values(spline, at, mode="constant")
        return np.nan_to_num(np.array([placed.mean(seen) for seen in each]))


Injection = tuple[float, float, float]
"""Separation [pixel] and position angle [degree] of a source, and its flux."""


def tried_places(radius_pix: Array, n_angles: int, /) -> list[tuple[float, float]]:
    """Return those places of `throughputs`, at `N_TRIED` separations, where sources are sought."""
    some = range(0, len(radius_pix), -(-len(radius_pix) // N_TRIED))
    return [(float(radius_pix[j]), pa) for j in some for pa in injection_angles(n_angles, j)]


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
    r, pa, flux = np.array(positions).reshape(-1, 3).T
    out = np.full((len(r), 2, len(maps.observation.n_modes)), np.nan)
    inside = r <= reach
    out[inside] = np.moveaxis(maps.throughput(r[inside], pa[inside], flux=flux[inside]), -1, 0)
    return out


def _inject_on_worker(job: tuple[FluxMaps, list[Injection]]) -> Array:
    """Inject into an observation that is on disk, with the filters that its maps have here."""
    maps, positions = job
    with maps.observation.with_pixels() as observation:
        return _inject_here(replace(maps, observation=observation), positions)
