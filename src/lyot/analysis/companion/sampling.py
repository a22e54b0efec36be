"""The posterior of companions, and their errors by injection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev

from lyot.algorithms.geometry import east_north, polar
from lyot.analysis.companion.likelihood import MARGIN_PIX, Likelihood, Optimum
from lyot.analysis.companion.noise import CLEAR_FWHM
from lyot.analysis.observation import Observation
from lyot.compute import threads
from lyot.errors import LyotError
from lyot.types import Array

N_SIGMA, MIN_REACH_PIX = 6.0, 0.3
N_TERMS, N_TERMS_PER_PIX = 5, 3.5
"""Terms of the expansion along an axis, and more of them for each pixel of its half width."""
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

    model = _Expansion(likelihood, best)

    def _log_probability(theta: Array) -> Array:
        shaped = theta.reshape(-1, n, 3)
        at = shaped[..., :2]
        inside = (np.abs(at - likelihood.guesses) <= MARGIN_PIX) & model.holds(at)
        return np.where(inside.all(axis=(1, 2)), -0.5 * model.chi2(at, shaped[..., 2]), -np.inf)

    walkers = max(N_WALKERS, 6 * n + 2)
    steps = max(n_likelihoods // walkers, MIN_STEPS)
    first = rng.multivariate_normal(start, best.curvature, size=walkers)
    sampler = emcee.EnsembleSampler(walkers, 3 * n, _log_probability, vectorize=True)
    sampler.random_state = np.random.RandomState(seed).get_state()
    sampler.run_mcmc(first, steps)
    likelihood.n_calls += walkers * (steps + 1)
    chain = np.asarray(sampler.get_chain(discard=steps // 4, flat=True))
    # The likelihood takes exposures as independent, and the noise as that of the annulus.
    middle, roots = np.median(chain, axis=0), np.linalg.cholesky([best.covariance, best.curvature])
    stretch = roots[0] @ np.linalg.inv(roots[1])
    return (middle + (chain - middle) @ stretch.T).reshape(-1, n, 3)


class _Expansion:
    """The model of companions about their optimum: Chebyshev polynomials of their positions.

    They hold six standard errors; a PSF is as smooth as the telescope is small.
    """

    def __init__(self, likelihood: Likelihood, best: Optimum) -> None:
        variances = np.diag(best.curvature).reshape(-1, 3)[:, :2].max(axis=1)
        self.middle = best.offsets
        self.half = np.clip(N_SIGMA * np.sqrt(variances), MIN_REACH_PIX, 2.0 * MARGIN_PIX)
        self.data = np.concatenate([p.white_data for p in likelihood.patches])
        self.terms = []
        for k, (middle, half) in enumerate(zip(self.middle, self.half, strict=True)):
            degree = N_TERMS + int(np.ceil(N_TERMS_PER_PIX * half))
            nodes = np.cos(np.pi * (np.arange(degree) + 0.5) / degree)
            grid = [(east, north) for east in nodes for north in nodes]
            columns = [likelihood.column(k, middle + half * np.array(at)) for at in grid]
            to_terms = np.linalg.inv(chebyshev.chebvander(nodes, degree - 1))
            self.terms.append(np.kron(to_terms, to_terms) @ np.array(columns))

    def holds(self, at: Array) -> Array:
        """Return whether the polynomials hold at offsets ``(n_walker, n, 2)``."""
        return np.asarray(np.abs(at - self.middle) <= self.half[:, None])

    def chi2(self, at: Array, flux: Array) -> Array:
        """Return chi-square at offsets and fluxes, ``(n_walker,)``."""
        residual = -np.broadcast_to(self.data, (len(at), len(self.data)))
        for k, terms in enumerate(self.terms):
            degree = round(np.sqrt(len(terms))) - 1
            scaled = np.clip((at[:, k] - self.middle[k]) / self.half[k], -1.0, 1.0)
            east, north = (chebyshev.chebvander(scaled[:, i], degree) for i in (0, 1))
            products = (east[:, :, None] * north[:, None, :]).reshape(len(at), -1)
            residual = residual + flux[:, k, None] * (products @ terms)
        return np.asarray(np.sum(residual**2, axis=1))


def radial_axes(east: float, north: float, /) -> Array:
    """Return what turns (east, north, flux) into radius, angle and flux about a place, (3, 3)."""
    along = np.array([east, north]) / np.hypot(east, north)
    return np.array([[*along, 0.0], [along[1], -along[0], 0.0], [0.0, 0.0, 1.0]])


def injected_errors(
    likelihood: Likelihood, companions: Array, k: int, n_injections: int, /
) -> Array:
    """Return errors of companions like k injected at other position angles.

    ``companions`` are east, north [pixel] and flux of all that are fitted, ``(n, 3)``. The errors
    are those along the radius, along the angle [pixel] and of the flux, and what the fits say of
    them: ``(n_injected, 2, 3)``.
    """
    observation = likelihood.observation
    east, north, flux = companions[k]
    r, pa = (float(v) for v in polar(east, north))
    clear = np.degrees(2.0 * CLEAR_FWHM * observation.fwhm_pix / max(r, 1e-9))
    if n_injections < 1 or clear > MAX_EXCLUDED_DEG or not flux > 0:
        return np.empty((0, 2, 3))
    data = [exposure.residual[likelihood.truncation] for exposure in observation.exposures]
    fitted = np.column_stack([*polar(*companions[:, :2].T), -companions[:, 2]])
    cleaned = _added(likelihood, data, fitted)
    through = _mean_transmission(observation, r, pa)

    known, scale = likelihood.settings.known_sources, observation.pixel_scale_arcsec

    def _one(angle: float) -> Array | None:
        place, fwhm = (np.array(r * scale), np.array(angle)), observation.fwhm_pix * scale
        if any(source.covers(*place, fwhm) for source in known):
            return None
        ratio = _mean_transmission(observation, r, angle) / through
        if not 1.0 / MAX_TRANSMISSION_RATIO < ratio < MAX_TRANSMISSION_RATIO:
            return None
        return _injected_error(likelihood, cleaned, companions[:, :2], (r, angle, flux))

    angles = pa + np.linspace(clear, 360.0 - clear, n_injections)
    results = threads.map_ordered(_one, [float(a) for a in angles])
    errors = [row for row in results if row is not None]
    return np.array(errors) if errors else np.empty((0, 2, 3))


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
    """Errors of one injected companion and those its fit states, (2, 3); None without a fit."""
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
    turn = radial_axes(*along)
    errors = turn @ [*(found.offsets[0] - place[0]), found.flux[0] - flux]
    return np.array([errors, np.sqrt(np.diag(turn @ found.covariance @ turn.T))])


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
