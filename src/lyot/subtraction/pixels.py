"""Pixels of targets and references as rows, and their cut to a zone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from lyot.algorithms.zones import Zone
from lyot.compute import devices, memory, threads
from lyot.files.aligned import AlignedFrames
from lyot.references.fill import fill_columns, learn_prediction
from lyot.types import Array

MAX_ROWS = 128
"""Frames whose pixels are gathered at once."""
CACHE_STRIDE_BYTES = 2**16


class Targets(NamedTuple):
    """Target pixels, their bad pixels and their variance, each of shape (n_t, n_pix)."""

    sci: Array
    bad: Array
    variance: Array

    def centered(self, at: Any, mean: Array) -> Array:
        """Return pixels less the mean of their row, zero where they are missing."""
        data = self.sci[:, at] - mean[:, None]
        missing = self.bad[:, at]
        return np.where(missing, 0.0, data) if missing.any() else data

    def rows(self, pick: slice | NDArray[np.intp]) -> Targets:
        """Return some of the targets."""
        return Targets(self.sci[pick], self.bad[pick], self.variance[pick])

    def part(self, at: Array) -> Targets:
        """Return some of the pixels of all targets, contiguous in memory."""
        return Targets(*(_columns(array, at) for array in self))


@dataclass(frozen=True, eq=False)
class RefPixels:
    """Filled references, or frames that a method made of them, and the references' variance."""

    sci: Any  # (n_frame, n_pix) on the device, finite but where `all_bad`
    variance: Any  # (n_ref, n_pix) likewise, of the references
    all_bad: NDArray[np.bool_]  # (n_pix,): True where every reference is bad
    pick: NDArray[np.intp] | None = None  # which of the frames are meant; None for all
    # How much of each reference is in each frame, (n_frame, n_ref); None where they are the same.
    component_weights: NDArray[np.float64] | None = None
    device: devices.Device = devices.NUMPY

    def __len__(self) -> int:
        return int(self.sci.shape[0]) if self.pick is None else len(self.pick)

    def on(self, device: devices.Device) -> RefPixels:
        """Return the same pixels and variances on a device."""
        if device is self.device:
            return self
        sci, variance = device.put(self.device.get((self.sci, self.variance)))
        return replace(self, sci=sci, variance=variance, device=device)

    @property
    def n_refs(self) -> int:
        """Number of references behind the frames."""
        return len(self) if self.component_weights is None else self.component_weights.shape[1]

    def of(self, pick: NDArray[np.intp]) -> RefPixels:
        """Return some of the frames; no pixel is copied."""
        return self if len(pick) == self.sci.shape[0] else replace(self, pick=pick)

    def part(self, at: Array) -> RefPixels:
        """Return some of the pixels of all frames, contiguous in memory."""
        # Contiguous because frames are then picked much quicker than from far apart rows.
        columns = _columns if self.device.is_numpy else self.device.columns
        sci, variance = (columns(array, at) for array in (self.sci, self.variance))
        return replace(self, sci=sci, variance=variance, all_bad=self.all_bad[at])

    def _part(self, array: Array, at: Any) -> Array:
        part = self.device.columns(array, at)
        return part if self.pick is None else devices.rows(part, self.pick)

    def at(self, at: Any) -> Array:
        """Return pixels, in NumPy."""
        return np.asarray(self.device.get(self._part(self.sci, at)))

    def centered(self, at: Any, mean: Array) -> Any:
        """Return pixels less the mean of their row, in memory that this thread uses again."""
        rows = self._part(self.sci, at)
        if not self.device.is_numpy:
            rows, all_bad = rows - self.device.put(mean)[:, None], self.all_bad[at]
            xp, gone = array_namespace(rows), self.device.put(all_bad)
            return xp.where(gone, 0.0, rows) if all_bad.any() else rows
        out = np.subtract(rows, mean[:, None], out=threads.workspace("rows", rows.shape))
        out[:, self.all_bad[at]] = 0.0
        return out

    def sums(self, at: Any, mean: Array) -> Array:
        """Return the sums of centered pixels of each frame, in NumPy."""
        rows = self.centered(at, mean)
        return np.asarray(self.device.get(array_namespace(rows).sum(rows, axis=1)))

    def variance_at(self, at: Any) -> Any:
        """Return variances of the references behind these frames, zero where all are bad."""
        every_row = self.pick is None or self.component_weights is not None
        columns = self.device.columns if every_row else self._part
        rows, all_bad = columns(self.variance, at), self.all_bad[at]
        if not self.device.is_numpy:
            xp, gone = array_namespace(rows), self.device.put(all_bad)
            return xp.where(gone, 0.0, rows) if all_bad.any() else rows
        if rows.strides[0] % CACHE_STRIDE_BYTES == 0:
            # Such rows, as those of 640 x 640 pixels are, get in each other's way in the
            # processor's cache, and a product reads them many times.
            rows = rows.copy()
        return np.where(all_bad, np.float32(0), rows) if all_bad.any() else rows

    def in_references(self, factors: Array) -> Array:
        """Turn factors of these frames ``(n, n_frame)`` into factors of the references."""
        if self.component_weights is None:
            return factors
        weights = self.component_weights
        return factors @ (weights if self.pick is None else weights[self.pick])

    @classmethod
    def from_frames(cls, frames: AlignedFrames) -> RefPixels:
        """Take one set of aligned references, and fill pixels that are bad in some of them."""
        if frames.all_bad is not None:
            xp, shape = array_namespace(frames.pixels), (frames.pixels.shape[0], -1)
            sci, variance = (xp.reshape(a, shape) for a in (frames.pixels, frames.variances))
            return cls(sci, variance, frames.all_bad.ravel(), device=frames.device)
        n_ref = len(frames.sci)
        sci, variance = frames.sci.reshape(n_ref, -1), frames.variance.reshape(n_ref, -1)
        if all(threads.map_ordered(_is_finite, sci)):
            return cls(sci, variance, np.zeros(sci.shape[1], bool))
        missing = memory.not_finite(sci)
        all_bad = np.asarray(missing.all(axis=0))
        at = np.flatnonzero(missing.any(axis=0) & ~all_bad)
        if at.size:
            prediction = learn_prediction(sci, variance, missing)
            sci, variance = sci.copy(), variance.copy()
            fill_columns(sci, variance, missing, at, prediction)
        return cls(sci, variance, all_bad)


@dataclass(frozen=True, eq=False)
class ZonePixels:
    """The pixels of a zone: those that count in its fit, or take its result."""

    where: Array | slice  # pixels of the frame; a slice of everything where the zone is the frame
    targets: Targets
    refs: RefPixels
    weight: Array  # (n_zone_pix,), in the fit; zero where there are no data
    mode_weight: Array  # when modes are made, likewise


def cut(targets: Targets, refs: RefPixels, zone: Zone, /) -> ZonePixels:
    """Cut targets and references to a zone."""
    weight = zone.weight.ravel()
    mode_weight = zone.mode_weight.ravel() if zone.mode_weight.size else weight
    used = (zone.share.ravel() > 0) | (weight > 0) | (mode_weight > 0)
    index: Array | slice = slice(None)
    if not used.all():
        index = np.flatnonzero(used)
        targets, refs = targets.part(index), refs.part(index)
    no_data = refs.all_bad | targets.bad.all(axis=0)
    fit_weight = np.where(no_data, 0.0, weight[index])
    if zone.mode_weight.size:
        mode_weight = np.where(refs.all_bad, 0.0, mode_weight[index])
    else:
        mode_weight = fit_weight
    return ZonePixels(index, targets, refs, fit_weight, mode_weight)


def _is_finite(pixels: Array) -> bool:
    """Whether all values are: their sum is."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(pixels.sum()))


def _columns(array: Array, at: Array) -> Array:
    """Some columns of an array, each row of the result contiguous."""
    out = memory.empty((len(array), len(at)), array.dtype)

    def _take(rows: slice) -> None:
        np.take(array[rows], at, axis=1, out=out[rows], mode="clip")

    step = max(min(-(-len(array) // threads.n_threads()), MAX_ROWS), 1)
    threads.map_ordered(_take, [slice(i, i + step) for i in range(0, len(array), step)])
    return out
