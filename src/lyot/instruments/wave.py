"""The wave of one wavelength: to the mask, to the Lyot stop behind it, and to the image.

Only what the mask changes is computed in its plane and added in the pupil (Soummer et al. 2007,
doi:10.1364/OE.15.015935), with matrix Fourier transforms; the field about the source at the mask is
kept, so that another place of the source costs two transforms, not three. A four-quadrant phase
mask needs no focal plane: the transform of ``sign(x) sign(y)`` is a product of two Hilbert
transforms, applied in the pupil as matrices that have no outer limit.
"""

from __future__ import annotations

import math
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np

from lyot.instruments.coronagraphs import Coronagraph, FourQuadrantMask
from lyot.instruments.pupil import sample_grid
from lyot.instruments.telescope import ARCSEC_PER_RADIAN
from lyot.types import Array

_WINDOW_LAMBDA_D, _SAMPLES_PER_LAMBDA_D = 32, 2
"""Half width of the field about the source in which the mask acts, and its sampling."""


class Samples(Protocol):
    """Where an image is sampled about the source."""

    x_arcsec: Array
    y_arcsec: Array
    area_of_arcsec: Array  # width and height of what a sample stands for
    pixel_arcsec: Array
    tilt_deg: float


class Wave:
    """The field of one wavelength at the pupil, about the source at the mask, and at the stop.

    What arrives at the stop is held where the stop is open anywhere in a row and in a column.
    """

    def __init__(self, wavelength: float, width: float, at_pupil: Array, stop: Array) -> None:
        self.wavelength_m, self.at_pupil = wavelength, at_pupil
        x, _, self.step_m = sample_grid(len(at_pupil), width)
        self.width_m, self.axis_m = width, x[0]
        self._rows, self._columns = (np.flatnonzero(stop.any(axis=a)) for a in (1, 0))
        behind = np.ix_(self._rows, self._columns)
        self.stop, self.unmasked = stop[behind], at_pupil[behind]
        # A grey sample holds an edge too fine for the sampling: its amplitude is the open part, and
        # so is its power, of which the square of the amplitude is what the sampling can follow.
        bright = np.abs(self.unmasked)
        self._open, self._unresolved = np.abs(self.stop), bright - bright**2
        self.open_power = self.power(self.unmasked)
        self._to_image: dict[Samples, tuple[Array, Array]] = {}
        # What a phase mask does along y, for the last y: tables go through places row by row.
        self._across: tuple[float, Array] = math.nan, at_pupil

    def power(self, arrived: Array) -> float:
        """Flux that passes the Lyot stop of a field that arrives there."""
        return float(np.sum(self._open * (np.abs(arrived) ** 2 + self._unresolved)))

    def _kernel(self, places_arcsec: Array) -> Array:
        """Matrix from samples of the pupil to places in the focal plane, without their sizes."""
        phase = np.outer(places_arcsec / (ARCSEC_PER_RADIAN * self.wavelength_m), self.axis_m)
        return np.exp(-2j * np.pi * phase)

    def _unblurred_kernel(self, places_arcsec: Array) -> Array:
        """`_kernel`, less the fall towards larger angles of grey samples, which are means."""
        cycles = places_arcsec * (self.step_m / ARCSEC_PER_RADIAN / self.wavelength_m)
        return np.asarray(self._kernel(places_arcsec) / np.sinc(cycles)[:, None])

    @cached_property
    def _window(self) -> tuple[Array, Array, Array]:
        """Places about the source [arcsec], its field there, and the matrix that leads back."""
        step = self.wavelength_m / self.width_m * ARCSEC_PER_RADIAN / _SAMPLES_PER_LAMBDA_D
        n = 2 * _WINDOW_LAMBDA_D * _SAMPLES_PER_LAMBDA_D
        places = (np.arange(n) - 0.5 * (n - 1)) * step
        there = self._unblurred_kernel(places)
        # There and back each carry the size of a sample over lambda, for each axis.
        back = self._kernel(places).conj().T * (
            self.step_m * step / ARCSEC_PER_RADIAN / self.wavelength_m
        )
        return places, there @ self.at_pupil @ there.T, back

    def behind(self, mask: Coronagraph, place: tuple[float, float]) -> Array:
        """Return the field that arrives at the stop from a source at a place [arcsec] on a mask.

        Tilts are relative to the source: its image stays in the middle.
        """
        if isinstance(mask, FourQuadrantMask):
            return self._behind_quadrants(mask, place)
        places, at_mask, back = self._window
        # Where the mask is, with a sample more on each side.
        ends = [
            np.searchsorted(
                places + at, (-reach - places[1] + places[0], reach + places[1] - places[0])
            )
            for at, reach in zip(place, mask.reach_xy_arcsec, strict=True)
        ]
        columns, rows = (slice(*end) for end in ends)
        amplitude = mask.amplitude(places[None, columns] + place[0], places[rows, None] + place[1])
        changed = (amplitude - mask.background) * at_mask[rows, columns]
        spread = back[self._rows, rows] @ changed @ back[self._columns, columns].T
        return np.asarray(mask.background * self.unmasked + spread)

    def _behind_quadrants(self, mask: FourQuadrantMask, place: tuple[float, float]) -> Array:
        plain, crossed = mask.coefficients(self.wavelength_m)
        # i H is the transform of the sign along one axis: the product of two carries -1.
        at, across = self._across
        if at != place[1]:
            across = self._tilted_hilbert(place[1])[self._rows] @ self.at_pupil
            self._across = place[1], across
        turned = across @ self._tilted_hilbert(place[0])[self._columns].T
        return plain * self.unmasked - crossed * turned

    def _tilted_hilbert(self, place_arcsec: float) -> Array:
        """The transform of the sign of an angle that is measured from a place away from it."""
        turn = -2.0 * np.pi * place_arcsec * self.step_m / (ARCSEC_PER_RADIAN * self.wavelength_m)
        return _tilted_hilbert(len(self.axis_m), turn)

    def image(self, arrived: Array, grid: Samples, fraction_xy: tuple[float, float]) -> Array:
        """Return the flux per pixel, at the samples of a grid, of a field that arrives."""
        if grid not in self._to_image:
            to_y, to_x = (self._unblurred_kernel(p) for p in (grid.y_arcsec, grid.x_arcsec))
            to_y, to_x = to_y[:, self._rows], to_x[:, self._columns]
            # Single precision is enough here: what is left of a suppressed star comes in as it is.
            self._to_image[grid] = to_y.astype(np.complex64), to_x.T.astype(np.complex64)
        to_y, to_x = self._to_image[grid]
        passed = arrived * self.stop
        if not grid.tilt_deg and any(fraction_xy):
            x, y = (
                self._kernel(np.array([-p])) for p in np.multiply(fraction_xy, grid.pixel_arcsec)
            )
            passed = passed * y.T[self._rows] * x[:, self._columns]
        field = to_y @ passed.astype(np.complex64) @ to_x
        density = (field.real**2 + field.imag**2).astype(np.float64)
        area = np.prod(grid.area_of_arcsec) / ARCSEC_PER_RADIAN**2
        return np.asarray(density * (area * (self.step_m / self.wavelength_m) ** 2))


def _tilted_hilbert(n: int, turn: float) -> Array:
    """Matrix of the Hilbert transform of samples that turn by an angle from one to the next.

    Its elements are the means of ``exp(i turn s) / (pi s)`` over two samples, s their distance,
    which is exact for a field that but for the turn is constant on each.
    """
    from scipy.special import sici

    lag = np.arange(-n, n + 1, dtype=np.float64)
    angle = np.abs(turn * lag)
    sine, cosine = sici(np.maximum(angle, 1e-30))
    if turn == 0.0:
        cosine = np.log(np.maximum(np.abs(lag), 1.0))
    # Its second difference is the integral; what is linear in the lag has none, and is left out.
    primitive = lag * (cosine + 1j * np.sign(turn * lag) * sine)
    if turn != 0.0:
        primitive -= (np.expm1(1j * turn * lag) - 1j * turn * lag) / (1j * turn)
    kernel = (primitive[2:] - 2.0 * primitive[1:-1] + primitive[:-2]) / np.pi
    rows, columns = _indices(n)
    return np.asarray(kernel[rows - columns + n - 1])


@lru_cache(maxsize=2)
def _indices(n: int) -> Array:
    return np.indices((n, n))
