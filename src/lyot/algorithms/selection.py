r"""Which references serve a target, by sub-blocks of one Gram matrix.

With the Gram matrix G of the centered references, their products b with a target and its own
square t, the correlation with reference k is :math:`b_k / \sqrt{G_{kk}\,t}`, and the residual of
the best fit with a set S is :math:`t - b_S G_{SS}^{-1} b_S`: no pixel is needed.
"""

from __future__ import annotations

import numpy as np

from lyot.types import Array, Mask


def correlations(gram: Array, cross: Array, target_square: float, /) -> Array:
    """Return the correlation of a target with each reference.

    Parameters
    ----------
    gram : ndarray, shape (n_ref, n_ref)
        Products of the centered references over the zone.
    cross : ndarray, shape (n_ref,)
        Products of the centered target with them.
    target_square : float
        Product of the centered target with itself.

    Returns
    -------
    ndarray, shape (n_ref,)
        From -1 to 1; zero where a reference or the target is zero.

    Examples
    --------
    >>> import numpy as np
    >>> correlations(np.diag([4.0, 1.0]), np.array([4.0, 0.5]), 4.0).tolist()
    [1.0, 0.25]
    """
    size = np.sqrt(np.maximum(np.diagonal(gram), 0.0) * max(target_square, 0.0))
    return np.divide(cross, size, out=np.zeros_like(size), where=size > 0)


def highest(score: Array, allowed: Mask, n: int, /) -> Mask:
    """Take the `n` allowed references of the highest score; zero means all, the first of equals."""
    taken = allowed.copy()
    if n and allowed.sum() > n:
        order = np.argsort(np.where(allowed, -score, np.inf), kind="stable")
        taken[:] = False
        taken[order[:n]] = True
    return taken


def stepwise(gram: Array, cross: Array, allowed: Mask, n: int, /) -> Mask:
    """Take one reference after another, each time the one that lowers the residual most.

    Orthogonal least squares: what is taken is projected out of the Gram matrix by a step of its
    Cholesky decomposition, and the next reference is judged by its remaining power (Chen, Cowan
    and Grant 1991, doi:10.1109/72.80341). ``n^2 n_ref`` operations.

    Parameters
    ----------
    gram : ndarray, shape (n_ref, n_ref)
        Products of the centered references over the zone.
    cross : ndarray, shape (n_ref,)
        Products of the centered target with them.
    allowed : ndarray of bool, shape (n_ref,)
        Which may be taken.
    n : int
        How many at most.

    Returns
    -------
    ndarray of bool, shape (n_ref,)
        Those taken; fewer than `n` where the rest adds nothing.

    Examples
    --------
    >>> import numpy as np
    >>> stepwise(np.eye(3), np.array([0.1, 0.9, 0.5]), np.ones(3, bool), 2).tolist()
    [False, True, True]
    """
    n_ref = len(cross)
    taken = np.zeros(n_ref, bool)
    power, product = np.diagonal(gram).astype(np.float64).copy(), cross.astype(np.float64).copy()
    floor = 1e-10 * power
    rows = np.zeros((min(n, n_ref), n_ref))
    for step in range(len(rows)):
        candidates = allowed & ~taken & (power > floor)
        if not candidates.any():
            break
        gain = np.where(candidates, product**2 / np.where(candidates, power, 1.0), -1.0)
        best = int(np.argmax(gain))
        row = (gram[best] - rows[:step, best] @ rows[:step]) / np.sqrt(power[best])
        coordinate = product[best] / np.sqrt(power[best])
        rows[step] = row
        product -= coordinate * row
        power -= row**2
        taken[best] = True
    return taken


def displacement_fwhm(
    separation_pix: Array | float, rotation_deg: Array | float, fwhm_pix: float, /
) -> Array:
    """Return the chord between two positions of a source under a rotation [FWHM]."""
    half = np.radians(np.asarray(rotation_deg)) / 2.0
    return np.asarray(2.0 * np.asarray(separation_pix) * np.abs(np.sin(half)) / fwhm_pix)
