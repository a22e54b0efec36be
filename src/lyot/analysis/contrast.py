r"""Contrast limits: how faint a companion would have been detected.

The limit at a separation is :math:`\tau s / (f F)`. Half of the positions there need the flux
:math:`\tau s` to stand out: :math:`\tau` is the threshold of the statistic that detections use too
(`lyot.analysis.statistic.Statistic.tau`), s the scatter of a source's flux among the independent
positions, with what a typical one lies below their mean. F is the flux of the star, measured by
the same filter, and f the throughput from injections. Three curves are given: `raw` has f = 1,
`corrected` the throughput of the subtraction, `calibrated` that and the transmission of the mask.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lyot._version import __version__
from lyot.algorithms.statistics import finite_mean, n_positions
from lyot.analysis.grid import SkyGrid
from lyot.analysis.noise import FoundSource, KnownSources, NoiseAbout, noise_about
from lyot.analysis.observation import Observation
from lyot.analysis.peaks import flux_maps
from lyot.analysis.photometry import throughputs, tried_places
from lyot.analysis.statistic import FIVE_SIGMA, MIN_POSITIONS, Statistic
from lyot.analysis.table import FLUX_UNIT, Tabled
from lyot.compute import cluster, threads
from lyot.errors import LyotError
from lyot.types import Array

N_SEPARATIONS = 24
MAX_TESTED = 5000
"""Positions up to which the noise is tested for being Gaussian."""
FEW_STARS, FEW_POSITIONS, NOT_GAUSSIAN = 3, 20, 1e-3
"""Reference stars, independent positions, and probability of Gaussian noise, below which a limit
says so."""


@dataclass(frozen=True, eq=False)
class ContrastCurve(Tabled):
    """Contrast limits against separation, for each number of modes.

    Attributes
    ----------
    separation_arcsec : ndarray, shape (n_sep,)
        Separations [arcsec].
    n_modes, n_modes_used : tuple of int
        Numbers of modes that were requested, and that were used.
    raw, corrected, calibrated : ndarray, shape (n_trunc, n_sep)
        Limits as contrasts: without throughput, with that of the subtraction, and with the
        transmission of the mask too. NaN where `n_positions` is too small.
    unmasked : ndarray, shape (n_trunc, n_sep)
        The calibrated limits with the sources that were found still in the noise.
    noise : ndarray, shape (n_trunc, n_sep)
        Flux that half of the positions need to be detected, over `tau`: the scatter among
        independent positions, and what a typical one lies below their mean [unit of the image
        times pixel].
    throughput, throughput_scatter : ndarray, shape (n_trunc, n_sep)
        Mean and standard deviation over position angles, the mask left out.
    transmission : ndarray, shape (n_sep,)
        Transmission of the mask, mean over position angles.
    n_positions : ndarray of int, shape (n_sep,)
        Independent positions, known sources excluded.
    tau : ndarray, shape (n_sep,)
        Threshold, as a factor on the noise.
    normality : ndarray, shape (n_trunc, n_sep)
        Probability that Gaussian noise looks less Gaussian (Shapiro and Wilk 1965,
        doi:10.1093/biomet/52.3-4.591).
    statistic : Statistic
        Of one test; detections that share it find half of the sources at the limit.
    settings : dict
        Parameters of the measurement, and where PSF, transmission and star come from.
    star_jy : float
        Flux density of the star [Jy].
    star_magnitude : float or None
        Its Vega magnitude.

    Examples
    --------
    >>> from lyot.analysis.contrast import contrast_curve
    >>> curve = contrast_curve(observation, separations_arcsec=[1.0, 1.5])
    >>> again = ContrastCurve.from_table(curve.to_table())
    >>> bool((again.calibrated == curve.calibrated).all())
    True
    """

    separation_arcsec: Array
    n_modes: tuple[int, ...]
    n_modes_used: tuple[int, ...]
    raw: Array
    corrected: Array
    calibrated: Array
    unmasked: Array
    noise: Array
    throughput: Array
    throughput_scatter: Array
    transmission: Array
    n_positions: Array
    tau: Array
    normality: Array
    statistic: Statistic
    settings: dict[str, Any]
    star_jy: float
    star_magnitude: float | None

    @property
    def best(self) -> Array:
        """Index of the number of modes with the lowest calibrated limit at each separation."""
        filled = np.where(np.isfinite(self.calibrated), self.calibrated, np.inf)
        return np.asarray(np.argmin(filled, axis=0))

    @property
    def best_limit(self) -> Array:
        """The lowest calibrated limit at each separation."""
        return np.take_along_axis(self.calibrated, self.best[None], axis=0)[0]

    @property
    def best_unmasked(self) -> Array | None:
        """The same with the sources that were found in the noise; None where none was found."""
        if not self.settings.get("found"):
            return None
        return np.take_along_axis(self.unmasked, self.best[None], axis=0)[0]

    @property
    def caveats(self) -> tuple[str, ...]:
        """What the limits cannot promise, in sentences."""
        out, references = [], self.settings.get("references", {})
        n_stars, n_frames = references.get("stars", 0), references.get("frames", 0)
        if 0 < n_stars < FEW_STARS:
            stars = "1 star" if n_stars == 1 else f"{n_stars} stars"
            out.append(
                f"The references are {n_frames} of {stars}: the limits hold with these alone, and "
                "what lies in the field of one star is in the noise."
            )
        known = np.isfinite(self.best_limit)
        few = known & (self.n_positions < FEW_POSITIONS)
        if few.any():
            error = 100.0 / np.sqrt(2.0 * (self.n_positions[few].min() - 2.0))
            out.append(
                f"Up to {self.separation_arcsec[few].max():.2f} arcsec fewer than {FEW_POSITIONS} "
                f"independent positions measure the noise: it is uncertain by up to {error:.0f} %."
            )
        chance = np.take_along_axis(self.normality, self.best[None], axis=0)[0]
        if (loud := known & (chance < NOT_GAUSSIAN)).any():
            where = ", ".join(f"{r:.2f}" for r in self.separation_arcsec[loud])
            out.append(
                f"At {where} arcsec the noise is not Gaussian (p < {NOT_GAUSSIAN:g}): false alarms "
                "are more frequent than stated."
            )
        return tuple(out)

    def to_table(self) -> Any:
        """Return one astropy row per separation and number of modes; settings in its ``meta``."""
        from astropy import units as u
        from astropy.table import QTable

        with np.errstate(invalid="ignore", divide="ignore"):
            magnitude = -2.5 * np.log10(self.calibrated)
        columns: dict[str, Any] = {
            "n_modes": np.array(self.n_modes)[:, None],
            "separation": self.separation_arcsec * u.arcsec,
            "contrast_raw": self.raw,
            "contrast_corrected": self.corrected,
            "contrast": self.calibrated,
            "contrast_unmasked": self.unmasked,
            "delta_magnitude": magnitude * u.mag,
            "flux_density": self.calibrated * self.star_jy * u.Jy,
            "noise": self.noise * u.Unit(FLUX_UNIT),
            "throughput": self.throughput,
            "throughput_scatter": self.throughput_scatter,
            "transmission": self.transmission,
            "n_positions": self.n_positions,
            "tau": self.tau,
            "normality": self.normality,
            "best": self.best == np.arange(len(self.n_modes))[:, None],
            "too_few_positions": self.n_positions < MIN_POSITIONS,
        }
        if self.star_magnitude is not None:
            columns["magnitude"] = (magnitude + self.star_magnitude) * u.mag
        shape = self.calibrated.shape
        rows = {n: np.broadcast_to(v, shape, subok=True).ravel() for n, v in columns.items()}
        own = {name: getattr(self, name) for name in _IN_META}
        own["n_modes_used"] = list(self.n_modes_used)
        return QTable(rows, meta={"lyot": asdict(self.statistic) | own | self.settings})

    @classmethod
    def from_table(cls, table: Any, /) -> ContrastCurve:
        """Read limits back from a table as `to_table` gives it."""
        n_modes = tuple(dict.fromkeys(int(n) for n in table["n_modes"]))
        values: dict[str, Any] = {}
        for each in fields(cls):
            name = _COLUMN_OF.get(each.name, each.name)
            if each.type == "Array":
                array = np.asarray(table[name]).reshape(len(n_modes), -1)
                values[each.name] = array[0] if each.name in _OF_SEPARATION else array
        settings = dict(table.meta["lyot"])
        statistic = Statistic(**{name: settings.pop(name) for name in asdict(FIVE_SIGMA)})
        values |= {name: settings.pop(name) for name in _IN_META}
        values["n_modes_used"] = tuple(values["n_modes_used"])
        return cls(n_modes=n_modes, statistic=statistic, settings=settings, **values)


_COLUMN_OF = {
    "separation_arcsec": "separation",
    "raw": "contrast_raw",
    "corrected": "contrast_corrected",
    "calibrated": "contrast",
    "unmasked": "contrast_unmasked",
}
_OF_SEPARATION = ("separation_arcsec", "transmission", "n_positions", "tau")
_IN_META = ("n_modes_used", "star_jy", "star_magnitude")


def separations_of(observation: Observation, separations_arcsec: ArrayLike | None, /) -> Array:
    """Return separations [arcsec]; by default 24 from one FWHM to the edge, in even ratios."""
    scale = observation.pixel_scale_arcsec
    inner, outer = observation.fwhm_pix * scale, observation.reach_pix * scale
    if separations_arcsec is None:
        return np.geomspace(inner, outer, N_SEPARATIONS)
    separations = np.atleast_1d(np.asarray(separations_arcsec, dtype=np.float64))
    if not (separations > 0).all():
        raise LyotError("Separations must be positive.")
    if (separations > outer).all():
        raise LyotError(
            f"All separations lie beyond {outer:.2f} arcsec, where whole circles fit on the frames."
        )
    return separations


@threads.calculation
def contrast_curve(
    observation: Observation,
    /,
    *,
    separations_arcsec: ArrayLike | None = None,
    n_angles: int = 6,
    statistic: Statistic = FIVE_SIGMA,
    known_sources: KnownSources = (),
    found_sources: tuple[FoundSource, ...] = (),
    tasks: cluster.Tasks | None = None,
) -> ContrastCurve:
    """Measure contrast limits against separation.

    Parameters
    ----------
    observation : Observation
        With the brightness of its star.
    separations_arcsec : ndarray, shape (n_sep,), optional
        Separations [arcsec]; 24 by default, from one FWHM to the edge.
    n_angles : int, optional
        Number of position angles at which sources are injected for the throughput.
    statistic : Statistic, optional
        How flux is measured and when it stands out; five sigma of Gaussian noise by default.
    known_sources : tuple of KnownSource or KnownDisc, optional
        Companions and discs that are excluded from the noise estimate.
    found_sources : tuple of FoundSource, optional
        What `lyot.analysis.detection.find_sources` found: excluded too, and the limits with them
        in the noise are given as well.
    tasks : lyot.compute.cluster.Tasks, optional
        Where the injections run, for an observation that is on disk; here by default.

    Returns
    -------
    ContrastCurve
        Limits for each number of modes.

    Raises
    ------
    LyotError
        If the star's brightness is unknown, or no separation lies within the frames.

    Notes
    -----
    Mawet et al. 2014, doi:10.1088/0004-637X/792/2/97.

    Examples
    --------
    With an observation from `lyot.open_run`:

    >>> curve = contrast_curve(observation, separations_arcsec=[0.8, 1.5])
    >>> curve.calibrated.shape
    (1, 2)
    >>> bool((curve.calibrated >= curve.corrected).all())
    True
    """
    star_flux = observation.star_flux
    separations = separations_of(observation, separations_arcsec)
    radius = separations / observation.pixel_scale_arcsec
    maps = flux_maps(observation, statistic.flux_by)
    with_found = noise_about(maps, radius, known_sources=known_sources)
    noise = with_found.without(found_sources, observation)
    n_t, fwhm = len(observation.n_modes), observation.fwhm_pix
    count = np.array(
        [min(noise.count(j), max(n_positions(r / fwhm), 1)) for j, r in enumerate(radius)]
    )
    tau = statistic.taus(count)
    limit, unmasked = (
        np.array([each.limits(t, statistic) for t in range(n_t)]) for each in (noise, with_found)
    )
    maps.follow(*np.array(tried_places(radius, n_angles)).T)
    guess = np.nan_to_num(limit[0], nan=star_flux * 1e-4)
    each = throughputs(maps, radius, n_angles, guess, tasks=tasks)
    with np.errstate(invalid="ignore", divide="ignore"):
        total, bare = finite_mean(each, axis=-1)
        transmission = (total / bare)[0]
        raw = np.where(np.isfinite(tau), limit, np.nan) / star_flux
        corrected, calibrated = raw / bare, raw / total
    return ContrastCurve(
        separation_arcsec=separations,
        n_modes=observation.n_modes,
        n_modes_used=observation.n_modes_used,
        raw=raw,
        corrected=corrected,
        calibrated=calibrated,
        unmasked=unmasked / (star_flux * total),
        noise=limit / tau,
        throughput=bare,
        throughput_scatter=np.sqrt(finite_mean((each[1] - bare[..., None]) ** 2, axis=-1)),
        transmission=transmission,
        n_positions=count,
        tau=tau,
        normality=_normality(noise, n_t, len(radius)),
        statistic=statistic,
        settings=_settings(observation, n_angles, known_sources, found_sources),
        star_jy=observation.star.jy if observation.star else float("nan"),
        star_magnitude=observation.star.magnitude if observation.star else None,
    )


def _normality(noise: NoiseAbout, n_t: int, n_separations: int) -> Array:
    from scipy.stats import shapiro

    out = np.full((n_t, n_separations), np.nan)
    for t, j in np.ndindex(out.shape):
        sample = noise.flux(j, t)
        if sample.size >= 5 and np.ptp(sample) > 0:
            out[t, j] = shapiro(sample[:MAX_TESTED]).pvalue
    return out


def _references(observation: Observation) -> dict[str, int]:
    """Number of frames and of stars of the references, where their stars are known."""
    known = [e.aligned.ref_info for e in observation.exposures if e.aligned.ref_info is not None]
    stars = {name for info in known for name in info.targets}
    return {"frames": max((len(info.targets) for info in known), default=0), "stars": len(stars)}


def _settings(
    observation: Observation,
    n_angles: int,
    known_sources: KnownSources,
    found_sources: tuple[FoundSource, ...],
) -> dict[str, Any]:
    return {
        "software": "lyot",
        "version": __version__,
        "product": observation.product,
        "exposures": [e.name for e in observation.exposures],
        "references": _references(observation),
        "filter": observation.filter.name,
        "fwhm_pixel": observation.fwhm_pix,
        "pixel_scale_arcsec": observation.pixel_scale_arcsec,
        "n_angles": n_angles,
        "known": [str(source) for source in known_sources],
        "found": [str(source) for source in found_sources],
        **observation.origins(),
        "definition": "contrast = tau noise / (throughput transmission star flux)",
    }


@dataclass(frozen=True, eq=False)
class SensitivityMap:
    """Contrast limit at every position of the sky.

    Attributes
    ----------
    limit : ndarray, shape (2 n + 1, 2 n + 1)
        Calibrated limit, north up and east to the left; NaN where there is none.
    grid : SkyGrid
        Its positions.
    pixel_scale_arcsec : float
        Pixel scale [arcsec].
    n_modes : int
        Number of modes.

    Examples
    --------
    >>> curve = contrast_curve(observation, separations_arcsec=[1.0, 1.5])
    >>> sensitivity = sensitivity_map(observation, curve)
    >>> sensitivity.limit.shape == (2 * sensitivity.grid.half_pix + 1,) * 2
    True
    """

    limit: Array
    grid: SkyGrid
    pixel_scale_arcsec: float
    n_modes: int


@threads.calculation
def sensitivity_map(
    observation: Observation, curve: ContrastCurve, /, *, n_modes: int | None = None
) -> SensitivityMap:
    """Spread a contrast curve over the sky, with the mask's transmission at every position.

    Parameters
    ----------
    observation : Observation
        The observation of the curve.
    curve : ContrastCurve
        Its limits.
    n_modes : int, optional
        Number of modes; the largest by default.

    Returns
    -------
    SensitivityMap
        The transmission and the exposures that see a position vary with its angle; the noise does
        not.

    Examples
    --------
    >>> curve = contrast_curve(observation, separations_arcsec=[0.8, 1.5])
    >>> limit = sensitivity_map(observation, curve).limit
    >>> bool(np.nanmin(limit) > 0.5 * curve.calibrated.min())
    True
    """
    t = observation.truncation(n_modes)
    maps = flux_maps(observation, curve.statistic.flux_by)
    (radius, _), is_seen = maps.observation.grid.polar, maps.sky.weight > 0
    precision = maps.precisions(radius)
    share = (precision * is_seen).sum(axis=0) / precision.sum(axis=0)
    good = np.isfinite(curve.corrected[t])
    at = curve.separation_arcsec[good] / observation.pixel_scale_arcsec
    level = np.exp(np.interp(radius, at, np.log(curve.corrected[t][good]))) if good.any() else 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        limit = level / maps.sky_transmission / np.sqrt(share)
    outside = (
        ~is_seen.any(axis=0) | (radius < at.min(initial=np.inf)) | (radius > at.max(initial=0.0))
    )
    return SensitivityMap(
        np.where(outside, np.nan, limit),
        maps.observation.grid,
        observation.pixel_scale_arcsec,
        observation.n_modes[t],
    )
