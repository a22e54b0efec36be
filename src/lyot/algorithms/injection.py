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


def source_products(weighted: Any, refs: Any, offset: Any, /) -> Any:
    """Return the products ``(n_s, n_ref)`` of sources of unit flux with the centered references.

    `weighted` are the sources ``(n_s, n_rows, n_columns)`` times the weight of the fit, zero where
    the target is bad; `refs` ``(n_ref, n_rows, n_columns)``, and `offset` ``(n_ref,)`` their means
    over the fit.
    """
    xp = array_namespace(weighted, refs)
    # Row by row: a box of larger frames is not copied.
    rows = xp.matmul(xp.permute_dims(weighted, (1, 0, 2)), xp.permute_dims(refs, (1, 2, 0)))
    return xp.sum(rows, axis=0) - xp.sum(weighted, axis=(1, 2))[:, None] * offset[None, :]


def all_products(weight: Any, refs: Any, offset: Any, /) -> Any:
    """Return the same of one source in each pixel of `weight`: the operator on any source."""
    xp = array_namespace(weight, refs)
    centered = xp.reshape((refs - offset[:, None, None]) * weight, (refs.shape[0], -1))
    return xp.matrix_transpose(centered)


def linear_response(coefs: Any, refs: Any, offset: Any, /) -> Any:
    """Return the model ``(n_s, n_rows, n_columns)`` that a fit makes of sources in no reference.

    It is to be subtracted from the sources. `coefs` ``(n_s, n_ref)`` are those of `source_products`
    (`lyot.algorithms.klip.coefficients`), `refs` ``(n_ref, n_rows, n_columns)`` are where it is
    wanted.
    """
    xp = array_namespace(coefs, refs)
    model = xp.matmul(coefs[None, ...], xp.permute_dims(refs, (1, 0, 2)))
    return xp.permute_dims(model, (1, 0, 2)) - xp.matmul(coefs, offset)[:, None, None]


class FrozenFit(NamedTuple):
    """The fit of one target, and its pixels where a source has light, centered as it is."""

    gram: Any  # (n_ref, n_ref)
    cross: Any  # (n_ref,)
    target: Any  # (n_pix,)
    refs: Any  # (n_ref, n_pix)
    weight: Any  # (n_pix,), zero where the target is bad
    weight_sum: float


class Updated(NamedTuple):
    """A fit with a source in the target and in the references."""

    coefs: Any  # (n_ref,)
    target_mean: Any  # (), what the source adds to the mean of the target
    ref_means: Any  # (n_ref,), what it adds to the mean of each reference
    residual: Any  # (n_pix,), target less model, both with the source and centered with it


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
    """Fit again, exactly, with a source of some flux in the target and in the references.

    `source` ``(n_pix,)`` and `sources_in_refs` ``(n_ref, n_pix)`` have unit flux; `matrix_of` turns
    a Gram matrix into modes, by default those of KLIP.
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
