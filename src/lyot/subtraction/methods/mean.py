"""Classical subtraction: the mean of the references, scaled to the target."""

from __future__ import annotations

from collections.abc import Callable
from operator import call
from typing import Any

from lyot.algorithms import klip
from lyot.subtraction.methods.base import Method, Operator
from lyot.types import Array


class Mean(Method):
    """One mode: the mean of references that were brought to unit norm."""

    def compute(self, gram: Array, mode_gram: Array, run: Callable[..., Any] = call, /) -> Operator:
        """Return the one mode; the eigenvalues are for the record."""
        return super().compute(gram, mode_gram, run)._replace(matrix=klip.mean_matrix(gram))
