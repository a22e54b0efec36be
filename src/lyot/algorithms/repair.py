"""Replacement of bad pixels, and flags for outliers among integrations."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from lyot.types import Mask

MAD_TO_SIGMA = 1.482602218505602
"""Standard deviation of Gaussian noise over its median absolute deviation."""

MIN_INTEGRATIONS = 3
"""Outliers are looked for where a pixel has at least so many good integrations."""
MAX_BLOCK = 2**20
"""Numbers that are held in float64 at once where frames are compared."""
MAX_IN_NETWORK = 40
"""So many values are put in order by fixed comparisons, more are sorted."""
HALF_WINDOW = 2
"""How far from a pixel the neighbors lie that tell how large its scatter may be."""


def median_fill(images: NDArray[np.floating], bad: Mask, /, *, box: int = 3) -> NDArray[np.float64]:
    """Return float64 copies of images with the median of the good neighbors in each bad pixel.

    Images and `bad` are ``(n, n_y, n_x)``; the values of bad pixels, NaN or not, are not read. The
    box [pixel, odd] grows until it holds a good pixel; an image with none is zero.
    """
    out = np.array(images, dtype=np.float64)
    for image, image_bad in zip(out, bad, strict=True):
        if image_bad.all():
            image[:] = 0.0
            continue
        image[image_bad] = np.nan
        pending, half = np.argwhere(image_bad), max(box // 2, 1)
        source = image.copy() if len(pending) else image
        while len(pending):
            values = _box_medians(source, pending, half)
            done = np.isfinite(values)
            image[tuple(pending[done].T)] = values[done]
            pending, half = pending[~done], half + max(1, half // 2)
    return out


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
        out[start : start + chunk] = finite_median(stack.reshape(len(stack), -1).T)
    return out


class CrossPrediction(NamedTuple):
    """How each of n frames follows from the others: ``R_k - m_k`` is row k of ``a (R - m)``."""

    mean: NDArray[np.float64]  # (n,), m
    brightness: NDArray[np.float64]  # (n,), factor from the mean frame to each frame
    matrix: NDArray[np.float64]  # (n, n), a, with zeros on its diagonal
    excess: NDArray[np.float64]  # (n,), mean square of the residual over its variance, less one


def fit_cross_prediction(
    frames: NDArray[np.floating], variance: NDArray[np.floating], /
) -> CrossPrediction:
    r"""Fit how each frame ``(n, n_pix)`` follows from the others, at pixels that are good in all.

    All regressions come from one inverse: with :math:`P = (G + \Lambda)^{-1}` of the Gram matrix
    G and the noise :math:`\Lambda`, the coefficients of frame k are
    :math:`a_{kj} = -P_{kj} / P_{kk}`, as a precision matrix holds all conditional means (Whittaker
    1990, Graphical Models in Applied Multivariate Statistics, ch. 5). They are zero for one frame.
    """
    n, n_pix = frames.shape
    if n_pix == 0:
        return CrossPrediction(np.zeros(n), np.ones(n), np.zeros((n, n)), np.zeros(n))
    step = max(MAX_BLOCK // n, 1)
    blocks = [slice(first, first + step) for first in range(0, n_pix, step)]
    mean: NDArray[np.float64] = frames.mean(axis=1, dtype=np.float64)
    common: NDArray[np.float64] = frames.mean(axis=0, dtype=np.float64)
    power = float(common @ common)
    gram, along = np.zeros((n, n)), np.zeros(n)
    for block in blocks:
        data = np.asarray(frames[:, block], dtype=np.float64)
        along += data @ common[block]
        data = data - mean[:, None]
        gram += data @ data.T
    # The noise alone would let a frame be predicted from the noise of many others.
    ridge = np.maximum(variance.sum(axis=1, dtype=np.float64), 1e-10 * np.trace(gram) / n)
    gram[np.diag_indices(n)] += ridge
    matrix = _inverse(gram)
    diagonal = np.diag(matrix).copy()
    diagonal[diagonal <= 0] = np.inf
    matrix /= -diagonal[:, None]
    np.fill_diagonal(matrix, 0.0)
    excess = np.zeros(n)
    for block in blocks:
        data = frames[:, block] - mean[:, None]
        data -= matrix @ data
        excess += (data**2 / np.maximum(variance[:, block], np.finfo(np.float32).tiny)).sum(axis=1)
    brightness = along / power if power > 0 else np.ones(n)
    excess = np.maximum(excess / n_pix - 1.0, 0.0)
    return CrossPrediction(mean, np.asarray(brightness), matrix, excess)


def _inverse(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the inverse of a symmetric matrix; its pseudo-inverse where it is not positive."""
    from scipy.linalg import lapack

    factor, failed = lapack.dpotrf(matrix.T, lower=1)
    if failed:
        return np.asarray(np.linalg.pinv(matrix, hermitian=True), dtype=np.float64)
    inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
    return np.asarray(np.tril(inverse) + np.tril(inverse, -1).T)


class Filled(NamedTuple):
    """Frames whose bad pixels hold a prediction; NaN where all of them are bad."""

    frames: Any  # (n, n_pix), float64
    variance: Any  # with the scatter of the predictions


def fill_from_others(
    frames: Any,
    variance: Any,
    bad: Any,
    prediction: CrossPrediction,
    /,
) -> Filled:
    """Replace bad pixels of aligned frames with their prediction from the other frames.

    Where several frames are bad, each enters the prediction as the scaled mean of the good ones.

    Parameters
    ----------
    frames, variance : array, shape (n, n_pix)
        Aligned frames and their variance, at the pixels that are bad in some of them.
    bad : array of bool, shape (n, n_pix)
        True where the frame is bad; its values are not read.
    prediction : CrossPrediction
        From `fit_cross_prediction`.

    Returns
    -------
    Filled

    Examples
    --------
    >>> frames = np.array([[1.0, 2.0, 4.0], [2.0, 4.0, 8.0]])
    >>> variance = np.full(frames.shape, 1e-6)
    >>> prediction = fit_cross_prediction(frames, variance)
    >>> bad = np.array([[False], [True]])
    >>> filled = fill_from_others(np.array([[3.0], [0.0]]), variance[:, :1], bad, prediction)
    >>> float(filled.frames[1, 0].round(3))
    6.0
    """
    xp = array_namespace(frames, variance, bad)
    weight = xp.where(bad, 0.0, prediction.brightness[:, None])
    power = xp.sum(weight**2, axis=0)
    power = xp.where(power > 0, power, 1.0)
    data = xp.where(bad, 0.0, frames)
    common = xp.sum(weight * data, axis=0) / power
    complete = xp.where(bad, prediction.brightness[:, None] * common, data)
    mean = prediction.mean[:, None]
    predicted = mean + prediction.matrix @ (complete - mean)
    if frames.shape[0] == 1:
        predicted = complete
    count = xp.clip(xp.sum(xp.astype(~bad, xp.float64), axis=0), 1.0, None)
    mean_variance = xp.astype(xp.sum(xp.where(bad, 0.0, variance), axis=0), xp.float64) / count
    spread = prediction.matrix**2 @ xp.astype(xp.where(bad, mean_variance, variance), xp.float64)
    spread = spread + (1.0 + prediction.excess[:, None]) * mean_variance
    all_bad = xp.all(bad, axis=0)
    values = xp.where(bad, xp.where(all_bad, xp.nan, predicted), frames)
    errors = xp.where(bad, xp.where(all_bad, xp.nan, spread), variance)
    return Filled(xp.astype(values, xp.float64), xp.astype(errors, xp.float64))


def outlier_flags(
    cube: NDArray[np.floating],
    err: NDArray[np.floating],
    bad: Mask,
    /,
    *,
    n_sigma: float = 5.0,
) -> Mask:
    """Flag pixels that differ from the other integrations of their exposure.

    The noise is the scatter of the integrations, so speckles, which are alike in all of them,
    are not flagged, and speckles that drift raise the noise where they do.

    Parameters
    ----------
    cube, err : ndarray, shape (n_int, n_y, n_x)
        Integrations of one exposure and their errors; the noise is never taken below these.
    bad : ndarray of bool, shape (n_int, n_y, n_x)
        True where the pixel is bad already.
    n_sigma : float, optional
        Threshold in standard deviations.

    Returns
    -------
    ndarray of bool, shape (n_int, n_y, n_x)
        True where the pixel is an outlier; all False with fewer than three integrations.

    Examples
    --------
    >>> cube = np.random.default_rng(0).normal(size=(5, 8, 8))
    >>> cube[2, 3, 4] = 50.0
    >>> flags = outlier_flags(cube, np.ones(cube.shape), np.zeros(cube.shape, bool))
    >>> np.argwhere(flags).tolist()
    [[2, 3, 4]]
    """
    if cube.shape[0] < MIN_INTEGRATIONS:
        return np.zeros(cube.shape, dtype=bool)
    data = np.where(bad, np.nan, cube)
    counted = np.isfinite(data).sum(axis=0) >= MIN_INTEGRATIONS
    deviation = data - finite_median(data)
    scatter = MAD_TO_SIGMA * np.where(counted, finite_median(np.abs(deviation)), 0.0)
    # With few integrations a pixel's own scatter is poorly known: its neighbors help.
    scatter = np.maximum(scatter, median_of_neighbors(scatter))
    floor = np.where(np.isfinite(err), err, 0.0)
    noise = np.maximum(scatter[None], floor)
    with np.errstate(invalid="ignore"):
        return (np.abs(deviation) > n_sigma * noise) & counted[None] & (noise > 0)


def finite_median(data: NDArray[np.floating], /) -> NDArray[np.floating]:
    """Return the median of the finite values along the first axis; NaN where there is none."""
    gaps = ~np.isfinite(data).all(axis=0)
    if not 3 <= len(data) <= MAX_IN_NETWORK or 2 * gaps.sum() > gaps.size:
        return _sorted_median(data)
    rows = list(np.array(data))
    _put_middle_in_place(rows)
    low, high = rows[(len(rows) - 1) // 2], rows[len(rows) // 2]
    with np.errstate(invalid="ignore"):
        middle = np.asarray(high if len(rows) % 2 else 0.5 * (low + high))
    if gaps.any():
        middle[gaps] = _sorted_median(data[:, gaps])
    return middle


def _sorted_median(data: NDArray[np.floating]) -> NDArray[np.floating]:
    # Values that are sorted together lie together: five times as quick for many integrations.
    ordered = np.array(np.moveaxis(data, 0, -1), order="C")
    ordered.sort(axis=-1)  # NaN comes last
    n = np.isfinite(data).sum(axis=0)
    low, high = np.maximum(n - 1, 0) // 2, np.minimum(n // 2, len(data) - 1)
    pair = [np.take_along_axis(ordered, at[..., None], axis=-1)[..., 0] for at in (low, high)]
    middle = np.where(n % 2 == 1, pair[0], 0.5 * (pair[0] + pair[1]))
    return np.where(n > 0, middle, np.nan)


def middle_of(values: NDArray[np.floating], /) -> Any:
    """Return the median of finite values, NaN of none: what NumPy does, without its checks."""
    half, odd = divmod(values.size, 2)
    if not values.size:
        return np.nan
    if odd:
        return np.partition(values, half)[half]
    ordered = np.partition(values, (half - 1, half))
    return 0.5 * (ordered[half - 1] + ordered[half])


def median_of_neighbors(
    image: NDArray[np.floating], /, *, half_window: int = HALF_WINDOW
) -> NDArray[np.floating]:
    """Return the median of the window about each pixel, edges repeated outwards."""
    n_y, n_x = image.shape
    padded = np.pad(image, half_window, mode="edge")
    corners = np.ndindex(2 * half_window + 1, 2 * half_window + 1)
    rows = [padded[y : y + n_y, x : x + n_x].copy() for y, x in corners]
    _put_middle_in_place(rows)
    return rows[len(rows) // 2]


def _put_middle_in_place(rows: list[NDArray[np.floating]]) -> None:
    """Order some arrays, which are overwritten, so that the middle one or two are in place."""
    spare = np.empty_like(rows[0])
    for a, b in _median_network(len(rows)):
        np.minimum(rows[a], rows[b], out=spare)
        np.maximum(rows[a], rows[b], out=rows[b])
        rows[a], spare = spare, rows[a]


@cache
def _median_network(n: int) -> list[tuple[int, int]]:
    """Which pairs to put in order, one after another, until the middle of n values is in place.

    Sorting by merging odd and even places (Batcher 1968, doi:10.1145/1468075.1468121; Knuth, The
    Art of Computer Programming 3, 5.2.2), without the comparisons that the middle does not need.
    """
    pairs = []
    size = 1
    while size < n:
        step = size
        while step:
            for first in range(step % size, n - step, 2 * step):
                for k in range(first, min(first + step, n - step)):
                    if k // (2 * size) == (k + step) // (2 * size):
                        pairs.append((k, k + step))
            step //= 2
        size *= 2
    needed, kept = {(n - 1) // 2, n // 2}, []
    for pair in reversed(pairs):
        if needed & set(pair):
            needed |= set(pair)
            kept.append(pair)
    return kept[::-1]
