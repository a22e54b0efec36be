"""Completeness: which injected sources the detection would find."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lyot.algorithms.statistics import finite_mean
from lyot.analysis.candidate import Tests
from lyot.analysis.contrast import separations_of
from lyot.analysis.noise import KnownSources, noise_about
from lyot.analysis.observation import Observation
from lyot.analysis.peaks import flux_maps
from lyot.analysis.photometry import throughputs, tried_places
from lyot.analysis.statistic import FIVE_SIGMA, MIN_POSITIONS, Statistic
from lyot.analysis.trial import Trials
from lyot.compute import threads
from lyot.errors import LyotError
from lyot.types import Array

N_CONTRASTS = 40
N_NEAR = 18
"""Sources whose needs hold about a separation."""
INJECTED_CONTRAST = 1e-5
"""Of the sources that measure the throughput; it matters little, where references contain them."""


@dataclass(frozen=True, eq=False)
class Completeness:
    """Fraction of injected sources that would be detected.

    Attributes
    ----------
    separation_arcsec : ndarray, shape (n_sep,)
        Separations [arcsec].
    contrast : ndarray, shape (n_contrast,)
        Contrasts.
    fraction : ndarray, shape (n_contrast, n_sep)
        Fraction over position angles; NaN where there are too few positions.
    statistic : Statistic
        Of the detection.
    n_modes : int
        Number of modes.

    Examples
    --------
    >>> result = completeness_map(observation, separations_arcsec=[1.0, 1.5])
    >>> bool((np.diff(result.fraction, axis=0) >= 0).all())  # brighter sources are found more often
    True
    """

    separation_arcsec: Array
    contrast: Array
    fraction: Array
    statistic: Statistic
    n_modes: int


@threads.calculation
def completeness_map(
    observation: Observation,
    /,
    *,
    separations_arcsec: ArrayLike | None = None,
    contrasts: ArrayLike | None = None,
    n_modes: int | None = None,
    n_angles: int = 6,
    statistic: Statistic = FIVE_SIGMA,
    known_sources: KnownSources = (),
) -> Completeness:
    """Count which injected sources the detection finds.

    At up to 12 separations the detection is run on sources at `n_angles` position angles, one after
    another (`lyot.analysis.trial`): with its peaks, its test and its threshold. What they need
    beyond what the noise at their places says is spread over the positions between: every position
    is tested against the others of its circle, and needs as much more as any of the `N_NEAR`
    sources nearest in separation does. Half of the sources at the limit of
    `lyot.analysis.contrast.contrast_curve` are found.

    Parameters
    ----------
    observation : Observation
        With the brightness of its star.
    separations_arcsec : ndarray, shape (n_sep,), optional
        Separations [arcsec]; 24 by default, from one FWHM to the edge.
    contrasts : ndarray, shape (n_contrast,), optional
        Contrasts; 40 by default, about the limits.
    n_modes : int, optional
        Number of modes; the largest by default.
    n_angles : int, optional
        Number of injections at each separation.
    statistic : Statistic, optional
        Of the detection; five sigma of Gaussian noise by default.
    known_sources : tuple of KnownSource or KnownDisc, optional
        Companions and discs that are excluded from the noise estimate.

    Returns
    -------
    Completeness
        Fractions over separation and contrast.

    Raises
    ------
    LyotError
        If the star's brightness is unknown, or there are too few positions everywhere.

    Examples
    --------
    With an observation from `lyot.open_run`:

    >>> found = completeness_map(observation, separations_arcsec=[1.5], contrasts=[1e-8, 1e-2])
    >>> found.fraction.ravel().tolist()
    [0.0, 1.0]
    """
    separations = separations_of(observation, separations_arcsec)
    radius = separations / observation.pixel_scale_arcsec
    t = observation.truncation(n_modes)
    maps = flux_maps(observation, statistic.flux_by)
    noise = noise_about(maps, radius, known_sources=known_sources)
    flux = np.full(len(radius), observation.star_flux * INJECTED_CONTRAST)
    maps.follow(*np.array(tried_places(radius, n_angles)).T)
    throughput = finite_mean(throughputs(maps, radius, n_angles, flux)[0, t], axis=-1)
    trials = Trials.of(Tests(maps, t, statistic, known_sources))
    needed, excesses = [], _excesses(trials, radius, n_angles)
    for j, (by_noise, excess) in enumerate(zip(noise.needed(t, statistic), excesses, strict=True)):
        by_noise = by_noise / (throughput[j] * observation.star_flux)
        if by_noise.size < MIN_POSITIONS:
            by_noise = by_noise[:0]
        middle = np.median(by_noise) if by_noise.size else np.nan
        needed.append(np.add.outer(by_noise, excess * middle).ravel())
    contrasts = np.asarray(_about(needed) if contrasts is None else contrasts, dtype=np.float64)
    fraction = np.array(
        [[(row <= c).mean() if row.size else np.nan for row in needed] for c in contrasts]
    )
    return Completeness(separations, contrasts, fraction, statistic, observation.n_modes[t])


def _excesses(trials: Trials, radius: Array, n_angles: int) -> list[Array]:
    """What sources need beyond the noise, of those nearest to each separation."""
    places = tried_places(radius, n_angles)
    excess = trials.excesses(places)
    known = np.isfinite(excess)
    at, excess = np.log([r for r, _ in places])[known], excess[known]
    order = (np.argsort(np.abs(at - np.log(r)), kind="stable")[:N_NEAR] for r in radius)
    return [excess[nearest] for nearest in order]


def _about(needed: list[Array]) -> Array:
    """Contrasts that span those at which sources are found."""
    middle = np.concatenate(needed)
    middle = middle[middle > 0]
    if not middle.size:
        raise LyotError("No separation has enough independent positions.")
    low, high = np.quantile(middle, [0.02, 0.98])
    return np.geomspace(low / 3.0, high * 3.0, N_CONTRASTS)
