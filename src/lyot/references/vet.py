"""References that may spoil a subtraction: saturated ones, and ones with sources of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lyot.algorithms import klip, repair
from lyot.algorithms.geometry import angle_map, radius_map
from lyot.compute import memory, threads
from lyot.files.aligned import AlignedFrames, ReferenceInfo
from lyot.files.headers import ExposureInfo
from lyot.files.star import StarPosition
from lyot.references.prepare import PreparedRefs
from lyot.types import Array, Mask

SATURATION_RADIUS_ARCSEC = 1.0
MAX_SATURATED_PIXELS = 3
"""More saturated pixels than these within that radius make a reference suspect."""
MAX_SEARCH_ARCSEC, MIN_SEARCH_FWHM = 5.0, 2.0
MIN_SNR, MIN_PEAK_RATIO = 10.0, 2.0
"""A source must stand out this much, and this many times more than the next peak."""
RING_PIX = 3.0


@dataclass(frozen=True)
class ReferenceWarning:
    """A reference that may spoil a subtraction."""

    reference: int  # its number, from 0
    target: str  # name of its star; empty where it is not recorded
    reason: str


def find_saturated(refs: PreparedRefs, star: StarPosition, /) -> list[ReferenceWarning]:
    """Find references with more than a few saturated pixels within an arcsecond of the star."""
    info, targets = refs.cube.info, refs.cube.targets
    flag = np.uint32(info.instrument_value.flag_value("SATURATED"))
    radius = radius_map(refs.cube.frame_shape, star.yx).ravel() * info.pixel_scale_arcsec
    full = (at[dq & flag > 0] for at, dq in map(refs.flags.__getitem__, range(len(refs))))
    counts = np.array([(radius[at] <= SATURATION_RADIUS_ARCSEC).sum() for at in full])
    return [
        ReferenceWarning(
            int(k),
            targets[k] if targets else "",
            f"{counts[k]} pixels within {SATURATION_RADIUS_ARCSEC:g} arcsec are saturated",
        )
        for k in np.flatnonzero(counts > MAX_SATURATED_PIXELS)
    ]


@threads.calculation
def find_contaminated(
    frames: AlignedFrames, ref_info: ReferenceInfo | None, star: StarPosition, info: ExposureInfo, /
) -> list[ReferenceWarning]:
    """Find references that show a source beside their star: one warning for a star and roll.

    Each star's references are subtracted with those of the other stars, averaged over frames of
    one roll, and smoothed to the width of a point source: a single peak is a source.
    """
    from scipy.ndimage import gaussian_filter

    n_ref, shape = len(frames.sci), frames.sci.shape[1:]
    groups: dict[tuple[str, int], list[int]] = {}  # by star and roll; a star each where unknown
    for k in range(n_ref):
        roll = 0.0 if ref_info is None else ref_info.pa_y_deg[k]
        name = str(k) if ref_info is None else ref_info.targets[k]
        groups.setdefault((name, round(roll) if np.isfinite(roll) else 0), []).append(k)
    if len({name for name, _ in groups}) < 2:
        return []
    radius, angle = radius_map(shape, star.yx), angle_map(shape, star.yx)
    arcsec, fwhm = info.pixel_scale_arcsec, info.fwhm_pix
    area = radius * arcsec <= MAX_SEARCH_ARCSEC
    for frame in frames.sci:
        area &= np.isfinite(frame)
        memory.relieve()
    searched = area & (radius >= MIN_SEARCH_FWHM * fwhm)
    cover = np.maximum(gaussian_filter(area.astype(float), fwhm / 2.355), 0.1)
    warnings = []
    estimated = np.uint32(info.instrument_value.flag_value("FLUX_ESTIMATED"))
    for (name, _), members, residual in _residuals(frames, groups, area, estimated):
        peak = _single_peak(residual, radius, area, searched, cover, fwhm)
        if peak is not None:
            y, x, snr = peak
            pa_y = ref_info.pa_y_deg[members[0]] if ref_info is not None else np.nan
            reason = (
                f"a source stands out by {snr:.0f} sigma at {radius[y, x] * arcsec:.2f} arcsec, "
                f"position angle {(angle[y, x] + pa_y) % 360.0:.0f}"
            )
            warnings.append(ReferenceWarning(members[0], name, reason))
    return warnings


def _residuals(
    frames: AlignedFrames,
    groups: dict[tuple[str, int], list[int]],
    area: Mask,
    estimated: np.uint32,
) -> Iterator[tuple[tuple[str, int], list[int], Array]]:
    """Yield each star and roll, its references, and their mean less what other stars explain."""
    n_ref, shape = len(frames.sci), frames.sci.shape[1:]
    flat, at = frames.sci.reshape(n_ref, -1), np.flatnonzero(area.ravel())
    step = max(repair.MAX_BLOCK // n_ref, 1)
    blocks = [slice(first, first + step) for first in range(0, len(at), step)]
    mean = np.empty((n_ref, 1))
    for k, frame in enumerate(frames.sci):
        mean[k] = frame[area].mean(dtype=np.float64)
        memory.relieve()
    gram = np.zeros((n_ref, n_ref))
    for block in blocks:
        pixels = memory.columns(flat, at[block]) - mean
        gram += pixels @ pixels.T
        memory.relieve()
    coefs = np.zeros((n_ref, n_ref))
    for (star, _), numbers in groups.items():
        members = np.array(numbers)
        others = np.array([k for (n, _), ks in groups.items() if n != star for k in ks])
        matrix = klip.to_modes(klip.decompose(gram[np.ix_(others, others)]))
        one = gram[np.ix_(members, others)]
        coefs[np.ix_(members, others)] = klip.coefficients(one, matrix, n_modes=len(others))
    # Pixels that were predicted from the other references are no measurement.
    measured = memory.empty((n_ref, len(at)), bool)
    for k in range(n_ref):
        measured[k] = (frames.dq[k][area] & estimated) == 0
        memory.relieve()
    images = memory.empty((len(groups), *shape), np.float64)
    images[:] = 0.0
    for block in blocks:
        pixels = memory.columns(flat, at[block]) - mean
        residual = np.where(measured[:, block], pixels - coefs @ pixels, 0.0)
        for image, numbers in zip(images, groups.values(), strict=True):
            n_measured = np.maximum(measured[numbers, block].sum(axis=0), 1)
            image.ravel()[at[block]] = residual[numbers].sum(axis=0) / n_measured
        memory.relieve()
    for (key, numbers), image in zip(groups.items(), images, strict=True):
        yield key, numbers, image


def _single_peak(
    image: Array, radius: Array, area: Mask, searched: Mask, cover: Array, fwhm: float
) -> tuple[int, int, float] | None:
    """Return the highest peak (y, x, S/N), if it stands out much more than the next."""
    from scipy.ndimage import gaussian_filter, maximum_filter, rank_filter

    # A hot pixel is no source: let none be higher than the next highest in its neighborhood.
    image = np.minimum(image, rank_filter(image, -2, size=3))
    smooth = gaussian_filter(image, fwhm / 2.355) / cover
    snr = np.where(searched, smooth / _ring_scatter(smooth, area, radius), 0.0)
    peaks = np.where(snr == maximum_filter(snr, size=2 * round(2 * fwhm) + 1), snr, 0.0)
    first, second = np.sort(peaks.ravel())[::-1][:2]
    if not (first > MIN_SNR and first > MIN_PEAK_RATIO * second):
        return None
    y, x = np.unravel_index(int(np.argmax(peaks)), image.shape)
    return int(y), int(x), float(first)


def _ring_scatter(image: Array, area: Mask, radius: Array) -> Array:
    """Robust scatter of each pixel's annulus; infinite where it is zero or not in the area."""
    ring = (radius / RING_PIX).astype(int)
    scatter = np.full(image.shape, np.inf)
    for number in np.unique(ring[area]):
        annulus = (ring == number) & area
        values = image[annulus]
        spread = repair.MAD_TO_SIGMA * np.median(np.abs(values - np.median(values)))
        scatter[annulus] = spread if spread > 0 else np.inf
    return scatter
