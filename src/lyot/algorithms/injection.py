r"""What a subtraction does to a source that is put into the data, without touching the pixels.

Where the references are free of the source, the response to it is linear: with its image p,
:math:`p - \bar p - C_p (R - \bar R)` and :math:`C_p = (p\,w)(R - \bar R)^T\,W^T W`. Where they
hold it too, with images M at unit flux, the Gram matrix at flux a is exactly
:math:`G(a) = G + a\,(M R^T + R M^T) + a^2 M M^T`, and the residual at flux a follows from its
decomposition. Pixels are needed where the source has light, and where the response is wanted.

The shifts, the bad pixels, what fills them and the choice of references are frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from array_api_compat import array_namespace

from lyot.algorithms import klip


def source_products(
    sources: Any, weight: Any, light: Any, refs: Sequence[Any], offset: Any, /
) -> Any:
    """Return the products ``(n, n_s, n_ref)`` of sources of unit flux with centered references.

    `sources` are ``(n, n_s, n_rows, n_columns)`` in n boxes, `weight` ``(n, n_rows, n_columns)``
    that of the fit, zero where the target is bad, and `light` ``(n, n_s)`` their weighted sums;
    `refs` of each box are ``(n_ref, n_rows, n_columns)``, and `offset` ``(n_ref,)`` their means
    over the fit.
    """
    xp = array_namespace(sources, weight, offset)
    # Row by row: a box of larger frames is not copied.
    sources = xp.permute_dims(sources, (0, 2, 1, 3)) * weight[:, :, None, :]
    products = [
        xp.sum(xp.matmul(sources[k, ...], xp.permute_dims(box, (1, 2, 0))), axis=0)
        for k, box in enumerate(refs)
    ]
    return xp.stack(products) - light[..., None] * offset


def all_products(weight: Any, refs: Any, offset: Any, /) -> Any:
    """Return the same of one source in each pixel of `weight`: the operator on any source."""
    xp = array_namespace(weight, refs)
    centered = xp.reshape((refs - offset[:, None, None]) * weight, (refs.shape[0], -1))
    return xp.matrix_transpose(centered)


def linear_response(coefs: Any, refs: Sequence[Any], offset: Any, /) -> Any:
    """Return the model ``(n, n_s, n_rows, n_columns)`` that a fit makes of sources in no reference.

    It is to be subtracted from the sources. `coefs` ``(n, n_s, n_ref)`` are those of
    `source_products` (`lyot.algorithms.klip.coefficients`), `refs` those of each box where it is
    wanted ``(n_ref, n_rows, n_columns)``.
    """
    xp = array_namespace(coefs, offset)
    rows = [
        xp.matmul(coefs[k, None, ...], xp.permute_dims(box, (1, 0, 2)))
        for k, box in enumerate(refs)
    ]
    model = xp.permute_dims(xp.stack(rows), (0, 2, 1, 3))
    return model - xp.matmul(coefs, offset)[..., None, None]


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
