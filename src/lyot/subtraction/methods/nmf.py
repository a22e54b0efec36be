"""Non-negative components of the references (Ren et al. 2018, arXiv:1712.10317)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms import nmf
from lyot.compute.devices import NUMPY
from lyot.subtraction.methods.base import Method, Operator
from lyot.subtraction.methods.klip import decompose_stack
from lyot.subtraction.pixels import RefPixels
from lyot.types import Array


class Nmf(Method):
    """Frames are non-negative components; each target takes those with positive coefficients."""

    citation = "Ren et al. 2018, arXiv:1712.10317"
    truncations_nest = False
    takes_choice = False
    selects = True
    # References with a source give other components, which no small update of the old ones reaches.
    follows_source = False

    def init(self, refs: RefPixels, n_modes: int, /) -> RefPixels:
        """Factorise the references, starting at the positive part of their leading directions."""
        refs = refs.on(NUMPY)
        n = max(min(n_modes, len(refs.sci)), 1)
        weight = (~refs.all_bad).astype(np.float64)
        pixels = np.where(refs.all_bad, 0.0, refs.sci).astype(np.float64)
        _, vectors = np.linalg.eigh(pixels @ pixels.T)
        leading = vectors[:, ::-1][:, :n]
        sign = np.where((np.maximum(leading, 0) ** 2).sum(axis=0) >= 0.5, 1.0, -1.0)
        start = np.maximum(leading * sign, 0.0) + 1e-3
        components = nmf.factorize(pixels, weight, start)
        scale = np.sqrt(weight.sum())  # so that float32 holds them well
        return RefPixels(
            (scale * components.pixels).astype(np.float32),
            refs.variance,
            refs.all_bad,
            component_weights=scale * np.linalg.pinv(components.factors),
        )

    def select(self, gram: Array, cross: Array, /) -> NDArray[np.bool_]:
        """Return the components of the non-negative least-squares fit."""
        return nmf.non_negative(gram, cross)

    def compute_stack(self, grams: Array, _mode_grams: Array, n_modes: int, /) -> list[Operator]:
        """Solve unconstrained: with these components alone that is the non-negative fit."""
        return decompose_stack(grams, n_modes)
