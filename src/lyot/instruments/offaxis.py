"""The image of a point source anywhere behind a coronagraph, and how much of it passes.

The wave goes from the telescope's pupil to the focal-plane mask, from there to the Lyot stop and
to the detector (`lyot.instruments.wave`).

One normalization, everywhere: the flux of a source is that of its whole image through the Lyot
stop, without the mask. `PsfAndTransmission` says what it is made of.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.compute.threads import calculation, map_ordered
from lyot.errors import LyotError
from lyot.instruments import stops
from lyot.instruments.coronagraphs import Coronagraph, FourQuadrantMask
from lyot.instruments.filters import Band
from lyot.instruments.identity import checksum_of
from lyot.instruments.pupil import FLIGHT_PUPIL
from lyot.instruments.telescope import ARCSEC_PER_RADIAN, LyotStop, Pupil
from lyot.instruments.wave import Wave
from lyot.instruments.wavefront import WavefrontBudget, draw_wavefront, mean_transfer
from lyot.types import Array

N_PUPIL = 128
"""Samples across the pupil, of 52 mm: gaps and edges are grey. Images follow those of four times as
many to 0.3 % of the peak, transmissions to 2e-3."""

_MARGIN_PIX, _MARGIN_OF_MEAN_PIX = 3, 8
"""Edge of the computed image that the detector's response may reach across [pixel]; and that of the
mean over wavefront errors, which scatters some of the light far."""

_MAX_CYCLES_PER_SAMPLE = 0.4
"""Widest angle of an image: cycles of the wave's phase per sample of the pupil."""

_WAVELENGTHS, _WAVELENGTHS_PER_LOBE = 1.5, 0.7
"""Number of wavelengths of an image, rounded up: images follow those of 41 to 1e-3 of the peak."""

_NEAR_LAMBDA_D = 3.0
"""Radius about a source within which a mask must do the same for `Optics.is_beside_mask`."""


@dataclass(frozen=True)
class Detector:
    """How a detector samples and blurs.

    The coupling is capacitive, to each pixel beside, and to each above and below, where the
    calibration pipeline has not taken it out (keyword S_IPC); the diffusion of charge is Gaussian.
    """

    pixel_scale_arcsec: tuple[float, float]  # along x and y
    diffusion_arcsec: float = 0.0  # standard deviation
    coupling: tuple[float, float] = (0.0, 0.0)


class PsfAndTransmission(NamedTuple):
    """An image and what the mask leaves of the source: together, so that neither counts twice.

    A source of flux F puts ``F * transmission * image`` on the detector.

    Attributes
    ----------
    image : ndarray, shape (n, n)
        The image's shape; sums to `stamp_fraction`.
    transmission : float
        Flux behind the mask over flux without it, both through the Lyot stop and over all the sky.
    stamp_fraction : float
        Part of the flux that passes the mask that falls on the image.

    Examples
    --------
    >>> from lyot.instruments import NIRCAM
    >>> made = NIRCAM.optics("MASK335R", "F300M").psf((3.0, 1.0), n_pixels=49)
    >>> bool(abs(made.image.sum() - made.stamp_fraction) < 1e-12)
    True
    """

    image: NDArray[np.float64]
    transmission: float
    stamp_fraction: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Optics:
    """One coronagraphic mode that makes images of point sources.

    Attributes
    ----------
    mask : Coronagraph
        What stands in the focal plane.
    stop : LyotStop
        What stands in the pupil behind it.
    band : Band
        The light.
    detector : Detector
        What samples the image.
    wavefront : WavefrontBudget
        Size of the wavefront errors.
    drift_m : ndarray or None
        A wavefront error of the telescope besides, on the samples of the pupil [m].
    seed : int or None
        Which draw of the wavefront errors. None for the mean over draws, which is what is known of
        a source beside the mask; behind it, where the light that errors scatter is all there is,
        the mean is that of the images of several seeds.
    pupil : Pupil
        The telescope's pupil.
    n_pupil : int
        Samples across the pupil.
    max_change : float
        Most that the mask's transmission may change within 3 lambda/D of a source for the image
        without the mask, times a factor, to stand for the image behind it; 0 for never.

    Examples
    --------
    A planet 1 arcsec to the right of a star behind MASK335R in F444W:

    >>> from lyot.instruments import NIRCAM
    >>> made = NIRCAM.optics("MASK335R", "F444W").psf((1.0, 0.0), n_pixels=65)
    >>> print(f"{made.transmission:.2f} passes, {made.stamp_fraction:.2f} of it on the stamp")
    0.96 passes, 0.87 of it on the stamp
    """

    mask: Coronagraph
    stop: LyotStop
    band: Band
    detector: Detector
    wavefront: WavefrontBudget = field(default_factory=WavefrontBudget)
    drift_m: Array | None = None
    seed: int | None = None
    pupil: Pupil = FLIGHT_PUPIL
    n_pupil: int = N_PUPIL
    max_change: float = 0.01

    @property
    def stop_throughput(self) -> float:
        """Part of the light in the telescope's pupil that passes the stop without a mask."""
        return stops.throughput(self.stop, self.pupil)

    def __getstate__(self) -> dict[str, object]:
        """Leave out what is computed again."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @cached_property
    def checksum(self) -> str:
        """Checksum of all that images depend on, the package's code included.

        Empty where a part comes from elsewhere, whose code is not known.
        """
        parts = (*self.band, *self.__getstate__().values())
        return checksum_of(parts, of_package=(self.mask, self.stop, self.pupil))

    @cached_property
    def _waves(self) -> list[Wave]:
        before: Array | float = 0.0
        after: Array | float = 0.0
        open_part = self.pupil.amplitude(self.n_pupil)
        stop = stops.sampled(self.stop, self.pupil, self.n_pupil)
        if self.seed is not None:
            before, after = draw_wavefront(
                self.wavefront, self.n_pupil, seed=self.seed, pupil=self.pupil, stop=stop
            )
        if self.drift_m is not None:
            before = before + self.drift_m

        def _wave(wavelength: float) -> Wave:
            turn = 2j * np.pi / wavelength
            at_pupil, at_stop = open_part * np.exp(turn * before), stop * np.exp(turn * after)
            return Wave(wavelength, self.pupil.width_m, at_pupil, at_stop)

        return [_wave(float(w)) for w in self.band.wavelengths_m]

    @cached_property
    def _grids(self) -> dict[tuple[int, int], _Grid]:
        return {}

    def _grid(self, n_pixels: int, oversample: int) -> _Grid:
        if (n_pixels, oversample) not in self._grids:
            half_width = 0.5 * n_pixels * max(self.detector.pixel_scale_arcsec) / ARCSEC_PER_RADIAN
            lambda_d = float(self.band.wavelengths_m[0]) / self.pupil.width_m
            n_least = math.ceil(half_width / lambda_d / _MAX_CYCLES_PER_SAMPLE)
            if n_least > self.n_pupil:
                raise LyotError(
                    f"An image of {n_pixels} pixels needs n_pupil of {n_least} or more, not "
                    f"{self.n_pupil}."
                )
            self._grids[n_pixels, oversample] = _Grid(self, n_pixels, oversample)
        return self._grids[n_pixels, oversample]

    @calculation
    def psf(
        self,
        offset_xy_arcsec: tuple[float, float],
        /,
        *,
        n_pixels: int = 65,
        fraction_xy: tuple[float, float] = (0.0, 0.0),
        oversample: int = 1,
        with_mask: bool = True,
    ) -> PsfAndTransmission:
        """Make the image of a point source.

        Parameters
        ----------
        offset_xy_arcsec : tuple of float
            Place of the source with respect to the middle of the mask, along the detector's x and
            y [arcsec].
        n_pixels : int, optional
            Width of the image [pixel], odd.
        fraction_xy : tuple of float, optional
            Where the source lies from the middle of the middle pixel [pixel].
        oversample : int, optional
            Samples per pixel and axis; their sums over a pixel are what the detector sees.
        with_mask : bool, optional
            False for the image without the mask, of transmission 1.

        Returns
        -------
        PsfAndTransmission
            The image and what passes.

        Raises
        ------
        LyotError
            If the image is wider than the sampling of the pupil holds.

        Notes
        -----
        Where `is_beside_mask`, the image is that without the mask, which there is as good to 1 %.
        """
        optics = self.with_enough_wavelengths(n_pixels)
        grid = optics._grid(n_pixels, oversample)
        place = self.mask.along_axes(*offset_xy_arcsec)
        near = with_mask and not self.is_beside_mask(offset_xy_arcsec)

        def _one(item: tuple[Wave, float]) -> tuple[Array, float]:
            wave, weight = item
            arrived = wave.behind(self.mask, place) if near else wave.unmasked
            unit = weight / wave.open_power
            return unit * wave.image(arrived, grid, fraction_xy), unit * wave.power(arrived)

        parts = map_ordered(_one, zip(optics._waves, optics.band.weights, strict=True))
        passed = sum(part[1] for part in parts)
        samples = np.asarray(sum(part[0] for part in parts)) / passed
        image = grid.detect(samples, fraction_xy)
        if not near:
            passed = self._amplitude_squared(*place) if with_mask else 1.0
        return PsfAndTransmission(image, float(passed), float(image.sum()))

    @calculation
    def transmission(self, offset_xy_arcsec: tuple[float, float], /) -> float:
        """Return the part of a source's light that the mask lets pass, as `psf` does."""
        place = self.mask.along_axes(*offset_xy_arcsec)
        if self.is_beside_mask(offset_xy_arcsec):
            return self._amplitude_squared(*place)
        return self.exact_transmission(place)

    @calculation
    def exact_transmission(self, place_xy_arcsec: tuple[float, float], /) -> float:
        """Propagate a source at a place along the mask's own axes; return what passes."""

        def _one(item: tuple[Wave, float]) -> float:
            wave, weight = item
            arrived = wave.behind(self.mask, place_xy_arcsec)
            return weight * wave.power(arrived) / wave.open_power

        optics = self.with_enough_wavelengths(0)
        return float(sum(map_ordered(_one, zip(optics._waves, optics.band.weights, strict=True))))

    def with_fewer_wavelengths(self, n: int, /) -> Optics:
        """Return the same with at most so many wavelengths.

        They are those of the Gaussian quadrature of the band: what is a polynomial of the
        wavelength up to the order ``2 n - 1`` has the same mean.
        """
        return (
            self if len(self.band.weights) <= n else replace(self, band=_quadrature(self.band, n))
        )

    @cached_property
    def _fewer(self) -> dict[int, Optics]:
        return {}

    def with_enough_wavelengths(self, n_pixels: int) -> Optics:
        """Return the same with the wavelengths that an image needs, or one value for no pixels."""
        wavelengths, weights = self.band
        mean = float(weights @ wavelengths)
        width = np.sqrt(12.0 * (weights @ (wavelengths - mean) ** 2))
        half = 0.5 * n_pixels * max(self.detector.pixel_scale_arcsec) / ARCSEC_PER_RADIAN
        # Lobes r lambda/D away go through r width/lambda of their distance.
        lobes = half * self.pupil.diameter_m * width / mean**2
        n = math.ceil(_WAVELENGTHS + _WAVELENGTHS_PER_LOBE * lobes)
        if n not in self._fewer:
            self._fewer[n] = self.with_fewer_wavelengths(n)
        return self._fewer[n]

    def is_beside_mask(self, offset_xy_arcsec: tuple[float, float], /) -> bool:
        """Tell whether the mask changes the image by a factor alone, as far as `max_change`.

        Never behind a phase mask, whose boundaries reach everywhere.
        """
        return self.is_beside(self.mask.along_axes(*offset_xy_arcsec))

    def is_beside(self, place_xy_arcsec: tuple[float, float], /) -> bool:
        """Tell the same of a place along the mask's own axes."""
        if isinstance(self.mask, FourQuadrantMask):
            return False
        if not self.mask.is_modeled:
            return True
        x, y = place_xy_arcsec
        longest = float(self.band.wavelengths_m[-1])
        reach = _NEAR_LAMBDA_D * longest / self.pupil.diameter_m * ARCSEC_PER_RADIAN
        around = np.linspace(-reach, reach, 13)
        there = self.mask.amplitude(x + around[None, :], y + around[:, None]) ** 2
        within = np.hypot(around[None, :], around[:, None]) <= reach
        return float(np.ptp(there[within])) < self.max_change

    def _amplitude_squared(self, x: float, y: float) -> float:
        assert not isinstance(self.mask, FourQuadrantMask)
        return float(self.mask.amplitude(np.array(x), np.array(y))) ** 2

    def frame(
        self,
        offset_xy_arcsec: tuple[float, float],
        at_xy: tuple[float, float],
        shape: tuple[int, int],
        /,
    ) -> NDArray[np.float64]:
        """Return a whole frame with a source at a pixel: what passes the mask, of unit flux.

        The pupil is sampled as densely as the frame needs; see `sampled_for`.
        """
        column, row = (int(v) for v in np.round(at_xy))
        half = max(column, row, shape[1] - 1 - column, shape[0] - 1 - row, 1)
        fraction = (at_xy[0] - column, at_xy[1] - row)
        made = self.sampled_for(2 * half + 1).psf(
            offset_xy_arcsec, n_pixels=2 * half + 1, fraction_xy=fraction
        )
        rows = slice(half - row, half - row + shape[0])
        columns = slice(half - column, half - column + shape[1])
        return made.transmission * made.image[rows, columns]

    def sampled_for(self, n_pixels: int, /) -> Optics:
        """Return the same with as many samples across the pupil as an image needs."""
        optics = self
        while optics.widest(n_pixels) < n_pixels:
            optics = replace(optics, n_pupil=optics.n_pupil + 32)
        return optics

    def stamp_fraction(self, n_pixels: float, /) -> float:
        """Return the share of the flux of an off-axis image on a stamp of some pixels across."""
        smaller = self.widest(max(2 * int((n_pixels - 1) // 2) + 1, 1))
        widths = (smaller, self.widest(smaller + 2))
        made = [self.psf((0.0, 0.0), n_pixels=n, with_mask=False).stamp_fraction for n in widths]
        return float(np.interp(n_pixels, widths, made))

    def widest(self, n_pixels: int, /) -> int:
        """Return the widest odd image that the sampling of the pupil holds, up to a width."""
        lambda_d = float(self.band.wavelengths_m[0]) / self.pupil.width_m
        pixel = max(self.detector.pixel_scale_arcsec) / ARCSEC_PER_RADIAN
        most = int(2.0 * self.n_pupil * _MAX_CYCLES_PER_SAMPLE * lambda_d / pixel)
        return min(n_pixels, most - 1 + most % 2)


def _quadrature(band: Band, n: int) -> Band:
    """Return the nodes and weights of the Gaussian quadrature of a band, by Lanczos' algorithm."""
    wavelengths, weights = band
    middle, half = wavelengths.mean(), 0.5 * np.ptp(wavelengths)
    vectors = [np.sqrt(weights / weights.sum())]
    jacobi = np.zeros((n, n))
    for i in range(n):
        new = (wavelengths - middle) / half * vectors[-1]
        jacobi[i, i] = vectors[-1] @ new
        for _ in range(2):  # once is not enough to make it orthogonal to the last digits
            new = new - np.transpose(vectors) @ (vectors @ new)
        if i + 1 < n:
            jacobi[i, i + 1] = jacobi[i + 1, i] = np.linalg.norm(new)
            vectors.append(new / jacobi[i, i + 1])
    nodes, parts = np.linalg.eigh(jacobi)
    return Band(middle + half * nodes, weights.sum() * parts[0] ** 2)


class _Grid:
    """Samples of the image about the source, and what the detector makes of them."""

    def __init__(self, optics: Optics, n_pixels: int, oversample: int) -> None:
        self.pixel_arcsec = np.array(optics.detector.pixel_scale_arcsec)
        self._mask, self.tilt_deg = optics.mask, optics.mask.tilt_deg
        # Two samples a pixel hold all that the aperture passes in every band of the two cameras.
        self.finer = 2 if oversample == 1 else 1
        errors = np.hypot(optics.wavefront.telescope_m, optics.wavefront.instrument_m)
        scattered = (2.0 * np.pi * errors / optics.band.wavelengths_m[0]) ** 2
        far = optics.seed is None and scattered > 0.01
        self.margin = (_MARGIN_OF_MEAN_PIX if far else _MARGIN_PIX) * oversample * self.finer
        n = (n_pixels * oversample - 1) * self.finer + 1 + 2 * self.margin
        self.places_pix = (np.arange(n) - 0.5 * (n - 1)) / (oversample * self.finer)
        self.x_arcsec, self.y_arcsec = np.multiply.outer(self.pixel_arcsec, self.places_pix)
        self.area_of_arcsec = self.pixel_arcsec / oversample
        self._response = _response(optics, n, oversample * self.finer, oversample)

    def detect(self, samples: Array, fraction_xy: tuple[float, float]) -> NDArray[np.float64]:
        """Blur as the detector does, and keep what falls on its pixels."""
        if self.tilt_deg:
            samples = self._turned(samples, fraction_xy)
        blurred = np.fft.irfft2(np.fft.rfft2(samples) * self._response, s=samples.shape)
        kept = slice(self.margin, len(blurred) - self.margin, self.finer)
        return np.asarray(blurred[kept, kept])

    def _turned(self, samples: Array, fraction_xy: tuple[float, float]) -> Array:
        """Read an image along the axes of the mask at the samples of the detector."""
        from scipy.ndimage import map_coordinates

        x = (self.places_pix[None, :] - fraction_xy[0]) * self.pixel_arcsec[0]
        y = (self.places_pix[:, None] - fraction_xy[1]) * self.pixel_arcsec[1]
        along, across = self._mask.along_axes(x, y)
        step_y, step_x = (p[1] - p[0] for p in (self.y_arcsec, self.x_arcsec))
        middle = 0.5 * (len(samples) - 1)
        at = [across / step_y + middle, along / step_x + middle]
        return np.asarray(map_coordinates(samples, at, order=3, mode="nearest"))


def _response(optics: Optics, n: int, per_pixel: int, oversample: int) -> Array:
    """Transfer function of pixel, diffusion, coupling and mean wavefront, for ``n x n`` samples."""
    detector = optics.detector
    # Cycles per pixel along x and y.
    u, v = np.fft.rfftfreq(n)[None, :] * per_pixel, np.fft.fftfreq(n)[:, None] * per_pixel
    x_scale, y_scale = detector.pixel_scale_arcsec
    sigma = 2.0 * (np.pi * detector.diffusion_arcsec) ** 2
    response = np.sinc(u / oversample) * np.sinc(v / oversample)
    response = response * np.exp(-sigma * ((u / x_scale) ** 2 + (v / y_scale) ** 2))
    for coupling, cycles in zip(detector.coupling, (u, v), strict=True):
        response = response * (1.0 - 2.0 * coupling * (1.0 - np.cos(2.0 * np.pi * cycles)))
    if optics.seed is None:
        from scipy.ndimage import map_coordinates

        # Weighted as the brightness of the core, which falls as the square of the wavelength.
        wavelengths, weights = optics.band
        wavelength = float(weights @ wavelengths**-1 / (weights @ wavelengths**-2))
        mean, step = mean_transfer(optics.wavefront, optics.pupil, optics.stop, wavelength)
        samples = ARCSEC_PER_RADIAN * wavelength / step
        x, y = optics.mask.along_axes(u / x_scale * samples, v / y_scale * samples)
        middle = len(mean) // 2
        response = response * map_coordinates(
            mean, np.broadcast_arrays(y + middle, x + middle), order=1, mode="nearest"
        )
    return np.asarray(response)
