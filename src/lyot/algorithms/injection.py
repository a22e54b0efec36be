r"""What a subtraction does to a source that is put into the data, without touching the pixels.

Where the references are free of the source, the response to it is linear: with its image p,
:math:`p - \bar p - C_p (R - \bar R)` and :math:`C_p = (p\,w)(R - \bar R)^T\,W^T W`. Where they
hold it too, with images M at unit flux, the Gram matrix at flux a is exactly
:math:`G(a) = G + a\,(M R^T + R M^T) + a^2 M M^T`, and the residual at flux a follows from its
decomposition. Pixels are needed where the source has light, and where the response is wanted.

The shifts, the bad pixels, what fills them and the choice of references are frozen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from array_api_compat import array_namespace

from lyot.algorithms import klip


def source_products(sources: Any, weight: Any, refs: Any, offset: Any, /) -> Any:
    """Return the products of sources with centered references.

    Parameters
    ----------
    sources : array, shape (n_s, n_pix), or None
        Images of the sources, at unit flux; None for one in each pixel, which gives the operator
        on any source within these pixels.
    weight : array, shape (n_pix,)
        Weight of these pixels in the fit; zero where the target is bad.
    refs : array, shape (n_ref, n_pix)
        References there.
    offset : array, shape (n_ref,)
        Means of the references over the pixels of the fit.

    Returns
    -------
    array, shape (n_s, n_ref)
        To be given to `linear_response`.

    Notes
    -----
    ``2 n_s n_ref n_pix`` operations, in the precision of the input; float64 keeps the response
    exact to 1e-9 of the source's peak.
    """
    xp = array_namespace(weight, refs)
    if sources is None:
        return xp.matrix_transpose((refs - offset[:, None]) * weight)
    weighted = sources * weight
    cross = xp.matmul(weighted, xp.matrix_transpose(refs))
    return cross - xp.sum(weighted, axis=1)[:, None] * offset[None, :]


class SourceModel(NamedTuple):
    r"""The model that a fit makes of sources.

    Attributes
    ----------
    coefs : array, shape (n_s, n_ref)
        Factor of each reference in the model of each source.
    pixels : array, shape (n_s, n_out)
        :math:`C_p (R - \bar R)`.
    """

    coefs: Any
    pixels: Any


def linear_response(
    cross: Any, refs: Any, offset: Any, mode_matrix: Any, /, *, n_modes: int
) -> SourceModel:
    r"""Return the model that a fit makes of sources which the references do not hold.

    Parameters
    ----------
    cross : array, shape (n_s, n_ref)
        From `source_products`.
    refs : array, shape (n_ref, n_out)
        References where the response is wanted.
    offset : array, shape (n_ref,)
        Means of the references over the pixels of the fit.
    mode_matrix : array, shape (n_kept, n_ref)
        From `lyot.algorithms.klip.to_modes`.
    n_modes : int
        Number of modes.

    Returns
    -------
    SourceModel
        The coefficients and the model, to be subtracted from the sources.

    Notes
    -----
    ``2 n_s n_ref (n_modes + n_out)`` operations, in the precision of the input.
    """
    xp = array_namespace(cross, refs)
    coefs = klip.coefficients(cross, mode_matrix, n_modes=n_modes)
    return SourceModel(coefs, xp.matmul(coefs, refs) - xp.matmul(coefs, offset)[:, None])


class FrozenFit(NamedTuple):
    """The fit of one target, and its pixels where sources in target and references have light.

    Attributes
    ----------
    gram : array, shape (n_ref, n_ref)
        Gram matrix of the centered references.
    cross : array, shape (n_ref,)
        Products of the centered target with them.
    target : array, shape (n_pix,)
        The centered target.
    refs : array, shape (n_ref, n_pix)
        The centered references.
    weight : array, shape (n_pix,)
        Weight in the fit; zero where the target is bad.
    weight_sum : float
        Sum of the weights over all pixels of the fit; infinity where no mean is subtracted.
    """

    gram: Any
    cross: Any
    target: Any
    refs: Any
    weight: Any
    weight_sum: float


class Updated(NamedTuple):
    """A fit with a source in the target and in the references.

    Attributes
    ----------
    coefs : array, shape (n_ref,)
        Factor of each reference.
    target_mean : array, shape ()
        What the source adds to the mean of the target.
    ref_means : array, shape (n_ref,)
        What it adds to the mean of each reference.
    residual : array, shape (n_pix,)
        Target less model, both with the source and centered with it.
    """

    coefs: Any
    target_mean: Any
    ref_means: Any
    residual: Any


def update(
    fit: FrozenFit,
    source: Any,
    sources_in_refs: Any,
    flux: float,
    /,
    *,
    n_modes: int,
    matrix_of: Callable[[Any], Any] = lambda gram: klip.to_modes(klip.decompose(gram)),
) -> Updated:
    """Fit again with a source of some flux in the target and in the references.

    Parameters
    ----------
    fit : FrozenFit
        The fit without it.
    source : array, shape (n_pix,)
        Its image in the target, at unit flux.
    sources_in_refs : array, shape (n_ref, n_pix)
        Its image in each reference; zero in those that do not hold it.
    flux : float
        Its flux.
    n_modes : int
        Number of modes.
    matrix_of : callable, optional
        Turns a Gram matrix into what turns references into modes; KL modes by default.

    Returns
    -------
    Updated
        The new fit, exactly.

    Notes
    -----
    ``n_ref^2 n_pix`` operations and one decomposition of ``n_ref x n_ref``; all in float64.
    """
    xp = array_namespace(fit.gram, source)
    w, s = fit.weight, fit.weight_sum
    m = sources_in_refs
    weighted = m * w
    ref_means = xp.sum(weighted, axis=1) / s
    target_mean = xp.sum(source * w) / s
    turned = xp.matrix_transpose(fit.refs)
    mixed = xp.matmul(weighted, turned)
    own = xp.matmul(weighted, xp.matrix_transpose(m))
    if s != float("inf"):
        own = own - s * ref_means[:, None] * ref_means[None, :]
    gram = fit.gram + flux * (mixed + xp.matrix_transpose(mixed)) + flux**2 * own
    linear = xp.matmul(fit.refs, source * w) + xp.matmul(weighted, fit.target)
    quadratic = xp.matmul(weighted, source)
    if s != float("inf"):
        quadratic = quadratic - s * target_mean * ref_means
    cross = fit.cross + flux * linear + flux**2 * quadratic
    coefs = klip.coefficients(cross[None, :], matrix_of(gram), n_modes=n_modes)[0, :]
    refs = fit.refs + flux * (m - ref_means[:, None])
    residual = fit.target + flux * (source - target_mean) - xp.matmul(coefs, refs)
    return Updated(coefs, flux * target_mean, flux * ref_means, residual)
