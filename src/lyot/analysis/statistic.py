"""The statistic that contrast, completeness, detection and companions share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lyot.algorithms.statistics import critical_t, tail_probability
from lyot.parameters import StatisticParameters
from lyot.types import Array

WHITENED, MATCHED, APERTURE = "whitened", "matched", "aperture"
MIN_POSITIONS = 4
"""Independent positions at a separation, the tested one included, below which none is tested."""
MIN_CHANCE = 1e-6
"""Chance below which no number is given: nobody has seen the tail of the noise that far out."""


@dataclass(frozen=True, kw_only=True)
class Statistic(StatisticParameters):
    r"""How a flux is measured, and when it stands out from the noise at its separation.

    One position of n is compared with the m others by
    :math:`t = (F - \bar F)\,/\,(s \sqrt{1 + 1/m})`, the S/N of this package. For Gaussian noise
    it follows Student's distribution with m - 1 degrees of freedom, m = n - 1 (Mawet et al. 2014,
    doi:10.1088/0004-637X/792/2/97); VIP and pyKLIP print limits for m = n. Residual speckles have
    the heavier tail of Laplacian noise (Bonse et al. 2023, doi:10.3847/1538-3881/acc93c).

    Raises
    ------
    LyotError
        If a value is not allowed.

    Examples
    --------
    >>> statistic = Statistic(fpf=1e-3)
    >>> round(statistic.threshold(12), 3)
    4.144
    >>> round(statistic.fpf_of(statistic.threshold(12), 12), 6)
    0.001
    """

    def _n_others(self, n: int) -> int:
        return int(n) - 1 if self.others == "n-1" else int(n)

    def threshold(self, n: int, /) -> float:
        """Return the t of a detection among n positions, the tested one included; NaN below 3."""
        return critical_t(self._n_others(n), self.fpf, distribution=self.noise)

    def tau(self, n: int, /) -> float:
        """Return the threshold as a factor on the standard deviation of the other positions."""
        return self.threshold(n) * float(self.spread(n))

    def spread(self, n: Array | int, /) -> Array:
        """Return the factor from the standard deviation of the others to that of a difference."""
        m = np.asarray(n) - 1 if self.others == "n-1" else np.asarray(n)
        return np.sqrt(1.0 + 1.0 / m)

    def fpf_of(self, t_value: float, n: int, /) -> float:
        """Return the probability that noise alone gives this t or more among n positions."""
        return tail_probability(t_value, self._n_others(n), distribution=self.noise)

    def thresholds(self, n: Array, /) -> Array:
        """Return `threshold` for each number of positions; NaN below `MIN_POSITIONS`."""
        n = np.maximum(n, 0)
        of_number = np.full(int(n.max(initial=0)) + 1, np.nan)
        for value in np.flatnonzero(np.bincount(n.ravel())):
            if value >= MIN_POSITIONS:
                of_number[value] = self.threshold(int(value))
        return np.asarray(of_number[n])

    def taus(self, n: Array, /) -> Array:
        """Return `tau` for each number of positions; NaN below `MIN_POSITIONS`."""
        return np.asarray(self.thresholds(n) * self.spread(np.maximum(n, MIN_POSITIONS)))


FIVE_SIGMA = Statistic()
"""Of Gaussian noise: the default of every analysis."""


def chance_text(value: float, /) -> str:
    """Write a chance, or an expected number of chance events: "< 1e-6" where it is smaller."""
    if np.isnan(value):
        return ""
    return "< 1e-6" if value <= MIN_CHANCE else f"{value:.1e}"


def state_chances(table: Any, /, *names: str) -> None:
    """Give no number below `MIN_CHANCE` in columns of a table, and say so in their description."""
    for name in names:
        table[name] = np.maximum(table[name], MIN_CHANCE)
        table[name].info.description = f"{MIN_CHANCE:g} stands for less"
