"""Fit companions: optimum, posterior, errors by injection."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from lyot.algorithms.geometry import east_north, polar
from lyot.algorithms.statistics import n_positions
from lyot.analysis.companion.likelihood import Likelihood
from lyot.analysis.companion.mismatch import wavefront_mismatch
from lyot.analysis.companion.result import Bias, Companion, CompanionFit, ErrorBudget, Measured
from lyot.analysis.companion.sampling import injected_errors, sample
from lyot.analysis.observation import ROLL_ERR_DEG, SCALE_ERR, Observation
from lyot.analysis.statistic import FIVE_SIGMA, Statistic
from lyot.compute import threads
from lyot.errors import LyotError
from lyot.files.star import combined_err
from lyot.types import Array

MIN_TRANSMISSION = 0.02
"""Of the mask, below which no companion is measured."""
MIN_INJECTED = 4


@threads.calculation
def fit_companions(
    observation: Observation,
    guesses: list[tuple[float, float]],
    /,
    *,
    n_modes: int | None = None,
    background: str = "constant",
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
    likelihood = Likelihood(observation, t, start, background, data, start)
    samples = sample(likelihood, likelihood.optimum(), n_likelihoods, seed)
    middle = np.median(samples, axis=0)
    quality = likelihood.quality(middle[:, :2], middle[:, 2])
    companions = []
    for k in range(len(guesses)):
        errors = injected_errors(likelihood, middle, k, n_injections)
        companions.append(_describe(observation, samples[:, k], errors, quality[k], statistic))
    settings = {
        "n_modes": observation.n_modes[t],
        "background": background,
        **asdict(statistic),
        **observation.origins(),
        "roll_err_deg": ROLL_ERR_DEG,
        "scale_err": SCALE_ERR,
    }
    return CompanionFit(
        tuple(companions),
        samples * np.array([scale, scale, 1.0]),
        likelihood.n_calls,
        observation.n_modes[t],
        settings,
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


def _spread(samples: Array, injected: Array) -> tuple[Array, Array]:
    """Errors along the radius, along the angle [pixel] and of the flux, and their mean (bias).

    Those of the fit, widened to the scatter of injected companions where that is larger.
    """
    east, north, _ = np.median(samples, axis=0)
    along = np.array([east, north]) / np.hypot(east, north)
    across = np.array([along[1], -along[0]])
    moved = samples[:, :2] - (east, north)
    err = np.array([np.std(moved @ along), np.std(moved @ across), np.std(samples[:, 2])])
    if len(injected) < MIN_INJECTED:
        return err, np.full(3, np.nan)
    scatter = injected.std(axis=0, ddof=1)
    err = np.hypot(err, np.sqrt(np.maximum(scatter**2 - err**2, 0.0)))
    return err, injected.mean(axis=0)


def _psf_err(observation: Observation, r: float, pa: float) -> tuple[Array, float]:
    """Errors by the unknown wavefront: along the radius and the angle [pixel], and of the flux.

    The image moves along the axes of the detector, alike in all exposures.
    """
    off = wavefront_mismatch(observation.psf)
    variances = []
    for exposure in observation.exposures:
        here, further = (np.array(exposure.position(at, pa)) for at in (r, r + 1.0))
        along = np.square(further - here)
        variances.append([along @ off.shift_yx**2, along[::-1] @ off.shift_yx**2])
    return np.sqrt(np.mean(variances, axis=0)), off.flux


def _describe(
    observation: Observation,
    samples: Array,
    injected: Array,
    quality: tuple[float, int],
    statistic: Statistic,
) -> Companion:
    """Turn a posterior into values with errors."""
    scale = observation.pixel_scale_arcsec
    east, north, flux = (float(v) for v in np.median(samples, axis=0))
    r, pa = (float(v) for v in polar(east, north))
    err, bias = _spread(samples, injected)
    star = combined_err([exposure.star for exposure in observation.exposures])
    roll, size = float(np.radians(ROLL_ERR_DEG) * r), SCALE_ERR * r
    psf, psf_flux = _psf_err(observation, r, pa)
    radial = float(np.sqrt(err[0] ** 2 + star**2 + size**2 + psf[0] ** 2))
    tangential = float(np.sqrt(err[1] ** 2 + star**2 + roll**2 + psf[1] ** 2))
    snr, flux_err = float(flux / err[2]), float(np.hypot(err[2], psf_flux * flux))
    magnitude, brightness = float("nan"), observation.star
    if brightness is not None and brightness.magnitude is not None and flux > 0:
        magnitude = float(brightness.magnitude - 2.5 * np.log10(flux / observation.star_flux))
    d_ra_err, d_dec_err = (
        float(np.hypot(radial * a / r, tangential * b / r)) * scale
        for a, b in ((east, north), (north, east))
    )
    return Companion(
        separation_arcsec=Measured(r * scale, radial * scale),
        pa_deg=Measured(pa, float(np.degrees(tangential / r))),
        d_ra_arcsec=Measured(east * scale, d_ra_err),
        d_dec_arcsec=Measured(north * scale, d_dec_err),
        flux=Measured(flux, flux_err),
        contrast=Measured(observation.contrast_of(flux), observation.contrast_of(flux_err)),
        jy=flux * observation.jy_per_unit,
        magnitude=magnitude,
        snr=snr,
        fpf=statistic.fpf_of(snr, n_positions(r / observation.fwhm_pix)),
        errors=ErrorBudget(
            float(np.sqrt(0.5 * (err[0] ** 2 + err[1] ** 2))) * scale,
            star * scale,
            roll * scale,
            size * scale,
            float(np.sqrt(0.5 * (psf[0] ** 2 + psf[1] ** 2))) * scale,
        ),
        bias=Bias(
            float(bias[2]), float(bias[0]) * scale, float(np.degrees(bias[1] / r)), len(injected)
        ),
        chi2=quality[0],
        n_data=quality[1],
    )
