"""What moves along with the references: variance, bad pixels, flags; and what fills their gaps."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace
from array_api_compat import device as device_of
from numpy.typing import NDArray

from lyot.algorithms import propagation, repair
from lyot.compute import memory, threads
from lyot.compute.devices import NUMPY, Device
from lyot.references.prepare import PreparedRefs
from lyot.types import Array, Mask

MIN_BAD_FRACTION = 0.25
"""A moved pixel is bad where at least this share of it comes from bad pixels."""

MAX_LEARNED_PIXELS, MAX_LEARNED_NUMBERS, LEARNED_PER_FRAME = 20_000, 2**24, 4
"""Pixels that a prediction is learned on; of many frames fewer, but some for each of them."""
MAX_FILLED, MIN_FILLED = 2**20, 256
"""Values that are filled at once, and pixels at least."""


class Moved(NamedTuple):
    """References on the pixels of a science integration; bad pixels hold no information."""

    sci: Any  # (n_ref, n_y, n_x), float32
    variance: Any
    bad: Any  # True where a pixel comes from a bad one, or from outside the frame


def move_bad(refs: PreparedRefs, k: int, shift_yx: NDArray[np.float64], /) -> Mask:
    """Return what comes from bad pixels of a reference, or more than half a pixel from outside."""
    shape = refs.cube.frame_shape
    bad = np.zeros(shape, bool)
    for rows, n, d in zip((bad, bad.T), shape, shift_yx, strict=True):
        rows[: max(int(np.ceil(d - 0.5)), 0)] = True
        rows[max(int(np.floor(n + 0.5 + d)), 0) :] = True
    y, x = refs.bad_pixels[k]
    if y.size:
        bad.ravel()[_spread(y, x, shift_yx, shape)] = True
    return bad


def move_bad_there(bad: Any, shift_yx: Any, /) -> Any:
    """Do as `move_bad` for masks ``(n, n_y, n_x)`` on a device, all at once."""
    xp = array_namespace(bad, shift_yx)
    share = propagation.shift_variances(xp.astype(bad, xp.float32), shift_yx, outside=0.0)
    outside = share >= MIN_BAD_FRACTION - 1e-6
    for axis in (1, 2):
        n, shape = bad.shape[axis], (1, -1, 1) if axis == 1 else (1, 1, -1)
        to = xp.reshape(xp.arange(n, dtype=xp.float64, device=device_of(bad)), shape)
        d = xp.reshape(shift_yx[:, axis - 1], (-1, 1, 1))
        outside = outside | (to < xp.ceil(d - 0.5)) | (to >= xp.floor(n + 0.5 + d))
    return outside


def _spread(
    y: NDArray[np.intp], x: NDArray[np.intp], shift_yx: NDArray[np.float64], shape: tuple[int, int]
) -> NDArray[np.intp]:
    """Find the pixels that come from given ones by enough, by linear interpolation: flat places."""
    pixels = np.floor(shift_yx).astype(int)
    part = shift_yx - pixels
    along = [np.array([1 - p, p]) for p in part]
    weight = (along[0][:, None] * along[1]).astype(np.float32).ravel()
    to_y, to_x = y + pixels[0] + [[0], [0], [1], [1]], x + pixels[1] + [[0], [1], [0], [1]]
    inside = (to_y >= 0) & (to_y < shape[0]) & (to_x >= 0) & (to_x < shape[1])
    at = (to_y * shape[1] + to_x)[inside]
    share = np.zeros(shape[0] * shape[1], np.float32)
    np.add.at(share, at, np.repeat(weight, inside.sum(axis=1)))
    return at[share[at] >= MIN_BAD_FRACTION - 1e-6]


def learn_prediction(
    sci: Array, variance: Array, bad: Mask, weight: Array | None = None, /
) -> repair.CrossPrediction:
    """Fit how each reference follows from the others, where all are good and have weight."""
    n_ref = len(sci)
    good = ~bad.any(axis=0)
    fewest = LEARNED_PER_FRAME * n_ref
    if weight is not None and (good & (weight > 0)).sum() > fewest:
        good = good & (weight > 0)
    at = np.flatnonzero(good)
    n_learned = min(MAX_LEARNED_PIXELS, max(MAX_LEARNED_NUMBERS // n_ref, fewest))
    at = at[:: max(1, at.size // n_learned)]
    learned = [memory.empty((n_ref, at.size), array.dtype) for array in (sci, variance)]
    for out, array in zip(learned, (sci, variance), strict=True):
        for row, frame in zip(out, array, strict=True):
            row[:] = frame.reshape(-1)[at]
            memory.relieve()
    return repair.fit_cross_prediction(*learned)


def fill_moved(
    moved: Moved, prediction: repair.CrossPrediction, device: Device = NUMPY, /
) -> Moved:
    """Fill what is bad in some references from the others; NaN where all are bad.

    In NumPy it is filled in place.
    """
    xp, shape = array_namespace(moved.sci), moved.sci.shape
    sci, variance, bad = (xp.reshape(each, (shape[0], -1)) for each in moved)
    at = np.flatnonzero(device.get(xp.any(bad, axis=0)))
    if device.is_numpy:
        fill_columns(sci, variance, bad, at, prediction)
        return moved
    place = np.arange(bad.shape[1])  # of each pixel among them and those that are filled
    place[at] = place.size + np.arange(at.size)
    frames, errors, gaps = (device.columns(each, at) for each in (sci, variance, bad))
    filled = repair.fill_from_others(frames, errors, gaps, device.put(prediction))
    sci, variance = (
        device.columns(xp.concat([old, xp.astype(new, old.dtype)], axis=1), place)
        for old, new in zip((sci, variance), filled, strict=True)
    )
    return Moved(xp.reshape(sci, shape), xp.reshape(variance, shape), moved.bad)


def fill_columns(
    sci: Array,
    variance: Array,
    bad: Mask,
    at: NDArray[np.intp],
    prediction: repair.CrossPrediction,
    /,
) -> None:
    """Fill pixels of all references in place, `(n_ref, n_pix)`, a block of columns at a time."""
    step = max(MAX_FILLED // len(sci), MIN_FILLED)  # never by the number of threads or the memory

    def _fill(first: int) -> None:
        columns = at[first : first + step]
        frames, errors, gaps = (memory.columns(each, columns) for each in (sci, variance, bad))
        filled = repair.fill_from_others(frames, errors, gaps, prediction)
        for array, values in zip((sci, variance), filled, strict=True):
            memory.set_columns(array, columns, values)

    threads.map_ordered(_fill, range(0, len(at), step))
