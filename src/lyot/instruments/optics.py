"""Images of point sources through a coronagraph: pupil, focal-plane mask, Lyot stop, detector.

The propagation is semi-analytic (Soummer et al. 2007, doi:10.1364/OE.15.015935): only the part of
the focal plane that the mask changes is computed, and subtracted from the pupil.

The matrix products depend in the last bit on the threads of the linear algebra: callers hold it at
one (`lyot.compute.threads.calculation`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lyot.instruments.coronagraphs import Coronagraph, NoMask
from lyot.instruments.filters import Filter
from lyot.instruments.telescope import ARCSEC_PER_RADIAN, Pupil

N_PUPIL = 192
"""Samples across the pupil."""


@dataclass(frozen=True)
class CoronagraphModel:
    """A coronagraph that makes images of point sources.

    Attributes
    ----------
    pupil : Pupil
        Entrance pupil.
    coronagraph : Coronagraph
        Focal-plane mask and Lyot stop.
    filter : Filter
        Wavelengths.
    pixel_scale_arcsec : float
        Pixel scale [arcsec].
    shape : tuple of int
        ``(n_y, n_x)`` of the images.
    oversample : int
        Samples per pixel and axis before pixels are integrated.
    n_wavelengths : int
        Number of wavelengths across the filter.

    Examples
    --------
    >>> from lyot.instruments import NIRCAM
    >>> model = NIRCAM.model("MASK335R", "F335M", (32, 32), n_wavelengths=1)
    >>> behind = model.image().sum()
    >>> bool(behind < 0.02 * model.unocculted.image().sum())
    True
    """

    pupil: Pupil
    coronagraph: Coronagraph
    filter: Filter
    pixel_scale_arcsec: float
    shape: tuple[int, int]
    oversample: int = 3
    n_wavelengths: int = 3

    @cached_property
    def wavelengths_m(self) -> NDArray[Any]:
        """The wavelengths at which images are computed [m]."""
        u = (np.arange(self.n_wavelengths) + 0.5) / self.n_wavelengths - 0.5
        return (self.filter.pivot_um + u * self.filter.width_um) * 1e-6

    @property
    def lyot_throughput(self) -> float:
        """Fraction of the flux in the pupil that passes the Lyot stop, without a mask."""
        pupil, stop = self._planes
        return float(np.sum((pupil * stop) ** 2) / np.sum(pupil**2))

    @property
    def unocculted(self) -> CoronagraphModel:
        """The same without the focal-plane mask, through the Lyot stop all the same."""
        name, stop = self.coronagraph.name, self.coronagraph.stop
        return replace(self, coronagraph=NoMask(name=name, stop=stop))

    @property
    def _planes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Amplitudes of the pupil and of the Lyot stop."""
        return self.pupil.amplitude(N_PUPIL), self.coronagraph.stop.amplitude(self.pupil, N_PUPIL)

    def image(
        self,
        *,
        wavefront_m: NDArray[Any] | None = None,
        source_xy_arcsec: tuple[float, float] = (0.0, 0.0),
        center_xy: tuple[float, float] | None = None,
    ) -> NDArray[Any]:
        """Make the image of a point source of unit flux.

        Parameters
        ----------
        wavefront_m : ndarray, shape (N_PUPIL, N_PUPIL), optional
            Wavefront error [m].
        source_xy_arcsec : tuple of float, optional
            Position of the source with respect to the mask [arcsec], along x and y.
        center_xy : tuple of float, optional
            Pixel on which the mask lies [pixel, 0-based]; the middle of the frame by default.

        Returns
        -------
        ndarray, shape (n_y, n_x)
            Fraction of the source's flux in the telescope pupil that falls on each pixel.
        """
        images = [
            self._monochromatic(w, wavefront_m, source_xy_arcsec, center_xy)
            for w in self.wavelengths_m
        ]
        return np.mean(images, axis=0)

    def _monochromatic(
        self,
        wavelength: float,
        wavefront: Any,
        source_xy: tuple[float, float],
        center_xy: tuple[float, float] | None,
    ) -> NDArray[Any]:
        pupil, stop = self._planes
        grid = _pupil_grid(self.pupil)
        tilt = grid[None, :] * source_xy[0] + grid[:, None] * source_xy[1]
        path = tilt / ARCSEC_PER_RADIAN + (0.0 if wavefront is None else wavefront)
        field: NDArray[Any] = pupil * np.exp(2j * np.pi * path / wavelength)
        power = float(np.sum(pupil**2))
        if self.coronagraph.is_modeled:
            field = field - self._blocked(field, wavelength, grid)
        field = field * stop
        n_y, n_x = self.shape
        x0, y0 = center_xy or (0.5 * (n_x - 1), 0.5 * (n_y - 1))
        over = self.oversample
        step = self.pixel_scale_arcsec / over
        x = ((np.arange(n_x * over) - 0.5 * (over - 1)) / over - x0) * self.pixel_scale_arcsec
        y = ((np.arange(n_y * over) - 0.5 * (over - 1)) / over - y0) * self.pixel_scale_arcsec
        fine = np.abs(_transform(field, grid, x, y, wavelength, -1)) ** 2
        # Parseval: the sum over a full focal plane of this spacing is the power in the pupil.
        unit = step / ARCSEC_PER_RADIAN * (self.pupil.width_m / N_PUPIL) / wavelength
        fine *= unit**2 / power
        return fine.reshape(n_y, over, n_x, over).sum(axis=(1, 3))

    def _blocked(self, field: NDArray[Any], wavelength: float, grid: NDArray[Any]) -> NDArray[Any]:
        """Return the part of the pupil field that the mask takes away."""
        reach, n = self.coronagraph.focal_half_width_arcsec, self.coronagraph.focal_samples
        sky = (np.arange(n) - 0.5 * (n - 1)) * (2.0 * reach / n)
        focal = _transform(field, grid, sky, sky, wavelength, -1)
        x = sky[None, :] + self.coronagraph.star_x_arcsec(
            self.filter.lambda_over_d_arcsec(self.pupil.diameter_m)
        )
        focal = focal * (1.0 - self.coronagraph.amplitude(x, sky[:, None]))
        back = _transform(focal, sky, grid, grid, wavelength, +1)
        unit = (2.0 * reach / n) / ARCSEC_PER_RADIAN * (self.pupil.width_m / N_PUPIL) / wavelength
        return np.asarray(back * unit**2)


def _transform(
    field: NDArray[Any],
    u: NDArray[Any],
    x: NDArray[Any],
    y: NDArray[Any],
    wavelength: float,
    sign: int,
) -> NDArray[Any]:
    """Fourier transform between pupil [m] and focal plane [arcsec] as two matrix products."""
    k = sign * 2j * np.pi / (wavelength * ARCSEC_PER_RADIAN)
    return np.asarray(np.exp(k * np.outer(y, u)) @ field @ np.exp(k * np.outer(u, x)))


def _pupil_grid(pupil: Pupil) -> NDArray[np.float64]:
    """Coordinates of the samples along an axis of the pupil [m]."""
    return np.asarray((np.arange(N_PUPIL) - 0.5 * (N_PUPIL - 1)) * (pupil.width_m / N_PUPIL))


def draw_wavefront(
    pupil: Pupil, rms_m: float, rng: np.random.Generator, /, *, smooth_fraction: float = 0.5
) -> NDArray[Any]:
    """Draw a wavefront error: one part smooth over the pupil, one of each segment's own.

    Parameters
    ----------
    pupil : Pupil
        Pupil of the telescope.
    rms_m : float
        Root mean square over the pupil [m].
    rng : numpy.random.Generator
        Source of random numbers.
    smooth_fraction : float, optional
        Share of the variance in low-order Zernike terms, all of it for a mirror of one piece;
        the rest is piston and tilt of each segment.

    Returns
    -------
    ndarray, shape (N_PUPIL, N_PUPIL)
        Wavefront error [m], zero outside the pupil.

    Examples
    --------
    >>> import numpy as np
    >>> from lyot.instruments import NIRCAM
    >>> wavefront = draw_wavefront(NIRCAM.pupil, 60e-9, np.random.default_rng(1))
    >>> wavefront.shape
    (192, 192)
    """
    smooth_basis, segment_basis = _wavefront_bases(pupil)
    inside = pupil.amplitude(N_PUPIL) > 0.5
    parts = [(smooth_basis, smooth_fraction), (segment_basis, 1.0 - smooth_fraction)]
    if len(segment_basis) == 0:
        parts = [(smooth_basis, 1.0)]
    total = np.zeros((N_PUPIL, N_PUPIL))
    for basis, share in parts:
        draw = np.tensordot(rng.normal(size=len(basis)), basis, axes=1)
        total += draw * np.sqrt(share) * rms_m / max(float(draw[inside].std()), 1e-30)
    return total


@lru_cache(maxsize=2)
def _wavefront_bases(pupil: Pupil) -> tuple[NDArray[Any], NDArray[Any]]:
    """Low-order Zernike terms over the pupil, and piston and tilts of each segment."""
    import poppy

    inside = pupil.amplitude(N_PUPIL) > 0.5
    zernikes = poppy.zernike.zernike_basis(nterms=21, npix=N_PUPIL, outside=0.0)[4:]
    smooth = np.asarray(zernikes) * inside
    centers = pupil.segment_centers_m
    if not centers:
        return smooth, np.empty((0, N_PUPIL, N_PUPIL))
    grid = _pupil_grid(pupil)
    distance = np.stack([np.hypot(grid[None, :] - x, grid[:, None] - y) for x, y in centers])
    nearest = distance.argmin(axis=0)
    parts = []
    for i, (x, y) in enumerate(centers):
        segment = (nearest == i) & inside
        parts += [segment * 1.0, segment * (grid[None, :] - x), segment * (grid[:, None] - y)]
    return smooth, np.array(parts)
