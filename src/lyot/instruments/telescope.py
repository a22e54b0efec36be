"""Pupils and Lyot stops, on a grid of samples across the pupil."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

ARCSEC_PER_RADIAN = 206264.806247


class Pupil(Protocol):
    """The entrance pupil of a telescope."""

    @property
    def diameter_m(self) -> float:
        """Diameter that lambda/D refers to [m]."""
        ...

    @property
    def width_m(self) -> float:
        """Width of the grid on which the pupil is sampled [m]."""
        ...

    def __hash__(self) -> int: ...

    def amplitude(self, n: int, /) -> NDArray[np.float64]:
        """Return the amplitude transmission on an ``n x n`` grid over `width_m`, 0 to 1."""
        ...


class LyotStop(Hashable, Protocol):
    """A stop in the pupil behind a focal-plane mask."""

    def amplitude(self, pupil: Pupil, n: int, /) -> NDArray[np.float64]:
        """Return the amplitude transmission on the grid of the pupil, 0 to 1."""
        ...


@dataclass(frozen=True)
class OpenStop:
    """No stop."""

    def amplitude(self, pupil: Pupil, n: int, /) -> NDArray[np.float64]:
        """Return 1 everywhere."""
        del pupil
        return np.ones((n, n))


OPEN = OpenStop()
