"""Are the references what they should be: saturated ones, and ones with sources of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lyot.algorithms import klip
from lyot.algorithms.geometry import angle_map, radius_map
from lyot.compute import threads
from lyot.files.aligned import AlignedFrames, ReferenceInfo
from lyot.files.exposure import Cube
from lyot.files.headers import ExposureInfo
from lyot.files.star import StarPosition
from lyot.types import Array

SATURATED_WITHIN_ARCSEC = 1.0
FEW_SATURATED = 3
SEARCH_ARCSEC = 5.0
INNER_FWHM = 2.0
SOURCE_SNR = 10.0
MIN_SOURCE_CONTRAST = 2.0
"""A source must also be this many times the next brightest peak of the frame."""


@dataclass(frozen=True)
class ReferenceWarning:
    """A reference that may spoil a subtraction.

    Attributes
    ----------
    reference : int
        Its number, from 0.
    target : str
        Which star it shows; empty where that is not known.
    reason : str
        What is wrong with it, in words.
    """

    reference: int
    target: str
    reason: str


def saturated(refs: Cube, star: StarPosition, /) -> list[ReferenceWarning]:
    """Find references that are saturated near the star.

    Parameters
    ----------
    refs : Cube
        The references.
    star : StarPosition
        The star on them, to a pixel.

    Returns
    -------
    list of Doubt
        Those with more than a few saturated pixels within an arcsecond.
    """
    flag = np.uint32(refs.info.instrument_value.flag_value("SATURATED"))
    radius = radius_map(refs.frame_shape, star.yx) * refs.info.pixel_scale_arcsec
    near = radius <= SATURATED_WITHIN_ARCSEC
    counts = ((refs.dq[:, near] & flag) != 0).sum(axis=1)
    return [
        ReferenceWarning(
            int(k),
            refs.targets[k] if refs.targets else "",
            f"{counts[k]} pixels within {SATURATED_WITHIN_ARCSEC:g} arcsec are saturated",
        )
        for k in np.flatnonzero(counts > FEW_SATURATED)
    ]


@threads.calculation
def with_sources(
    frames: AlignedFrames, ref_info: ReferenceInfo | None, star: StarPosition, info: ExposureInfo, /
) -> list[ReferenceWarning]:
    """Find references that show a source beside their star.

    Each star's references are subtracted with those of the other stars, from sub-blocks of one
    Gram matrix, averaged over frames of one roll, and smoothed to the width of a point source.
    What then stands out, alone, of its annulus is a source.

    Parameters
    ----------
    frames : AlignedFrames
        The references, aligned.
    ref_info : ReferenceInfo or None
        Which star and roll each shows; one star each where that is not known.
    star : StarPosition
        The star.
    info : ExposureInfo
        The science exposure, for its filter and scale.

    Returns
    -------
    list of Doubt
        One per star and roll, named by its first reference; none where there is one star.
    """
    from scipy.ndimage import gaussian_filter, maximum_filter, rank_filter

    n_ref, shape = len(frames.sci), frames.sci.shape[1:]
    groups = _groups(ref_info, n_ref)
    stars = {name for name, _ in groups}
    if len(stars) < 2:
        return []
    radius = radius_map(shape, star.yx)
    scale, fwhm = info.pixel_scale_arcsec, info.fwhm_pix
    area = (radius * scale <= SEARCH_ARCSEC) & np.isfinite(frames.sci).all(axis=0)
    at = np.flatnonzero(area.ravel())
    pixels = np.take(frames.sci.reshape(n_ref, -1), at, axis=1).astype(np.float64)
    pixels -= pixels.mean(axis=1, keepdims=True)
    gram = pixels @ pixels.T
    cover = np.maximum(gaussian_filter(area.astype(float), fwhm / 2.355), 0.1)
    predicted = np.uint32(info.instrument_value.flag_value("FLUX_ESTIMATED"))
    doubts = []
    for (name, _), numbers in groups.items():
        members = np.array(numbers)
        others = np.array([k for (n, _), ks in groups.items() if n != name for k in ks])
        matrix = klip.to_modes(klip.decompose(gram[np.ix_(others, others)]))
        coefs = klip.coefficients(gram[np.ix_(members, others)], matrix, n_modes=len(others))
        left = np.zeros(shape)
        # Pixels that were predicted from the others are no measurement.
        seen = np.array([((frames.dq[k] & predicted) == 0)[area] for k in numbers])
        residual = np.where(seen, pixels[members] - coefs @ pixels[others], 0.0)
        left[area] = residual.sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
        # Nor is one hot pixel a source: none stands higher than the next in its neighborhood.
        left = np.minimum(left, rank_filter(left, -2, size=3))
        smooth = gaussian_filter(left, fwhm / 2.355) / cover
        noise = _robust_scatter(smooth, area, radius)
        snr = np.where(area & (radius >= INNER_FWHM * fwhm), smooth / noise, 0.0)
        peaks = np.where(snr == maximum_filter(snr, size=2 * round(2 * fwhm) + 1), snr, 0.0)
        order = np.sort(peaks.ravel())[::-1]
        if order[0] > SOURCE_SNR and order[0] > MIN_SOURCE_CONTRAST * order[1]:
            y, x = np.unravel_index(int(np.argmax(peaks)), shape)
            pa_y = ref_info.pa_y_deg[numbers[0]] if ref_info is not None else np.nan
            pa = (angle_map(shape, star.yx)[y, x] + pa_y) % 360.0
            doubts.append(
                ReferenceWarning(
                    numbers[0],
                    name,
                    f"a source stands out by {order[0]:.0f} sigma at {radius[y, x] * scale:.2f} "
                    f"arcsec, position angle {pa:.0f}",
                )
            )
    return doubts


def _groups(ref_info: ReferenceInfo | None, n_ref: int) -> dict[tuple[str, int], list[int]]:
    """References of one star and roll."""
    groups: dict[tuple[str, int], list[int]] = {}
    for k in range(n_ref):
        key = (str(k), 0)
        if ref_info is not None:
            roll = ref_info.pa_y_deg[k]
            key = (ref_info.targets[k], round(roll) if np.isfinite(roll) else 0)
        groups.setdefault(key, []).append(k)
    return groups


def _robust_scatter(image: Array, area: Array, radius: Array) -> Array:
    """1.48 times the median absolute deviation in annuli three pixels wide, at each pixel."""
    ring = (radius / 3.0).astype(int)
    out = np.full(image.shape, np.inf)
    for number in np.unique(ring[area]):
        at = (ring == number) & area
        values = image[at]
        spread = 1.4826 * np.median(np.abs(values - np.median(values)))
        out[at] = spread if spread > 0 else np.inf
    return out
