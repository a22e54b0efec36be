r"""How faint a companion could have been seen.

The limit at a separation is :math:`\tau s / (f F)`: s is the scatter of a source's flux among the
independent positions there, :math:`\tau` the threshold of the statistic that detections use too
(`lyot.algorithms.statistics.threshold`), F the flux of the star, measured by the same filter, and
f the throughput from injections. Three curves are given: `raw` has f = 1, `corrected` the
throughput of the subtraction, `calibrated` that and the transmission of the mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot._version import __version__
from lyot.algorithms.statistics import (
    FIVE_SIGMA_FPF,
    GAUSSIAN,
    MAWET,
    finite_mean,
    n_positions,
    threshold,
)
from lyot.analysis.maps import (
    MATCHED,
    FluxMaps,
    Known,
    KnownDisc,
    SkyGrid,
    make_rings,
    sky_grid,
)
from lyot.analysis.observation import Observation, StoredRun
from lyot.compute import cluster, threads
from lyot.errors import LyotError
from lyot.types import Array

FEWEST_POSITIONS = 4


@dataclass(frozen=True, eq=False)
class ContrastCurve:
    """Contrast limits against separation, for each number of modes.

    Attributes
    ----------
    separation_arcsec : ndarray, shape (n_sep,)
        Separations [arcsec].
    n_modes : tuple of int
        Numbers of modes.
    raw, corrected, calibrated : ndarray, shape (n_trunc, n_sep)
        Limits as contrasts: without throughput, with that of the subtraction, and with the
        transmission of the mask too. NaN where `n_positions` is too small.
    noise : ndarray, shape (n_trunc, n_sep)
        Scatter of the flux among independent positions [unit of the image times pixel].
    throughput, throughput_scatter : ndarray, shape (n_trunc, n_sep)
        Mean and standard deviation over position angles, the mask left out.
    transmission : ndarray, shape (n_sep,)
        Transmission of the mask, mean over position angles.
    n_positions : ndarray of int, shape (n_sep,)
        Independent positions that are left.
    tau : ndarray, shape (n_sep,)
        Threshold.
    normality : ndarray, shape (n_trunc, n_sep)
        Probability that Gaussian noise looks less Gaussian (Shapiro and Wilk 1965,
        doi:10.1093/biomet/52.3-4.591).
    fpf : float
        False-positive fraction of one test.
    settings : dict
        What was asked for, and where PSF, transmission and star come from.
    star_jy : float
        Flux density of the star [Jy].
    star_magnitude : float or None
        Its Vega magnitude.
    """

    separation_arcsec: Array
    n_modes: tuple[int, ...]
    raw: Array
    corrected: Array
    calibrated: Array
    noise: Array
    throughput: Array
    throughput_scatter: Array
    transmission: Array
    n_positions: Array
    tau: Array
    normality: Array
    fpf: float
    settings: dict[str, Any]
    star_jy: float
    star_magnitude: float | None

    @property
    def best(self) -> Array:
        """Place of the number of modes with the lowest calibrated limit at each separation."""
        filled = np.where(np.isfinite(self.calibrated), self.calibrated, np.inf)
        return np.asarray(np.argmin(filled, axis=0))

    @property
    def best_limit(self) -> Array:
        """The lowest calibrated limit at each separation."""
        return np.take_along_axis(self.calibrated, self.best[None], axis=0)[0]

    def to_table(self) -> Any:
        """Return one row per separation and number of modes.

        Returns
        -------
        astropy.table.QTable
            With units; what was asked for is in its ``meta``.
        """
        from astropy import units as u
        from astropy.table import QTable

        n_t, n_s = self.calibrated.shape

        def _each(values: Array) -> Array:
            return np.tile(values, n_t)

        with np.errstate(invalid="ignore", divide="ignore"):
            magnitude = -2.5 * np.log10(self.calibrated).ravel()
        best = self.best[None, :] == np.arange(n_t)[:, None]
        columns: dict[str, Any] = {
            "n_modes": np.repeat(np.array(self.n_modes), n_s),
            "separation": _each(self.separation_arcsec) * u.arcsec,
            "contrast_raw": self.raw.ravel(),
            "contrast_corrected": self.corrected.ravel(),
            "contrast": self.calibrated.ravel(),
            "delta_magnitude": magnitude * u.mag,
            "flux_density": self.calibrated.ravel() * self.star_jy * u.Jy,
            "noise": self.noise.ravel() * u.MJy / u.sr * u.pix,
            "throughput": self.throughput.ravel(),
            "throughput_scatter": self.throughput_scatter.ravel(),
            "transmission": _each(self.transmission),
            "n_positions": _each(self.n_positions),
            "tau": _each(self.tau),
            "normality": self.normality.ravel(),
            "best": best.ravel(),
            "too_few_positions": _each(self.n_positions < FEWEST_POSITIONS),
        }
        if self.star_magnitude is not None:
            columns["magnitude"] = (magnitude + self.star_magnitude) * u.mag
        known = {"fpf": self.fpf, "star_jy": self.star_jy, "star_magnitude": self.star_magnitude}
        return QTable(columns, meta={"lyot": known | self.settings})

    def _repr_html_(self) -> str:
        """Return the table, for a notebook."""
        return str(self.to_table()._repr_html_())

    @classmethod
    def from_table(cls, table: Any, /) -> ContrastCurve:
        """Read limits back.

        Parameters
        ----------
        table : astropy.table.Table
            As from `to_table`.

        Returns
        -------
        ContrastCurve
            The same limits.
        """
        n_modes = tuple(dict.fromkeys(int(n) for n in table["n_modes"]))

        def _grid(name: str) -> Array:
            return np.asarray(table[name], dtype=np.float64).reshape(len(n_modes), -1)

        settings = dict(table.meta["lyot"])
        return cls(
            separation_arcsec=_grid("separation")[0],
            n_modes=n_modes,
            raw=_grid("contrast_raw"),
            corrected=_grid("contrast_corrected"),
            calibrated=_grid("contrast"),
            noise=_grid("noise"),
            throughput=_grid("throughput"),
            throughput_scatter=_grid("throughput_scatter"),
            transmission=_grid("transmission")[0],
            n_positions=_grid("n_positions")[0].astype(int),
            tau=_grid("tau")[0],
            normality=_grid("normality"),
            fpf=settings.pop("fpf"),
            star_jy=settings.pop("star_jy"),
            star_magnitude=settings.pop("star_magnitude"),
            settings=settings,
        )


def default_separations(observation: Observation, /) -> Array:
    """Return separations from one FWHM to the edge.

    Parameters
    ----------
    observation : Observation
        The reduction.

    Returns
    -------
    ndarray, shape (24,)
        In a geometric series [arcsec].
    """
    scale = observation.pixel_scale_arcsec
    return np.geomspace(observation.fwhm_pix * scale, observation.reach_pix * scale, 24)


@threads.calculation
def contrast_curve(
    observation: Observation,
    /,
    *,
    separations_arcsec: Array | None = None,
    n_angles: int = 6,
    fpf: float = FIVE_SIGMA_FPF,
    known: tuple[Known | KnownDisc, ...] = (),
    method: str = MATCHED,
    distribution: str = GAUSSIAN,
    others: str = MAWET,
    tasks: cluster.Tasks | None = None,
) -> ContrastCurve:
    """Measure contrast limits.

    Parameters
    ----------
    observation : Observation
        The reduction, with the brightness of its star.
    separations_arcsec : ndarray, shape (n_sep,), optional
        Separations [arcsec]; 24 by default, from one FWHM to the edge.
    n_angles : int, optional
        Number of position angles at which sources are injected.
    fpf : float, optional
        False-positive fraction of one test; five sigma by default.
    known : tuple of Known or KnownDisc, optional
        Companions and discs that do not count as noise.
    method : {"matched", "aperture"}, optional
        How flux is measured.
    distribution : {"gaussian", "laplace"}, optional
        Distribution of the noise.
    others : {"n-1", "n"}, optional
        See `lyot.algorithms.statistics.threshold`.
    tasks : lyot.compute.cluster.Tasks, optional
        Where the grid of injections runs, for a run that is on disk; here by default.

    Returns
    -------
    ContrastCurve
        Limits for each number of modes.

    Raises
    ------
    LyotError
        If the star's brightness is not known, or no separation lies within the frames.

    Notes
    -----
    Mawet et al. 2014, doi:10.1088/0004-637X/792/2/97.
    """
    star_flux, scale, fwhm = (
        observation.star_flux,
        observation.pixel_scale_arcsec,
        observation.fwhm_pix,
    )
    if separations_arcsec is None:
        separations_arcsec = default_separations(observation)
    separations = np.atleast_1d(np.asarray(separations_arcsec, dtype=np.float64))
    if not 0.0 < fpf < 0.5:
        raise LyotError(f"The false-positive fraction is {fpf}; it must lie between 0 and 0.5.")
    if not (separations > 0).all():
        raise LyotError("Separations must be positive.")
    radius = separations / scale
    if (radius > observation.reach_pix).all():
        raise LyotError(
            f"All separations lie beyond {observation.reach_pix * scale:.2f} arcsec, where whole "
            "circles fit on the frames."
        )
    maps = FluxMaps(observation, method)
    rings = make_rings(maps, radius, known=known)
    n_t = len(observation.n_modes)
    count = np.array(
        [min(rings.count(j), max(n_positions(r / fwhm), 1)) for j, r in enumerate(radius)]
    )
    tau = np.array(
        [
            threshold(int(n), fpf=fpf, others=others, distribution=distribution)
            if n >= FEWEST_POSITIONS
            else np.nan
            for n in count
        ]
    )
    noise = np.array([[rings.noise(j, t) for j in range(len(radius))] for t in range(n_t)])
    guess = np.nan_to_num(tau * noise[0], nan=star_flux * 1e-4)
    kept = throughputs(maps, radius, n_angles, guess, tasks=tasks)
    with np.errstate(invalid="ignore", divide="ignore"):
        total, bare = finite_mean(kept, axis=-1)
        through = (total / bare)[0]
        raw = tau * noise / star_flux
        corrected, calibrated = raw / bare, raw / total
    return ContrastCurve(
        separation_arcsec=separations,
        n_modes=observation.n_modes,
        raw=raw,
        corrected=corrected,
        calibrated=calibrated,
        noise=noise,
        throughput=bare,
        throughput_scatter=np.sqrt(finite_mean((kept[1] - bare[..., None]) ** 2, axis=-1)),
        transmission=through,
        n_positions=count,
        tau=tau,
        normality=_normality(rings.flux, rings.used, n_t),
        fpf=fpf,
        settings=_settings(observation, maps, n_angles, distribution, others, known),
        star_jy=observation.star.jy if observation.star else float("nan"),
        star_magnitude=observation.star.magnitude if observation.star else None,
    )


def throughputs(
    maps: FluxMaps,
    radius_pix: Array,
    n_angles: int,
    flux: Array,
    /,
    *,
    tasks: cluster.Tasks | None = None,
) -> Array:
    """Inject sources over separations and position angles.

    Parameters
    ----------
    maps : FluxMaps
        How flux is measured.
    radius_pix : ndarray, shape (n_sep,)
        Separations [pixel].
    n_angles : int
        Number of position angles, evenly spread.
    flux : ndarray, shape (n_sep,)
        Flux of the sources; it matters where references hold them.
    tasks : lyot.compute.cluster.Tasks, optional
        Where they are injected, for a run that is on disk; here by default.

    Returns
    -------
    ndarray, shape (2, n_trunc, n_sep, n_angles)
        Throughput with the transmission of the mask, and without.
    """
    angles = 360.0 * (np.arange(n_angles) + 0.25) / n_angles
    places = [
        (float(r), float(pa) + 7.0 * j, float(flux[j]))
        for j, r in enumerate(radius_pix)
        for pa in angles
    ]
    stored = maps.observation.stored
    if tasks is None or tasks.is_here or stored is None:
        found = _throughputs_here(maps, places)
    else:
        n = max(-(-len(places) // (4 * tasks.n_workers)), 1)
        jobs = [
            _Grid(stored, maps.method, tuple(places[i : i + n])) for i in range(0, len(places), n)
        ]
        found = np.concatenate(list(tasks.ordered(_throughputs_there, jobs)))
    shaped = found.reshape(len(radius_pix), n_angles, 2, -1)
    return np.moveaxis(shaped, (2, 3, 0, 1), (0, 1, 2, 3))


class _Grid(NamedTuple):
    """Injections into a run that is on disk: separation [pixel], position angle and flux."""

    run: StoredRun
    method: str
    places: tuple[tuple[float, float, float], ...]


def _throughputs_here(
    maps: FluxMaps, places: Sequence[tuple[float, float, float]]
) -> NDArray[np.float64]:
    reach = maps.observation.reach_pix + maps.observation.fwhm_pix
    _ = maps._smooth  # made once, not by every thread

    def _one(place: tuple[float, float, float]) -> Array:
        radius, pa, flux = place
        if radius > reach:
            return np.full((2, len(maps.observation.n_modes)), np.nan)
        return maps.throughput(radius, pa, flux=flux)

    return np.array(threads.map_ordered(_one, places))


def _throughputs_there(grid: _Grid) -> NDArray[np.float64]:
    """Do some of the injections on a worker, which reads the run from disk."""
    with grid.run.open() as observation:
        return _throughputs_here(FluxMaps(observation, grid.method), grid.places)


def _normality(flux: list[Array], used: list[Array], n_t: int) -> Array:
    from scipy.stats import shapiro

    out = np.full((n_t, len(flux)), np.nan)
    for j, (values, ok) in enumerate(zip(flux, used, strict=True)):
        for t in range(n_t):
            sample = values[t][:, 0][ok[:, 0]]
            if sample.size >= 5 and np.ptp(sample) > 0:
                out[t, j] = shapiro(sample[:5000]).pvalue
    return out


def _settings(
    observation: Observation,
    maps: FluxMaps,
    n_angles: int,
    distribution: str,
    others: str,
    known: tuple[Known | KnownDisc, ...],
) -> dict[str, Any]:
    return {
        "software": "lyot",
        "version": __version__,
        "product": observation.product,
        "exposures": [e.name for e in observation.exposures],
        "filter": observation.band,
        "flux_by": maps.method,
        "fwhm_pixel": observation.fwhm_pix,
        "pixel_scale_arcsec": observation.pixel_scale_arcsec,
        "n_angles": n_angles,
        "distribution": distribution,
        "others": others,
        "known": [str(k) for k in known],
        "psf": observation.psf.origin,
        "transmission": observation.transmission.origin,
        "star": observation.star.origin if observation.star else "",
        "definition": "contrast = tau noise / (throughput transmission star flux)",
    }


@dataclass(frozen=True, eq=False)
class SensitivityMap:
    """Contrast limit at every place of the sky.

    Attributes
    ----------
    limit : ndarray, shape (2 n + 1, 2 n + 1)
        Calibrated limit, north up and east to the left; NaN where there is none.
    grid : SkyGrid
        The grid.
    pixel_scale_arcsec : float
        Pixel scale [arcsec].
    n_modes : int
        Number of modes.
    """

    limit: Array
    grid: SkyGrid
    pixel_scale_arcsec: float
    n_modes: int


@threads.calculation
def sensitivity_map(
    observation: Observation, curve: ContrastCurve, /, *, n_modes: int | None = None
) -> SensitivityMap:
    """Spread a contrast curve over the sky, with the mask's transmission at every place.

    Parameters
    ----------
    observation : Observation
        The reduction.
    curve : ContrastCurve
        Its limits.
    n_modes : int, optional
        Number of modes; the largest by default.

    Returns
    -------
    SensitivityMap
        What varies with position angle is the transmission and the coverage.
    """
    t = observation.truncation(n_modes)
    grid = sky_grid(observation)
    radius, pa = grid.polar
    maps = FluxMaps(observation)
    weight, through = maps.weights(radius, pa)
    norm = weight.sum(axis=0)
    kept = (weight * through).sum(axis=0) / np.where(norm > 0, norm, 1.0)
    full = float(sum(len(e.bad) for e in observation.exposures))
    share = (weight > 0).T @ np.array([len(e.bad) for e in observation.exposures], float)
    share = share.T / full
    good = np.isfinite(curve.corrected[t])
    at = curve.separation_arcsec[good] / observation.pixel_scale_arcsec
    level = np.exp(np.interp(radius, at, np.log(curve.corrected[t][good]))) if good.any() else 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        limit = level / kept / np.sqrt(share)
    outside = ~(norm > 0) | (radius < at.min(initial=np.inf)) | (radius > at.max(initial=0.0))
    return SensitivityMap(
        np.where(outside, np.nan, limit),
        grid,
        observation.pixel_scale_arcsec,
        observation.n_modes[t],
    )


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
    fpf : float
        False-positive fraction of the detection.
    n_modes : int
        Number of modes.
    """

    separation_arcsec: Array
    contrast: Array
    fraction: Array
    fpf: float
    n_modes: int


@threads.calculation
def completeness_map(
    observation: Observation,
    /,
    *,
    separations_arcsec: Array | None = None,
    contrasts: Array | None = None,
    n_modes: int | None = None,
    n_angles: int = 6,
    fpf: float = FIVE_SIGMA_FPF,
    known: tuple[Known | KnownDisc, ...] = (),
    distribution: str = GAUSSIAN,
) -> Completeness:
    """Count which injected sources the detection would find.

    Parameters
    ----------
    observation : Observation
        The reduction.
    separations_arcsec : ndarray, optional
        Separations [arcsec].
    contrasts : ndarray, optional
        Contrasts; 40 by default, a decade about the limits.
    n_modes : int, optional
        Number of modes; the largest by default.
    n_angles : int, optional
        Number of injections at each separation for the throughput.
    fpf : float, optional
        False-positive fraction of the detection.
    known : tuple of Known or KnownDisc, optional
        Sources that do not count as noise.
    distribution : {"gaussian", "laplace"}, optional
        Distribution of the noise.

    Returns
    -------
    Completeness
        Every position on each circle is tested against the others, with the source's flux,
        through the throughput, added to what is there.
    """
    if separations_arcsec is None:
        separations_arcsec = default_separations(observation)
    radius = np.atleast_1d(separations_arcsec) / observation.pixel_scale_arcsec
    t = observation.truncation(n_modes)
    maps = FluxMaps(observation)
    rings = make_rings(maps, radius, known=known)
    kept = throughputs(maps, radius, n_angles, np.full(len(radius), observation.star_flux * 1e-5))
    through = finite_mean(kept[0, t], axis=-1)
    needed: list[Array] = []
    for j in range(len(radius)):
        mean, scatter, number = rings.others(j, t)
        tau = _thresholds(number + 1, fpf, distribution)
        need = (mean + tau * scatter - rings.flux[j][t]) / (through[j] * observation.star_flux)
        needed.append(need[rings.used[j] & np.isfinite(need)])
    if contrasts is None:
        middle = np.concatenate(needed)
        middle = middle[middle > 0]
        if not middle.size:
            raise LyotError("No separation has enough independent positions.")
        low, high = np.quantile(middle, [0.02, 0.98])
        contrasts = np.geomspace(low / 3.0, high * 3.0, 40)
    contrasts = np.asarray(contrasts, dtype=np.float64)
    fraction = np.array(
        [
            [(row <= c).mean() if row.size >= FEWEST_POSITIONS else np.nan for row in needed]
            for c in contrasts
        ]
    )
    return Completeness(
        np.atleast_1d(separations_arcsec), contrasts, fraction, fpf, observation.n_modes[t]
    )


def _thresholds(number: Array, fpf: float, distribution: str) -> Array:
    """Threshold for each number of positions, the tested one included."""
    values, inverse = np.unique(number, return_inverse=True)
    each = [
        threshold(int(n), fpf=fpf, distribution=distribution) if n >= FEWEST_POSITIONS else np.nan
        for n in values
    ]
    return np.asarray(np.array(each)[inverse].reshape(number.shape))
