"""What a method of subtraction is."""

from __future__ import annotations

from collections.abc import Callable
from operator import call
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms import klip
from lyot.subtraction.pixels import RefPixels
from lyot.types import Array


class Operator(NamedTuple):
    """The linear operator from data to coefficients, for every number of modes.

    Modes are orthonormal over the pixels of the fit; with K of them the coefficients of targets of
    products B are ``B W_K^T W_K``, W_K the first K rows.
    """

    matrix: Array  # W, (n_kept, n_ref)
    values: Array  # eigenvalues of the Gram matrix, largest first
    n_dropped: int  # number of modes that were dropped as rounding error

    def truncated(self, n_modes: int) -> Operator:
        """Return the operator of the first modes."""
        return self._replace(matrix=self.matrix[:n_modes])


class SourceFrames(NamedTuple):
    """Frames of a fit at some pixels, and what a source in the references adds per unit flux."""

    frames: Array
    added: Array


class Method:
    """A way to model the star by its references; one subclass a file, one row of the table each.

    The two parts are those of a linear solver: `init` does what depends on the references alone,
    `compute` turns a Gram matrix into a linear operator. A subclass overrides what differs from
    Karhunen-Loeve modes of the references.

    Examples
    --------
    A method whose one mode is the first reference, of unit norm:

    >>> import numpy as np
    >>> from lyot.subtraction.methods import Method, Operator
    >>> class First(Method):
    ...     def compute(self, gram, *_):
    ...         return Operator(np.eye(1, len(gram)) / np.sqrt(gram[0, 0]), gram[:1, 0], 0)
    >>> First().compute(np.diag([4.0, 1.0])).matrix.tolist()
    [[0.5, 0.0]]
    """

    citation: ClassVar[str] = ""
    """The paper of the method."""

    truncations_nest: ClassVar[bool] = True
    """Whether K modes are the first K of more: else each number of modes is a run of its own."""

    takes_choice: ClassVar[bool] = True
    """Whether references may be chosen for each target."""

    selects: ClassVar[bool] = False
    """Whether `select` chooses frames for each target, which then has an operator of its own."""

    has_kl_modes: ClassVar[bool] = False
    """Whether the scatter of the references about their KL modes can be its error."""

    modes_of_all_pixels: ClassVar[bool] = False
    """Whether modes are made from all pixels of a zone, those outside its fit too."""

    follows_source: ClassVar[bool] = True
    """Whether a source that the references hold is followed by the update of the Gram matrix."""

    def init(self, refs: RefPixels, n_modes: int, /) -> RefPixels:
        """Return the frames that a model is made of: the references, or frames made of them.

        The references may lie on a device: `RefPixels.on` moves them.
        """
        del n_modes
        return refs

    def select(self, gram: Array, cross: Array, /) -> NDArray[np.bool_]:
        """Return which frames serve a target, by its Gram matrix and products with the frames."""
        del gram
        return np.ones(len(cross), bool)

    def compute(
        self, gram: Array, _mode_gram: Array, run: Callable[..., Any] = call, /
    ) -> Operator:
        """Return the operator of a Gram matrix; `run` calls a kernel on the device."""
        modes = run(klip.decompose, gram)
        return Operator(klip.to_modes(modes), modes.values, modes.n_dropped)

    def compute_stack(self, grams: Array, mode_grams: Array, _n_modes: int, /) -> list[Operator]:
        """Return operators, up to `n_modes`, of a stack of small matrices ``(n, n_ref, n_ref)``."""
        return [self.compute(*each) for each in zip(grams, mode_grams, strict=True)]

    def with_source(
        self, frames: RefPixels, at: Array, refs: Array, sources: Array, flux: float, /
    ) -> SourceFrames:
        """Return the frames at some pixels, and how sources ``(n_ref, n_at)`` change them."""
        del frames, at, flux
        return SourceFrames(refs, sources)
