"""Karhunen-Loeve modes of the references (Soummer, Pueyo and Larkin 2012, arXiv:1207.4197)."""

from __future__ import annotations

import numpy as np

from lyot.algorithms import klip
from lyot.subtraction.methods.base import Method, Operator
from lyot.types import Array


class Klip(Method):
    """The modes are the leading eigenvectors of the Gram matrix: ``W = l^(-1/2) V^T``."""

    citation = "Soummer, Pueyo and Larkin 2012, arXiv:1207.4197"
    has_kl_modes = True

    def compute_stack(self, grams: Array, _mode_grams: Array, n_modes: int, /) -> list[Operator]:
        """Decompose many small matrices in one call."""
        return decompose_stack(grams, n_modes)


def decompose_stack(grams: Array, n_modes: int, /) -> list[Operator]:
    """Decompose a stack of Gram matrices; modes that are rounding error are dropped."""
    values, vectors = np.linalg.eigh(grams)
    values, vectors = values[:, ::-1], vectors[:, :, ::-1]
    good = (values > klip.MIN_EIGENVALUE_RATIO * values[:, :1]) & (values > 0)
    root = np.divide(1.0, np.sqrt(np.where(good, values, 1.0)), where=good, out=0.0 * values)
    matrices = np.swapaxes(vectors, 1, 2)[:, :n_modes] * root[:, :n_modes, None]
    counts = good.sum(axis=1)
    return [
        Operator(matrix[:n], row[:n], len(row) - int(n))
        for matrix, row, n in zip(matrices, values, counts, strict=True)
    ]
