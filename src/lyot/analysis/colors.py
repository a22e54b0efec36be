"""Companions in several modes of one star: one place for all, magnitudes and colors there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from lyot.algorithms.geometry import east_north, polar
from lyot.analysis.companion.budget import ErrorBudget, error_budget
from lyot.analysis.companion.likelihood import Likelihood, NoiseSettings
from lyot.analysis.companion.result import Measured
from lyot.analysis.companion.sampling import radial_axes
from lyot.analysis.observation import Observation
from lyot.analysis.table import column, table_of
from lyot.compute import threads
from lyot.errors import LyotError
from lyot.instruments.filters import Filter
from lyot.types import Array

LIMIT_SIGMA, MIN_SNR = 5.0, 3.0
"""Of the limit where nothing is seen, and S/N from which a magnitude is stated."""
IN_PLACE = ("star", "wavefront")
"""Terms that move a companion in one mode and not in the others."""
NOISE = ("photon", "residual", "brightness")
"""Terms that are no error of the calibration of a flux."""


class CommonPlace(NamedTuple):
    """Where a companion is about its star, as a search found it."""

    separation_arcsec: float
    pa_deg: float
    seen_in: frozenset[int]  # numbers of the modes


@dataclass(frozen=True, eq=False)
class ModeFit:
    """A companion as one mode has it: fitted where it was found there, else at the place given."""

    product: str
    filter: Filter
    coronagraph: str
    offset: Array | None  # to the east and north [arcsec]; None where it was not found
    theta: Array  # (3, 3), covariance of these and the flux [arcsec, Jy], by noise
    place: Array  # (2, 2), covariance by the star and the wavefront [arcsec^2]
    jy: float
    budget: ErrorBudget  # of the flux, relative


@dataclass(frozen=True)
class InMode:
    """A companion in one mode, at the place that all have in common.

    Attributes
    ----------
    product, filter : str
        Mode.
    jy : Measured
        Flux density [Jy]; negative where noise is.
    magnitude : Measured
        Vega magnitude; NaN below S/N 3.
    magnitude_limit : float
        Magnitude of what would exceed it by 5 sigma, where it is NaN.
    snr : float
        Flux over its noise.
    apart : float
        How far this mode alone has it from the common place, in errors; NaN where it was not found.

    Examples
    --------
    >>> fit = InMode("p", "F444W", Measured(2e-6, 1e-7), Measured(19.9, 0.05), np.nan, 20.0, 0.7)
    >>> fit.magnitude.err
    0.05
    """

    product: str = column("product")
    filter: str = column("filter")
    jy: Measured = column("flux_density", "Jy")
    magnitude: Measured = column("magnitude", "mag")
    magnitude_limit: float = column("magnitude_limit", "mag")
    snr: float = column("snr")
    apart: float = column("apart")


@dataclass(frozen=True)
class Color:
    """Difference of the magnitudes of a companion in two filters.

    Attributes
    ----------
    name : str
        Both filters.
    magnitude : Measured
        Difference, the shorter wavelength first.

    Examples
    --------
    >>> print(Color("F356W - F444W", Measured(0.8, 0.1)).magnitude)
    0.8 +- 0.1
    """

    name: str
    magnitude: Measured


@dataclass(frozen=True)
class CommonCompanion:
    """A companion at one place in all modes.

    Attributes
    ----------
    separation_arcsec, pa_deg : Measured
        Separation [arcsec] and position angle [degree east of north].
    modes : tuple of InMode
        By wavelength.
    colors : tuple of Color
        Of neighboring filters in which it has magnitudes.

    Examples
    --------
    >>> companion = CommonCompanion(Measured(1.0, 0.01), Measured(40.0, 0.5), (), ())
    >>> companion.colors
    ()
    """

    separation_arcsec: Measured
    pa_deg: Measured
    modes: tuple[InMode, ...]
    colors: tuple[Color, ...]


def common_places(
    found: Sequence[Sequence[tuple[float, float, float]]], reach_arcsec: float, /, most: int = 10
) -> list[CommonPlace]:
    """Group candidates (separation, position angle, S/N) of modes that lie within some distance.

    The most significant come first; the place of a group is their mean, weighted by S/N squared.
    """
    rows = [
        (snr, number, np.array(east_north(r, pa)))
        for number, candidates in enumerate(found)
        for r, pa, snr in candidates
    ]
    groups: list[list[tuple[float, int, Array]]] = []
    for row in sorted(rows, key=lambda row: -row[0]):
        for group in groups:
            is_near = np.hypot(*(group[0][2] - row[2])) < reach_arcsec
            if is_near and row[1] not in {number for _, number, _ in group}:
                group.append(row)
                break
        else:
            groups.append([row])
    places = []
    for group in groups[:most]:
        snr, numbers, offsets = zip(*group, strict=True)
        r, pa = polar(*np.average(offsets, axis=0, weights=np.square(snr)))
        places.append(CommonPlace(float(r), float(pa), frozenset(numbers)))
    return places


@threads.calculation
def fit_mode(
    observation: Observation,
    number: int,
    places: Sequence[CommonPlace],
    /,
    background: str = "plane",
) -> list[ModeFit | None]:
    """Fit the companions of a target in one of its modes; None where its frames do not show one."""
    scale = observation.pixel_scale_arcsec
    offsets = np.array([east_north(p.separation_arcsec / scale, p.pa_deg) for p in places])
    fits: list[ModeFit | None] = []
    for k, place in enumerate(places):
        try:
            fits.append(
                _fit_one(observation, offsets, k, background, is_seen=number in place.seen_in)
            )
        except LyotError:
            fits.append(None)
    return fits


def _fit_one(
    observation: Observation, offsets: Array, k: int, background: str, *, is_seen: bool
) -> ModeFit:
    """Fit companion k; the others are left out of the noise."""
    t, scale = observation.truncation(None), observation.pixel_scale_arcsec
    r, pa = (float(v) for v in polar(*offsets[k]))
    if not observation.sees(r * scale, pa):
        raise LyotError("It lies outside a frame.")
    data = [exposure.residual[t] for exposure in observation.exposures]
    settings = NoiseSettings(t, background, ())
    likelihood = Likelihood(observation, settings, offsets[k : k + 1], data, offsets)
    unit = np.array([scale, scale, observation.jy_per_unit])
    theta = np.zeros((3, 3))
    if is_seen:
        best = likelihood.optimum()
        offset, flux = best.offsets[0], float(best.flux[0])
        theta, stated = best.covariance, best.stated
    else:
        offset, (flux,) = offsets[k], likelihood.best_flux(offsets[k : k + 1])[0]
        theta, stated = likelihood.at_place(offset, float(flux))
    turn = radial_axes(*offset)
    r, pa = (float(v) for v in polar(*offset))
    noise, photon = (np.sqrt(np.diag(turn @ c @ turn.T)) for c in (theta, stated))
    budget = error_budget(observation, (r, pa, max(abs(flux), float(noise[2]))), noise, photon)
    terms = [getattr(budget, name) for name in IN_PLACE]
    radial = np.hypot(*(term.separation_arcsec for term in terms))
    tangential = np.radians(np.hypot(*(term.pa_deg for term in terms))) * r * scale
    axes = turn[:2, :2]
    return ModeFit(
        product=observation.product,
        filter=observation.filter,
        coronagraph=observation.exposures[0].target.info.coronagraph,
        offset=offset * scale if is_seen else None,
        theta=theta * np.outer(unit, unit),
        place=axes.T @ np.diag([radial**2, tangential**2]) @ axes,
        jy=float(flux) * observation.jy_per_unit,
        budget=budget,
    )


def at_common_place(fits: Sequence[ModeFit | None], /) -> CommonCompanion | None:
    r"""Put the fits of one companion together; None where no mode has it.

    Each mode has it at :math:`p_i = p + \delta_i + n_i`, with the noise of its fit and the error of
    its own star and wavefront. Least squares over p and all :math:`\delta_i` give the mean of the
    places weighted by the inverse of :math:`C_i + S_i`, and fluxes moved by
    :math:`-c_i (C_i + S_i)^{-1} (p_i - p)` with the covariances c of flux and place.
    """
    shown = sorted((f for f in fits if f is not None), key=lambda f: f.filter.pivot_um)
    seen = [(f, f.offset) for f in shown if f.offset is not None]
    if not seen:
        return None
    inverses = [np.linalg.inv(f.theta[:2, :2] + f.place) for f, _ in seen]
    covariance = np.linalg.inv(np.sum(inverses, axis=0))
    mean = covariance @ np.sum([w @ p for w, (_, p) in zip(inverses, seen, strict=True)], axis=0)
    r, pa = (float(v) for v in polar(*mean))
    turn = radial_axes(*mean)[:2, :2]
    radial, tangential = np.sqrt(np.diag(turn @ covariance @ turn.T))
    common = [f.budget.without("photon", "residual", *IN_PLACE) for f, _ in seen]
    modes = [_in_mode(f, mean, covariance) for f in shown]
    return CommonCompanion(
        Measured(r, float(np.hypot(radial, max(c.separation_arcsec for c in common)))),
        Measured(pa, float(np.hypot(np.degrees(tangential / r), max(c.pa_deg for c in common)))),
        tuple(modes),
        tuple(_colors(shown, modes)),
    )


def _in_mode(fit: ModeFit, mean: Array, covariance: Array) -> InMode:
    jy, variance, apart = fit.jy, float(fit.theta[2, 2]), float("nan")
    if fit.offset is not None:
        moved, inverse = fit.offset - mean, np.linalg.inv(fit.theta[:2, :2] + fit.place)
        gain = fit.theta[2, :2] @ inverse
        jy -= float(gain @ moved)
        variance -= float(gain @ fit.theta[2, :2] - gain @ covariance @ gain)
        apart = float(np.sqrt(moved @ inverse @ moved))
    noise = float(np.sqrt(variance))
    relative = fit.budget.without(*NOISE).flux
    snr, zero = jy / noise, fit.filter.vega_jy
    magnitude, limit = Measured(float("nan"), float("nan")), float("nan")
    if zero is not None and snr >= MIN_SNR:
        err = 2.5 / np.log(10.0) * np.hypot(noise / jy, relative)
        magnitude = Measured(float(-2.5 * np.log10(jy / zero)), float(err))
    elif zero is not None:
        limit = float(-2.5 * np.log10((max(jy, 0.0) + LIMIT_SIGMA * noise) / zero))
    err_jy = float(np.hypot(noise, relative * jy))
    return InMode(fit.product, fit.filter.name, Measured(jy, err_jy), magnitude, limit, snr, apart)


def _colors(fits: Sequence[ModeFit], modes: Sequence[InMode]) -> list[Color]:
    """Differences of magnitudes; what the same mask does to both drops out."""
    colors = []
    known = [(f, m) for f, m in zip(fits, modes, strict=True) if np.isfinite(m.magnitude.value)]
    for (fit, one), (other, two) in pairwise(known):
        squares = one.magnitude.err**2 + two.magnitude.err**2
        if fit.coronagraph == other.coronagraph:
            masks = (2.5 / np.log(10.0)) ** 2 * np.prod(
                [each.budget.transmission.flux for each in (fit, other)]
            )
            squares -= 2.0 * masks
        colors.append(
            Color(
                f"{one.filter} - {two.filter}",
                Measured(
                    one.magnitude.value - two.magnitude.value, float(np.sqrt(max(squares, 0.0)))
                ),
            )
        )
    return colors


@dataclass(frozen=True)
class _Row:
    target: str = column("target")
    companion: int = column("companion")
    separation_arcsec: Measured = column("separation", "arcsec")
    pa_deg: Measured = column("pa", "deg")
    mode: InMode = column("")
    color: str = column("color_name")
    color_mag: Measured = column("color", "mag")


def table_of_modes(targets: Mapping[str, Sequence[CommonCompanion]], /) -> Any:
    """Return an astropy row for each companion of each target in each mode, and its color there.

    The color is that with the next filter, where it has a magnitude in both.
    """
    none = Color("", Measured(float("nan"), float("nan")))
    rows = []
    for target, companions in targets.items():
        for number, each in enumerate(companions, start=1):
            colors = iter(each.colors)
            for mode in each.modes:
                is_first = np.isfinite(mode.magnitude.value)
                color = next(colors, none) if is_first else none
                place = each.separation_arcsec, each.pa_deg
                rows.append(_Row(target, number, *place, mode, color.name, color.magnitude))
    return table_of(_Row, rows, {})
