"""The likelihood of companions at some positions and fluxes, and its optimum."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np

from lyot.algorithms.geometry import box_about, polar
from lyot.analysis.companion.noise import Annulus, annulus, covariance_matrix
from lyot.analysis.exposure import SubtractedExposure
from lyot.analysis.noise import KnownSources
from lyot.analysis.observation import Observation
from lyot.analysis.response import PointSource, WhiteResponse
from lyot.errors import LyotError
from lyot.types import Array, Box

BOX_FWHM = 1.75
MARGIN_PIX = 3
"""How far a companion may lie from its guess."""
START_STEP_FWHM = 0.5
TRIAL_SNR = 20.0
RESPONSE_STEP_PIX = 0.02
"""Step of the slope of a response that is not linear in the companion's image."""
SLOPE_REACH_PIX = 4
N_PRIOR = 10.0
"""Pixels that the noise of the annulus weighs against that about a companion."""


class NoiseSettings(NamedTuple):
    """How noise is told from what is fitted."""

    truncation: int
    background: str
    known_sources: KnownSources


class Optimum(NamedTuple):
    """Offsets to the east and north [pixel], fluxes, and the covariance of all of them."""

    offsets: Array
    flux: Array
    covariance: Array
    stated: Array  # the part by the noise that ERR states
    curvature: Array  # of the likelihood, as a covariance: with the noise of the annulus alone


@dataclass(frozen=True, eq=False)
class Patch:
    """One exposure about one companion: its data, and the response to companions, white."""

    exposure: SubtractedExposure
    box: Box
    good: Array  # which pixels of the box are used
    noise: Annulus
    root: Array  # of the covariance of the pixels, lower
    white_data: Array
    white_err: Array  # (n_pix, n_pix), the independent errors of the pixels that ERR states
    response: WhiteResponse


class Likelihood:
    """Gaussian likelihood of companions near their guesses.

    ``guesses`` and ``exclude`` are offsets to the east and north [pixel], ``(n, 2)``; ``data`` the
    residual of each exposure. Companions of the data are in the references of the fits already:
    what they do is what goes when they are taken out. Injected ones are not (``in_fits`` False).
    """

    def __init__(
        self,
        observation: Observation,
        settings: NoiseSettings,
        guesses: Array,
        data: list[Array],
        exclude: Array,
        *,
        in_fits: bool = True,
    ) -> None:
        self.observation, self.settings, self.guesses = observation, settings, guesses
        self.truncation = settings.truncation
        self.n_calls = 0
        self.sign = -1.0 if in_fits else 1.0
        self._slopes = observation.psf.slopes()
        self.patches = [
            self._patch(exposure, image, k, exclude)
            for exposure, image in zip(observation.exposures, data, strict=True)
            for k in range(len(guesses))
        ]
        # The flux at which a source that references contain too is injected; it matters little.
        level = np.median([np.sqrt(np.mean(np.sum(p.root**2, axis=1))) for p in self.patches])
        self.trial_flux = np.full(len(guesses), TRIAL_SNR * level)

    def elsewhere(self, guesses: Array, data: list[Array], exclude: Array, /) -> Likelihood:
        """Return that of companions injected into other data, seen alike."""
        return Likelihood(self.observation, self.settings, guesses, data, exclude, in_fits=False)

    def _patch(self, exposure: SubtractedExposure, image: Array, k: int, exclude: Array) -> Patch:
        """The pixels about companion k."""
        fwhm = self.observation.fwhm_pix
        places = [_at(exposure, *offset) for offset in self.guesses]
        box = box_about(places[k], int(np.ceil(BOX_FWHM * fwhm)), exposure.shape)
        good = np.isfinite(image[box]).ravel() & (exposure.n_good[box] > 0).ravel()
        if good.sum() < good.size // 2:
            raise LyotError(
                f"Companion {k + 1} lies where more than half of the pixels of {exposure.name} "
                "are missing."
            )
        radius, known = float(np.hypot(*self.guesses[k])), self.settings.known_sources
        noise = annulus(exposure, image, radius, exclude, known, fwhm)
        stated = self.observation.stated_variance(exposure, self.truncation, box).ravel()[good]
        propagated = float(np.mean(stated))
        background = self.settings.background
        covariance = covariance_matrix(noise, box, good, propagated, background, fwhm)
        root = np.linalg.cholesky(covariance)
        whiten = partial(_whiten, root, good)
        response = exposure.response.whitened(box, self.truncation, whiten)
        white_data = whiten(image[box].ravel())
        white_err = _whiten(root, slice(None), np.diag(np.sqrt(stated)))
        return Patch(exposure, box, good, noise, root, white_data, white_err, response)

    def _source(self, patch: Patch, offset: Array) -> PointSource:
        """A companion as an exposure sees it."""
        r, pa = polar(*offset)
        return self.observation.source(patch.exposure, float(r), float(pa))

    def response(self, patch: Patch, k: int, offset: Array, /) -> Array:
        """Return what companion k at unit flux adds to the image of a patch."""
        source, flux = self._source(patch, offset), self.sign * float(self.trial_flux[k])
        [added] = patch.exposure.response.per_flux([source], [patch.box], flux=[flux])
        return np.asarray(added[self.truncation])

    def _column(self, patch: Patch, k: int, offset: Array) -> Array:
        """The same, whitened."""
        flux = self.sign * float(self.trial_flux[k])
        return patch.response(self._source(patch, offset), flux)

    def column(self, k: int, offset: Array, /) -> Array:
        """Return the whitened response to companion k at unit flux, on all patches."""
        return np.concatenate([self._column(patch, k, offset) for patch in self.patches])

    def columns(self, offsets: Array, /) -> list[Array]:
        """Return the whitened responses at unit flux: for each patch ``(n_pix, n_companion)``."""
        self.n_calls += 1
        return [
            np.stack([self._column(p, k, offset) for k, offset in enumerate(offsets)], axis=1)
            for p in self.patches
        ]

    def _column_slopes(self, patch: Patch, k: int, offset: Array) -> Array:
        """Slopes of a whitened response to the east and to the north, ``(n_pix, 2)``.

        A linear response T L p has the slopes L (T dp + p dT): the response to the derivatives of
        the image, which are exact in Fourier space. One that references contain too is not
        linear in its image, and a mask near by deforms the image as it moves: the slope is a
        central difference of the exact response.
        """
        exposure, source = patch.exposure, self._source(patch, offset)
        is_deformed = source.psf is not self.observation.psf
        if is_deformed or not exposure.response.is_linear:
            moves = RESPONSE_STEP_PIX * np.eye(2)
            pairs = [
                self._column(patch, k, offset + move) - self._column(patch, k, offset - move)
                for move in moves
            ]
            return np.stack(pairs, axis=1) / (2.0 * RESPONSE_STEP_PIX)
        bare = source._replace(transmission=1.0)
        respond = patch.response
        through, *steps = self._transmission_slopes(exposure, offset)
        image = respond(bare, 1.0)
        along_yx = np.stack(
            [
                through * respond(bare._replace(psf=psf), 1.0) + step * image
                for psf, step in zip(self._slopes, steps, strict=True)
            ],
            axis=1,
        )
        # Rows of this matrix: where one pixel to the east, and one to the north, lead along y, x.
        turn = [
            np.subtract(_at(exposure, *(offset + half)), _at(exposure, *(offset - half)))
            for half in 0.5 * np.eye(2)
        ]
        return np.asarray(along_yx @ np.transpose(turn))

    def _transmission_slopes(
        self, exposure: SubtractedExposure, offset: Array
    ) -> tuple[float, float, float]:
        """Transmission of the mask, and its slopes along y and x by a spline through pixels."""
        from scipy.interpolate import RectBivariateSpline

        y, x = _at(exposure, *offset)
        rows, columns = (
            np.arange(round(v) - SLOPE_REACH_PIX, round(v) + SLOPE_REACH_PIX + 1) for v in (y, x)
        )
        values = self.observation.transmission.at(
            rows[:, None], columns[None, :], mask_yx=exposure.mask_yx
        )
        spline = RectBivariateSpline(rows, columns, np.broadcast_to(values, (len(rows),) * 2))
        through = self.observation.transmission.at(y, x, mask_yx=exposure.mask_yx)
        place = (np.array(y), np.array(x))
        return float(through), float(spline.ev(*place, dx=1)), float(spline.ev(*place, dy=1))

    def design(self, offsets: Array, flux: Array, /) -> Array:
        """Return the slopes of the model: columns (east, north, flux) of each companion."""
        columns = self.columns(offsets)
        parts = []
        for patch, column in zip(self.patches, columns, strict=True):
            each = [
                np.column_stack([flux[k] * self._column_slopes(patch, k, offset), column[:, k]])
                for k, offset in enumerate(offsets)
            ]
            parts.append(np.concatenate(each, axis=1))
        return np.concatenate(parts)

    def covariances(
        self, offsets: Array, flux: Array, design: Array | None = None, /
    ) -> tuple[Array, Array, Array]:
        """Return the covariance of (east, north, flux) of each, by all noise and by that of ERR.

        And that of the likelihood's own curvature. Another `design` has other parameters.

        Exposures that subtract the same references, and the same star, have part of their noise in
        common, which their places share where they lie near one another on the detector. Noise is
        as large about each companion as chi-square there says.
        """
        inverse = np.linalg.pinv(self.design(offsets, flux) if design is None else design)
        ends = np.cumsum([p.white_data.size for p in self.patches])[:-1]
        parts = np.split(inverse, ends, axis=1)
        n = len(offsets)
        local = [
            (chi2 + N_PRIOR) / (n_pix + N_PRIOR) for chi2, n_pix in self.quality(offsets, flux)
        ]
        alone, shared, stated = np.zeros((3, len(inverse), len(inverse)))
        for i, (part, patch) in enumerate(zip(parts, self.patches, strict=True)):
            alone += local[i % n] * part @ part.T
            moved = part @ patch.white_err
            stated += moved @ moved.T
            for j in range(i % n, i, n):  # the same companion in exposures before
                both = local[i % n] * part @ self._shared(patch, self.patches[j]) @ parts[j].T
                shared += both + both.T
        values, vectors = np.linalg.eigh(shared)
        # A negative covariance between exposures would lower the error: it is not used.
        shared = (vectors * np.maximum(values, 0.0)) @ vectors.T
        return alone + shared, stated, np.asarray(inverse @ inverse.T)

    def at_place(self, offset: Array, flux: float, /) -> tuple[Array, Array]:
        """Return the covariance of the flux of the one companion at a place that is given.

        As (3, 3), zero for the place: by all noise, and by that of ERR.
        """
        design = self.column(0, offset)[:, None]
        found = self.covariances(offset[None], np.array([flux]), design)
        only_flux = np.diag([0.0, 0.0, 1.0])
        return found[0] * only_flux, found[1] * only_flux

    def _shared(self, patch: Patch, other: Patch) -> Array:
        """The covariance of the white pixels of two patches."""
        fwhm = self.observation.fwhm_pix
        matrix = patch.noise.covariance(other.noise, patch.box, other.box, fwhm)
        half = _whiten(patch.root, patch.good, matrix[:, other.good])
        return _whiten(other.root, slice(None), half.T).T

    @property
    def is_linear(self) -> bool:
        """Whether no reference of any exposure contains a companion."""
        return all(p.exposure.response.is_linear for p in self.patches)

    def best_flux(self, offsets: Array, /) -> tuple[Array, float]:
        """Return the best fluxes at some positions, and chi-square."""
        n = len(offsets)
        normal, right, total = np.zeros((n, n)), np.zeros(n), 0.0
        for column, patch in zip(self.columns(offsets), self.patches, strict=True):
            normal += column.T @ column
            right += column.T @ patch.white_data
            total += float(patch.white_data @ patch.white_data)
        flux = np.linalg.solve(normal + 1e-12 * np.trace(normal) * np.eye(n), right)
        return flux, total - float(flux @ right)

    def residual(self, offsets: Array, flux: Array, /) -> Array:
        """Return model less data, whitened, of all patches."""
        columns = self.columns(offsets)
        return np.concatenate(
            [c @ flux - p.white_data for c, p in zip(columns, self.patches, strict=True)]
        )

    def quality(self, offsets: Array, flux: Array, /) -> list[tuple[float, int]]:
        """Return chi-square about each companion, at some positions and fluxes, and the pixels."""
        squares = [
            float(np.sum((column @ flux - patch.white_data) ** 2))
            for column, patch in zip(self.columns(offsets), self.patches, strict=True)
        ]
        n_pixels = [patch.white_data.size for patch in self.patches]
        n = len(offsets)
        return [(sum(squares[k::n]), sum(n_pixels[k::n])) for k in range(n)]

    def optimum(self) -> Optimum:
        """Return the least squares over positions and fluxes, with their covariance.

        Trust-region steps with the analytic slopes, from the best of nine places about each
        guess: the fit of one maximum must begin on its slope.
        """
        from scipy.optimize import least_squares

        n = len(self.guesses)
        # Where one was injected is known.
        offsets = self._start() if self.sign < 0 else self.guesses
        flux, _ = self.best_flux(offsets)
        start = np.column_stack([offsets, flux])
        reach = np.tile([MARGIN_PIX, MARGIN_PIX, np.inf], (n, 1))
        middle = np.column_stack([self.guesses, np.zeros(n)])

        def _split(x: Array) -> tuple[Array, Array]:
            theta = x.reshape(n, 3)
            return theta[:, :2], theta[:, 2]

        def _residual(x: Array) -> Array:
            return self.residual(*_split(x))

        def _design(x: Array) -> Array:
            return self.design(*_split(x))

        best = least_squares(
            _residual,
            start.ravel(),
            jac=_design,
            bounds=((middle - reach).ravel(), (middle + reach).ravel()),
            x_scale="jac",
        )
        offsets, flux = _split(best.x)
        if not best.success or np.abs(offsets - self.guesses).max() > MARGIN_PIX - 0.05:
            raise LyotError(
                f"No companion is found within {MARGIN_PIX} pixels of the guess; give a better one."
            )
        if not self.is_linear:
            self.trial_flux = np.maximum(flux, 1e-3 * self.trial_flux)
            flux, _ = self.best_flux(offsets)
        return Optimum(offsets, flux, *self.covariances(offsets, flux))

    def _start(self) -> Array:
        """The guesses, each moved by up to half a FWHM where that fits better."""
        step = min(START_STEP_FWHM * self.observation.fwhm_pix, 0.5 * MARGIN_PIX)
        offsets = np.array(self.guesses, dtype=np.float64)
        for k in range(len(offsets)):
            tried = []
            for move in product((-step, 0.0, step), repeat=2):
                moved = offsets.copy()
                moved[k] += move
                if all(p.exposure.contains(*_at(p.exposure, *moved[k])) for p in self.patches):
                    tried.append((self.best_flux(moved)[1], moved))
            offsets = min(tried, key=lambda pair: pair[0])[1]
        return offsets


def _at(exposure: SubtractedExposure, east: float, north: float) -> tuple[float, float]:
    y, x = exposure.position(*polar(east, north))
    return float(y), float(x)


def _whiten(root: Array, good: Array | slice, columns: Array) -> Array:
    """Whiten values on the pixels of a patch, ``(n_pix,)`` or ``(n_pix, n)``."""
    from scipy.linalg import solve_triangular

    return np.asarray(solve_triangular(root, columns[good], lower=True))
