"""Data imputation: KL modes of all pixels, fitted at the pixels outside a disc (Ren 2023)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lyot.algorithms import imputation, klip
from lyot.subtraction.methods.base import Method, Operator
from lyot.types import Array


class Imputation(Method):
    """Modes are made from all pixels of a zone and fitted where its weight is positive."""

    has_kl_modes = True
    modes_of_all_pixels = True
    # The modes change with the source outside the fit too, where its Gram matrix is not kept.
    follows_source = False

    def compute(
        self, grams: Sequence[Array], mode_grams: Sequence[Array], run: Callable[..., Any], /
    ) -> list[Operator]:
        """Make the modes of all pixels orthonormal over those of the fit."""
        decomposed: dict[int, klip.Modes] = {}
        operators = []
        for gram, mode_gram in zip(grams, mode_grams, strict=True):
            if id(mode_gram) not in decomposed:
                decomposed[id(mode_gram)] = run(klip.decompose, mode_gram)
            modes = decomposed[id(mode_gram)]
            matrix = imputation.anchored(modes, gram)
            operators.append(Operator(matrix, modes.values, modes.n_dropped))
        return operators
