"""Fit companions: optimum, posterior, errors by injection."""

from __future__ import annotations

from dataclasses import asdict
from typing import NamedTuple

import numpy as np

from lyot.algorithms.geometry import east_north, polar
from lyot.algorithms.statistics import n_positions
from lyot.analysis.companion.budget import error_budget
from lyot.analysis.companion.likelihood import Likelihood, NoiseSettings
from lyot.analysis.companion.result import Bias, Companion, CompanionFit, Measured
from lyot.analysis.companion.sampling import injected_errors, radial_axes, sample
from lyot.analysis.noise import KnownSources
from lyot.analysis.observation import Observation
from lyot.analysis.statistic import FIVE_SIGMA, Statistic
from lyot.compute import threads
from lyot.errors import LyotError
from lyot.types import Array

MIN_TRANSMISSION = 0.02
"""Of the mask, below which no companion is measured."""
MIN_INJECTED, N_TRUSTED = 4, 8
"""Injected companions that are needed, and how many the error of the fit itself is worth."""


@threads.calculation
def fit_companions(
    observation: Observation,
    guesses: list[tuple[float, float]],
    /,
    *,
    n_modes: int | None = None,
    background: str = "plane",
    known_sources: KnownSources = (),
    n_likelihoods: int = 10_000,
    n_injections: int = 12,
    statistic: Statistic = FIVE_SIGMA,
    seed: int = 0,
) -> CompanionFit:
    """Fit position and flux of companions together.

    Parameters
    ----------
    observation : Observation
        The subtracted exposures; contrasts need the brightness of the star.
    guesses : list of (float, float)
        Separation [arcsec] and position angle [degree] of each, good to a pixel or two.
    n_modes : int, optional
        Number of modes; the largest by default.
    background : {"none", "constant", "plane", "quadratic"}, optional
        Smooth background about each, such as a disc leaves.
    known_sources : tuple of KnownSource or KnownDisc, optional
        Sources and a disc that are no noise.
    n_likelihoods : int, optional
        Length of the posterior's sampling, about; zero takes the curvature at the best fit, as
        do references that contain the companion.
    n_injections : int, optional
        Number of companions injected at the same separation to measure scatter and bias.
    statistic : Statistic, optional
        Of the significance; Gaussian noise by default.
    seed : int, optional
        Seed of the sampler.

    Returns
    -------
    CompanionFit
        Companions with their errors, and the posterior.

    Raises
    ------
    LyotError
        If a guess lies outside the frame or under the mask, or no companion is near it.

    Notes
    -----
    The optimum is that of `scipy.optimize.least_squares` with analytic slopes; the posterior is
    sampled by `emcee` (Foreman-Mackey et al. 2013, doi:10.1086/670067).

    Examples
    --------
    With an observation from `lyot.open_run`:

    >>> fit = fit_companions(observation, [(1.1, 205.0)], n_likelihoods=0, n_injections=0)
    >>> round(fit.companions[0].separation_arcsec.value, 1)
    1.1
    """
    if not guesses:
        raise LyotError("Give at least one companion to fit: its separation and position angle.")
    t, scale = observation.truncation(n_modes), observation.pixel_scale_arcsec
    start = np.array([east_north(s / scale, pa) for s, pa in guesses])
    _check(observation, start)
    data = [exposure.residual[t] for exposure in observation.exposures]
    settings = NoiseSettings(t, background, known_sources)
    likelihood = Likelihood(observation, settings, start, data, start)
    best = likelihood.optimum()
    samples = sample(likelihood, best, n_likelihoods, seed)
    middle = np.median(samples, axis=0)
    quality = likelihood.quality(middle[:, :2], middle[:, 2])
    companions = []
    for k in range(len(guesses)):
        own = slice(3 * k, 3 * k + 3)
        injected = injected_errors(likelihood, middle, k, n_injections)
        noise = _noise(samples[:, k], best.stated[own, own], injected)
        found = _describe(observation, middle[k], noise, quality[k], statistic)
        companions.append(found)
    described = {
        "n_modes": observation.n_modes[t],
        "background": background,
        **asdict(statistic),
        **observation.origins(),
        "sky_over_err": {e.name: str(e.sky[t]) for e in observation.exposures},
        "scale_err": observation.scale_err,
    }
    return CompanionFit(
        tuple(companions),
        samples * np.array([scale, scale, 1.0]),
        likelihood.n_calls,
        observation.n_modes[t],
        described,
        _boxes(likelihood, middle),
    )


def _check(observation: Observation, offsets: Array) -> None:
    """Refuse guesses outside a frame or under the mask."""
    for k, (east, north) in enumerate(offsets):
        r, pa = polar(east, north)
        best = 0.0
        for exposure in observation.exposures:
            y, x = (float(v) for v in exposure.position(r, pa))
            if not exposure.contains(y, x):
                raise LyotError(
                    f"Companion {k + 1} at {r * observation.pixel_scale_arcsec:.2f} arcsec, "
                    f"{pa:.1f} degrees lies outside the frame of {exposure.name}."
                )
            best = max(best, float(observation.transmission.at(y, x, mask_yx=exposure.mask_yx)))
        if best < MIN_TRANSMISSION:
            raise LyotError(
                f"Companion {k + 1} lies under the mask: {100 * best:.1f} % of its light passes."
            )


def _boxes(likelihood: Likelihood, companions: Array) -> list[tuple[str, Array, Array]]:
    """Name of the exposure, data and best model of every patch."""
    boxes = []
    for patch in likelihood.patches:
        image = patch.exposure.residual[likelihood.truncation][patch.box]
        model = np.zeros(image.shape)
        for k, (east, north, flux) in enumerate(companions):
            model += flux * likelihood.response(patch, k, np.array([east, north]))
        boxes.append((patch.exposure.name, image, model))
    return boxes


class _Noise(NamedTuple):
    """Errors by noise along the radius, along the angle [pixel] and of the flux."""

    err: Array
    """Those of the fit, times by how much injected companions err more than their fits say."""
    stated: Array
    """The part that ERR states."""
    bias: Array
    """Mean errors of injected companions; NaN for too few."""
    n_injected: int


def _noise(samples: Array, stated: Array, injected: Array) -> _Noise:
    """Summarize the posterior of a companion, its covariance by ERR, and injected companions."""
    east, north, _ = np.median(samples, axis=0)
    turn = radial_axes(east, north)
    err = np.std(samples @ turn.T, axis=0)
    of_stated = np.sqrt(np.diag(turn @ stated @ turn.T))
    n = len(injected)
    if n < MIN_INJECTED:
        return _Noise(err, of_stated, np.full(3, np.nan), n)
    errors, fitted = injected[:, 0], injected[:, 1]
    pulls = np.sum((errors / fitted) ** 2, axis=0)
    err = err * np.sqrt(np.maximum((pulls + N_TRUSTED) / (n + N_TRUSTED), 1.0))
    return _Noise(err, of_stated, errors.mean(axis=0), n)


def _describe(
    observation: Observation,
    middle: Array,
    noise: _Noise,
    quality: tuple[float, int],
    statistic: Statistic,
) -> Companion:
    """Turn the middle of a posterior into values with errors."""
    scale = observation.pixel_scale_arcsec
    east, north, flux = (float(v) for v in middle)
    r, pa = (float(v) for v in polar(east, north))
    budget = error_budget(observation, (r, pa, flux), noise.err, noise.stated)
    total, of_flux = budget.total, budget.without("brightness").flux
    radial, tangential = total.separation_arcsec, float(np.radians(total.pa_deg)) * r * scale
    star, contrast = observation.star, observation.contrast_of(flux)
    # A star that is measured in the same way has the same error of the calibration.
    shared = ("calibration",) if star is not None and star.is_measured else ()
    of_contrast = budget.without(*shared).flux
    snr, jy = float(flux / noise.err[2]), flux * observation.jy_per_unit
    magnitude = float("nan")
    if star is not None and star.magnitude is not None and flux > 0:
        magnitude = float(star.magnitude - 2.5 * np.log10(contrast))
    d_ra_err, d_dec_err = (
        float(np.hypot(radial * a / r, tangential * b / r))
        for a, b in ((east, north), (north, east))
    )
    return Companion(
        separation_arcsec=Measured(r * scale, radial),
        pa_deg=Measured(pa, total.pa_deg),
        d_ra_arcsec=Measured(east * scale, d_ra_err),
        d_dec_arcsec=Measured(north * scale, d_dec_err),
        flux=Measured(flux, of_flux * abs(flux)),
        contrast=Measured(contrast, of_contrast * abs(contrast)),
        jy=Measured(jy, of_flux * abs(jy)),
        magnitude=Measured(magnitude, 2.5 / np.log(10.0) * of_flux),
        snr=snr,
        fpf=statistic.fpf_of(snr, n_positions(r / observation.fwhm_pix)),
        budget=budget,
        bias=Bias(
            float(noise.bias[2]),
            float(noise.bias[0]) * scale,
            float(np.degrees(noise.bias[1] / r)),
            noise.n_injected,
        ),
        chi2=quality[0],
        n_data=quality[1],
    )
