"""The flux of a source anywhere on the sky, by a matched filter, and its noise along rings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lyot.algorithms.statistics import n_positions
from lyot.analysis.observation import Observation
from lyot.analysis.response import SubtractedExposure, inject, onto_box, respond
from lyot.compute import threads
from lyot.types import Array

MATCHED, APERTURE = "matched", "aperture"
TEMPLATE_FWHM = 1.5
MIN_COVERAGE = 0.5
LEAST_TRANSMISSION = 1e-3
RING_STEP_PIX, PHASE_STEP_PIX = 0.5, 0.5
EXCLUDED_FWHM = 1.5


@dataclass(frozen=True)
class Known:
    """A source that does not count as noise.

    Attributes
    ----------
    separation_arcsec, pa_deg : float
        Where it is.
    radius_arcsec : float or None
        What is left out about it; 1.5 FWHM by default.
    """

    separation_arcsec: float
    pa_deg: float
    radius_arcsec: float | None = None

    def covers(self, separation_arcsec: Array, pa_deg: Array, fwhm_arcsec: float, /) -> Array:
        """Tell which places are left out.

        Parameters
        ----------
        separation_arcsec, pa_deg : ndarray, shape (...)
            The places.
        fwhm_arcsec : float
            FWHM [arcsec].

        Returns
        -------
        ndarray of bool, shape (...)
            True within the radius.
        """
        limit = self.radius_arcsec or EXCLUDED_FWHM * fwhm_arcsec
        far = _distance(separation_arcsec, pa_deg, self.separation_arcsec, self.pa_deg)
        return np.asarray(far <= limit)


@dataclass(frozen=True)
class KnownDisc:
    """A disc seen edge-on, or nearly: two opposite sectors that do not count as noise.

    Attributes
    ----------
    pa_deg : float
        Position angle of its major axis [degree].
    half_width_deg : float
        Half the opening of each sector [degree].
    """

    pa_deg: float
    half_width_deg: float

    def covers(self, separation_arcsec: Array, pa_deg: Array, fwhm_arcsec: float, /) -> Array:
        """Tell which places are left out.

        Parameters
        ----------
        separation_arcsec, pa_deg : ndarray, shape (...)
            The places.
        fwhm_arcsec : float
            FWHM [arcsec].

        Returns
        -------
        ndarray of bool, shape (...)
            True within the sectors.
        """
        del separation_arcsec, fwhm_arcsec
        turn = np.abs((np.asarray(pa_deg) - self.pa_deg + 90.0) % 180.0 - 90.0)
        return np.asarray(turn <= self.half_width_deg)


@dataclass(frozen=True, eq=False)
class FluxMaps:
    """Flux of a source centered on any place, estimated on the residuals of all exposures.

    Attributes
    ----------
    observation : Observation
        The reduction.
    method : {"matched", "aperture"}
        Weighted with the PSF, or summed in an aperture of one FWHM and corrected to the total.
    """

    observation: Observation
    method: str = MATCHED

    @cached_property
    def half_pix(self) -> int:
        """Half the width of the filter without its middle pixel [pixel]."""
        return min(
            int(np.ceil(TEMPLATE_FWHM * self.observation.fwhm_pix)), self.observation.psf.half_pix
        )

    def template(self, dy: float, dx: float, /) -> tuple[Array, Array]:
        """Return the filter, and the PSF on its pixels, at a fraction of a pixel.

        Parameters
        ----------
        dy, dx : float
            Offset from the middle pixel [pixel].

        Returns
        -------
        filter, psf : ndarray, shape (2 * half_pix + 1, 2 * half_pix + 1)
            The flux is the sum of filter and image over that of filter and PSF.
        """
        psf, n = self.observation.psf, self.half_pix
        middle = psf.half_pix
        image = psf.stamp(dy, dx)[middle - n : middle + n + 1, middle - n : middle + n + 1]
        y, x = np.mgrid[-n : n + 1, -n : n + 1]
        return self._filter(image, np.hypot(y - dy, x - dx)), image

    def _filter(self, image: Array, distance: Array) -> Array:
        """The filter where the PSF has this image, at these distances from its center."""
        if self.method == MATCHED:
            return image
        return np.clip(0.5 * self.observation.fwhm_pix + 0.5 - distance, 0.0, 1.0)

    @cached_property
    def images(self) -> list[Array]:
        """For each exposure the flux at every pixel, ``(n_trunc, n_y, n_x)``; NaN where little
        of the filter lies on good pixels."""
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
    def _smooth(self) -> list[tuple[Array, Array]]:
        """Coefficients of cubic splines through the images, and where they are not known."""
        from scipy.ndimage import spline_filter

        out = []
        for images in self.images:
            missing = ~np.isfinite(images[0])
            filled = np.where(np.isfinite(images), images, 0.0)
            out.append((np.array([spline_filter(f, order=3) for f in filled]), missing))
        return out

    def weights(self, separation_pix: Array, pa_deg: Array, /) -> tuple[Array, Array]:
        """Return how much each exposure counts at some places, and its transmission there.

        Parameters
        ----------
        separation_pix, pa_deg : ndarray, shape (...)
            The places.

        Returns
        -------
        weight, transmission : ndarray, shape (n_exp, ...)
            Number of integrations times transmission, zero where there is no estimate; and the
            transmission of the mask.
        """
        weights, through = [], []
        for exposure, (_, missing) in zip(self.observation.exposures, self._smooth, strict=True):
            y, x = exposure.position(separation_pix, pa_deg)
            t = self.observation.transmission.at(y, x, star_yx=exposure.star.yx)
            inside = (y >= 0) & (y <= exposure.shape[0] - 1) & (x >= 0)
            inside &= x <= exposure.shape[1] - 1
            row = np.clip(np.rint(y).astype(int), 0, exposure.shape[0] - 1)
            column = np.clip(np.rint(x).astype(int), 0, exposure.shape[1] - 1)
            known = inside & ~missing[row, column]
            weights.append(
                np.where(known, len(exposure.bad) * np.maximum(t, LEAST_TRANSMISSION), 0.0)
            )
            through.append(t)
        return np.array(weights), np.array(through)

    def sample(self, separation_pix: Array, pa_deg: Array, /) -> Array:
        """Return the flux at some places, the weighted mean over the exposures.

        Parameters
        ----------
        separation_pix, pa_deg : ndarray, shape (...)
            Separation [pixel] and position angle [degree].

        Returns
        -------
        ndarray, shape (n_trunc, ...)
            Flux as measured, not corrected for the throughput; NaN where no exposure has any.
        """
        from scipy.ndimage import map_coordinates

        separation_pix, pa_deg = np.broadcast_arrays(separation_pix, pa_deg)
        weight, _ = self.weights(separation_pix, pa_deg)
        total = np.zeros((len(self.observation.n_modes), *separation_pix.shape))
        for e, (exposure, (splines, _)) in enumerate(
            zip(self.observation.exposures, self._smooth, strict=True)
        ):
            at = np.stack(exposure.position(separation_pix, pa_deg))
            for t, spline in enumerate(splines):
                found = map_coordinates(spline, at, order=3, prefilter=False, mode="nearest")
                total[t] += weight[e] * found
        norm = weight.sum(axis=0)
        return np.where(norm > 0, total / np.where(norm > 0, norm, 1.0), np.nan)

    def throughput(self, separation_pix: float, pa_deg: float, /, *, flux: float = 1.0) -> Array:
        """Return the fraction of a source's flux that is measured, by exact injection.

        Parameters
        ----------
        separation_pix : float
            Separation [pixel].
        pa_deg : float
            Position angle [degree].
        flux : float, optional
            Its flux; it matters where references hold the source.

        Returns
        -------
        ndarray, shape (2, n_trunc)
            With the transmission of the mask, and without it; NaN where there is no estimate.
        """
        weight, through = self.weights(np.asarray(separation_pix), np.asarray(pa_deg))
        total, bare = (
            np.zeros(len(self.observation.n_modes)),
            np.zeros(len(self.observation.n_modes)),
        )
        if not weight.any():
            return np.full((2, len(total)), np.nan)
        for e, exposure in enumerate(self.observation.exposures):
            if weight[e] > 0:
                part = self._kept(exposure, separation_pix, pa_deg, flux)
                total += weight[e] * float(through[e]) * part
                bare += weight[e] * part
        return np.stack([total, bare]) / weight.sum()

    def _kept(
        self, exposure: SubtractedExposure, separation_pix: float, pa_deg: float, flux: float
    ) -> Array:
        """Fraction of a source's flux that one exposure keeps, the mask left out."""
        y, x = (float(v) for v in exposure.position(separation_pix, pa_deg))
        wanted, view = self.observation.psf.place(y, x, exposure.shape, half_pix=self.half_pix)
        if exposure.in_refs is None:
            box, image = self.observation.psf.place(y, x, exposure.shape)
            added = respond(exposure, box, image[None], wanted)[:, 0]
        else:
            box, whole = inject(exposure, self.observation.psf, separation_pix, pa_deg, flux=flux)
            added = onto_box(whole, box, wanted) / flux
        rows, columns = np.mgrid[wanted]
        q = self._filter(view, np.hypot(rows - y, columns - x))
        good = np.isfinite(added[0])
        return np.asarray(
            (np.where(good, added, 0.0) * q).sum(axis=(1, 2)) / (q * view)[good].sum()
        )


@dataclass(frozen=True, eq=False)
class Rings:
    """Fluxes along circles about the star, and the noise among independent positions.

    Attributes
    ----------
    radius_pix : ndarray, shape (n_ring,)
        Radii [pixel].
    flux : list of ndarray, shape (n_trunc, n_position, n_phase)
        Flux at independent positions (one FWHM apart), for each starting angle.
    used : list of ndarray of bool, shape (n_position, n_phase)
        False where there is no estimate, or a known source.
    """

    radius_pix: Array
    flux: list[Array]
    used: list[Array]

    def noise(self, ring: int, truncation: int, /) -> float:
        """Return the standard deviation of the fluxes at independent positions.

        Parameters
        ----------
        ring : int
            Which ring.
        truncation : int
            Which number of modes.

        Returns
        -------
        float
            What a tested position is compared with: the scatter of the others, its median over
            all positions, so that half of the sources at the limit are found. NaN where too few
            positions are left.
        """
        scatter = self.others(ring, truncation)[1][self.used[ring]]
        scatter = scatter[np.isfinite(scatter)]
        return float(np.median(scatter)) if scatter.size else float("nan")

    def count(self, ring: int, /) -> int:
        """Return how many independent positions are left.

        Parameters
        ----------
        ring : int
            Which ring.

        Returns
        -------
        int
            Median over the starting angles.
        """
        return int(np.median(self.used[ring].sum(axis=0)))

    def others(self, ring: int, truncation: int, /) -> tuple[Array, Array, Array]:
        """Return mean, scatter and number of the other positions, for every position.

        Parameters
        ----------
        ring : int
            Which ring.
        truncation : int
            Which number of modes.

        Returns
        -------
        mean, scatter, number : ndarray, shape (n_position, n_phase)
            Of the positions of the same starting angle, the own one left out.
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


def make_rings(
    maps: FluxMaps, radius_pix: Array, /, *, known: tuple[Known | KnownDisc, ...] = ()
) -> Rings:
    """Sample the fluxes along circles.

    Parameters
    ----------
    maps : FluxMaps
        The fluxes.
    radius_pix : ndarray, shape (n_ring,)
        Radii [pixel].
    known : tuple of Known or KnownDisc, optional
        Sources that do not count as noise.

    Returns
    -------
    Rings
        At each radius as many independent positions as fit on the circle.
    """
    observation = maps.observation
    fwhm, scale = observation.fwhm_pix, observation.pixel_scale_arcsec
    separations, angles, shapes = [], [], []
    for r in radius_pix:
        n = max(n_positions(float(r) / fwhm), 1)
        k = max(int(np.ceil(2.0 * np.pi * r / n / PHASE_STEP_PIX)), 1)
        angle = 360.0 * (np.arange(n)[:, None] + np.arange(k)[None, :] / k) / n
        separations.append(np.full(angle.size, float(r)))
        angles.append(angle.ravel())
        shapes.append((n, k))
    separation, angle = np.concatenate(separations), np.concatenate(angles)
    flux = maps.sample(separation, angle)
    used = np.isfinite(flux[0])
    for source in known:
        used &= ~source.covers(separation * scale, angle, fwhm * scale)
    ends = np.cumsum([n * k for n, k in shapes])[:-1]
    return Rings(
        np.asarray(radius_pix, dtype=np.float64),
        [
            part.reshape(len(flux), *shape)
            for part, shape in zip(np.split(flux, ends, axis=1), shapes, strict=True)
        ],
        [part.reshape(shape) for part, shape in zip(np.split(used, ends), shapes, strict=True)],
    )


def _distance(r: Array, pa_deg: Array, other_r: float, other_pa_deg: float) -> Array:
    turn = np.radians(pa_deg - other_pa_deg)
    return np.sqrt(np.maximum(r**2 + other_r**2 - 2.0 * r * other_r * np.cos(turn), 0.0))


@dataclass(frozen=True, eq=False)
class SkyGrid:
    """A grid of the sky, north up and east to the left, with the star on a pixel's center.

    Attributes
    ----------
    half_pix : int
        Half its width without the middle pixel.
    """

    half_pix: int

    @property
    def offsets(self) -> tuple[Array, Array]:
        """Offset of each pixel to the east and to the north [pixel]."""
        y, x = np.mgrid[-self.half_pix : self.half_pix + 1, -self.half_pix : self.half_pix + 1]
        return -x.astype(np.float64), y.astype(np.float64)

    @property
    def polar(self) -> tuple[Array, Array]:
        """Separation [pixel] and position angle [degree] of each pixel."""
        east, north = self.offsets
        return np.hypot(east, north), np.degrees(np.arctan2(east, north)) % 360.0


def sky_grid(observation: Observation, /) -> SkyGrid:
    """Return the grid that holds the frames of all exposures.

    Parameters
    ----------
    observation : Observation
        The reduction.

    Returns
    -------
    SkyGrid
        With the pixel scale of the detector.
    """
    reach = [
        max(e.star.y, e.star.x, e.shape[0] - 1 - e.star.y, e.shape[1] - 1 - e.star.x)
        for e in observation.exposures
    ]
    return SkyGrid(int(np.ceil(max(reach))))
