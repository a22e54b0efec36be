"""Flags of references: held where there are some, and moved along with their images."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.compute import memory
from lyot.compute.devices import Device
from lyot.instruments import Instrument
from lyot.types import Mask


class Flagged(NamedTuple):
    """The pixels of a frame that have flags: flat places, and their flags."""

    at: NDArray[np.intp]
    dq: NDArray[np.uint32]


class Flags:
    """Flags of frames ``(n, n_y, n_x)``, of which the pixels that have some are held."""

    def __init__(self, dq: NDArray[np.uint32], /) -> None:
        self.frame_shape = dq.shape[1:]
        counts = [np.count_nonzero(plane) for plane in dq]
        self._ends = np.cumsum([0, *counts])
        self._at = memory.empty((int(self._ends[-1]),), np.int32)
        self._dq = memory.empty(self._at.shape, np.uint32)
        for k, plane in enumerate(dq):
            part = self._part(k)
            self._at[part] = at = np.flatnonzero(plane)
            self._dq[part] = plane.ravel()[at]
            memory.relieve()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, k: int, /) -> Flagged:
        part = self._part(k)
        return Flagged(self._at[part].astype(np.intp), self._dq[part])

    def _part(self, k: int) -> slice:
        return slice(int(self._ends[k]), int(self._ends[k + 1]))


class PlacesThere:
    """Flat places in the planes of a mask on a device, found when they are asked for."""

    def __init__(self, mask: Any, device: Device, /) -> None:
        self._mask, self._device = mask, device

    def __getitem__(self, k: int, /) -> NDArray[np.intp]:
        return np.flatnonzero(self._device.get(self._mask[k, ...]))


class MovedFlags:
    """Flags of references, moved by whole pixels, what was filled marked; made when read."""

    def __init__(
        self,
        flags: Flags,
        shift_yx: NDArray[np.float64],
        bad: Mask | PlacesThere,
        all_bad: Mask,
        instrument: Instrument,
        /,
    ) -> None:
        self._flags, self._shift_yx = flags, shift_yx
        self._bad: PlacesThere | list[NDArray[np.intp]] = (
            bad if isinstance(bad, PlacesThere) else [np.flatnonzero(plane) for plane in bad]
        )
        self._all_bad = np.flatnonzero(all_bad)
        self._do_not_use = np.uint32(instrument.flag_value("DO_NOT_USE"))
        self._estimated = np.uint32(instrument.flag_value("FLUX_ESTIMATED"))

    def __len__(self) -> int:
        return len(self._flags)

    def __getitem__(self, number: int | slice, /) -> NDArray[np.uint32]:
        frames = range(len(self))[number]
        numbers = (frames,) if isinstance(frames, int) else frames
        n_y, n_x = self._flags.frame_shape
        out = np.zeros((len(numbers), n_y, n_x), np.uint32)
        for k, flat in zip(numbers, out.reshape(len(out), -1), strict=True):
            d_y, d_x = (round(float(s)) for s in self._shift_yx[k])
            (y, x), values = np.divmod(self._flags[k].at, n_x), self._flags[k].dq
            flat[(y + d_y) % n_y * n_x + (x + d_x) % n_x] = values
            bad = self._bad[k]
            flat[bad] = (flat[bad] & ~self._do_not_use) | self._estimated
            flat[self._all_bad] |= self._do_not_use
        return out[0] if isinstance(frames, int) else out
