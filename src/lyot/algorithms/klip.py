r"""Karhunen-Loeve image projection from the Gram matrix of the references.

The pixels are touched twice: once to form :math:`G = R\,w\,R^T` and :math:`B = T\,w\,R^T`, once
to apply what follows from them. Between lies algebra on ``n_ref x n_ref``:
:math:`G = V\,\mathrm{diag}(l)\,V^T`, the modes :math:`Z_k = l_k^{-1/2} V_k^T R`, and the
residual :math:`T - (T\,w\,Z^T) Z` with as many modes as are asked for (Soummer, Pueyo and
Larkin 2012, doi:10.1088/2041-8205/755/2/L28, arXiv:1207.4197).

The kernels take blocks of pixels, so a caller can sum the products of many blocks in a fixed
order. All sums are float64: a float32 Gram matrix loses the faint modes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from array_api_compat import array_namespace, device

MIN_EIGENVALUE_RATIO = 1e-12
"""Modes whose eigenvalue is below this fraction of the largest are dropped."""


class Products(NamedTuple):
    """Inner products over a block of centered pixels, to be added over blocks."""

    gram: Any  # (n_ref, n_ref): (R w) R^T
    cross: Any  # (n_t, n_ref): (T w) R^T over the good pixels of each target
    ref_sum: Any  # (n_ref,): R w


class Centered(NamedTuple):
    """A Gram matrix ``(n_ref, n_ref)`` about the means ``(n_ref,)`` over the pixels used."""

    gram: Any
    mean: Any


class Modes(NamedTuple):
    """Eigenvalues ``(n_kept,)`` and eigenvectors of a Gram matrix, largest first."""

    values: Any
    vectors: Any  # (n_ref, n_kept), one in each column
    n_dropped: int  # eigenvalues below the floor


def block_products(targets: Any, refs: Any, root_weight: Any, /) -> Products:
    """Form the inner products of a block of pixels, to be added over blocks.

    Parameters
    ----------
    targets : array, shape (n_t, n_pix), float64
        Targets times `root_weight`, centered on their weighted means, zero where they are missing.
    refs : array, shape (n_ref, n_pix), float64
        References times `root_weight`, centered nearly: `recenter` takes off what is left.
    root_weight : array, shape (n_pix,)
        Square root of the weight of the fit.

    Returns
    -------
    Products

    Examples
    --------
    >>> import numpy as np
    >>> products = block_products(np.ones((1, 4)), np.eye(2, 4), np.ones(4))
    >>> products.cross
    array([[1., 1.]])
    """
    xp = array_namespace(targets, refs, root_weight)
    turned = xp.matrix_transpose(refs)
    return Products(
        xp.matmul(refs, turned), xp.matmul(targets, turned), xp.matmul(refs, root_weight)
    )


def recenter(gram: Any, ref_sum: Any, weight_sum: float, /) -> Centered:
    r"""Center a Gram matrix of nearly centered references on their exact means.

    With :math:`\delta = \sum w R / S` it is :math:`G - S\,\delta\,\delta^T`. This costs the faint
    modes nothing where the pedestal has been taken off the pixels before.
    """
    mean = ref_sum / weight_sum
    return Centered(gram - weight_sum * mean[:, None] * mean[None, :], mean)


def leave_out(gram: Any, refs_missing: Any, weight_missing: Any, weight_sum: float, /) -> Centered:
    r"""Take ``n_missing`` pixels out of a Gram matrix that was centered with them.

    With :math:`u = -\sum_M w R` over the missing pixels M, the Gram matrix of the remaining
    pixels about their own mean is :math:`G - \sum_M w R R^T - u u^T / S`; S is `weight_sum` of the
    remaining pixels, infinity where no mean was subtracted.
    """
    xp = array_namespace(gram, refs_missing)
    weighted = refs_missing * weight_missing[None, :]
    u = -xp.sum(weighted, axis=1)
    offset = u / weight_sum
    reduced = gram - xp.matmul(weighted, xp.matrix_transpose(refs_missing))
    return Centered(reduced - u[:, None] * offset[None, :], offset)


def decompose(gram: Any, /) -> Modes:
    """Decompose a Gram matrix and drop the modes that are rounding error.

    Parameters
    ----------
    gram : array, shape (n_ref, n_ref), float64
        Symmetric, positive semi-definite.

    Returns
    -------
    Modes
        Largest eigenvalue first; none where the matrix is zero.

    Notes
    -----
    Against a singular value decomposition of the pixels the residual differs by 1e-6 at
    ``l_k / l_1 = 1e-10`` and by 7e-2 at 1e-14: hence the floor of 1e-12.

    Examples
    --------
    >>> import numpy as np
    >>> decompose(np.diag([1.0, 4.0, 0.0])).values
    array([4., 1.])
    """
    xp = array_namespace(gram)
    values, vectors = xp.linalg.eigh(gram)
    values, vectors = xp.flip(values, axis=0), xp.flip(vectors, axis=1)
    n_ref = int(gram.shape[0])
    largest = float(values[0])
    kept = int(xp.sum(xp.astype(values > MIN_EIGENVALUE_RATIO * largest, xp.int64)))
    kept = kept if largest > 0.0 else 0
    return Modes(values[:kept], vectors[:, :kept], n_ref - kept)


def to_modes(modes: Modes, /) -> Any:
    """Return W ``(n_kept, n_ref)``, rows ``l_k^(-1/2) V_k^T``: ``W R`` are orthonormal modes."""
    xp = array_namespace(modes.values, modes.vectors)
    return xp.matrix_transpose(modes.vectors) / xp.sqrt(modes.values)[:, None]


def mean_matrix(gram: Any, /) -> Any:
    r"""Return the matrix of the classical subtraction: one mode, the mean of equal references.

    Each reference is brought to unit norm, and their mean is scaled to the target by least
    squares: with :math:`u_k = G_{kk}^{-1/2}` the mode is :math:`u R / \sqrt{u G u}`. The matrix,
    ``(1, n_ref)``, takes the place of `to_modes`; it has no row where all references are zero.
    """
    xp = array_namespace(gram)
    size = xp.linalg.diagonal(gram)
    u = xp.where(size > 0, 1.0 / xp.sqrt(xp.where(size > 0, size, 1.0)), 0.0)
    norm = float(xp.sum(u * xp.matmul(gram, u)))
    if not norm > 0.0:
        return xp.zeros((0, int(gram.shape[0])), dtype=xp.float64, device=device(gram))
    return u[None, :] / norm**0.5


def coefficients(cross: Any, mode_matrix: Any, /, *, n_modes: int) -> Any:
    r"""Return the factor of each reference in the model of each target.

    Parameters
    ----------
    cross : array, shape (n_t, n_ref)
        ``(T w) R^T``.
    mode_matrix : array, shape (n_kept, n_ref)
        From `to_modes`.
    n_modes : int
        Number of modes K; more than there are means all.

    Returns
    -------
    array, shape (n_t, n_ref)
        :math:`C_K = B V_K\,\mathrm{diag}(1/l_K)\,V_K^T`; the model is ``C_K R``.

    Examples
    --------
    With all modes the coefficients are those of least squares:

    >>> import numpy as np
    >>> gram, cross = np.diag([1.0, 4.0]), np.array([[3.0, 8.0]])
    >>> coefficients(cross, to_modes(decompose(gram)), n_modes=2).round(12).tolist()
    [[3.0, 2.0]]
    """
    xp = array_namespace(cross, mode_matrix)
    w = mode_matrix[:n_modes, :]
    return xp.matmul(xp.matmul(cross, xp.matrix_transpose(w)), w)


def residual(targets: Any, refs: Any, coefs: Any, level: Any, /) -> Any:
    """Subtract the model from a block of pixels.

    Parameters
    ----------
    targets : array, shape (n_t, n_pix)
        Centered targets; NaN stays where it is.
    refs : array, shape (n_ref, n_pix)
        Centered references, finite.
    coefs : array, shape (n_t, n_ref)
        From `coefficients`.
    level : array, shape (n_t,)
        Constant that is added to each residual.

    Returns
    -------
    array, shape (n_t, n_pix)
        ``T - C R + level``; NaN where the target is NaN and nowhere else.

    Examples
    --------
    >>> import numpy as np
    >>> residual(np.array([[3.0, np.nan]]), np.ones((1, 2)), np.array([[2.0]]), np.zeros(1))
    array([[ 1., nan]])
    """
    xp = array_namespace(targets, refs, coefs)
    return targets - xp.matmul(coefs, refs) + level[:, None]


def reference_scatter(refs: Any, modes: Modes, /, *, n_modes: int) -> Any:
    """Return the scatter ``(n_pix,)`` of references about their modes: the official error."""
    xp = array_namespace(refs, modes.vectors)
    v = modes.vectors[:, :n_modes]
    residual = refs - xp.matmul(v, xp.matmul(xp.matrix_transpose(v), refs))
    return xp.std(residual, axis=0)
