"""The image of a source: placed anywhere on the pixels, and as the mask deforms it near by.

One normalization: the flux of a source is that of its whole image; a stamp sums to its share.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms import fourier
from lyot.compute import threads
from lyot.errors import LyotError
from lyot.instruments.coronagraphs import Coronagraph
from lyot.instruments.filters import RAYLEIGH_JEANS, Filter, Spectrum
from lyot.instruments.instrument import Instrument, mode_optics
from lyot.instruments.near_mask import NearMask

MODEL_HALF_PIX, MODEL_OVERSAMPLE = 24, 3


@dataclass(frozen=True, eq=False)
class OffAxisPSF:
    """An image of a point source beside the mask, and near it where there is a model.

    Of unit flux over all of the sky, so that the image sums to the share of the stamp.
    """

    data: NDArray[np.float64]  # (n, n), the center of the source in the middle
    oversample: int  # samples per detector pixel and axis
    origin: str  # where it comes from, in words
    near_mask: NearMask | None = None  # makes the images near the mask; None to take this for all

    def behind(self, place_xy_arcsec: tuple[float, float], /) -> OffAxisPSF:
        """Return the PSF of a source at a place along the mask's axes [arcsec].

        Of unit flux behind the mask: what the mask passes of the source is not in it. Itself
        beside the mask.
        """
        image = None if self.near_mask is None else self.near_mask.image(place_xy_arcsec)
        if image is None:
            return self
        return _PlacedOnce(image, self.oversample, self.origin)

    @cached_property
    def half_pix(self) -> int:
        """Half the width of a stamp without its middle pixel [pixel]."""
        return (len(self.data) // self.oversample - 1) // 2

    def cropped(self, half_pix: int, /) -> OffAxisPSF:
        """Return the middle of the image, at most of that half width, with the same pixels."""
        away = self.half_pix - half_pix
        if away <= 0:
            return self
        edge = away * self.oversample
        near = self.near_mask and NearMask(self.near_mask.optics, half_pix, self.oversample)
        return OffAxisPSF(self.data[edge:-edge, edge:-edge], self.oversample, self.origin, near)

    @cached_property
    def fwhm_pix(self) -> float:
        """Full width at half maximum [pixel]."""
        fine = 8
        n = self.half_pix
        stamp = self.stamp(0.0, 0.0)
        # The profile is that of the pixels, on a grid eight times finer.
        spectra = fourier.spectrum(stamp)
        steps = (np.arange(fine) - fine // 2) / fine
        values, radii = [], []
        y, x = np.mgrid[-n : n + 1, -n : n + 1]
        for dy in steps:
            for dx in steps:
                image = fourier.shift(spectra, np.array([dy, dx]), shape=stamp.shape)
                radii.append(np.hypot(y - dy, x - dx).ravel())
                values.append(image.ravel())
        radius, value = np.concatenate(radii), np.concatenate(values)
        edges = np.arange(0.0, n, 0.1)
        which = np.digitize(radius, edges) - 1
        total = np.bincount(which, value, minlength=len(edges))
        count = np.bincount(which, minlength=len(edges))
        profile = total[: len(edges)] / np.maximum(count[: len(edges)], 1)
        peak = profile[0]
        below = int(np.argmax((profile < 0.5 * peak) & (count[: len(edges)] > 0)))
        if below == 0:
            raise LyotError("The PSF has no half maximum; give one whose core is in the middle.")
        lower, upper = profile[below - 1], profile[below]
        part = (lower - 0.5 * peak) / (lower - upper)
        return float(2.0 * (edges[below - 1] + 0.05 + 0.1 * part))

    @cached_property
    def _spectra(self) -> NDArray[np.complex128]:
        return np.asarray(fourier.spectrum(self.data))

    def stamp(self, dy: float, dx: float, /) -> NDArray[np.float64]:
        """Return the image with its center off the middle pixel by a fraction of a pixel.

        Flux in each of ``(2 half_pix + 1, ...)`` pixels, for a source of unit flux.
        """
        aliases, n = self._aliases, 2 * self.half_pix + 1
        if aliases is None:
            move = np.array([dy, dx]) * self.oversample
            return self._binned(fourier.shift(self._spectra, move, shape=self.data.shape))
        over, length, _, half = aliases.shape
        k = np.fft.fftfreq(over * length, 1.0 / (over * length))
        phases = np.exp(-2j * np.pi / length * np.multiply.outer((dy, dx), k))
        along_y, along_x = phases.reshape(2, over, length)
        pixels = np.einsum("akbl,ak,bl->kl", aliases, along_y, along_x[:, :half])
        return np.fft.irfft2(pixels, (length, length))[:n, :n]

    @cached_property
    def _aliases(self) -> NDArray[np.complex128] | None:
        """Transform of the sums over pixels at each sample, aliases apart, of one half along x.

        What falls on one frequency of the pixels, each of ``(oversample, length)`` frequencies
        along y and x, is added after the phases of a shift. None where pixels do not fit the grid.
        """
        over, m = self.oversample, len(self._spectra)
        length, n = m // over, 2 * self.half_pix + 1
        if m % over:
            return None
        samples = (len(self.data) - n * over) // 2 + np.arange(over)
        sums = np.exp(2j * np.pi / m * np.multiply.outer(np.arange(m), samples)).sum(axis=1)
        # The other half of the transform of a real image.
        rest = self._spectra[-np.arange(m), :0:-1].conj()
        whole = np.concatenate([self._spectra, rest], axis=1) * sums[:, None] * sums / over**2
        aliases = whole.reshape(over, length, over, length)
        return np.ascontiguousarray(aliases[..., : length // 2 + 1])

    def _binned(self, image: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum the samples of each detector pixel."""
        over, n = self.oversample, 2 * self.half_pix + 1
        edge = (len(self.data) - n * over) // 2
        cut = image[edge : edge + n * over, edge : edge + n * over]
        return np.asarray(cut.reshape(n, over, n, over).sum(axis=(1, 3)))

    def slopes(self) -> tuple[OffAxisPSF, OffAxisPSF]:
        """Return the derivatives of the image to its position along y and x, placed alike."""
        parts = (self.data, self.oversample, self.origin)
        return PSFSlope(*parts, axis=0), PSFSlope(*parts, axis=1)

    def place(
        self, y: float, x: float, shape: tuple[int, int], /, *, half_pix: int | None = None
    ) -> tuple[tuple[slice, slice], NDArray[np.float64]]:
        """Return the pixels of a frame where a source at a position has light, and its image there.

        Of unit flux, over `half_pix` about the position, by default as far as the image reaches. A
        `LyotError` where the position lies outside the frame.
        """
        if not (-0.5 <= y <= shape[0] - 0.5 and -0.5 <= x <= shape[1] - 0.5):
            raise LyotError(
                f"The position (x, y) = ({x:.1f}, {y:.1f}) lies outside the frame of "
                f"{shape[1]} x {shape[0]} pixels."
            )
        row, column = round(y), round(x)
        stamp, half = self.stamp(y - row, x - column), self.half_pix
        reach = half if half_pix is None else min(half_pix, half)
        top, left = max(row - reach, 0), max(column - reach, 0)
        box = (
            slice(top, min(row + reach + 1, shape[0])),
            slice(left, min(column + reach + 1, shape[1])),
        )
        inside = stamp[
            box[0].start - row + half : box[0].stop - row + half,
            box[1].start - column + half : box[1].stop - column + half,
        ]
        return box, inside


class _PlacedOnce(OffAxisPSF):
    """The PSF of one place near the mask: nothing is prepared for other places."""

    _aliases = None


@dataclass(frozen=True, eq=False)
class PSFSlope(OffAxisPSF):
    """The derivative of an off-axis PSF to its position along an axis [1/pixel]."""

    axis: int = 0

    def stamp(self, dy: float, dx: float, /) -> NDArray[np.float64]:
        """Return the derivative with its center off the middle pixel."""
        move = np.array([dy, dx]) * self.oversample
        moved = fourier.shift_with_derivatives(self._spectra, move, shape=self.data.shape)
        slope = moved.d_y if self.axis == 0 else moved.d_x
        return self._binned(np.asarray(slope) * self.oversample)


def psf_from_image(
    image: NDArray[Any],
    /,
    *,
    origin: str,
    oversample: int = 1,
    stamp_fraction: float = 1.0,
    source_yx: tuple[float, float] | None = None,
) -> OffAxisPSF:
    """Take an image of the user's as PSF.

    Parameters
    ----------
    image : ndarray, shape (n_y, n_x)
        Finite; its brightest pixel is near the center of the source.
    origin : str
        Where it comes from.
    oversample : int, optional
        Samples per detector pixel.
    stamp_fraction : float, optional
        Share of the whole PSF's flux that the image holds.
    source_yx : tuple of float, optional
        Where the source lies on the image [sample, 0-based]; its centroid by default.

    Returns
    -------
    OffAxisPSF
        Cut square and odd about its center; what is cut off counts to the flux.

    Raises
    ------
    LyotError
        If it is not a finite image with positive flux.

    Examples
    --------
    >>> y, x = np.mgrid[-10:11, -10:11]
    >>> psf = psf_from_image(np.exp(-0.5 * (x**2 + y**2) / 1.5**2), origin="a Gaussian")
    >>> psf.stamp(0.0, 0.0).shape, round(psf.fwhm_pix, 1)
    ((21, 21), 3.5)
    """
    image = np.asarray(image, dtype=np.float64)
    if image.ndim != 2 or min(image.shape) < 5:
        raise LyotError(f"The PSF has shape {image.shape}; it must be an image of 5 x 5 or more.")
    if not np.isfinite(image).all():
        raise LyotError("The PSF holds NaN; fill it, or cut it smaller.")
    total = float(image.sum())
    if not total > 0:
        raise LyotError(f"The PSF sums to {total:g}; it must be positive.")
    if oversample < 1:
        raise LyotError(f"The oversampling of the PSF is {oversample}; it must be 1 or more.")
    center = source_yx or _windowed_center(image, 2.0 * oversample)
    # An odd number of detector pixels on each side, each of `oversample` samples.
    n_pixels = (min(image.shape) // oversample - 1) // 2 * 2 + 1
    while True:
        n = n_pixels * oversample
        start = [round(c - 0.5 * (n - 1)) for c in center]
        if n_pixels < 5:
            raise LyotError("The PSF's center is too near its edge; give a larger image.")
        if all(0 <= s <= size - n for s, size in zip(start, image.shape, strict=True)):
            break
        n_pixels -= 2
    move = np.add(start, 0.5 * (n - 1)) - center
    centered = np.asarray(fourier.shift(fourier.spectrum(image), move, shape=image.shape))
    cut = centered[start[0] : start[0] + n, start[1] : start[1] + n]
    return OffAxisPSF(cut * (stamp_fraction / total), oversample, origin)


def _windowed_center(image: NDArray[np.float64], width: float) -> tuple[float, float]:
    """Centroid under a Gaussian window that moves along, without bias for a symmetric image."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    y, x = (float(v) for v in np.unravel_index(int(np.argmax(image)), image.shape))
    for _ in range(50):
        window = image * np.exp(-0.5 * ((rows - y) ** 2 + (columns - x) ** 2) / width**2)
        dy = 2.0 * float((window * (rows - y)).sum() / window.sum())
        dx = 2.0 * float((window * (columns - x)).sum() / window.sum())
        y, x = y + dy, x + dx
        if max(abs(dy), abs(dx)) < 1e-6:
            break
    return y, x


@lru_cache(maxsize=8)
def best_psf(
    instrument: Instrument,
    coronagraph: Coronagraph,
    filter: Filter,
    pixel_scale_arcsec: float,
    spectrum: Spectrum = RAYLEIGH_JEANS,
    /,
) -> OffAxisPSF:
    """Make the off-axis PSF by ``stpsf`` where it is installed with its data, else by the model.

    By the model too for a source of another spectrum than a hot star's.
    """
    mode = instrument, coronagraph, filter, pixel_scale_arcsec, spectrum
    return stpsf_psf(*mode) or model_psf(*mode)


def stpsf_psf(
    instrument: Instrument,
    coronagraph: Coronagraph,
    filter: Filter,
    pixel_scale_arcsec: float,
    spectrum: Spectrum,
    /,
    *,
    pixels: int = 2 * MODEL_HALF_PIX + 1,
    oversample: int = MODEL_OVERSAMPLE,
) -> OffAxisPSF | None:
    """Make the off-axis PSF of a hot star by ``stpsf``; None where that cannot be.

    That is for another spectrum, without the package or its data, and for what it does not know.
    """
    has_name = bool(instrument.stpsf_class and coronagraph.stpsf_stop)
    if not has_name or spectrum != RAYLEIGH_JEANS or not os.environ.get("STPSF_PATH"):
        return None
    with suppress(ImportError, OSError, KeyError):
        import stpsf

        camera = getattr(stpsf, instrument.stpsf_class)()
        camera.filter = filter.name
        camera.image_mask = None
        camera.pupil_mask = coronagraph.stpsf_stop
        camera.pixelscale = pixel_scale_arcsec
        hdus = camera.calc_psf(
            oversample=oversample,
            fov_pixels=pixels,
            normalize="exit_pupil",
            add_distortion=False,
        )
        data = np.asarray(hdus[0].data, dtype=np.float64)
        origin = f"stpsf {stpsf.__version__}, {filter.name} for {coronagraph.name}; not checked"
        return OffAxisPSF(data, oversample, origin)
    return None


@lru_cache(maxsize=8)
@threads.calculation
def model_psf(
    instrument: Instrument,
    coronagraph: Coronagraph,
    filter: Filter,
    pixel_scale_arcsec: float,
    spectrum: Spectrum = RAYLEIGH_JEANS,
    /,
) -> OffAxisPSF:
    """Make the package's own model of the off-axis PSF.

    Parameters
    ----------
    instrument : Instrument
        The instrument, for the pupil of its telescope.
    coronagraph : Coronagraph
        The coronagraph, for its mask and its Lyot stop.
    filter : Filter
        The filter.
    pixel_scale_arcsec : float
        Pixel scale [arcsec].
    spectrum : Spectrum, optional
        Of the source; that of a hot star by default.

    Returns
    -------
    OffAxisPSF
        The mean over wavefront errors of the stated size; near the mask as it deforms the image.

    Examples
    --------
    >>> from lyot.instruments import MIRI
    >>> coronagraph, filter = MIRI.coronagraph("4QPM_1140"), MIRI.filter("F1140C")
    >>> psf = model_psf(MIRI, coronagraph, filter, 0.111)
    >>> psf.stamp(0.0, 0.0).shape
    (49, 49)
    """
    optics = mode_optics(instrument, coronagraph, filter, pixel_scale_arcsec, spectrum)
    n = 2 * MODEL_HALF_PIX + 1
    made = optics.psf((0.0, 0.0), n_pixels=n, oversample=MODEL_OVERSAMPLE, with_mask=False)
    mode = f"{filter.name} behind {coronagraph.name or 'no mask'}, spectrum: {spectrum.name}"
    origin = f"model of the package, {mode}; {coronagraph.psf_check(filter.name)}"
    near = NearMask(optics, MODEL_HALF_PIX, MODEL_OVERSAMPLE)
    return OffAxisPSF(made.image, MODEL_OVERSAMPLE, origin, near)
