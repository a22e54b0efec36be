"""A model of the coronagraphs of NIRCam and MIRI: segmented pupil, mask, Lyot stop.

The propagation is semi-analytic (Soummer et al. 2007, doi:10.1364/OE.15.015935): only the part of
the focal plane that the mask changes is computed, and taken off the pupil. Elements and matrix
Fourier transforms are those of `poppy` (Perrin et al. 2012, doi:10.1117/12.925230), which is
imported when it is first used.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lyot.instruments.masks import bar_position, known_coronagraph, mask_amplitude
from lyot.instruments.tables import ARCSEC_PER_RADIAN, ROUND, Filter, filter_named

PUPIL_WIDTH_M = 6.60
SEGMENT_FLAT_TO_FLAT_M = 1.32
SEGMENT_GAP_M = 0.007
N_PUPIL = 192
LYOT_UNDERSIZE = 0.86


@lru_cache(maxsize=4)
def segmented_pupil(n: int = N_PUPIL, /, *, undersize: float = 1.0) -> NDArray[Any]:
    """Return the transmission of a pupil of 18 hexagonal segments with three supports.

    Parameters
    ----------
    n : int, optional
        Number of samples across `PUPIL_WIDTH_M`.
    undersize : float, optional
        Factor on the size of each segment: below 1 for a Lyot stop.

    Returns
    -------
    ndarray, shape (n, n)
        Amplitude transmission, 0 to 1.
    """
    import poppy

    side = SEGMENT_FLAT_TO_FLAT_M / np.sqrt(3.0)
    gap = SEGMENT_GAP_M + SEGMENT_FLAT_TO_FLAT_M * (1.0 - undersize)
    parts = [
        poppy.MultiHexagonAperture(side=side * undersize, gap=gap, rings=2),
        poppy.SecondaryObscuration(
            secondary_radius=0.37,
            n_supports=3,
            support_width=0.11 / undersize**2,
            support_angle_offset=0.0,
        ),
    ]
    optic = poppy.CompoundAnalyticOptic(parts)
    return np.asarray(optic.sample(npix=n, grid_size=PUPIL_WIDTH_M, what="amplitude"))


@dataclass(frozen=True)
class CoronagraphModel:
    """A coronagraph that makes images of point sources.

    Attributes
    ----------
    mask : str
        Name of the coronagraph, for example MASK335R.
    filter : str
        Name of the filter, for example F444W.
    pixel_scale_arcsec : float
        Pixel scale [arcsec].
    shape : tuple of int
        ``(n_y, n_x)`` of the images.
    oversample : int
        Samples per pixel and axis before pixels are integrated.
    n_wavelengths : int
        Number of wavelengths across the filter.
    """

    mask: str
    filter: str
    pixel_scale_arcsec: float
    shape: tuple[int, int]
    oversample: int = 3
    n_wavelengths: int = 3

    @cached_property
    def wavelengths_m(self) -> NDArray[Any]:
        """The wavelengths at which images are computed [m]."""
        band: Filter = filter_named(self.filter)
        u = (np.arange(self.n_wavelengths) + 0.5) / self.n_wavelengths - 0.5
        return (band.pivot_um + u * band.width_um) * 1e-6

    @property
    def lyot_throughput(self) -> float:
        """Fraction of the flux in the pupil that passes the Lyot stop, without a mask."""
        pupil, stop = segmented_pupil(), segmented_pupil(undersize=LYOT_UNDERSIZE)
        return float(np.sum((pupil * stop) ** 2) / np.sum(pupil**2))

    def image(
        self,
        *,
        wavefront_m: NDArray[Any] | None = None,
        source_xy_arcsec: tuple[float, float] = (0.0, 0.0),
        center_xy: tuple[float, float] | None = None,
        with_mask: bool = True,
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
        with_mask : bool, optional
            False for the image without the focal-plane mask, through the Lyot stop all the
            same.

        Returns
        -------
        ndarray, shape (n_y, n_x)
            Fraction of the source's flux in the telescope pupil that falls on each pixel.
        """
        images = [
            self._monochromatic(w, wavefront_m, source_xy_arcsec, center_xy, with_mask)
            for w in self.wavelengths_m
        ]
        return np.mean(images, axis=0)

    def _monochromatic(
        self,
        wavelength: float,
        wavefront: Any,
        source_xy: tuple[float, float],
        center_xy: tuple[float, float] | None,
        with_mask: bool,
    ) -> NDArray[Any]:
        pupil, stop = segmented_pupil(), segmented_pupil(undersize=LYOT_UNDERSIZE)
        grid = (np.arange(N_PUPIL) - 0.5 * (N_PUPIL - 1)) * (PUPIL_WIDTH_M / N_PUPIL)
        tilt = grid[None, :] * source_xy[0] + grid[:, None] * source_xy[1]
        path = tilt / ARCSEC_PER_RADIAN + (0.0 if wavefront is None else wavefront)
        field: NDArray[Any] = pupil * np.exp(2j * np.pi * path / wavelength)
        power = float(np.sum(pupil**2))
        if with_mask:
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
        unit = step / ARCSEC_PER_RADIAN * (PUPIL_WIDTH_M / N_PUPIL) / wavelength
        fine *= unit**2 / power
        return fine.reshape(n_y, over, n_x, over).sum(axis=(1, 3))

    def _blocked(self, field: NDArray[Any], wavelength: float, grid: NDArray[Any]) -> NDArray[Any]:
        """Return the part of the pupil field that the mask takes away."""
        # A round mask changes little beyond a few arcseconds, bars and phase masks all of it.
        round_mask = known_coronagraph(self.mask).kind == ROUND
        reach, n = (5.0, 256) if round_mask else (10.0, 512)
        sky = (np.arange(n) - 0.5 * (n - 1)) * (2.0 * reach / n)
        focal = _transform(field, grid, sky, sky, wavelength, -1)
        x = sky[None, :] + bar_position(self.mask, filter_named(self.filter).pivot_um)
        focal = focal * (1.0 - mask_amplitude(self.mask, x, sky[:, None]))
        back = _transform(focal, sky, grid, grid, wavelength, +1)
        unit = (2.0 * reach / n) / ARCSEC_PER_RADIAN * (PUPIL_WIDTH_M / N_PUPIL) / wavelength
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


def segment_wavefront(
    rms_m: float, rng: np.random.Generator, /, *, smooth_fraction: float = 0.5
) -> NDArray[Any]:
    """Draw a wavefront error: one part per segment, one smooth over the pupil.

    Parameters
    ----------
    rms_m : float
        Root mean square over the pupil [m].
    rng : numpy.random.Generator
        Source of random numbers.
    smooth_fraction : float, optional
        Share of the variance in low-order Zernike terms; the rest is piston and tilt of each
        segment.

    Returns
    -------
    ndarray, shape (N_PUPIL, N_PUPIL)
        Wavefront error [m], zero outside the pupil.
    """
    smooth_basis, segment_basis = _wavefront_bases()
    total = np.zeros((N_PUPIL, N_PUPIL))
    for basis, share in ((smooth_basis, smooth_fraction), (segment_basis, 1.0 - smooth_fraction)):
        draw = np.tensordot(rng.normal(size=len(basis)), basis, axes=1)
        inside = draw[segmented_pupil() > 0.5]
        total += draw * np.sqrt(share) * rms_m / max(float(inside.std()), 1e-30)
    return total


@lru_cache(maxsize=1)
def _wavefront_bases() -> tuple[NDArray[Any], NDArray[Any]]:
    """Low-order Zernike terms over the pupil, and piston and tilts of each segment."""
    import poppy

    pupil = segmented_pupil() > 0.5
    zernikes = poppy.zernike.zernike_basis(nterms=21, npix=N_PUPIL, outside=0.0)[4:]
    smooth = np.asarray(zernikes) * pupil
    grid = (np.arange(N_PUPIL) - 0.5 * (N_PUPIL - 1)) * (PUPIL_WIDTH_M / N_PUPIL)
    pitch = SEGMENT_FLAT_TO_FLAT_M + SEGMENT_GAP_M
    centers = _segment_centers(pitch)
    distance = np.stack([np.hypot(grid[None, :] - x, grid[:, None] - y) for x, y in centers])
    nearest = distance.argmin(axis=0)
    parts = []
    for i, (x, y) in enumerate(centers):
        segment = (nearest == i) & pupil
        parts += [segment * 1.0, segment * (grid[None, :] - x), segment * (grid[:, None] - y)]
    return smooth, np.array(parts)


def _segment_centers(pitch: float) -> list[tuple[float, float]]:
    """Centers of the 18 segments of two hexagonal rings [m]."""
    centers = []
    for q in range(-2, 3):
        for r in range(-2, 3):
            if 0 < max(abs(q), abs(r), abs(q + r)) <= 2:
                centers.append((pitch * np.sqrt(3) / 2 * q, pitch * (r + q / 2)))
    return centers
