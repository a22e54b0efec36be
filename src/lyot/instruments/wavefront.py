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

from lyot.compute.cache import remembered
from lyot.errors import LyotError
from lyot.instruments.identity import checksum_of
from lyot.instruments.pupil import (
    FLIGHT_PUPIL,
    FlightPupil,
    sample_grid,
    segment_corners,
    segment_maps,
)
from lyot.instruments.telescope import LyotStop, Pupil
from lyot.types import Array

MAX_SEGMENT_ORDER, MAX_SMOOTH_ORDER = 7, 6
"""Highest radial orders of the segments' terms and of the smooth ones."""

SEGMENT_VARIANCE_POWER = 1.5
"""Variance of all terms of order n of a segment: as ``(n + 1)^-power``."""

COMMON_SHARE, MIN_COMMON_ORDER = 0.4, 3
"""Part of the telescope's variance that all segments have in common, and from which order on."""

MODEL_SEEDS, TRIAL_SEEDS, PSF_SEEDS = range(32), range(100, 196), range(200, 328)
"""The draws whose mean is the model of a star's image, those on which it is tried, and those that
tell how far the image of a source may be from its mean: some take a quarter of its core's light,
and the root mean square over fewer is too small by up to a third."""

FIRST_DATA_SEED = 10_000
"""Draws from here on make data: those of no measurement."""

N_MEAN_TRANSFER = 48
"""Samples across the pupil for the mean over draws: 96 give the same flux to 5e-4."""

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
    >>> from lyot.instruments.wavefront import WavefrontBudget
    >>> WavefrontBudget(telescope_m=67e-9).instrument_m
    0.0
    """

    telescope_m: float = 67.0e-9
    instrument_m: float = 0.0


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
    own, common = _segment_sizes()
    figure = rng.normal(size=len(own)) * common
    telescope = np.zeros((n, n))
    if isinstance(pupil, FlightPupil):
        for box, terms in _segment_terms(n):
            draw = figure + own * rng.normal(size=len(own))
            telescope[box] += np.tensordot(draw, terms, axes=1)
    smooth = _smooth_terms(n)
    instrument = np.tensordot(rng.normal(size=len(smooth)), smooth, axes=1)
    if not isinstance(pupil, FlightPupil):
        telescope = np.tensordot(rng.normal(size=len(smooth)), smooth, axes=1)
    open_part = pupil.amplitude(n)
    passed = open_part if stop is None else open_part * stop
    return (
        budget.telescope_m * _centered(telescope, open_part, passed),
        budget.instrument_m * _centered(instrument, open_part, passed),
    )


@lru_cache(maxsize=16)
def mean_transfer(
    budget: WavefrontBudget, pupil: Pupil, stop: LyotStop, wavelength_m: float, /
) -> tuple[Array, float]:
    """Return what the errors leave, on average over draws, of a stop's optical transfer function.

    At separations of ``i - n`` and ``j - n`` samples along y and x, of shape (2 n, 2 n), and the
    size of a sample [m]. The mean of ``exp(i (p - q))`` over Gaussian phases p and q of two places
    is ``exp(-D / 2)``, D being the mean square of their difference; all pairs of places of one
    separation add up to the transfer function there. Tilt over the stop is no part of D, as it is
    none of a draw: a position that is measured takes it up.
    """
    given = (budget, pupil, stop, wavelength_m)
    checksum = checksum_of(given, of_package=(pupil, stop))
    group = f"transfer-{checksum}" if checksum else ""
    held = remembered(group, "mean", lambda: {"mean": _mean_transfer(*given)})
    return held["mean"], pupil.width_m / N_MEAN_TRANSFER


def _mean_transfer(
    budget: WavefrontBudget, pupil: Pupil, stop: LyotStop, wavelength_m: float
) -> Array:
    from scipy.ndimage import gaussian_filter

    n = N_MEAN_TRANSFER
    open_part = pupil.amplitude(n)
    passed = open_part * stop.amplitude(pupil, n)
    rows, columns = np.nonzero(passed)
    half_d: Array = np.zeros((len(rows), len(rows)))
    for rms, terms in (
        (budget.telescope_m, _telescope_terms(n, pupil)),
        (budget.instrument_m, _smooth_terms(n)),
    ):
        terms = _without_plane(terms, open_part)
        size = np.sum(terms**2 * open_part) / open_part.sum()
        through = _without_plane(terms, passed)[:, rows, columns]
        covariance = through.T @ through * ((2.0 * np.pi * rms / wavelength_m) ** 2 / size)
        variance = 0.5 * covariance.diagonal()
        half_d += variance[:, None] + variance - covariance
    bright = passed[rows, columns]
    pairs = np.outer(bright, bright)
    lag = (rows[:, None] - rows + n) * (2 * n) + columns[:, None] - columns + n
    kept, unspoiled = (
        # Neighbors together: some separations have few pairs, or none.
        gaussian_filter(np.bincount(lag.ravel(), s.ravel(), 4 * n**2).reshape(2 * n, 2 * n), 0.7)
        for s in (pairs * np.exp(-half_d), pairs)
    )
    mean = np.full(kept.shape, kept.sum() / unspoiled.sum())
    np.divide(kept, unspoiled, out=mean, where=unspoiled > 1e-9 * unspoiled.max())
    return np.asarray(mean / mean[n, n])


def _centered(error: Array, open_part: Array, passed: Array) -> Array:
    """Bring the size over the open pupil to 1, without tilt; take off mean and tilt of the stop."""
    error = _without_plane(error, open_part)
    error = error / np.sqrt(np.average(error**2, weights=open_part))
    return _without_plane(error, passed)


def _without_plane(errors: Array, weight: Array) -> Array:
    """Take the planes of the least weighted squares off errors (..., n, n)."""
    x, y, _ = sample_grid(len(weight), 2.0)
    plane = np.stack(np.broadcast_arrays(1.0, x, y)).reshape(3, -1)
    moments = plane * weight.ravel()
    heights = np.linalg.solve(moments @ plane.T, moments @ errors.reshape(-1, weight.size).T)
    return np.asarray(errors - (heights.T @ plane).reshape(errors.shape))


def _segment_sizes() -> tuple[Array, Array]:
    """Standard deviations of a segment's terms: its own part, and that which all have in common."""
    orders = _orders(0, MAX_SEGMENT_ORDER)
    variance = (orders + 1.0) ** -(SEGMENT_VARIANCE_POWER + 1.0)
    common = variance * (orders >= MIN_COMMON_ORDER)
    own = variance * ((1.0 - COMMON_SHARE) / variance.sum())
    return np.sqrt(own), np.sqrt(common * (COMMON_SHARE / common.sum()))


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
    """Terms of a smooth error, each of its size."""
    x, y, _ = sample_grid(n, 2.0)
    # Measured errors fall with the order of the term: the variance of each as 1 / order^2.
    return _zernikes(2, MAX_SMOOTH_ORDER, x, y) / _orders(2, MAX_SMOOTH_ORDER)[:, None, None]


def _telescope_terms(n: int, pupil: Pupil) -> Array:
    """Terms of the telescope's error over the whole pupil, each of its size."""
    if not isinstance(pupil, FlightPupil):
        return _smooth_terms(n)
    own, common = _segment_sizes()
    segments = _segment_terms(n)
    terms = np.zeros((len(segments) + 1, len(own), n, n))
    for i, (box, each) in enumerate(segments):
        terms[(i, slice(None), *box)] = own[:, None, None] * each
        terms[(-1, slice(None), *box)] += common[:, None, None] * each
    return terms.reshape(-1, n, n)


@lru_cache(maxsize=3)
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
