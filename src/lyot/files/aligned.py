"""Aligned references: what they are, and as a product read one science integration at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lyot.errors import LyotError
from lyot.files.star import StarPosition


class Planes(Protocol):
    """Planes that can be asked for one at a time: an array is one."""

    def __getitem__(self, number: int, /) -> Any:
        """Return one plane."""

    def __len__(self) -> int:
        """Return their number."""


@dataclass(frozen=True, eq=False)
class AlignedFrames:
    """The references on the pixels of one science integration.

    Attributes
    ----------
    sci, variance : ndarray, shape (n_ref, n_y, n_x)
        References and their variance; NaN where every reference is bad.
    dq : sequence of ndarray, shape (n_y, n_x), uint32
        Flags of each reference, moved along; FLUX_ESTIMATED where a pixel was filled from the
        other references. Made when they are asked for.
    """

    sci: NDArray[np.floating]
    variance: NDArray[np.float32]
    dq: Planes

    @property
    def err(self) -> Planes:
        """The errors, made a plane at a time."""
        return _Roots(self.variance)


class _Roots:
    """Square roots of planes, made when they are asked for."""

    def __init__(self, planes: NDArray[np.float32]) -> None:
        self._planes = planes

    def __getitem__(self, number: int, /) -> NDArray[np.float32]:
        return np.sqrt(self._planes[number])

    def __len__(self) -> int:
        return len(self._planes)


@dataclass(frozen=True, eq=False)
class ReferenceInfo:
    """What is known of each reference beside its pixels.

    Attributes
    ----------
    targets : tuple of str
        Which star it shows.
    pa_y_deg : ndarray, shape (n_ref,)
        Position angle of its y axis [degree].
    mjd : ndarray, shape (n_ref,)
        Start of its exposure [day]; NaN where it is not known.
    """

    targets: tuple[str, ...]
    pa_y_deg: NDArray[np.float64]
    mjd: NDArray[np.float64]

    @classmethod
    def of(cls, targets: Any, pa_y_deg: Any, mjd: Any, /) -> ReferenceInfo | None:
        """Put together what a stack or a product records.

        Parameters
        ----------
        targets : sequence of str
            Which star each reference shows.
        pa_y_deg : ndarray, shape (n_ref,), or None
            Position angle of its y axis [degree].
        mjd : ndarray, shape (n_ref,), or None
            Start of its exposure [day].

        Returns
        -------
        ReferenceInfo or None
            None where the targets or the rolls are not recorded.
        """
        if not len(targets) or pa_y_deg is None:
            return None
        times = np.full(len(targets), np.nan) if mjd is None else np.asarray(mjd, np.float64)
        rolls = np.asarray(pa_y_deg, dtype=np.float64)
        return cls(tuple(str(name) for name in targets), rolls, times)

    def show(self, target: str, /) -> NDArray[np.bool_]:
        """Tell which references show a star.

        Parameters
        ----------
        target : str
            Its name; no reference is of an unnamed one.

        Returns
        -------
        ndarray of bool, shape (n_ref,)
            True where the names agree, small or capital.
        """
        name = target.casefold()
        return np.array([bool(name) and each.casefold() == name for each in self.targets])


class AlignedRefs(Protocol):
    """Anything that gives the references of each science integration, in order."""

    @property
    def shared(self) -> bool:
        """Whether one set of references serves every integration."""

    @property
    def star(self) -> StarPosition | None:
        """The star on the science frames, where it is known."""

    @property
    def ref_info(self) -> ReferenceInfo | None:
        """What is known of each reference, where it is."""

    def frames(self, integration: int, /) -> AlignedFrames:
        """Return the references on the pixels of one science integration.

        Parameters
        ----------
        integration : int
            Index of the integration.

        Returns
        -------
        AlignedFrames
            The references.
        """


class AlignedArrays:
    """Aligned references in arrays, in memory or mapped from a file.

    Parameters
    ----------
    sci, err, dq : array, shape (n_ref, n_y, n_x) or (n_int, n_ref, n_y, n_x)
        The psfalign product.
    star : StarPosition, optional
        The star on the science frames.
    ref_info : ReferenceInfo, optional
        What is known of each reference.
    dtype : dtype, optional
        Type of the frames: float32, as products have it, or float64.

    Raises
    ------
    LyotError
        If the arrays have another number of axes.
    """

    def __init__(
        self,
        sci: Any,
        err: Any,
        dq: Any,
        /,
        *,
        star: StarPosition | None = None,
        ref_info: ReferenceInfo | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        if np.ndim(sci) not in (3, 4):
            raise LyotError(
                f"Aligned references have {np.ndim(sci)} axes; a psfalign product has 3 or 4."
            )
        self._arrays = (sci, err, dq)
        self._star = star
        self._facts = ref_info
        self._dtype = np.dtype(dtype)

    @property
    def shared(self) -> bool:
        """Whether one set of references serves every integration."""
        return np.ndim(self._arrays[0]) == 3

    @property
    def star(self) -> StarPosition | None:
        """The star on the science frames, where it is known."""
        return self._star

    @property
    def ref_info(self) -> ReferenceInfo | None:
        """What is known of each reference, where it is."""
        return self._facts

    def section(self, integration: int, rows: slice, columns: slice, /) -> NDArray[np.float64]:
        """Return part of the references on the pixels of one science integration.

        Parameters
        ----------
        integration : int
            Index of the integration.
        rows, columns : slice
            The part.

        Returns
        -------
        ndarray, shape (n_ref, n_rows, n_columns)
            Native float64; NaN where every reference is bad.
        """
        planes = self._arrays[0] if self.shared else self._arrays[0][integration]
        return np.asarray(planes[:, rows, columns], dtype=np.float64)

    def check(self, n_int: int, name: str, /) -> None:
        """Refuse a product that does not belong to a science exposure.

        Parameters
        ----------
        n_int : int
            Number of integrations of the exposure.
        name : str
            Its name, for the message.

        Raises
        ------
        LyotError
            If there is not one set of references for each integration.
        """
        if not self.shared and len(self._arrays[0]) != n_int:
            raise LyotError(
                f"The aligned references are for {len(self._arrays[0])} integrations and {name} "
                f"has {n_int}; give the psfalign product of this exposure."
            )

    def frames(self, integration: int, /) -> AlignedFrames:
        """Return the references on the pixels of one science integration.

        Parameters
        ----------
        integration : int
            Index of the integration.

        Returns
        -------
        AlignedFrames
            Native; an error that is not finite counts as zero where SCI is finite.
        """
        pick: Any = slice(None) if self.shared else integration
        sci = np.asarray(self._arrays[0][pick], dtype=self._dtype)
        err = np.asarray(self._arrays[1][pick], dtype=np.float32)
        variance = np.square(err)
        if not np.isfinite(variance.sum()):
            variance[~np.isfinite(variance)] = 0.0
        return AlignedFrames(sci, variance, self._arrays[2][pick])


class SomeRefs:
    """Some of the aligned references.

    Parameters
    ----------
    aligned : AlignedArrays
        All.
    pick : ndarray of int
        Which of them.
    """

    def __init__(self, aligned: AlignedArrays, pick: NDArray[np.intp], /) -> None:
        self._aligned = aligned
        self._pick = pick

    @property
    def shared(self) -> bool:
        """Whether one set of references serves every integration."""
        return self._aligned.shared

    @property
    def star(self) -> StarPosition | None:
        """The star on the science frames, where it is known."""
        return self._aligned.star

    @property
    def ref_info(self) -> ReferenceInfo | None:
        """What is known of each reference, where it is."""
        all_, pick = self._aligned.ref_info, self._pick
        if all_ is None:
            return None
        names = tuple(all_.targets[k] for k in pick)
        return ReferenceInfo(names, all_.pa_y_deg[pick], all_.mjd[pick])

    def section(self, integration: int, rows: slice, columns: slice, /) -> NDArray[np.float64]:
        """Return part of the references on the pixels of one science integration.

        Parameters
        ----------
        integration : int
            Index of the integration.
        rows, columns : slice
            The part.

        Returns
        -------
        ndarray, shape (n_ref, n_rows, n_columns)
            As from `AlignedArrays.section`.
        """
        return self._aligned.section(integration, rows, columns)[self._pick]

    def frames(self, integration: int, /) -> AlignedFrames:
        """Return the references on the pixels of one science integration.

        Parameters
        ----------
        integration : int
            Index of the integration.

        Returns
        -------
        AlignedFrames
            Native float32.
        """
        frames, pick = self._aligned.frames(integration), self._pick
        return AlignedFrames(
            frames.sci[pick], frames.variance[pick], [frames.dq[int(k)] for k in pick]
        )
