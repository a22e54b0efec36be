"""Replacement of bad pixels, and flags for outliers among integrations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

MAD_TO_SIGMA = 1.482602218505602


def median_fill(
    images: NDArray[np.floating], bad: NDArray[np.bool_], /, *, box: int = 3
) -> NDArray[np.float64]:
    """Replace each bad pixel with the median of the good pixels around it.

    Parameters
    ----------
    images : ndarray, shape (n, n_y, n_x)
        Images; the values of bad pixels, NaN or not, are not read.
    bad : ndarray of bool, shape (n, n_y, n_x)
        True where the pixel is replaced.
    box : int, optional
        Side of the square box [pixel], odd; it grows by two until it holds a good pixel.

    Returns
    -------
    ndarray, shape (n, n_y, n_x), float64
        A repaired copy; all zero where an image has no good pixel at all.
    """
    out = np.array(images, dtype=np.float64)
    for image, image_bad in zip(out, bad, strict=True):
        _median_fill_one(image, image_bad, box)
    return out


def _median_fill_one(image: NDArray[np.float64], bad: NDArray[np.bool_], box: int) -> None:
    if not bad.any():
        return
    if bad.all():
        image[:] = 0.0
        return
    image[bad] = np.nan
    left = np.argwhere(bad)
    source = image.copy()
    half = max(box // 2, 1)
    while len(left):
        values = _box_medians(source, left, half)
        found = np.isfinite(values)
        image[tuple(left[found].T)] = values[found]
        left, half = left[~found], half + max(1, half // 2)


def _box_medians(
    source: NDArray[np.float64], at: NDArray[np.intp], half: int
) -> NDArray[np.float64]:
    """Median of the finite pixels in a box about each position, NaN where there is none."""
    offsets = np.arange(-half, half + 1)
    padded = np.pad(source, half, constant_values=np.nan)
    out = np.empty(len(at))
    # In chunks: a large box about many pixels would otherwise take much memory.
    chunk = max(1, 4_000_000 // offsets.size**2)
    for start in range(0, len(at), chunk):
        y, x = (at[start : start + chunk] + half).T
        stack = padded[y[:, None, None] + offsets[:, None], x[:, None, None] + offsets[None, :]]
        stack = np.sort(stack.reshape(len(stack), -1), axis=1)  # NaN sorts to the end
        n = np.isfinite(stack).sum(axis=1)
        rows = np.arange(len(stack))
        middle = stack[rows, np.maximum(n - 1, 0) // 2] + stack[rows, n // 2]
        out[start : start + chunk] = np.where(n > 0, 0.5 * middle, np.nan)
    return out


def fill_from_others(
    frames: NDArray[np.floating],
    bad: NDArray[np.bool_],
    scale: NDArray[np.floating],
    /,
) -> NDArray[np.float64]:
    r"""Replace bad pixels of aligned frames with what the other frames have there.

    Parameters
    ----------
    frames : ndarray, shape (n, n_pix)
        Aligned frames at the pixels that are bad in some of them.
    bad : ndarray of bool, shape (n, n_pix)
        True where the frame is bad.
    scale : ndarray, shape (n,)
        Brightness of each frame on a common scale.

    Returns
    -------
    ndarray, shape (n, n_pix), float64
        A copy with :math:`R_k = a_k\,\sum_j a_j R_j / \sum_j a_j^2` over the good frames j;
        NaN where every frame is bad.
    """
    out = np.array(frames, dtype=np.float64)
    weight = np.where(bad, 0.0, scale[:, None])
    power = (weight * scale[:, None]).sum(axis=0)
    common = (weight * np.where(bad, 0.0, out)).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        common = np.where(power > 0, common / power, np.nan)
    filled = scale[:, None] * common[None, :]
    return np.where(bad, filled, out)


def outlier_flags(
    cube: NDArray[np.floating],
    err: NDArray[np.floating],
    bad: NDArray[np.bool_],
    /,
    *,
    n_sigma: float = 5.0,
) -> NDArray[np.bool_]:
    """Flag pixels that differ from the other integrations of their exposure.

    The noise is the scatter of the integrations, so speckles, which are alike in all of them,
    are not flagged, and speckles that drift raise the noise where they do.

    Parameters
    ----------
    cube : ndarray, shape (n_int, n_y, n_x)
        Integrations of one exposure.
    err : ndarray, shape (n_int, n_y, n_x)
        Their errors; the noise is never taken below them.
    bad : ndarray of bool, shape (n_int, n_y, n_x)
        True where the pixel is bad already.
    n_sigma : float, optional
        Threshold in standard deviations.

    Returns
    -------
    ndarray of bool, shape (n_int, n_y, n_x)
        True where the pixel is an outlier; all False with fewer than three integrations.
    """
    if cube.shape[0] < 3:
        return np.zeros(cube.shape, dtype=bool)
    data = np.where(bad | ~np.isfinite(cube), np.nan, cube).astype(np.float64)
    counted = np.isfinite(data).sum(axis=0) >= 3
    data[:, ~counted] = 0.0
    deviation = data - np.nanmedian(data, axis=0)
    scatter = MAD_TO_SIGMA * np.nanmedian(np.abs(deviation), axis=0)
    # With few integrations a pixel's own scatter is poorly known: its neighbours help.
    scatter = np.maximum(scatter, ndimage.median_filter(scatter, size=5, mode="nearest"))
    floor = np.where(np.isfinite(err), err, 0.0)
    noise = np.maximum(scatter[None], floor)
    with np.errstate(invalid="ignore"):
        return (np.abs(deviation) > n_sigma * noise) & counted[None] & ~bad & (noise > 0)
