"""Wavefront errors of a stated size: a draw for each seed, and what they do on average.

The telescope's error is that of its segments, each in Zernike terms of its own from piston on.
Part of the variance is common to all segments, as errors of one design and one polishing are, from
the orders on that phasing leaves: this is what puts the light that passes a round mask into the
lobes of the lattice of segments, where the observatory's model and real stars have it. The law of
the terms was found on the on-axis image of that model in F335M (total, profile, rows of lobes),
with the root mean square that it states; real stars in F444W test it (tests/realdata). The
instrument's error is smooth over the pupil and lies behind the focal-plane mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import factorial

import numpy as np

from lyot.errors import LyotError
from lyot.instruments.pupil import (
    FLIGHT_PUPIL,
    FlightPupil,
    sample_grid,
    segment_corners,
    segment_maps,
)
from lyot.instruments.telescope import Pupil
from lyot.types import Array

MAX_SEGMENT_ORDER, MAX_SMOOTH_ORDER = 7, 6
"""Highest radial orders of the segments' terms and of the smooth ones."""

SEGMENT_VARIANCE_POWER = 1.5
"""Variance of all terms of order n of a segment: as ``(n + 1)^-power``."""

COMMON_SHARE, MIN_COMMON_ORDER = 0.4, 3
"""Part of the telescope's variance that all segments have in common, and from which order on."""

SEGMENT_STRUCTURE, SMOOTH_STRUCTURE = (0.40, 2.3, 0.91), (1.2, 2.1, 0.92)
"""Length l [m], power p and height h of ``h (1 - exp(-(s / l)^p))``, which half the structure
functions of the two errors of `draw_wavefront` follow to 0.12 and 0.08, over the openings of
NIRCam's Lyot stops, out to separations s of 2.6 m."""

MODEL_SEEDS, TRIAL_SEEDS, PSF_SEEDS = range(32), range(100, 148), range(200, 328)
"""The draws whose mean is the model of a star's image, those on which it is tried, and those that
tell how far the image of a source may be from its mean: some take a quarter of its core's light,
and the root mean square over fewer is too small by up to a third."""

FIRST_DATA_SEED = 10_000
"""Draws from here on make data: those of no measurement."""

SEGMENT_RADIUS_M = 0.762
"""Radius of the circle around a segment [m]."""


@dataclass(frozen=True)
class WavefrontBudget:
    """Sizes of the wavefront errors of one mode, as root mean squares over the pupil [m].

    Attributes
    ----------
    telescope_m : float
        Error of the telescope, ahead of the focal-plane mask.
    instrument_m : float
        Error of the instrument behind it.

    Examples
    --------
    >>> import numpy as np
    >>> from lyot.instruments.wavefront import WavefrontBudget
    >>> float(WavefrontBudget(telescope_m=67e-9).mean_transfer(np.array(0.0), 4.4e-6))
    1.0
    """

    telescope_m: float = 67.0e-9
    instrument_m: float = 0.0

    def mean_transfer(self, separation_m: Array, wavelength_m: float, /) -> Array:
        """Return what the errors leave, on average over draws, of an optical transfer function.

        It falls by ``exp(-(2 pi / lambda)^2 D(s) / 2)`` at a separation s of two points of the
        pupil, D being the structure function of the error, which holds for Gaussian errors of one
        structure over the pupil.
        """
        lost: Array = np.zeros(np.shape(separation_m))
        for rms, (length, power, height) in (
            (self.telescope_m, SEGMENT_STRUCTURE),
            (self.instrument_m, SMOOTH_STRUCTURE),
        ):
            lost += rms**2 * height * (1.0 - np.exp(-((separation_m / length) ** power)))
        return np.exp(-((2.0 * np.pi / wavelength_m) ** 2) * lost)


def data_seed(seed: int, /) -> int:
    """Return the draw of the wavefront errors of simulated data, which no measurement uses."""
    if seed < 0:
        raise LyotError(f"seed is {seed}; it must be 0 or more.", parameter="seed")
    return FIRST_DATA_SEED + seed


def draw_wavefront(
    budget: WavefrontBudget,
    n: int,
    /,
    *,
    seed: int,
    pupil: Pupil = FLIGHT_PUPIL,
    stop: Array | None = None,
) -> tuple[Array, Array]:
    """Draw the wavefront errors of the telescope and of the instrument.

    Parameters
    ----------
    budget : WavefrontBudget
        Their sizes.
    n : int
        Number of samples across the pupil.
    seed : int
        The same seed gives the same errors at any sampling.
    pupil : Pupil, optional
        The telescope's pupil; one that is not that of JWST has a smooth error only.
    stop : ndarray, shape (n, n), optional
        Amplitude transmission of the Lyot stop; by default everything passes.

    Returns
    -------
    telescope, instrument : ndarray, shape (n, n)
        Optical path differences [m], each with the stated root mean square over the pupil's open
        area but for a tilt. Neither moves an image that passes the stop: where a source is, its
        image tells, and the star's is moved alike.

    Examples
    --------
    >>> from lyot.instruments.wavefront import WavefrontBudget, draw_wavefront
    >>> telescope, _ = draw_wavefront(WavefrontBudget(telescope_m=67e-9), 64, seed=1)
    >>> telescope.shape
    (64, 64)
    """
    rng = np.random.default_rng(seed)
    orders = _orders(0, MAX_SEGMENT_ORDER)
    variance = (orders + 1.0) ** -(SEGMENT_VARIANCE_POWER + 1.0)
    common = variance * (orders >= MIN_COMMON_ORDER)
    own = np.sqrt(variance * (1.0 - COMMON_SHARE) / variance.sum())
    figure = rng.normal(size=len(orders)) * np.sqrt(common * COMMON_SHARE / common.sum())
    telescope = np.zeros((n, n))
    if isinstance(pupil, FlightPupil):
        for box, terms in _segment_terms(n):
            draw = figure + own * rng.normal(size=len(orders))
            telescope[box] += np.tensordot(draw, terms, axes=1)
    smooth = _orders(2, MAX_SMOOTH_ORDER)
    # Measured errors fall with the order of the term: the variance of each as 1 / order^2.
    instrument = np.tensordot(rng.normal(size=len(smooth)) / smooth, _smooth_terms(n), axes=1)
    if not isinstance(pupil, FlightPupil):
        telescope = np.tensordot(rng.normal(size=len(smooth)) / smooth, _smooth_terms(n), axes=1)
    open_part = pupil.amplitude(n)
    passed = open_part if stop is None else open_part * stop
    return (
        budget.telescope_m * _centered(telescope, open_part, passed),
        budget.instrument_m * _centered(instrument, open_part, passed),
    )


def _centered(error: Array, open_part: Array, passed: Array) -> Array:
    """Bring the size over the open pupil to 1, without tilt; take off mean and tilt of the stop."""
    error = _without_plane(error, open_part)
    error = error / np.sqrt(np.average(error**2, weights=open_part))
    return _without_plane(error, passed)


def _without_plane(error: Array, weight: Array) -> Array:
    """Take the plane of the least weighted squares off."""
    x, y, _ = sample_grid(len(error), 2.0)
    plane = np.stack(np.broadcast_arrays(1.0, x, y)).reshape(3, -1)
    moments = plane * weight.ravel()
    heights = np.linalg.solve(moments @ plane.T, moments @ error.ravel())
    return np.asarray(error - (heights @ plane).reshape(error.shape))


def _orders(lowest: int, highest: int) -> Array:
    """Radial order of each Zernike term between two."""
    return np.array([n for n in range(lowest, highest + 1) for _ in range(n + 1)])


def _zernikes(lowest: int, highest: int, x: Array, y: Array) -> Array:
    """Zernike polynomials, orthonormal over the unit circle, one plane for each of `_orders`."""
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    terms = []
    for order in range(lowest, highest + 1):
        for m in range(-order, order + 1, 2):
            turn = np.cos(m * angle) if m >= 0 else np.sin(-m * angle)
            scale = np.sqrt((2.0 - (m == 0)) * (order + 1))
            terms.append(scale * _radial(order, abs(m), radius) * turn)
    return np.array(terms)


def _radial(order: int, m: int, radius: Array) -> Array:
    """Radial polynomial of Zernike."""
    total = np.zeros_like(radius)
    for k in range((order - m) // 2 + 1):
        below = factorial(k) * factorial((order + m) // 2 - k) * factorial((order - m) // 2 - k)
        total += (-1) ** k * factorial(order - k) / below * radius ** (order - 2 * k)
    return total


@lru_cache(maxsize=2)
def _smooth_terms(n: int) -> Array:
    x, y, _ = sample_grid(n, 2.0)
    return _zernikes(2, MAX_SMOOTH_ORDER, x, y)


@lru_cache(maxsize=2)
def _segment_terms(n: int) -> list[tuple[tuple[slice, slice], Array]]:
    """For each segment, the samples it touches and its terms there."""
    x, y, _ = sample_grid(n, FLIGHT_PUPIL.width_m)
    found = []
    maps = segment_maps(n, FLIGHT_PUPIL.width_m)
    for (middle_x, middle_y), there in zip(segment_corners().mean(axis=1), maps, strict=True):
        rows, columns = (np.flatnonzero(there.any(axis=a)) for a in (1, 0))
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        u, v = (
            (x[:, box[1]] - middle_x) / SEGMENT_RADIUS_M,
            (y[box[0]] - middle_y) / SEGMENT_RADIUS_M,
        )
        found.append((box, _zernikes(0, MAX_SEGMENT_ORDER, u, v) * there[box]))
    return found
