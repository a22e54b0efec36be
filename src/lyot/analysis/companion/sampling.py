"""The posterior of companions, and their errors by injection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from lyot.algorithms.geometry import east_north, polar
from lyot.analysis.companion.likelihood import MARGIN_PIX, Likelihood, Optimum
from lyot.analysis.companion.noise import CLEAR_FWHM
from lyot.analysis.observation import Observation
from lyot.compute import threads
from lyot.errors import LyotError
from lyot.types import Array

N_WALKERS, MIN_STEPS, N_CURVATURE_SAMPLES = 32, 20, 4000
MAX_EXCLUDED_DEG = 150.0
"""Position angles about a companion that leave no room for injected ones."""
MAX_TRANSMISSION_RATIO = 1.5
"""By how much the mask's transmission may differ where one is injected: behind a bar or on the
boundary of a phase mask a source of the same flux is measured much worse."""


def sample(likelihood: Likelihood, best: Optimum, n_likelihoods: int, seed: int, /) -> Array:
    """Draw from the posterior ``(n_sample, n_companion, 3)``: east, north [pixel] and flux.

    Priors are flat, within the margin and for any flux; by emcee, or from the covariance at the
    optimum where no likelihoods are wanted or the response is not linear.
    """
    n = len(best.flux)
    start = np.column_stack([best.offsets, best.flux]).ravel()
    rng = np.random.default_rng(seed)
    if n_likelihoods <= 0 or not likelihood.is_linear:
        draws = rng.multivariate_normal(start, best.covariance, size=N_CURVATURE_SAMPLES)
        return np.asarray(draws).reshape(-1, n, 3)
    import emcee

    guesses = likelihood.guesses

    def _log_probability(theta: Array) -> float:
        shaped = theta.reshape(n, 3)
        if np.abs(shaped[:, :2] - guesses).max() > MARGIN_PIX:
            return -np.inf
        return -0.5 * likelihood.chi2(shaped[:, :2], shaped[:, 2])

    walkers = max(N_WALKERS, 6 * n + 2)
    steps = max(n_likelihoods // walkers, MIN_STEPS)
    first = rng.multivariate_normal(start, best.covariance, size=walkers)
    sampler = emcee.EnsembleSampler(walkers, 3 * n, _log_probability)
    sampler.random_state = np.random.RandomState(seed).get_state()
    sampler.run_mcmc(first, steps)
    chain = sampler.get_chain(discard=steps // 4, flat=True)
    return np.asarray(chain).reshape(-1, n, 3)


def injected_errors(
    likelihood: Likelihood, companions: Array, k: int, n_injections: int, /
) -> Array:
    """Return errors of companions like k injected at other position angles.

    ``companions`` are east, north [pixel] and flux of all that are fitted, ``(n, 3)``; the errors
    are those along the radius, along the angle [pixel] and of the flux, ``(n_injected, 3)``.
    """
    observation = likelihood.observation
    east, north, flux = companions[k]
    r, pa = (float(v) for v in polar(east, north))
    clear = np.degrees(2.0 * CLEAR_FWHM * observation.fwhm_pix / max(r, 1e-9))
    if n_injections < 1 or clear > MAX_EXCLUDED_DEG or not flux > 0:
        return np.empty((0, 3))
    data = [exposure.residual[likelihood.truncation] for exposure in observation.exposures]
    fitted = np.column_stack([*polar(*companions[:, :2].T), -companions[:, 2]])
    cleaned = _added(likelihood, data, fitted)
    through = _mean_transmission(observation, r, pa)

    def _one(angle: float) -> Array | None:
        ratio = _mean_transmission(observation, r, angle) / through
        if not 1.0 / MAX_TRANSMISSION_RATIO < ratio < MAX_TRANSMISSION_RATIO:
            return None
        return _injected_error(likelihood, cleaned, companions[:, :2], (r, angle, flux))

    angles = pa + np.linspace(clear, 360.0 - clear, n_injections)
    results = threads.map_ordered(_one, [float(a) for a in angles])
    errors = [row for row in results if row is not None]
    return np.array(errors) if errors else np.empty((0, 3))


def _mean_transmission(observation: Observation, r: float, pa: float) -> float:
    """Transmission of the mask at a separation [pixel] and position angle, over the exposures."""
    at = observation.transmission.at
    each = [at(*e.position(r, pa), mask_yx=e.mask_yx) for e in observation.exposures]
    return float(np.mean(each))


def _injected_error(
    likelihood: Likelihood,
    cleaned: list[Array],
    companions: Array,
    source: tuple[float, float, float],
) -> Array | None:
    """Errors of one injected companion; None where it cannot be fitted."""
    observation, (r, pa, flux) = likelihood.observation, source
    along = np.array(east_north(1.0, pa))
    place = r * along[None]
    if not all(e.contains(*e.position(r, pa)) for e in observation.exposures):
        return None
    data, exclude = _added(likelihood, cleaned, [source]), np.concatenate([companions, place])
    try:
        found = likelihood.elsewhere(place, data, exclude).optimum()
    except LyotError:
        return None
    difference = found.offsets[0] - place[0]
    across = np.array([along[1], -along[0]])
    return np.array([difference @ along, difference @ across, found.flux[0] - flux])


def _added(likelihood: Likelihood, images: list[Array], sources: Iterable[Any]) -> list[Array]:
    """The images of the exposures with sources (separation [pixel], position angle, flux) added."""
    out = []
    for exposure, image in zip(likelihood.observation.exposures, images, strict=True):
        changed = image.copy()
        for source in sources:
            box, added = likelihood.observation.added(exposure, *source)
            changed[box] += added[likelihood.truncation]
        out.append(changed)
    return out
