r"""Variance through shift, subtraction and combination.

The residual is :math:`T - \sum_k c_k R_k` with coefficients that were fitted to the same noisy
pixels. With the modes Z and :math:`A = V_K\,\mathrm{diag}(l^{-1/2})\,Z = dC/dT`, the leverage
:math:`h_i = \sum_k Z_{ki}^2 + 1/n` and :math:`c2_k = c_k^2 - \sum_j A_{kj}^2\,var_{T,j}` (the
squared coefficient without its own noise),

.. math:: v = var_T + \sum_k c2_k\,var_{R,k}, \qquad
          var_i = (1 - 2 h_i) v_i + h_i \langle v \rangle,

where the mean is weighted by h, and the term 2h is there inside the fit zone alone. The errors
are those of photon and detector noise; the speckles that are left are not in them.
"""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace, device


def shift_variance(variance: Any, shift_yx: Any, /) -> Any:
    """Move a variance map ``(n_y, n_x)`` by a fraction of a pixel, by linear interpolation.

    No variance becomes negative, none is lost, a NaN touches four pixels at the most; an edge pixel
    is repeated outwards.
    """
    xp = array_namespace(variance)
    for axis in (0, 1):
        n, whole = variance.shape[axis], int(float(shift_yx[axis]) // 1)
        fraction = float(shift_yx[axis]) - whole
        backwards = whole < 0 and fraction != 0.0  # from this pixel and the next, not the last
        pixels = whole + int(backwards)
        if pixels != 0:
            at = xp.clip(xp.arange(n, device=device(variance)) - pixels, 0, n - 1)
            variance = xp.take(variance, at, axis=axis)
        if fraction != 0.0:
            moved, part = (1.0 - fraction) * variance, fraction * variance
            to, source, edge = slice(1, None), slice(None, -1), slice(None, 1)
            if backwards:
                moved, part = part, moved
                to, source, edge = source, to, slice(-1, None)
            across = (slice(None),) * axis
            moved[*across, to, ...] += part[*across, source, ...]
            moved[*across, edge, ...] += part[*across, edge, ...]
            variance = moved
    return variance


def shift_variances(variances: Any, shift_yx: Any, /, *, outside: float | None = None) -> Any:
    """Do as `shift_variance` for maps ``(n, n_y, n_x)`` and shifts ``(n, 2)``, all at once.

    What comes from beyond the edges is `outside` where that is given, else repeated edge pixels.
    """
    xp = array_namespace(variances, shift_yx)
    for axis in (1, 2):
        shift = xp.reshape(shift_yx[:, axis - 1], (-1, 1, 1))
        whole, n = xp.floor(shift), variances.shape[axis]
        part = xp.astype(shift - whole, variances.dtype)
        to = xp.arange(n, device=device(variances))
        at = xp.reshape(to, (1, -1, 1) if axis == 1 else (1, 1, -1)) - xp.astype(whole, to.dtype)
        near, far = (
            xp.take_along_axis(variances, xp.clip(each, 0, n - 1), axis=axis)
            for each in (at, at - 1)
        )
        if outside is not None:
            near, far = (
                xp.where((each >= 0) & (each < n), values, outside)
                for each, values in ((at, near), (at - 1, far))
            )
        variances = xp.where(part == 0.0, near, (1.0 - part) * near + part * far)
    return variances


def coefficient_noise(mode_pixels: Any, variance: Any, weight: Any, /) -> Any:
    r"""Return :math:`Z\,w^2 var_T\,Z^T` of a block, the covariance of coordinates, to be added."""
    xp = array_namespace(mode_pixels, variance, weight)
    root = mode_pixels * (weight * xp.sqrt(variance))[None, :]
    return xp.matmul(root, xp.matrix_transpose(root))


def own_noise(mode_matrix: Any, mode_noise: Any, /, *, n_modes: int) -> Any:
    """Return the variance ``(n_ref,)`` that the noise of a target gives to its coefficients.

    The diagonal of :math:`W_K^T M_{KK} W_K`, with M from `coefficient_noise`: what is left of the
    squared coefficients without it is unbiased and can be negative.
    """
    xp = array_namespace(mode_matrix, mode_noise)
    w = mode_matrix[:n_modes, :]
    return xp.sum(w * xp.matmul(mode_noise[:n_modes, :n_modes], w), axis=0)


def leverage(mode_pixels: Any, level: float, /) -> Any:
    """Return how strongly each pixel pulls the model towards itself, per unit weight.

    Parameters
    ----------
    mode_pixels : array, shape (n_modes, n_pix)
        The modes Z that are kept.
    level : float
        One over the sum of the weights where the zone mean is subtracted, else zero.

    Returns
    -------
    array, shape (n_pix,)
        Sum over the modes of ``Z_k^2``, plus `level`.

    Examples
    --------
    >>> import numpy as np
    >>> leverage(np.array([[0.6, 0.8], [0.8, -0.6]]), 0.0).round(12).tolist()
    [1.0, 1.0]
    """
    xp = array_namespace(mode_pixels)
    return xp.sum(mode_pixels * mode_pixels, axis=0) + level


def propagate_through_fit(variance: Any, leverage: Any, weight: Any, mean: Any, /) -> Any:
    """Apply the effect of the fit to the variance of a block of pixels.

    Parameters
    ----------
    variance : array, shape (n_t, n_pix)
        The variance v before the effect of the fit.
    leverage : array, shape (n_pix,)
        From `lyot.algorithms.propagation.leverage`.
    weight : array, shape (n_pix,)
        Weight of the fit; zero outside the zone.
    mean : array, shape (n_t,)
        The h-weighted mean of v.

    Returns
    -------
    array, shape (n_t, n_pix)
        ``(1 - 2 h) v + h <v>`` in the zone, ``v + h <v>`` outside, never negative.

    Examples
    --------
    In the zone of the fit each pixel pulls the model towards itself, and its variance falls:

    >>> import numpy as np
    >>> propagate_through_fit(np.ones((1, 2)), np.full(2, 0.25), np.ones(2), np.ones(1)).tolist()
    [[0.75, 0.75]]
    """
    xp = array_namespace(variance, leverage, weight)
    own = 1.0 - 2.0 * leverage * weight
    out = own[None, :] * variance + leverage[None, :] * mean[:, None]
    return xp.maximum(out, xp.zeros_like(out))
