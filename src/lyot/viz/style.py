"""What figures and the report share: colors, the stretch of images, words for modes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lyot.algorithms.repair import MAD_TO_SIGMA
from lyot.types import Array

SEQUENTIAL = "inferno"
GRAY = "#8a94a3"
"""For lines that stand back; visible on a light and on a dark ground."""
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", GRAY)
"""Distinguishable with any color vision (Okabe and Ito 2008), on any ground."""


class Stretch(NamedTuple):
    """Values drawn black and white, and the width within which the asinh between is linear."""

    low: float
    high: float
    soft: float


def stretch_of(data: Array, /) -> Stretch:
    """Return a stretch for a subtracted image: linear within three times the noise."""
    finite = data[np.isfinite(data)]
    if finite.size == 0:
        return Stretch(0.0, 1.0, 1.0)
    center = float(np.median(finite))
    sigma = MAD_TO_SIGMA * float(np.median(np.abs(finite - center))) or 1.0
    top = max(float(np.percentile(finite, 99.8)), center + 5 * sigma)
    return Stretch(center - 5 * sigma, top, 3 * sigma)


def modes_label(n_used: int, n_requested: int, /) -> str:
    """Return the number of modes that were used, and the requested one where that differs."""
    used = f"{n_used} mode" if n_used == 1 else f"{n_used} modes"
    return used if n_used == n_requested else f"{used} ({n_requested} requested)"
