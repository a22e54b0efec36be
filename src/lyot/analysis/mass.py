"""From contrast to mass: limits in Jupiter masses, by a table of evolutionary models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lyot.analysis.completeness import Completeness
from lyot.analysis.contrast import ContrastCurve
from lyot.errors import LyotError
from lyot.files.evolution import Evolution
from lyot.instruments.filters import Filter
from lyot.types import Array

N_MASSES = 40


@dataclass(frozen=True, eq=False)
class MassLimits:
    """Which masses would have been detected.

    Attributes
    ----------
    limit_mjup : ndarray, shape (n_trunc, n_sep)
        Mass above which every body of the models is brighter than the contrast limit [Jupiter
        masses]; NaN where the models reach no such mass, their lowest mass where all are brighter.
    separation_arcsec : ndarray, shape (n_sep,)
        Separations [arcsec].
    mass_mjup : ndarray, shape (n_mass,)
        Masses [Jupiter masses] of `probability`, in even ratios.
    probability : ndarray, shape (n_mass, n_sep)
        Fraction of the position angles at which a body of that mass would be detected.
    age_myr, distance_pc : float
        Age [million years] and distance [pc].
    origin : str
        The table of models.

    Examples
    --------
    >>> from lyot.analysis.completeness import completeness_map
    >>> from lyot.analysis.contrast import contrast_curve
    >>> curve = contrast_curve(observation, separations_arcsec=[1.0, 1.5])
    >>> complete = completeness_map(observation, separations_arcsec=[1.0, 1.5])
    >>> ages, masses = np.array([20.0, 20.0]), np.array([0.1, 80.0])
    >>> models = Evolution(ages, masses, np.array([40.0, 0.0]), "two masses")
    >>> limits = mass_limits(curve, complete, models, observation.filter, 20.0, 10.0)
    >>> bool((limits.limit_mjup > 0.1).all()), limits.probability.shape
    (True, (40, 2))
    """

    limit_mjup: Array
    separation_arcsec: Array
    mass_mjup: Array
    probability: Array
    age_myr: float
    distance_pc: float
    origin: str


def mass_limits(
    curve: ContrastCurve,
    complete: Completeness,
    models: Evolution,
    filter: Filter,
    age_myr: float,
    distance_pc: float,
    /,
) -> MassLimits:
    """Turn contrast limits and completeness into those of masses.

    Parameters
    ----------
    curve : ContrastCurve
        The limits.
    complete : Completeness
        What would be detected, by contrast.
    models : Evolution
        Absolute magnitudes by age and mass.
    filter : Filter
        For its zero point.
    age_myr, distance_pc : float
        Of the star [million years], [pc].

    Returns
    -------
    MassLimits
        Limits for each number of modes, and the probability of detection.

    Raises
    ------
    LyotError
        If the age lies outside of the models, or the filter has no zero point.

    Notes
    -----
    Where a more massive body is fainter, as where deuterium burns, the limit is the mass above
    which none is fainter than the contrast limit.

    Examples
    --------
    >>> from lyot.analysis.completeness import completeness_map
    >>> from lyot.analysis.contrast import contrast_curve
    >>> ages, masses = np.array([20.0, 20.0]), np.array([0.1, 80.0])
    >>> models = Evolution(ages, masses, np.array([40.0, 0.0]), "two masses")
    >>> curve = contrast_curve(observation, separations_arcsec=[1.0])
    >>> complete = completeness_map(observation, separations_arcsec=[1.0])
    >>> near = mass_limits(curve, complete, models, observation.filter, 20.0, 10.0)
    >>> far = mass_limits(curve, complete, models, observation.filter, 20.0, 40.0)
    >>> bool((far.limit_mjup > near.limit_mjup).all())
    True
    """
    if filter.vega_jy is None:
        raise LyotError(f"{filter.name} has no zero point in the table; masses need one.")
    mass, absolute = models.at_age(age_myr)
    apparent = absolute + 5.0 * np.log10(distance_pc / 10.0)
    contrast = filter.vega_jy * 10 ** (-0.4 * apparent) / curve.star_jy
    # The faintest of all bodies of that mass or more.
    least = np.minimum.accumulate(contrast[::-1])[::-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        limit = np.exp(np.interp(np.log(curve.calibrated), np.log(least), np.log(mass)))
    limit = np.where(curve.calibrated <= least[-1], limit, np.nan)
    masses = np.geomspace(mass[0], mass[-1], N_MASSES)
    of_masses = np.interp(np.log(masses), np.log(mass), np.log(contrast))
    probability = [
        np.interp(of_masses, np.log(complete.contrast), fraction)
        for fraction in complete.fraction.T
    ]
    return MassLimits(
        limit,
        curve.separation_arcsec,
        masses,
        np.array(probability).T,
        age_myr,
        distance_pc,
        models.origin,
    )
