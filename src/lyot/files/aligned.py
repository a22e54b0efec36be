"""Aligned references: what they are, and as a product read one science integration at a time."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lyot.compute import devices, threads
from lyot.errors import LyotError
from lyot.files.provenance import provenance_of, star_of
from lyot.files.star import StarPosition
from lyot.types import Mask


class Planes(Protocol):
    """Planes that can be asked for one or some at a time: an array is one."""

    def __getitem__(self, number: Any, /) -> Any:
        """Return one plane, or those of a slice."""

    def __len__(self) -> int:
        """Return their number."""


class Errors:
    """Square roots of variances, made when they are read."""

    def __init__(self, variance: NDArray[np.float32], /) -> None:
        self._variance = variance

    def __len__(self) -> int:
        return len(self._variance)

    def __getitem__(self, number: Any, /) -> NDArray[np.float32]:
        return np.sqrt(self._variance[number])


@dataclass(frozen=True, eq=False)
class AlignedFrames:
    """The references on the pixels of one science integration, where they were computed."""

    pixels: Any  # (n_ref, n_y, n_x) on the device
    variances: Any  # likewise, NaN as they are where every reference is bad
    dq: Planes  # of each reference; FLUX_ESTIMATED where it was filled from the others
    all_bad: Mask | None = None  # (n_y, n_x), where all are bad, if no other value is missing
    device: devices.Device = devices.NUMPY

    @cached_property
    def sci(self) -> NDArray[np.floating]:
        """The pixels in NumPy."""
        return np.asarray(self.device.get(self.pixels))

    @cached_property
    def variance(self) -> NDArray[np.float32]:
        """Their variances in NumPy."""
        return np.asarray(self.device.get(self.variances))


@dataclass(frozen=True, eq=False)
class ReferenceInfo:
    """Target, roll and time of each reference."""

    targets: tuple[str, ...]  # names of the stars that they show
    pa_y_deg: NDArray[np.float64]  # position angles of their y axes
    mjd: NDArray[np.float64]  # starts of their exposures [day]; NaN where not recorded

    @classmethod
    def of(cls, targets: Any, pa_y_deg: Any, mjd: Any, /) -> ReferenceInfo | None:
        """Collect what a stack or a product records; None where targets or rolls are missing."""
        if not len(targets) or pa_y_deg is None:
            return None
        times = np.full(len(targets), np.nan) if mjd is None else np.asarray(mjd, np.float64)
        rolls = np.asarray(pa_y_deg, dtype=np.float64)
        return cls(tuple(str(name) for name in targets), rolls, times)

    @classmethod
    def recorded(cls, steps: dict[str, Any], /) -> ReferenceInfo | None:
        """Return what the alignment recorded of each reference; None where it recorded nothing."""
        align = steps.get("align_psfs", {})
        return cls.of(align.get("ref_targets", ()), align.get("ref_pa_y_deg"), align.get("ref_mjd"))

    def show(self, target: str, /) -> NDArray[np.bool_]:
        """Return True for references of the star of this name; none shows a star without a name."""
        name = target.casefold()
        return np.array([bool(name) and each.casefold() == name for each in self.targets])


@dataclass(frozen=True, eq=False)
class AlignedArrays:
    """Aligned references in arrays, in memory or mapped from a file, as in a psfalign product."""

    sci: Any  # (n_ref, n_y, n_x) or (n_int, n_ref, n_y, n_x), as are err and dq
    err: Any
    dq: Any
    _: KW_ONLY
    star: StarPosition | None = None
    ref_info: ReferenceInfo | None = None
    name: str = ""
    history: dict[str, Any] = field(default_factory=dict)  # how they were made, by step
    dtype: DTypeLike = np.float32  # of the frames
    pick: NDArray[np.intp] | None = None  # which references are meant; None for all

    def __post_init__(self) -> None:
        n_axes = np.ndim(self.sci)
        if n_axes not in (3, 4):
            raise LyotError(
                f"Aligned references have {n_axes} axes; a psfalign product has 3 or 4."
            )

    @property
    def shared(self) -> bool:
        """Whether one set of references serves every integration."""
        return np.ndim(self.sci) == 3

    @classmethod
    def from_model(cls, model: Any, name: str, /) -> AlignedArrays:
        """Take the arrays of a psfalign model, with the star and the history that it records."""
        history = provenance_of(model).get("steps", {})
        known: dict[str, Any] = {"star": star_of(model), "history": history, "name": name}
        known["ref_info"] = ReferenceInfo.recorded(history)
        return cls(model.data, model.err, model.dq, **known)

    def check(self, n_int: int, name: str, /) -> None:
        """Refuse a product that is not of the exposure of this name and number of integrations."""
        if not self.shared and len(self.sci) != n_int:
            raise LyotError(
                f"The aligned references are for {len(self.sci)} integrations and {name} "
                f"has {n_int}; give the psfalign product of this exposure."
            )

    def without(self, excluded: NDArray[np.bool_], /) -> AlignedArrays:
        """Return the other references; nothing is copied until they are read."""
        if self.pick is not None:
            raise LyotError("References have been excluded from this exposure already.")
        pick = np.flatnonzero(~excluded)
        info = self.ref_info
        if info is not None:
            names = tuple(info.targets[k] for k in pick)
            info = ReferenceInfo(names, info.pa_y_deg[pick], info.mjd[pick])
        return replace(self, pick=pick, ref_info=info)

    def planes(self, integration: int, /) -> Any:
        """Return all references of one integration, excluded ones too; not read yet."""
        return self.sci if self.shared else self.sci[integration]

    def section(self, integration: int, rows: slice, columns: slice, /) -> NDArray[np.float64]:
        """Return part of one integration's references, NaN where all are bad; a copy."""
        part = np.array(self.planes(integration)[:, rows, columns], dtype=np.float64)
        return part if self.pick is None else part[self.pick]

    def frames(self, integration: int, /) -> AlignedFrames:
        """Return one integration's references, native; an error that is not finite is zero."""
        arrays = (self.sci, self.err, self.dq)
        sci, err, dq = (array if self.shared else array[integration] for array in arrays)
        sci, err = np.asarray(sci, dtype=self.dtype), np.asarray(err, dtype=np.float32)
        variance = np.empty_like(err)

        def _square(k: int) -> None:
            plane = np.square(err[k], out=variance[k])
            if not np.isfinite(plane.sum()):
                plane[~np.isfinite(plane)] = 0.0

        threads.map_ordered(_square, range(len(err)))
        if self.pick is None:
            return AlignedFrames(sci, variance, dq)
        return AlignedFrames(sci[self.pick], variance[self.pick], [dq[int(k)] for k in self.pick])
