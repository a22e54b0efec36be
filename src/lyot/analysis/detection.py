"""Is there a companion: the S/N of every place, and the candidates that stand out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lyot.algorithms.statistics import (
    FIVE_SIGMA_FPF,
    GAUSSIAN,
    false_positive_fraction,
    finite_mean,
    threshold,
)
from lyot.analysis.contrast import FEWEST_POSITIONS, throughputs
from lyot.analysis.maps import (
    MATCHED,
    RING_STEP_PIX,
    FluxMaps,
    Known,
    KnownDisc,
    Rings,
    SkyGrid,
    make_rings,
    sky_grid,
)
from lyot.analysis.observation import Observation
from lyot.analysis.response import without_refs
from lyot.compute import threads
from lyot.errors import LyotError
from lyot.types import Array

MIN_SHARE = 0.5
MAX_REFERENCE_STARS = 8
"""Reference stars that are left out one after another."""
LEAST_SEEN = 0.02
"""Transmission of the mask below which a place is not searched."""


@dataclass(frozen=True)
class Candidate:
    """A place that stands out.

    Attributes
    ----------
    separation_arcsec, pa_deg : float
        Where it is [arcsec], [degree east of north].
    snr : float
        The statistic t against the other positions at its separation.
    fpf : float
        Probability that Gaussian noise alone stands out as much at one position.
    false_alarms : float
        Expected number of such positions on the whole image.
    flux : float
        Flux, corrected for throughput and transmission [MJy/sr times pixel].
    contrast : float
        Flux over that of the star; NaN where its brightness is not known.
    known : bool
        Whether it lies on a known source or disc.
    jackknife_snr : float
        Its S/N where one reference star is left out, for the star that matters most; NaN where
        there is one star alone.
    key_reference : str
        That star.
    """

    separation_arcsec: float
    pa_deg: float
    snr: float
    fpf: float
    false_alarms: float
    flux: float
    contrast: float
    known: bool
    jackknife_snr: float = float("nan")
    key_reference: str = ""


@dataclass(frozen=True, eq=False)
class Detection:
    """Maps and candidates.

    Attributes
    ----------
    snr : ndarray, shape (2 n + 1, 2 n + 1)
        The statistic t, north up and east to the left; NaN where too few positions are left,
        under the mask and beyond the edges.
    flux : ndarray, shape (2 n + 1, 2 n + 1)
        Flux corrected for throughput and transmission [MJy/sr times pixel].
    n_positions : ndarray, shape (2 n + 1, 2 n + 1)
        Independent positions at that separation, the tested one included.
    stim : ndarray, shape (2 n + 1, 2 n + 1)
        Mean over standard deviation of the derotated integrations (Pairet et al. 2019,
        doi:10.1093/mnras/stz1350).
    candidates : tuple of Candidate
        Peaks above the threshold, the most significant first.
    grid : SkyGrid
        The grid.
    pixel_scale_arcsec : float
        Pixel scale [arcsec].
    n_modes : int
        Number of modes.
    fpf : float
        False-positive fraction of one position.
    """

    snr: Array
    flux: Array
    n_positions: Array
    stim: Array
    candidates: tuple[Candidate, ...]
    grid: SkyGrid
    pixel_scale_arcsec: float
    n_modes: int
    fpf: float

    def to_table(self) -> Any:
        """Return one row per candidate.

        Returns
        -------
        astropy.table.QTable
            With units.
        """
        from astropy import units as u
        from astropy.table import QTable

        rows = self.candidates
        return QTable(
            {
                "separation": np.array([c.separation_arcsec for c in rows]) * u.arcsec,
                "position_angle": np.array([c.pa_deg for c in rows]) * u.deg,
                "snr": np.array([c.snr for c in rows]),
                "false_positive_fraction": np.array([c.fpf for c in rows]),
                "expected_false_alarms": np.array([c.false_alarms for c in rows]),
                "flux": np.array([c.flux for c in rows]) * u.MJy / u.sr * u.pix,
                "contrast": np.array([c.contrast for c in rows]),
                "known": np.array([c.known for c in rows], dtype=bool),
                "jackknife_snr": np.array([c.jackknife_snr for c in rows]),
                "key_reference": np.array([c.key_reference for c in rows], dtype=str),
            },
            meta={"lyot": {"n_modes": self.n_modes, "fpf": self.fpf}},
        )

    def _repr_html_(self) -> str:
        """Return the table, for a notebook."""
        return str(self.to_table()._repr_html_())


@threads.calculation
def snr_map(
    maps: FluxMaps,
    grid: SkyGrid,
    /,
    *,
    n_modes: int | None = None,
    known: tuple[Known | KnownDisc, ...] = (),
) -> tuple[Array, Array, Array]:
    """Test every place of the sky against the others at its separation.

    Parameters
    ----------
    maps : FluxMaps
        The fluxes.
    grid : SkyGrid
        The places.
    n_modes : int, optional
        Number of modes; the largest by default.
    known : tuple of Known or KnownDisc, optional
        Sources that do not count as noise.

    Returns
    -------
    snr, flux, number : ndarray, shape (2 n + 1, 2 n + 1)
        The statistic t; the flux as measured; the number of positions, the tested one included.
    """
    t = maps.observation.truncation(n_modes)
    radius, pa = grid.polar
    flux = maps.sample(radius, pa)[t]
    first = (FEWEST_POSITIONS + 0.01) / (2.0 * np.pi) * maps.observation.fwhm_pix
    rings = make_rings(
        maps,
        np.arange(first, radius[grid.half_pix].max() * np.sqrt(2.0), RING_STEP_PIX),
        known=known,
    )
    mean, scatter, number = _others_at(rings, t, radius, pa, first)
    with np.errstate(invalid="ignore", divide="ignore"):
        snr = (flux - mean) / (scatter * np.sqrt(1.0 + 1.0 / number))
    weight, through = maps.weights(radius, pa)
    norm = np.where(weight.sum(axis=0) > 0, weight.sum(axis=0), 1.0)
    dark = (weight * through).sum(axis=0) / norm < LEAST_SEEN
    enough = (number + 1 >= FEWEST_POSITIONS) & ~dark
    return np.where(enough & np.isfinite(snr), snr, np.nan), flux, number + 1


def _others_at(
    rings: Rings, t: int, radius: Array, pa_deg: Array, first: float
) -> tuple[Array, Array, Array]:
    """Mean, scatter and number of the other positions, linear along the nearest ring."""
    which = np.rint((radius - first) / RING_STEP_PIX).astype(int)
    inside = (which >= 0) & (which < len(rings.radius_pix))
    sizes = np.array([used.size for used in rings.used])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    # A position's place on its ring: the starting angle runs within the spacing of positions.
    columns = [np.stack(rings.others(j, t)).reshape(3, -1) for j in range(len(sizes))]
    flat = np.concatenate(columns, axis=1)
    ring = np.where(inside, which, 0)
    u = pa_deg / 360.0 * sizes[ring]
    low = np.floor(u).astype(int)
    part = u - low
    a, b = starts[ring] + low % sizes[ring], starts[ring] + (low + 1) % sizes[ring]
    mean, scatter = ((1.0 - part) * flat[k][a] + part * flat[k][b] for k in (0, 1))
    number = np.minimum(flat[2][a], flat[2][b])
    nothing = ~inside
    return (
        np.where(nothing, np.nan, mean),
        np.where(nothing, np.nan, scatter),
        np.where(nothing, 0, number),
    )


@threads.calculation
def stim_map(observation: Observation, grid: SkyGrid, /, *, n_modes: int | None = None) -> Array:
    """Return mean over standard deviation of the derotated integrations.

    Parameters
    ----------
    observation : Observation
        The reduction.
    grid : SkyGrid
        The places.
    n_modes : int, optional
        Number of modes; the largest by default.

    Returns
    -------
    ndarray, shape (2 n + 1, 2 n + 1)
        NaN where fewer than two integrations see the place.
    """
    from scipy.ndimage import map_coordinates

    t = observation.truncation(n_modes)
    radius, pa = grid.polar
    count = np.zeros(radius.shape)
    total, square = np.zeros(radius.shape), np.zeros(radius.shape)
    for exposure in observation.exposures:
        at = np.stack(exposure.position(radius, pa))
        for image, bad in zip(exposure.integrations[t], exposure.bad, strict=True):
            share = map_coordinates((~bad).astype(np.float64), at, order=1, cval=0.0)
            data = map_coordinates(np.where(bad, 0.0, image).astype(np.float64), at, order=1)
            seen = share > MIN_SHARE
            value = np.where(seen, data / np.where(seen, share, 1.0), 0.0)
            count += seen
            total += value
            square += value**2
    mean = total / np.maximum(count, 1)
    variance = (square - count * mean**2) / np.maximum(count - 1, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(
            (count >= 2) & (variance > 0), mean / np.sqrt(np.maximum(variance, 0.0)), np.nan
        )


@threads.calculation
def detect(
    observation: Observation,
    /,
    *,
    n_modes: int | None = None,
    fpf: float = FIVE_SIGMA_FPF,
    known: tuple[Known | KnownDisc, ...] = (),
    method: str = MATCHED,
    distribution: str = GAUSSIAN,
) -> Detection:
    """Search for companions.

    Parameters
    ----------
    observation : Observation
        The reduction.
    n_modes : int, optional
        Number of modes; the largest by default.
    fpf : float, optional
        False-positive fraction of one position.
    known : tuple of Known or KnownDisc, optional
        Sources that do not count as noise.
    method : {"matched", "aperture"}, optional
        How flux is measured.
    distribution : {"gaussian", "laplace"}, optional
        Distribution of the noise.

    Returns
    -------
    Detection
        Maps and candidates.

    Raises
    ------
    LyotError
        If the frames leave too few positions anywhere.
    """
    maps, grid = FluxMaps(observation, method), sky_grid(observation)
    t = observation.truncation(n_modes)
    snr, flux, number = snr_map(maps, grid, n_modes=n_modes, known=known)
    if not np.isfinite(snr).any():
        raise LyotError("No separation has enough independent positions to test one.")
    corrected = flux / _throughput_map(maps, grid, t)
    peaks = _peaks(observation, snr, number, fpf, distribution)
    if peaks:
        # A bright source is in the scatter of its neighbors, and moves the peak of its own S/N:
        # from where the flux is highest, candidates are tested again, not counted as others.
        peaks = sorted({_climbed(flux, y, x, observation.fwhm_pix) for y, x in peaks})
        found = tuple(
            Known(r * observation.pixel_scale_arcsec, pa)
            for r, pa in (_refined(flux, y, x, grid) for y, x in peaks)
        )
        snr, _, number = snr_map(maps, grid, n_modes=n_modes, known=known + found)
        peaks = sorted({_climbed(snr, y, x, observation.fwhm_pix) for y, x in peaks})
    candidates = [_candidate(observation, grid, snr, corrected, number, p, known) for p in peaks]
    candidates = _without_each_star(observation, grid, candidates, n_modes, known, method)
    return Detection(
        snr=snr,
        flux=corrected,
        n_positions=number,
        stim=stim_map(observation, grid, n_modes=n_modes),
        candidates=tuple(sorted(candidates, key=lambda c: (c.fpf, -c.snr))),
        grid=grid,
        pixel_scale_arcsec=observation.pixel_scale_arcsec,
        n_modes=observation.n_modes[t],
        fpf=fpf,
    )


def _without_each_star(
    observation: Observation,
    grid: SkyGrid,
    candidates: list[Candidate],
    n_modes: int | None,
    known: tuple[Known | KnownDisc, ...],
    method: str,
) -> list[Candidate]:
    """Test candidates again without each reference star, the weightiest ones if there are many."""
    stars = _weightiest_stars(observation)
    if not candidates or len(stars) < 2:
        return candidates
    scale = observation.pixel_scale_arcsec
    found = tuple(Known(c.separation_arcsec, c.pa_deg) for c in candidates)
    left: dict[str, Array] = {}
    for star in stars:
        exposures = []
        for exposure in observation.exposures:
            ref_info = exposure.aligned.ref_info
            names = ref_info.targets if ref_info is not None else ()
            gone = np.array([name == star for name in names], bool)
            exposures.append(
                without_refs(exposure, gone, observation.recipe)
                if gone.any() and not gone.all()
                else exposure
            )
        maps = FluxMaps(replace(observation, exposures=exposures, folder=None), method)
        snr = snr_map(maps, grid, n_modes=n_modes, known=known + found)[0]
        left[star] = np.array([_nearest(snr, grid, c, scale) for c in candidates])
    tested = []
    for k, candidate in enumerate(candidates):
        values = {star: snr[k] for star, snr in left.items() if np.isfinite(snr[k])}
        worst = min(values, key=lambda star: values[star], default="")
        tested.append(
            replace(candidate, jackknife_snr=float(values.get(worst, np.nan)), key_reference=worst)
        )
    return tested


def _weightiest_stars(observation: Observation) -> list[str]:
    """Reference stars in the order of their squared coefficients; at most a handful."""
    power: dict[str, float] = {}
    for exposure in observation.exposures:
        ref_info = exposure.aligned.ref_info
        if ref_info is None:
            return []
        if exposure.frames:
            return []
        for fit in exposure.fits:
            for coefs in fit.coefs(max(exposure.n_modes)):
                size = coefs**2 * np.diagonal(fit.gram)
                for k, value in zip(fit.refs, size, strict=True):
                    name = ref_info.targets[k]
                    power[name] = power.get(name, 0.0) + float(value)
    return sorted(power, key=lambda name: -power[name])[:MAX_REFERENCE_STARS]


def _nearest(snr: Array, grid: SkyGrid, candidate: Candidate, scale: float) -> float:
    """S/N at the place of a candidate: the highest within a pixel."""
    r, pa = candidate.separation_arcsec / scale, np.radians(candidate.pa_deg)
    y = round(grid.half_pix + r * np.cos(pa))
    x = round(grid.half_pix - r * np.sin(pa))
    part = snr[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
    good = part[np.isfinite(part)]
    return float(good.max()) if good.size else float("nan")


def _throughput_map(maps: FluxMaps, grid: SkyGrid, t: int) -> Array:
    """Throughput of the subtraction by separation, times the transmission of the mask."""
    observation = maps.observation
    radius, pa = grid.polar
    steps = np.geomspace(observation.fwhm_pix, observation.reach_pix, 10)
    flux = np.full(len(steps), 1.0)
    bare = finite_mean(throughputs(maps, steps, 4, flux)[1, t], axis=-1)
    good = np.isfinite(bare)
    weight, through = maps.weights(radius, pa)
    norm = weight.sum(axis=0)
    kept = (weight * through).sum(axis=0) / np.where(norm > 0, norm, 1.0)
    total = kept * np.interp(radius, steps[good], bare[good])
    return np.where(total > 0, total, np.nan)


def _peaks(
    observation: Observation, snr: Array, number: Array, fpf: float, distribution: str
) -> list[tuple[int, int]]:
    """Local maxima above the threshold for their number of positions."""
    from scipy.ndimage import maximum_filter

    size = 2 * int(np.ceil(observation.fwhm_pix)) + 1
    filled = np.where(np.isfinite(snr), snr, -np.inf)
    peak = (filled == maximum_filter(filled, size=size)) & (filled > 0.0)
    limits: dict[int, float] = {}
    found = []
    for y, x in np.argwhere(peak):
        n = int(number[y, x])
        if n not in limits:
            tau = threshold(n, fpf=fpf, distribution=distribution)
            limits[n] = tau / np.sqrt(1.0 + 1.0 / (n - 1))
        if snr[y, x] > limits[n]:
            found.append((int(y), int(x)))
    return found


def _climbed(image: Array, y: int, x: int, fwhm_pix: float) -> tuple[int, int]:
    """The highest place within 1.25 FWHM of another."""
    rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
    near = np.hypot(rows - y, columns - x) <= 1.25 * fwhm_pix
    top = np.argmax(np.where(near & np.isfinite(image), image, -np.inf))
    row, column = np.unravel_index(int(top), image.shape)
    return int(row), int(column)


def _candidate(
    observation: Observation,
    grid: SkyGrid,
    snr: Array,
    flux: Array,
    number: Array,
    place: tuple[int, int],
    known: tuple[Known | KnownDisc, ...],
) -> Candidate:
    """Describe a peak."""
    scale, fwhm = observation.pixel_scale_arcsec, observation.fwhm_pix
    r, angle = _refined(snr, *place, grid)
    chance = float(false_positive_fraction(snr[place], np.asarray(number[place])))
    tests = float(np.isfinite(snr).sum()) / (0.25 * np.pi * fwhm**2)
    star_flux = observation.star_flux if observation.star is not None else float("nan")
    at = (np.asarray(r * scale), np.asarray(angle))
    return Candidate(
        separation_arcsec=r * scale,
        pa_deg=angle,
        snr=float(snr[place]),
        fpf=chance,
        false_alarms=chance * tests,
        flux=float(flux[place]),
        contrast=float(flux[place]) / star_flux,
        known=any(bool(k.covers(*at, fwhm * scale)) for k in known),
    )


def _refined(image: Array, y: int, x: int, grid: SkyGrid) -> tuple[float, float]:
    """Separation [pixel] and position angle of a peak, by a parabola through its neighbors."""

    def _offset(before: float, at: float, after: float) -> float:
        curve = before - 2.0 * at + after
        if not np.isfinite(curve) or curve >= 0:
            return 0.0
        return float(np.clip(0.5 * (before - after) / curve, -0.5, 0.5))

    padded = np.pad(image, 1, constant_values=np.nan)
    row, column = padded[y + 1], padded[:, x + 1]
    dx = _offset(row[x], row[x + 1], row[x + 2])
    dy = _offset(column[y], column[y + 1], column[y + 2])
    east, north = grid.half_pix - (x + dx), (y + dy) - grid.half_pix
    return float(np.hypot(east, north)), float(np.degrees(np.arctan2(east, north)) % 360.0)
