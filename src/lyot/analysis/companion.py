r"""Where a companion is and how bright, by exact forward modelling.

The residual about it is :math:`d = \sum_k a_k\,L\,p(x_k) + B\,c + \epsilon`: p is the off-axis
image at its position, times the transmission of the mask there; L what the reduction does to any
source (an operator, made once; the positions then cost one product each); B a smooth background;
and :math:`\epsilon` noise with the covariance that the residual shows at the same separation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lyot.algorithms.geometry import radius_map
from lyot.analysis.observation import ROLL_ERR_DEG, SCALE_ERR, Observation
from lyot.analysis.response import Box, SubtractedExposure, onto_box, respond
from lyot.compute import threads
from lyot.errors import LyotError
from lyot.types import Array

BOX_FWHM, MARGIN_PIX = 1.75, 3
ANNULUS_FWHM = 2.0
CLEAR_FWHM = 3.0
N_WALKERS = 32
LEAST_TRANSMISSION = 0.02
BACKGROUNDS = {"none": 0, "constant": 1, "plane": 3, "quadratic": 6}


@dataclass(frozen=True)
class Companion:
    """A measured companion.

    Attributes
    ----------
    separation_arcsec, separation_err : float
        Separation, with all errors [arcsec].
    pa_deg, pa_err : float
        Position angle [degree east of north].
    d_ra_arcsec, d_ra_err, d_dec_arcsec, d_dec_err : float
        Offset to the east and to the north [arcsec].
    flux, flux_err : float
        Flux [MJy/sr times pixel].
    contrast, contrast_err : float
        Flux over that of the star; NaN where its brightness is not known.
    jy : float
        Flux density [Jy].
    magnitude : float
        Vega magnitude; NaN where it is not known.
    snr : float
        Flux over its error.
    fit_err_arcsec : float
        Part of the fit in the error of the position, along one axis [arcsec].
    star_err_arcsec : float
        Part of the star's position [arcsec].
    roll_err_arcsec, scale_err_arcsec : float
        Parts of the roll and of the pixel scale [arcsec].
    bias_flux, bias_separation_arcsec, bias_pa_deg : float
        Mean error of companions of that flux injected at the same separation, not corrected
        for; NaN where none were.
    n_injected : int
        How many were.
    chi2, n_data : float, int
        Chi-square of the best fit, and number of pixels.
    """

    separation_arcsec: float
    separation_err: float
    pa_deg: float
    pa_err: float
    d_ra_arcsec: float
    d_ra_err: float
    d_dec_arcsec: float
    d_dec_err: float
    flux: float
    flux_err: float
    contrast: float
    contrast_err: float
    jy: float
    magnitude: float
    snr: float
    fit_err_arcsec: float
    star_err_arcsec: float
    roll_err_arcsec: float
    scale_err_arcsec: float
    bias_flux: float
    bias_separation_arcsec: float
    bias_pa_deg: float
    n_injected: int
    chi2: float
    n_data: int


@dataclass(frozen=True, eq=False)
class CompanionFit:
    """Companions that were fitted together.

    Attributes
    ----------
    companions : tuple of Companion
        In the order of the guesses.
    samples : ndarray, shape (n_sample, n_companion, 3)
        Posterior: offset to the east and to the north [arcsec], and flux.
    n_likelihoods : int
        How many times the likelihood was computed.
    n_modes : int
        Number of modes.
    settings : dict
        What was asked for, and where PSF, transmission and star come from.
    boxes : list of tuple
        For each exposure and companion, for looking at: the name of the exposure, data and best
        model, ``(n_y, n_x)``.
    """

    companions: tuple[Companion, ...]
    samples: Array
    n_likelihoods: int
    n_modes: int
    settings: dict[str, Any]
    boxes: list[tuple[str, Array, Array]]

    def to_table(self) -> Any:
        """Return one row per companion.

        Returns
        -------
        astropy.table.QTable
            With units.
        """
        from astropy import units as u
        from astropy.table import QTable

        unit = u.MJy / u.sr * u.pix
        units = {
            "arcsec": u.arcsec,
            "deg": u.deg,
        }
        columns: dict[str, Any] = {}
        for name in Companion.__dataclass_fields__:
            values = np.array([getattr(c, name) for c in self.companions])
            if name in ("flux", "flux_err", "bias_flux"):
                columns[name] = values * unit
            elif name == "jy":
                columns["flux_density"] = values * u.Jy
            elif name == "magnitude":
                columns[name] = values * u.mag
            elif name in ("separation_err", "d_ra_err", "d_dec_err"):
                columns[name] = values * u.arcsec
            elif name == "pa_err":
                columns[name] = values * u.deg
            else:
                stem, _, last = name.rpartition("_")
                known = last in units
                columns[stem if known else name] = values * units[last] if known else values
        return QTable(columns, meta={"lyot": self.settings})

    def _repr_html_(self) -> str:
        """Return the table, for a notebook."""
        return str(self.to_table()._repr_html_())


@dataclass(frozen=True, eq=False)
class _Patch:
    """One exposure about one companion: data, whitening, and operators for all companions."""

    exposure: SubtractedExposure
    wanted: Box
    sources: list[Box]
    root: Array
    white_data: Array
    good: Array
    operators: list[Array]
    white_operators: list[Array]


class _Problem:
    """The likelihood of companions at some positions."""

    def __init__(
        self,
        observation: Observation,
        truncation: int,
        guesses: Array,
        background: str,
        data: list[Array],
        exclude: Array,
        *,
        in_fits: bool = True,
    ) -> None:
        self.observation, self.truncation, self.guesses = observation, truncation, guesses
        self.n_calls = 0
        # Companions of the data are in the references of the fits already: what they do is what
        # goes when they are taken out. Injected ones are not.
        self.sign = -1.0 if in_fits else 1.0
        # The flux at which a source that references hold too is put in; it matters little.
        self.trial_flux = np.full(len(guesses), np.nan)
        fwhm = observation.fwhm_pix
        half = int(np.ceil(BOX_FWHM * fwhm))
        self.patches: list[_Patch] = []
        for exposure, image in zip(observation.exposures, data, strict=True):
            places = [self._at(exposure, *offset) for offset in guesses]
            sources = [
                _box(y, x, observation.psf.half_pix + MARGIN_PIX, exposure.shape) for y, x in places
            ]
            for k, (y, x) in enumerate(places):
                wanted = _box(y, x, half, exposure.shape)
                linear = exposure.in_refs is None
                operators = [
                    respond(exposure, source, None, wanted, truncation=truncation)[0].reshape(
                        (source[0].stop - source[0].start) * (source[1].stop - source[1].start), -1
                    )
                    for source in sources
                    if linear
                ]
                good = np.isfinite(image[wanted]).ravel() & (exposure.n_good[wanted] > 0).ravel()
                if good.sum() < good.size // 2:
                    raise LyotError(
                        f"Companion {k + 1} lies where more than half of the pixels of "
                        f"{exposure.name} are missing."
                    )
                noise = residual_covariance(exposure, image, (y, x), exclude, fwhm)
                known = exposure.variance[truncation][wanted].ravel()[good]
                covariance = _positive(noise(*_lags(wanted, good)), float(np.mean(known)))
                covariance += _background_prior(wanted, good, background, covariance)
                root = np.linalg.cholesky(covariance)
                white = _solve(root, image[wanted].ravel()[good])
                self.patches.append(
                    _Patch(
                        exposure,
                        wanted,
                        sources,
                        root,
                        white,
                        good,
                        operators,
                        [_solve(root, operator[:, good].T) for operator in operators],
                    )
                )
        level = np.sqrt(np.median([np.diag(p.root @ p.root.T).mean() for p in self.patches]))
        self.trial_flux[:] = 20.0 * level

    def _at(self, exposure: SubtractedExposure, east: float, north: float) -> tuple[float, float]:
        r, pa = np.hypot(east, north), np.degrees(np.arctan2(east, north))
        y, x = exposure.position(r, pa)
        return float(y), float(x)

    def source(self, patch: _Patch, k: int, east: float, north: float) -> Array:
        """The image of companion k at unit flux, on the pixels of its operator, and its loss."""
        y, x = self._at(patch.exposure, east, north)
        box, image = self.observation.psf.place(y, x, patch.exposure.shape)
        frame = onto_box(image[None], box, patch.sources[k])
        through = self.observation.transmission.at(y, x, star_yx=patch.exposure.star.yx)
        return frame.ravel() * float(through)

    def response(self, patch: _Patch, k: int, east: float, north: float) -> Array:
        """What companion k at unit flux adds to the pixels of a patch."""
        if patch.exposure.in_refs is None:
            return np.asarray(self.source(patch, k, east, north) @ patch.operators[k])
        flux = self.sign * float(self.trial_flux[k])
        r, pa = float(np.hypot(east, north)), float(np.degrees(np.arctan2(east, north)))
        box, added = self.observation.added(patch.exposure, r, pa, flux)
        unit = np.nan_to_num(added[self.truncation]) / flux
        return onto_box(unit[None], box, patch.wanted).ravel()

    def columns(self, offsets: Array) -> list[Array]:
        """Whitened responses at unit flux: for each patch ``(n_pix, n_companion)``."""
        self.n_calls += 1
        out = []
        for patch in self.patches:
            if patch.exposure.in_refs is None:
                columns = [
                    patch.white_operators[k] @ self.source(patch, k, *offset)
                    for k, offset in enumerate(offsets)
                ]
            else:
                columns = [
                    _solve(patch.root, self.response(patch, k, *offset)[patch.good])
                    for k, offset in enumerate(offsets)
                ]
            out.append(np.stack(columns, axis=1))
        return out

    @property
    def is_linear(self) -> bool:
        """Whether no reference of any exposure holds a companion."""
        return all(p.exposure.in_refs is None for p in self.patches)

    def best_flux(self, offsets: Array) -> tuple[Array, float]:
        """Best fluxes at some positions, and chi-square."""
        n = len(offsets)
        normal, right, total = np.zeros((n, n)), np.zeros(n), 0.0
        for column, patch in zip(self.columns(offsets), self.patches, strict=True):
            normal += column.T @ column
            right += column.T @ patch.white_data
            total += float(patch.white_data @ patch.white_data)
        flux = np.linalg.solve(normal + 1e-12 * np.trace(normal) * np.eye(n), right)
        return flux, total - float(flux @ right)

    def chi2(self, offsets: Array, flux: Array) -> float:
        """Chi-square at some positions and fluxes."""
        total = 0.0
        for column, patch in zip(self.columns(offsets), self.patches, strict=True):
            left = patch.white_data - column @ flux
            total += float(left @ left)
        return total

    @property
    def n_data(self) -> int:
        """Number of pixels."""
        return sum(int(p.good.sum()) for p in self.patches)

    def optimum(self) -> tuple[Array, Array, Array]:
        """Best offsets, fluxes, and the covariance of both by the curvature."""
        from scipy.optimize import minimize

        n = len(self.guesses)
        start = self.guesses.ravel()

        def _cost(x: Array) -> float:
            if np.abs(x - start).max() > MARGIN_PIX:
                return 1e30
            return self.best_flux(x.reshape(n, 2))[1]

        simplex = np.vstack([start, start + 0.4 * np.eye(2 * n)])
        best = minimize(
            _cost,
            start,
            method="Nelder-Mead",
            options={"xatol": 2e-4, "fatol": 1e-5, "initial_simplex": simplex, "maxiter": 400 * n},
        )
        if np.abs(best.x - start).max() > MARGIN_PIX - 0.05:
            raise LyotError(
                f"No companion is found within {MARGIN_PIX} pixels of the guess; give a better one."
            )
        offsets = best.x.reshape(n, 2)
        flux, _ = self.best_flux(offsets)
        if not self.is_linear:
            self.trial_flux = np.maximum(flux, 1e-3 * self.trial_flux)
            flux, _ = self.best_flux(offsets)
        return offsets, flux, self._curvature(offsets, flux)

    def _curvature(self, offsets: Array, flux: Array) -> Array:
        """Covariance of (east, north, flux) of all companions from the normal equations."""
        n, step = len(flux), 0.02
        columns = np.concatenate(self.columns(offsets))
        parts = []
        for k in range(n):
            for axis in range(2):
                move = np.zeros_like(offsets)
                move[k, axis] = step
                up = np.concatenate(self.columns(offsets + move))
                down = np.concatenate(self.columns(offsets - move))
                parts.append(flux[k] * (up - down)[:, k] / (2.0 * step))
            parts.append(columns[:, k])
        design = np.stack(parts, axis=1)
        return np.asarray(np.linalg.pinv(design.T @ design))


def _solve(root: Array, right: Array) -> Array:
    from scipy.linalg import solve_triangular

    return np.asarray(solve_triangular(root, right, lower=True))


def _box(y: float, x: float, half: int, shape: tuple[int, int]) -> Box:
    row, column = round(y), round(x)
    return (
        slice(max(row - half, 0), min(row + half + 1, shape[0])),
        slice(max(column - half, 0), min(column + half + 1, shape[1])),
    )


def _lags(box: Box, good: Array) -> tuple[Array, Array]:
    rows, columns = (grid.ravel()[good] for grid in np.mgrid[box])
    return rows[:, None] - rows[None, :], columns[:, None] - columns[None, :]


def _background_prior(box: Box, good: Array, kind: str, covariance: Array) -> Array:
    """A smooth background of any height, as part of the covariance."""
    if kind not in BACKGROUNDS:
        raise LyotError(f"background is {kind!r}; it must be one of {', '.join(BACKGROUNDS)}.")
    rows, columns = (grid.ravel()[good].astype(np.float64) for grid in np.mgrid[box])
    y = (rows - rows.mean()) / max(np.ptp(rows), 1.0)
    x = (columns - columns.mean()) / max(np.ptp(columns), 1.0)
    terms = [np.ones_like(y), y, x, y * y, y * x, x * x][: BACKGROUNDS[kind]]
    if not terms:
        return np.zeros_like(covariance)
    design = np.stack(terms, axis=1)
    height = 1e4 * float(np.mean(np.diag(covariance)))
    return height * design @ design.T


def residual_covariance(
    exposure: SubtractedExposure,
    image: Array,
    place_yx: tuple[float, float],
    exclude: Array,
    fwhm_pix: float,
    /,
) -> Callable[[Array, Array], Array]:
    """Measure how the residual varies together at the separation of a place.

    Parameters
    ----------
    exposure : SubtractedExposure
        The exposure.
    image : ndarray, shape (n_y, n_x)
        Its residual.
    place_yx : tuple of float
        The place [pixel].
    exclude : ndarray, shape (n, 2)
        Offsets to the east and north of companions that are left out [pixel].
    fwhm_pix : float
        FWHM [pixel].

    Returns
    -------
    callable
        Takes lags along y and x and returns the covariance, which depends on their length
        alone: what an annulus of four FWHM, less three FWHM about companions, shows.
    """
    from scipy.signal import fftconvolve

    radius = radius_map(exposure.shape, exposure.star.yx)
    r0 = float(np.hypot(place_yx[0] - exposure.star.y, place_yx[1] - exposure.star.x))
    keep = (np.abs(radius - r0) <= ANNULUS_FWHM * fwhm_pix) & np.isfinite(image)
    for east, north in exclude:
        y, x = exposure.position(np.hypot(east, north), np.degrees(np.arctan2(east, north)))
        keep &= radius_map(exposure.shape, (float(y), float(x))) > CLEAR_FWHM * fwhm_pix
    if keep.sum() < 50:
        raise LyotError(
            f"Only {int(keep.sum())} pixels are left at this separation to measure the noise on."
        )
    data = np.where(keep, image, 0.0)
    data = np.where(keep, data - data.sum() / keep.sum(), 0.0)
    # A few pixels that stand out are sources, not noise.
    sigma = 1.4826 * np.median(np.abs(data[keep]))
    keep &= np.abs(data) < 6.0 * max(sigma, 1e-30)
    data = np.where(keep, data, 0.0)
    rows, columns = np.nonzero(keep)
    cut = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    part, mask = data[cut], keep[cut].astype(np.float64)
    products = fftconvolve(part, part[::-1, ::-1])
    pairs = fftconvolve(mask, mask[::-1, ::-1])
    middle = (part.shape[0] - 1, part.shape[1] - 1)
    size = (2 * part.shape[0] - 1, 2 * part.shape[1] - 1)
    length = radius_map(size, (float(middle[0]), float(middle[1])))
    reach = 6.0 * fwhm_pix
    bins = np.rint(2.0 * length).astype(int)
    n = int(2 * reach)
    used = (bins < n) & (pairs > 0.5)
    total = np.bincount(bins[used], products[used], minlength=n)
    count = np.bincount(bins[used], pairs[used], minlength=n)
    known = count > 0
    lag = 0.5 * np.arange(n)[known]
    curve = total[known] / count[known]
    # Beyond two FWHM what is left is chance.
    curve = curve * np.exp(-(np.maximum(lag / (2.0 * fwhm_pix) - 1.0, 0.0) ** 2) * 4.0)

    return lambda dy, dx: np.interp(np.hypot(dy, dx), lag, curve, right=0.0)


def _positive(matrix: Array, known_variance: float) -> Array:
    """Make a measured covariance positive definite.

    No combination of pixels is less noisy than the propagated errors say: eigenvalues below
    are chance.
    """
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    total = float(np.mean(np.diag(matrix)))
    floor = float(np.clip(known_variance, 0.02 * total, total))
    return np.asarray((vectors * np.maximum(values, floor)) @ vectors.T)


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
    seed: int = 0,
) -> CompanionFit:
    """Fit companions together.

    Parameters
    ----------
    observation : Observation
        The reduction.
    guesses : list of (float, float)
        Separation [arcsec] and position angle [degree] of each, good to a pixel or two.
    n_modes : int, optional
        Number of modes; the largest by default.
    background : {"none", "constant", "plane", "quadratic"}, optional
        Smooth background about each, as a disc makes.
    n_likelihoods : int, optional
        Length of the posterior's sampling, about; zero takes the curvature at the best fit, as
        do references that hold the companion.
    n_injections : int, optional
        Number of companions that are injected at the same separation to measure the bias.
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
    Sampled by `emcee` (Foreman-Mackey et al. 2013, doi:10.1086/670067).
    """
    if not guesses:
        raise LyotError("Give at least one companion to fit: its separation and position angle.")
    t, scale = observation.truncation(n_modes), observation.pixel_scale_arcsec
    start = np.array(
        [
            (s / scale * np.sin(np.radians(pa)), s / scale * np.cos(np.radians(pa)))
            for s, pa in guesses
        ]
    )
    _check(observation, start)
    data = [exposure.residual[t] for exposure in observation.exposures]
    problem = _Problem(observation, t, start, background, data, start)
    offsets, flux, covariance = problem.optimum()
    samples = _sample(problem, offsets, flux, covariance, n_likelihoods, seed)
    middle = np.median(samples, axis=0)
    chi2 = problem.chi2(middle[:, :2], middle[:, 2])
    found = []
    for k in range(len(guesses)):
        injected = _inject_around(observation, t, middle, k, background, n_injections)
        found.append(_describe(observation, samples[:, k], injected, chi2, problem.n_data))
    boxes = []
    for patch in problem.patches:
        model = np.zeros(patch.good.size)
        for k, (east, north, f) in enumerate(middle):
            model += f * problem.response(patch, k, east, north)
        shape = tuple(s.stop - s.start for s in patch.wanted)
        image = patch.exposure.residual[t][patch.wanted]
        boxes.append((patch.exposure.name, image, model.reshape(shape)))
    scaled = samples * np.array([scale, scale, 1.0])
    settings = {
        "n_modes": observation.n_modes[t],
        "background": background,
        "psf": observation.psf.origin,
        "transmission": observation.transmission.origin,
        "star": observation.star.origin if observation.star else "",
        "roll_err_deg": ROLL_ERR_DEG,
        "scale_err": SCALE_ERR,
    }
    return CompanionFit(
        tuple(found), scaled, problem.n_calls, observation.n_modes[t], settings, boxes
    )


def _check(observation: Observation, offsets: Array) -> None:
    for k, (east, north) in enumerate(offsets):
        r, pa = np.hypot(east, north), np.degrees(np.arctan2(east, north))
        best = 0.0
        for exposure in observation.exposures:
            y, x = (float(v) for v in exposure.position(r, pa))
            if not (0 <= y <= exposure.shape[0] - 1 and 0 <= x <= exposure.shape[1] - 1):
                raise LyotError(
                    f"Companion {k + 1} at {r * observation.pixel_scale_arcsec:.2f} arcsec, "
                    f"{pa % 360:.1f} degrees lies outside the frame of {exposure.name}."
                )
            best = max(best, float(observation.transmission.at(y, x, star_yx=exposure.star.yx)))
        if best < LEAST_TRANSMISSION:
            raise LyotError(
                f"Companion {k + 1} lies under the mask: {100 * best:.1f} % of its light passes."
            )


def _sample(
    problem: _Problem, offsets: Array, flux: Array, covariance: Array, n_likelihoods: int, seed: int
) -> Array:
    """Draw from the posterior; with flat priors within the margin, and any flux."""
    n = len(flux)
    start = np.concatenate([offsets, flux[:, None]], axis=1).ravel()
    rng = np.random.default_rng(seed)
    if n_likelihoods <= 0 or not problem.is_linear:
        return rng.multivariate_normal(start, covariance, size=4000).reshape(-1, n, 3)
    import emcee

    guess = problem.guesses

    def _log_probability(theta: Array) -> float:
        shaped = theta.reshape(n, 3)
        if np.abs(shaped[:, :2] - guess).max() > MARGIN_PIX:
            return -np.inf
        return -0.5 * problem.chi2(shaped[:, :2], shaped[:, 2])

    walkers = max(N_WALKERS, 6 * n + 2)
    steps = max(n_likelihoods // walkers, 20)
    first = rng.multivariate_normal(start, covariance, size=walkers)
    sampler = emcee.EnsembleSampler(walkers, 3 * n, _log_probability)
    sampler.random_state = np.random.RandomState(seed).get_state()
    sampler.run_mcmc(first, steps)
    chain = sampler.get_chain(discard=steps // 4, flat=True)
    return np.asarray(chain).reshape(-1, n, 3)


def _inject_around(
    observation: Observation, t: int, middle: Array, k: int, background: str, n_injections: int
) -> Array:
    """Errors of companions like k at other position angles: along radius, along angle, flux."""
    east, north, flux = middle[k]
    r, pa0 = np.hypot(east, north), np.degrees(np.arctan2(east, north))
    clear = np.degrees(2.0 * CLEAR_FWHM * observation.fwhm_pix / max(r, 1e-9))
    if n_injections < 1 or clear > 150.0 or not flux > 0:
        return np.empty((0, 3))
    angles = pa0 + np.linspace(clear, 360.0 - clear, n_injections)
    cleaned = _without(observation, t, middle)

    def _one(pa: float) -> Array | None:
        place = np.array([[r * np.sin(np.radians(pa)), r * np.cos(np.radians(pa))]])
        data = []
        for exposure, image in zip(observation.exposures, cleaned, strict=True):
            y, x = (float(v) for v in exposure.position(r, pa))
            inside = 0 <= y <= exposure.shape[0] - 1 and 0 <= x <= exposure.shape[1] - 1
            if not inside:
                return None
            box, added = observation.added(exposure, r, pa, flux)
            changed = image.copy()
            changed[box] += added[t]
            data.append(changed)
        try:
            exclude = np.concatenate([middle[:, :2], place])
            problem = _Problem(observation, t, place, background, data, exclude, in_fits=False)
            found, its_flux, _ = problem.optimum()
        except LyotError:
            return None
        difference = found[0] - place[0]
        along = np.array([np.sin(np.radians(pa)), np.cos(np.radians(pa))])
        across = np.array([np.cos(np.radians(pa)), -np.sin(np.radians(pa))])
        return np.array([difference @ along, difference @ across, its_flux[0] - flux])

    results = threads.map_ordered(_one, [float(a) for a in angles])
    kept = [row for row in results if row is not None]
    return np.array(kept) if kept else np.empty((0, 3))


def _without(observation: Observation, t: int, middle: Array) -> list[Array]:
    """The residuals with the fitted companions taken out."""
    out = []
    for exposure in observation.exposures:
        image = exposure.residual[t].copy()
        for east, north, flux in middle:
            r, pa = np.hypot(east, north), np.degrees(np.arctan2(east, north))
            box, added = observation.added(exposure, r, pa, -flux)
            image[box] += added[t]
        out.append(image)
    return out


def _describe(
    observation: Observation, samples: Array, injected: Array, chi2: float, n_data: int
) -> Companion:
    """Turn a posterior into numbers with errors."""
    scale = observation.pixel_scale_arcsec
    east, north, flux = np.median(samples, axis=0)
    r = float(np.hypot(east, north))
    pa = float(np.degrees(np.arctan2(east, north)) % 360.0)
    along = np.array([east, north]) / r
    across = np.array([along[1], -along[0]])
    moved = samples[:, :2] - (east, north)
    spread = np.array([np.std(moved @ along), np.std(moved @ across), np.std(samples[:, 2])])
    bias = np.full(3, np.nan)
    if len(injected) >= 4:
        bias = injected.mean(axis=0)
        scatter = injected.std(axis=0, ddof=1)
        spread = np.hypot(spread, np.sqrt(np.maximum(scatter**2 - spread**2, 0.0)))
    star = np.sqrt(
        np.mean([0.5 * (e.star.x_err**2 + e.star.y_err**2) for e in observation.exposures])
        / len(observation.exposures)
    )
    roll, size = np.radians(ROLL_ERR_DEG) * r, SCALE_ERR * r
    radial = float(np.sqrt(spread[0] ** 2 + star**2 + size**2))
    tangential = float(np.sqrt(spread[1] ** 2 + star**2 + roll**2))
    d_ra_err = float(np.hypot(radial * along[0], tangential * across[0]))
    d_dec_err = float(np.hypot(radial * along[1], tangential * across[1]))
    star_flux = observation.star_flux if observation.star is not None else float("nan")
    jy = float(flux) * observation.jy_per_unit
    magnitude = float("nan")
    if observation.star is not None and observation.star.magnitude is not None and flux > 0:
        magnitude = float(observation.star.magnitude - 2.5 * np.log10(flux / star_flux))
    return Companion(
        separation_arcsec=r * scale,
        separation_err=radial * scale,
        pa_deg=pa,
        pa_err=float(np.degrees(tangential / r)),
        d_ra_arcsec=float(east) * scale,
        d_ra_err=d_ra_err * scale,
        d_dec_arcsec=float(north) * scale,
        d_dec_err=d_dec_err * scale,
        flux=float(flux),
        flux_err=float(spread[2]),
        contrast=float(flux) / star_flux,
        contrast_err=float(spread[2]) / star_flux,
        jy=jy,
        magnitude=magnitude,
        snr=float(flux / spread[2]),
        fit_err_arcsec=float(np.sqrt(0.5 * (spread[0] ** 2 + spread[1] ** 2))) * scale,
        star_err_arcsec=float(star) * scale,
        roll_err_arcsec=float(roll) * scale,
        scale_err_arcsec=float(size) * scale,
        bias_flux=float(bias[2]),
        bias_separation_arcsec=float(bias[0]) * scale,
        bias_pa_deg=float(np.degrees(bias[1] / r)),
        n_injected=len(injected),
        chi2=chi2,
        n_data=n_data,
    )
