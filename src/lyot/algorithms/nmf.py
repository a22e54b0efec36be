r"""Non-negative components of the references, with weights and missing pixels.

The references are modelled as :math:`R \approx W H` with no negative number in W or H, by
coordinate descent on the weighted squares: one component after another is given its best value
with the others held (Cichocki and Phan 2009, doi:10.1587/transfun.E92.A.708). Non-negative
components add up light and never take any away, so a disc that is not in the references is
fitted less than by KL modes (Ren et al. 2018, doi:10.3847/1538-4357/aaa1f2, arXiv:1712.10317;
with missing data Zhu 2016, arXiv:1612.06037, and Ren et al. 2020, doi:10.3847/1538-4357/ab7024).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lyot.types import Array, Mask

N_ITERATIONS = 60


class Components(NamedTuple):
    """A non-negative factorization, ``factors @ pixels``."""

    pixels: Array  # (n_comp, n_pix)
    factors: Array  # (n_ref, n_comp)


def factorize(
    refs: Array,
    weight: Array,
    start: Array,
    /,
    *,
    n_iterations: int = N_ITERATIONS,
) -> Components:
    """Factorise references into non-negative components.

    Parameters
    ----------
    refs : ndarray, shape (n_ref, n_pix)
        References; negative pixels count as they are, but no component follows them.
    weight : ndarray, shape (n_pix,)
        Weight of each pixel, >= 0; zero where it is missing.
    start : ndarray, shape (n_ref, n_comp)
        Factors to begin with, >= 0.
    n_iterations : int, optional
        Number of sweeps over all components.

    Returns
    -------
    Components
        The components are of unit weighted norm, those that hold most light first.

    Examples
    --------
    >>> import numpy as np
    >>> refs = np.outer([1.0, 2.0], [3.0, 4.0])
    >>> found = factorize(refs, np.ones(2), np.ones((2, 1)))
    >>> bool(np.allclose(found.factors @ found.pixels, refs))
    True
    """
    factors = np.maximum(start, 0.0).astype(np.float64)
    pixels = np.zeros((factors.shape[1], refs.shape[1]))
    for _ in range(n_iterations):
        # The weight of a pixel is the same for all references: it does not enter H given W.
        _descend(pixels, factors.T @ factors, factors.T @ refs)
        weighted = pixels * weight
        turned = np.ascontiguousarray(factors.T)
        _descend(turned, weighted @ pixels.T, weighted @ refs.T)
        factors = turned.T
    norm = np.sqrt((pixels**2 * weight).sum(axis=1))
    norm = np.where(norm > 0, norm, 1.0)
    pixels, factors = pixels / norm[:, None], factors * norm
    order = np.argsort(-factors.sum(axis=0), kind="stable")
    return Components(pixels[order], factors[:, order])


def _descend(rows: Array, square: Array, product: Array) -> None:
    """Give each row its best non-negative value in turn, the others held; in place."""
    for k in range(len(rows)):
        if square[k, k] <= 0.0:
            continue
        step = (product[k] - square[k] @ rows) / square[k, k]
        np.maximum(rows[k] + step, 0.0, out=rows[k])


def non_negative(gram: Array, cross: Array, /) -> Mask:
    """Tell which components a non-negative fit to a target uses (Lawson and Hanson 1974).

    Parameters
    ----------
    gram : ndarray, shape (n_comp, n_comp)
        Products of the components.
    cross : ndarray, shape (n_comp,)
        Products of the target with them.

    Returns
    -------
    ndarray of bool, shape (n_comp,)
        Those with a positive coefficient; the unconstrained fit with these alone is the
        non-negative fit with all.

    Examples
    --------
    >>> import numpy as np
    >>> non_negative(np.eye(3), np.array([1.0, -0.5, 0.2])).tolist()
    [True, False, True]
    """
    from scipy.optimize import nnls

    values, vectors = np.linalg.eigh(gram)
    kept = values > 1e-12 * values[-1]
    root = (vectors[:, kept] * np.sqrt(values[kept])).T
    target = (vectors[:, kept].T @ cross) / np.sqrt(values[kept])
    return np.asarray(nnls(root, target)[0] > 0.0)
