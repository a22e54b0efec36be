"""The flux of a source anywhere on the sky, and the fraction of it that is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from lyot.analysis.exposure import SubtractedExposure
from lyot.analysis.observation import Observation
from lyot.analysis.statistic import MATCHED
from lyot.compute import cluster, threads
from lyot.types import Array

MAX_TEMPLATE_FWHM = 1.5
MIN_COVERAGE = 0.5
MIN_WEIGHT_TRANSMISSION = 1e-3
"""Transmission at which the weight of an exposure no longer falls."""


@dataclass(frozen=True, eq=False)
class FluxMaps:
    r"""Flux of a source centered on any position, estimated on the residuals of all exposures.

    With a filter q (the PSF p itself, or an aperture) on an exposure's residual d,
    :math:`F = \sum q d / \sum q p`, both sums over good pixels: 1 for a source of unit flux,
    whatever is missing. Exposures are averaged with their number of integrations times the
    transmission of the mask at the position, each at its own roll: nothing is resampled.
    `flux_by` is "matched" (weighted with the PSF) or "aperture" (summed in one FWHM).
    """

    observation: Observation
    flux_by: str = MATCHED

    @cached_property
    def half_pix(self) -> int:
        """Half the width of the filter without its middle pixel [pixel]."""
        reach = int(np.ceil(MAX_TEMPLATE_FWHM * self.observation.fwhm_pix))
        return min(reach, self.observation.psf.half_pix)

    def template(self, dy: float, dx: float, /) -> tuple[Array, Array]:
        """Return filter and PSF ``(2 half_pix + 1, ...)`` off the middle pixel by a fraction."""
        psf, n = self.observation.psf, self.half_pix
        middle = psf.half_pix
        image = psf.stamp(dy, dx)[middle - n : middle + n + 1, middle - n : middle + n + 1]
        y, x = np.mgrid[-n : n + 1, -n : n + 1]
        return self._filter(image, np.hypot(y - dy, x - dx)), image

    def _filter(self, image: Array, distance: Array) -> Array:
        """The filter where the PSF has this image, at these distances from its center."""
        if self.flux_by == MATCHED:
            return image
        return np.clip(0.5 * self.observation.fwhm_pix + 0.5 - distance, 0.0, 1.0)

    @cached_property
    def images(self) -> list[Array]:
        """For each exposure the flux at every pixel, ``(n_trunc, n_y, n_x)``.

        NaN where less than `MIN_COVERAGE` of the filter's weight lies on good pixels.
        """
        from scipy.signal import fftconvolve

        q, p = self.template(0.0, 0.0)
        turned, weight = q[::-1, ::-1], (q * p)[::-1, ::-1]

        def _one(exposure: SubtractedExposure) -> Array:
            good = np.isfinite(exposure.residual)
            data = np.where(good, exposure.residual, 0.0)
            covered = fftconvolve(good[0].astype(np.float64), weight, mode="same")
            enough = covered > MIN_COVERAGE * weight.sum()
            out = np.empty_like(data)
            for t, image in enumerate(data):
                total = fftconvolve(image, turned, mode="same")
                out[t] = np.where(enough, total / np.where(enough, covered, 1.0), np.nan)
            return out

        return threads.map_ordered(_one, self.observation.exposures)

    @cached_property
    def _splines(self) -> list[tuple[Array, Array]]:
        """Coefficients of cubic splines through the images, and where those are NaN."""
        from scipy.ndimage import spline_filter

        out = []
        for images in self.images:
            missing = ~np.isfinite(images[0])
            filled = np.where(np.isfinite(images), images, 0.0)
            out.append((np.array([spline_filter(f, order=3) for f in filled]), missing))
        return out

    def weights(self, separation_pix: Array, pa_deg: Array, /) -> tuple[Array, Array]:
        """Return each exposure's weight and transmission at positions, ``(n_exp, ...)`` both.

        The weight is the number of integrations times the transmission; zero where the flux is
        unknown.
        """
        weights, transmissions = [], []
        for exposure, (_, missing) in zip(self.observation.exposures, self._splines, strict=True):
            y, x = exposure.position(separation_pix, pa_deg)
            transmission = self.observation.transmission.at(y, x, mask_yx=exposure.mask_yx)
            row = np.clip(np.rint(y).astype(int), 0, exposure.shape[0] - 1)
            column = np.clip(np.rint(x).astype(int), 0, exposure.shape[1] - 1)
            weight = len(exposure.bad) * np.maximum(transmission, MIN_WEIGHT_TRANSMISSION)
            weights.append(np.where(exposure.contains(y, x) & ~missing[row, column], weight, 0.0))
            transmissions.append(transmission)
        return np.array(weights), np.array(transmissions)

    def transmission(self, separation_pix: Array, pa_deg: Array, /) -> tuple[Array, Array]:
        """Return the weighted mean transmission at positions, and the total weight."""
        weight, transmission = self.weights(separation_pix, pa_deg)
        norm = weight.sum(axis=0)
        return (weight * transmission).sum(axis=0) / np.where(norm > 0, norm, 1.0), norm

    def sample(self, separation_pix: Array, pa_deg: Array, /) -> Array:
        """Return the flux at positions, ``(n_trunc, ...)``, not corrected for the throughput.

        The weighted mean over the exposures; NaN where no exposure has any.
        """
        from scipy.ndimage import map_coordinates

        separation_pix, pa_deg = np.broadcast_arrays(separation_pix, pa_deg)
        weight, _ = self.weights(separation_pix, pa_deg)
        total = np.zeros((len(self.observation.n_modes), *separation_pix.shape))
        for e, (exposure, (splines, _)) in enumerate(
            zip(self.observation.exposures, self._splines, strict=True)
        ):
            yx = np.stack(exposure.position(separation_pix, pa_deg))
            for t, spline in enumerate(splines):
                flux = map_coordinates(spline, yx, order=3, prefilter=False, mode="nearest")
                total[t] += weight[e] * flux
        norm = weight.sum(axis=0)
        return np.where(norm > 0, total / np.where(norm > 0, norm, 1.0), np.nan)

    def throughput(self, separation_pix: float, pa_deg: float, /, *, flux: float = 1.0) -> Array:
        """Return the fraction of a source's flux that is measured, ``(2, n_trunc)``.

        By exact injection, with the transmission of the mask and without it; NaN where the flux
        is unknown. The flux of the source matters where references contain it.
        """
        weight, transmission = self.weights(np.asarray(separation_pix), np.asarray(pa_deg))
        n = len(self.observation.n_modes)
        if not weight.any():
            return np.full((2, n), np.nan)
        total, bare = np.zeros(n), np.zeros(n)
        for e, exposure in enumerate(self.observation.exposures):
            if weight[e] > 0:
                part = self._subtraction_throughput(exposure, separation_pix, pa_deg, flux)
                total += weight[e] * float(transmission[e]) * part
                bare += weight[e] * part
        return np.stack([total, bare]) / weight.sum()

    def _subtraction_throughput(
        self, exposure: SubtractedExposure, separation_pix: float, pa_deg: float, flux: float
    ) -> Array:
        """Fraction of a source's flux that the subtraction of one exposure leaves."""
        y, x = (float(v) for v in exposure.position(separation_pix, pa_deg))
        wanted, view = self.observation.psf.place(y, x, exposure.shape, half_pix=self.half_pix)
        source = self.observation.source(exposure, separation_pix, pa_deg)
        source = source._replace(transmission=1.0)
        added = exposure.response.per_flux(source, wanted, flux=flux)
        rows, columns = np.mgrid[wanted]
        q = self._filter(view, np.hypot(rows - y, columns - x))
        good = np.isfinite(added[0])
        return np.asarray(
            (np.where(good, added, 0.0) * q).sum(axis=(1, 2)) / (q * view)[good].sum()
        )


class _Position(NamedTuple):
    """Where a source is injected, and its flux."""

    separation_pix: float
    pa_deg: float
    flux: float


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
    angles = 360.0 * (np.arange(n_angles) + 0.25) / n_angles
    positions = [
        _Position(float(r), float(pa) + 7.0 * j, float(flux[j]))
        for j, r in enumerate(radius_pix)
        for pa in angles
    ]
    stored = maps.observation.without_pixels
    if tasks is None or tasks.is_here or stored is None:
        found = _inject_here(maps, positions)
    else:
        n = max(-(-len(positions) // (4 * tasks.n_workers)), 1)
        jobs = [
            _Injections(stored, maps.flux_by, tuple(positions[i : i + n]))
            for i in range(0, len(positions), n)
        ]
        found = np.concatenate(list(tasks.ordered(_inject_on_worker, jobs)))
    shaped = found.reshape(len(radius_pix), n_angles, 2, -1)
    return np.moveaxis(shaped, (2, 3, 0, 1), (0, 1, 2, 3))


class _Injections(NamedTuple):
    """A job for a worker: an observation that is on disk, and the positions."""

    observation: Observation
    flux_by: str
    positions: tuple[_Position, ...]


def _inject_here(maps: FluxMaps, positions: Sequence[_Position]) -> Array:
    reach = maps.observation.reach_pix + maps.observation.fwhm_pix
    _ = maps._splines  # made once, not by every thread

    def _one(position: _Position) -> Array:
        if position.separation_pix > reach:
            return np.full((2, len(maps.observation.n_modes)), np.nan)
        return maps.throughput(position.separation_pix, position.pa_deg, flux=position.flux)

    return np.array(threads.map_ordered(_one, positions))


def _inject_on_worker(job: _Injections) -> Array:
    with job.observation.with_pixels() as observation:
        return _inject_here(FluxMaps(observation, job.flux_by), job.positions)
