"""Data imputation: KL modes of all pixels, fitted at the pixels outside a disc (Ren 2023)."""

from __future__ import annotations

from collections.abc import Callable
from operator import call
from typing import Any

from lyot.algorithms import imputation, klip
from lyot.subtraction.methods.base import Method, Operator
from lyot.types import Array


class Imputation(Method):
    """Modes are made from all pixels of a zone and fitted where its weight is positive."""

    citation = "Ren 2023, arXiv:2308.16912"
    has_kl_modes = True
    modes_of_all_pixels = True
    # The modes change with the source outside the fit too, where its Gram matrix is not kept.
    follows_source = False

    def compute(self, gram: Array, mode_gram: Array, run: Callable[..., Any] = call, /) -> Operator:
        """Make the modes of all pixels orthonormal over those of the fit."""
        modes = run(klip.decompose, mode_gram)
        return Operator(imputation.anchored(modes, gram), modes.values, modes.n_dropped)
