"""Classical subtraction: the mean of the references, scaled to the target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lyot.algorithms import klip
from lyot.subtraction.methods.base import Method, Operator
from lyot.types import Array


class Mean(Method):
    """One mode: the mean of references that were brought to unit norm."""

    def compute(
        self, grams: Sequence[Array], _mode_grams: Sequence[Array], run: Callable[..., Any], /
    ) -> list[Operator]:
        """Return the one mode; the eigenvalues are for the record."""
        operators = []
        for gram in grams:
            modes = run(klip.decompose, gram)
            operators.append(Operator(klip.mean_matrix(gram), modes.values, modes.n_dropped))
        return operators

    def matrix(self, gram: Array, /) -> Array:
        """Return the matrix of one operator."""
        return np.asarray(klip.mean_matrix(gram))
